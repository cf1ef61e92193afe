//! The tracer thread: the table of tracees, their states, and what each stop means.
//!
//! [`Tracer`] is owned by its thread. The other modules add what it does for one kind of command: [`crate::inject`],
//! [`crate::orders`], [`crate::family`], [`crate::template`].

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

use libc::pid_t;
use moat_abi::{Errno, Result};
use moat_host::ptrace::{self, Status, UserRegs, Wait};
use moat_platform::Event;

use crate::SetupError;
use crate::cell::{Cell, Outcome};
use crate::command::{Changes, Command, FpuChange, Id, Shared};
use crate::layout::Layout;
use crate::regs::{guest_regs, set_guest_regs};
use crate::space::Process;
use crate::stop::stopped;
use crate::{fault, fpu};

/// Where a tracee is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TraceeState {
    /// Stopped; the tracer may do with it what it wants.
    Parked,
    /// In application code, or dying.
    Running,
    /// On its way through exit(2).
    Exiting,
}

/// One traced host thread.
pub(crate) struct Tracee {
    pub tid: pid_t,
    pub process: Arc<Process>,
    pub state: TraceeState,
    /// The registers of the guest, while parked.
    pub regs: UserRegs,
    /// The host thread's registers are not `regs`.
    pub dirty: bool,
    pub cell: Arc<Cell>,
    /// Its handle is gone.
    pub orphan: bool,
    /// A deferred order failed, and no switch has told yet.
    pub failed_order: Option<Errno>,
    /// The host refused an extended state; the next switch reports that.
    pub bad_state: bool,
}

impl Tracee {
    /// A thread that has stopped with other registers than `regs`.
    pub fn parked(tid: pid_t, process: Arc<Process>, regs: UserRegs, cell: Arc<Cell>) -> Tracee {
        Tracee {
            tid,
            process,
            state: TraceeState::Parked,
            regs,
            dirty: true,
            cell,
            orphan: false,
            failed_order: None,
            bad_state: false,
        }
    }
}

/// See the module's documentation.
pub(crate) struct Tracer {
    pub shared: Arc<Shared>,
    pub tracees: HashMap<Id, Tracee>,
    pub by_tid: HashMap<pid_t, Id>,
    /// Stops of a clone's child that came before the clone's result.
    pub early: HashMap<pid_t, Status>,
    /// A clone is under way, so unknown tracees may appear.
    pub cloning: bool,
    pub template: Option<Id>,
    /// The tracer's end of the socket pair by which descriptors reach guest processes.
    pub outgoing: OwnedFd,
    /// The other end, which is descriptor 0 of every guest process.
    pub incoming: OwnedFd,
    last_id: u64,
}

/// Most stops taken in before the commands are looked at again.
const BATCH: usize = 64;

/// Starts the tracer thread and has it make the template.
pub(crate) fn start() -> Result<Arc<Shared>, SetupError> {
    let shared = Arc::new(Shared::new(Layout::find()?));
    let (sender, receiver) = sync_channel(1);
    let for_tracer = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("ptrace".into())
        .spawn(move || match Tracer::new(for_tracer) {
            Ok(tracer) => {
                let _ = sender.send(Ok(()));
                tracer.run();
            }
            Err(e) => {
                let _ = sender.send(Err(e));
            }
        })
        .map_err(|e| SetupError { step: "start the tracer thread", errno: e.into() })?;
    receiver.recv().unwrap_or(Err(SetupError { step: "start the tracer thread", errno: Errno::ESRCH }))?;
    Ok(shared)
}

impl Tracer {
    fn new(shared: Arc<Shared>) -> Result<Tracer, SetupError> {
        shared.adopt_tracer().map_err(SetupError::at("set up SIGCHLD"))?;
        let (outgoing, incoming) = crate::inject::socket_pair().map_err(SetupError::at("make a socket pair"))?;
        let mut tracer = Tracer {
            shared,
            tracees: HashMap::new(),
            by_tid: HashMap::new(),
            early: HashMap::new(),
            cloning: false,
            template: None,
            outgoing,
            incoming,
            last_id: 0,
        };
        tracer.make_template()?;
        Ok(tracer)
    }

