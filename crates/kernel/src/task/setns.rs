//! setns(2): joining namespaces that exist.
//!
//! Source: `validate_nsset`, `commit_nsset` in `kernel/nsproxy.c`, and the `install` functions of the kinds.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_identity::{Credentials, Namespaces, UserNamespace};
use moat_vfs::mount::MountNamespace;

use crate::nsfs::Namespace;
use crate::task::CurrentTask;

/// What a task is to be after it has joined: nothing of it is changed until all is known to be allowed.
struct Joined {
    creds: Arc<Credentials>,
    namespaces: Namespaces,
    mounts: Option<Arc<MountNamespace>>,
}

/// Joins all of `wanted`, or none.
///
/// # Errors
/// EPERM without the capabilities; EINVAL for a pid namespace that is not below the caller's, for the user namespace that it
/// is in, or where others share what would change; EUSERS for several threads and a time namespace.
pub fn join(t: &mut CurrentTask, wanted: &[Namespace]) -> Result<()> {
    let mut joined = Joined { creds: t.creds().clone(), namespaces: (*t.namespaces()).clone(), mounts: None };
    // The user namespace first: it decides what the caller may do about the others.
    let (user, others): (Vec<_>, Vec<_>) = wanted.iter().partition(|n| matches!(n, Namespace::User(_)));
    for namespace in user.into_iter().chain(others) {
        install(t, &mut joined, namespace)?;
    }
    commit(t, joined);
    Ok(())
}

/// Notes that `namespace` is to be joined, if that is allowed.
fn install(t: &CurrentTask, joined: &mut Joined, namespace: &Namespace) -> Result<()> {
    let privileged = |owner: &Arc<UserNamespace>| {
        let both = |c| t.creds().has_cap_in(owner, c) && t.creds().has_cap_in(&joined.creds.user_ns, c);
        if both(Cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
    };
    match namespace {
        Namespace::User(ns) => joined.creds = Arc::new(user_credentials(t, ns)?),
        Namespace::Mount(ns) => {
            privileged(ns.user_ns())?;
            if !t.creds().has_cap_in(&joined.creds.user_ns, Cap::SYS_CHROOT) {
                return Err(Errno::EPERM);
            }
            if t.shares_fs() {
                return Err(Errno::EINVAL);
            }
            joined.mounts = Some(ns.clone());
        }
        Namespace::Pid(ns) => {
            privileged(&ns.user_ns)?;
            // A child must be visible to its parent.
            if !t.pid_ns().contains(ns) {
                return Err(Errno::EINVAL);
            }
            joined.namespaces.pid_for_children = ns.clone();
        }
        Namespace::Time(owner) => {
            if t.group.thread_count() > 1 {
                return Err(Errno::EUSERS);
            }
            // There is one, and everybody is in it.
            privileged(owner)?;
        }
        Namespace::Uts(ns) => {
            privileged(&ns.user_ns)?;
            joined.namespaces.uts = ns.clone();
        }
        Namespace::Ipc(ns) => {
            privileged(&ns.user_ns)?;
            joined.namespaces.ipc = ns.clone();
        }
        Namespace::Net(ns) => {
            privileged(&ns.user_ns)?;
            joined.namespaces.net = ns.clone();
        }
        Namespace::Cgroup(ns) => {
            privileged(&ns.user_ns)?;
            joined.namespaces.cgroup = ns.clone();
        }
    }
    Ok(())
}

/// The credentials of the caller in `ns` (`userns_install`).
fn user_credentials(t: &CurrentTask, ns: &Arc<UserNamespace>) -> Result<Credentials> {
    // Nobody gains capabilities by joining where it is already, nor for others who share its directories.
    if Arc::ptr_eq(ns, &t.creds().user_ns) || t.group.thread_count() > 1 || t.shares_fs() {
        return Err(Errno::EINVAL);
    }
    if !t.creds().has_cap_in(ns, Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    Ok(t.creds().in_user_namespace(ns.clone()))
}

fn commit(t: &mut CurrentTask, joined: Joined) {
    if !Arc::ptr_eq(&joined.creds, t.creds()) {
        t.set_creds((*joined.creds).clone());
    }
    if let Some(mounts) = joined.mounts {
        let root = mounts.root();
        let mut fs = t.fs().lock();
        let old = (std::mem::replace(&mut fs.namespace, mounts), std::mem::replace(&mut fs.root, root.clone()));
        let cwd = std::mem::replace(&mut fs.cwd, root);
        drop(fs);
        // The last reference to a tree of mounts may be among them.
        drop((old, cwd));
    }
    t.enter_namespaces(Arc::new(joined.namespaces));
}
