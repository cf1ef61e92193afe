//! CPU time and counters: getrusage(2), times(2), the CPU clocks.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moat_abi::clone::Rusage;
use moat_abi::time::{Timeval, USER_HZ};

use crate::process::group::ThreadGroup;

/// What a thread, a process or waited-for children have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Time in guest code, nanoseconds.
    pub user_ns: u64,
    /// Time in the sentry on its behalf, nanoseconds.
    pub system_ns: u64,
    /// Waits.
    pub voluntary_switches: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
    /// Minor faults, as far as the host tells.
    pub minor_faults: u64,
}

impl Usage {
    /// Adds what another has used.
    pub fn add(&mut self, other: &Usage) {
        self.user_ns += other.user_ns;
        self.system_ns += other.system_ns;
        self.voluntary_switches += other.voluntary_switches;
        self.minor_faults += other.minor_faults;
        self.max_rss_kib = self.max_rss_kib.max(other.max_rss_kib);
    }

    /// User time in clock ticks.
    #[must_use]
    pub fn user_ticks(&self) -> i64 {
        ticks(self.user_ns)
    }

    /// System time in clock ticks.
    #[must_use]
    pub fn system_ticks(&self) -> i64 {
        ticks(self.system_ns)
    }

    /// As getrusage(2) gives it.
    #[must_use]
    pub fn to_rusage(&self) -> Rusage {
        Rusage {
            ru_utime: Timeval::from_duration(Duration::from_nanos(self.user_ns)),
            ru_stime: Timeval::from_duration(Duration::from_nanos(self.system_ns)),
            ru_maxrss: i64::try_from(self.max_rss_kib).unwrap_or(i64::MAX),
            ru_minflt: i64::try_from(self.minor_faults).unwrap_or(i64::MAX),
            ru_nvcsw: i64::try_from(self.voluntary_switches).unwrap_or(i64::MAX),
            ..Rusage::default()
        }
    }
}

fn ticks(ns: u64) -> i64 {
    i64::try_from(ns / (1_000_000_000 / USER_HZ)).unwrap_or(i64::MAX)
}

/// Counters of one thread, written by it alone.
#[derive(Default)]
pub struct TaskUsage {
    user_ns: AtomicU64,
    system_ns: AtomicU64,
    syscalls: AtomicU64,
    /// When it entered guest code, on the monotonic clock; 0 while it is in the sentry.
    entered_ns: AtomicU64,
}

impl TaskUsage {
    /// The thread goes to guest code.
    pub fn enter(&self) {
        self.entered_ns.store(moat_host::clock::monotonic_ns(), Ordering::Relaxed);
    }

    /// The thread is back from guest code.
    pub fn leave(&self) {
        let spent = self.in_guest_ns();
        self.entered_ns.store(0, Ordering::Relaxed);
        self.user_ns.store(self.user_ns.load(Ordering::Relaxed) + spent, Ordering::Relaxed);
    }

    /// How long the thread has been in guest code without a break.
    fn in_guest_ns(&self) -> u64 {
        match self.entered_ns.load(Ordering::Relaxed) {
            0 => 0,
            at => moat_host::clock::monotonic_ns().saturating_sub(at),
        }
    }

    /// Adds time spent in the sentry.
    pub fn add_system(&self, ns: u64) {
        self.system_ns.store(self.system_ns.load(Ordering::Relaxed) + ns, Ordering::Relaxed);
    }

    /// Counts a system call.
    pub fn count_syscall(&self) {
        self.syscalls.store(self.syscalls.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// System calls so far.
    #[must_use]
    pub fn syscalls(&self) -> u64 {
        self.syscalls.load(Ordering::Relaxed)
    }

    /// What has been used.
    #[must_use]
    pub fn get(&self) -> Usage {
        Usage {
            user_ns: self.user_ns.load(Ordering::Relaxed) + self.in_guest_ns(),
            system_ns: self.system_ns.load(Ordering::Relaxed),
            voluntary_switches: self.syscalls.load(Ordering::Relaxed),
            ..Usage::default()
        }
    }
}

impl ThreadGroup {
    /// What all threads of the process have used, dead ones included.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut sum = *self.dead_threads.lock();
        for t in self.threads() {
            sum.add(&t.usage.get());
        }
        sum
    }
}
