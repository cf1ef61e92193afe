//! [`task_main`]: the life of a task, from its first instruction to its end.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use moat_abi::Errno;
use moat_abi::clone::{CoreDump, WaitStatus};
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::Signal;
use moat_image::state::NextStep;
use moat_mm::FaultAction;
use moat_platform::{Event, Fault, ForeignAbi, Order, switch, whole};
use moat_sync::{busy, executor, trace, watchdog};

use crate::error::{Deadline, PendingRestart, Restart, SyscallError, SyscallResult};
use crate::futex::own;
use crate::metrics;
use crate::monitor::WatchedCall;
use crate::ptrace;
use crate::seccomp::{self, Call};
use crate::task::current::LastFault;
use crate::task::death::Deathwatch;
use crate::task::{CurrentTask, Task, parcel, recent};

/// The exception of a step and of a debug register (`X86_TRAP_DB`).
const DEBUG_TRAP: u64 = 1;

/// Runs a task until it has exited.
pub async fn task_main(mut current: CurrentTask) {
    // Its container may have been frozen since it was made.
    current.group.signals.lock().recalc(current.id);
    run(&mut current).await;
    Box::pin(current.exit()).await;
}

/// Runs a task out of an image, which first goes on with what it did.
async fn resumed_main(mut current: CurrentTask, step: NextStep) {
    current.group.signals.lock().recalc(current.id);
    if let Some(status) = Box::pin(current.take_step(step)).await {
        Box::pin(current.end(status)).await;
        return;
    }
    run(&mut current).await;
    Box::pin(current.exit()).await;
}

/// Starts the future of a task out of an image.
pub(crate) fn resume(current: CurrentTask, step: NextStep) {
    moat_sync::spawn(current.task().clone().timed(Box::pin(resumed_main(current, step))));
}

/// Starts the future of a task.
pub fn start(current: CurrentTask) {
    current.note_name();
    moat_sync::spawn(current.task().clone().timed(Box::pin(task_main(current))));
}

impl Task {
    /// Runs the future of the task, counts the time that a worker spends on it, and sees to it that it ends when it is to.
    ///
    /// It comes in a box: a future has room for what it is given and once more for what it moves that to.
    async fn timed<F: Future + Unpin>(self: Arc<Self>, mut future: F) -> F::Output {
        let mut deathwatch = Deathwatch::default();
        poll_fn(|cx| {
            // A deadly signal has to reach it wherever its future waits.
            self.keep_waker(cx);
            let polled_ns = trace::began();
            if polled_ns != 0 {
                trace::set_current(self.id.0);
            }
            watchdog::set_task(self.tgid(), self.tid());
            // System time is the CPU time that a worker spends, less what it slept in host calls, as Linux counts no sleep either, and
            // less what it looked for the end of application code.
            let (start, blocked) = (Instant::now(), busy::blocked());
            let polled = Pin::new(&mut future).poll(cx);
            parcel::end_of_poll();
            let asleep = busy::blocked().saturating_sub(blocked);
            let lingered = executor::take_lingered();
            let spent = busy::on_cpu(start.elapsed().saturating_sub(asleep).saturating_sub(lingered));
            if !asleep.is_zero() && self.kernel().waits.is_on() {
                let time_ns = u64::try_from(asleep.as_nanos()).unwrap_or(u64::MAX);
                self.kernel().waits.note(self.wait_site("host call"), time_ns);
            }
            self.usage.add_system(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX));
            watchdog::set_task(0, 0);
            if polled_ns != 0 {
                trace::set_current(0);
                self.emit(trace::Event::since(trace::Kind::Poll, polled_ns));
            }
            if polled.is_pending() && !self.work().is_empty() {
                deathwatch.look(&self, cx);
            }
            polled
        })
        .await
    }
}

