//! Call sites that are rewritten: nothing that application code or the sentry can see differs but the time it takes.

mod answers;
mod beside;
mod futex;
mod kicks;
mod parcel;
mod short;
mod stores;

use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moat_platform::conformance::{CODE, DATA, Guest, RW, Rig, STACK, fault_of, fork, spawn, syscall_of};
use moat_platform::{Event, Order, Regs, whole};
use moat_platform_systrap::Systrap;

use kicks::{KickStorm, kick_after};

/// `mov eax, 110; syscall; inc rdi; mov rsi, rax; jmp` back: each call has the count in rdi and the last result in rsi.
const COUNTS: [u8; 15] = [0xb8, 110, 0, 0, 0, 0x0f, 0x05, 0x48, 0xff, 0xc7, 0x48, 0x89, 0xc6, 0xeb, 0xf1];
/// Behind its `syscall`.
const BEHIND: u64 = CODE + 7;
/// `mov r9, [rsp + 8]; syscall; jmp` back, as in glibc's `syscall()`.
const GENERIC: [u8; 9] = [0x4c, 0x8b, 0x4c, 0x24, 0x08, 0x0f, 0x05, 0xeb, 0xf7];
const JUMP: [u8; 3] = [0xff, 0x24, 0x25];
const CF: u64 = 1;
const TF: u64 = 1 << 8;
const DF: u64 = 1 << 10;

fn rig() -> Rig {
    Rig::new(Arc::new(Systrap::new().expect("systrap starts")))
}

/// What is really in the guest's memory.
fn raw(guest: &Guest) -> [u8; 7] {
    let mut bytes = [0; 7];
    let memory = std::fs::File::open(format!("/proc/{}/mem", guest.space.host_pid())).expect("memory");
    memory.read_exact_at(&mut bytes, CODE).expect("text");
    bytes
}

fn is_rewritten(guest: &Guest) -> bool {
    raw(guest)[..3] == JUMP
}

/// The next call, which is number `count` and has the result of the one before.
async fn call(guest: &mut Guest, count: u64) {
    loop {
        match guest.go().await {
            Event::Interrupted => check_interrupted(&guest.thread.regs(), count),
            Event::Syscall { nr, args } => {
                assert_eq!((nr, args[0], args[1]), (110, count, count.wrapping_mul(3)), "call {count}");
                assert_eq!(guest.thread.regs().rip, BEHIND);
                guest.thread.set_ret((count + 1).wrapping_mul(3));
                return;
            }
            other => panic!("{other:?} at call {count}"),
        }
    }
}

/// A kick shows the application before or after a call, never inside, and never twice.
fn check_interrupted(regs: &Regs, count: u64) {
    let at = regs.rip.wrapping_sub(CODE);
    assert!(at < COUNTS.len() as u64, "interrupted at {:#x}", regs.rip);
    let before = regs.rdi == count;
    assert!(before || regs.rdi + 1 == count, "{} at call {count}, at {at}", regs.rdi);
    assert_eq!((regs.rsp, regs.rbx, regs.rbp, regs.gs_base), (STACK, 11, 12, 0));
}

/// A guest that has called so often that its site is rewritten; the number of its next call.
async fn rewritten(rig: &Rig) -> (Guest, u64) {
    let mut guest = rig.guest(&COUNTS).await;
    let mut regs = guest.thread.regs();
    (regs.rbx, regs.rbp, regs.r12, regs.r13, regs.r14, regs.r15) = (11, 12, 13, 14, 15, 16);
    regs.rflags |= DF | CF;
    guest.thread.set_regs(&regs);
    for count in 0..1000 {
        call(&mut guest, count).await;
        if let Some(site) = guest.thread.hot_site() {
            assert_eq!(site, BEHIND);
            guest.space.rewrite(site);
        }
        if is_rewritten(&guest) {
            // Its first call finds no area, and the next one does.
            call(&mut guest, count + 1).await;
            return (guest, count + 2);
        }
    }
    panic!("never rewritten");
}

/// Whether the last call came without a trap.
fn untrapped(guest: &mut Guest) -> bool {
    guest.thread.fpu().is_err()
}

#[test]
fn registers_flags_and_memory_are_kept() {
    let rig = rig();
    rig.run(async {
        let (mut guest, first) = rewritten(&rig).await;
        let red_zone = [0x5a; 128];
        guest.write(STACK - 128, &red_zone);
        for count in first..first + 500 {
            call(&mut guest, count).await;
            assert!(untrapped(&mut guest));
            let r = guest.thread.regs();
            assert_eq!((r.rsp, r.rbx, r.rbp, r.r12, r.r13, r.r14, r.r15), (STACK, 11, 12, 13, 14, 15, 16));
            assert_eq!((r.rcx, r.r11, r.gs_base, r.orig_rax), (BEHIND, r.rflags, 0, 110));
            assert_eq!(r.rflags & DF, DF, "{:#x}", r.rflags);
        }
        let mut found = [0; 128];
        guest.space.read(STACK - 128, &mut found).expect("stack");
        assert_eq!(found, red_zone, "below the stack pointer");
    });
}

