//! Ending this process.

/// Ends this process at once, with all its threads: no destructor, no atexit handler runs.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// CPU time that this process has used, and how often its threads slept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnUsage {
    /// In its own code.
    pub user_ns: u64,
    /// In the host's kernel, on its behalf.
    pub system_ns: u64,
    /// How often a thread gave its CPU up.
    pub voluntary_switches: u64,
    /// How often one was taken off it.
    pub involuntary_switches: u64,
    /// Most bytes resident at a time.
    pub max_resident_bytes: u64,
}

/// What getrusage(2) says of this process; nothing if it fails.
#[must_use]
pub fn own_usage() -> OwnUsage {
    // SAFETY: all-zero is a value of this plain struct, which the call fills in.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    let positive = |number: i64| u64::try_from(number).unwrap_or(0);
    let ns = |time: libc::timeval| {
        let us = positive(time.tv_sec).saturating_mul(1_000_000).saturating_add(positive(time.tv_usec));
        us.saturating_mul(1000)
    };
    OwnUsage {
        user_ns: ns(usage.ru_utime),
        system_ns: ns(usage.ru_stime),
        voluntary_switches: positive(usage.ru_nvcsw),
        involuntary_switches: positive(usage.ru_nivcsw),
        max_resident_bytes: positive(usage.ru_maxrss).saturating_mul(1024),
    }
}
