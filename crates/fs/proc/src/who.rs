//! [`Who`]: the process or thread that a directory of proc shows, who may look into it, and whose its files are.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_identity::Pid;
use moat_kernel::ptrace::access::may_see;
use moat_kernel::signal::view::RunState;
use moat_kernel::{Kernel, Task};
use moat_mm::MemoryManager;
use moat_vfs::caller::Caller;
use moat_vfs::cred::Credentials;
use moat_vfs::generated::Attributes;

use crate::mount::ProcMount;

/// A pid as a name: decimal without leading zeros.
pub(crate) fn parse_pid(name: &[u8]) -> Option<i32> {
    let text = std::str::from_utf8(name).ok()?;
    if text.starts_with('0') || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Whether a directory shows a process or one thread of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// /proc/PID.
    Process,
    /// /proc/PID/task/TID.
    Thread,
}

/// Whose files are shown. Holds the pid, not the task: files of a process that is gone give ESRCH.
#[derive(Clone)]
pub struct Who {
    kernel: Arc<Kernel>,
    pub(crate) pid: Arc<Pid>,
    /// Process or thread.
    pub kind: Kind,
}

impl Who {
    /// The task numbered `pid`, where it exists.
    ///
    /// # Errors
    /// ENOENT.
    pub(crate) fn find(proc: &ProcMount, pid: i32, kind: Kind) -> Result<Who> {
        let pid = proc.pid_ns.lookup(pid).ok_or(Errno::ENOENT)?;
        let who = Who { kernel: proc.kernel.clone(), pid, kind };
        who.task().map_err(|_| Errno::ENOENT)?;
        Ok(who)
    }

    /// The task: the thread, or the leader of the process.
    ///
    /// # Errors
    /// ESRCH.
    pub fn task(&self) -> Result<Arc<Task>> {
        self.kernel.task_of(&self.pid).ok_or(Errno::ESRCH)
    }

    /// Whether the number is that of a process.
    #[must_use]
    pub fn is_process(&self) -> bool {
        self.task().is_ok_and(|t| t.is_leader())
    }

    /// The address space.
    ///
    /// # Errors
    /// ESRCH for a task that is gone.
    pub fn mm(&self) -> Result<Option<Arc<MemoryManager>>> {
        Ok(self.task()?.mm_of())
    }

    /// Whether `caller` may look into the process: ptrace(2), "Ptrace access mode checking", with PTRACE_MODE_FSCREDS.
    ///
    /// # Errors
    /// EACCES; ESRCH.
    pub fn may_inspect(&self, caller: &dyn Caller) -> Result<()> {
        let task = self.task()?;
        // A process may always look at itself (`same_thread_group`).
        if is_of(caller, &task) { Ok(()) } else { may_inspect(caller.creds(), &task) }
    }

    /// Whether `caller` is a thread of the process.
    pub(crate) fn is_own(&self, caller: &dyn Caller) -> bool {
        self.task().is_ok_and(|task| is_of(caller, &task))
    }
}

fn is_of(caller: &dyn Caller, task: &Task) -> bool {
    caller.task().is_some_and(|t| t.process_pid().id == task.group.pid().id)
}

fn may_inspect(c: &Credentials, task: &Task) -> Result<()> {
    let theirs = task.creds();
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|id| *id == c.fsuid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|id| *id == c.fsgid);
    if !same && !c.has_cap_in(&theirs.user_ns, Cap::SYS_PTRACE) {
        return Err(Errno::EACCES);
    }
    may_see(c, task).map_err(|_| Errno::EACCES)
}

/// Attributes of a file that belongs to the process's effective user, or to root where it may not be inspected.
pub(crate) fn owned(proc: &ProcMount, who: &Who, name: &str, mode: u32) -> Attributes {
    let (uid, gid) = match who.task() {
        // Directories that everybody may list show the user even then (`task_dump_owner`).
        Ok(t) if mode == 0o555 || t.group.dumpable() == moat_kernel::process::group::Dumpable::Yes => {
            let c = t.creds();
            (c.euid, c.egid)
        }
        // Root of the namespace in which its program was started.
        Ok(t) => {
            let ns = t.group.exec_user_ns();
            (ns.kernel_uid(0).unwrap_or(0), ns.kernel_gid(0).unwrap_or(0))
        }
        Err(_) => (0, 0),
    };
    let number = who.pid.number_in(&proc.pid_ns);
    // The listing of /proc, which knows processes only, gives the same number.
    let ino = if name == "pid" && who.kind == Kind::Process {
        proc.ino((number, name))
    } else {
        proc.ino((number, name, who.kind))
    };
    Attributes { dev: proc.dev, ino, mode, uid, gid }
}

/// The state letter of a task: proc_pid_stat(5), field 3, and its word.
pub(crate) fn state_of(task: &Task) -> (char, &'static str) {
    if task.group.zombie_status().is_some() {
        return ('Z', "zombie");
    }
    match task.run_state() {
        // A leader that has ended before its threads.
        RunState::Dead => return ('Z', "zombie"),
        RunState::TracingStop => return ('t', "tracing stop"),
        RunState::Stopped => return ('T', "stopped"),
        RunState::Live => {}
    }
    if task.waits_in().is_some() { ('S', "sleeping") } else { ('R', "running") }
}