#[test]
fn extended_state_is_kept_and_can_be_had() {
    let rig = rig();
    rig.run(async {
        let (mut guest, mut count) = rewritten(&rig).await;
        call(&mut guest, count).await;
        assert!(untrapped(&mut guest));
        whole(&mut *guest.thread).await.expect("whole");
        let mut image = guest.thread.fpu().expect("the extended state");
        // xmm3, and the bit that says that it is there.
        image[160 + 48..160 + 64].copy_from_slice(&[0xa7; 16]);
        image[512] |= 2;
        guest.thread.set_fpu(&image).expect("set");
        for _ in 0..100 {
            count += 1;
            call(&mut guest, count).await;
        }
        assert!(untrapped(&mut guest));
        whole(&mut *guest.thread).await.expect("whole");
        assert_eq!(guest.thread.fpu().expect("state")[160 + 48..160 + 64], [0xa7; 16]);
        // Other registers than rax can be set after a call as well.
        let event = guest.go_with(|r| (r.rdi, r.rax) = (77, 5)).await;
        assert_eq!(
            syscall_of(&event),
            (110, {
                let mut a = event_args(&event);
                (a[0], a[1]) = (78, 5);
                a
            })
        );
        guest.thread.set_ret(0);
    });
}

fn event_args(event: &Event) -> [u64; 6] {
    syscall_of(event).1
}

#[test]
fn readers_see_the_original() {
    let rig = rig();
    rig.run(async {
        let (mut guest, count) = rewritten(&rig).await;
        assert!(is_rewritten(&guest));
        for (from, len) in [(0, 15), (0, 7), (0, 1), (3, 2), (5, 2), (6, 9), (6, 1), (7, 8)] {
            let mut found = vec![0; len];
            guest.space.read(CODE + from as u64, &mut found).expect("text");
            assert_eq!(found, COUNTS[from..from + len], "{len} bytes from {from}");
        }
        // A breakpoint in the middle of the site: all of it is as it was, but for that.
        guest.space.write_forced(CODE + 5, &[0xcc]).expect("breakpoint");
        assert_eq!(raw(&guest), [0xb8, 110, 0, 0, 0, 0xcc, 0x05]);
        let trap = fault_of(guest.go().await);
        assert_eq!((trap.signal, guest.thread.regs().rip, guest.thread.regs().rax), (5, CODE + 6, 110));
        guest.space.write_forced(CODE + 5, &[0x0f]).expect("breakpoint taken away");
        let event = guest.go_with(|r| r.rip = CODE).await;
        assert_eq!(event_args(&event)[0], count);
    });
}

#[test]
fn kept_text_stays_as_it_is() {
    let rig = rig();
    rig.run(async {
        let (mut guest, first) = rewritten(&rig).await;
        guest.space.keep_text();
        assert_eq!(raw(&guest), COUNTS[..7]);
        for count in first..first + 200 {
            call(&mut guest, count).await;
            if let Some(site) = guest.thread.hot_site() {
                guest.space.rewrite(site);
            }
        }
        assert_eq!(raw(&guest), COUNTS[..7]);
        let child = fork(&mut guest).await;
        child.space.rewrite(BEHIND);
        assert_eq!(raw(&child), COUNTS[..7]);
    });
}

#[test]
fn text_that_becomes_writable_is_put_back() {
    let rig = rig();
    rig.run(async {
        let (mut guest, count) = rewritten(&rig).await;
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: RW }).await;
        assert_eq!(raw(&guest), COUNTS[..7]);
        guest.write(CODE + 1, &[39]);
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: 5 }).await;
        let event = guest.go().await;
        assert_eq!((syscall_of(&event).0, event_args(&event)[0]), (39, count));
        // The new site is another one.
        guest.space.rewrite(BEHIND);
        assert!(is_rewritten(&guest));
        for _ in 0..3 {
            guest.thread.set_ret(0);
            assert_eq!(syscall_of(&guest.go().await).0, 39);
        }
        assert!(untrapped(&mut guest));
    });
}

