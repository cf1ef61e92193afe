//! Who is in which process group and session: setsid(2), setpgid(2), orphaned groups.
//!
//! What terminals make of it is in `moat_tty`. Source: credentials(7), `kernel/sys.c`, `kernel/exit.c`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::siginfo::{SI_KERNEL, SigInfo};
use moat_abi::signal::Signal;
use moat_abi::{Errno, Result};
use moat_identity::{ProcessGroup, Session};

use crate::kernel::Kernel;
use crate::process::group::{GroupId, ThreadGroup};
use crate::task::CurrentTask;

/// setsid(2).
///
/// # Errors
/// EPERM if the caller leads a process group.
pub fn set_sid(t: &CurrentTask) -> Result<i32> {
    let pid = t.group.pid().clone();
    let mut family = t.kernel().family.lock();
    // Also a group whose leader has left it: a session can't have the number of an older group.
    if family.pgrp(pid.id).is_some() {
        return Err(Errno::EPERM);
    }
    let session = Session::new(pid.clone(), t.kernel().job_signals());
    let pgrp = ProcessGroup::new(pid.clone(), session);
    family.change_pgrp(t.group.id, pgrp);
    Ok(pid.number())
}

/// setpgid(2).
///
/// # Errors
/// EINVAL, ESRCH, EACCES (the child has called execve), EPERM.
pub fn set_pgid(t: &CurrentTask, pid: i32, pgid: i32) -> Result<()> {
    let ns = t.pid_ns();
    let target = if pid == 0 { t.group.clone() } else { t.kernel().process(&ns, pid).ok_or(Errno::ESRCH)? };
    let target_pid = if pid == 0 { t.group.pid().number_in(&ns) } else { pid };
    let pgid = if pgid == 0 { target_pid } else { pgid };
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let wanted = if pgid == target_pid { target.pid().clone() } else { ns.lookup(pgid).ok_or(Errno::EPERM)? };
    let mut family = t.kernel().family.lock();
    let own = family.session_of(t.group.id).ok_or(Errno::ESRCH)?;
    let node = family.node(target.id).ok_or(Errno::ESRCH)?;
    if target.id != t.group.id {
        // A child may be moved only before its execve: the program that comes then is to find what it expects.
        if node.parent != Some(t.group.id) {
            return Err(Errno::ESRCH);
        }
        if node.pgrp.session.id() != own.id() {
            return Err(Errno::EPERM);
        }
        if target.did_exec.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    }
    if node.pgrp.session.is_led_by(target.pid()) {
        return Err(Errno::EPERM);
    }
    // An existing group of the same session is joined; a new one can only be led by the process that it is named after.
    let pgrp = match family.pgrp(wanted.id) {
        Some(p) if p.session.id() == own.id() => p,
        Some(_) => return Err(Errno::EPERM),
        None if wanted.id == target.pid().id => ProcessGroup::new(wanted, own),
        None => return Err(Errno::EPERM),
    };
    family.change_pgrp(target.id, pgrp);
    Ok(())
}

/// What becomes stopped and orphaned when a process leaves its group gets SIGHUP and SIGCONT (`kill_orphaned_pgrp`).
///
/// The link that is lost was to a process of `parent`: only one of another group in the same session kept the group from
/// being orphaned. The family must not be locked.
pub fn hang_up_if_orphaned(
    kernel: &Kernel,
    pgrp: &Arc<ProcessGroup>,
    parent: Option<&Arc<ProcessGroup>>,
    leaving: Option<GroupId>,
) {
    if parent.is_none_or(|p| p.id() == pgrp.id() || p.session.id() != pgrp.session.id()) {
        return;
    }
    let members = {
        let family = kernel.family.lock();
        if !family.is_orphaned(pgrp, leaving) {
            return;
        }
        family.members(pgrp.id())
    };
    let stopped = |g: &Arc<ThreadGroup>| g.signals.lock().stop.complete;
    // Nobody in the session is left to continue them. SIGHUP first, so that they find it when they go on.
    if members.iter().any(stopped) {
        pgrp.send(SigInfo::new(Signal::SIGHUP, SI_KERNEL));
        pgrp.send(SigInfo::new(Signal::SIGCONT, SI_KERNEL));
    }
}
