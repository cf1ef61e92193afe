//! [`HandlerEntry`]: how a handler of a signal begins.

use crate::Regs;

/// What a handler of a signal is to find, in registers and on its stack.
#[derive(Clone, Copy, Debug)]
pub struct HandlerEntry<'a> {
    /// The registers that it begins with.
    pub regs: &'a Regs,
    /// Where its frame is.
    pub at: u64,
    /// The frame, without the extended state.
    pub frame: &'a [u8],
    /// Where the extended state of what it interrupts belongs, 64-byte aligned.
    pub fpstate: u64,
}