#[test]
fn orders_forks_and_threads_follow_a_call() {
    let rig = rig();
    rig.run(async {
        let (mut guest, mut count) = rewritten(&rig).await;
        for round in 0..20u64 {
            call(&mut guest, count).await;
            count += 1;
            let fresh = DATA + 0x100_0000 + round * 0x1000;
            guest.map_anon(fresh, 0x1000, RW).await;
            guest.write_u64(fresh, round);
            let mut side = spawn(&mut guest).await;
            let mut child = fork(&mut guest).await;
            for n in 0..40 {
                for other in [&mut side, &mut child] {
                    call(other, count + n).await;
                    assert!(n < 1 || untrapped(other), "call {n}");
                }
            }
            assert_eq!(child.read_u64(fresh), round);
            let mut grandchild = fork(&mut child).await;
            call(&mut grandchild, count + 40).await;
            // Ends in the middle of a call.
            drop((side, child));
            call(&mut grandchild, count + 41).await;
        }
        call(&mut guest, count).await;
    });
}

#[test]
fn kicks_show_calls_before_or_after() {
    let rig = rig();
    rig.run(async {
        let (mut guest, mut count) = rewritten(&rig).await;
        let kicks = KickStorm::begin(&guest);
        for _ in 0..30_000 {
            call(&mut guest, count).await;
            count += 1;
        }
        kicks.end();
        // None is lost: a thread that computes after its call is interrupted.
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: RW }).await;
        guest.write(CODE + 7, &[0xeb, 0xfe]);
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: 5 }).await;
        guest.space.rewrite(BEHIND);
        let event = guest.go_with(|r| r.rip = CODE).await;
        assert!(matches!(event, Event::Syscall { .. } | Event::Interrupted));
        for _ in 0..200 {
            let kick = kick_after(&guest, Duration::ZERO);
            let event = guest.go_with(|r| r.rip = CODE).await;
            kick.join().expect("kick");
            if matches!(event, Event::Syscall { .. }) {
                let kick = kick_after(&guest, Duration::from_micros(20));
                assert!(matches!(guest.go().await, Event::Interrupted), "the loop ends");
                kick.join().expect("kick");
            }
        }
    });
}

#[test]
fn single_steps_see_both_instructions() {
    let rig = rig();
    rig.run(async {
        let (mut guest, count) = rewritten(&rig).await;
        call(&mut guest, count).await;
        let trap = fault_of(guest.go_with(|r| (r.rip, r.rax, r.rflags) = (CODE, 0, r.rflags | TF)).await);
        let regs = guest.thread.regs();
        assert_eq!((trap.signal, regs.rip, regs.rax, regs.rflags & TF), (5, CODE + 5, 110, TF));
        let event = guest.go().await;
        assert_eq!((syscall_of(&event).0, guest.thread.regs().rip), (110, BEHIND));
        assert_eq!(guest.thread.regs().rflags & TF, TF);
        // The processor steps over the instruction behind the call before it traps again.
        assert_eq!(fault_of(guest.go().await).signal, 5);
        assert!((BEHIND..=CODE + 10).contains(&guest.thread.regs().rip));
    });
}

#[test]
fn jumps_to_the_old_instruction_are_calls() {
    let rig = rig();
    rig.run(async {
        let (mut guest, count) = rewritten(&rig).await;
        call(&mut guest, count).await;
        for nr in [39, 500, u64::MAX] {
            let event = guest.go_with(|r| (r.rip, r.rax) = (CODE + 5, nr)).await;
            assert_eq!(syscall_of(&event).0, nr);
            let regs = guest.thread.regs();
            assert_eq!((regs.rip, regs.rcx, regs.orig_rax), (BEHIND, BEHIND, nr));
        }
        // An undefined instruction elsewhere stays one.
        guest.space.write_forced(CODE + 0x100, &[0x06]).expect("text");
        assert_eq!(fault_of(guest.go_with(|r| r.rip = CODE + 0x100).await).signal, 4);
    });
}

#[test]
fn gs_belongs_to_the_application() {
    let rig = rig();
    rig.run(async {
        let (mut guest, mut count) = rewritten(&rig).await;
        call(&mut guest, count).await;
        let event = guest.go_with(|r| r.gs_base = DATA).await;
        for n in 0..20 {
            count += 1;
            if n > 0 {
                call(&mut guest, count).await;
            } else {
                assert_eq!(event_args(&event)[0], count);
                guest.thread.set_ret((count + 1).wrapping_mul(3));
            }
            assert_eq!(guest.thread.regs().gs_base, DATA);
            assert!(!untrapped(&mut guest));
        }
        count += 1;
        let event = guest.go_with(|r| r.gs_base = 0).await;
        assert_eq!(event_args(&event)[0], count);
        assert_eq!(guest.thread.regs().gs_base, 0);
        assert!(untrapped(&mut guest));
    });
}

