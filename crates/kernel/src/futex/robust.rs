//! What the end of a thread, or its exec, does to futexes: robust lists and the child-tid word (`futex_exit_release`, `mm_release`).

use std::sync::atomic::Ordering;

use moat_abi::Result;
use moat_abi::futex::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_OWNER_DIED, FUTEX_TID_MASK, FUTEX_WAITERS, ROBUST_LIST_LIMIT, RobustListHead,
};
use moat_mm::{FutexScope, UserAddr};
use moat_platform::Atomic32;

use super::word::{atomic, compare_exchange};
use super::{pi, wake};
use crate::task::CurrentTask;

/// An entry of a robust list: bit 0 of the link marks a PI futex.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    addr: u64,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Plain,
    Pi,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Listed {
    /// In the list: the thread held it, if the word says so.
    Held,
    /// `list_op_pending`: it was being taken or given back.
    Pending,
}

impl Entry {
    fn decode(link: u64) -> Entry {
        Entry { addr: link & !1, kind: if link & 1 != 0 { Kind::Pi } else { Kind::Plain } }
    }
}

/// Lets go of all futexes of a thread that takes another program, before its memory goes (`exec_mm_release`).
pub async fn exec_thread(t: &mut CurrentTask) {
    exit_thread(t).await;
    // The thread lives on in the new program and may own PI futexes again.
    t.futexes_released.store(false, Ordering::Relaxed);
}

/// Lets go of all futexes of a thread that ends.
///
/// The thread can still carry out orders. Errors are nobody's: the memory is the guest's own.
pub async fn exit_thread(t: &mut CurrentTask) {
    let (robust_list, clear_child_tid) = {
        let mut s = t.task().state();
        // Both lie in the memory that goes; a new program sets its own.
        (std::mem::take(&mut s.robust_list), std::mem::take(&mut s.clear_child_tid))
    };
    // Words are marked before PI waiters inherit, as in `futex_cleanup`.
    if robust_list != 0 {
        let _ = walk(t, UserAddr::new(robust_list)).await;
    }
    t.kernel().futexes.pi.hand_over_all(t.id, &t.futexes_released);
    // Without others that share the memory, nobody could see the word (`mm_release`).
    if clear_child_tid != 0 && t.mm().users() > 1 {
        let addr = UserAddr::new(clear_child_tid);
        let _ = t.mm().write_bytes(addr, &0u32.to_ne_bytes());
        let _ = wake::wake(t, addr, FutexScope::Shared, 1, FUTEX_BITSET_MATCH_ANY);
    }
}

/// Walks the list, which may be wrong, circular or changing (`exit_robust_list`).
async fn walk(t: &mut CurrentTask, head: UserAddr) -> Result<()> {
    let list: RobustListHead = t.mm().read(head.cast())?;
    let pending = Entry::decode(list.list_op_pending);
    let mut next = Entry::decode(list.list_next);
    for _ in 0..ROBUST_LIST_LIMIT {
        if next.addr == head.get() {
            break;
        }
        let this = next;
        // Read before the owner-died mark: whoever sees that may free the entry.
        let following = t.mm().read::<u64>(UserAddr::new(this.addr).cast());
        // The pending entry comes last, by its own rule.
        if this.addr != pending.addr {
            owner_died(t, this, list.futex_offset, Listed::Held).await?;
        }
        next = Entry::decode(following?);
    }
    if pending.addr != 0 {
        owner_died(t, pending, list.futex_offset, Listed::Pending).await?;
    }
    Ok(())
}

/// Marks a word whose owner ends, and wakes one who waits (`handle_futex_death`).
async fn owner_died(t: &mut CurrentTask, entry: Entry, offset: i64, listed: Listed) -> Result<()> {
    let addr = UserAddr::new(entry.addr.wrapping_add_signed(offset));
    // Checks alignment and range, too.
    t.mm().futex_key(addr, FutexScope::Private)?;
    let own = pi::me(t).tid;
    loop {
        let word = atomic(t, addr, Atomic32::Load).await?;
        let owner = word & FUTEX_TID_MASK;
        if listed == Listed::Pending && entry.kind == Kind::Plain && owner == 0 {
            // Given back but its waiter perhaps not yet woken.
            let _ = wake::wake(t, addr, FutexScope::Shared, 1, FUTEX_BITSET_MATCH_ANY);
            return Ok(());
        }
        if owner != own {
            return Ok(());
        }
        if !compare_exchange(t, addr, word, (word & FUTEX_WAITERS) | FUTEX_OWNER_DIED).await? {
            continue;
        }
        // PI waiters inherit by `hand_over_all`.
        if entry.kind == Kind::Plain && word & FUTEX_WAITERS != 0 {
            let _ = wake::wake(t, addr, FutexScope::Shared, 1, FUTEX_BITSET_MATCH_ANY);
        }
        return Ok(());
    }
}
