//! Signals that a thread brings on itself: processor exceptions and bad memory.

use moat_abi::siginfo::{SI_KERNEL, SigInfo};
use moat_abi::signal::{SIG_DFL, SIG_IGN, SigAction, Signal};

use crate::signal::queue::Queued;
use crate::task::CurrentTask;

impl CurrentTask {
    /// Sends `info` to this thread in a way that it can't escape: a blocked or ignored signal is unblocked and has its
    /// default action, so that the thread does not loop on the fault (`force_sig_info`).
    pub fn force_signal(&mut self, info: SigInfo) {
        let Some(signal) = info.signal() else { return };
        let mut s = self.group.signals.lock();
        let Some(t) = s.threads.get_mut(&self.id) else { return };
        let blocked = t.blocked.contains(signal);
        t.pending.push(signal, Queued::from(info));
        if blocked {
            t.blocked.remove(signal);
        }
        let action = s.sighand.get(signal);
        if blocked || action.sa_handler == SIG_IGN {
            s.sighand.set(signal, SigAction { sa_handler: SIG_DFL, ..action });
        }
        if s.sighand.get(signal).sa_handler == SIG_DFL && s.threads.get(&self.id).is_none_or(|t| t.trace.is_none()) {
            // Even an init dies of its own faults.
            s.unkillable = false;
        }
        s.recalc(self.id);
    }

    /// SIGSEGV for a frame that could not be written or read; if that is the signal at fault, the process dies of it
    /// (`signal_setup_done`, `force_sigsegv`).
    pub fn force_segv(&mut self, while_delivering: Option<Signal>) {
        if while_delivering == Some(Signal::SIGSEGV) {
            let s = self.group.signals.lock();
            s.sighand.set(Signal::SIGSEGV, SigAction::default());
        }
        self.force_signal(SigInfo::new(Signal::SIGSEGV, SI_KERNEL));
    }

    /// Sends `signal` to this thread as the kernel, e.g. SIGPIPE, SIGXFSZ (`send_sig`).
    pub fn send_to_self(&mut self, signal: Signal) {
        let info = SigInfo::new(signal, SI_KERNEL);
        let _ = crate::signal::send::send_to_task(self.task(), info, crate::signal::send::Origin::Outside);
    }
}
