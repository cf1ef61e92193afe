//! Finer points of orders, copies and state, and what the host shows of a guest process.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::Errno;

use super::{CODE, DATA, RW, RX, Rig, fault_of, fork, memfd, spawn, syscall_of};
use crate::{Atomic32, Event, GUEST_BOTTOM, GUEST_TOP, MapSource, Order, execute};

/// `1: mov rax,[rdi]; syscall; jmp 1b`
const LOAD: &[u8] = &[0x48, 0x8b, 0x07, 0x0f, 0x05, 0xeb, 0xf9];
const AREA: u64 = 0x4000_0000;
const SIGSEGV: i32 = 11;

fn file(fd: &Arc<OwnedFd>, offset: u64, shared: bool) -> MapSource {
    MapSource::File { fd: Arc::clone(fd), offset, shared }
}

/// A blank process has nothing below the limit but the vDSO, and a fault at once when it runs.
pub fn blank_process_is_empty(rig: &Rig) {
    rig.run(async {
        let new = rig.platform.stock().new_process().await.expect("a blank process");
        let mut guest = super::Guest { space: new.space, thread: new.thread };
        let vdso = rig.platform.vdso();
        for addr in [0, GUEST_BOTTOM, CODE, DATA, AREA, GUEST_TOP - 1] {
            if !vdso.vdso.contains(&addr) && !vdso.vvar.contains(&addr) {
                assert_eq!(guest.space.read(addr, &mut [0]), Err(Errno::EFAULT), "{addr:#x}");
            }
        }
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", guest.space.host_pid())).expect("maps");
        for line in maps.lines() {
            let start = line.split('-').next().and_then(|s| u64::from_str_radix(s, 16).ok()).expect("an address");
            assert!(
                !(GUEST_BOTTOM..GUEST_TOP).contains(&start) || line.contains("[vvar") || line.contains("[vdso]"),
                "{line}"
            );
        }
        let fault = fault_of(guest.go_with(|r| r.rip = CODE).await);
        assert_eq!((fault.signal, fault.addr), (SIGSEGV, CODE));
    });
}

/// Orders deferred before an order that is awaited come first.
pub fn deferred_orders_come_before_awaited_ones(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        let source = MapSource::AnonPrivate { noreserve: false };
        guest.thread.defer(Order::Mmap { addr: AREA, len: 0x1000, prot: RW, source });
        guest.order(Order::Mprotect { addr: AREA, len: 0x1000, prot: 1 }).await;
        assert_eq!(guest.space.write(AREA, &[1]), Err(Errno::EFAULT));
        assert_eq!(guest.space.read(AREA, &mut [0]), Ok(1));
        // The same for a fork, which must have what was deferred.
        let source = MapSource::AnonPrivate { noreserve: false };
        guest.thread.defer(Order::Mmap { addr: AREA + 0x10000, len: 0x1000, prot: RW, source });
        assert_eq!(fork(&mut guest).await.read_u64(AREA + 0x10000), 0);
        let source = MapSource::AnonPrivate { noreserve: false };
        guest.thread.defer(Order::Mmap { addr: AREA + 0x20000, len: 0x1000, prot: RW, source });
        assert_eq!(spawn(&mut guest).await.read_u64(AREA + 0x20000), 0);
    });
}

/// mremap(2) in place and with MREMAP_DONTUNMAP; memory that a copy is not to have.
pub fn remapping_and_advice(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        guest.map_anon(AREA, 0x2000, RW).await;
        guest.write_u64(AREA, 1);
        guest
            .order(Order::Mremap {
                old_addr: AREA,
                old_len: 0x2000,
                new_addr: AREA,
                new_len: 0x8000,
                dont_unmap: false,
            })
            .await;
        guest.write_u64(AREA + 0x7ff8, 8);
        let to = AREA + 0x10_0000;
        let order = Order::Mremap { old_addr: AREA, old_len: 0x1000, new_addr: to, new_len: 0x1000, dont_unmap: true };
        assert_eq!(guest.order(order).await, to);
        assert_eq!((guest.read_u64(to), guest.read_u64(AREA), guest.read_u64(AREA + 0x7ff8)), (1, 0, 8));
        guest.order(Order::Madvise { addr: to, len: 0x1000, advice: 10 }).await; // MADV_DONTFORK
        let copy = fork(&mut guest).await;
        assert_eq!(copy.space.read(to, &mut [0]), Err(Errno::EFAULT));
        assert_eq!(copy.read_u64(AREA + 0x7ff8), 8);
    });
}

