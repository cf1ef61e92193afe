//! Processes as files: pidfd_open(2), `CLONE_PIDFD`.

use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::{Pid, PidNamespace};
use moat_image::Refusal;
use moat_image::state::{OpenFileKind, PidFdState};
use moat_sync::WaitQueue;
use moat_vfs::cred::Credentials;
use moat_vfs::persist::SaveFiles;
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

    /// What /proc/PID/fdinfo adds, with the numbers of a /proc of `ns` (`pidfd_show_fdinfo`).
    #[must_use]
    pub fn fdinfo_in(&self, ns: &PidNamespace) -> String {
        if self.kernel.task_of(&self.pid).is_none() {
            return "Pid:\t-1\nNSpid:\t-1\n".to_owned();
        }
        let number = self.pid.number_in(ns);
        // 0 stands for a process that the namespace does not have.
        let numbers = if number == 0 { vec![0] } else { self.pid.numbers_from(ns) };
        let list: Vec<_> = numbers.iter().map(i32::to_string).collect();
        format!("Pid:\t{number}\nNSpid:\t{}\n", list.join("\t"))
    }
}

impl File for PidFd {
    fn save(&self, _f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        if self.kernel.task_of(&self.pid).is_none() {
            return Err(Refusal::new("a pidfd of a process that is gone"));
        }
        Ok(OpenFileKind::PidFd(PidFdState { pid: saver.process(&self.pid), thread: self.scope == Scope::Thread }))
    }

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
