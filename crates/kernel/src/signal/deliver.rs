//! What a task does about its pending signals before it runs application code.
//!
//! Source: `get_signal` in `kernel/signal.c`, `arch_do_signal_or_restart` in `arch/x86/kernel/signal.c`, signal(7).

use std::sync::atomic::Ordering;

use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::{DefaultAction, SIG_DFL, SIG_IGN, SaFlags, SigAction, SigSet, Signal};

use crate::error::Restart;
use crate::signal::queue::Queued;
use crate::signal::state::GroupSignals;
use crate::signal::stop;
use crate::task::current::Entering;
use crate::task::rest::Resume;
use crate::task::work::Work;
use crate::task::{CurrentTask, TaskId};

/// The task is to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dying;

/// One signal to be handled.
struct Delivery {
    signal: Signal,
    info: SigInfo,
    action: SigAction,
}

impl CurrentTask {
    /// Does all that is to be done before application code runs: stops, signals, restarts of system calls.
    pub(crate) async fn before_user(&mut self) -> Result<(), Dying> {
        loop {
            let work = self.work();
            if work.contains(Work::KILL) {
                return Err(Dying);
            }
            let traced = self.task().traced.load(Ordering::Relaxed);
            if work.intersects(Work::STOP | Work::TRAP) || work.contains(Work::SIGNAL) && traced {
                // For a tracer.
                self.whole().await;
            }
            // First of all: a frozen task neither stops nor handles signals.
            if work.contains(Work::FREEZE) {
                let next = Resume::of(self.restart.as_ref());
                self.rest(&next).await;
            } else if work.contains(Work::STOP) {
                self.group_stop().await;
            } else if work.contains(Work::TRAP) {
                crate::ptrace::stop::trap(self).await;
            } else if work.contains(Work::SIGNAL) {
                if let Some(d) = self.next_signal().await? {
                    self.handle(d).await;
                }
            } else {
                break;
            }
        }
        self.finish_restart();
        Ok(())
    }

    /// Takes signals until one has a handler; acts on the others. `None` if nothing is left to do.
    async fn next_signal(&mut self) -> Result<Option<Delivery>, Dying> {
        loop {
            let work = self.work();
            if work.contains(Work::KILL) {
                return Err(Dying);
            }
            // These come before the next signal (`get_signal`).
            if work.intersects(Work::STOP | Work::TRAP | Work::FREEZE) {
                return Ok(None);
            }
            let Some((signal, queued, traced)) = self.dequeue() else { return Ok(None) };
            let mut info = queued.info;
            if let Some(timer) = queued.timer {
                info.set_overrun(self.timer_delivered(timer));
            }
            let mut signal = signal;
            // The tracer may put another signal in its place, or none.
            if traced {
                match crate::ptrace::stop::signal(self, signal, info).await {
                    Some((s, i)) => (signal, info) = (s, i),
                    None => continue,
                }
            }
            if let Some(delivery) = self.decide(signal, info).await? {
                return Ok(Some(delivery));
            }
        }
    }

    /// Does what a signal is to do; gives one that has a handler.
    async fn decide(&mut self, signal: Signal, info: SigInfo) -> Result<Option<Delivery>, Dying> {
        self.observe_signal(signal.number());
        let action = {
            // Read and reset under one lock: only one signal may take a one-shot handler.
            let s = self.group.signals.lock();
            let action = s.sighand.get(signal);
            if action.sa_handler > SIG_IGN && action.flags().contains(SaFlags::RESETHAND) {
                s.sighand.set(signal, SigAction { sa_handler: SIG_DFL, ..action });
            }
            action
        };
        match action.sa_handler {
            SIG_IGN => Ok(None),
            SIG_DFL => self.default_action(signal, &info).await.map(|()| None),
            _ => Ok(Some(Delivery { signal, info, action })),
        }
    }

    /// Does what a signal is to do that was taken in another life.
    pub(crate) async fn act_on(&mut self, signal: Signal, info: SigInfo) -> Result<(), Dying> {
        if let Some(delivery) = self.decide(signal, info).await? {
            self.handle(delivery).await;
        }
        Ok(())
    }

    /// Takes the next deliverable signal; tells whether a tracer wants to see it.
    fn dequeue(&mut self) -> Option<(Signal, Queued, bool)> {
        let id = self.id;
        let mut s = self.group.signals.lock();
        let taken = take_next(&mut s, id);
        let traced = s.threads.get(&id).is_some_and(|t| t.trace.is_some());
        s.recalc(id);
        let (signal, queued) = taken?;
        Some((signal, queued, traced && signal != Signal::SIGKILL))
    }

