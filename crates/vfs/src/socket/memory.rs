//! [`SocketMemory`]: how much the sockets of one container may hold for their readers, all together.
//!
//! The buffer sizes of one socket bound what it holds; how many sockets there are nothing bounds but descriptors. So what lies
//! in queues is counted for the container that made the socket which sent it (or, from the network, gets it), as Linux charges
//! it to a memory cgroup. Beyond the limit each socket still gets [`EACH`] bytes through, so that no exchange stands still.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a socket may have under way whatever the others hold: the smallest send buffer of TCP (`net.ipv4.tcp_wmem`).
pub const EACH: usize = 4096;

/// The part of a container's memory that its sockets may hold.
const PART: u64 = 8;

/// Bytes in the queues of a container's sockets.
#[derive(Debug)]
pub struct SocketMemory {
    used: AtomicUsize,
    limit: AtomicUsize,
}

impl SocketMemory {
    /// Of a container that has so much memory.
    #[must_use]
    pub fn new(total_bytes: u64) -> Arc<SocketMemory> {
        let memory = SocketMemory { used: AtomicUsize::new(0), limit: AtomicUsize::new(0) };
        memory.set_total(total_bytes);
        Arc::new(memory)
    }

    /// Any amount: for sockets of the sentry's own.
    #[must_use]
    pub fn unlimited() -> Arc<SocketMemory> {
        SocketMemory::new(u64::MAX)
    }

    /// The container has so much memory from here on. What is held already stays.
    pub fn set_total(&self, total_bytes: u64) {
        let limit = usize::try_from(total_bytes / PART).unwrap_or(usize::MAX);
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Bytes held.
    #[must_use]
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// How many more bytes a socket may hold that holds `own` of them.
    ///
    /// Others may take what is left meanwhile: the limit is exceeded by no more than a call's bytes for each CPU.
    #[must_use]
    pub fn room(&self, own: usize) -> usize {
        let left = self.limit.load(Ordering::Relaxed).saturating_sub(self.used());
        left.max(EACH.saturating_sub(own))
    }

    /// Counts bytes that a queue takes.
    pub fn charge(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that have left a queue.
    pub fn release(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beyond_the_limit_each_gets_a_little() {
        let memory = SocketMemory::new(8 << 20);
        assert_eq!(memory.room(0), 1 << 20);
        memory.charge(1 << 20);
        assert_eq!((memory.room(0), memory.room(1000), memory.room(EACH)), (EACH, EACH - 1000, 0));
        memory.release(1 << 19);
        assert_eq!(memory.room(EACH), 1 << 19);
        memory.set_total(0);
        assert_eq!(memory.room(1 << 20), 0);
    }
}
