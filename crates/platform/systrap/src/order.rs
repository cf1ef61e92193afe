//! From an [`Order`] to what the stub carries out and what the sentry expects of it.

use moat_abi::mman::{MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE};
use moat_abi::nr;
use moat_abi::prctl::PR_SET_NAME;
use moat_platform::{Atomic32, GUEST_TOP, MapSource, Order};
use moat_stub::layout::{Cell, OP_ATOMIC, atomic};

use crate::call::{Call, Effect};

const PROT_READ: u32 = 1;
const MAP_SHARED: u64 = 0x01;
const MAP_PRIVATE: u64 = 0x02;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;

/// Whether an order keeps to the guest's part of the address space: the last line of defence for the platform's own.
pub fn is_in_range(order: &Order) -> bool {
    let fits = |addr: u64, len: u64| addr.checked_add(len).is_some_and(|end| end <= GUEST_TOP);
    match *order {
        Order::Mmap { addr, len, .. }
        | Order::Munmap { addr, len }
        | Order::Mprotect { addr, len, .. }
        | Order::Madvise { addr, len, .. }
        | Order::Mlock { addr, len, .. } => fits(addr, len),
        Order::Mremap { old_addr, old_len, new_addr, new_len, .. } => {
            fits(old_addr, old_len) && fits(new_addr, new_len)
        }
        Order::Atomic32 { addr, .. } => fits(addr, 4),
        Order::Rseq { addr, len, .. } => fits(addr, u64::from(len)),
        Order::SetName(_) => true,
    }
}

/// Cells that an order takes at most.
pub const MAX_CELLS: usize = 2;

/// The cells of one order.
pub struct Lowered {
    /// The first gives the order's result.
    pub cells: Vec<Cell>,
    /// What the first is expected to be, if it is a system call.
    pub call: Option<Call>,
}

/// Lowers an order whose first cell will be at guest address `cell_addr`; `number` is the thread's own descriptor
/// number for orders.
pub fn lower(order: &Order, cell_addr: u64, number: u32) -> Lowered {
    // What can be written or executed can be read on x86-64 (arch/x86/mm/pgprot.c), also by the sentry's copies, which
    // the host refuses for want of VM_READ.
    let prot_of = |prot: u32| u64::from(if prot & 7 == 0 { 0 } else { prot & 7 | PROT_READ });
    match order {
        Order::Mmap { addr, len, prot, source } => match source {
            MapSource::AnonPrivate { noreserve } => {
                let flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | if *noreserve { MAP_NORESERVE } else { 0 };
                syscall(nr::MMAP, [*addr, *len, prot_of(*prot), flags, 0, 0])
            }
            MapSource::File { fd, offset, shared } => {
                let flags = MAP_FIXED | if *shared { MAP_SHARED } else { MAP_PRIVATE };
                let args = [*addr, *len, prot_of(*prot), flags, u64::from(number), *offset];
                let mut lowered = syscall(nr::MMAP, args);
                if let Some(call) = &mut lowered.call {
                    call.fd = Some((fd.clone(), number));
                }
                lowered.cells.push(cell(u64::from(nr::CLOSE), [u64::from(number), 0, 0, 0, 0, 0]));
                lowered
            }
        },
        Order::Munmap { addr, len } => syscall(nr::MUNMAP, [*addr, *len, 0, 0, 0, 0]),
        Order::Mprotect { addr, len, prot } => syscall(nr::MPROTECT, [*addr, *len, prot_of(*prot), 0, 0, 0]),
        Order::Mremap { old_addr, old_len, new_addr, new_len, dont_unmap } => {
            let keep = if *dont_unmap { MREMAP_DONTUNMAP } else { 0 };
            let flags = if old_addr == new_addr { 0 } else { MREMAP_MAYMOVE | MREMAP_FIXED | keep };
            syscall(nr::MREMAP, [*old_addr, *old_len, *new_len, u64::from(flags), *new_addr, 0])
        }
        Order::Madvise { addr, len, advice } => {
            syscall(nr::MADVISE, [*addr, *len, u64::from(advice.cast_unsigned()), 0, 0, 0])
        }
        Order::Mlock { addr, len, lock } => {
            syscall(if *lock { nr::MLOCK2 } else { nr::MUNLOCK }, [*addr, *len, 0, 0, 0, 0])
        }
        Order::Rseq { addr, len, flags, sig } => {
            syscall(nr::RSEQ, [*addr, u64::from(*len), u64::from(*flags), u64::from(*sig), 0, 0])
        }
        Order::SetName(name) => {
            let (a, b) = name.split_at(8);
            let word = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |word, byte| word << 8 | u64::from(*byte));
            // The name lies in the cell's own unused arguments.
            let at = cell_addr + std::mem::offset_of!(Cell, args) as u64 + 3 * 8;
            syscall(nr::PRCTL, [u64::from(PR_SET_NAME), at, 0, word(a), word(b) & !(0xff << 56), 0])
        }
        Order::Atomic32 { addr, op } => {
            let (kind, a, b) = match *op {
                Atomic32::Load => (atomic::LOAD, 0, 0),
                Atomic32::Swap(v) => (atomic::SWAP, v, 0),
                Atomic32::Add(v) => (atomic::ADD, v, 0),
                Atomic32::Or(v) => (atomic::OR, v, 0),
                Atomic32::AndNot(v) => (atomic::AND_NOT, v, 0),
                Atomic32::Xor(v) => (atomic::XOR, v, 0),
                Atomic32::CompareExchange { old, new } => (atomic::COMPARE_EXCHANGE, old, new),
            };
            let args = [*addr, kind, u64::from(a), u64::from(b), 0, 0];
            Lowered { cells: vec![cell(OP_ATOMIC, args)], call: None }
        }
    }
}

fn cell(op: u64, args: [u64; 6]) -> Cell {
    Cell { op, args, result: 0 }
}

fn syscall(nr: u32, args: [u64; 6]) -> Lowered {
    let call = Call { nr, args, fd: None, effect: Effect::None };
    Lowered { cells: vec![cell(u64::from(nr), args)], call: Some(call) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_stay_below_the_top() {
        assert!(is_in_range(&Order::Munmap { addr: GUEST_TOP - 0x1000, len: 0x1000 }));
        for (addr, len) in
            [(GUEST_TOP, 0x1000), (GUEST_TOP - 0x1000, 0x2000), (u64::MAX - 0xfff, 0x2000), (0, u64::MAX)]
        {
            assert!(!is_in_range(&Order::Munmap { addr, len }));
            assert!(!is_in_range(&Order::Madvise { addr, len, advice: 4 }));
            let remap =
                Order::Mremap { old_addr: 0x1000, old_len: 0x1000, new_addr: addr, new_len: len, dont_unmap: false };
            assert!(!is_in_range(&remap));
        }
    }

    #[test]
    fn a_name_lies_in_its_own_cell() {
        let lowered = lower(&Order::SetName(*b"abcdefghijklmnop"), 0x1000, 7);
        let cell = lowered.cells[0];
        assert_eq!(cell.args[1], 0x1000 + 8 + 24);
        assert_eq!(cell.args[3].to_le_bytes(), *b"abcdefgh");
        assert_eq!(cell.args[4].to_le_bytes(), *b"ijklmno\0", "always terminated");
    }

    #[test]
    fn protections_follow_the_processor() {
        let prot = |prot| lower(&Order::Mprotect { addr: 0, len: 0, prot }, 0, 0).cells[0].args[2];
        assert_eq!([prot(0), prot(1), prot(2), prot(4), prot(0xff00)], [0, 1, 3, 5, 0]);
    }
}
