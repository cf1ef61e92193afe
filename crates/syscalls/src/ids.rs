//! Who a task is: process and thread ids, user and group ids.
//!
//! Source: credentials(7), setuid(2), setresuid(2), setfsuid(2), setgroups(2), `kernel/sys.c`, `cap_task_fix_setuid`.

use std::sync::Arc;

use moat_abi::cap::{Cap, CapSet, NGROUPS_MAX, SECBIT_KEEP_CAPS, SECBIT_NO_SETUID_FIXUP};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::cred::{Credentials, UserNamespace};

syscalls! { pub static TABLE;
    39 getpid() sys_getpid, full;
    186 gettid() sys_gettid, full;
    110 getppid() sys_getppid, full;
    102 getuid() sys_getuid, full;
    104 getgid() sys_getgid, full;
    107 geteuid() sys_geteuid, full;
    108 getegid() sys_getegid, full;
    105 setuid(uid: u32) sys_setuid, full;
    106 setgid(gid: u32) sys_setgid, full;
    113 setreuid(ruid: u32, euid: u32) sys_setreuid, full;
    114 setregid(rgid: u32, egid: u32) sys_setregid, full;
    117 setresuid(ruid: u32, euid: u32, suid: u32) sys_setresuid, full;
    118 getresuid(ruid: UserPtr<u32>, euid: UserPtr<u32>, suid: UserPtr<u32>) sys_getresuid, full;
    119 setresgid(rgid: u32, egid: u32, sgid: u32) sys_setresgid, full;
    120 getresgid(rgid: UserPtr<u32>, egid: UserPtr<u32>, sgid: UserPtr<u32>) sys_getresgid, full;
    122 setfsuid(uid: u32) sys_setfsuid, full;
    123 setfsgid(gid: u32) sys_setfsgid, full;
    115 getgroups(size: i32, list: UserAddr) sys_getgroups, full;
    116 setgroups(size: i32, list: UserAddr) sys_setgroups, full;
}

/// "Leave as it is" in setresuid(2) and its like.
const KEEP: u32 = u32::MAX;

/// A pid or id as a system call returns it.
pub(crate) fn pid_result(pid: i32) -> SyscallResult {
    Ok(i64::from(pid).cast_unsigned())
}

fn sys_getpid(t: &mut CurrentTask) -> SyscallResult {
    pid_result(t.tgid())
}

fn sys_gettid(t: &mut CurrentTask) -> SyscallResult {
    pid_result(t.tid())
}

fn sys_getppid(t: &mut CurrentTask) -> SyscallResult {
    pid_result(t.parent_pid())
}

fn shown_uid(t: &CurrentTask, uid: u32) -> u32 {
    t.creds().user_ns.show_uid(uid)
}

fn shown_gid(t: &CurrentTask, gid: u32) -> u32 {
    t.creds().user_ns.show_gid(gid)
}

fn sys_getuid(t: &mut CurrentTask) -> SyscallResult {
    Ok(u64::from(shown_uid(t, t.creds().uid)))
}

fn sys_getgid(t: &mut CurrentTask) -> SyscallResult {
    Ok(u64::from(shown_gid(t, t.creds().gid)))
}

fn sys_geteuid(t: &mut CurrentTask) -> SyscallResult {
    Ok(u64::from(shown_uid(t, t.creds().euid)))
}

fn sys_getegid(t: &mut CurrentTask) -> SyscallResult {
    Ok(u64::from(shown_gid(t, t.creds().egid)))
}

fn write3(t: &CurrentTask, to: [UserPtr<u32>; 3], ids: [u32; 3]) -> SyscallResult {
    for (p, id) in to.into_iter().zip(ids) {
        t.mm().write(p, &id)?;
    }
    Ok(0)
}

fn sys_getresuid(t: &mut CurrentTask, ruid: UserPtr<u32>, euid: UserPtr<u32>, suid: UserPtr<u32>) -> SyscallResult {
    let c = t.creds();
    write3(t, [ruid, euid, suid], [c.uid, c.euid, c.suid].map(|id| shown_uid(t, id)))
}

fn sys_getresgid(t: &mut CurrentTask, rgid: UserPtr<u32>, egid: UserPtr<u32>, sgid: UserPtr<u32>) -> SyscallResult {
    let c = t.creds();
    write3(t, [rgid, egid, sgid], [c.gid, c.egid, c.sgid].map(|id| shown_gid(t, id)))
}

/// The kernel's id of a guest's; EINVAL if it has none.
fn kernel_uid(ns: &Arc<UserNamespace>, uid: u32) -> Result<u32> {
    ns.kernel_uid(uid).ok_or(Errno::EINVAL)
}

