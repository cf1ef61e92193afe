//! Pseudo-terminals: the line discipline between a master and its slave.
//!
//! [`ldisc`] is a pure data structure; the devices that tasks open are built on it.
#![forbid(unsafe_code)]

pub mod ldisc;

pub use ldisc::{Effects, LineDiscipline, ReadRule};
