//! What a host thread has used of the CPUs: [`CpuTime`].
//!
//! The host has no clock for a thread of another process, only a file in /proc, and opening that is the dear part: the file of a
//! thread that has been asked before, one that is kept for one task after the other, stays open.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use moat_host::procfs;
use moat_sync::{LockClass, Mutex};

/// Files that stay open in one sandbox at most.
const MOST_OPEN: usize = 64;

/// How many files the threads of a sandbox have open.
#[derive(Clone, Default)]
pub struct OpenTimes(Arc<AtomicUsize>);

impl OpenTimes {
    /// Room for one more.
    fn take(&self) -> Option<OpenTime> {
        let more = |open: usize| open.checked_add(1).filter(|open| *open <= MOST_OPEN);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(OpenTime(self.0.clone()))
    }
}

/// One of the files that may stay open.
struct OpenTime(Arc<AtomicUsize>);

impl Drop for OpenTime {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The CPU time of one host thread.
pub struct CpuTime {
    /// What was seen last.
    last_ns: AtomicU64,
    file: Mutex<Option<(File, OpenTime)>>,
}

impl Default for CpuTime {
    fn default() -> CpuTime {
        CpuTime { last_ns: AtomicU64::new(0), file: Mutex::new(LockClass::Leaf, None) }
    }
}

impl CpuTime {
    /// By the file of thread `tid`; that of a thread that has been asked before is kept if `open` has room.
    pub fn by_file(&self, tid: i32, open: &OpenTimes) -> Option<u64> {
        let mut kept = self.file.lock();
        if let Some((file, _)) = &*kept {
            return procfs::scheduled_ns(file);
        }
        let file = procfs::open_schedstat(tid)?;
        let now = procfs::scheduled_ns(&file);
        if self.last_ns.load(Ordering::Relaxed) != 0 {
            *kept = open.take().map(|place| (file, place));
        }
        now
    }

    /// Takes note of what was seen, if it is known; gives the most that has been seen.
    pub fn note(&self, now: Option<u64>) -> u64 {
        let now = now.unwrap_or(0);
        self.last_ns.fetch_max(now, Ordering::Relaxed).max(now)
    }

    /// What was seen last.
    pub fn last_ns(&self) -> u64 {
        self.last_ns.load(Ordering::Relaxed)
    }
}
