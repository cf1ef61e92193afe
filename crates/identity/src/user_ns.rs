//! [`UserNamespace`]: where user and group ids count. Source: user_namespaces(7).

use std::sync::Arc;

use moat_abi::cap::OVERFLOW_ID;
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, RwLock};

use crate::quota::{Charge, NamespaceId};

/// The inode number of the first user namespace (`PROC_USER_INIT_INO`).
const ROOT_ID: u64 = 0xeffffffd;
/// A namespace deeper than this has no children (`create_user_ns`).
const MAX_LEVEL: u32 = 32;

/// One line of a uid or gid map: `count` ids from `inside` on are the kernel's ids from `outside` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct IdRange {
    pub inside: u32,
    pub outside: u32,
    pub count: u32,
}

/// Both maps of a user namespace; `None` until they have been written.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct IdMaps {
    pub uid: Option<Vec<IdRange>>,
    pub gid: Option<Vec<IdRange>>,
    /// "deny" was written to /proc/PID/setgroups.
    pub setgroups_denied: bool,
}

/// Whether a maker of a user namespace had CAP_SETFCAP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Setfcap {
    Held,
    Missing,
}

/// A user namespace.
///
/// Ids in [`crate::Credentials`] and in files are those of the root namespace ("kernel ids"); a namespace maps them only at
/// the system-call boundary.
pub struct UserNamespace {
    /// Names the namespace in /proc/PID/ns.
    pub id: u64,
    /// `None` for the root namespace.
    pub parent: Option<Arc<UserNamespace>>,
    /// Effective ids of who made it.
    pub owner: (u32, u32),
    /// How many namespaces are above it.
    pub level: u32,
    /// Whether its maker had CAP_SETFCAP: then its own root may become that of the parent (`parent_could_setfcap`).
    pub maker: Setfcap,
    /// What it counts as.
    _charge: Option<Charge>,
    maps: RwLock<IdMaps>,
    /// Of a root namespace that has not all ids: what its ids are outside of this kernel.
    outer: Option<IdMaps>,
}

impl std::fmt::Debug for UserNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user:[{}]", self.id)
    }
}

impl UserNamespace {
    /// The first namespace of a kernel, in which every id is itself. Each call makes another one.
    #[must_use]
    pub fn root() -> Arc<UserNamespace> {
        // All ids but -1, which is none.
        let all = vec![IdRange { inside: 0, outside: 0, count: u32::MAX }];
        UserNamespace::made_first(IdMaps { uid: Some(all.clone()), gid: Some(all), setgroups_denied: false }, None)
    }

    /// As [`UserNamespace::root`], with the ids that `outer` names and no others, each itself; `outer` is what /proc/PID/uid_map shows.
    #[must_use]
    pub fn root_mapped(outer: IdMaps) -> Arc<UserNamespace> {
        let own = |ranges: &Option<Vec<IdRange>>| {
            Some(ranges.iter().flatten().map(|r| IdRange { outside: r.inside, ..*r }).collect())
        };
        let maps = IdMaps { uid: own(&outer.uid), gid: own(&outer.gid), setgroups_denied: outer.setgroups_denied };
        UserNamespace::made_first(maps, Some(outer))
    }

    fn made_first(maps: IdMaps, outer: Option<IdMaps>) -> Arc<UserNamespace> {
        Arc::new(UserNamespace {
            id: ROOT_ID,
            parent: None,
            owner: (0, 0),
            level: 0,
            maker: Setfcap::Held,
            _charge: None,
            maps: RwLock::new(LockClass::Table, maps),
            outer,
        })
    }

    /// Whether every id is itself: nothing has to be looked up.
    fn has_all(&self) -> bool {
        self.parent.is_none() && self.outer.is_none()
    }

    /// The maps as the namespace itself is shown them.
    #[must_use]
    pub fn shown_maps(&self) -> IdMaps {
        self.outer.clone().unwrap_or_else(|| self.maps())
    }

    /// A child namespace with no mapping yet; `id` is fresh.
    ///
    /// # Errors
    /// ENOSPC for one that would be nested too deeply.
    pub fn child(
        id: impl Into<NamespaceId>,
        parent: Arc<UserNamespace>,
        owner: (u32, u32),
        maker: Setfcap,
    ) -> Result<Arc<UserNamespace>> {
        let NamespaceId { number: id, charge } = id.into();
        if parent.level > MAX_LEVEL {
            return Err(Errno::ENOSPC);
        }
        // What was denied above can't be allowed again below, where it would drop groups all the same.
        let setgroups_denied = parent.maps.read().setgroups_denied;
        let maps = IdMaps { uid: None, gid: None, setgroups_denied };
        Ok(Arc::new(UserNamespace {
            id,
            level: parent.level.saturating_add(1),
            parent: Some(parent),
            owner,
            maker,
            _charge: charge,
            maps: RwLock::new(LockClass::Table, maps),
            outer: None,
        }))
    }

    /// The root namespace above it, or itself.
    #[must_use]
    pub fn first(self: &Arc<Self>) -> Arc<UserNamespace> {
        let mut at = self;
        while let Some(parent) = &at.parent {
            at = parent;
        }
        at.clone()
    }

    /// Whether this is `other` or one below it.
    #[must_use]
    pub fn is_within(self: &Arc<Self>, other: &Arc<UserNamespace>) -> bool {
        let mut at = Some(self);
        while let Some(ns) = at {
            if Arc::ptr_eq(ns, other) {
                return true;
            }
            at = ns.parent.as_ref();
        }
        false
    }