async fn run(t: &mut CurrentTask) {
    loop {
        if !t.work().is_empty() || t.restart.is_some() || t.after_call {
            t.after_call = false;
            t.settle_gifts();
            // What is seldom awaited, or long, is in boxes of its own: each task's future has room for the largest of all others.
            if Box::pin(t.before_user()).await.is_err() {
                return;
            }
        }
        if let Some(name) = t.take_renaming() {
            t.thread().defer(Order::SetName(name));
        }
        t.publish_answers();
        // Work that came since it was looked at: whoever brought it saw the task outside guest code and did not kick it.
        if !t.flags.enter() {
            continue;
        }
        t.take_back();
        let resumed_ns = trace::began();
        // Application code runs here, and the orders that were deferred before it.
        let event = switch(t.thread()).await;
        t.flags.leave();
        t.observe_guest(resumed_ns);
        match event {
            Event::Syscall { nr, args } => {
                let began_ns = trace::began();
                t.rewrite_site();
                t.call.begin(nr, &args);
                recent::note(nr, &args);
                t.open_parcel(nr);
                t.syscall(nr, args).await;
                t.close_parcel();
                t.call.end();
                t.observe_call(began_ns, nr, &args);
                ptrace::stop::called(t);
            }
            Event::Unfinished { nr, began_ns } => {
                t.group.container.metrics.count(metrics::Event::Kicks, 1);
                t.take_sample();
                let args = t.thread().regs().syscall_args();
                let interrupted = own::interrupted(t, nr, args, began_ns);
                t.finish_syscall(nr, Err(interrupted));
            }
            Event::ForeignSyscall(ForeignAbi::I386) => Box::pin(t.i386_syscall()).await,
            Event::ForeignSyscall(ForeignAbi::Vsyscall) => Box::pin(t.vsyscall()).await,
            Event::Fault(fault) => {
                t.group.container.metrics.count(metrics::Event::Faults, 1);
                let began_ns = trace::began();
                Box::pin(t.fault(fault)).await;
                t.observe_fault(began_ns, fault.trapno, fault.addr);
            }
            Event::Unwritten => t.frame_is_unwritten(),
            // Kicked: the work that it was kicked for is looked at above.
            Event::Interrupted => {
                t.group.container.metrics.count(metrics::Event::Kicks, 1);
                t.take_sample();
            }
            // Memory is not what the tree of areas says any more: nothing sensible can follow.
            Event::OrderFailed(errno) => {
                t.mm().order_failed(errno);
                t.kill_process();
            }
            Event::Died => {
                tracing::debug!(tid = t.tid(), "the host thread is gone");
                t.kill_process();
            }
        }
        if t.exit_status.is_some() {
            t.settle_gifts();
            return;
        }
    }
}

impl CurrentTask {
    /// The process dies by SIGKILL: its host process is gone or overwritten.
    ///
    /// Not where execve(2) of another thread has ended this one: that goes on in a host process of its own.
    fn kill_process(&mut self) {
        let mut s = self.group.signals.lock();
        if s.exec.is_none_or(|id| id == self.id) {
            s.start_exit(WaitStatus::Signaled { signal: 9, core: CoreDump::NotDumped });
        }
    }

    /// Has a call site that traps often rewritten, unless somebody follows the task instruction by instruction.
    fn rewrite_site(&mut self) {
        if let Some(behind) = self.thread().hot_site()
            && !self.task().traced.load(Ordering::Relaxed)
        {
            self.mm().rewrite_site(behind);
        }
    }

    /// Makes all of the thread's state accessible. Of a thread that is gone it is not: then each use of it fails.
    pub(crate) async fn whole(&mut self) {
        let _ = whole(self.thread()).await;
    }

    /// Handles one system call, with the stops that a tracer asked for.
    async fn syscall(&mut self, nr: u64, args: [u64; 6]) {
        // The high half is ignored, as the kernel's entry code does.
        let call = Call::x86_64(nr, args);
        self.usage.count_syscall();
        if self.task().traced.load(Ordering::Relaxed) {
            // Each stop shows it.
            self.whole().await;
        }
        if ptrace::stop::traces_syscalls(self) {
            Box::pin(self.shown_syscall(call.nr(), args)).await;
        } else {
            let made = seccomp::check_call(self, call).await;
            self.make_checked(made, call).await;
        }
    }

    /// A call whose entry is a stop for the tracer.
    async fn shown_syscall(&mut self, nr: u64, args: [u64; 6]) {
        let left = ptrace::stop::syscall_entry(self, nr, args).await;
        self.after_entry(left).await;
    }

    /// Makes what a tracer has left of a call, if it is to be made.
    pub(crate) async fn after_entry(&mut self, left: Option<(u64, [u64; 6])>) {
        let Some((nr, args)) = left else {
            ptrace::stop::syscall_exit(self).await;
            return;
        };
        // SIGKILL during the stop comes before the call.
        if self.work().contains(crate::task::work::Work::KILL) {
            return;
        }
        let call = Call::x86_64(nr, args);
        let made = seccomp::check_call(self, call).await;
        self.make_checked(made, call).await;
    }

    /// Makes `made`, which filters have left of `call`.
    pub(crate) async fn make_checked(&mut self, made: Option<Call>, call: Call) {
        if let Some(call) = made {
            let mut result = self.dispatch(call.nr(), call.args()).await;
            if let Err(SyscallError::Restart(Restart::Again)) = result {
                result = Box::pin(self.call_again(call.nr(), call.args())).await;
            }
            self.finish_syscall(call.nr(), result);
        } else if let Err(errno) = Errno::from_ret(self.thread().regs().rax) {
            // A filter has answered it: whoever looks for what is refused finds it where other calls are.
            self.group.container.metrics.count_call(call.nr(), &Err(errno.into()));
            self.log_refused(call, errno);
        }
        self.exit_stop().await;
    }

    /// The stop behind a call, if the tracer wants it.
    async fn exit_stop(&mut self) {
        if self.exit_status.is_none() && ptrace::stop::traces_syscalls(self) {
            Box::pin(ptrace::stop::syscall_exit(self)).await;
        }
    }

    /// Ends a call that was made in another life: it gives `value`, after the wait for a vfork(2) child if there is one.
    pub(crate) async fn end_call(&mut self, value: u64, vfork: bool) {
        if vfork {
            crate::task::clone::await_vfork(self).await;
        }
        self.thread().set_ret(value);
        self.exit_stop().await;
    }

