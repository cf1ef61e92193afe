//! The clock for time stamps of files.

use moat_abi::time::Timespec;

/// CLOCK_REALTIME.
#[must_use]
pub fn now() -> Timespec {
    Timespec::from_nanos(moat_host::clock::realtime_ns())
}
