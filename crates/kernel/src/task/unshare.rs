//! Namespaces that a task makes, for a child (clone(2)) or for itself (unshare(2)).
//!
//! Source: `create_user_ns`, `create_new_namespaces`, `ksys_unshare`; user_namespaces(7).

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::clone::CloneFlags;
use moat_abi::{Errno, Result};
use moat_identity::user_ns::Setfcap;
use moat_identity::{
    CgroupNamespace, Credentials, IpcNamespace, Namespaces, NetNamespace, PidNamespace, UserNamespace, UtsNamespace,
};
use moat_sync::{LockClass, Mutex};
use moat_vfs::FsContext;

use crate::quotas::number;
use crate::task::CurrentTask;

/// Kinds that are part of [`Namespaces`].
const KEPT_TOGETHER: CloneFlags = CloneFlags::NEWUTS
    .union(CloneFlags::NEWPID)
    .union(CloneFlags::NEWCGROUP)
    .union(CloneFlags::NEWIPC)
    .union(CloneFlags::NEWNET);

/// The credentials of whoever is to be in a new user namespace, if `flags` asks for one; else the task's own.
///
/// # Errors
/// ENOSPC for too many, or nested too deeply; EPERM after chroot(2), or for ids that the own namespace has no number for.
pub fn new_credentials(t: &CurrentTask, flags: CloneFlags) -> Result<Arc<Credentials>> {
    let own = t.creds();
    if !flags.contains(CloneFlags::NEWUSER) {
        return Ok(own.clone());
    }
    let id = number(&t.kernel().ids.namespaces, &t.kernel().quotas.user)?;
    // Capabilities in a namespace would help out of the directory (`current_chrooted`).
    let fs = t.fs().lock().clone();
    let chrooted = fs.root != fs.namespace.root();
    if chrooted || !own.user_ns.maps_both(own.euid, own.egid) {
        return Err(Errno::EPERM);
    }
    let maker = if own.has_cap(Cap::SETFCAP) { Setfcap::Held } else { Setfcap::Missing };
    let ns = UserNamespace::child(id, own.user_ns.clone(), (own.euid, own.egid), maker)?;
    Ok(Arc::new(own.in_user_namespace(ns)))
}

/// Whether the task may make the namespaces that `flags` ask for, to be owned by `owner`.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN there, and for kinds that there is only one of.
pub fn check_privilege(t: &CurrentTask, flags: CloneFlags, owner: &Arc<UserNamespace>) -> Result<()> {
    let wanted = flags.intersection(CloneFlags::NAMESPACES - CloneFlags::NEWUSER);
    let networks = t.kernel().vfs.registry.network_maker().is_some();
    if wanted.contains(CloneFlags::NEWNET) && !networks {
        return Err(Errno::EPERM);
    }
    if wanted.is_empty() || t.creds().has_cap_in(owner, Cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// The task's namespaces with new ones in place of those that `flags` name, owned by `owner`.
///
/// # Errors
/// ENOSPC for too many of a kind, or nested too deeply; EINVAL for a pid namespace below another than the task's own; EPERM for a network namespace where there is only one.
pub fn child_namespaces(t: &CurrentTask, flags: CloneFlags, owner: &Arc<UserNamespace>) -> Result<Arc<Namespaces>> {
    let own = t.namespaces();
    if !flags.intersects(KEPT_TOGETHER) {
        return Ok(own);
    }
    let (kernel, mut new) = (t.kernel(), (*own).clone());
    let (ids, quotas, owner) = (&kernel.ids.namespaces, &kernel.quotas, || owner.clone());
    if flags.contains(CloneFlags::NEWUTS) {
        new.uts = UtsNamespace::new(number(ids, &quotas.uts)?, owner(), own.uts.names());
    }
    if flags.contains(CloneFlags::NEWPID) {
        // Made in the namespace that the task is in, and for no less than that one's owner (`copy_pid_ns`).
        let here = t.pid_ns();
        if here.id != own.pid_for_children.id || !owner().is_within(&here.user_ns) {
            return Err(Errno::EINVAL);
        }
        new.pid_for_children =
            PidNamespace::new(number(ids, &quotas.pid)?, owner(), Some(own.pid_for_children.clone()))?;
    }
    if flags.contains(CloneFlags::NEWCGROUP) {
        new.cgroup = CgroupNamespace::new(number(ids, &quotas.cgroup)?, owner());
        t.group.container.show_in(&new.cgroup);
    }
    if flags.contains(CloneFlags::NEWIPC) {
        new.ipc = IpcNamespace::new(number(ids, &quotas.ipc)?, owner());
    }
    if flags.contains(CloneFlags::NEWNET) {
        // With the host's network there can be no other: the sandbox has no right to make one.
        let make = kernel.vfs.registry.network_maker().ok_or(Errno::EPERM)?;
        new.net = NetNamespace::new(number(ids, &quotas.net)?, owner());
        make(&new.net);
    }
    Ok(Arc::new(new))
}

/// A copy of the task's root, working directory and umask, in a mount namespace of its own if `flags` ask for one.
///
/// # Errors
/// ENOSPC for too many of them.
pub fn child_fs(t: &CurrentTask, flags: CloneFlags, owner: &Arc<UserNamespace>) -> Result<FsContext> {
    let mut context = t.fs().lock().clone();
    if flags.contains(CloneFlags::NEWNS) {
        let charge = t.kernel().quotas.mount.charge()?;
        let ns = context.namespace.clone();
        // Root and working directory are carried over to the same places of the copied mounts.
        context.namespace = ns.copy(owner.clone(), Some(charge), &mut [&mut context.cwd, &mut context.root]);
    }
    Ok(context)
}

/// unshare(2), for flags that are known to go together: all of it, or nothing.
///
/// # Errors
/// Those of the above.
pub fn unshare(t: &mut CurrentTask, flags: CloneFlags) -> Result<()> {
    let creds = new_credentials(t, flags)?;
    check_privilege(t, flags, &creds.user_ns)?;
    let namespaces = child_namespaces(t, flags, &creds.user_ns)?;
    // Others who share its directories are not to follow into a tree of mounts, nor to lend them to the privileged.
    let fs = if flags.intersects(CloneFlags::FS | CloneFlags::NEWNS | CloneFlags::NEWUSER) {
        Some(child_fs(t, flags, &creds.user_ns)?)
    } else {
        None
    };
    if !Arc::ptr_eq(&creds, t.creds()) {
        t.set_creds((*creds).clone());
    }
    if let Some(fs) = fs {
        t.replace_fs(Arc::new(Mutex::new(LockClass::Process, fs)));
    }
    if flags.contains(CloneFlags::FILES) {
        // A copy, so that nobody who shares the table sees later changes.
        let own = Arc::new(t.fds().copy());
        t.replace_fds(own);
    }
    t.enter_namespaces(namespaces);
    Ok(())
}
