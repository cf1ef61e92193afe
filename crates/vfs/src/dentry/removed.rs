//! Names that are gone, and the directories that had them.

use std::sync::Arc;

use super::{Dentry, Kind};
use crate::inode::{Cache, Inode};

impl Dentry {
    /// Whether the name has been removed, here or above: no path leads here any more.
    #[must_use]
    pub fn is_deleted(&self) -> bool {
        self.state.read().unhashed
    }

    /// Whether it is a directory that is gone (`IS_DEADDIR`), not only its name: where others move directories too, a name says little.
    pub(crate) fn is_dead(&self) -> bool {
        let moved = || self.inode.metadata().is_ok_and(|meta| meta.nlink != 0);
        self.is_deleted() && !(self.inode.cache_policy() == Cache::Revalidate && moved())
    }

    /// A dentry that no directory has in its cache.
    pub(super) fn detached(parent: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        let d = Dentry::new(&parent.cache, inode, Kind::Tree, Some(name.into()), Some(parent.clone()));
        d.state.write().unhashed = true;
        d
    }
}
