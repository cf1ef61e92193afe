//! Time: timespec and its family, clock ids, timers.
//!
//! Sources: `linux/time.h`, `linux/time_types.h`, `linux/timex.h`, `linux/times.h`, `linux/timerfd.h`.

use core::time::Duration;

use crate::{Errno, Result};

/// Nanoseconds in a second.
pub const NSEC_PER_SEC: u64 = 1_000_000_000;
/// The last point and the longest span that Linux's `ktime_t` holds, in nanoseconds: time arithmetic saturates here.
pub const KTIME_MAX: u64 = i64::MAX as u64;

/// `span` nanoseconds after `at`, at most [`KTIME_MAX`] (`ktime_add_safe`).
#[must_use]
pub const fn ktime_add(at: u64, span: u64) -> u64 {
    let sum = at.saturating_add(span);
    if sum > KTIME_MAX { KTIME_MAX } else { sum }
}

/// The first point after `now` that is a whole number of `interval`s after `expired`, which is not after `now`
/// (`hrtimer_forward`), and the number of intervals. The interval is not 0.
#[must_use]
pub const fn ktime_forward(expired: u64, interval: u64, now: u64) -> (u64, u64) {
    let missed = match now.saturating_sub(expired).checked_div(interval) {
        Some(n) => n.saturating_add(1),
        None => 1,
    };
    (ktime_add(expired, missed.saturating_mul(interval)), missed)
}

/// Ticks per second in everything that guests read in clock ticks (`USER_HZ`, `sysconf(_SC_CLK_TCK)`).
pub const USER_HZ: u64 = 100;

guest_struct! {
    /// `struct timespec` (`__kernel_timespec`).
    Timespec: 16 { tv_sec: i64, tv_nsec: i64 }
}

impl Timespec {
    /// Zero.
    pub const ZERO: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

    /// The time span, or EINVAL for a negative number of seconds or nanoseconds outside a second
    /// (`timespec64_valid`).
    ///
    /// # Errors
    /// EINVAL.
    pub fn to_duration(self) -> Result<Duration> {
        let sec = u64::try_from(self.tv_sec).map_err(|_| Errno::EINVAL)?;
        let nsec = u32::try_from(self.tv_nsec).map_err(|_| Errno::EINVAL)?;
        if u64::from(nsec) >= NSEC_PER_SEC {
            return Err(Errno::EINVAL);
        }
        Ok(Duration::new(sec, nsec))
    }

    /// The span or point in nanoseconds, saturated at [`KTIME_MAX`] (`timespec64_to_ktime`).
    ///
    /// # Errors
    /// EINVAL as [`Timespec::to_duration`].
    pub fn to_nanos(self) -> Result<u64> {
        let duration = self.to_duration()?;
        Ok(ktime_add(duration.as_secs().saturating_mul(NSEC_PER_SEC), u64::from(duration.subsec_nanos())))
    }

    /// The timespec of a span; seconds beyond `i64::MAX` saturate.
    #[must_use]
    pub fn from_duration(d: Duration) -> Timespec {
        Timespec { tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(d.subsec_nanos()) }
    }

    /// The timespec of a number of nanoseconds.
    #[must_use]
    pub const fn from_nanos(ns: u64) -> Timespec {
        Timespec { tv_sec: (ns / NSEC_PER_SEC) as i64, tv_nsec: (ns % NSEC_PER_SEC) as i64 }
    }

    /// The timespec of a signed number of nanoseconds since the epoch.
    #[must_use]
    pub const fn from_nanos_signed(ns: i64) -> Timespec {
        let per = NSEC_PER_SEC as i64;
        Timespec { tv_sec: ns.div_euclid(per), tv_nsec: ns.rem_euclid(per) }
    }
}

guest_struct! {
    /// `struct timeval`.
    Timeval: 16 { tv_sec: i64, tv_usec: i64 }
}

