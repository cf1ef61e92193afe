//! Who may trace or inspect whom (`ptrace_may_access`).

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_vfs::cred::Credentials;

use crate::process::group::Dumpable;
use crate::task::Task;

/// Which ids of the caller count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ids {
    /// File system ids: for reading /proc.
    FileSystem,
    /// Real ids: for ptrace(2), process_vm_readv(2).
    Real,
}

/// Whether `caller`, with `creds`, may inspect `target` as a debugger may.
///
/// # Errors
/// EPERM.
pub fn check(caller: &Task, creds: &Arc<Credentials>, target: &Task, ids: Ids) -> Result<()> {
    // Threads of one process have the same memory anyway.
    if Arc::ptr_eq(&caller.group, &target.group) {
        return Ok(());
    }
    let (uid, gid) = match ids {
        Ids::FileSystem => (creds.fsuid, creds.fsgid),
        Ids::Real => (creds.uid, creds.gid),
    };
    let t = target.creds();
    // All ids must be the caller's: a set-id program in the target has other rights.
    let same = [t.uid, t.euid, t.suid].iter().all(|u| *u == uid) && [t.gid, t.egid, t.sgid].iter().all(|g| *g == gid);
    let capable = creds.has_cap_in(&t.user_ns, Cap::SYS_PTRACE);
    if !same && !capable {
        return Err(Errno::EPERM);
    }
    may_see(creds, target)
}

/// What holds whoever the caller is by its ids: memory that may not be dumped, and a target that is permitted more.
///
/// # Errors
/// EPERM.
pub fn may_see(creds: &Credentials, target: &Task) -> Result<()> {
    // The program may have been started where the caller has no say (`mm->user_ns`): it has joined the namespace since.
    let guarded = target.group.dumpable() == Dumpable::No;
    if guarded && !creds.has_cap_in(&target.group.exec_user_ns(), Cap::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    // Capabilities of different namespaces can't be compared (`cap_ptrace_access_check`).
    let t = target.creds();
    let has_more = !Arc::ptr_eq(&creds.user_ns, &t.user_ns) || !creds.permitted.contains_all(t.permitted);
    if has_more && !creds.has_cap_in(&t.user_ns, Cap::SYS_PTRACE) {
        return Err(Errno::EPERM);
    }
    Ok(())
}