fn kernel_gid(ns: &Arc<UserNamespace>, gid: u32) -> Result<u32> {
    ns.kernel_gid(gid).ok_or(Errno::EINVAL)
}

fn optional(id: u32, map: impl FnOnce(u32) -> Result<u32>) -> Result<Option<u32>> {
    if id == KEEP { Ok(None) } else { map(id).map(Some) }
}

/// What becomes of the capabilities when user ids change (`cap_emulate_setxuid`).
fn fix_capabilities(old: &Credentials, new: &mut Credentials) {
    if old.securebits & SECBIT_NO_SETUID_FIXUP != 0 {
        return;
    }
    let root = old.user_ns.kernel_uid(0);
    let is_root = |id: u32| Some(id) == root;
    let had_root = [old.uid, old.euid, old.suid].into_iter().any(is_root);
    let has_root = [new.uid, new.euid, new.suid].into_iter().any(is_root);
    // The last uid 0 is given up: capabilities go, unless PR_SET_KEEPCAPS says otherwise.
    if had_root && !has_root {
        if old.securebits & SECBIT_KEEP_CAPS == 0 {
            new.permitted = CapSet::EMPTY;
            new.effective = CapSet::EMPTY;
        }
        new.ambient = CapSet::EMPTY;
    }
    // The effective set follows the effective uid (capabilities(7)).
    if is_root(old.euid) && !is_root(new.euid) {
        new.effective = CapSet::EMPTY;
    }
    if !is_root(old.euid) && is_root(new.euid) {
        new.effective = new.permitted;
    }
}

/// Commits new user ids.
fn commit_uids(t: &mut CurrentTask, mut new: Credentials) -> SyscallResult {
    let old = t.creds().clone();
    // setfsuid(2) alone makes them differ.
    new.fsuid = new.euid;
    fix_capabilities(&old, &mut new);
    t.set_creds(new);
    Ok(0)
}

fn commit_gids(t: &mut CurrentTask, mut new: Credentials) -> SyscallResult {
    new.fsgid = new.egid;
    t.set_creds(new);
    Ok(0)
}

fn sys_setuid(t: &mut CurrentTask, uid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let uid = kernel_uid(&old.user_ns, uid)?;
    let mut new = (*old).clone();
    // With the capability it is final: the saved id goes too.
    if old.has_cap(Cap::SETUID) {
        new.uid = uid;
        new.suid = uid;
    } else if uid != old.uid && uid != old.suid {
        return Err(Errno::EPERM.into());
    }
    new.euid = uid;
    commit_uids(t, new)
}

fn sys_setgid(t: &mut CurrentTask, gid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let gid = kernel_gid(&old.user_ns, gid)?;
    let mut new = (*old).clone();
    if old.has_cap(Cap::SETGID) {
        new.gid = gid;
        new.sgid = gid;
    } else if gid != old.gid && gid != old.sgid {
        return Err(Errno::EPERM.into());
    }
    new.egid = gid;
    commit_gids(t, new)
}

fn sys_setreuid(t: &mut CurrentTask, ruid: u32, euid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let ruid = optional(ruid, |id| kernel_uid(&old.user_ns, id))?;
    let euid = optional(euid, |id| kernel_uid(&old.user_ns, id))?;
    let capable = old.has_cap(Cap::SETUID);
    let mut new = (*old).clone();
    if let Some(r) = ruid {
        if r != old.uid && r != old.euid && !capable {
            return Err(Errno::EPERM.into());
        }
        new.uid = r;
    }
    if let Some(e) = euid {
        if e != old.uid && e != old.euid && e != old.suid && !capable {
            return Err(Errno::EPERM.into());
        }
        new.euid = e;
    }
    // The saved id follows where a real id was given, or the effective one leaves it (setreuid(2)).
    if ruid.is_some() || euid.is_some_and(|e| e != old.uid) {
        new.suid = new.euid;
    }
    commit_uids(t, new)
}

fn sys_setregid(t: &mut CurrentTask, rgid: u32, egid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let rgid = optional(rgid, |id| kernel_gid(&old.user_ns, id))?;
    let egid = optional(egid, |id| kernel_gid(&old.user_ns, id))?;
    let capable = old.has_cap(Cap::SETGID);
    let mut new = (*old).clone();
    if let Some(r) = rgid {
        if r != old.gid && r != old.egid && !capable {
            return Err(Errno::EPERM.into());
        }
        new.gid = r;
    }
    if let Some(e) = egid {
        if e != old.gid && e != old.egid && e != old.sgid && !capable {
            return Err(Errno::EPERM.into());
        }
        new.egid = e;
    }
    if rgid.is_some() || egid.is_some_and(|e| e != old.gid) {
        new.sgid = new.egid;
    }
    commit_gids(t, new)
}