    /// Goes on with a call that was given up in another life: filters have had their say, and a tracer the stop before it.
    pub(crate) async fn go_on(&mut self, nr: u64, args: [u64; 6], deadline: Option<Option<Deadline>>) {
        self.call.begin(nr, &args);
        let mut result = self.make_call(nr, args, deadline).await;
        if let Err(SyscallError::Restart(Restart::Again)) = result {
            result = self.call_again(nr, args).await;
        }
        self.finish_syscall(nr, result);
        self.call.end();
        self.exit_stop().await;
    }

    /// Runs the handler, tells those who want to know of it, and counts the call.
    pub async fn dispatch(&mut self, nr: u64, args: [u64; 6]) -> SyscallResult {
        let syscalls = self.syscalls;
        #[cfg(debug_assertions)]
        if let Some(mishap) = self.kernel().mishap {
            mishap.meet(nr);
        }
        let result = if self.kernel().is_watched() {
            // A box of its own, so that the future of every task need not have room for it.
            Box::pin(self.dispatch_watched(nr, args)).await
        } else {
            syscalls.dispatch(self, nr, args).result().await
        };
        self.group.container.metrics.count_call(nr, &result);
        result
    }

    /// Somebody wants to know of some calls, but perhaps not of this one.
    async fn dispatch_watched(&mut self, nr: u64, args: [u64; 6]) -> SyscallResult {
        let syscalls = self.syscalls;
        let watched = WatchedCall::begin(self, nr, &args);
        let result = if self.kernel().strace.wants(self.group.id, self.group.container.id(), nr) {
            self.dispatch_logged(nr, args).await
        } else {
            syscalls.dispatch(self, nr, args).result().await
        };
        if let Some(watched) = watched {
            watched.end(self, &result);
        }
        result
    }

    fn log_refused(&self, call: Call, errno: Errno) {
        if self.kernel().strace.wants(self.group.id, self.group.container.id(), call.nr()) {
            let (tid, text) = (self.tid(), self.syscalls.format(self, call.nr(), &call.args()));
            tracing::info!(target: "strace", "[{tid}] {text} = -1 {} (by a filter)", errno.name());
        }
    }

    async fn dispatch_logged(&mut self, nr: u64, args: [u64; 6]) -> SyscallResult {
        let syscalls = self.syscalls;
        let call = syscalls.format(self, nr, &args);
        let (started, tid) = (Instant::now(), self.tid());
        let result = syscalls.dispatch(self, nr, args).result().await;
        let us = started.elapsed().as_micros();
        match &result {
            Ok(v) if *v > 0xffff => tracing::info!(target: "strace", "[{tid}] {call} = {v:#x} ({us} us)"),
            Ok(v) => tracing::info!(target: "strace", "[{tid}] {call} = {v} ({us} us)"),
            Err(SyscallError::Errno(e)) => {
                tracing::info!(target: "strace", "[{tid}] {call} = -1 {} ({us} us)", e.name())
            }
            Err(SyscallError::Restart(r)) => tracing::info!(target: "strace", "[{tid}] {call} = ? {r:?} ({us} us)"),
        }
        result
    }

    fn finish_syscall(&mut self, nr: u64, result: SyscallResult) {
        match result {
            Ok(value) => self.thread().set_ret(value),
            Err(SyscallError::Errno(e)) => self.thread().set_ret(e.to_ret()),
            Err(SyscallError::Restart(kind)) => {
                // What a tracer sees; it is replaced before application code runs.
                self.thread().set_ret(kind.traced_value());
                self.restart = Some(PendingRestart { kind, nr });
            }
        }
    }

    async fn fault(&mut self, fault: Fault) {
        let mut trap_code = None;
        if fault.signal == Signal::SIGTRAP.number() && ptrace::stop::single_stepped(self) {
            if fault.trapno == DEBUG_TRAP {
                trap_code = ptrace::stop::step_done(self);
                if trap_code.is_none() {
                    return;
                }
            }
            // The tracer's flag must not get into a signal frame.
            let mut regs = self.thread().regs();
            regs.rflags &= !moat_platform::regs::RFLAGS_TF;
            self.thread().set_regs(&regs);
        }
        let (mm, thread) = self.mm_and_thread();
        match mm.handle_fault(thread, &fault).await {
            FaultAction::Retry => {}
            FaultAction::Signal { signal, code, addr } => {
                self.last_fault =
                    LastFault { trapno: fault.trapno, err: fault.err, cr2: if fault.trapno == 14 { addr } else { 0 } };
                let signal = Signal::new(signal).unwrap_or(Signal::SIGSEGV);
                self.force_signal(SigInfo::fault(signal, trap_code.unwrap_or(code), addr));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room_of<F>(_future: impl FnOnce(CurrentTask) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_sleeping_task_has_little_more_than_its_state() {
        // A sandbox may have thousands of them.
        let (future, state) = (room_of(task_main), size_of::<CurrentTask>());
        assert!(future < 2 * state + 1024, "{future} bytes, of which {state} are the task's");
    }
}