impl Timeval {
    /// The time span, or EINVAL for a negative number of seconds or microseconds outside a second.
    ///
    /// # Errors
    /// EINVAL.
    pub fn to_duration(self) -> Result<Duration> {
        if !(0..1_000_000).contains(&self.tv_usec) {
            return Err(Errno::EINVAL);
        }
        Timespec { tv_sec: self.tv_sec, tv_nsec: self.tv_usec * 1000 }.to_duration()
    }

    /// The span in nanoseconds, saturated at [`KTIME_MAX`].
    ///
    /// # Errors
    /// EINVAL as [`Timeval::to_duration`].
    pub fn to_nanos(self) -> Result<u64> {
        let duration = self.to_duration()?;
        Ok(ktime_add(duration.as_secs().saturating_mul(NSEC_PER_SEC), u64::from(duration.subsec_nanos())))
    }

    /// The timeval of a span, microseconds rounded down.
    #[must_use]
    pub fn from_duration(d: Duration) -> Timeval {
        Timeval { tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), tv_usec: i64::from(d.subsec_micros()) }
    }
}

guest_struct! {
    /// `struct itimerval`, setitimer(2).
    Itimerval: 32 { it_interval: Timeval, it_value: Timeval }
}
guest_struct! {
    /// `struct itimerspec`, timer_settime(2), timerfd_settime(2).
    Itimerspec: 32 { it_interval: Timespec, it_value: Timespec }
}
guest_struct! {
    /// `struct timezone`, gettimeofday(2).
    Timezone: 8 { tz_minuteswest: i32, tz_dsttime: i32 }
}
guest_struct! {
    /// `struct utimbuf`, utime(2).
    Utimbuf: 16 { actime: i64, modtime: i64 }
}
guest_struct! {
    /// `struct tms`, times(2), in [`USER_HZ`] ticks.
    Tms: 32 { tms_utime: i64, tms_stime: i64, tms_cutime: i64, tms_cstime: i64 }
}
guest_struct! {
    /// `struct timex`, adjtimex(2).
    Timex: 208 {
        modes: u32, pad0: u32, offset: i64, freq: i64, maxerror: i64, esterror: i64, status: i32, pad1: u32,
        constant: i64, precision: i64, tolerance: i64, time: Timeval, tick: i64, ppsfreq: i64, jitter: i64,
        shift: i32, pad2: u32, stabil: i64, jitcnt: i64, calcnt: i64, errcnt: i64, stbcnt: i64, tai: i32, pad3: [i32;
        11],
    }
}
consts! { "States that adjtimex(2) returns.", i32; TIME_OK = 0, TIME_ERROR = 5 }
consts! { "`status` bits of `struct timex`.", i32; STA_UNSYNC = 0x40, STA_NANO = 0x2000 }

consts! { "Clocks, clock_gettime(2).", i32; CLOCK_REALTIME = 0, CLOCK_MONOTONIC = 1, CLOCK_PROCESS_CPUTIME_ID = 2,
CLOCK_THREAD_CPUTIME_ID = 3, CLOCK_MONOTONIC_RAW = 4, CLOCK_REALTIME_COARSE = 5, CLOCK_MONOTONIC_COARSE = 6,
CLOCK_BOOTTIME = 7,
CLOCK_REALTIME_ALARM = 8, CLOCK_BOOTTIME_ALARM = 9, CLOCK_TAI = 11 }

/// A negative clock id: the CPU-time clock of a task, or a dynamic clock (`linux/posix-timers_types.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DynamicClock {
    /// The CPU clock of a thread or thread group; `pid` 0 is the caller.
    Cpu {
        /// The process or thread.
        pid: i32,
        /// One thread, or else its whole group.
        scope: CpuClockScope,
        /// 0 profiling (user and system), 1 user ("virtual"), 2 scheduler time.
        which: u32,
    },
    /// A clock given by a file descriptor.
    Fd(i32),
}

/// What a [`DynamicClock::Cpu`] counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CpuClockScope {
    /// The thread alone.
    Thread,
    /// Its thread group.
    Process,
}

