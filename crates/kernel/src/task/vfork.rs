//! What ties a vfork(2) parent to its child until the child has memory of its own or has ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_sync::WaitQueue;

use crate::task::CurrentTask;

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

/// Ties the task `parent` to the task `child` that borrows its memory, or lets it find that nobody does any more. `number` is the
/// child's in the parent's namespace.
pub(crate) fn connect(tasks: &mut [CurrentTask], parent: usize, child: Option<usize>, number: i32) {
    let done = VforkDone::new();
    match child.and_then(|at| tasks.get_mut(at)) {
        Some(child) => child.vfork = Some(done.clone()),
        None => done.complete(),
    }
    if let Some(parent) = tasks.get_mut(parent) {
        parent.vfork_child = Some(VforkChild { number, done });
    }
}

/// The child that a vfork(2) parent waits for.
#[derive(Clone)]
pub(crate) struct VforkChild {
    /// Its number in the parent's namespace, which the call gives.
    pub(crate) number: i32,
    pub(crate) done: Arc<VforkDone>,
}
