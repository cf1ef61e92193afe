//! Credentials: who a task is and what it may do. Source: credentials(7), capabilities(7), user_namespaces(7).

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::cap::{Cap, CapSet, OVERFLOW_ID};
use moat_sync::{LockClass, RwLock};

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

/// A user namespace.
///
/// Ids in [`Credentials`] and in files are those of the root namespace ("kernel ids"); a namespace maps them only at
/// the system-call boundary.
pub struct UserNamespace {
    /// Names the namespace in /proc/PID/ns.
    pub id: u64,
    /// `None` for the root namespace.
    pub parent: Option<Arc<UserNamespace>>,
    /// Effective ids of who made it.
    pub owner: (u32, u32),
    maps: RwLock<IdMaps>,
}

impl std::fmt::Debug for UserNamespace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "user:[{}]", self.id)
    }
}

static NEXT_ID: AtomicU64 = AtomicU64::new(0xf000_0000);

impl UserNamespace {
    /// The namespace of the sandbox's first process, in which every id is itself.
    #[must_use]
    pub fn root() -> Arc<UserNamespace> {
        static ROOT: OnceLock<Arc<UserNamespace>> = OnceLock::new();
        ROOT.get_or_init(|| {
            let all = vec![IdRange { inside: 0, outside: 0, count: u32::MAX }];
            Arc::new(UserNamespace {
                id: 0xeffffffd,
                parent: None,
                owner: (0, 0),
                maps: RwLock::new(
                    LockClass::Table,
                    IdMaps { uid: Some(all.clone()), gid: Some(all), setgroups_denied: false },
                ),
            })
        })
        .clone()
    }