#[test]
fn the_generic_call_loads_its_sixth_argument() {
    let rig = rig();
    rig.run(async {
        let mut guest = rig.guest(&GENERIC).await;
        guest.write_u64(STACK + 8, 0x66);
        guest.space.rewrite(BEHIND);
        assert!(is_rewritten(&guest));
        let full = u64::from(u32::MAX) << 8 | 9;
        for n in 0..50 {
            let event = guest.go_with(|r| (r.rip, r.rax, r.r9, r.rdi) = (CODE, full, 1, n)).await;
            assert_eq!(syscall_of(&event), (full, [n, 0, 0, 0, 0, 0x66]));
        }
        // rax stays the number of the next call.
        guest.thread.set_ret(500);
        assert_eq!(syscall_of(&guest.go().await).0, 500);
        assert!(untrapped(&mut guest));
        // Calls that need all of the state have it.
        guest.thread.set_ret(56);
        assert_eq!(syscall_of(&guest.go().await).0, 56);
        assert!(!untrapped(&mut guest));
        // The load may fault.
        let fault = fault_of(guest.go_with(|r| (r.rip, r.rsp, r.rbx) = (CODE, 0x123_0000, 9)).await);
        let regs = guest.thread.regs();
        assert_eq!((fault.signal, regs.rip, regs.rsp, regs.rbx, regs.rax), (11, CODE, 0x123_0000, 9, 56));
        assert_eq!(fault.addr, 0x123_0008);
    });
}

trait Loops {
    /// Has the thread run `jmp .` next.
    async fn write_loop(&mut self);
}

impl Loops for Guest {
    async fn write_loop(&mut self) {
        self.space.write_forced(CODE + 0x200, &[0xeb, 0xfe]).expect("text");
        let mut regs = self.thread.regs();
        regs.rip = CODE + 0x200;
        self.thread.set_regs(&regs);
    }
}

#[test]
fn what_is_no_site_is_left_alone() {
    let rig = rig();
    rig.run(async {
        for code in [[0xb8, 56, 0, 0, 0, 0x0f, 0x05], [0xb8, 15, 0, 0, 0, 0x0f, 0x05], [0x90, 1, 2, 3, 4, 0x0f, 0x05]] {
            let guest = rig.guest(&code).await;
            guest.space.rewrite(BEHIND);
            assert_eq!(raw(&guest), code);
        }
    });
}

/// Application code that jumps anywhere into the stub's code for calls, with an area that it has overwritten, harms nobody else.
#[test]
fn entering_the_stub_anywhere_harms_nobody_else() {
    /// `mov rcx, gs:[...]`, near the beginning of that code.
    const PROBE: [u8; 5] = [0x65, 0x48, 0x8b, 0x0c, 0x25];
    /// More than it has.
    const BYTES: u64 = 0x2c0;
    let image = moat_stub::IMAGE;
    let at = image.windows(5).position(|bytes| bytes == PROBE).expect("the probe") as u64;
    let rig = rig();
    rig.run(async {
        let (mut bystander, mut count) = rewritten(&rig).await;
        for offset in (0..BYTES).step_by(3) {
            let mut guest = rig.guest(&COUNTS).await;
            guest.space.rewrite(BEHIND);
            // The first call has the area known by %gs, the others are made through it.
            for n in 0..3 {
                assert_eq!(event_args(&guest.go().await)[0], n);
                guest.thread.set_ret(0);
            }
            let (kicker, space) = (guest.thread.kicker(), guest.space.clone());
            let ended = Arc::new(AtomicBool::new(false));
            let watchdog = std::thread::spawn({
                let ended = ended.clone();
                move || {
                    for round in 0..40 {
                        if ended.load(Ordering::Relaxed) {
                            return;
                        }
                        if round == 20 {
                            kicker.kick();
                        }
                        std::thread::sleep(Duration::from_micros(500));
                    }
                    space.kill();
                }
            });
            let area = moat_stub::layout::AREA_BASE;
            let hostile = [0, area, u64::MAX, 0xffff_0000_0000_0001][(offset % 4) as usize];
            let event = guest
                .go_with(|r| {
                    (r.rax, r.rbx, r.rcx, r.rdx) = (hostile, area, area, hostile);
                    (r.rsi, r.rdi, r.r11, r.rsp) = (hostile, hostile, hostile, area + 0x900);
                    r.rip = moat_stub::layout::STUB_BASE + at + offset;
                })
                .await;
            ended.store(true, Ordering::Relaxed);
            watchdog.join().expect("watchdog");
            assert!(!matches!(event, Event::OrderFailed(_)), "{event:?}");
            drop(guest);
            call(&mut bystander, count).await;
            count += 1;
        }
    });
}
