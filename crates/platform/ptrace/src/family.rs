//! New processes and threads: clones that a parked thread makes by injection.

use std::sync::Arc;

use libc::pid_t;
use moat_abi::{Errno, Result};
use moat_host::ptrace::{Status, UserRegs};
use moat_platform::{GuestThread, NewProcess};

use crate::cell::Cell;
use crate::command::Id;
use crate::regs::{blank, guest_regs};
use crate::space::{Process, Space};
use crate::thread::Thread;
use crate::tracer::{Tracee, Tracer, kill};

/// A process: a child of the sentry, traced by it, with memory of its own. Its exit signal is its maker's: SIGCHLD.
const PROCESS: i32 = libc::CLONE_PARENT | libc::CLONE_PTRACE;

/// A thread.
const THREAD: i32 = libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_PTRACE;

impl Tracer {
    /// Copies the process of a parked thread.
    pub fn fork(&mut self, id: Id) -> Result<NewProcess> {
        let child = self.clone_tracee(id, PROCESS)?;
        let regs = self.parked(id)?.regs;
        Ok(self.adopt_process(child, regs))
    }

    /// Makes a sibling of a parked thread.
    pub fn spawn(&mut self, id: Id) -> Result<Box<dyn GuestThread>> {
        let child = self.clone_tracee(id, THREAD)?;
        let (regs, process) = self.parked(id).map(|t| (t.regs, Arc::clone(&t.process)))?;
        let name = self.new_id();
        Ok(self.adopt(name, child, process, regs))
    }

    /// Clones the template.
    pub fn make_blank(&mut self) -> Result<NewProcess> {
        let template = self.template.ok_or(Errno::EAGAIN)?;
        let child = self.clone_tracee(template, PROCESS)?;
        let mut regs = self.parked(template)?.regs;
        blank(&mut regs);
        Ok(self.adopt_process(child, regs))
    }

    /// Has a parked thread clone itself; gives the child's id, which is stopped and not known yet.
    fn clone_tracee(&mut self, id: Id, flags: i32) -> Result<pid_t> {
        self.cloning = true;
        let result = self.try_clone(id, flags);
        self.cloning = false;
        // A child whose maker died before its id was read.
        for (tid, _) in self.early.drain() {
            kill(tid);
        }
        result
    }

    fn try_clone(&mut self, id: Id, flags: i32) -> Result<pid_t> {
        let tid = self.call(id, libc::SYS_clone, [u64::from(flags.cast_unsigned()), 0, 0, 0, 0, 0])?;
        let tid = pid_t::try_from(tid).map_err(|_| Errno::EAGAIN)?;
        match self.wait_for(tid) {
            Ok(Status::Stop) => Ok(tid),
            Ok(_) => {
                kill(tid);
                Err(Errno::EAGAIN)
            }
            // Killed as it was born.
            Err(_) => Err(Errno::EAGAIN),
        }
    }

    /// Takes a stopped process into the table.
    fn adopt_process(&mut self, pid: pid_t, regs: UserRegs) -> NewProcess {
        let id = self.new_id();
        let process = Arc::new(Process::new(id, pid));
        let thread = self.adopt(id, pid, Arc::clone(&process), regs);
        NewProcess { space: Arc::new(Space { process, shared: Arc::clone(&self.shared) }), thread }
    }

    fn adopt(&mut self, id: Id, tid: pid_t, process: Arc<Process>, regs: UserRegs) -> Box<dyn GuestThread> {
        let cell = Arc::new(Cell::new());
        let handle = Thread::new(id, tid, Arc::clone(&cell), Arc::clone(&self.shared), guest_regs(&regs));
        self.insert(id, Tracee::parked(tid, process, regs, cell));
        Box::new(handle)
    }

    /// Adds a tracee.
    pub fn insert(&mut self, id: Id, tracee: Tracee) {
        self.by_tid.insert(tracee.tid, id);
        self.tracees.insert(id, tracee);
    }
}