    /// Whether this is the root namespace.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.parent.is_none()
    }

    /// A copy of the maps.
    #[must_use]
    pub fn maps(&self) -> IdMaps {
        self.maps.read().clone()
    }

    /// Changes the maps by `change`, which checks the rules of user_namespaces(7): nobody else changes them meanwhile.
    ///
    /// # Errors
    /// Those of `change`, which then has changed nothing.
    pub fn change_maps(&self, change: impl FnOnce(&mut IdMaps) -> Result<()>) -> Result<()> {
        change(&mut self.maps.write())
    }

    /// `ranges`, whose `outside` are uids of this namespace, with the kernel's in their place; `None` if it does not map them all.
    #[must_use]
    pub fn kernel_uids(&self, ranges: &[IdRange]) -> Option<Vec<IdRange>> {
        let maps = self.maps.read();
        ranges.iter().map(|r| flatten(maps.uid.as_deref()?, *r)).collect()
    }

    /// As [`UserNamespace::kernel_uids`], for gids.
    #[must_use]
    pub fn kernel_gids(&self, ranges: &[IdRange]) -> Option<Vec<IdRange>> {
        let maps = self.maps.read();
        ranges.iter().map(|r| flatten(maps.gid.as_deref()?, *r)).collect()
    }

    /// The kernel's uid of `uid` inside; `None` if it is not mapped.
    #[must_use]
    pub fn kernel_uid(&self, uid: u32) -> Option<u32> {
        if self.has_all() { (uid != u32::MAX).then_some(uid) } else { to_kernel(self.maps.read().uid.as_deref(), uid) }
    }

    /// The kernel's gid of `gid` inside; `None` if it is not mapped.
    #[must_use]
    pub fn kernel_gid(&self, gid: u32) -> Option<u32> {
        if self.has_all() { (gid != u32::MAX).then_some(gid) } else { to_kernel(self.maps.read().gid.as_deref(), gid) }
    }

    /// What the kernel's `uid` is inside; [`OVERFLOW_ID`] if it is not mapped.
    #[must_use]
    pub fn show_uid(&self, uid: u32) -> u32 {
        self.find_uid(uid).unwrap_or(OVERFLOW_ID)
    }

    /// What the kernel's `gid` is inside; [`OVERFLOW_ID`] if it is not mapped.
    #[must_use]
    pub fn show_gid(&self, gid: u32) -> u32 {
        self.find_gid(gid).unwrap_or(OVERFLOW_ID)
    }

    /// What the kernel's `uid` is inside, if it is mapped.
    #[must_use]
    pub fn find_uid(&self, uid: u32) -> Option<u32> {
        if self.is_root() { Some(uid) } else { from_kernel(self.maps.read().uid.as_deref(), uid) }
    }

    /// What the kernel's `gid` is inside, if it is mapped.
    #[must_use]
    pub fn find_gid(&self, gid: u32) -> Option<u32> {
        if self.is_root() { Some(gid) } else { from_kernel(self.maps.read().gid.as_deref(), gid) }
    }

    /// Whether both kernel ids have a name inside: only then do capabilities apply to a file of theirs.
    #[must_use]
    pub fn maps_both(&self, uid: u32, gid: u32) -> bool {
        if self.is_root() {
            return true;
        }
        let m = self.maps.read();
        from_kernel(m.uid.as_deref(), uid).is_some() && from_kernel(m.gid.as_deref(), gid).is_some()
    }
}

/// The kernel's ids of `range`, whose `outside` are ids of a namespace with the map `parent`: all in one of its ranges
/// (`map_id_range_down`).
fn flatten(parent: &[IdRange], range: IdRange) -> Option<IdRange> {
    let last = range.outside.checked_add(range.count.checked_sub(1)?)?;
    let holds = |r: &&IdRange| range.outside >= r.inside && last.saturating_sub(r.inside) < r.count;
    let r = parent.iter().find(|r| last >= r.inside && holds(r))?;
    Some(IdRange { outside: r.outside.checked_add(range.outside.saturating_sub(r.inside))?, ..range })
}

fn to_kernel(map: Option<&[IdRange]>, id: u32) -> Option<u32> {
    let r = map?.iter().find(|r| id >= r.inside && id - r.inside < r.count)?;
    r.outside.checked_add(id - r.inside)
}

fn from_kernel(map: Option<&[IdRange]>, id: u32) -> Option<u32> {
    let r = map?.iter().find(|r| id >= r.outside && id - r.outside < r.count)?;
    r.inside.checked_add(id - r.outside)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credentials::Credentials;
    use moat_abi::cap::{Cap, CapSet};

    #[test]
    fn a_child_namespace_maps_and_limits_capabilities() {
        let root = UserNamespace::root();
        let ns = UserNamespace::child(1, root.clone(), (1000, 1000), Setfcap::Held).unwrap();
        assert_eq!(ns.kernel_uid(0), None);
        let map = vec![IdRange { inside: 0, outside: 1000, count: 1 }];
        ns.change_maps(|maps| {
            *maps = IdMaps { uid: Some(map.clone()), gid: Some(map), setgroups_denied: true };
            Ok(())
        })
        .unwrap();
        assert_eq!((ns.kernel_uid(0), ns.show_uid(1000), ns.show_uid(0)), (Some(1000), 0, OVERFLOW_ID));
        let inside = Credentials::user(1000, 1000, Arc::from([]), CapSet::FULL, ns.clone());
        assert!(inside.has_cap_for(1000, 1000, Cap::DAC_OVERRIDE));
        assert!(!inside.has_cap_for(0, 0, Cap::DAC_OVERRIDE));
        assert!(!inside.has_root_cap(Cap::SYS_ADMIN) && inside.has_cap_in(&ns, Cap::SYS_ADMIN));
        let maker = Credentials::user(1000, 1000, Arc::from([]), CapSet::EMPTY, root);
        assert!(maker.has_cap_in(&ns, Cap::SYS_ADMIN), "the maker owns its child");
    }
}
