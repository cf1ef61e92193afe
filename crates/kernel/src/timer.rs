//! Timers of guests: interval timers, POSIX timers.

pub mod itimer;
pub mod posix;
mod state;

pub use state::GroupTimers;
