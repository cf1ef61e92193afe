//! Orders.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use moat_abi::Errno;

use crate::driver::{CODE, DATA, Guest, HOLE, R, RW, RX, SIZE};
use crate::programs;
use moat_platform::{Atomic32, Event, MapSource, Order, PAGE_SIZE, Platform, Regs};

/// A memory file with this content.
///
/// # Panics
/// If the host refuses.
#[must_use]
pub fn memfd(content: &[u8]) -> Arc<OwnedFd> {
    use std::io::Write;
    // SAFETY: the name is a C string; the descriptor is fresh and nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(libc::memfd_create(c"conformance".as_ptr(), libc::MFD_CLOEXEC)) };
    let mut file = std::fs::File::from(fd);
    file.write_all(content).expect("write to a memfd");
    Arc::new(file.into())
}

fn file(fd: &Arc<OwnedFd>, offset: u64, shared: bool) -> MapSource {
    MapSource::File { fd: Arc::clone(fd), offset, shared }
}

/// Anonymous memory is mapped, protected, replaced and unmapped.
pub fn order_anonymous(platform: &dyn Platform) {
    let mut guest = Guest::blank(platform);
    guest.map(HOLE, 3 * PAGE_SIZE, RW);
    assert_eq!(guest.word(HOLE), 0);
    guest.set_word(HOLE, 1);
    guest.set_word(HOLE + PAGE_SIZE, 2);
    guest.order(Order::Mprotect { addr: HOLE, len: PAGE_SIZE, prot: R }).expect("mprotect");
    assert_eq!(guest.space.write(HOLE, &[9]), Err(Errno::EFAULT));
    assert_eq!(guest.word(HOLE), 1);
    guest.order(Order::Mprotect { addr: HOLE, len: PAGE_SIZE, prot: 0 }).expect("mprotect");
    assert_eq!(guest.space.read(HOLE, &mut [0]), Err(Errno::EFAULT));
    guest.order(Order::Munmap { addr: HOLE, len: PAGE_SIZE }).expect("munmap");
    assert_eq!(guest.word(HOLE + PAGE_SIZE), 2);
    guest.map(HOLE + PAGE_SIZE, PAGE_SIZE, RW);
    assert_eq!(guest.word(HOLE + PAGE_SIZE), 0);
    let source = MapSource::AnonPrivate { noreserve: true };
    let big = 64 << 30;
    guest.order(Order::Mmap { addr: HOLE + (1 << 36), len: big, prot: RW, source }).expect("mmap of a large area, unreserved");
    guest.set_word(HOLE + (1 << 36) + big - 4, 7);
}

/// Memory is moved, grown in place, moved without unmapping.
pub fn order_mremap(platform: &dyn Platform) {
    let mut guest = Guest::blank(platform);
    guest.map(HOLE, 2 * PAGE_SIZE, RW);
    guest.set_word(HOLE, 1);
    let to = HOLE + 0x100_0000;
    let order = Order::Mremap { old_addr: HOLE, old_len: 2 * PAGE_SIZE, new_addr: to, new_len: 4 * PAGE_SIZE, dont_unmap: false };
    assert_eq!(guest.order(order), Ok(to));
    assert_eq!(guest.word(to), 1);
    assert_eq!(guest.space.read(HOLE, &mut [0]), Err(Errno::EFAULT));
    guest.set_word(to + 3 * PAGE_SIZE, 4);
    let order = Order::Mremap { old_addr: to, old_len: 4 * PAGE_SIZE, new_addr: to, new_len: 8 * PAGE_SIZE, dont_unmap: false };
    assert_eq!(guest.order(order), Ok(to));
    guest.set_word(to + 7 * PAGE_SIZE, 8);
    let order = Order::Mremap { old_addr: to, old_len: PAGE_SIZE, new_addr: HOLE, new_len: PAGE_SIZE, dont_unmap: true };
    assert_eq!(guest.order(order), Ok(HOLE));
    assert_eq!((guest.word(HOLE), guest.word(to)), (1, 0));
}

