//! [`Opening`]: that a guest has a file open.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::Result;

use super::HostInode;
use crate::tree::HostTree;

/// A file that the guest has open: what is held of it stays for that long.
pub(crate) struct Opening<T: HostTree>(Arc<HostInode<T>>);

impl<T: HostTree> Opening<T> {
    pub(crate) fn new(inode: Arc<HostInode<T>>) -> Opening<T> {
        inode.openings.fetch_add(1, Ordering::Relaxed);
        Opening(inode)
    }

    pub(crate) fn inode(&self) -> &Arc<HostInode<T>> {
        &self.0
    }

    /// Opens no more than the path: the file is held.
    ///
    /// # Errors
    /// ESTALE if no name leads to it any more.
    pub(super) fn held(inode: Arc<HostInode<T>>) -> Result<Opening<T>> {
        let opening = Opening::new(inode);
        opening.node()?;
        Ok(opening)
    }
}

impl<T: HostTree> Deref for Opening<T> {
    type Target = HostInode<T>;

    fn deref(&self) -> &HostInode<T> {
        &self.0
    }
}

impl<T: HostTree> Drop for Opening<T> {
    fn drop(&mut self) {
        if self.0.openings.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.give_back_if_closed();
        }
    }
}
