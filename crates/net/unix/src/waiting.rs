//! Who waits for room in a queue of another socket.

use std::sync::{Arc, Weak};

use moat_abi::PollEvents;
use moat_sync::WaitQueue;

/// Has `queue` woken when there is room. Each is noted once, however often its owner tries.
pub(crate) fn note_waiting(waiting: &mut Vec<Weak<WaitQueue>>, queue: &Arc<WaitQueue>) {
    waiting.retain(|w| w.strong_count() > 0);
    let new = Arc::downgrade(queue);
    if !waiting.iter().any(|w| w.ptr_eq(&new)) {
        waiting.push(new);
    }
}

/// Wakes those that have been noted.
pub(crate) fn wake(waiting: &[Weak<WaitQueue>]) {
    for queue in waiting.iter().filter_map(Weak::upgrade) {
        queue.wake(PollEvents::WRITE_READY);
    }
}