/// Program text from a file; files that cannot be mapped; more mappings than a process may have descriptors.
pub fn files_as_text_and_in_number(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0x90]).await;
        let text = memfd(0x2000);
        rustix::io::pwrite(&*text, LOAD, 0x1000).expect("pwrite");
        guest.order(Order::Mmap { addr: AREA, len: 0x1000, prot: RX, source: file(&text, 0x1000, false) }).await;
        guest.write_u64(DATA, 12);
        let event = guest.go_with(|r| (r.rip, r.rdi) = (AREA, DATA)).await;
        assert_eq!(syscall_of(&event).0, 12);
        let directory: Arc<OwnedFd> = Arc::new(File::open("/").expect("open /").into());
        let order = Order::Mmap { addr: AREA, len: 0x1000, prot: 1, source: file(&directory, 0, false) };
        assert_eq!(execute(&mut *guest.thread, order).await, Err(Errno::ENODEV));
        let read_only: Arc<OwnedFd> = Arc::new(File::open("/proc/self/exe").expect("open").into());
        let order = Order::Mmap { addr: AREA, len: 0x1000, prot: RW, source: file(&read_only, 0, true) };
        assert_eq!(execute(&mut *guest.thread, order).await, Err(Errno::EACCES));
        for i in 0..200 {
            let source = file(&text, 0x1000, false);
            guest.order(Order::Mmap { addr: AREA + i * 0x1000, len: 0x1000, prot: 1, source }).await;
        }
        assert_eq!(guest.read_u64(AREA + 199 * 0x1000) as u8, LOAD[0]);
    });
}

/// What the processor lets a program read, the sentry can read: memory mapped for writing or execution only.
pub fn writable_memory_is_readable(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        guest.map_anon(AREA, 0x2000, 2).await;
        guest.write_u64(AREA, 3);
        assert_eq!(guest.read_u64(AREA), 3);
        guest.order(Order::Mprotect { addr: AREA, len: 0x1000, prot: 4 }).await;
        assert_eq!(guest.read_u64(AREA), 3);
        guest.order(Order::Mprotect { addr: AREA, len: 0x1000, prot: 0 }).await;
        assert_eq!(guest.space.read(AREA, &mut [0]), Err(Errno::EFAULT));
    });
}

/// Copies of many pages, and counts that are exact in the middle of an area.
pub fn large_copies_are_exact(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        let len = 8 << 20;
        guest.map_anon(AREA, len as u64, RW).await;
        let out: Vec<u8> = (0..len).map(|i| (i / 3) as u8).collect();
        guest.write(AREA, &out);
        let mut back = vec![0; len];
        assert_eq!(guest.space.read(AREA, &mut back), Ok(len));
        assert!(back == out);
        guest.order(Order::Mprotect { addr: AREA + 0x2000, len: 0x1000, prot: 0 }).await;
        guest.order(Order::Mprotect { addr: AREA + 0x1000, len: 0x1000, prot: 1 }).await;
        assert_eq!(guest.space.read(AREA + 1, &mut back), Ok(0x1fff));
        assert_eq!(guest.space.read(AREA + 0x1ffd, &mut back[..10]), Ok(3));
        assert_eq!(guest.space.read(AREA + 0x2ffd, &mut back[..10]), Err(Errno::EFAULT));
        assert_eq!(guest.space.write(AREA + 1, &out), Ok(0xfff));
        assert_eq!(guest.space.write(AREA + 0x1000, &out), Err(Errno::EFAULT));
    });
}

/// A debugger's store is private to the process, also where a copy shares the page; odd lengths are exact.
pub fn forced_writes_are_private(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0xcc, 0x0f, 0x05]).await;
        let mut copy = fork(&mut guest).await;
        assert_eq!(guest.space.write_forced(CODE, &[0x90]), Ok(1));
        assert_eq!(syscall_of(&guest.go_with(|r| r.rax = 6).await).0, 6);
        assert_eq!(fault_of(copy.go().await).signal, 5);
        let odd: Vec<u8> = (1..32).collect();
        assert_eq!(guest.space.write_forced(DATA + 3, &odd), Ok(31));
        let mut back = [0xff; 33];
        assert_eq!(guest.space.read(DATA + 2, &mut back), Ok(33));
        assert_eq!((back[0], &back[1..32], back[32]), (0, &odd[..], 0));
        guest.map_anon(AREA, 0x1000, RW).await;
        assert_eq!(guest.space.write_forced(AREA + 0xff9, &odd), Ok(7), "up to the end of the mapping");
    });
    // Also while every thread of the process runs.
    let mut guest = rig.run(rig.guest(&[0xeb, 0xfe])); // jmp .
    let space = Arc::clone(&guest.space);
    let writer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        space.write_forced(CODE, &[0x0f, 0x05])
    });
    let event = rig.run(async {
        loop {
            match guest.go().await {
                Event::Interrupted => {}
                event => break event,
            }
        }
    });
    let _ = syscall_of(&event);
    assert_eq!(writer.join().expect("writer"), Ok(2));
}

