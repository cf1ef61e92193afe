//! Atomic changes of guest words, which the caller's guest thread carries out.

use moat_abi::Result;
use moat_mm::UserAddr;
use moat_platform::{Atomic32, Order, execute};

use crate::task::CurrentTask;

/// Carries out an atomic operation on a checked futex word; gives the old value.
pub(crate) async fn atomic(t: &mut CurrentTask, addr: UserAddr, op: Atomic32) -> Result<u32> {
    let old = execute(t.thread(), Order::Atomic32 { addr: addr.get(), op }).await?;
    // The word has 32 bits; the rest is nothing that a guest thread could mean.
    Ok((old & u64::from(u32::MAX)) as u32)
}

/// Changes the word from `old` to `new`; gives true if it was `old`.
pub(crate) async fn compare_exchange(t: &mut CurrentTask, addr: UserAddr, old: u32, new: u32) -> Result<bool> {
    Ok(atomic(t, addr, Atomic32::CompareExchange { old, new }).await? == old)
}
