//! The extended state: that of the frame on the signal stack, and where a handler of the application's finds it.

use crate::entry;
use crate::layout::{Control, MAX_EXTENDED};
use crate::raw::{address, pointer};

/// Where a frame has the address of it: behind the return address, at the 24th word of `struct sigcontext`.
pub const FRAME_FPSTATE: u64 = 8 + 40 + 23 * 8;
/// Bytes of the part that all processors have, without what they leave to software.
const LEGACY: usize = 464;
/// In what they leave: a magic number, and the size of the whole with the number at its end.
const MAGIC1: u32 = 0x4650_5853;
/// The bytes of a whole one that has nothing else.
const FXSAVE: u32 = 512;
/// Behind these: which components are not in their initial state.
const PRESENT: usize = 512;
/// The control word and MXCSR of a fresh one, and where they are.
const CONTROL: u16 = 0x37f;
const MXCSR: u32 = 0x1f80;
const MXCSR_AT: usize = 24;

/// An image of which the processor loads MXCSR alone, and sets all else to its initial state. It looks at the places of all, nevertheless.
#[repr(C, align(64))]
pub struct Image([u8; MAX_EXTENDED]);

/// That of a handler that begins.
pub static FRESH: Image = {
    let mut bytes = [0; MAX_EXTENDED];
    [bytes[MXCSR_AT], bytes[MXCSR_AT + 1], ..] = MXCSR.to_le_bytes();
    Image(bytes)
};

/// Where the extended state of the frame at `frame` is, and its bytes.
///
/// # Safety
/// `frame` is a frame that the host has made on the signal stack.
pub unsafe fn of_frame(frame: *const u8) -> (*mut u8, u64) {
    // SAFETY: by the caller.
    unsafe {
        let state = pointer::<u8>(pointer::<u64>(address(frame) + FRAME_FPSTATE).read_unaligned());
        let word = |at: usize| state.add(at).cast::<u32>().read_volatile();
        let len = if word(LEGACY) == MAGIC1 { word(LEGACY + 4) } else { FXSAVE };
        (state, u64::from(len))
    }
}

/// Writes the extended state of this thread's frame to where a handler of the application's is to find it, if one begins, and has it begin with
/// a fresh one. False if it can't be written, though it could a moment ago.
///
/// # Safety
/// `control` is this thread's area, and has a frame.
pub unsafe fn give(control: *mut Control) -> bool {
    // SAFETY: by the caller; an address that can't be written is recovered from.
    unsafe {
        let call = &raw mut (*control).call;
        let to = (&raw const (*call).fpstate).read_volatile();
        if to == 0 {
            return true;
        }
        (&raw mut (*call).fpstate).write_volatile(0);
        let frame = pointer::<u8>((&raw const (*control).frame).read_volatile());
        let (state, len) = of_frame(frame);
        if entry::stub_copy(to, address(state.cast_const()), len) != 0 {
            return false;
        }
        if len > u64::from(FXSAVE) {
            state.add(PRESENT).cast::<u64>().write_volatile(0);
        }
        for word in (0..LEGACY).step_by(8) {
            let at = state.add(word).cast::<u64>();
            // The mask of MXCSR, in the upper half of its word, is the processor's.
            let kept = if word == MXCSR_AT { at.read_volatile() >> 32 << 32 | u64::from(MXCSR) } else { 0 };
            at.write_volatile(kept);
        }
        state.cast::<u16>().write_volatile(CONTROL);
        true
    }
}
