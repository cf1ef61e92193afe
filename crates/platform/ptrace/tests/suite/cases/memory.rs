//! Blank processes and copies in and out.

use moat_abi::Errno;

use crate::driver::{CODE, DATA, Guest, HOLE, R, RW};
use crate::programs;
use moat_platform::{Event, GUEST_BOTTOM, GUEST_TOP, Order, PAGE_SIZE, Platform};

/// A blank process has the vDSO and nothing else, and faults at once when run.
pub fn blank_process(platform: &dyn Platform) {
    let mut guest = Guest::blank(platform);
    let layout = platform.vdso();
    assert!(layout.vvar.end <= layout.vdso.start && layout.vdso.end <= GUEST_TOP);
    let mut magic = [0; 4];
    assert_eq!(guest.space.read(layout.vdso.start, &mut magic), Ok(4));
    assert_eq!(&magic, b"\x7fELF");
    for addr in [0, GUEST_BOTTOM, CODE, HOLE, layout.vvar.start - PAGE_SIZE, layout.vdso.end, GUEST_TOP - 1] {
        assert_eq!(guest.space.read(addr, &mut magic[..1]), Err(Errno::EFAULT), "{addr:x}");
    }
    assert_eq!(guest.space.read(GUEST_TOP, &mut magic), Err(Errno::EFAULT), "the stub is not the guest's");
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", guest.space.host_pid())).expect("maps");
    for line in maps.lines() {
        let start = line.split('-').next().and_then(|s| u64::from_str_radix(s, 16).ok()).expect("an address");
        assert!(start >= GUEST_TOP || line.contains("[vvar") || line.contains("[vdso]"), "{line}");
    }
    guest.go(CODE);
    match guest.run() {
        Event::Fault(fault) => assert_eq!((fault.signal, fault.addr), (libc::SIGSEGV, CODE)),
        event => panic!("{event:?}"),
    }
}

/// Counts of copies that end at an inaccessible byte.
pub fn copies_are_exact(platform: &dyn Platform) {
    let mut guest = Guest::blank(platform);
    guest.map(HOLE, 4 * PAGE_SIZE, RW);
    let mut buf = vec![7u8; 5 * 4096];
    assert_eq!(guest.space.write(HOLE + 100, &buf), Ok(4 * 4096 - 100));
    buf.fill(0);
    assert_eq!(guest.space.read(HOLE, &mut buf), Ok(4 * 4096));
    assert!(buf[..100].iter().all(|&b| b == 0) && buf[100..4 * 4096].iter().all(|&b| b == 7));
    guest.order(Order::Mprotect { addr: HOLE + 2 * PAGE_SIZE, len: PAGE_SIZE, prot: 0 }).expect("mprotect");
    assert_eq!(guest.space.read(HOLE + 1, &mut buf), Ok(2 * 4096 - 1));
    assert_eq!(guest.space.read(HOLE + 2 * PAGE_SIZE - 3, &mut buf[..10]), Ok(3));
    assert_eq!(guest.space.read(HOLE + 3 * PAGE_SIZE - 3, &mut buf[..10]), Err(Errno::EFAULT));
    guest.order(Order::Mprotect { addr: HOLE + PAGE_SIZE, len: PAGE_SIZE, prot: R }).expect("mprotect");
    assert_eq!(guest.space.write(HOLE + 1, &buf), Ok(4096 - 1));
    assert_eq!(guest.space.write(HOLE + PAGE_SIZE, &buf), Err(Errno::EFAULT));
    assert_eq!(guest.space.read(HOLE, &mut []), Ok(0));
    assert_eq!(guest.space.read(u64::MAX - 3, &mut buf[..10]), Err(Errno::EFAULT));
    // Memory that can be written can be read, as by the processor.
    guest.map(HOLE, PAGE_SIZE, 2);
    assert_eq!(guest.space.read(HOLE, &mut buf[..10]), Ok(10));
    let large = vec![3u8; 8 << 20];
    guest.map(HOLE, 8 << 20, RW);
    assert_eq!(guest.space.write(HOLE, &large), Ok(8 << 20));
    let mut back = vec![0u8; 8 << 20];
    assert_eq!(guest.space.read(HOLE, &mut back), Ok(8 << 20));
    assert!(back == large);
}

/// Program text is written for a debugger, in one process only.
pub fn forced_write(platform: &dyn Platform) {
    let mut guest = Guest::load(platform, programs::breakpoint());
    let mut copy = guest.fork();
    assert_eq!(guest.space.write(CODE, &[0x90]), Err(Errno::EFAULT));
    assert_eq!(guest.space.write_forced(CODE, &[0x90]), Ok(1));
    assert_eq!(guest.syscall().0, 1000);
    assert_eq!(copy.fault().signal, libc::SIGTRAP);
    assert_eq!(guest.space.write_forced(HOLE, &[0x90]), Err(Errno::EFAULT));
    let odd: Vec<u8> = (0..31).collect();
    assert_eq!(guest.space.write_forced(DATA + 3, &odd), Ok(31));
    let mut back = [0xff; 33];
    assert_eq!(guest.space.read(DATA + 2, &mut back), Ok(33));
    assert_eq!((back[0], &back[1..32], back[32]), (0, &odd[..], 0));
}
