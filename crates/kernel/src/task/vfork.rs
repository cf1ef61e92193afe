//! What ties a vfork(2) parent to its child until the child has memory of its own or has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_sync::WaitQueue;

/// Tells a vfork(2) parent that its child has its own memory or has ended.
pub struct VforkDone {
    done: AtomicBool,
    queue: WaitQueue,
}

impl VforkDone {
    pub(crate) fn new() -> Arc<VforkDone> {
        Arc::new(VforkDone { done: AtomicBool::new(false), queue: WaitQueue::new() })
    }

    /// Lets the parent go on.
    pub fn complete(&self) {
        self.done.store(true, Ordering::Release);
        self.queue.wake_all();
    }

    /// Whether the parent may go on.
    pub(crate) fn is_complete(&self) -> bool {
        self.done.load(Ordering::Acquire)
    }

    /// Woken when it may.
    pub(crate) fn queue(&self) -> &WaitQueue {
        &self.queue
    }
}

/// The child that a vfork(2) parent waits for.
#[derive(Clone)]
pub(crate) struct VforkChild {
    /// Its number in the parent's namespace, which the call gives.
    pub(crate) number: i32,
    pub(crate) done: Arc<VforkDone>,
}
