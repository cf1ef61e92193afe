//! How much memory a guest process has had at most: the host counts it, and says it for nothing when it has reaped the process.

use std::sync::OnceLock;

use moat_abi::PollEvents;
use moat_sync::WaitQueue;

/// The most bytes that a guest process has had resident at a time, known from when the host has reaped it.
#[derive(Default)]
pub struct PeakResident {
    bytes: OnceLock<u64>,
    known: WaitQueue,
}

impl PeakResident {
    /// The bytes, if they are known.
    #[must_use]
    pub fn get(&self) -> Option<u64> {
        self.bytes.get().copied()
    }

    /// Takes note of them, once, and wakes who waits for them.
    pub fn set(&self, bytes: u64) {
        if self.bytes.set(bytes).is_ok() {
            self.known.wake(PollEvents::all());
        }
    }

    /// Woken when they are known.
    #[must_use]
    pub fn queue(&self) -> &WaitQueue {
        &self.known
    }
}