fn sys_setresuid(t: &mut CurrentTask, ruid: u32, euid: u32, suid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let ids = [ruid, euid, suid];
    let mut mapped = [None; 3];
    for (to, id) in mapped.iter_mut().zip(ids) {
        *to = optional(id, |id| kernel_uid(&old.user_ns, id))?;
    }
    let own = [old.uid, old.euid, old.suid];
    // Each may become any of the three, but nothing else.
    if !old.has_cap(Cap::SETUID) && mapped.iter().flatten().any(|id| !own.contains(id)) {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    new.uid = mapped[0].unwrap_or(old.uid);
    new.euid = mapped[1].unwrap_or(old.euid);
    new.suid = mapped[2].unwrap_or(old.suid);
    commit_uids(t, new)
}

fn sys_setresgid(t: &mut CurrentTask, rgid: u32, egid: u32, sgid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let ids = [rgid, egid, sgid];
    let mut mapped = [None; 3];
    for (to, id) in mapped.iter_mut().zip(ids) {
        *to = optional(id, |id| kernel_gid(&old.user_ns, id))?;
    }
    let own = [old.gid, old.egid, old.sgid];
    if !old.has_cap(Cap::SETGID) && mapped.iter().flatten().any(|id| !own.contains(id)) {
        return Err(Errno::EPERM.into());
    }
    let mut new = (*old).clone();
    new.gid = mapped[0].unwrap_or(old.gid);
    new.egid = mapped[1].unwrap_or(old.egid);
    new.sgid = mapped[2].unwrap_or(old.sgid);
    commit_gids(t, new)
}

/// Gives the old id whether it changes anything or not.
fn sys_setfsuid(t: &mut CurrentTask, uid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let shown = shown_uid(t, old.fsuid);
    // There are no errors: a caller sees from the old id that nothing changed (setfsuid(2)).
    let Some(uid) = old.user_ns.kernel_uid(uid) else { return Ok(u64::from(shown)) };
    if [old.uid, old.euid, old.suid, old.fsuid].contains(&uid) || old.has_cap(Cap::SETUID) {
        let mut new = (*old).clone();
        new.fsuid = uid;
        if old.securebits & SECBIT_NO_SETUID_FIXUP == 0 {
            let root = old.user_ns.kernel_uid(0);
            // Capabilities over files follow this id (capabilities(7)).
            if Some(old.fsuid) == root && Some(uid) != root {
                new.effective = new.effective.difference(CapSet::FS_MASK);
            } else if Some(old.fsuid) != root && Some(uid) == root {
                new.effective = new.effective.union(new.permitted.intersection(CapSet::FS_MASK));
            }
        }
        t.set_creds(new);
    }
    Ok(u64::from(shown))
}

fn sys_setfsgid(t: &mut CurrentTask, gid: u32) -> SyscallResult {
    let old = t.creds().clone();
    let shown = shown_gid(t, old.fsgid);
    let Some(gid) = old.user_ns.kernel_gid(gid) else { return Ok(u64::from(shown)) };
    if [old.gid, old.egid, old.sgid, old.fsgid].contains(&gid) || old.has_cap(Cap::SETGID) {
        let mut new = (*old).clone();
        new.fsgid = gid;
        t.set_creds(new);
    }
    Ok(u64::from(shown))
}

fn sys_getgroups(t: &mut CurrentTask, size: i32, list: UserAddr) -> SyscallResult {
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    let groups: Vec<u32> = t.creds().groups.iter().map(|g| shown_gid(t, *g)).collect();
    if size != 0 {
        // EINVAL, not a part of the list.
        if size < groups.len() {
            return Err(Errno::EINVAL.into());
        }
        t.mm().write_array(list, &groups)?;
    }
    Ok(groups.len() as u64)
}

fn sys_setgroups(t: &mut CurrentTask, size: i32, list: UserAddr) -> SyscallResult {
    let old = t.creds().clone();
    // A namespace may forbid it, so that a group that takes rights away cannot be dropped (user_namespaces(7)).
    let maps = old.user_ns.maps();
    if !old.has_cap(Cap::SETGID) || maps.setgroups_denied || maps.gid.is_none() {
        return Err(Errno::EPERM.into());
    }
    let size = usize::try_from(size).map_err(|_| Errno::EINVAL)?;
    if size > NGROUPS_MAX {
        return Err(Errno::EINVAL.into());
    }
    let raw = t.mm().read_array::<u32>(list, size, NGROUPS_MAX)?;
    let mut groups = raw.into_iter().map(|g| kernel_gid(&old.user_ns, g)).collect::<Result<Vec<_>>>()?;
    // Sorted, so that membership is a binary search.
    groups.sort_unstable();
    let mut new = (*old).clone();
    new.groups = groups.into();
    t.set_creds(new);
    Ok(0)
}
