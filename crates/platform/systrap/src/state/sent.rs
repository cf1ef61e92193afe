//! [`Sent`]: what goes with a reply, and [`Soon`]: what is expected of the thread then.

use std::collections::VecDeque;

use crate::call::Call;

/// What goes with a reply.
pub struct Sent {
    /// Application code runs next.
    pub resume: bool,
    /// Cells in the area.
    pub cells: usize,
    /// The calls among them, in order.
    pub expected: VecDeque<Call>,
    /// One of the cells may take long, and a kick ends it.
    pub waits: bool,
    /// Whether what the reply says is in the area.
    pub fields: Fields,
}

/// The fields of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fields {
    /// They are written.
    Written,
    /// The result alone is: a call from a rewritten site returns, and nothing else is to be done.
    Plain,
}

/// When a thread that has gone on will stop again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soon {
    /// In a moment, if it goes on as it did.
    Expected,
    /// Perhaps.
    Unknown,
}
