//! [`Work`]: what a task has to do before it may run application code or go on sleeping.
//!
//! The flags are a summary of state under the thread group's signal lock, recomputed there; the task itself reads
//! them without a lock each time it enters the guest or waits.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

bitflags::bitflags! {
    /// Reasons why a task may neither run nor sleep.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Work: u32 {
        /// A signal that is not blocked is pending.
        const SIGNAL = 1;
        /// The thread is to take part in a group stop.
        const STOP = 2;
        /// The thread is to die.
        const KILL = 4;
        /// The tracer asked for a stop.
        const TRAP = 8;
        /// The container is frozen. It ends no wait: nothing goes on until the container is thawed.
        const FREEZE = 16;
        /// The container is being saved: the task, which is frozen, gives up its call and says what only it knows. Comes with FREEZE.
        const SAVE = 32;
    }
}

impl Work {
    /// What ends an interruptible wait.
    pub const INTERRUPTS: Work = Work::all().difference(Work::FREEZE);
}

/// The flags of one task, and whether it is in guest code.
#[derive(Default)]
pub struct WorkFlags {
    bits: AtomicU32,
    in_guest: AtomicBool,
}

impl WorkFlags {
    /// What is to be done.
    #[must_use]
    pub fn get(&self) -> Work {
        Work::from_bits_truncate(self.bits.load(Ordering::Acquire))
    }

    /// Replaces the flags. The caller holds the signal lock of the group.
    pub fn set(&self, work: Work) {
        // SeqCst, with `enter`: either the task sees the flag or the sender sees it in the guest and kicks it.
        self.bits.store(work.bits(), Ordering::SeqCst);
    }

    /// Marks the task as running guest code, unless there is work.
    #[must_use]
    pub fn enter(&self) -> bool {
        self.in_guest.store(true, Ordering::SeqCst);
        if self.bits.load(Ordering::SeqCst) != 0 {
            self.in_guest.store(false, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Marks the task as out of guest code.
    pub fn leave(&self) {
        self.in_guest.store(false, Ordering::Release);
    }

    /// Whether a kick is needed to make the task look at its flags.
    #[must_use]
    pub fn in_guest(&self) -> bool {
        self.in_guest.load(Ordering::SeqCst)
    }
}