/// Pages are thrown away.
pub fn order_madvise(platform: &dyn Platform) {
    let mut guest = Guest::blank(platform);
    guest.map(HOLE, 2 * PAGE_SIZE, RW);
    guest.set_word(HOLE, 1);
    guest.set_word(HOLE + PAGE_SIZE, 2);
    guest.order(Order::Madvise { addr: HOLE, len: PAGE_SIZE, advice: libc::MADV_DONTNEED }).expect("madvise");
    assert_eq!((guest.word(HOLE), guest.word(HOLE + PAGE_SIZE)), (0, 2));
    let order = Order::Madvise { addr: HOLE, len: 2 * PAGE_SIZE, advice: libc::MADV_DONTFORK };
    guest.order(order).expect("madvise");
    assert_eq!(guest.fork().space.read(HOLE, &mut [0]), Err(Errno::EFAULT));
}

/// Locking memory is best effort.
pub fn order_mlock(platform: &dyn Platform) {
    let mut guest = Guest::blank(platform);
    guest.map(HOLE, 2 * PAGE_SIZE, RW);
    for lock in [true, false] {
        guest.order(Order::Mlock { addr: HOLE, len: 2 * PAGE_SIZE, lock }).expect("mlock");
    }
}

/// A private mapping of a file: its content, at an offset; changes stay in the process.
pub fn order_private_file(platform: &dyn Platform) {
    let mut content = vec![1u8; usize::try_from(2 * PAGE_SIZE).expect("small")];
    content[4096..].fill(2);
    let fd = memfd(&content);
    let mut guest = Guest::blank(platform);
    let source = file(&fd, PAGE_SIZE, false);
    guest.order(Order::Mmap { addr: HOLE, len: PAGE_SIZE, prot: RW, source }).expect("mmap");
    assert_eq!(guest.word(HOLE), 0x0202_0202);
    guest.set_word(HOLE, 3);
    let mut other = Guest::blank(platform);
    let source = file(&fd, 0, false);
    other.order(Order::Mmap { addr: HOLE, len: 2 * PAGE_SIZE, prot: R, source }).expect("mmap");
    assert_eq!((other.word(HOLE), other.word(HOLE + PAGE_SIZE)), (0x0101_0101, 0x0202_0202));
    // Program text runs from a file.
    let fd = memfd(programs::counting());
    let source = file(&fd, 0, false);
    other.order(Order::Mmap { addr: CODE, len: PAGE_SIZE, prot: RX, source }).expect("mmap");
    other.go(CODE);
    assert_eq!(other.syscall().0, 0);
}

/// A shared mapping is one memory for two processes and the file.
pub fn order_shared_file(platform: &dyn Platform) {
    let fd = memfd(&[0; 4096]);
    let mut first = Guest::load(platform, programs::write_byte());
    let mut second = Guest::load(platform, programs::read_byte());
    for guest in [&mut first, &mut second] {
        let source = file(&fd, 0, true);
        guest.order(Order::Mmap { addr: HOLE, len: PAGE_SIZE, prot: RW, source }).expect("mmap");
        let regs = Regs { rdi: HOLE + 1, rsi: 88, ..guest.thread.regs() };
        guest.thread.set_regs(&regs);
    }
    first.syscall();
    assert_eq!(second.syscall().1[0], 88);
    let copy = first.fork();
    copy.set_word(HOLE + 8, 5);
    assert_eq!((first.word(HOLE + 8), second.word(HOLE + 8)), (5, 5));
}

/// The host's errnos come back, and a failed order changes nothing else.
pub fn order_failures(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    assert_eq!(guest.order(Order::Mprotect { addr: HOLE, len: PAGE_SIZE, prot: R }), Err(Errno::ENOMEM));
    // A descriptor that cannot be mapped: a directory.
    let root: OwnedFd = std::fs::File::open("/").expect("open /").into();
    let source = file(&Arc::new(root), 0, false);
    assert_eq!(guest.order(Order::Mmap { addr: HOLE, len: PAGE_SIZE, prot: R, source }), Err(Errno::ENODEV));
    // Not writable, but shared and to be written.
    let read_only: OwnedFd = std::fs::File::open("/proc/self/exe").expect("open").into();
    let source = file(&Arc::new(read_only), 0, true);
    assert_eq!(guest.order(Order::Mmap { addr: HOLE, len: PAGE_SIZE, prot: RW, source }), Err(Errno::EACCES));
    // Descriptors do not pile up.
    let fd = memfd(&[6; 100]);
    for _ in 0..40 {
        let source = file(&fd, 0, false);
        guest.order(Order::Mmap { addr: HOLE, len: PAGE_SIZE, prot: R, source }).expect("mmap");
    }
    assert_eq!(guest.word(HOLE), 0x0606_0606);
    assert_eq!(guest.syscall().0, 0);
}