/// Copies and siblings begin with their maker's extended state, one set since its last switch included.
pub fn extended_state_is_inherited(rig: &Rig) {
    rig.run(async {
        // movdqu xmm7,[rdi]; syscall; movdqu [rsi],xmm7; syscall
        let code = [0xf3, 0x0f, 0x6f, 0x3f, 0x0f, 0x05, 0xf3, 0x0f, 0x7f, 0x3e, 0x0f, 0x05];
        let mut guest = rig.guest(&code).await;
        guest.write_u64(DATA, 0x1122_3344_5566_7788);
        let _ = syscall_of(&guest.go_with(|r| (r.rdi, r.rsi) = (DATA, DATA + 64)).await);
        let mut image = guest.thread.fpu().expect("fpu");
        for value in [0x88, 0x99] {
            image[272] = value; // xmm7
            guest.thread.set_fpu(&image).expect("set_fpu");
            for mut heir in [fork(&mut guest).await, spawn(&mut guest).await] {
                assert_eq!(heir.thread.fpu().expect("fpu")[272], value);
                let _ = syscall_of(&heir.go().await);
                assert_eq!(heir.read_u64(DATA + 64), 0x1122_3344_5566_7700 | u64::from(value));
            }
        }
        // The legacy part alone is an image too.
        assert_eq!(guest.thread.set_fpu(&[]), Err(Errno::EINVAL));
        assert_eq!(guest.thread.set_fpu(&image[..100]), Err(Errno::EINVAL));
    });
}

/// rseq(2) is the thread's own: the host writes to the area and refuses what rseq(2) refuses.
pub fn rseq_area_is_kept(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        guest.write_u64(DATA, u64::MAX);
        let register = |flags| Order::Rseq { addr: DATA, len: 32, flags, sig: 0x5305_3053 };
        if execute(&mut *guest.thread, register(0)).await == Err(Errno::ENOSYS) {
            return; // the contract allows that
        }
        assert_eq!(execute(&mut *guest.thread, register(0)).await, Err(Errno::EBUSY));
        let _ = syscall_of(&guest.go_with(|r| r.rdi = DATA + 64).await);
        assert!(guest.read_u64(DATA) & 0xffff_ffff < 4096, "cpu_id_start");
        guest.order(register(1)).await;
        assert_eq!(execute(&mut *guest.thread, register(1)).await, Err(Errno::EINVAL));
        let _ = syscall_of(&guest.go().await);
    });
}

/// The name given shows on the host.
pub fn name_shows_on_the_host(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(LOAD).await;
        guest.order(Order::SetName(*b"conform\0........")).await;
        let comm = std::fs::read_to_string(format!("/proc/{}/comm", guest.space.host_pid())).expect("comm");
        assert_eq!(comm, "conform\n");
    });
}

/// Two threads hammer one word by orders and by instructions: no addition is lost.
pub fn atomics_are_atomic(rig: &Rig) {
    rig.run(async {
        // 1: lock inc dword [rdi]; dec ecx; jnz 1b; syscall
        let mut guest = rig.guest(&[0xf0, 0xff, 0x07, 0xff, 0xc9, 0x75, 0xf9, 0x0f, 0x05]).await;
        let mut side = spawn(&mut guest).await;
        let mut interrupted = 0u64;
        let counting = async {
            let mut event = side.go_with(|r| (r.rdi, r.rcx) = (DATA, 3_000_000)).await;
            while matches!(event, Event::Interrupted) {
                interrupted += 1;
                event = side.go().await;
            }
            syscall_of(&event)
        };
        let ordering = async {
            for _ in 0..200 {
                guest.order(Order::Atomic32 { addr: DATA, op: Atomic32::Add(1) }).await;
                guest.order(Order::Atomic32 { addr: DATA, op: Atomic32::Xor(1 << 31) }).await;
            }
        };
        let _ = super::both(counting, ordering).await;
        assert_eq!(guest.read_u64(DATA), 3_000_200);
    });
}

/// Null selectors of any privilege level in ds and es, which user code can load, disturb nothing.
pub fn odd_selectors_work(rig: &Rig) {
    rig.run(async {
        // mov eax,1; mov ds,eax; mov es,eax; 1: syscall; jmp 1b
        let mut guest = rig.guest(&[0xb8, 1, 0, 0, 0, 0x8e, 0xd8, 0x8e, 0xc0, 0x0f, 0x05, 0xeb, 0xfc]).await;
        assert_eq!(syscall_of(&guest.go().await).0, 1);
        guest.map_anon(AREA, 0x1000, RW).await;
        for nr in 2..10 {
            guest.thread.set_ret(nr);
            assert_eq!(syscall_of(&guest.go().await).0, nr);
        }
        let mut copy = fork(&mut guest).await;
        copy.thread.set_ret(77);
        assert_eq!(syscall_of(&copy.go().await).0, 77);
    });
}
