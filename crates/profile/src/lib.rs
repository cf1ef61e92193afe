//! From what a sandbox saw to files for viewers: pprof, flame graphs.
//!
//! - [`profile`]: [`Profile`], the records of a sandbox with functions named.
//! - [`unwind`]: from registers and a stack to addresses.
//! - [`symbols`]: from addresses to functions, files and lines.
//! - [`pprof`], [`flame`]: the files.
//! - [`capture`]: the frames of a network as a file for tcpdump(8) and Wireshark.
//! - [`trace`]: a trace as a file for viewers; [`summary`]: times by system call, for people.
//!
//! It runs in the command, not in the sandbox: the command has the same program, and may open files. What comes from the sandbox,
//! guests' names and programs included, is not believed: a bad module has no names, a bad stack ends early.

#![forbid(unsafe_code)]

pub mod capture;
pub mod flame;
pub mod image;
pub mod pprof;
pub mod profile;
pub mod summary;
pub mod symbols;
pub mod trace;
pub mod unwind;

pub use profile::{Location, Profile, Stack};
pub use symbols::Line;
