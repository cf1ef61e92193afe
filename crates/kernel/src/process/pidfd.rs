//! Processes as files: pidfd_open(2), `CLONE_PIDFD`.

use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::Pid;
use moat_sync::WaitQueue;
use moat_vfs::cred::Credentials;
use moat_vfs::{File, OpenFile};

use crate::kernel::Kernel;
use crate::process::group::ThreadGroup;
use crate::task::Task;

/// What a pidfd stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A process.
    Process,
    /// One thread (`PIDFD_THREAD`).
    Thread,
}

/// Whether waiting on the descriptor blocks (`PIDFD_NONBLOCK`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// waitid(2) waits.
    Yes,
    /// waitid(2) gives EAGAIN.
    No,
}

/// The file behind a pidfd: the process it names may be gone.
pub struct PidFd {
    kernel: Arc<Kernel>,
    pid: Arc<Pid>,
    scope: Scope,
    /// Kept so that poll(2) works after the process has been reaped.
    group: Option<Arc<ThreadGroup>>,
}

impl PidFd {
    /// The identity.
    #[must_use]
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }

    /// What it stands for.
    #[must_use]
    pub fn scope(&self) -> Scope {
        self.scope
    }

    /// The task, unless it has been reaped.
    ///
    /// # Errors
    /// ESRCH.
    pub fn task(&self) -> Result<Arc<Task>> {
        self.kernel.task_of(&self.pid).ok_or(Errno::ESRCH)
    }
}

impl File for PidFd {
    fn poll(&self, _f: &OpenFile) -> PollEvents {
        let Some(group) = &self.group else { return PollEvents::IN | PollEvents::RDNORM | PollEvents::HUP };
        let alive = match (self.scope, self.kernel.task_of(&self.pid)) {
            (_, None) => return PollEvents::IN | PollEvents::RDNORM | PollEvents::HUP,
            (Scope::Process, Some(_)) => self.kernel.family.lock().node(group.id).is_some_and(|n| n.zombie.is_none()),
            (Scope::Thread, Some(t)) => group.thread(t.id).is_some(),
        };
        if alive { PollEvents::empty() } else { PollEvents::IN | PollEvents::RDNORM }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.group.as_ref().map(|g| &g.exit_queue)
    }

    fn fdinfo(&self, _f: &OpenFile) -> String {
        let ns = &self.kernel.root_pid_ns;
        let number = if self.kernel.task_of(&self.pid).is_some() { self.pid.number_in(ns) } else { -1 };
        format!("Pid:\t{number}\nNSpid:\t{number}\n")
    }
}

/// A description for the process or thread `pid`.
#[must_use]
pub fn open(
    kernel: &Arc<Kernel>,
    pid: &Arc<Pid>,
    scope: Scope,
    creds: &Arc<Credentials>,
    blocking: Blocking,
) -> Arc<OpenFile> {
    let group = kernel.task_of(pid).map(|t| t.group.clone());
    let file = Arc::new(PidFd { kernel: kernel.clone(), pid: pid.clone(), scope, group });
    let mut flags = OpenFlags::RDWR;
    flags.set(OpenFlags::NONBLOCK, blocking == Blocking::No);
    kernel.vfs.open_anon("[pidfd]", file, flags, creds)
}
