//! How far a thread's owner has come: with its registers, and with what it waits for.

/// What of the registers the host thread does not have yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Dirty {
    Nothing,
    Result,
    All,
}

/// What of the registers the sentry has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    All,
    /// Number, arguments and result of a call from a rewritten site, which steps through instructions, or not.
    OfCall {
        steps: bool,
    },
}

/// What a poll that gave `Pending` is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    Nothing,
    /// A batch of orders, the last of which begins at this cell.
    Batch {
        last_cell: usize,
    },
    /// Application code.
    Switch,
    /// The frame of a call from a rewritten site.
    Frame,
    /// A call that the host carries out.
    Futex,
    /// The way of a thread that has trapped to where it can be told to make such a call.
    Anew,
}