    fn run(mut self) {
        loop {
            let mut busy = false;
            while let Some(command) = self.shared.next() {
                busy = true;
                self.command(command);
            }
            for _ in 0..BATCH {
                let Ok(Some((tid, status))) = ptrace::wait_any(Wait::Poll) else { break };
                busy = true;
                self.status(tid, status);
            }
            let (missing, wanted) = self.shared.missing();
            if missing > 0 && (wanted || !busy) {
                busy |= self.make_spare(wanted);
            }
            if !busy {
                self.shared.sleep();
            }
        }
    }

    /// Adds a process to the pool; false if the host has none to give and nobody waits.
    fn make_spare(&mut self, wanted: bool) -> bool {
        let made = self.make_blank();
        let progress = made.is_ok() || wanted;
        if progress {
            self.shared.add_blank(made);
        }
        progress
    }

    /// A name for a new tracee.
    pub fn new_id(&mut self) -> Id {
        self.last_id += 1;
        Id(self.last_id)
    }

    /// The tracee, if it lives and is stopped.
    pub fn parked(&mut self, id: Id) -> Result<&mut Tracee> {
        self.tracees.get_mut(&id).filter(|t| t.state == TraceeState::Parked).ok_or(Errno::ESRCH)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Resume(id, changes) => self.resume(id, changes),
            Command::Order(id, changes, order) => {
                let result = self.apply(id, changes).and_then(|()| self.execute(id, &order));
                self.finish(id, Outcome::Order(result));
            }
            Command::Fork(id, changes) => {
                let result = self.apply(id, changes).and_then(|()| self.fork(id));
                self.finish(id, Outcome::Fork(result));
            }
            Command::Spawn(id, changes) => {
                let result = self.apply(id, changes).and_then(|()| self.spawn(id));
                self.finish(id, Outcome::Spawn(result));
            }
            Command::Fpu(id, reply) => {
                let _ = reply.send(self.read_fpu(id));
            }
            Command::Poke { space, addr, bytes, reply } => {
                let _ = reply.send(self.poke(space, addr, &bytes));
            }
            Command::Kick(id) => self.kick(id),
            Command::DropThread(id) => self.drop_thread(id),
            Command::Kill(id) => {
                if let Some(tracee) = self.tracees.get(&id) {
                    kill(tracee.process.pid);
                }
            }
            Command::End(id) => {
                if let Some(tracee) = self.tracees.get(&id).filter(|tracee| tracee.state != TraceeState::Parked) {
                    kill(tracee.process.pid);
                }
            }
            Command::Refill => {}
        }
    }

    fn finish(&mut self, id: Id, outcome: Outcome) {
        if let Some(tracee) = self.tracees.get(&id) {
            Arc::clone(&tracee.cell).finish(outcome);
        }
    }

    /// Carries out what a handle changed before its command: registers, extended state, deferred orders.
    ///
    /// The first order that fails ends them; its errno is given, and kept for the next switch to report.
    fn apply(&mut self, id: Id, changes: Changes) -> Result<()> {
        let tracee = self.parked(id)?;
        if let Some(regs) = changes.regs {
            set_guest_regs(&mut tracee.regs, &regs);
            tracee.dirty = true;
        }
        if let Some(ret) = changes.ret {
            tracee.regs.rax = ret;
            tracee.dirty = true;
        }
        if let Some(change) = changes.fpu {
            let image = match change {
                FpuChange::Image(image) => fpu::to_host(&image),
                FpuChange::Reset => fpu::to_host(&fpu::fresh()),
            };
            tracee.bad_state = ptrace::set_xstate(tracee.tid, &image).is_err();
        }
        for order in &changes.orders {
            if let Err(e) = self.execute(id, order) {
                self.parked(id)?.failed_order = Some(e);
                return Err(e);
            }
        }
        Ok(())
    }

    fn resume(&mut self, id: Id, changes: Changes) {
        // A failed order is in `failed_order`; a dead thread has told its cell.
        let _ = self.apply(id, changes);
        let Ok(tracee) = self.parked(id) else { return };
        if let Some(errno) = tracee.failed_order.take() {
            return self.event(id, Event::OrderFailed(errno));
        }
        if std::mem::take(&mut tracee.bad_state) {
            return self.event(id, Event::Fault(fault::protection()));
        }
        if !tracee.cell.start() {
            return self.event(id, Event::Interrupted);
        }
        // Another failure means that it was killed: its end is reported when it is reaped.
        if run(tracee) == Err(Errno::EIO) {
            self.event(id, Event::Fault(fault::protection()));
        }
    }

    /// The thread is parked at an event.
    fn event(&mut self, id: Id, event: Event) {
        let Some(tracee) = self.tracees.get_mut(&id) else { return };
        tracee.state = TraceeState::Parked;
        if tracee.orphan {
            return self.release(id);
        }
        tracee.cell.stop();
        let regs = guest_regs(&tracee.regs);
        Arc::clone(&tracee.cell).finish(Outcome::Event(event, regs));
    }

    /// Takes in a change of state that waitpid(2) gave.
    pub fn status(&mut self, tid: pid_t, status: Status) {
        let Some(&id) = self.by_tid.get(&tid) else {
            return match status {
                Status::Gone => drop(self.early.remove(&tid)),
                _ if self.cloning => drop(self.early.insert(tid, status)),
                // Its maker died before it could say that it made this.
                _ => kill(tid),
            };
        };
        if status == Status::Gone {
            return self.forget(id);
        }
        let Some(tracee) = self.tracees.get_mut(&id) else { return };
        match tracee.state {
            TraceeState::Running => {
                // An error is ESRCH: killed meanwhile, and to be reaped.
                if let Ok(Some(event)) = stopped(tracee, status) {
                    self.event(id, event);
                }
            }
            TraceeState::Exiting => drop(ptrace::cont(tid)),
            // Cannot stop again. (A signal sent to it waits until it runs.)
            TraceeState::Parked => {}
        }
    }

    /// A tracee was reaped.
    pub fn forget(&mut self, id: Id) {
        let Some(tracee) = self.tracees.remove(&id) else { return };
        self.by_tid.remove(&tracee.tid);
        if tracee.process.id == id {
            tracee.process.bury();
        }
        if self.template == Some(id) {
            tracing::error!("the template process of the ptrace platform is gone: no new processes");
            self.template = None;
        }
        tracee.cell.die();
    }

    fn kick(&mut self, id: Id) {
        let Some(tracee) = self.tracees.get(&id) else { return };
        if tracee.state == TraceeState::Running && tracee.cell.is_kicked() {
            // Fails only if it is dead. A stop that is on its way clears the interrupt, or is followed by one
            // more stop, which the next switch or injection takes in.
            let _ = ptrace::interrupt(tracee.tid);
        }
    }

    fn drop_thread(&mut self, id: Id) {
        let Some(tracee) = self.tracees.get_mut(&id) else { return };
        tracee.orphan = true;
        match tracee.state {
            TraceeState::Parked => self.release(id),
            TraceeState::Running => drop(ptrace::interrupt(tracee.tid)),
            TraceeState::Exiting => {}
        }
    }

    /// A parked thread has lost its handle: it exits, unless it is the first of its process.
    ///
    /// That one stays parked until the process is killed, because process_vm_readv(2) needs a thread id that has memory.
    fn release(&mut self, id: Id) {
        let Some(tracee) = self.tracees.get(&id) else { return };
        if tracee.process.id != id {
            self.start_exit(id);
        }
    }

    fn read_fpu(&mut self, id: Id) -> Result<Vec<u8>> {
        let tid = self.parked(id)?.tid;
        let mut image = vec![0; fpu::host_size()];
        let len = ptrace::xstate(tid, &mut image)?;
        image.truncate(len);
        Ok(image)
    }
}

/// Sets the registers if need be and resumes application code.
fn run(tracee: &mut Tracee) -> Result<()> {
    if tracee.dirty {
        // Else the host might restart what it takes for an interrupted system call.
        tracee.regs.orig_rax = u64::MAX;
        ptrace::set_regs(tracee.tid, &tracee.regs)?;
        tracee.dirty = false;
    }
    // Also if it is dead now: it is reaped as a running one.
    tracee.state = TraceeState::Running;
    ptrace::sysemu(tracee.tid)
}

/// Kills a process by the id of any of its threads, which the caller knows not to be reaped.
pub(crate) fn kill(pid: pid_t) {
    // SAFETY: a system call on numbers.
    unsafe { libc::kill(pid, libc::SIGKILL) };
}
