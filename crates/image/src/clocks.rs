//! [`ClockState`]: what the header and the kernel's state both have.

use serde::{Deserialize, Serialize};

/// Nanoseconds on the clocks at the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ClockState {
    pub monotonic_ns: u64,
    pub boottime_ns: u64,
    pub realtime_ns: u64,
    /// CLOCK_BOOTTIME at the boot of the sandbox.
    pub booted_boottime_ns: u64,
    /// CLOCK_REALTIME at the boot of the sandbox.
    pub booted_realtime_ns: u64,
}
