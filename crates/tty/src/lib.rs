//! Terminals towards sessions: job control, and the requests of ioctl_tty(2) that are the same for all of them.
//!
//! - [`terminal`]: [`Terminal`], what a device provides.
//! - [`job_control`]: [`JobControl`], whose terminal it is and who may use it at the moment.
//! - [`ioctl`]: admission by job control, settings, window size.
//!
//! The devices themselves are elsewhere: pseudo-terminals in `moat-fs-devpts`, the host's terminal in `moat-fs-host`.
//!
//! # Invariants
//! - A session and its terminal point at each other, or neither does: both change in [`JobControl`] only.
//! - No lock of this crate is held when a signal is sent: that takes the locks of the process tables, which are outer ones.
#![forbid(unsafe_code)]

pub mod ioctl;
pub mod job_control;
pub mod terminal;

pub use job_control::{JobControl, controlling_terminal, terminal_of};
pub use terminal::Terminal;
