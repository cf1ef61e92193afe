//! [`FromArg`]: how a raw register becomes a typed argument, and how strace shows it.

use std::fmt::Write;

use moat_kernel::CurrentTask;
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::Fd;

/// Longest part of a string that strace shows.
const SHOWN: usize = 80;

/// A type that a system call takes. Linux cuts registers to the width of the C type, so `from_arg` never fails.
pub trait FromArg: Sized {
    /// Whether it is a path, so that a call that has one looks it up again where it met ESTALE.
    const NAMES_A_FILE: bool = false;

    /// Decodes a register.
    fn from_arg(raw: u64) -> Self;

    /// Shows it in a line of the strace log.
    fn show(raw: u64, t: &CurrentTask, out: &mut String);
}

macro_rules! numbers {
    ($($t:ty: $cut:expr;)*) => {
        $(impl FromArg for $t {
            fn from_arg(raw: u64) -> $t {
                let cut: fn(u64) -> $t = $cut;
                cut(raw)
            }
            fn show(raw: u64, _t: &CurrentTask, out: &mut String) {
                let value = <$t>::from_arg(raw);
                let _ = write!(out, "{value}");
            }
        })*
    };
}

/// The low half of a register, as a C `int` takes it.
fn low(raw: u64) -> u32 {
    // A C `int` leaves the upper half undefined, and the kernel ignores it.
    (raw & 0xffff_ffff) as u32
}

numbers! {
    i32: |raw| low(raw).cast_signed();
    i64: |raw| raw.cast_signed();
    u16: |raw| (raw & 0xffff) as u16;
}

macro_rules! hex_numbers {
    ($($t:ty: $cut:expr;)*) => {
        $(impl FromArg for $t {
            fn from_arg(raw: u64) -> $t {
                let cut: fn(u64) -> $t = $cut;
                cut(raw)
            }
            fn show(raw: u64, _t: &CurrentTask, out: &mut String) {
                let value = <$t>::from_arg(raw);
                let _ = if value > 4096 { write!(out, "{value:#x}") } else { write!(out, "{value}") };
            }
        })*
    };
}

hex_numbers! {
    u32: low;
    u64: |raw| raw;
    usize: |raw| usize::try_from(raw).unwrap_or(usize::MAX);
}

impl FromArg for Fd {
    fn from_arg(raw: u64) -> Fd {
        Fd(low(raw).cast_signed())
    }
    fn show(raw: u64, _t: &CurrentTask, out: &mut String) {
        let fd = Fd::from_arg(raw).0;
        let _ = if fd == -100 { write!(out, "AT_FDCWD") } else { write!(out, "{fd}") };
    }
}

fn show_address(raw: u64, out: &mut String) {
    let _ = if raw == 0 { write!(out, "NULL") } else { write!(out, "{raw:#x}") };
}

impl FromArg for UserAddr {
    fn from_arg(raw: u64) -> UserAddr {
        UserAddr::new(raw)
    }
    fn show(raw: u64, _t: &CurrentTask, out: &mut String) {
        show_address(raw, out);
    }
}

impl<T> FromArg for UserPtr<T> {
    fn from_arg(raw: u64) -> UserPtr<T> {
        UserPtr::new(UserAddr::new(raw))
    }
    fn show(raw: u64, _t: &CurrentTask, out: &mut String) {
        show_address(raw, out);
    }
}

/// A path or other string of the guest, shown as text by strace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PathArg(pub UserAddr);

impl FromArg for PathArg {
    const NAMES_A_FILE: bool = true;

    fn from_arg(raw: u64) -> PathArg {
        PathArg(UserAddr::new(raw))
    }
    fn show(raw: u64, t: &CurrentTask, out: &mut String) {
        match t.mm().read_cstr(UserAddr::new(raw), 4096) {
            Ok(text) => {
                let shown = text.get(..SHOWN).unwrap_or(&text);
                let more = if text.len() > SHOWN { "..." } else { "" };
                let _ = write!(out, "\"{}\"{more}", shown.escape_ascii());
            }
            Err(_) => show_address(raw, out),
        }
    }
}

/// Gives bitflags types of 32 or 64 bits the trait: unknown bits are kept for the handler to refuse.
#[macro_export]
macro_rules! flag_args {
    ($($t:ty: $raw:ty),* $(,)?) => {
        $(impl $crate::arg::FromArg for $t {
            fn from_arg(raw: u64) -> $t {
                // Unknown bits stay, so that the call itself can refuse them with its own errno.
                <$t>::from_bits_retain(<$raw as $crate::arg::FromArg>::from_arg(raw))
            }
            fn show(raw: u64, _t: &moat_kernel::CurrentTask, out: &mut String) {
                use std::fmt::Write;
                let _ = write!(out, "{:?}", <$t as $crate::arg::FromArg>::from_arg(raw));
            }
        })*
    };
}

flag_args! {
    moat_abi::clone::CloneFlags: u64,
    moat_abi::clone::WaitFlags: u32,
    moat_abi::fs::AtFlags: u32,
    moat_abi::fs::OpenFlags: u32,
    moat_abi::mman::ProtFlags: u32,
    moat_abi::mman::MapFlags: u32,
}
