//! The calls that the calling thread is in, by the unwinder that Rust's library brings along.

use std::ffi::{c_int, c_void};

/// Calls beyond which a stack is cut off.
const MAX_CALLS: usize = 128;

unsafe extern "C" {
    fn _Unwind_Backtrace(each: extern "C" fn(*mut c_void, *mut c_void) -> c_int, to: *mut c_void) -> c_int;
    fn _Unwind_GetIP(context: *mut c_void) -> usize;
}

const GO_ON: c_int = 0;
const STOP: c_int = 4;

extern "C" fn add(context: *mut c_void, to: *mut c_void) -> c_int {
    // SAFETY: the unwinder passes its context, and what `here` gave it, which lives as long as the unwinder runs.
    let (ip, calls) = unsafe { (_Unwind_GetIP(context), &mut *to.cast::<Vec<u64>>()) };
    if calls.len() >= MAX_CALLS {
        return STOP;
    }
    // The return address is behind the call.
    calls.extend(u64::try_from(ip).ok().and_then(|ip| ip.checked_sub(1)));
    GO_ON
}

/// Addresses within the instructions that called, the innermost first. Not for signal handlers: the unwinder locks.
#[must_use]
pub fn here() -> Vec<u64> {
    let mut calls: Vec<u64> = Vec::new();
    // SAFETY: the function has the signature that the unwinder expects, and gets the vector.
    unsafe { _Unwind_Backtrace(add, (&raw mut calls).cast()) };
    calls
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_caller_is_among_them() {
        let start = the_caller_is_among_them as *const () as u64;
        let calls = here();
        assert!(calls.iter().any(|call| (start..start + 4096).contains(call)), "{calls:x?}");
    }
}
