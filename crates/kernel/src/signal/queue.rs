//! [`SignalQueue`]: signals that are pending for a thread or a thread group.
//!
//! Standard signals merge: only the first instance is kept. Real-time signals queue up to RLIMIT_SIGPENDING.
//! Source: signal(7), `__send_signal_locked` and `next_signal` in `kernel/signal.c`.

use std::collections::VecDeque;

use moat_abi::siginfo::SigInfo;
use moat_abi::signal::{SigSet, Signal};

use crate::signal::TimerRef;

/// One pending instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queued {
    /// What the handler gets.
    pub info: SigInfo,
    /// The POSIX timer that sent it, whose overrun count is taken at delivery.
    pub timer: Option<TimerRef>,
}

impl From<SigInfo> for Queued {
    fn from(info: SigInfo) -> Self {
        Queued { info, timer: None }
    }
}

/// Pending signals.
#[derive(Default)]
pub struct SignalQueue {
    set: SigSet,
    /// In order of arrival; at most one of each standard signal, besides those of timers.
    queued: VecDeque<Queued>,
}

impl SignalQueue {
    /// Which signals are pending.
    #[must_use]
    pub fn set(&self) -> SigSet {
        self.set
    }

    /// How many instances are queued.
    #[must_use]
    pub fn len(&self) -> usize {
        self.queued.len()
    }

    /// Whether nothing is pending.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Adds an instance; a standard signal that is pending already stays as it is.
    pub fn push(&mut self, signal: Signal, entry: Queued) {
        let merged = match entry.timer {
            // A timer's instance is its own (`posixtimer_send_sigqueue`): the handler gets its value and overrun count.
            Some(timer) => self.has_timer(timer),
            None => !signal.is_realtime() && self.set.contains(signal),
        };
        if merged {
            return;
        }
        self.set.insert(signal);
        self.queued.push_back(entry);
    }

    /// Takes the next instance of a signal in `wanted`: processor exceptions first, then the lowest number.
    pub fn take(&mut self, wanted: SigSet) -> Option<(Signal, Queued)> {
        let ready = self.set.intersection(wanted);
        let signal = ready.intersection(SigSet::SYNCHRONOUS).first().or_else(|| ready.first())?;
        let number = signal.number();
        let at = self.queued.iter().position(|q| q.info.si_signo == number);
        let entry = at.and_then(|at| self.queued.remove(at));
        if !self.queued.iter().any(|q| q.info.si_signo == number) {
            self.set.remove(signal);
        }
        // The set and the list are changed together, so there is an entry for each member.
        Some((signal, entry.unwrap_or_else(|| SigInfo::new(signal, 0).into())))
    }

    /// The instance that [`SignalQueue::take`] would give.
    #[must_use]
    pub fn peek(&self, wanted: SigSet) -> Option<(Signal, SigInfo)> {
        let ready = self.set.intersection(wanted);
        let signal = ready.intersection(SigSet::SYNCHRONOUS).first().or_else(|| ready.first())?;
        let found = self.queued.iter().find(|q| q.info.si_signo == signal.number())?;
        Some((signal, found.info))
    }

    /// Drops all instances of the signals in `gone`.
    pub fn discard(&mut self, gone: SigSet) {
        if self.set.intersection(gone).is_empty() {
            return;
        }
        self.set = self.set.difference(gone);
        let set = self.set;
        self.queued.retain(|q| q.info.signal().is_some_and(|s| set.contains(s)));
    }

    /// Whether the instance of a POSIX timer is pending.
    #[must_use]
    pub fn has_timer(&self, timer: TimerRef) -> bool {
        self.queued.iter().any(|q| q.timer == Some(timer))
    }

    /// Drops the instance of one POSIX timer.
    pub fn discard_timer(&mut self, timer: TimerRef) {
        self.queued.retain(|q| q.timer != Some(timer));
        self.set = self.queued.iter().filter_map(|q| q.info.signal()).collect();
    }

    /// Real-time instances: what RLIMIT_SIGPENDING counts.
    #[must_use]
    pub fn realtime_len(&self) -> usize {
        self.queued.iter().filter(|q| q.info.signal().is_some_and(Signal::is_realtime)).count()
    }

    /// All instances in order of arrival, for PTRACE_PEEKSIGINFO.
    pub fn iter(&self) -> impl Iterator<Item = &Queued> {
        self.queued.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(n: i32, code: i32) -> (Signal, Queued) {
        let s = Signal::new(n).unwrap();
        (s, SigInfo::new(s, code).into())
    }

    #[test]
    fn standard_merge_realtime_queue_and_the_order_is_linux_s() {
        let mut q = SignalQueue::default();
        for (n, code) in [(40, 1), (40, 2), (10, 1), (10, 2), (11, 5), (2, 0)] {
            let (s, e) = info(n, code);
            q.push(s, e);
        }
        let mut got = Vec::new();
        while let Some((s, e)) = q.take(SigSet::FULL) {
            got.push((s.number(), e.info.si_code));
        }
        assert_eq!(got, [(11, 5), (2, 0), (10, 1), (40, 1), (40, 2)]);
        assert!(q.is_empty());
    }

    #[test]
    fn discarding_takes_all_instances() {
        let mut q = SignalQueue::default();
        for n in [40, 40, 3] {
            let (s, e) = info(n, 0);
            q.push(s, e);
        }
        q.discard(Signal::new(40).unwrap().bit());
        assert_eq!(q.len(), 1);
        assert_eq!(q.take(Signal::new(40).unwrap().bit()), None);
        assert_eq!(q.take(SigSet::FULL).map(|x| x.0.number()), Some(3));
    }
}
