//! The order interpreter: system calls, clones and atomics that the sentry asks this thread for.

use crate::entry;
use crate::layout::{CELLS, Cell, Control, OP_ATOMIC, OP_FORK, OP_SPAWN, atomic};
use crate::sys;

const MAX_ERRNO: u64 = 4095;
const EFAULT: u64 = 14;

/// Carries out the first `count` cells up to the first that fails; true if all went well.
///
/// # Safety
/// `control` is this thread's area.
pub unsafe fn carry_out(control: *mut Control, count: u32) -> bool {
    let count = (count as usize).min(CELLS);
    for i in 0..count {
        // SAFETY: i < CELLS.
        let failed = unsafe {
            let cell = (&raw mut (*control).cells).cast::<Cell>().add(i);
            let result = one(control, cell.read_volatile());
            (&raw mut (*cell).result).write_volatile(result);
            result > u64::MAX - MAX_ERRNO
        };
        if failed {
            // SAFETY: by the caller.
            unsafe { (&raw mut (*control).orders_done).write_volatile(i as u32) };
            return false;
        }
    }
    // SAFETY: by the caller.
    unsafe { (&raw mut (*control).orders_done).write_volatile(count as u32) };
    true
}

unsafe fn one(control: *mut Control, cell: Cell) -> u64 {
    let a = cell.args;
    // SAFETY: by the caller; the new thread's area is mapped, or else it faults and the process dies.
    unsafe {
        match cell.op {
            OP_FORK => entry::stub_fork(a[0], control as u64, a[1], a[2]),
            OP_SPAWN => entry::stub_spawn(a[0], a[1], a[2]),
            OP_ATOMIC => atomic_op(a[0], a[1], a[2] as u32, a[3] as u32),
            nr => sys::call(nr, a),
        }
    }
}

/// The old value of the word, or -EFAULT. A load needs no write permission.
unsafe fn atomic_op(addr: u64, kind: u64, a: u32, b: u32) -> u64 {
    loop {
        // SAFETY: a bad address is recovered from by the fault handler.
        let old = unsafe { entry::stub_load(addr) };
        if old >> 32 != 0 {
            return EFAULT.wrapping_neg();
        }
        let old = old as u32;
        let new = match kind {
            atomic::SWAP => a,
            atomic::ADD => old.wrapping_add(a),
            atomic::OR => old | a,
            atomic::AND_NOT => old & !a,
            atomic::XOR => old ^ a,
            // A failing compare still needs write permission, as the instruction does.
            atomic::COMPARE_EXCHANGE => {
                if old == a {
                    b
                } else {
                    old
                }
            }
            _ => return u64::from(old),
        };
        // SAFETY: as above.
        let seen = unsafe { entry::stub_compare_exchange(addr, old, new) };
        if seen >> 32 != 0 {
            return EFAULT.wrapping_neg();
        }
        if seen as u32 == old {
            return u64::from(old);
        }
    }
}
