//! [`SigHand`]: the actions of the 64 signals, shared by the threads of a group and by `CLONE_SIGHAND`.

use moat_abi::signal::{DefaultAction, SIG_DFL, SIG_IGN, SaFlags, SigAction, SigSet, Signal};
use moat_sync::{LockClass, Mutex};

/// A table of signal actions.
pub struct SigHand {
    table: Mutex<[SigAction; 64]>,
}

impl Default for SigHand {
    fn default() -> Self {
        SigHand { table: Mutex::new(LockClass::Process, [SigAction::default(); 64]) }
    }
}

impl SigHand {
    /// A copy, for fork(2).
    #[must_use]
    pub fn duplicate(&self) -> SigHand {
        SigHand { table: Mutex::new(LockClass::Process, *self.table.lock()) }
    }

    /// A copy as execve(2) and `CLONE_CLEAR_SIGHAND` leave it: handlers back to default, ignored signals stay so.
    #[must_use]
    pub fn without_handlers(&self) -> SigHand {
        let mut table = *self.table.lock();
        for action in &mut table {
            let handler = if action.sa_handler == SIG_IGN { SIG_IGN } else { SIG_DFL };
            // Flags and masks go as well (`flush_signal_handlers`).
            *action = SigAction { sa_handler: handler, ..SigAction::default() };
        }
        SigHand { table: Mutex::new(LockClass::Process, table) }
    }

    /// A table of defaults only (`CLONE_CLEAR_SIGHAND` keeps ignored ones, a new init does not).
    #[must_use]
    pub fn new() -> SigHand {
        SigHand::default()
    }

    /// The action of `signal`.
    #[must_use]
    pub fn get(&self, signal: Signal) -> SigAction {
        self.table.lock()[signal.index()]
    }

    /// Sets the action of `signal`; gives the old one.
    pub fn set(&self, signal: Signal, action: SigAction) -> SigAction {
        std::mem::replace(&mut self.table.lock()[signal.index()], action)
    }

    /// Whether the action ignores the signal, by SIG_IGN or by default.
    #[must_use]
    pub fn ignores(&self, signal: Signal) -> bool {
        match self.get(signal).sa_handler {
            SIG_IGN => true,
            SIG_DFL => matches!(signal.default_action(), DefaultAction::Ignore | DefaultAction::Continue),
            _ => false,
        }
    }

    /// Whether a handler is installed.
    #[must_use]
    pub fn catches(&self, signal: Signal) -> bool {
        !matches!(self.get(signal).sa_handler, SIG_DFL | SIG_IGN)
    }

    /// Whether children of this process leave no zombie: SIGCHLD ignored or `SA_NOCLDWAIT`.
    #[must_use]
    pub fn autoreaps(&self) -> bool {
        let a = self.get(Signal::SIGCHLD);
        a.sa_handler == SIG_IGN || a.flags().contains(SaFlags::NOCLDWAIT)
    }

    /// The signals that are ignored by SIG_IGN and those that are caught (`SigIgn`, `SigCgt` of /proc/PID/status).
    #[must_use]
    pub fn summary(&self) -> (SigSet, SigSet) {
        let table = self.table.lock();
        let (mut ignored, mut caught) = (SigSet::EMPTY, SigSet::EMPTY);
        for (n, action) in (1..).zip(table.iter()) {
            match (action.sa_handler, Signal::new(n)) {
                (SIG_DFL, _) | (_, None) => {}
                (SIG_IGN, Some(s)) => ignored.insert(s),
                (_, Some(s)) => caught.insert(s),
            }
        }
        (ignored, caught)
    }
}
