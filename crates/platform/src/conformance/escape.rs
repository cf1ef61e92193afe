//! Hostile guests: whatever they try ends in an event, an error or their own death.

use std::time::{Duration, Instant};

use moat_abi::Errno;

use super::{CODE, DATA, Rig, syscall_of};
use crate::{Event, GUEST_TOP, MapSource, Order, execute};

/// Calls that would be harmful or telling if they reached the host, with arguments that would make them work.
///
/// The path and the buffer at [`DATA`] are valid in the guest.
const CALLS: &[(u64, [u64; 6])] = &[
    (0, [0, DATA, 8, 0, 0, 0]),                     // read
    (1, [2, DATA, 8, 0, 0, 0]),                     // write
    (2, [DATA, 0, 0, 0, 0, 0]),                     // open
    (3, [0, 0, 0, 0, 0, 0]),                        // close
    (9, [0, 0x1000, 7, 0x22, u64::MAX, 0]),         // mmap
    (9, [GUEST_TOP, 0x1000, 3, 0x32, u64::MAX, 0]), // mmap over the platform
    (10, [CODE, 0x1000, 7, 0, 0, 0]),               // mprotect
    (11, [GUEST_TOP, 0x1_ffff_0000, 0, 0, 0, 0]),   // munmap of the platform
    (13, [11, 0, 0, 8, 0, 0]),                      // rt_sigaction
    (14, [0, DATA, 0, 8, 0, 0]),                    // rt_sigprocmask
    (15, [0; 6]),                                   // rt_sigreturn
    (16, [0, 0x5401, DATA, 0, 0, 0]),               // ioctl
    (24, [0; 6]),                                   // sched_yield
    (25, [CODE, 0x1000, 0x1000, 1, 0, 0]),          // mremap
    (28, [GUEST_TOP, 0x1000, 9, 0, 0, 0]),          // madvise
    (39, [0; 6]),                                   // getpid
    (41, [1, 1, 0, 0, 0, 0]),                       // socket
    (56, [17, 0, 0, 0, 0, 0]),                      // clone
    (57, [0; 6]),                                   // fork
    (58, [0; 6]),                                   // vfork
    (59, [DATA, 0, 0, 0, 0, 0]),                    // execve
    (60, [0; 6]),                                   // exit
    (62, [1, 9, 0, 0, 0, 0]),                       // kill
    (101, [16, 1, 0, 0, 0, 0]),                     // ptrace
    (157, [38, 1, 0, 0, 0, 0]),                     // prctl
    (158, [0x1002, DATA, 0, 0, 0, 0]),              // arch_prctl
    (200, [1, 9, 0, 0, 0, 0]),                      // tkill
    (202, [DATA, 1, 1, 0, 0, 0]),                   // futex
    (231, [0; 6]),                                  // exit_group
    (234, [1, 1, 9, 0, 0, 0]),                      // tgkill
    (257, [0xffff_ff9c, DATA, 0, 0, 0, 0]),         // openat
    (272, [0x1000_0000, 0, 0, 0, 0, 0]),            // unshare
    (310, [1, DATA, 1, DATA, 1, 0]),                // process_vm_readv
    (317, [1, 0, 0, 0, 0, 0]),                      // seccomp
    (334, [DATA, 32, 0, 0, 0, 0]),                  // rseq
    (425, [1, DATA, 0, 0, 0, 0]),                   // io_uring_setup
    (435, [DATA, 88, 0, 0, 0, 0]),                  // clone3
    (436, [0, u64::MAX, 0, 0, 0, 0]),               // close_range
    (438, [0, 0, 0, 0, 0, 0]),                      // pidfd_getfd
    (0x004d_4f41, [0; 6]),                          // nobody's
    (u64::MAX, [0; 6]),
];

/// Every call made by application code stops at the sentry, which sees the call as it was made.
pub fn raw_host_syscalls_stay_inside(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0x0f, 0x05, 0xeb, 0xfc]).await;
        guest.write(DATA, b"/dev/null\0");
        for (nr, args) in CALLS {
            let event = guest
                .go_with(|r| {
                    (r.rip, r.rax) = (CODE, *nr);
                    [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = *args;
                })
                .await;
            assert_eq!(syscall_of(&event), (*nr, *args));
            guest.thread.set_ret(0);
        }
    });
}

/// The same through `int 0x80`, where Linux would look at another table.
pub fn arguments_never_reach_the_host(rig: &Rig) {
    rig.run(async {
        let mut guest = rig.guest(&[0xcd, 0x80, 0x0f, 0x05]).await;
        for nr in [1, 2, 5, 11, 20, 26, 37, 120, 243, 0xffff_ffff] {
            let event = guest.go_with(|r| (r.rip, r.rax, r.rbx) = (CODE, nr, DATA)).await;
            assert!(!matches!(event, Event::Syscall { .. } | Event::Died), "int 0x80 with {nr}: {event:?}");
        }
        for nr in [0x4000_0000u64, 0x4000_0209, 0xffff_ffff_4000_0001] {
            let event = guest.go_with(|r| (r.rip, r.rax) = (CODE + 2, nr)).await;
            assert_eq!(syscall_of(&event).0, nr);
        }
    });
}

