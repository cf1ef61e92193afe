//! From an [`Order`] to what the stub carries out and what the sentry expects of it.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::mman::{MREMAP_DONTUNMAP, MREMAP_FIXED, MREMAP_MAYMOVE};
use moat_abi::nr;
use moat_abi::prctl::PR_SET_NAME;
use moat_platform::{Atomic32, GUEST_BOTTOM, GUEST_TOP, MapSource, Order};
use moat_stub::layout::{Cell, OP_ATOMIC, atomic};

use crate::call::{Call, Effect};
use crate::filter::notifies;

const PROT_READ: u32 = 1;
const PROT_EXEC: u32 = 4;
const MAP_SHARED: u64 = 0x01;
const MAP_PRIVATE: u64 = 0x02;
const MAP_FIXED: u64 = 0x10;
const MAP_ANONYMOUS: u64 = 0x20;
const MAP_NORESERVE: u64 = 0x4000;

/// Whether an order keeps to the guest's part of the address space: the last line of defence for the platform's own.
pub fn is_in_range(order: &Order) -> bool {
    let fits = |addr: u64, len: u64| addr.checked_add(len).is_some_and(|end| end <= GUEST_TOP);
    // Below it is the table that rewritten call sites jump through.
    let maps = |addr: u64, len: u64| addr >= GUEST_BOTTOM && fits(addr, len);
    match *order {
        Order::Mmap { addr, len, .. }
        | Order::Munmap { addr, len }
        | Order::Mprotect { addr, len, .. }
        | Order::Madvise { addr, len, .. }
        | Order::Mlock { addr, len, .. } => maps(addr, len),
        Order::Mremap { old_addr, old_len, new_addr, new_len, .. } => {
            maps(old_addr, old_len) && maps(new_addr, new_len)
        }
        Order::Atomic32 { addr, .. } => fits(addr, 4),
        Order::Rseq { addr, len, .. } => fits(addr, u64::from(len)),
        Order::SetName(_) | Order::WatchWrites | Order::EndWatch(_) => true,
    }
}

/// Joins file mappings that are one range of one file, so that only one call has to be verified: what is to be less than the
/// whole is made so by mprotect, which needs no verification for what is not executable. Private mappings that are not
/// writable only; the host has the same areas in the end. The last order stays as it is: its result may be wanted.
pub fn join_mappings(orders: &mut VecDeque<Order>) {
    let mut at = 0;
    while at + 2 < orders.len() {
        let run = joinable(orders.iter().skip(at).take(orders.len() - 1 - at));
        if run.count > 1 {
            let parts: Vec<Order> = orders.drain(at..at + run.count).collect();
            let mut joined = Vec::with_capacity(1 + parts.len());
            for part in &parts {
                if let Order::Mmap { addr, len, prot, source } = part {
                    if joined.is_empty() {
                        joined.push(Order::Mmap { addr: *addr, len: run.len, prot: run.prot, source: source.clone() });
                    }
                    if *prot != run.prot {
                        joined.push(Order::Mprotect { addr: *addr, len: *len, prot: *prot });
                    }
                }
            }
            let count = joined.len();
            joined.into_iter().rev().for_each(|order| orders.insert(at, order));
            at += count;
        } else {
            at += 1;
        }
    }
}

/// Mappings in a row that can be one.
struct Run {
    count: usize,
    len: u64,
    prot: u32,
}

fn joinable<'a>(orders: impl Iterator<Item = &'a Order>) -> Run {
    let mut run = Run { count: 0, len: 0, prot: 0 };
    let mut first = None;
    for order in orders {
        let Order::Mmap { addr, len, prot, source: MapSource::File { fd, offset, shared: false } } = order else {
            break;
        };
        let (start, file_start, file) = *first.get_or_insert((*addr, *offset, fd));
        let follows = start.checked_add(run.len) == Some(*addr)
            && file_start.checked_add(run.len) == Some(*offset)
            && Arc::ptr_eq(file, fd);
        let whole = run.prot | prot;
        // What is executable must be all that the whole is: mprotect can't be asked for it without verification.
        let executable = [run.prot, *prot].iter().all(|part| part & PROT_EXEC == 0 || *part == whole);
        let Some(sum) = run.len.checked_add(*len) else { break };
        if !follows || prot & !(PROT_READ | PROT_EXEC) != 0 || !executable {
            break;
        }
        run = Run { count: run.count + 1, len: sum, prot: whole };
    }
    run
}

