//! What is known of a file without asking, where only this sandbox changes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_vfs::acl::{Acl, AclKind};
use moat_vfs::inode::Metadata;

use super::HostInode;
use crate::fs::Trust;
use crate::tree::HostTree;

/// Attributes and access control lists. An answer of the host is noted only if nothing has changed since it was asked.
#[derive(Default)]
pub(super) struct Known {
    version: u64,
    attributes: Option<Metadata>,
    /// Mappings through which the guest changes the file unseen: times and size are asked each time.
    stores: u32,
    access_acl: Option<Option<Arc<Acl>>>,
    default_acl: Option<Option<Arc<Acl>>>,
}

impl Known {
    pub(super) fn new(trust: Trust, meta: &Metadata) -> Known {
        Known { attributes: (trust == Trust::Exclusive).then_some(*meta), ..Known::default() }
    }

    fn acl(&mut self, kind: AclKind) -> &mut Option<Option<Arc<Acl>>> {
        match kind {
            AclKind::Access => &mut self.access_acl,
            AclKind::Default => &mut self.default_acl,
        }
    }
}

/// Whether the host changes the access time at the next read, as with `relatime` (mount(8)). That it does so once a day besides is
/// seen when something else changes.
pub(super) fn read_shows(meta: &Metadata) -> bool {
    let at = |t: Timespec| (t.tv_sec, t.tv_nsec);
    at(meta.atime) <= at(meta.mtime) || at(meta.atime) <= at(meta.ctime)
}

impl<T: HostTree> HostInode<T> {
    /// The file was changed: its attributes must be asked again.
    pub(crate) fn changed(&self) {
        let mut known = self.known.lock();
        known.version += 1;
        known.attributes = None;
        known.access_acl = None;
    }

    /// The file was read: its attributes are forgotten if that changes the access time.
    pub(crate) fn was_read(&self) {
        if self.core.trust == Trust::Exclusive && self.read_shows.swap(false, Ordering::Relaxed) {
            self.changed();
        }
    }

    /// Its extended attributes were changed, maybe its lists.
    pub(super) fn attributes_changed(&self) {
        self.changed();
        self.known.lock().default_acl = None;
    }

    /// What is known without asking.
    pub(crate) fn known_attributes(&self) -> Option<Metadata> {
        self.known.lock().attributes
    }

    fn version(&self) -> u64 {
        self.known.lock().version
    }

    /// Notes the answer to a question asked at `version`.
    fn learn(&self, meta: Metadata, version: u64) {
        self.mode.store(meta.mode, Ordering::Relaxed);
        if self.core.trust == Trust::Exclusive {
            let mut known = self.known.lock();
            if known.version == version && known.stores == 0 {
                self.read_shows.store(read_shows(&meta), Ordering::Relaxed);
                known.attributes = Some(meta);
            }
        }
    }

    /// The file was looked up again. What was known of it stays; what was forgotten is not learnt here, since it may have been
    /// changed since it was asked.
    pub(crate) fn learn_again(&self, meta: &Metadata) {
        self.mode.store(meta.mode, Ordering::Relaxed);
    }

    /// The attributes, as the host has them at this moment, asked by `ask`.
    pub(crate) fn ask_by(&self, ask: impl FnOnce() -> Result<Metadata>) -> Result<Metadata> {
        let version = self.version();
        let meta = self.core.translate(ask()?);
        // What was asked about is another file by now.
        if !self.identity.is(&meta) {
            return Err(Errno::ESTALE);
        }
        self.learn(meta, version);
        Ok(meta)
    }

    pub(super) fn acl(&self, kind: AclKind) -> Result<Option<Arc<Acl>>> {
        if self.core.trust == Trust::Exclusive
            && let Some(known) = self.known.lock().acl(kind).clone()
        {
            return Ok(known);
        }
        // Before the host is asked: what changes meanwhile must not be remembered as it was.
        let version = self.version();
        let asked = self.with_node(|node| self.core.tree.get_xattr(node, kind.attribute()));
        let acl = match asked {
            Ok(value) => Acl::parse(&value)?.map(Arc::new),
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => None,
            Err(e) => return Err(e),
        };
        let mut known = self.known.lock();
        if self.core.trust == Trust::Exclusive && known.version == version {
            *known.acl(kind) = Some(acl.clone());
        }
        Ok(acl)
    }
}

/// Held while a file is mapped so that stores change it.
pub(crate) struct MappedStores<T: HostTree>(Arc<HostInode<T>>);

impl<T: HostTree> MappedStores<T> {
    pub(crate) fn new(inode: Arc<HostInode<T>>) -> MappedStores<T> {
        {
            let mut known = inode.known.lock();
            known.stores = known.stores.saturating_add(1);
            known.attributes = None;
        }
        MappedStores(inode)
    }
}

impl<T: HostTree> Drop for MappedStores<T> {
    fn drop(&mut self) {
        let mut known = self.0.known.lock();
        known.stores = known.stores.saturating_sub(1);
    }
}
