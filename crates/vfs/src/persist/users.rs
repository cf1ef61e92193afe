//! User namespaces out of an image, and who may be in them: no more than processes of the configuration could have made.

use std::sync::Arc;

use moat_abi::cap::{Cap, CapSet};
use moat_identity::user_ns::{IdMaps, IdRange, Setfcap};
use moat_identity::{Credentials, NamespaceId, UserNamespace};
use moat_image::refs::find;
use moat_image::state::{CredentialsState, SandboxState, UserNamespaceState};
use moat_image::{ImageError, Ref};

/// The most lines of a map (`UID_GID_MAP_MAX_EXTENTS`).
const MOST_RANGES: usize = 340;

/// What a container's configuration lets its processes be.
pub struct Bounds<'a> {
    /// Who its init would be.
    pub init: Credentials,
    /// Gives the numbers of user namespaces, which count as those that processes make.
    pub number: &'a (dyn Fn() -> moat_abi::Result<NamespaceId> + Sync),
}

fn unfit(what: impl Into<String>) -> ImageError {
    ImageError::Unfit(what.into())
}

/// User namespaces by their numbers in the image.
pub(super) struct Users {
    root: Arc<UserNamespace>,
    made: Vec<Arc<UserNamespace>>,
    /// A process of the container may make namespaces of other kinds.
    makes_others: bool,
}

impl Users {
    pub(super) fn restore(
        state: &SandboxState,
        root: &Arc<UserNamespace>,
        bounds: &Bounds<'_>,
    ) -> Result<Users, ImageError> {
        let makes_others = bounds.most().contains(Cap::SYS_ADMIN);
        let mut users = Users { root: root.clone(), made: Vec::new(), makes_others };
        for saved in state.user_namespaces.iter() {
            // Only what stands before it is there: a circle of parents would have no end.
            let parent = users.get(saved.parent)?;
            let made = bounds.namespace(saved, &parent)?;
            users.made.push(made);
        }
        Ok(users)
    }

    /// A user namespace.
    pub(super) fn get(&self, name: Option<Ref<UserNamespaceState>>) -> Result<Arc<UserNamespace>, ImageError> {
        name.map_or(Ok(&self.root), |name| find(&self.made, name)).cloned()
    }

    /// The owner of a namespace of another kind that a process has made.
    pub(super) fn owner(&self, name: Option<Ref<UserNamespaceState>>) -> Result<Arc<UserNamespace>, ImageError> {
        // In one below, its maker has that capability.
        if name.is_none() && !self.makes_others {
            return Err(unfit("a namespace that the configuration does not let a process make"));
        }
        self.get(name)
    }
}

