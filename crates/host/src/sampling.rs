//! Samples of what this process does: where its threads spend CPU time ([`ticks`]) and what they allocate ([`heap`]).
//!
//! A [`ring::Sample`] is a few registers and a copy of the stack. It is unwound by another program, which has the files that
//! [`modules`] names: a signal handler and an allocator take samples, so nothing here may allocate, lock or follow a pointer
//! into a stack. While nobody samples, an allocation costs one relaxed load and nothing else anything.

pub mod calls;
pub mod heap;
pub mod modules;
pub mod ring;
pub mod ticks;