/// The file that an order maps.
pub fn mapped_file(order: &Order) -> Option<&Arc<OwnedFd>> {
    match order {
        Order::Mmap { source: MapSource::File { fd, .. }, .. } => Some(fd),
        _ => None,
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
        Order::WatchWrites => syscall(nr::USERFAULTFD, [moat_host::userfault::FLAGS, 0, 0, 0, 0, 0]),
        Order::EndWatch(number) => syscall(nr::CLOSE, [u64::from(*number), 0, 0, 0, 0, 0]),
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

/// Whether an order is one system call that the filter lets through: nothing of it needs a frame, or waits for the sentry.
pub fn is_plain(order: &Order) -> bool {
    let lowered = lower(order, 0, 0);
    let allowed = |call: &Call| call.fd.is_none() && !notifies(call.nr, &call.args);
    lowered.cells.len() == 1 && lowered.call.as_ref().is_some_and(allowed)
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
        for (addr, len) in [
            (GUEST_TOP, 0x1000),
            (GUEST_TOP - 0x1000, 0x2000),
            (u64::MAX - 0xfff, 0x2000),
            (0, u64::MAX),
            (0x6_0000, 0x1000),
        ] {
            assert!(!is_in_range(&Order::Munmap { addr, len }));
            assert!(!is_in_range(&Order::Madvise { addr, len, advice: 4 }));
            let remap =
                Order::Mremap { old_addr: 0x10_0000, old_len: 0x1000, new_addr: addr, new_len: len, dont_unmap: false };
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

    fn mapping(addr: u64, pages: u64, prot: u32, offset: u64, fd: &Arc<OwnedFd>, shared: bool) -> Order {
        let source = MapSource::File { fd: fd.clone(), offset, shared };
        Order::Mmap { addr, len: pages << 12, prot, source }
    }

    fn shape(orders: &VecDeque<Order>) -> Vec<(u64, u64, u32)> {
        let of = |order: &Order| match *order {
            Order::Mmap { addr, len, prot, .. } => (addr, len >> 12, prot),
            Order::Mprotect { addr, len, prot } => (addr, len >> 12, prot | 0x100),
            _ => (0, 0, 0),
        };
        orders.iter().map(of).collect()
    }

    #[test]
    fn text_is_mapped_at_once() {
        let open = || Arc::new(OwnedFd::from(std::fs::File::open("/dev/null").expect("/dev/null")));
        let (fd, other) = (open(), open());
        let name = Order::SetName([0; 16]);
        let join = |orders: Vec<Order>| {
            let mut orders = VecDeque::from(orders);
            join_mappings(&mut orders);
            shape(&orders)
        };
        // As of an ELF file: header, text, constants, data.
        let parts = [
            mapping(0x1000, 1, 1, 0, &fd, false),
            mapping(0x2000, 2, 5, 0x1000, &fd, false),
            mapping(0x4000, 1, 1, 0x3000, &fd, false),
            mapping(0x5000, 1, 3, 0x4000, &fd, false),
            name.clone(),
        ];
        let joined = [(0x1000, 4, 5), (0x1000, 1, 0x101), (0x4000, 1, 0x101), (0x5000, 1, 3), (0, 0, 0)];
        assert_eq!(join(parts.to_vec()), joined);
        // The last one's result is wanted.
        assert_eq!(join(parts[..2].to_vec()), [(0x1000, 1, 1), (0x2000, 2, 5)]);
        for different in [
            mapping(0x3000, 1, 5, 0x1000, &fd, false),
            mapping(0x2000, 1, 5, 0x2000, &fd, false),
            mapping(0x2000, 1, 5, 0x1000, &other, false),
            mapping(0x2000, 1, 5, 0x1000, &fd, true),
            mapping(0x2000, 1, 3, 0x1000, &fd, false),
            // Execute only, beside what is readable: neither is the whole.
            mapping(0x2000, 1, 4, 0x1000, &fd, false),
            mapping(0x2000, u64::MAX >> 12, 5, 0x1000, &fd, false),
            Order::Munmap { addr: 0x2000, len: 0x1000 },
        ] {
            let orders = vec![parts[0].clone(), different, name.clone()];
            let apart = shape(&VecDeque::from(orders.clone()));
            assert_eq!(join(orders), apart);
        }
    }
}