impl Bounds<'_> {
    /// What a process may have by way of execve(2), too.
    fn most(&self) -> CapSet {
        self.init.bounding.union(self.init.permitted)
    }

    /// Nothing could have made a process another user: neither a set-user-ID program nor a capability.
    fn is_fixed(&self, cap: Cap) -> bool {
        self.init.no_new_privs && !self.most().contains(cap)
    }

    fn namespace(
        &self,
        saved: &UserNamespaceState,
        parent: &Arc<UserNamespace>,
    ) -> Result<Arc<UserNamespace>, ImageError> {
        let (uid, gid) = saved.owner;
        // A namespace is made by who has ids in the one above.
        let could_be = if parent.is_root() {
            let group = || gid == self.init.gid || self.init.groups.contains(&gid);
            (!self.is_fixed(Cap::SETUID) || uid == self.init.uid) && (!self.is_fixed(Cap::SETGID) || group())
        } else {
            parent.maps_both(uid, gid)
        };
        if !could_be {
            return Err(unfit(format!(
                "a user namespace of user {uid}, which the configuration does not let a process be"
            )));
        }
        // Whoever is in a namespace below may have all capabilities there.
        let may = |cap| !parent.is_root() || self.most().contains(cap);
        let above = parent.maps();
        let uid_map = map(saved.uids.as_deref(), above.uid.as_deref(), may(Cap::SETUID), uid)?;
        let gid_map = map(saved.gids.as_deref(), above.gid.as_deref(), may(Cap::SETGID), gid)?;
        // By it, the namespace's root may become that of the one above.
        let maker = if saved.setfcap && may(Cap::SETFCAP) { Setfcap::Held } else { Setfcap::Missing };
        let failed = |errno| unfit(format!("a user namespace: {errno}"));
        let ns = UserNamespace::child((self.number)().map_err(failed)?, parent.clone(), saved.owner, maker);
        let ns = ns.map_err(failed)?;
        // What was denied above stays so.
        ns.change_maps(|maps| {
            let setgroups_denied = maps.setgroups_denied || saved.setgroups_denied;
            *maps = IdMaps { uid: uid_map, gid: gid_map, setgroups_denied };
            Ok(())
        })
        .map_err(failed)?;
        Ok(ns)
    }

    /// The credentials of the image, as far as the configuration allows them.
    pub(super) fn credentials(&self, c: &CredentialsState, users: &Users) -> Result<Arc<Credentials>, ImageError> {
        let user_ns = users.get(c.user)?;
        // Below, capabilities reach no further than the namespace's own map.
        let most = if user_ns.is_root() { self.most() } else { CapSet::FULL };
        let at_most = |bits: u64| CapSet(bits).intersection(most);
        let below = !user_ns.is_root();
        let is_own_uid = |id: &u32| *id == self.init.uid || (below && user_ns.find_uid(*id).is_some());
        if self.is_fixed(Cap::SETUID) && ![c.uid, c.euid, c.suid, c.fsuid].iter().all(is_own_uid) {
            let what = format!("a process of user {}, which the configuration does not let it become", c.uid);
            return Err(unfit(what));
        }
        let is_own_gid = |id: &u32| *id == self.init.gid || (below && user_ns.find_gid(*id).is_some());
        // setgroups(2) takes the capability, too, also to give one up; a group among several is none to become.
        let is_own_group = |id: &u32| self.init.groups.contains(id) || (below && user_ns.find_gid(*id).is_some());
        let own_groups = [c.gid, c.egid, c.sgid, c.fsgid].iter().all(is_own_gid) && c.groups.iter().all(is_own_group);
        if self.is_fixed(Cap::SETGID) && !own_groups {
            let what = format!("a process of group {}, or groups, that the configuration does not let it have", c.gid);
            return Err(unfit(what));
        }
        let mut groups = c.groups.clone();
        // `Credentials` has them in order.
        groups.sort_unstable();
        groups.dedup();
        Ok(Arc::new(Credentials {
            uid: c.uid,
            euid: c.euid,
            suid: c.suid,
            fsuid: c.fsuid,
            gid: c.gid,
            egid: c.egid,
            sgid: c.sgid,
            fsgid: c.fsgid,
            groups: groups.into(),
            effective: at_most(c.effective),
            permitted: at_most(c.permitted),
            inheritable: at_most(c.inheritable),
            bounding: at_most(c.bounding),
            ambient: at_most(c.ambient),
            securebits: c.securebits,
            no_new_privs: c.no_new_privs || self.init.no_new_privs,
            user_ns,
        }))
    }
}

/// A map that a process may have written: within `above`, and only of the owner's own id where it could map no other
/// (`new_idmap_permitted`).
fn map(
    saved: Option<&[(u32, u32, u32)]>,
    above: Option<&[IdRange]>,
    any: bool,
    own: u32,
) -> Result<Option<Vec<IdRange>>, ImageError> {
    let Some(saved) = saved else { return Ok(None) };
    // The last id is none, and a range has at least one.
    let fits = |(inside, outside, count): &(u32, u32, u32)| {
        let last = |first: u32| first.checked_add(count.checked_sub(1)?).filter(|last| *last != u32::MAX);
        let (Some(_), Some(last)) = (last(*inside), last(*outside)) else { return false };
        let holds = |r: &IdRange| *outside >= r.outside && last.saturating_sub(r.outside) < r.count;
        above.is_some_and(|above| above.iter().any(holds))
    };
    // Written by the namespace itself, without a capability above.
    let permitted = any || matches!(saved, [(_, outside, 1)] if *outside == own);
    if saved.is_empty() || saved.len() > MOST_RANGES || !permitted || !saved.iter().all(fits) {
        return Err(unfit("the map of a user namespace that the configuration does not let a process write"));
    }
    Ok(Some(saved.iter().map(|&(inside, outside, count)| IdRange { inside, outside, count }).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_within_the_one_above() {
        let above = [IdRange { inside: 0, outside: 1000, count: 10 }];
        let map = |saved: &[(u32, u32, u32)], any| map(Some(saved), Some(&above), any, 1003).is_ok();
        assert!(map(&[(0, 1000, 10)], true) && map(&[(5, 1009, 1), (7, 1000, 2)], true));
        assert!(!map(&[(0, 1000, 11)], true) && !map(&[(0, 999, 1)], true) && !map(&[(0, 1009, u32::MAX)], true));
        assert!(!map(&[], true) && !map(&[(0, 1000, 0)], true) && !map(&[(0, 1000, 1); 341], true));
        assert!(map(&[(0, 1003, 1)], false) && !map(&[(0, 1004, 1)], false) && !map(&[(0, 1003, 2)], false));
    }
}