/// Every atomic operation, and one on nothing.
pub fn order_atomics(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    let all = [
        (Atomic32::Load, 0xf0),
        (Atomic32::Swap(1), 1),
        (Atomic32::Add(u32::MAX), 0xef),
        (Atomic32::Or(0x0f), 0xff),
        (Atomic32::AndNot(0x30), 0xc0),
        (Atomic32::Xor(0xff), 0x0f),
        (Atomic32::CompareExchange { old: 0xf0, new: 3 }, 3),
        (Atomic32::CompareExchange { old: 0xf1, new: 3 }, 0xf0),
    ];
    for (op, after) in all {
        guest.set_word(DATA + 4, 0xf0);
        assert_eq!(guest.order(Order::Atomic32 { addr: DATA + 4, op }), Ok(0xf0), "{op:?}");
        assert_eq!((guest.word(DATA), guest.word(DATA + 4), guest.word(DATA + 8)), (0, after, 0), "{op:?}");
        assert_eq!(guest.order(Order::Atomic32 { addr: HOLE, op }), Err(Errno::EFAULT), "{op:?}");
    }
    guest.order(Order::Mprotect { addr: DATA, len: SIZE, prot: R }).expect("mprotect");
    assert_eq!(guest.order(Order::Atomic32 { addr: DATA, op: Atomic32::Load }), Ok(0));
    assert_eq!(guest.order(Order::Atomic32 { addr: DATA, op: Atomic32::Add(1) }), Err(Errno::EFAULT));
    // The thread is as it was.
    assert_eq!(guest.syscall().0, 0);
}

/// Deferred orders are carried out in turn before the thread runs; one that fails keeps it from running.
pub fn order_deferred(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::read_byte());
    let regs = Regs { rdi: HOLE, ..guest.thread.regs() };
    guest.thread.set_regs(&regs);
    let fd = memfd(&[7; 10]);
    let anonymous = MapSource::AnonPrivate { noreserve: false };
    guest.thread.defer(Order::Mmap { addr: HOLE, len: PAGE_SIZE, prot: RW, source: anonymous });
    guest.thread.defer(Order::Munmap { addr: HOLE, len: PAGE_SIZE });
    guest.thread.defer(Order::Mmap { addr: HOLE, len: PAGE_SIZE, prot: R, source: file(&fd, 0, false) });
    assert_eq!(guest.syscall().1[0], 7);

    guest.thread.set_regs(&regs);
    guest.thread.defer(Order::Mprotect { addr: HOLE + PAGE_SIZE, len: PAGE_SIZE, prot: R });
    match guest.run() {
        Event::OrderFailed(Errno::ENOMEM) => {}
        event => panic!("{event:?}"),
    }
    assert_eq!(guest.thread.regs().rip, CODE, "it has not run");
    assert_eq!(guest.syscall().1[0], 7);
}

/// The host shows the guest's name.
pub fn order_names(platform: &dyn Platform) {
    let mut guest = Guest::blank(platform);
    guest.order(Order::SetName(*b"conform\0........")).expect("prctl");
    let comm = std::fs::read_to_string(format!("/proc/{}/comm", guest.space.host_pid())).expect("comm");
    assert_eq!(comm, "conform\n");
}

/// rseq(2) is the thread's own: the host keeps the cpu number in the area.
pub fn order_rseq(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::counting());
    guest.set_word(DATA, u32::MAX);
    let register = |flags| Order::Rseq { addr: DATA, len: 32, flags, sig: 0x5305_3053 };
    guest.order(register(0)).expect("rseq");
    assert_eq!(guest.order(register(0)), Err(Errno::EBUSY));
    guest.syscall();
    assert!(guest.word(DATA) < 4096, "cpu_id_start");
    guest.order(register(1)).expect("rseq");
    assert_eq!(guest.order(register(1)), Err(Errno::EINVAL));
    guest.syscall();
}
