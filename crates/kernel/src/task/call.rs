//! [`CurrentCall`]: the system call that a task is in, for people who look for a hang.

use std::sync::atomic::{AtomicU64, Ordering};

const NONE: u64 = u64::MAX;

/// The call that a task is in. Written by the task alone; who reads it may see parts of two calls.
pub struct CurrentCall {
    nr: AtomicU64,
    args: [AtomicU64; 6],
}

impl Default for CurrentCall {
    fn default() -> Self {
        CurrentCall { nr: AtomicU64::new(NONE), args: Default::default() }
    }
}

impl CurrentCall {
    pub(crate) fn begin(&self, nr: u64, args: &[u64; 6]) {
        for (to, from) in self.args.iter().zip(args) {
            to.store(*from, Ordering::Relaxed);
        }
        self.nr.store(nr, Ordering::Relaxed);
    }

    pub(crate) fn end(&self) {
        self.nr.store(NONE, Ordering::Relaxed);
    }

    /// Number and arguments, if the task is in a call.
    #[must_use]
    pub fn get(&self) -> Option<(u64, [u64; 6])> {
        let nr = self.nr.load(Ordering::Relaxed);
        (nr != NONE).then(|| (nr, std::array::from_fn(|i| self.args[i].load(Ordering::Relaxed))))
    }
}
