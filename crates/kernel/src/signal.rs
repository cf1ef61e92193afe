//! Signals: queues, actions, sending and delivery.
//!
//! - [`queue`]: what is pending.
//! - [`actions`]: the table of handlers that threads share (`CLONE_SIGHAND`).
//! - [`state`]: all signal state of one thread group, under one lock.
//! - [`send`]: generation, permission, choice of thread.
//! - [`deliver`]: what a task does about its pending signals before it runs application code.
//! - [`frame`]: the x86-64 signal frame and rt_sigreturn(2).
//! - [`stop`]: group stops and their reports; `group_stop`: how a thread takes part.
//! - [`view`]: what system calls and files of /proc do with all that.
//!
//! # Invariants
//! - Everything pending or blocked is in [`state::GroupSignals`], changed under the group's `signals` lock only; a task's
//!   [`crate::task::work::Work`] flags are recomputed before that lock is released.
//! - SIGKILL and SIGSTOP are never in a blocked set.

pub mod actions;
pub mod deliver;
pub mod fault;
mod fpu;
pub mod frame;
mod group_stop;
pub mod queue;
pub mod send;
pub(crate) mod state;
pub mod stop;
pub mod view;

pub use actions::SigHand;
pub use moat_abi::siginfo::SigInfo;
pub use moat_abi::signal::{SigAction, SigSet, Signal};
pub use queue::SignalQueue;

/// The POSIX timer that a signal comes from: an id in its thread group, and which arming of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimerRef {
    /// `timer_t`.
    pub id: i32,
}
