//! What a connection remembers of congestion: what it does about it ([`Congestion`]), and [`Undo`], [`Ecn`], [`Pacer`], [`TailProbe`].

use super::cubic::Cubic;
use crate::time::Time;

/// What congestion control is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Congestion {
    Open,
    /// The window becomes smaller until `until` is acknowledged (RFC 6937's counters).
    Recovery {
        cause: Cause,
        until: u64,
        flight: u64,
        delivered: u64,
        out: u64,
    },
    /// After the timer went off.
    Loss {
        until: u64,
        doubt: Doubt,
    },
}

/// Why the window becomes smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// Something was lost, and is repaired.
    Loss,
    /// The network has marked packets (RFC 3168).
    Marks,
}

/// Whether a timeout may have been spurious (F-RTO, RFC 5682).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// The first range was sent again; what is acknowledged next may tell.
    Asking,
    /// New data was sent in place of the rest that may be lost.
    Probing,
    /// What was lost is sent again.
    None,
}

/// The probe of a silent tail (RFC 8985, section 7).
#[derive(Clone, Copy, Debug)]
pub(crate) struct TailProbe {
    pub(crate) end: u64,
    pub(crate) retransmission: bool,
}

/// What there was before the window became smaller, in case that was a mistake (`undo.rs`).
#[derive(Clone, Debug)]
pub(crate) struct Undo {
    /// Congestion control as it was.
    pub(crate) before: Cubic,
    /// All before was acknowledged then (`undo_marker`).
    pub(crate) since: u64,
    /// Bytes that were sent again and not told of as duplicates (`undo_retrans`).
    pub(crate) resent: Option<u64>,
    /// The timestamp of the first that was sent again (`retrans_stamp`).
    pub(crate) stamp: Option<u32>,
}

/// What is known of marks (`ecn.rs`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ecn {
    /// Packets came marked, which the peer is told until it says that it has heard (ECE).
    pub(crate) echo: bool,
    /// The peer's telling has been heard, which the next new data says (CWR).
    pub(crate) heard: bool,
    /// A packet that may be marked has come.
    pub(crate) seen: bool,
}

/// When the next segment may go (`pacing.rs`).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pacer {
    pub(crate) next: Time,
    /// Bytes that may go at once: the first ones after silence.
    pub(crate) free: u64,
}
