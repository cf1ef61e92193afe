//! [`Begins`]: a handler of a signal that begins when its thread goes on (`thread/handler.rs`), and what it may interrupt.

use moat_platform::Regs;

/// A handler that is due, and what else is to be known for that.
#[derive(Debug, Default)]
pub struct Begins {
    /// What it is to find.
    pub due: Option<Due>,
    /// What the last one was to interrupt.
    pub interrupted: Regs,
    /// It could not begin, which nobody has been told of.
    pub failed: bool,
    /// The registers of the last call from a rewritten site: those that it keeps are in the processor.
    called: Regs,
}

/// What a handler is to find ([`moat_platform::HandlerEntry`]).
#[derive(Debug)]
pub struct Due {
    /// The registers that it begins with.
    pub regs: Regs,
    /// Where its frame is.
    pub at: u64,
    /// The frame, without the extended state.
    pub frame: Vec<u8>,
    /// Where that is.
    pub fpstate: u64,
}

impl Begins {
    /// A call from a rewritten site has these registers.
    pub fn from(&mut self, regs: &Regs) {
        self.called = *regs;
    }

    /// Whether a handler is due.
    pub fn is_due(&self) -> bool {
        self.due.is_some()
    }

    /// Whether a handler that is due begins with the next reply, with the registers `regs`; `None` if none is.
    pub fn at_once(&self, regs: &Regs, without_orders: bool) -> Option<bool> {
        self.due.as_ref().map(|due| due.regs == *regs && without_orders)
    }

    /// Whether these registers differ from the call's in none but those that the stub sets when a handler begins.
    pub fn keeps(&self, regs: &Regs) -> bool {
        let kept = |r: &Regs| [r.rbx, r.rbp, r.r8, r.r9, r.r10, r.r12, r.r13, r.r14, r.r15];
        kept(&self.called) == kept(regs)
    }
}
