//! Orders and copies.

use std::sync::Arc;

use moat_abi::Errno;

use super::{CODE, DATA, Guest, RW, RX, Rig, fault_of, memfd, share, syscall_of};
use crate::{Atomic32, MapSource, Order, execute};

/// `mov rax,[rdi]; syscall; mov [rdi],rsi; syscall`
const LOAD_STORE: &[u8] = &[0x48, 0x8b, 0x07, 0x0f, 0x05, 0x48, 0x89, 0x37, 0x0f, 0x05];
const AREA: u64 = 0x4000_0000;

async fn load(guest: &mut Guest, addr: u64) -> Option<u64> {
    match guest.go_with(|r| (r.rip, r.rdi) = (CODE, addr)).await {
        crate::Event::Syscall { nr, .. } => Some(nr),
        event => {
            assert_eq!(fault_of(event).signal & !4, 11 & !4, "SIGSEGV or SIGBUS");
            None
        }
    }
}

async fn store(guest: &mut Guest, addr: u64, value: u64) -> bool {
    let event = guest.go_with(|r| (r.rip, r.rdi, r.rsi, r.rax) = (CODE + 5, addr, value, 0)).await;
    matches!(event, crate::Event::Syscall { .. })
}

/// mmap, mprotect, mremap, madvise, mlock and munmap act on the guest.
pub fn memory_orders_work(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        assert_eq!(load(&mut guest, AREA).await, None);
        guest.map_anon(AREA, 0x4000, RW).await;
        assert!(store(&mut guest, AREA + 8, 42).await);
        assert_eq!(load(&mut guest, AREA + 8).await, Some(42));
        guest.order(Order::Mprotect { addr: AREA, len: 0x1000, prot: 1 }).await;
        assert!(!store(&mut guest, AREA + 8, 43).await);
        assert_eq!(load(&mut guest, AREA + 8).await, Some(42));
        let moved = AREA + 0x10_0000;
        let remap =
            Order::Mremap { old_addr: AREA, old_len: 0x1000, new_addr: moved, new_len: 0x2000, dont_unmap: false };
        guest.order(remap).await;
        assert_eq!(load(&mut guest, moved + 8).await, Some(42));
        assert_eq!(load(&mut guest, AREA + 8).await, None);
        guest.order(Order::Mprotect { addr: moved, len: 0x2000, prot: RX }).await;
        guest.order(Order::Mlock { addr: moved, len: 0x1000, lock: true }).await;
        guest.order(Order::Mlock { addr: moved, len: 0x1000, lock: false }).await;
        guest.order(Order::Madvise { addr: moved, len: 0x2000, advice: 4 }).await; // MADV_DONTNEED
        assert_eq!(load(&mut guest, moved + 8).await, Some(0));
        guest.order(Order::Madvise { addr: moved, len: 0x1000, advice: 10 }).await; // MADV_DONTFORK
        guest.order(Order::Munmap { addr: moved, len: 0x2000 }).await;
        assert_eq!(load(&mut guest, moved + 8).await, None);
        guest.order(Order::SetName(*b"conformance\0\0\0\0\0")).await;
    });
}

/// A descriptor for what is written to memory is made, and closed again.
pub fn a_watch_is_a_descriptor_of_the_process(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        // A host may be built without it, or keep it to itself.
        let number = match execute(&mut *guest.thread, Order::WatchWrites).await {
            Err(errno @ (Errno::ENOSYS | Errno::EPERM)) => return eprintln!("skipped: {errno}"),
            number => u32::try_from(number.expect("a descriptor")).expect("a small number"),
        };
        // As the host shows it of the guest's process.
        let place = format!("/proc/{}/fd/{number}", guest.space.host_pid());
        let shows = |place: &str| std::fs::read_link(place).map(|link| link.display().to_string());
        assert_eq!(shows(&place).expect("a link"), "anon_inode:[userfaultfd]");
        guest.order(Order::EndWatch(number)).await;
        assert!(shows(&place).is_err());
    });
}

/// Copies of several ranges are those of each, and stop where one of them does.
pub fn ranges_are_copied_one_after_the_other(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        guest.map_anon(AREA, 0x1000, RW).await;
        guest.map_anon(AREA + 0x2000, 0x1000, RW).await;
        let ranges = [(AREA + 0x2000, 3), (AREA + 0xffe, 2), (AREA, 0), (AREA, 4)];
        assert_eq!(guest.space.write_ranges(&ranges, b"abcdefghi"), Ok(9));
        let mut found = [0; 9];
        assert_eq!(guest.space.read_ranges(&ranges, &mut found), Ok(9));
        assert_eq!(&found, b"abcdefghi");
        let mut one = [0; 4];
        assert_eq!((guest.space.read(AREA, &mut one), one), (Ok(4), *b"fghi"));
        // The first byte of all is missing, or one in between.
        let hole = AREA + 0x1000;
        assert_eq!(guest.space.read_ranges(&[(hole, 1), (AREA, 1)], &mut [0; 2]), Err(Errno::EFAULT));
        let cut = guest.space.read_ranges(&[(AREA, 2), (hole - 1, 3), (AREA, 2)], &mut [0; 7]);
        assert!(matches!(cut, Ok(2 | 3)), "{cut:?}");
        // Nothing outside of what a guest can use is touched.
        for outside in [0x1000, crate::GUEST_TOP, crate::GUEST_TOP - 1, u64::MAX - 1] {
            let result = guest.space.write_ranges(&[(AREA, 1), (outside, 2)], b"xyz");
            assert!(matches!(result, Err(Errno::EFAULT) | Ok(1)), "{outside:#x}: {result:?}");
        }
    });
}

