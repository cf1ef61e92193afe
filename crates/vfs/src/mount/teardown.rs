//! Taking trees of mounts apart without recursion.
//!
//! A mount holds what it covers for good, and may be the last to hold another namespace, by its file; that one's mounts hold
//! others. A guest can build such chains as long as it likes, so they are followed in a loop.

use std::cell::RefCell;
use std::sync::Arc;

use super::{Mount, MountFlags};

/// What waits for its turn.
pub(super) enum Gone {
    /// The root of a namespace that nobody is in.
    Tree(Arc<Mount>),
    /// What a mount that is gone had on it.
    Covering(Arc<Mount>),
}

thread_local! {
    /// What waits for the call of [`let_go`] that this thread is in.
    static PENDING: RefCell<Option<Vec<Gone>>> = const { RefCell::new(None) };
}

/// Lets `gone` go, and all that goes with it.
pub(super) fn let_go(gone: Vec<Gone>) {
    if gone.is_empty() {
        return;
    }
    let outermost = PENDING.with_borrow_mut(|pending| match pending {
        Some(waiting) => {
            waiting.extend(gone);
            false
        }
        None => {
            *pending = Some(gone);
            true
        }
    });
    if !outermost {
        return;
    }
    while let Some(next) = PENDING.with_borrow_mut(|pending| pending.as_mut().and_then(Vec::pop)) {
        match next {
            Gone::Tree(root) => dissolve(&root),
            Gone::Covering(mount) => drop(mount),
        }
    }
    PENDING.set(None);
}

/// Takes `root` and all below it out of their namespace and apart. What is locked on its parent stays there, or a directory
/// that is open still would show what it covers (`disconnect_mount`).
pub(super) fn dissolve(root: &Arc<Mount>) {
    // Deepest first: a parent's links are needed until its children are gone.
    for m in root.tree().into_iter().rev() {
        if m.flags().contains(MountFlags::LOCKED) && !Arc::ptr_eq(&m, root) {
            m.leave_namespace();
        } else {
            m.detach();
        }
    }
}
