//! waitid(2) with all its options: children made by clone without SIGCHLD are waited for with `WaitFlags::ALL`.

use std::os::fd::{AsRawFd, BorrowedFd};

use libc::pid_t;
use moat_abi::clone::{P_ALL, P_PGID, P_PID, P_PIDFD, Rusage, WaitFlags};
use moat_abi::{Result, SigInfo};

use crate::result::retry;

/// Which children to wait for.
#[derive(Clone, Copy, Debug)]
pub enum WaitTarget<'a> {
    /// Any.
    Any,
    /// This one.
    Pid(pid_t),
    /// Those of this process group.
    Group(pid_t),
    /// The one of this pidfd.
    Pidfd(BorrowedFd<'a>),
}

/// What a child did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChildEvent {
    /// The child.
    pub pid: pid_t,
    /// Its real user id.
    pub uid: u32,
    /// `CLD_*`.
    pub code: i32,
    /// Exit status or signal.
    pub status: i32,
    /// What it and its own children used.
    pub rusage: Rusage,
}

/// Waits for a change of a child; `None` if `flags` has NOHANG and there is none. Not interrupted by signals.
///
/// # Errors
/// ECHILD if no child matches, EINVAL for flags without EXITED, STOPPED or CONTINUED.
pub fn waitid(target: WaitTarget<'_>, flags: WaitFlags) -> Result<Option<ChildEvent>> {
    let (id_type, id) = match target {
        WaitTarget::Any => (P_ALL, 0),
        WaitTarget::Pid(pid) => (P_PID, pid),
        WaitTarget::Group(pgid) => (P_PGID, pgid),
        WaitTarget::Pidfd(fd) => (P_PIDFD, fd.as_raw_fd()),
    };
    let mut info = SigInfo::default();
    let mut rusage = Rusage::default();
    retry(|| {
        // SAFETY: SigInfo and Rusage have the kernel's size and layout (asserted in moat-abi) and live through the
        // call.
        unsafe { libc::syscall(libc::SYS_waitid, id_type, id, &raw mut info, flags.bits(), &raw mut rusage) }
    })?;
    // With WNOHANG and nothing to report, the host leaves the pid zero.
    Ok((info.pid() != 0).then(|| ChildEvent {
        pid: info.pid(),
        uid: info.uid(),
        code: info.si_code,
        status: info.status(),
        rusage,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::{Errno, siginfo};

    #[test]
    #[expect(clippy::zombie_processes, reason = "waited for by the function under test")]
    fn exit_status_and_usage() {
        let child =
            std::process::Command::new("sh").args(["-c", "read x; exit 7"]).stdin(std::process::Stdio::piped()).spawn();
        let mut child = child.expect("spawn");
        let pid = child.id() as pid_t;
        let flags = WaitFlags::EXITED | WaitFlags::ALL;
        assert_eq!(waitid(WaitTarget::Pid(pid), flags | WaitFlags::NOHANG), Ok(None));
        drop(child.stdin.take());
        let seen = waitid(WaitTarget::Pid(pid), flags | WaitFlags::NOWAIT).expect("wait").expect("event");
        let event = waitid(WaitTarget::Pid(pid), flags).expect("wait").expect("event");
        assert_eq!((seen.pid, seen.status), (pid, 7));
        assert_eq!((event.code, event.status), (siginfo::CLD_EXITED, 7));
        assert!(event.rusage.ru_maxrss > 0);
        assert_eq!(waitid(WaitTarget::Pid(pid), flags), Err(Errno::ECHILD));
    }
}
