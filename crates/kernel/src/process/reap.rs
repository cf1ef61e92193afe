//! What follows the end of a process: its parent is told, and the zombie leaves the family.
//!
//! Source: `exit_notify`, `release_task` in `kernel/exit.c`.

use std::sync::Arc;

use moat_abi::PollEvents;
use moat_abi::clone::WaitStatus;

use crate::process::group::ThreadGroup;
use crate::process::notify::{Reaping, parent_of_exit};

/// Tells the parent of a zombie, and reaps it if nobody else will.
pub fn tell_parent(group: &Arc<ThreadGroup>, status: WaitStatus) {
    let (parent, leader) = {
        let family = group.kernel().family.lock();
        let Some(node) = family.node(group.id) else { return };
        (family.parent(group.id), node.leader.clone())
    };
    let Some(parent) = parent else {
        // The first process of a container: the sentry learns the status from the group itself.
        reap(group);
        group.exit_queue.wake_all();
        return;
    };
    // Reaped before the parent is woken, whose wait(2) then gives ECHILD.
    if parent_of_exit(&parent, &leader, group.exit_signal(), status) == Reaping::Automatic {
        reap(group);
    }
    group.exit_queue.wake_all();
    parent.child_queue.wake(PollEvents::IN);
    group.kernel().exits.wake_all();
}

/// Takes a zombie out of the family and frees its number.
pub fn reap(group: &Arc<ThreadGroup>) {
    let node = group.kernel().family.lock().remove(group.id);
    if let Some(n) = node {
        group.kernel().tasks.unbind(&n.leader.pid());
    }
    // pidfds hang up.
    group.exit_queue.wake_all();
    group.kernel().exits.wake_all();
}