    async fn default_action(&mut self, signal: Signal, info: &SigInfo) -> Result<(), Dying> {
        let group = self.group.clone();
        match signal.default_action() {
            DefaultAction::Ignore | DefaultAction::Continue => Ok(()),
            // SIGKILL and SIGSTOP have passed the same rule when they were sent.
            _ if group.signals.lock().unkillable && !SigSet::UNBLOCKABLE.contains(signal) => Ok(()),
            DefaultAction::Stop => {
                // Only SIGSTOP stops a process that nobody could continue.
                if signal != Signal::SIGSTOP {
                    let family = group.kernel().family.lock();
                    let orphaned = family.node(group.id).is_none_or(|n| family.is_orphaned(&n.pgrp, None));
                    if orphaned {
                        return Ok(());
                    }
                }
                let mut s = group.signals.lock();
                // A SIGCONT may have come since the signal was taken: it cleared the stop, and the stop must not win.
                stop::start(&mut s, signal);
                Ok(())
            }
            DefaultAction::Terminate => {
                let number = u8::try_from(signal.number()).unwrap_or(0);
                let status = WaitStatus::Signaled { signal: number, core: CoreDump::NotDumped };
                group.signals.lock().start_exit(status);
                Err(Dying)
            }
            DefaultAction::Core => {
                tracing::debug!(tid = self.tid(), %signal, fault = ?self.last_fault, "process dies");
                crate::core_dump::die(self, signal, info).await;
                Err(Dying)
            }
        }
    }

    /// Runs the handler: decides about the interrupted system call, pushes the frame, sets the mask (`handle_signal`).
    async fn handle(&mut self, d: Delivery) {
        self.restart_for_handler(&d.action);
        let (signal, altstack) = (d.signal, self.altstack);
        let (saved, blocked, entering) = {
            let mut s = self.group.signals.lock();
            let Some(t) = s.threads.get_mut(&self.id) else { return };
            let blocked = t.blocked;
            let saved_mask = t.saved_mask.take();
            // The frame gets the mask from before sigsuspend(2) or ppoll(2), which returns after the handler.
            (saved_mask.unwrap_or(blocked), blocked, Entering { signal, blocked, saved_mask, altstack })
        };
        self.entering = Some(entering);
        if self.push_frame(d.signal, &d.info, &d.action, saved).await.is_err() {
            self.force_segv(Some(d.signal));
            return;
        }
        let mut mask = blocked.union(d.action.sa_mask);
        if !d.action.flags().contains(SaFlags::NODEFER) {
            mask.insert(d.signal);
        }
        self.set_blocked(mask);
        crate::ptrace::stop::handler_entered(self).await;
        crate::ptrace::stop::rearm(self);
    }

    /// The thread could not write what the last handler was to find, though it seemed so: nothing of it has happened but a SIGSEGV
    /// (`signal_setup_done`).
    pub(crate) fn frame_is_unwritten(&mut self) {
        let entering = self.entering.take();
        if let Some(was) = entering {
            self.altstack = was.altstack;
            if let Some(t) = self.group.signals.lock().threads.get_mut(&self.id) {
                t.saved_mask = was.saved_mask;
            }
            self.set_blocked(was.blocked);
        }
        self.force_segv(entering.map(|was| was.signal));
    }

    fn restart_for_handler(&mut self, action: &SigAction) {
        let Some(restart) = self.restart.take() else { return };
        let again = match restart.kind {
            Restart::NoIntr | Restart::Again => true,
            Restart::Sys => action.flags().contains(SaFlags::RESTART),
            // These go on only if no handler runs.
            Restart::NoHand | Restart::Block(_) => false,
        };
        if again {
            self.rewind(restart.nr);
        } else {
            self.thread().set_ret(moat_abi::Errno::EINTR.to_ret());
        }
    }

    /// No handler runs: an interrupted call starts again, and the mask of a waiting call is put back.
    fn finish_restart(&mut self) {
        if let Some(restart) = self.restart.take() {
            match restart.kind {
                Restart::Block(block) => {
                    // restart_syscall(2) finds its deadline here.
                    self.restart_block = Some(block);
                    self.rewind(u64::from(moat_abi::nr::RESTART_SYSCALL));
                }
                Restart::Sys | Restart::NoHand | Restart::NoIntr | Restart::Again => self.rewind(restart.nr),
            }
        }
        self.restore_mask();
    }

    /// Points the registers at the syscall instruction again, with call `nr`.
    fn rewind(&mut self, nr: u64) {
        let mut regs = self.thread().regs();
        regs.rax = nr;
        // `syscall` and `int 0x80` are both two bytes long.
        regs.rip = regs.rip.wrapping_sub(2);
        self.thread().set_regs(&regs);
    }
}

fn take_next(s: &mut GroupSignals, id: TaskId) -> Option<(Signal, Queued)> {
    let t = s.threads.get_mut(&id)?;
    let unblocked = t.blocked.complement();
    // Exceptions of this very thread come first, so that their frame shows the faulting instruction.
    if let Some(x) = t.pending.take(unblocked.intersection(SigSet::SYNCHRONOUS)) {
        return Some(x);
    }
    t.pending.take(unblocked).or_else(|| s.shared.take(unblocked))
}
