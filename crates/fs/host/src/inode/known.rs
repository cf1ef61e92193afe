//! What is known of a file, and of a directory's entries, without asking, where only this sandbox changes it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_vfs::acl::{Acl, AclKind};
use moat_vfs::inode::Metadata;

use super::HostInode;
use crate::fs::Trust;
use crate::listing::Listing;
use crate::tree::HostTree;

/// Attributes and access control lists. An answer of the host is noted only if nothing has changed since it was asked.
#[derive(Default)]
pub(super) struct Known {
    version: u64,
    attributes: Option<Metadata>,
    /// Of these mode and owner are as they were, the rest may not be.
    outdated: bool,
    /// Mappings through which the guest changes the file unseen: times and size are asked each time.
    stores: u32,
    access_acl: Option<Option<Arc<Acl>>>,
    default_acl: Option<Option<Arc<Acl>>>,
    listing: Option<Arc<Listing>>,
}

impl Known {
    pub(super) fn new(trust: Trust, meta: &Metadata) -> Known {
        Known { attributes: (trust == Trust::Exclusive).then_some(*meta), ..Known::default() }
    }

    /// What was asked before is not noted any more.
    fn touch(&mut self) {
        self.version = self.version.wrapping_add(1);
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
        known.touch();
        known.attributes = None;
        known.access_acl = None;
        let listing = known.listing.take();
        drop(known);
        drop(listing);
    }

    /// The file was read: its attributes are forgotten if that changes the access time.
    pub(crate) fn was_read(&self) {
        if self.core.trust == Trust::Exclusive && self.read_shows.swap(false, Ordering::Relaxed) {
            let mut known = self.known.lock();
            known.touch();
            known.outdated = true;
        }
    }

    /// Entries of this directory have come or gone.
    pub(super) fn entries_changed(&self) {
        let mut known = self.known.lock();
        known.touch();
        known.outdated = true;
        let listing = known.listing.take();
        drop(known);
        drop(listing);
    }

    /// What is in this directory: as it was last seen, where only this sandbox changes it, else as the host says, by the node.
    pub(crate) fn listing(&self, node: impl FnOnce() -> Result<Arc<T::Node>>) -> Result<Arc<Listing>> {
        // One that was not noted is not there, whoever changes the tree.
        let (version, known) = {
            let known = self.known.lock();
            (known.version, known.listing.clone())
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let listing = Arc::new(Listing::new(self.core.tree.list(&*node()?)?));
        self.note_listing(&listing, version);
        self.was_read();
        Ok(listing)
    }

    fn note_listing(&self, listing: &Arc<Listing>, version: u64) {
        if self.core.trust != Trust::Exclusive {
            return;
        }
        {
            let mut known = self.known.lock();
            if known.version != version {
                return;
            }
            known.listing = Some(listing.clone());
        }
        let Some(me) = self.me.upgrade() else { return };
        // An empty directory takes its place, too.
        for old in self.core.listed.note(&me, listing.len().saturating_add(1)) {
            let gone = old.known.lock().listing.take();
            drop(gone);
        }
    }

    /// Its extended attributes were changed, maybe its lists.
    pub(super) fn attributes_changed(&self) {
        self.changed();
        self.known.lock().default_acl = None;
    }

    /// What is known without asking.
    pub(crate) fn known_attributes(&self) -> Option<Metadata> {
        let known = self.known.lock();
        if known.outdated { None } else { known.attributes }
    }

    /// What is known of mode and owner.
    pub(super) fn known_ownership(&self) -> Option<Metadata> {
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
                known.outdated = false;
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