    /// A child namespace with no mapping yet.
    #[must_use]
    pub fn child(parent: Arc<UserNamespace>, owner: (u32, u32)) -> Arc<UserNamespace> {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        Arc::new(UserNamespace {
            id,
            parent: Some(parent),
            owner,
            maps: RwLock::new(LockClass::Table, IdMaps::default()),
        })
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

    /// Replaces the maps; the caller has checked the rules of user_namespaces(7).
    pub fn set_maps(&self, maps: IdMaps) {
        *self.maps.write() = maps;
    }

    /// The kernel's uid of `uid` inside; `None` if it is not mapped.
    #[must_use]
    pub fn kernel_uid(&self, uid: u32) -> Option<u32> {
        if self.is_root() { (uid != u32::MAX).then_some(uid) } else { to_kernel(self.maps.read().uid.as_deref(), uid) }
    }

    /// The kernel's gid of `gid` inside; `None` if it is not mapped.
    #[must_use]
    pub fn kernel_gid(&self, gid: u32) -> Option<u32> {
        if self.is_root() { (gid != u32::MAX).then_some(gid) } else { to_kernel(self.maps.read().gid.as_deref(), gid) }
    }

    /// What the kernel's `uid` is inside; [`OVERFLOW_ID`] if it is not mapped.
    #[must_use]
    pub fn show_uid(&self, uid: u32) -> u32 {
        if self.is_root() { uid } else { from_kernel(self.maps.read().uid.as_deref(), uid).unwrap_or(OVERFLOW_ID) }
    }

    /// What the kernel's `gid` is inside; [`OVERFLOW_ID`] if it is not mapped.
    #[must_use]
    pub fn show_gid(&self, gid: u32) -> u32 {
        if self.is_root() { gid } else { from_kernel(self.maps.read().gid.as_deref(), gid).unwrap_or(OVERFLOW_ID) }
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

fn to_kernel(map: Option<&[IdRange]>, id: u32) -> Option<u32> {
    let r = map?.iter().find(|r| id >= r.inside && id - r.inside < r.count)?;
    r.outside.checked_add(id - r.inside)
}

fn from_kernel(map: Option<&[IdRange]>, id: u32) -> Option<u32> {
    let r = map?.iter().find(|r| id >= r.outside && id - r.outside < r.count)?;
    r.inside.checked_add(id - r.outside)
}

/// Who a task is. Immutable: a change makes a new one.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are those of credentials(7)")]
pub struct Credentials {
    pub uid: u32,
    pub euid: u32,
    pub suid: u32,
    pub fsuid: u32,
    pub gid: u32,
    pub egid: u32,
    pub sgid: u32,
    pub fsgid: u32,
    /// Supplementary groups, sorted.
    pub groups: Arc<[u32]>,
    pub effective: CapSet,
    pub permitted: CapSet,
    pub inheritable: CapSet,
    pub bounding: CapSet,
    pub ambient: CapSet,
    /// `SECBIT_*`.
    pub securebits: u32,
    pub no_new_privs: bool,
    pub user_ns: Arc<UserNamespace>,
}

impl Credentials {
    /// Root with every capability, in the root user namespace.
    #[must_use]
    pub fn root() -> Credentials {
        Credentials::user(0, 0, Arc::from([]), CapSet::FULL)
    }

    /// The user `uid`:`gid` with `caps` effective and permitted.
    #[must_use]
    pub fn user(uid: u32, gid: u32, groups: Arc<[u32]>, caps: CapSet) -> Credentials {
        Credentials {
            uid,
            euid: uid,
            suid: uid,
            fsuid: uid,
            gid,
            egid: gid,
            sgid: gid,
            fsgid: gid,
            groups,
            effective: caps,
            permitted: caps,
            inheritable: CapSet::EMPTY,
            bounding: CapSet::FULL,
            ambient: CapSet::EMPTY,
            securebits: 0,
            no_new_privs: false,
            user_ns: UserNamespace::root(),
        }
    }

    /// Whether `cap` is effective in the task's own user namespace.
    #[must_use]
    pub fn has_cap(&self, cap: Cap) -> bool {
        self.effective.contains(cap)
    }

    /// Whether the task has `cap` towards `ns` (`ns_capable`).
    #[must_use]
    pub fn has_cap_in(&self, ns: &Arc<UserNamespace>, cap: Cap) -> bool {
        let mut at = ns;
        loop {
            if Arc::ptr_eq(at, &self.user_ns) {
                return self.effective.contains(cap);
            }
            let Some(parent) = &at.parent else { return false };
            if Arc::ptr_eq(parent, &self.user_ns) && at.owner.0 == self.euid {
                return true;
            }
            at = parent;
        }
    }

    /// Whether the task has `cap` in the root user namespace (`capable`).
    #[must_use]
    pub fn has_root_cap(&self, cap: Cap) -> bool {
        self.user_ns.is_root() && self.effective.contains(cap)
    }

    /// Whether `cap` applies to a file of `uid`:`gid` (`capable_wrt_inode_uidgid`).
    #[must_use]
    pub fn has_cap_for(&self, uid: u32, gid: u32, cap: Cap) -> bool {
        self.effective.contains(cap) && self.user_ns.maps_both(uid, gid)
    }

    /// Whether `gid` is the file system gid or one of the supplementary groups (`in_group_p`).
    #[must_use]
    pub fn in_group(&self, gid: u32) -> bool {
        self.fsgid == gid || self.groups.binary_search(&gid).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_namespace_maps_and_limits_capabilities() {
        let ns = UserNamespace::child(UserNamespace::root(), (1000, 1000));
        assert_eq!(ns.kernel_uid(0), None);
        let map = vec![IdRange { inside: 0, outside: 1000, count: 1 }];
        ns.set_maps(IdMaps { uid: Some(map.clone()), gid: Some(map), setgroups_denied: true });
        assert_eq!((ns.kernel_uid(0), ns.show_uid(1000), ns.show_uid(0)), (Some(1000), 0, OVERFLOW_ID));
        let mut inside = Credentials::user(1000, 1000, Arc::from([]), CapSet::FULL);
        inside.user_ns = ns.clone();
        assert!(inside.has_cap_for(1000, 1000, Cap::DAC_OVERRIDE));
        assert!(!inside.has_cap_for(0, 0, Cap::DAC_OVERRIDE));
        assert!(!inside.has_root_cap(Cap::SYS_ADMIN) && inside.has_cap_in(&ns, Cap::SYS_ADMIN));
        let maker = Credentials::user(1000, 1000, Arc::from([]), CapSet::EMPTY);
        assert!(maker.has_cap_in(&ns, Cap::SYS_ADMIN), "the maker owns its child");
    }
}
