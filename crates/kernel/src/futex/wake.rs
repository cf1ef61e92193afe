//! FUTEX_WAKE, FUTEX_WAKE_BITSET, FUTEX_WAKE_OP, FUTEX_REQUEUE and FUTEX_CMP_REQUEUE.

use moat_abi::futex::{
    FUTEX_BITSET_MATCH_ANY, FUTEX_OP_ADD, FUTEX_OP_ANDN, FUTEX_OP_OR, FUTEX_OP_SET, FUTEX_OP_XOR, WakeOp,
};
use moat_abi::{Errno, Result};
use moat_mm::{FutexScope, UserAddr};
use moat_platform::Atomic32;

use crate::task::CurrentTask;

/// How many to wake: Linux counts after the first, so that zero and less mean one.
fn at_least_one(count: i32) -> usize {
    usize::try_from(count).unwrap_or(0).max(1)
}

/// Wakes up to `count` waiters of the word at `addr` whose bitset meets `bitset`; gives how many.
///
/// # Errors
/// EINVAL for the address, an empty bitset or a PI waiter; EFAULT.
pub fn wake(t: &CurrentTask, addr: UserAddr, scope: FutexScope, count: i32, bitset: u32) -> Result<usize> {
    if bitset == 0 {
        return Err(Errno::EINVAL);
    }
    t.kernel().futexes.table.wake(&t.mm().futex_key(addr, scope)?, at_least_one(count), bitset)
}

/// Changes the word at `addr2`, wakes `count` waiters of `addr`, and if the old value was as `op` says `count2` of `addr2`.
///
/// # Errors
/// EINVAL, EFAULT for the addresses; ENOSYS for an unknown operation.
pub async fn wake_op(
    t: &mut CurrentTask,
    scope: FutexScope,
    (addr, count): (UserAddr, i32),
    (addr2, count2): (UserAddr, i32),
    op: WakeOp,
) -> Result<usize> {
    let key = t.mm().futex_key(addr, scope)?;
    let key2 = t.mm().futex_key(addr2, scope)?;
    let change = match op.op {
        FUTEX_OP_SET => Atomic32::Swap(op.oparg),
        FUTEX_OP_ADD => Atomic32::Add(op.oparg),
        FUTEX_OP_OR => Atomic32::Or(op.oparg),
        FUTEX_OP_ANDN => Atomic32::AndNot(op.oparg),
        FUTEX_OP_XOR => Atomic32::Xor(op.oparg),
        _ => return Err(Errno::ENOSYS),
    };
    // An unknown comparison is found out only after the change, as on Linux.
    let old = super::word::atomic(t, addr2, change).await?;
    let second = op.compare(old).ok_or(Errno::ENOSYS)?;
    let table = &t.kernel().futexes.table;
    let mut woken = table.wake(&key, at_least_one(count), FUTEX_BITSET_MATCH_ANY)?;
    if second {
        woken += table.wake(&key2, at_least_one(count2), FUTEX_BITSET_MATCH_ANY)?;
    }
    Ok(woken)
}

/// What FUTEX_REQUEUE and FUTEX_CMP_REQUEUE are asked for.
#[derive(Clone, Copy, Debug)]
pub struct RequeueRequest {
    /// Whose waiters.
    pub from: UserAddr,
    /// Where they go.
    pub to: UserAddr,
    /// FUTEX_PRIVATE_FLAG.
    pub scope: FutexScope,
    /// How many are woken.
    pub wake: i32,
    /// How many more are moved.
    pub requeue: i32,
    /// The value that `from` must have, with FUTEX_CMP_REQUEUE.
    pub expected: Option<u32>,
}

/// Wakes some waiters and moves others to another word; gives how many in all.
///
/// # Errors
/// EINVAL for negative counts, addresses or PI waiters; EFAULT; EAGAIN if the word has another value.
pub fn requeue(t: &CurrentTask, r: &RequeueRequest) -> Result<usize> {
    let (Ok(wake), Ok(requeue)) = (usize::try_from(r.wake), usize::try_from(r.requeue)) else {
        return Err(Errno::EINVAL);
    };
    let (mm, table) = (t.mm(), &t.kernel().futexes.table);
    let from = mm.futex_key(r.from, r.scope)?;
    let to = mm.futex_key(r.to, r.scope)?;
    // Whoever comes after this point saw a value of its own: it is not among those that the comparison speaks of.
    let before = table.ticket();
    if let Some(expected) = r.expected
        && mm.read::<u32>(r.from.cast())? != expected
    {
        return Err(Errno::EAGAIN);
    }
    table.requeue(from, to, wake, requeue, before)
}
