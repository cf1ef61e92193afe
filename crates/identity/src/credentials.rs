//! [`Credentials`]: who a task is and what it may do. Source: credentials(7), capabilities(7).

use std::sync::Arc;

use moat_abi::cap::{Cap, CapSet};

use crate::user_ns::UserNamespace;

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
    /// Root with every capability, in `user_ns`.
    #[must_use]
    pub fn root(user_ns: Arc<UserNamespace>) -> Credentials {
        Credentials::user(0, 0, Arc::from([]), CapSet::FULL, user_ns)
    }

    /// The user `uid`:`gid` of `user_ns` with `caps` effective and permitted.
    #[must_use]
    pub fn user(uid: u32, gid: u32, groups: Arc<[u32]>, caps: CapSet, user_ns: Arc<UserNamespace>) -> Credentials {
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
            user_ns,
        }
    }

    /// The same user in `user_ns`, with every capability there (`set_cred_user_ns`).
    #[must_use]
    pub fn in_user_namespace(&self, user_ns: Arc<UserNamespace>) -> Credentials {
        Credentials {
            // The maker of a user namespace has every capability in it, whatever it had outside (user_namespaces(7)).
            effective: CapSet::FULL,
            permitted: CapSet::FULL,
            inheritable: CapSet::EMPTY,
            bounding: CapSet::FULL,
            ambient: CapSet::EMPTY,
            securebits: 0,
            user_ns,
            ..self.clone()
        }
    }

    /// Whether `new` permits nothing that this does not. The whole of a namespace below that one's owner has made is no more
    /// than the owner has (`cred_cap_issubset`).
    #[must_use]
    pub fn permits_all_of(&self, new: &Credentials) -> bool {
        if Arc::ptr_eq(&self.user_ns, &new.user_ns) {
            return self.permitted.contains_all(new.permitted);
        }
        // Who owns a namespace, or one above it, may do everything in it (`cred_cap_issubset`).
        let mut at = &new.user_ns;
        while let Some(parent) = &at.parent {
            if Arc::ptr_eq(parent, &self.user_ns) && at.owner.0 == self.euid {
                return true;
            }
            at = parent;
        }
        false
    }

    /// Whether `cap` is effective in the task's own user namespace.
    #[must_use]
    pub fn has_cap(&self, cap: Cap) -> bool {
        self.effective.contains(cap)
    }

    /// Whether the task has `cap` towards `ns` (`ns_capable`).
    #[must_use]
    pub fn has_cap_in(&self, ns: &Arc<UserNamespace>, cap: Cap) -> bool {
        // Capabilities reach down: to the caller's own namespace and all below it.
        let mut at = ns;
        loop {
            if Arc::ptr_eq(at, &self.user_ns) {
                return self.effective.contains(cap);
            }
            let Some(parent) = &at.parent else { return false };
            // Who made a namespace may do everything in it (user_namespaces(7)).
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
