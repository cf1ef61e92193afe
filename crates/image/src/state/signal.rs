//! Signals.

use serde::{Deserialize, Serialize};

use crate::refs::Named;

/// One pending signal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueuedSignal {
    /// `siginfo_t`, 128 bytes.
    #[serde(with = "crate::blob")]
    pub info: Vec<u8>,
    /// The POSIX timer that sent it.
    pub timer: Option<i32>,
}

/// The 64 actions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignalHandlersState {
    /// Handler, flags, restorer and mask of each, from signal 1 on.
    pub actions: Vec<(u64, u64, u64, u64)>,
}

impl Named for SignalHandlersState {
    const WHAT: &'static str = "table of signal actions";
}
