//! Samples of application code: where a thread was when it was kicked out of it, while somebody wants to know.
//!
//! Who samples looks what CPU time each task has used since the last look, and asks it by [`super::Task::ask_for_sample`] to account for that. The
//! task answers at the interruption, with its registers and the memory above its stack pointer; no other event looks for a question.

use std::sync::Weak;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_mm::MemoryManager;
use moat_sync::{LockClass, Mutex};

/// Bytes of stack in a sample.
pub(crate) const STACK_BYTES: usize = 32 << 10;

/// Samples that are kept until somebody takes them.
const MAX_SAMPLES: usize = 1024;

/// Where application code was.
pub struct GuestSample {
    /// The process, as its own namespace numbers it.
    pub tgid: i32,
    /// Its command.
    pub comm: Vec<u8>,
    /// The CPU time that the sample stands for, in nanoseconds.
    pub value_ns: u64,
    /// rip.
    pub ip: u64,
    /// rsp.
    pub sp: u64,
    /// rbp.
    pub bp: u64,
    /// Memory from `sp` on.
    pub stack: Vec<u8>,
    /// Its memory, which may be gone.
    pub memory: Weak<MemoryManager>,
}

/// Samples that have been taken.
pub struct GuestSamples {
    taken: Mutex<Vec<GuestSample>>,
    dropped: AtomicU64,
}

impl Default for GuestSamples {
    fn default() -> GuestSamples {
        GuestSamples { taken: Mutex::new(LockClass::Leaf, Vec::new()), dropped: AtomicU64::new(0) }
    }
}

impl GuestSamples {
    /// Takes them out.
    pub fn take(&self) -> Vec<GuestSample> {
        std::mem::take(&mut *self.taken.lock())
    }

    /// How many found no room since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn add(&self, sample: GuestSample) {
        let mut taken = self.taken.lock();
        // Who takes them may be gone.
        if taken.len() < MAX_SAMPLES {
            taken.push(sample);
        } else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
