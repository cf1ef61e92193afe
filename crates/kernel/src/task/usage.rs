//! CPU time and counters: getrusage(2), times(2), the CPU clocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use moat_abi::clone::Rusage;
use moat_abi::time::{Timeval, USER_HZ};

use moat_platform::Kick;
use moat_sync::{LockClass, Mutex};

/// What a thread, a process or waited-for children have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time of the host threads that run its code, nanoseconds.
    pub user_ns: u64,
    /// CPU time that workers of the sentry spent on its behalf, nanoseconds.
    pub system_ns: u64,
    /// System calls: at each the host thread gives its CPU up.
    pub voluntary_switches: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
}

impl Usage {
    /// Adds what another has used.
    pub fn add(&mut self, other: &Usage) {
        self.user_ns = self.user_ns.saturating_add(other.user_ns);
        self.system_ns = self.system_ns.saturating_add(other.system_ns);
        self.voluntary_switches = self.voluntary_switches.saturating_add(other.voluntary_switches);
        self.max_rss_kib = self.max_rss_kib.max(other.max_rss_kib);
    }

    /// CPU time in all: what the CPU clocks show.
    #[must_use]
    pub fn cpu_ns(&self) -> u64 {
        self.user_ns.saturating_add(self.system_ns)
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
            ru_nvcsw: i64::try_from(self.voluntary_switches).unwrap_or(i64::MAX),
            ..Rusage::default()
        }
    }
}

fn ticks(ns: u64) -> i64 {
    i64::try_from(ns / (1_000_000_000 / USER_HZ)).unwrap_or(i64::MAX)
}

/// Counters of one thread, written by it alone.
///
/// Nothing is asked of the host until somebody wants to know: user time is what the host threads have used that were this thread,
/// with the host's work for it (page faults, the way in and out of the sentry); system time is what a worker spent on it,
/// measured once around each poll of its future, less what it waited for a CPU ([`moat_sync::busy`]).
pub struct TaskUsage {
    host: Mutex<HostThreads>,
    system_ns: AtomicU64,
    syscalls: AtomicU64,
}

#[derive(Default)]
struct HostThreads {
    /// The one that it is.
    present: Option<Arc<dyn Kick>>,
    /// What those before have used.
    before_ns: u64,
}

impl Default for TaskUsage {
    fn default() -> TaskUsage {
        let host = Mutex::new(LockClass::Leaf, HostThreads::default());
        TaskUsage { host, system_ns: AtomicU64::new(0), syscalls: AtomicU64::new(0) }
    }
}

impl TaskUsage {
    /// The thread is this host thread from here on, or none: the one before is asked for its time, and must still be there.
    pub(crate) fn set_host_thread(&self, thread: Option<Arc<dyn Kick>>) {
        let old = self.host.lock().present.clone();
        let used = old.as_ref().map_or(0, |t| t.cpu_time_ns());
        let mut host = self.host.lock();
        host.before_ns = host.before_ns.saturating_add(used);
        let gone = std::mem::replace(&mut host.present, thread);
        drop(host);
        drop(gone);
    }

    /// What a task out of an image has used before.
    pub(crate) fn set(&self, used: &Usage) {
        self.host.lock().before_ns = used.user_ns;
        self.system_ns.store(used.system_ns, Ordering::Relaxed);
        self.syscalls.store(used.voluntary_switches, Ordering::Relaxed);
    }

    /// Adds time spent in the sentry.
    pub fn add_system(&self, ns: u64) {
        // Only the thread itself writes: no atomic addition is needed.
        self.system_ns.store(self.system_ns.load(Ordering::Relaxed).saturating_add(ns), Ordering::Relaxed);
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

    /// What has been used. Asks the host.
    #[must_use]
    pub fn get(&self) -> Usage {
        let (present, before_ns) = {
            let host = self.host.lock();
            (host.present.clone(), host.before_ns)
        };
        Usage {
            user_ns: before_ns.saturating_add(present.map_or(0, |t| t.cpu_time_ns())),
            system_ns: self.system_ns.load(Ordering::Relaxed),
            voluntary_switches: self.syscalls.load(Ordering::Relaxed),
            ..Usage::default()
        }
    }
}