/// Reads, writes and jumps into the platform's part of the address space do no harm to anyone else.
pub fn memory_above_the_guest_is_out_of_reach(rig: &Rig) {
    rig.run(async {
        // mov rax,[rdi]; syscall; mov [rdi],rsi; syscall; jmp *rdi
        let code = [0x48, 0x8b, 0x07, 0x0f, 0x05, 0x48, 0x89, 0x37, 0x0f, 0x05, 0xff, 0xe7];
        let mut witness = rig.guest(&[0x0f, 0x05]).await;
        for offset in 0..12 {
            for addr in [GUEST_TOP, 0x7fff_0000_0000, 0x7fff_1000_0000, 0x7fff_1000_1000, 0x7fff_ffff_e000] {
                let mut guest = rig.guest(&code).await;
                let event = guest.go_with(|r| (r.rip, r.rdi, r.rsi) = (CODE + [0, 5, 10][offset % 3], addr, 0)).await;
                assert!(!matches!(event, Event::OrderFailed(_)), "{addr:#x}: {event:?}");
            }
        }
        assert_eq!(syscall_of(&witness.go_with(|r| r.rax = 1).await).0, 1);
    });
}

/// Jumps to each of `sites` (`syscall` instructions of the platform's own text) with every call above.
///
/// Not part of the list that every platform runs: the platform says where its sites are.
pub fn syscall_sites_are_useless(rig: &Rig, sites: &[u64]) {
    rig.run(async {
        let mut witness = rig.guest(&[0x0f, 0x05]).await;
        for (site, (nr, args)) in sites.iter().flat_map(|site| CALLS.iter().map(move |call| (site, call))) {
            let mut guest = rig.guest(&[0xff, 0xe3]).await; // jmp *rbx
            let kicker = guest.thread.kicker();
            let mut regs = guest.thread.regs();
            [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9] = *args;
            (regs.rax, regs.rbx) = (*nr, *site);
            guest.thread.set_regs(&regs);
            // The guest may run on in the platform's text and come to nothing: a kick or a kill ends that.
            let limit = Instant::now() + Duration::from_millis(20);
            let event = std::future::poll_fn(|cx| {
                if Instant::now() > limit {
                    kicker.kick();
                    guest.space.kill();
                }
                cx.waker().wake_by_ref();
                guest.thread.poll_switch(cx)
            })
            .await;
            assert!(!matches!(event, Event::OrderFailed(_)), "{nr} at {site:#x}: {event:?}");
        }
        assert_eq!(syscall_of(&witness.go_with(|r| r.rax = 1).await).0, 1);
    });
}

/// A critical section that spans the platform's own code cannot divert a thread that carries out an order.
///
/// The host moves a thread that it finds in a section of rseq(2) to an address that the guest chose.
pub fn restartable_sequences_do_not_divert_orders(rig: &Rig) {
    const SIGNATURE: u32 = 0x5305_3053;
    // nop * 8; 8: mov eax,1000; syscall; 15: (the signature) ...; 32: 1: jmp 1b
    let mut code = vec![0x90; 8];
    code.extend_from_slice(&[0xb8, 0xe8, 0x03, 0, 0, 0x0f, 0x05, 0xeb, 0xf7]);
    code.resize(28, 0x90);
    code.extend_from_slice(&SIGNATURE.to_ne_bytes());
    code.extend_from_slice(&[0xeb, 0xfe]);
    rig.run(async {
        let mut guest = rig.guest(&code).await;
        let order = Order::Rseq { addr: DATA, len: 32, flags: 0, sig: SIGNATURE };
        if execute(&mut *guest.thread, order).await == Err(Errno::ENOSYS) {
            return; // the contract allows that
        }
        // struct rseq_cs { version, flags, start_ip, post_commit_offset, abort_ip }
        let section = DATA + 0x100;
        guest.write_u64(section, 0);
        guest.write_u64(section + 8, GUEST_TOP);
        guest.write_u64(section + 16, 0x7fff_ffff_f000 - GUEST_TOP);
        guest.write_u64(section + 24, CODE + 32);
        for _ in 0..50 {
            // The guest's own death is an end that the contract allows: once it shows, it stays.
            if guest.space.write(DATA + 8, &section.to_ne_bytes()).is_err() {
                break;
            }
            let event = guest.go_with(|r| r.rip = CODE).await;
            if matches!(event, Event::Died) {
                break;
            }
            assert_eq!(syscall_of(&event).0, 1000);
            let _ = guest.space.write(DATA + 8, &section.to_ne_bytes());
            let source = MapSource::AnonPrivate { noreserve: false };
            let order = Order::Mmap { addr: 0x4000_0000, len: 0x1000, prot: super::RW, source };
            match execute(&mut *guest.thread, order).await {
                Ok(_) => guest.write_u64(0x4000_0000, 1),
                Err(errno) => assert_eq!(errno, Errno::ESRCH),
            }
        }
        // The platform goes on.
        let mut next = rig.guest(&code).await;
        assert_eq!(syscall_of(&next.go().await).0, 1000);
    });
}
