//! What a task has done, for the trace ([`moat_sync::trace`]) and for sums of times by system call ([`super::times`]), and for samples ([`super::samples`]).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_sync::trace::{self, Event, Kind, Observer};

use crate::task::samples::{GuestSample, STACK_BYTES};
use crate::task::{CurrentTask, Task};

impl Task {
    /// Tells the trace what the task is called.
    pub fn note_name(&self) {
        if !trace::is_on(Observer::Trace) {
            return;
        }
        // Events have no room for strings: the name goes in two words.
        let name = self.comm();
        let words = name.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            u64::from_le_bytes(word)
        });
        let mut values = [0; 6];
        // A name has 15 bytes.
        values.iter_mut().zip(words.take(2)).for_each(|(to, from)| *to = from);
        let number = u64::from(self.tgid().unsigned_abs());
        let result = u64::from(self.tid().unsigned_abs());
        self.emit(Event { number, values, result, ..Event::since(Kind::Name, trace::now_ns()) });
    }

    /// Adds an event of this task to the trace, if there is one.
    pub(crate) fn emit(&self, event: Event) {
        if trace::is_on(Observer::Trace) {
            trace::emit(Event { process: self.group.pid().id, task: self.id.0, ..event });
        }
    }
}

impl CurrentTask {
    /// The thread has come back from application code, to which it went at `resumed_ns`; 0 for who does not want to know.
    pub(crate) fn observe_guest(&mut self, resumed_ns: u64) {
        if resumed_ns == 0 {
            return;
        }
        let mut event = Event::since(Kind::Guest, resumed_ns);
        if trace::is_on(Observer::Times) {
            self.kernel().times.add_guest(event.duration_ns);
        }
        if trace::is_on(Observer::Trace) {
            // The thread's own word, which the guest can change: within what the sentry has seen it may say anything.
            if let Some(stay) = self.thread().stay() {
                let end_ns = resumed_ns.saturating_add(event.duration_ns);
                let taken_ns = stay.taken_ns.clamp(resumed_ns, end_ns);
                let stopped_ns = stay.stopped_ns.clamp(taken_ns, end_ns);
                event.values = [taken_ns.saturating_sub(resumed_ns), end_ns.saturating_sub(stopped_ns), 0, 0, 0, 0];
                event.label = stay.way;
            }
            self.emit(event);
        }
    }

    /// A system call that began at `began_ns` has ended.
    pub(crate) fn observe_call(&mut self, began_ns: u64, number: u64, values: &[u64; 6]) {
        if began_ns == 0 {
            return;
        }
        // After rt_sigreturn(2) and execve(2) it is what the register has then, which is no result.
        let result = self.thread().regs().rax;
        let event = Event { number, values: *values, result, ..Event::since(Kind::Call, began_ns) };
        if trace::is_on(Observer::Times) {
            self.kernel().times.add_call(&event);
        }
        self.emit(event);
    }

    /// A fault that came at `began_ns` has been handled.
    pub(crate) fn observe_fault(&self, began_ns: u64, number: u64, address: u64) {
        if began_ns != 0 {
            let values = [address, 0, 0, 0, 0, 0];
            self.emit(Event { number, values, ..Event::since(Kind::Fault, began_ns) });
        }
    }

    /// A signal is being acted upon.
    pub(crate) fn observe_signal(&self, number: i32) {
        let began_ns = trace::began();
        if began_ns != 0 {
            self.emit(Event { number: u64::from(number.unsigned_abs()), ..Event::since(Kind::Signal, began_ns) });
        }
    }
}

impl Task {
    /// Has the task take a sample that stands for `value_ns`, in [`crate::kernel::Kernel::samples`], if it is in application code. False if
    /// it is not: then ask again later.
    pub fn ask_for_sample(&self, value_ns: u64) -> bool {
        let kicker = self.kicker().filter(|kicker| self.flags.in_guest() && !kicker.rests());
        let Some(kicker) = kicker else { return false };
        // Before the kick, which the task may answer at once.
        self.sample_ns.fetch_add(value_ns, Ordering::Relaxed);
        kicker.kick();
        true
    }
}

impl CurrentTask {
    /// Answers [`Task::ask_for_sample`]. The thread was kicked out of application code.
    pub(crate) fn take_sample(&mut self) {
        let value_ns = self.sample_ns.load(Ordering::Relaxed);
        // Whoever else kicked it wants no sample.
        if value_ns == 0 {
            return;
        }
        // Not zero: more may have been asked for meanwhile.
        self.sample_ns.fetch_sub(value_ns, Ordering::Relaxed);
        let regs = self.thread().regs();
        let mut stack = vec![0; STACK_BYTES];
        let length = self.mm().space().read(regs.rsp, &mut stack).unwrap_or(0);
        // A stack pointer that points nowhere gives a sample without a stack.
        stack.truncate(length);
        let memory = Arc::downgrade(self.mm());
        let (tgid, comm) = (self.tgid(), self.comm());
        let (ip, sp, bp) = (regs.rip, regs.rsp, regs.rbp);
        self.kernel().samples.add(GuestSample { tgid, comm, value_ns, ip, sp, bp, stack, memory });
    }
}
