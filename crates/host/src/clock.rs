//! Clocks: guests see the host's clocks, with the sandbox's start as the boot time.
//!
//! The vDSO reads the host's clocks in guest code without a system call, so the sentry must agree with it. Where a guest's
//! monotonic clocks are to be other than the host's, both are in a time namespace ([`namespace`]).

pub mod namespace;

use std::time::{Duration, Instant};

use moat_abi::time::{KTIME_MAX, NSEC_PER_SEC};
use rustix::time::{ClockId, clock_gettime};

fn nanos(clock: ClockId) -> u64 {
    let ts = clock_gettime(clock);
    let sec = u64::try_from(ts.tv_sec).unwrap_or(0);
    let nsec = u64::try_from(ts.tv_nsec).unwrap_or(0);
    sec.saturating_mul(1_000_000_000).saturating_add(nsec)
}

/// CLOCK_REALTIME in nanoseconds since the epoch.
#[must_use]
pub fn realtime_ns() -> u64 {
    nanos(ClockId::Realtime)
}

/// CLOCK_MONOTONIC in nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    nanos(ClockId::Monotonic)
}

/// CLOCK_BOOTTIME in nanoseconds.
#[must_use]
pub fn boottime_ns() -> u64 {
    nanos(ClockId::Boottime)
}

/// CPU time of all threads of process `pid`, in nanoseconds; those that have ended are among them.
///
/// `None` if it is gone. The clock is that of clock_getcpuclockid(3), which makes a host call of its own to check it.
#[must_use]
pub fn process_cpu_ns(pid: i32) -> Option<u64> {
    /// `CPUCLOCK_SCHED`: what the scheduler has counted.
    const SCHEDULED: i32 = 2;
    if pid <= 0 {
        return None;
    }
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes the timespec, which lives through the call.
    let done = unsafe { libc::clock_gettime((!pid).wrapping_shl(3) | SCHEDULED, &raw mut now) };
    let (sec, nsec) = (u64::try_from(now.tv_sec).ok()?, u64::try_from(now.tv_nsec).ok()?);
    (done == 0).then(|| sec.saturating_mul(NSEC_PER_SEC).saturating_add(nsec))
}

/// Any host clock that has a guest meaning of its own.
#[must_use]
pub fn host_ns(id: i32) -> Option<u64> {
    use moat_abi::time::{
        CLOCK_BOOTTIME, CLOCK_BOOTTIME_ALARM, CLOCK_MONOTONIC, CLOCK_MONOTONIC_COARSE, CLOCK_MONOTONIC_RAW,
        CLOCK_REALTIME, CLOCK_REALTIME_ALARM, CLOCK_REALTIME_COARSE, CLOCK_TAI,
    };
    let clock = match id {
        CLOCK_REALTIME | CLOCK_REALTIME_ALARM => ClockId::Realtime,
        CLOCK_MONOTONIC => ClockId::Monotonic,
        CLOCK_MONOTONIC_RAW => ClockId::MonotonicRaw,
        CLOCK_REALTIME_COARSE => ClockId::RealtimeCoarse,
        CLOCK_MONOTONIC_COARSE => ClockId::MonotonicCoarse,
        CLOCK_BOOTTIME | CLOCK_BOOTTIME_ALARM => ClockId::Boottime,
        // The host's offset is 0 unless an NTP daemon sets it.
        CLOCK_TAI => ClockId::Realtime,
        _ => return None,
    };
    Some(nanos(clock))
}

/// The point on the executor's clock `ns` nanoseconds from here; no point is after [`KTIME_MAX`].
#[must_use]
pub fn deadline_after(ns: u64) -> Instant {
    Instant::now() + Duration::from_nanos(ns.min(KTIME_MAX.saturating_sub(monotonic_ns())))
}

/// The point on the executor's clock a span from here, which can be longer than [`KTIME_MAX`] (`poll_select_set_timeout`).
#[must_use]
pub fn deadline_in(span: Duration) -> Instant {
    let now = Instant::now();
    // The executor's clock is CLOCK_MONOTONIC in seconds and nanoseconds; its last second is as good as never.
    let last = || Duration::from_secs(i64::MAX.unsigned_abs() - monotonic_ns() / NSEC_PER_SEC - 1);
    now.checked_add(span).or_else(|| now.checked_add(last())).unwrap_or_else(|| deadline_after(KTIME_MAX))
}

/// The point on the executor's clock at which the host clock `id` shows `at_ns`.
#[must_use]
pub fn deadline_at(id: i32, at_ns: u64) -> Instant {
    deadline_after(at_ns.saturating_sub(host_ns(id).unwrap_or(0)))
}
