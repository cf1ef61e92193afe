//! Futexes: futex(2), futex_waitv(2), robust lists and what a thread's end does to them (`kernel/futex/`).
//!
//! - [`table`]: who waits for which word.
//! - [`wait`]: FUTEX_WAIT and its variants.
//! - [`wake`]: FUTEX_WAKE, FUTEX_WAKE_OP, FUTEX_REQUEUE.
//! - [`own`]: words that the host keeps waiters for.
//! - [`waitv`]: the call futex_waitv(2).
//! - [`pi`]: FUTEX_LOCK_PI and its like; [`pi_table`]: who waits for them.
//! - [`requeue_pi`]: FUTEX_CMP_REQUEUE_PI and its wait.
//! - [`robust`]: the end of a thread.
//! - `word`: atomic changes of guest words.
//!
//! # Invariants
//! - No lock is held while guest memory is read: a waiter is in the table before it looks at the word, so that either it
//!   sees the waker's store or the waker sees it.
//! - Guest words are changed by the guest thread of the caller only ([`moat_platform::Atomic32`]).
//! - Everything about one PI futex happens in its turn ([`pi_table::PiTable`]), which is held across those changes.
//!
//! moat's scheduler is the host's, so no priority is inherited; waiters are served first come, first served.

pub mod own;
pub mod pi;
pub mod pi_table;
pub mod requeue_pi;
pub mod robust;
pub mod table;
pub mod wait;
pub mod waitv;
pub mod wake;
mod word;

use std::sync::Arc;

use moat_sync::Listener;

/// All futexes that somebody waits for.
#[derive(Default)]
pub struct Futexes {
    /// Those of FUTEX_WAIT and its like.
    pub(crate) table: table::FutexTable,
    /// Those of FUTEX_LOCK_PI.
    pub(crate) pi: pi_table::PiTable,
}

impl Futexes {
    /// A waiter that is in no queue yet; `listener` is told of when it is woken.
    fn waiter(&self, bitset: u32, purpose: table::Purpose, listener: &Listener) -> Arc<table::Waiter> {
        table::Waiter::new(self.table.ticket(), bitset, purpose, listener.notifier())
    }
}

pub use robust::{exec_thread, exit_thread};
