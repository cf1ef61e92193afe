//! How a frozen task is saved: it gives up its call, carries out what it has put off, and says what only it knows.
//!
//! What a task holds alone is in its `CurrentTask`: registers, extended state, the call that it is in. So the task itself writes it
//! down ([`Task::saved`]) at one of a few places, from each of which a task out of an image can go on ([`Resume`]).
//! Everything else is in objects that others reach.
//!
//! # Invariants
//! - A call that is given up has done nothing, or gives what it has done as its result. It is made again before application code,
//!   signals or a tracer come in between, with the deadline that it had.
//! - A change that has ended a wait before the task was saved counts: the call ends by it.

use std::time::{Duration, Instant};

use moat_abi::clone::WaitStatus;
use moat_abi::{Errno, PollEvents};
use moat_image::state::{CallState, Interrupted, NextStep, Patience, RestartRule, StoppedState, ThreadState};
use moat_platform::{Order, Regs, execute};

use crate::error::{Deadline, PendingRestart, Restart, RestartBlock, SyscallError, SyscallResult};
use crate::ptrace::after::After;
use crate::task::CurrentTask;
use crate::task::wait::Wait;
use crate::task::work::Work;

#[cfg(doc)]
use crate::task::Task;

/// How a task goes on that was saved here.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Resume {
    /// It looks at its signals and runs application code.
    Run,
    /// As `Run`, with a call that a signal has interrupted.
    Interrupted(PendingRestart),
    /// It makes this call again.
    Call { nr: u64, args: [u64; 6], deadline: Option<Option<Deadline>> },
    /// It waits for its vfork(2) child.
    Vfork { child: i32 },
    /// It is in a stop for its tracer, and goes on behind it.
    Stopped(After),
}

impl Resume {
    /// That of a task on its way back to application code.
    pub(crate) fn of(restart: Option<&PendingRestart>) -> Resume {
        restart.map_or(Resume::Run, |restart| Resume::Interrupted(*restart))
    }

    fn to_image(self, restart: Option<&PendingRestart>) -> NextStep {
        match self {
            Resume::Run => NextStep::Run,
            Resume::Call { nr, args, deadline } => NextStep::Call(CallState { nr, args, patience: patience(deadline) }),
            Resume::Interrupted(restart) => NextStep::Interrupted(interrupted(&restart)),
            Resume::Vfork { child } => NextStep::Vfork { child },
            Resume::Stopped(after) => {
                NextStep::Stopped(StoppedState { after: after.to_image(), interrupted: restart.map(interrupted) })
            }
        }
    }
}

fn interrupted(restart: &PendingRestart) -> Interrupted {
    let rule = match restart.kind {
        Restart::Sys => RestartRule::Sys,
        Restart::NoHand => RestartRule::NoHand,
        Restart::NoIntr | Restart::Again => RestartRule::NoIntr,
        Restart::Block(block) => RestartRule::Block(call_of(&block)),
    };
    Interrupted { nr: restart.nr, rule }
}

/// The interrupted call of a task out of an image.
pub(crate) fn restart_of(saved: Interrupted) -> PendingRestart {
    let kind = match saved.rule {
        RestartRule::Sys => Restart::Sys,
        RestartRule::NoHand => Restart::NoHand,
        RestartRule::NoIntr => Restart::NoIntr,
        RestartRule::Block(call) => Restart::Block(block_of(&call)),
    };
    PendingRestart { kind, nr: saved.nr }
}

fn patience(deadline: Option<Option<Deadline>>) -> Patience {
    match deadline {
        None => Patience::Arguments,
        Some(None) => Patience::Endless,
        Some(Some(at)) => {
            let left = at.saturating_duration_since(Instant::now());
            Patience::Left(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX))
        }
    }
}

fn call_of(block: &RestartBlock) -> CallState {
    CallState { nr: block.nr, args: block.args, patience: patience(Some(block.deadline)) }
}

/// The deadline of a call out of an image, from this moment on.
pub(crate) fn deadline_of(patience: Patience) -> Option<Option<Deadline>> {
    match patience {
        Patience::Arguments => None,
        Patience::Endless => Some(None),
        // What is beyond the clock never comes.
        Patience::Left(ns) => Some(Instant::now().checked_add(Duration::from_nanos(ns))),
    }
}

pub(crate) fn block_of(call: &CallState) -> RestartBlock {
    RestartBlock { nr: call.nr, args: call.args, deadline: deadline_of(call.patience).flatten() }
}

impl CurrentTask {
    /// Sleeps for as long as the container is frozen, and says what only the task knows if it is being saved; only the death of the
    /// task ends that early.
    pub(crate) async fn rest(&mut self, resume: &Resume) {
        let container = self.group.container.clone();
        // Before it is said that the task rests, so that a thaw right after is not missed.
        let mut listener = container.thawed().listen(PollEvents::all());
        container.note_stopped();
        let wait = Wait::killable("do_freezer_trap");
        while self.work().contains(Work::FREEZE) {
            let saving = self.work().contains(Work::SAVE);
            if saving && self.saved.lock().is_none() {
                self.say(resume).await;
                container.note_stopped();
            }
            let mask = if saving { Work::KILL } else { Work::KILL | Work::SAVE };
            let _ = self.sleep_once(&mut listener, &wait, mask).await;
            self.given_up = None;
            if self.work().contains(Work::KILL) {
                return;
            }
        }
    }