impl DynamicClock {
    /// Decodes a negative clock id; `None` for a non-negative one.
    #[must_use]
    pub const fn decode(id: i32) -> Option<DynamicClock> {
        if id >= 0 {
            return None;
        }
        let value = !(id >> 3);
        let which = (id & 3) as u32;
        if which == 3 {
            return Some(DynamicClock::Fd(value));
        }
        let scope = if id & 4 != 0 { CpuClockScope::Thread } else { CpuClockScope::Process };
        Some(DynamicClock::Cpu { pid: value, scope, which })
    }
}

consts! { "setitimer(2) timers.", u32; ITIMER_REAL = 0, ITIMER_VIRTUAL = 1, ITIMER_PROF = 2 }
consts! { "Flag of clock_nanosleep(2) and timer_settime(2).", u32; TIMER_ABSTIME = 1 }
consts! { "timerfd_create(2) and timerfd_settime(2) flags.", u32; TFD_TIMER_ABSTIME = 1, TFD_TIMER_CANCEL_ON_SET = 2,
TFD_NONBLOCK = 0o4000, TFD_CLOEXEC = 0o2_000_000 }
consts! { "ioctl of a timerfd: sets the number of expirations.", u32; TFD_IOC_SET_TICKS = 0x4008_5400 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timespec_is_checked() {
        let bad = |s, n| Timespec { tv_sec: s, tv_nsec: n }.to_duration() == Err(Errno::EINVAL);
        assert!(bad(-1, 0) && bad(0, -1) && bad(0, 1_000_000_000) && bad(i64::MIN, i64::MAX));
        assert_eq!(Timespec { tv_sec: 1, tv_nsec: 999_999_999 }.to_nanos(), Ok(1_999_999_999));
        assert_eq!(Timespec { tv_sec: i64::MAX, tv_nsec: 0 }.to_nanos(), Ok(KTIME_MAX));
        assert_eq!(Timespec { tv_sec: 9_223_372_036, tv_nsec: 999_999_999 }.to_nanos(), Ok(KTIME_MAX));
        assert_eq!(Timespec::from_nanos_signed(-1), Timespec { tv_sec: -1, tv_nsec: 999_999_999 });
    }

    #[test]
    fn time_saturates() {
        assert_eq!(ktime_add(1, KTIME_MAX), KTIME_MAX);
        assert_eq!(ktime_add(u64::MAX, u64::MAX), KTIME_MAX);
        assert_eq!(ktime_forward(100, 10, 125), (130, 3));
        assert_eq!(ktime_forward(100, 10, 100), (110, 1));
        assert_eq!(ktime_forward(1, KTIME_MAX, 2), (KTIME_MAX, 1));
        assert_eq!(ktime_forward(0, 1, u64::MAX), (KTIME_MAX, u64::MAX));
    }

    #[test]
    fn timeval_is_checked() {
        assert_eq!(Timeval { tv_sec: 0, tv_usec: 1_000_000 }.to_duration(), Err(Errno::EINVAL));
        assert_eq!(Timeval { tv_sec: i64::MAX, tv_usec: 999_999 }.to_nanos(), Ok(KTIME_MAX));
        assert_eq!(Timeval { tv_sec: 2, tv_usec: 5 }.to_duration(), Ok(Duration::from_micros(2_000_005)));
    }

    #[test]
    fn cpu_clock_ids_decode() {
        // clock_getcpuclockid(getpid()) and pthread_getcpuclockid, as glibc makes them.
        let process = (!5i32 << 3) | 2;
        let thread = (!5i32 << 3) | 4 | 2;
        assert_eq!(
            DynamicClock::decode(process),
            Some(DynamicClock::Cpu { pid: 5, scope: CpuClockScope::Process, which: 2 })
        );
        assert_eq!(
            DynamicClock::decode(thread),
            Some(DynamicClock::Cpu { pid: 5, scope: CpuClockScope::Thread, which: 2 })
        );
        assert_eq!(DynamicClock::decode(CLOCK_TAI), None);
    }
}
