//! What a call that has trapped brings along, and what any call takes back: see [`takes`]. (`call.rs` has its own code for the first.)

use crate::entry;
use crate::extended;
use crate::interrupted::Registers;
use crate::layout::{Control, PARCEL, PARCEL_LEN, takes};
use crate::raw::address;

/// Copies what the call refers to into the parcel. Nothing that can't be read.
///
/// # Safety
/// `r` are the registers of `frame`, that of a call, on the signal stack of this thread, whose area is at `control`.
pub unsafe fn take(r: *const Registers, frame: *const u8, control: *mut Control) {
    // SAFETY: by the caller; an address that can't be read is recovered from.
    unsafe {
        let to = address(control.cast_const()).wrapping_add(PARCEL);
        let (nr, args) = (*r).call();
        if nr == takes::RT_SIGRETURN {
            take_frame(to, (*r).stack(), extended::of_frame(frame).1, control);
            return;
        }
        let what = takes::TABLE.get(usize::try_from(nr).unwrap_or(usize::MAX)).copied().unwrap_or(0);
        let field = |at: u32| what >> at & 7;
        let arg = |at: u32| args.get(usize::from(field(at))).copied().unwrap_or(0);
        let mut taken = 0;
        // What is not there is no reason for a fault: many calls say so by a null pointer.
        if arg(takes::ADDR) == 0 {
        } else if what & takes::STRING != 0 {
            let len = entry::stub_string(to, arg(takes::ADDR), takes::STRING_LEN);
            taken = if len >> 32 == 0 { len } else { 0 };
        } else if what != 0 {
            let len = match u64::from(what >> takes::WORDS & 63) {
                0 => arg(takes::LEN).min(PARCEL_LEN + 1) << field(takes::SHIFT),
                words => words * 4,
            };
            if len <= PARCEL_LEN && entry::stub_copy(to, arg(takes::ADDR), len) == 0 {
                taken = len;
            }
        }
        (&raw mut (*control).call.taken).write_volatile(u32::try_from(taken).unwrap_or(0));
    }
}

/// Copies the frame that rt_sigreturn(2) takes back, at the stack pointer `sp`, with the extended state of `extended` bytes that lies
/// behind it in frames that nobody has changed.
unsafe fn take_frame(to: u64, sp: u64, extended: u64, control: *mut Control) {
    // SAFETY: by the caller; an address that can't be read is recovered from.
    unsafe {
        // The handler's `ret` has popped the return address.
        let at = sp.wrapping_sub(8);
        let word = |at: u64| (entry::stub_load(at), entry::stub_load(at.wrapping_add(4)));
        let (low, high) = word(at.wrapping_add(extended::FRAME_FPSTATE));
        let readable = low >> 32 == 0 && high >> 32 == 0;
        let len = (high << 32 | low).wrapping_add(extended).wrapping_sub(at);
        let whole = readable && (takes::FRAME_LEN..=PARCEL_LEN).contains(&len);
        let len = if whole { len } else { takes::FRAME_LEN };
        let taken = if readable && entry::stub_copy(to, at, len) == 0 { len } else { 0 };
        (&raw mut (*control).call.taken).write_volatile(u32::try_from(taken).unwrap_or(0));
    }
}

/// Copies what the call gives back to where it belongs, from the first byte on; false if it can't be written, though it could a
/// moment ago.
///
/// # Safety
/// `control` is this thread's area.
pub unsafe fn give(control: *const Control) -> bool {
    // SAFETY: by the caller; an address that can't be written is recovered from.
    unsafe {
        let call = &raw const (*control).call;
        let mut from = address(control).wrapping_add(PARCEL).wrapping_add((*call).gifts_at);
        for gift in (*call).gifts.iter().zip(0..(*call).gift_count).map(|(gift, _)| gift) {
            if entry::stub_copy(gift.addr, from, gift.len) != 0 {
                return false;
            }
            from = from.wrapping_add(gift.len);
        }
    }
    true
}