/// A failing order gives the host's errno and changes nothing else.
pub fn order_errors_are_the_hosts(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        let hole = Order::Mprotect { addr: AREA, len: 0x1000, prot: 1 };
        assert_eq!(execute(&mut *guest.thread, hole).await, Err(Errno::ENOMEM));
        let hole =
            Order::Mremap { old_addr: AREA, old_len: 0x1000, new_addr: AREA, new_len: 0x2000, dont_unmap: false };
        assert_eq!(execute(&mut *guest.thread, hole).await, Err(Errno::EFAULT));
        let odd = Order::Madvise { addr: DATA, len: 0x1000, advice: 9999 };
        assert_eq!(execute(&mut *guest.thread, odd).await, Err(Errno::EINVAL));
        assert!(store(&mut guest, DATA, 1).await);
    });
}

/// Lengths above 4 GiB, which a filter with 32-bit compares treats in another way.
pub fn large_mappings_work(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        let (addr, len) = (0x10_0000_0000, 0x2_0000_0000);
        let source = MapSource::AnonPrivate { noreserve: true };
        guest.order(Order::Mmap { addr, len, prot: RW, source }).await;
        assert!(store(&mut guest, addr + len - 8, 5).await);
        guest.order(Order::Madvise { addr, len, advice: 15 }).await; // MADV_NOHUGEPAGE
        guest.order(Order::Mprotect { addr, len, prot: 0 }).await;
        assert_eq!(load(&mut guest, addr + len - 8).await, None);
        guest.order(Order::Munmap { addr, len }).await;
    });
}

/// Deferred orders run in sequence before the guest does.
pub fn deferred_orders_run_in_sequence(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        for i in 0..100 {
            let source = MapSource::AnonPrivate { noreserve: false };
            guest.thread.defer(Order::Mmap { addr: AREA + i * 0x2000, len: 0x1000, prot: RW, source });
        }
        guest.thread.defer(Order::Munmap { addr: AREA, len: 0x1000 });
        assert_eq!(load(&mut guest, AREA + 99 * 0x2000).await, Some(0));
        assert_eq!(load(&mut guest, AREA).await, None);
    });
}

/// A deferred order that fails stops the thread before it resumes.
pub fn failing_deferred_order_stops(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        guest.thread.defer(Order::Mprotect { addr: AREA, len: 0x1000, prot: 1 });
        guest.thread.defer(Order::Munmap { addr: DATA, len: 0x1000 });
        let event = guest.go_with(|r| r.rdi = DATA).await;
        assert!(matches!(event, crate::Event::OrderFailed(Errno::ENOMEM)), "{event:?}");
        assert_eq!(guest.thread.regs().rip, CODE);
        assert_eq!(guest.read_u64(DATA), 0, "the second order was not carried out");
        assert_eq!(load(&mut guest, DATA).await, Some(0));
    });
}

/// Private and shared file mappings show and keep what they should.
pub fn file_mappings_work(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        let file = memfd(0x3000);
        rustix::io::pwrite(&*file, &99u64.to_ne_bytes(), 0x1000).expect("pwrite");
        for (addr, prot, shared) in [(AREA, RW, false), (AREA + 0x10000, RW, true), (AREA + 0x20000, RX, false)] {
            let source = MapSource::File { fd: share(&file), offset: 0x1000, shared };
            guest.order(Order::Mmap { addr, len: 0x2000, prot, source }).await;
            assert_eq!(load(&mut guest, addr).await, Some(99));
        }
        assert!(store(&mut guest, AREA, 1).await);
        assert_eq!(load(&mut guest, AREA + 0x10000).await, Some(99));
        assert!(store(&mut guest, AREA + 0x10000, 2).await);
        assert_eq!(load(&mut guest, AREA + 0x20000).await, Some(2));
        assert_eq!(load(&mut guest, AREA).await, Some(1));
        let mut word = [0; 8];
        rustix::io::pread(&*file, &mut word, 0x1000).expect("pread");
        assert_eq!(u64::from_ne_bytes(word), 2);
        // Beyond the end of the file.
        let source = MapSource::File { fd: share(&file), offset: 0x2000, shared: true };
        guest.order(Order::Mmap { addr: AREA + 0x30000, len: 0x2000, prot: RW, source }).await;
        let fault = fault_of(guest.go_with(|r| (r.rip, r.rdi) = (CODE, AREA + 0x31000)).await);
        assert_eq!(fault.signal, 7, "SIGBUS");
        // The mapping keeps the file, the platform keeps no descriptor of its own.
        assert_eq!(Arc::strong_count(&file), 1);
    });
}

