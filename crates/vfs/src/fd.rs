//! [`Fd`]: the number of a descriptor.

use std::fmt;

/// A descriptor number as a guest gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fd(pub i32);

impl Fd {
    /// Stands for the working directory.
    pub const CWD: Fd = Fd(moat_abi::fs::AT_FDCWD);
}

impl fmt::Display for Fd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Fd::CWD { f.write_str("AT_FDCWD") } else { self.0.fmt(f) }
    }
}

/// Whether exec closes a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum OnExec {
    Keep,
    Close,
}

impl OnExec {
    /// The choice of an `O_CLOEXEC`-like flag.
    #[must_use]
    pub fn close_if(cloexec: bool) -> OnExec {
        if cloexec { OnExec::Close } else { OnExec::Keep }
    }
}
