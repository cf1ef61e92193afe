//! [`Counter`]: ids that are given once and never again.

use std::sync::atomic::{AtomicU64, Ordering};

/// Gives ascending ids. At one a nanosecond, 64 bits last for five centuries: it never wraps.
#[derive(Debug)]
pub struct Counter {
    next: AtomicU64,
}

impl Counter {
    /// A counter whose first id is `first`.
    #[must_use]
    pub const fn starting_at(first: u64) -> Counter {
        Counter { next: AtomicU64::new(first) }
    }

    /// A fresh id.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives only ids beyond `id` from here on.
    pub fn skip(&self, id: u64) {
        self.next.fetch_max(id.saturating_add(1), Ordering::Relaxed);
    }
}