/// Two processes see each other's stores through one memfd.
pub fn shared_memory_joins_two_processes(rig: &Rig) {
    rig.run(async {
        let (mut one, mut two) = (rig.guest(LOAD_STORE).await, rig.guest(LOAD_STORE).await);
        let file = memfd(0x1000);
        for guest in [&mut one, &mut two] {
            let source = MapSource::File { fd: share(&file), offset: 0, shared: true };
            guest.order(Order::Mmap { addr: AREA, len: 0x1000, prot: RW, source }).await;
        }
        assert!(store(&mut one, AREA, 1234).await);
        assert_eq!(load(&mut two, AREA).await, Some(1234));
        assert!(store(&mut two, DATA, 5).await);
        assert_eq!(load(&mut one, DATA).await, Some(0), "private memory is not shared");
    });
}

/// Each atomic operation gives the old value; a bad address gives EFAULT and the thread lives on.
pub fn atomics_work_and_fault(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        guest.write_u64(DATA, 0xffff_ffff_0000_0010);
        let steps = [
            (Atomic32::Load, 0x10, 0x10),
            (Atomic32::Swap(0x20), 0x10, 0x20),
            (Atomic32::Add(0xffff_ffff), 0x20, 0x1f),
            (Atomic32::Or(0x100), 0x1f, 0x11f),
            (Atomic32::AndNot(0xf), 0x11f, 0x110),
            (Atomic32::Xor(0x111), 0x110, 1),
            (Atomic32::CompareExchange { old: 2, new: 9 }, 1, 1),
            (Atomic32::CompareExchange { old: 1, new: 9 }, 1, 9),
        ];
        for (op, old, new) in steps {
            assert_eq!(guest.order(Order::Atomic32 { addr: DATA, op }).await, old, "{op:?}");
            assert_eq!(guest.read_u64(DATA), 0xffff_ffff_0000_0000 | new, "{op:?}");
        }
        guest.order(Order::Mprotect { addr: DATA, len: 0x1000, prot: 1 }).await;
        for (addr, op, want) in [
            (DATA, Atomic32::Load, Ok(9)),
            (DATA, Atomic32::Add(1), Err(Errno::EFAULT)),
            (AREA, Atomic32::Load, Err(Errno::EFAULT)),
            (AREA, Atomic32::CompareExchange { old: 0, new: 0 }, Err(Errno::EFAULT)),
        ] {
            assert_eq!(execute(&mut *guest.thread, Order::Atomic32 { addr, op }).await, want, "{op:?}");
        }
        // The same in the handler of a page fault.
        let _ = fault_of(guest.go_with(|r| r.rdi = AREA).await);
        let order = Order::Atomic32 { addr: AREA, op: Atomic32::Swap(1) };
        assert_eq!(execute(&mut *guest.thread, order).await, Err(Errno::EFAULT));
        assert_eq!(load(&mut guest, DATA).await.map(|v| v & 0xff), Some(9));
    });
}

/// Copies stop at the first inaccessible byte.
pub fn copies_are_partial_at_holes(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        guest.map_anon(AREA, 0x2000, RW).await;
        let mut buf = vec![1; 0x3000];
        assert_eq!(guest.space.read(AREA + 0x800, &mut buf), Ok(0x1800));
        assert_eq!(guest.space.write(AREA + 0x1ffe, b"abcd"), Ok(2));
        assert_eq!(guest.space.read(AREA + 0x2000, &mut buf), Err(Errno::EFAULT));
        assert_eq!(guest.space.read(0, &mut buf), Err(Errno::EFAULT));
        assert_eq!(guest.space.write(CODE, b"x"), Err(Errno::EFAULT), "not writable");
        assert_eq!(guest.space.read(AREA, &mut []), Ok(0));
        assert_eq!(guest.space.read(u64::MAX - 3, &mut buf), Err(Errno::EFAULT));
        assert_eq!(guest.space.write(crate::GUEST_TOP, b"x"), Err(Errno::EFAULT), "the platform's own memory");
    });
}

/// A debugger's store reaches read-only text, privately.
pub fn forced_writes_ignore_protection(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD_STORE).await;
        assert_eq!(guest.space.write_forced(CODE, &[0xcc]), Ok(1));
        assert_eq!(fault_of(guest.go_with(|r| r.rip = CODE).await).signal, 5);
        assert_eq!(guest.space.write_forced(AREA, &[0xcc]), Err(Errno::EFAULT));
        assert_eq!(guest.space.write_forced(crate::GUEST_TOP, &[0xcc]), Err(Errno::EFAULT));
        let event = guest.go_with(|r| (r.rip, r.rax) = (CODE + 3, 4)).await;
        assert_eq!(syscall_of(&event).0, 4);
    });
}
