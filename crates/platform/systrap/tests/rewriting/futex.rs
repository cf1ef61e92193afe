//! Calls of futex(2) that the host carries out: made by the stub itself, and by order.

use std::time::Duration;

use moat_abi::{Errno, nr};
use moat_host::clock::monotonic_ns;
use moat_platform::conformance::{CODE, DATA, Guest, STACK, syscall_of};
use moat_platform::{Answers, Event, HostFutex, host_futex};

use super::{JUMP, KickStorm, kick_after, raw, rig};

/// `mov eax, 202; syscall; inc rbx; jmp` back.
const FUTEXES: [u8; 12] = [0xb8, 202, 0, 0, 0, 0x0f, 0x05, 0x48, 0xff, 0xc3, 0xeb, 0xf4];
const BEHIND: u64 = CODE + 7;
const WAIT: u64 = 0x80;
const WAKE: u64 = 0x81;
const WAIT_UNTIL: u64 = 0x89;

/// Makes such calls, from a site that traps or from one that has been rewritten.
async fn guest_that(rig: &moat_platform::conformance::Rig, op: u64, rewritten: bool) -> Guest {
    let mut guest = rig.guest(&FUTEXES).await;
    let mut regs = guest.thread.regs();
    (regs.rdi, regs.rsi, regs.rdx, regs.r10) = (DATA, op, 0, 0);
    (regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15) = (0, 12, 13, 14, 15, 16);
    guest.thread.set_regs(&regs);
    for _ in 0..1000 {
        assert_eq!(syscall_of(&guest.go().await).0, 202);
        guest.thread.set_ret(0);
        if !rewritten {
            break;
        }
        if let Some(site) = guest.thread.hot_site() {
            guest.space.rewrite(site);
        }
        if raw(&guest)[..3] == JUMP {
            // Its first call finds no area, and the next one does.
            assert_eq!(syscall_of(&guest.go().await).0, 202);
            guest.thread.set_ret(0);
            break;
        }
    }
    assert_eq!(raw(&guest)[..3] == JUMP, rewritten);
    guest.thread.publish(&Answers { host_calls: true, ..Answers::default() });
    guest
}

fn check_kept(guest: &mut Guest) {
    let r = guest.thread.regs();
    assert_eq!((r.rsp, r.rbp, r.r12, r.r13, r.r14, r.r15), (STACK, 12, 13, 14, 15, 16));
    assert_eq!((r.rdi, r.gs_base), (DATA, 0));
}

#[test]
fn kicks_find_the_application_before_or_after_a_call() {
    let rig = rig();
    rig.run(async {
        for rewritten in [false, true] {
            let mut guest = guest_that(&rig, WAKE, rewritten).await;
            let (mut count, mut unmade) = (0, 0);
            for round in 0..600 {
                let kick = kick_after(&guest, Duration::from_micros(round % 50));
                let event = guest.go().await;
                kick.join().expect("kick");
                check_kept(&mut guest);
                let mut r = guest.thread.regs();
                assert!(r.rbx >= count, "{} after {count}", r.rbx);
                count = r.rbx;
                match event {
                    Event::Interrupted => assert!(r.rip.wrapping_sub(CODE) < 12, "interrupted at {:#x}", r.rip),
                    // Not made, or by a restart, whose address is that of the instruction: made by order.
                    Event::Unfinished { nr, .. } | Event::Syscall { nr, .. } => {
                        let args = r.syscall_args();
                        assert_eq!((nr, args[0], args[1], r.rip, r.rax), (202, DATA, WAKE, BEHIND, 202));
                        unmade += 1;
                        if matches!(event, Event::Unfinished { .. }) {
                            r.rip -= 2;
                            guest.thread.set_regs(&r);
                        } else {
                            let call = HostFutex { nr: nr::FUTEX, args, until: None };
                            let result = loop {
                                match host_futex(&mut *guest.thread, &call).await {
                                    Err(Errno::EINTR) => {}
                                    result => break result,
                                }
                            };
                            assert_eq!(result, Ok(0));
                            guest.thread.set_ret(0);
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(count > 600 && unmade < 600, "{count} calls, {unmade} unmade");
        }
    });
}

#[test]
fn a_kick_ends_a_wait_and_says_since_when() {
    let rig = rig();
    rig.run(async {
        for rewritten in [false, true] {
            let mut guest = guest_that(&rig, WAIT, rewritten).await;
            let mut last = None;
            for round in 0..30 {
                let before = monotonic_ns();
                let event = loop {
                    let kick = kick_after(&guest, Duration::from_millis(2));
                    let event = guest.go().await;
                    kick.join().expect("kick");
                    // One that has come before the call.
                    if !matches!(event, Event::Interrupted) {
                        break event;
                    }
                };
                let Event::Unfinished { nr, began_ns } = event else { panic!("{event:?}") };
                let r = guest.thread.regs();
                assert_eq!((nr, r.rdi, r.rsi, r.rip), (202, DATA, WAIT, BEHIND));
                assert!(began_ns <= monotonic_ns());
                // The counter's rate is known the better the older the platform is.
                assert!(round < 20 || began_ns + 1_000_000 > before, "{before} {began_ns}");
                check_kept(&mut guest);
                let count = guest.thread.regs().rbx;
                assert!(last.is_none_or(|last| count == last + 1), "{count} after {last:?}");
                last = Some(count);
                guest.thread.set_ret(Errno::EINTR.to_ret());
            }
        }
    });
}

#[test]
fn an_order_is_ended_by_a_kick_at_any_time() {
    let rig = rig();
    rig.run(async {
        for rewritten in [false, true] {
            let mut guest = guest_that(&rig, WAKE, rewritten).await;
            guest.thread.publish(&Answers::default());
            let storm = KickStorm::begin(&guest);
            let (mut ended, mut over) = (0, 0);
            while ended < 200 {
                match guest.go().await {
                    Event::Syscall { nr, args } => {
                        assert_eq!((nr, args[1]), (202, WAKE));
                        // For ever, and for a moment.
                        let now = monotonic_ns();
                        let until = (ended % 4 == 0).then_some([now / 1_000_000_000, now % 1_000_000_000]);
                        let args = [DATA, WAIT_UNTIL, 0, 0, 0, u64::from(u32::MAX)];
                        let result = host_futex(&mut *guest.thread, &HostFutex { nr: nr::FUTEX, args, until }).await;
                        match result {
                            Err(Errno::EINTR) => ended += 1,
                            Err(Errno::ETIMEDOUT) => (ended, over) = (ended + 1, over + 1),
                            other => panic!("{other:?}"),
                        }
                        guest.thread.set_ret(0);
                        check_kept(&mut guest);
                    }
                    Event::Interrupted => check_kept(&mut guest),
                    other => panic!("{other:?}"),
                }
            }
            storm.end();
            assert!(over > 0 && over < 200, "{over}");
        }
    });
}