    /// Makes a call again that was given up, and once more each time that it is.
    pub(crate) async fn call_again(&mut self, nr: u64, args: [u64; 6]) -> SyscallResult {
        loop {
            // That of the wait that was given up, not of the call: a call that sleeps several times goes on with its last one.
            let deadline = self.given_up.take();
            self.rest(&Resume::Call { nr, args, deadline }).await;
            if self.work().contains(Work::KILL) {
                return Err(Restart::NoIntr.into());
            }
            match self.make_call(nr, args, deadline).await {
                Err(SyscallError::Restart(Restart::Again)) => {}
                result => return result,
            }
        }
    }

    /// Makes a call with the deadline that it had before.
    pub(crate) async fn make_call(
        &mut self,
        nr: u64,
        args: [u64; 6],
        deadline: Option<Option<Deadline>>,
    ) -> SyscallResult {
        self.set_restart_deadline(deadline);
        let result = self.dispatch(nr, args).await;
        // Left over, the next call would take it for its own.
        self.set_restart_deadline(None);
        result
    }

    /// Writes down what only the task knows.
    async fn say(&mut self, resume: &Resume) {
        // Its tracer, to which the thread is lent, is at rest as well.
        let lent = self.is_parked();
        if lent {
            self.unpark_thread();
        }
        self.say_unparked(resume).await;
        if lent {
            self.park_thread();
        }
    }

    async fn say_unparked(&mut self, resume: &Resume) {
        // Memory has to be what the tree of areas says: whatever was put off is done with this order, which changes nothing.
        let name = self.host_name();
        if let Err(errno) = execute(self.thread(), Order::SetName(name)).await {
            self.mm().order_failed(errno);
            let killed = WaitStatus::Signaled { signal: 9, core: moat_abi::clone::CoreDump::NotDumped };
            self.group.signals.lock().start_exit(killed);
            return;
        }
        self.whole().await;
        // Of the last stop: nothing has run since.
        let regs = self.thread().regs();
        let state = self.thread().fpu().map(|extended| ThreadState {
            registers: registers(&regs).to_vec(),
            extended,
            altstack: (self.altstack.ss_sp, self.altstack.ss_flags, self.altstack.ss_size),
            last_fault: (self.last_fault.trapno, self.last_fault.err, self.last_fault.cr2),
            rseq: self.rseq.map(|area| (area.addr, area.len, area.sig)),
            restart_block: self.restart_block.as_ref().map(call_of),
            stepping: self.stepping,
            watching: self.watching.is_some(),
            next: resume.to_image(self.restart.as_ref()),
        });
        if state.is_ok() {
            let container = self.group.container.clone();
            let (memory, thread) = self.mm_and_thread();
            container.copy_memory(memory, thread).await;
        }
        match state {
            Ok(state) => *self.saved.lock() = Some(state),
            // Its memory is gone or overwritten: it will find out when it goes on.
            Err(errno) => tracing::warn!(tid = self.tid(), %errno, "the extended state of a thread can't be read"),
        }
    }
}

/// The registers in the order of their fields.
fn registers(r: &Regs) -> [u64; 21] {
    [
        r.r15, r.r14, r.r13, r.r12, r.rbp, r.rbx, r.r11, r.r10, r.r9, r.r8, r.rax, r.rcx, r.rdx, r.rsi, r.rdi,
        r.orig_rax, r.rip, r.rflags, r.rsp, r.fs_base, r.gs_base,
    ]
}

/// The registers of [`ThreadState::registers`].
///
/// # Errors
/// EINVAL for another number of them.
pub(crate) fn regs_of(values: &[u64]) -> Result<Regs, Errno> {
    let values: [u64; 21] = values.try_into().map_err(|_| Errno::EINVAL)?;
    let [r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi, orig_rax, rip, rflags, rsp, fs, gs] =
        values;
    Ok(Regs {
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        rip,
        rflags,
        rsp,
        fs_base: fs,
        gs_base: gs,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_come_back_as_they_were() {
        let regs = Regs { r15: 1, rbp: 5, rdi: 15, orig_rax: 16, rip: 17, gs_base: 21, ..Regs::default() };
        assert_eq!(regs_of(&registers(&regs)), Ok(regs));
        assert_eq!(regs_of(&[0; 20]), Err(Errno::EINVAL));
    }

    #[test]
    fn what_is_left_of_a_wait_is_a_span() {
        assert_eq!(patience(None), Patience::Arguments);
        assert_eq!(patience(Some(None)), Patience::Endless);
        let Patience::Left(ns) = patience(Some(Instant::now().checked_add(Duration::from_secs(5)))) else { panic!() };
        assert!((4_000_000_000..=5_000_000_000).contains(&ns));
        assert_eq!(patience(Some(Instant::now().checked_sub(Duration::from_millis(1)))), Patience::Left(0));
    }
}
