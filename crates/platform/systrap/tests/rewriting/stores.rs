//! The site of musl's cancellation points, which stores a register before its call.

use moat_platform::Event;
use moat_platform::conformance::{CODE, Guest, Rig, STACK, fault_of, fork, syscall_of};

use super::{JUMP, KickStorm, TF, event_args, raw, rig, untrapped};

/// `mov [rsp + 8], r11; syscall; inc rdi; mov r11, rdi; jmp` back.
const STORES: [u8; 15] = [0x4c, 0x89, 0x5c, 0x24, 0x08, 0x0f, 0x05, 0x48, 0xff, 0xc7, 0x49, 0x89, 0xfb, 0xeb, 0xf1];
/// Its call, and behind that.
const CALL: u64 = CODE + 5;
const BEHIND: u64 = CODE + 7;
const WHERE: u64 = STACK + 8;

/// A guest whose site is rewritten, in its second call.
async fn storing(rig: &Rig) -> Guest {
    let mut guest = rig.guest(&STORES).await;
    guest.space.rewrite(BEHIND);
    assert_eq!(raw(&guest)[..3], JUMP);
    for n in 0..2u64 {
        let event = guest.go_with(|r| (r.rip, r.rax, r.rdi, r.r11) = (CODE, 110, n, n)).await;
        assert_eq!((syscall_of(&event).0, event_args(&event)[0]), (110, n));
        assert_eq!(stored(&guest), n);
    }
    assert!(untrapped(&mut guest));
    guest
}

fn stored(guest: &Guest) -> u64 {
    let mut word = [0; 8];
    guest.space.read(WHERE, &mut word).expect("stack");
    u64::from_le_bytes(word)
}

#[test]
fn a_register_is_stored_before_the_call() {
    let rig = rig();
    rig.run(async {
        let mut guest = storing(&rig).await;
        for n in 2..300u64 {
            guest.thread.set_ret(110);
            let event = guest.go().await;
            assert_eq!((syscall_of(&event).0, event_args(&event)[0], stored(&guest)), (110, n, n));
            assert!(untrapped(&mut guest));
        }
        // Calls that need all of the state have it.
        guest.thread.set_ret(56);
        assert_eq!(syscall_of(&guest.go().await).0, 56);
        assert!(!untrapped(&mut guest));
        // It reads as it was, and a child has it too.
        let mut text = [0; STORES.len()];
        assert_eq!(guest.space.read(CODE, &mut text), Ok(STORES.len()));
        assert_eq!(text, STORES);
        let mut child = fork(&mut guest).await;
        for n in [7, 8] {
            let event = child.go_with(|r| (r.rip, r.rax, r.rdi, r.r11) = (CODE, 110, n, !n)).await;
            assert_eq!((event_args(&event)[0], stored(&child)), (n, !n));
        }
        assert!(untrapped(&mut child));
        // Who jumps to the call itself has nothing stored.
        let event = guest.go_with(|r| (r.rip, r.rax, r.r11) = (CALL, 39, 0x99)).await;
        assert_eq!(syscall_of(&event).0, 39);
        assert_ne!(stored(&guest), 0x99);
    });
}

#[test]
fn nothing_is_stored_where_nothing_can_be() {
    let rig = rig();
    rig.run(async {
        let mut guest = storing(&rig).await;
        let fault = fault_of(guest.go_with(|r| (r.rip, r.rax, r.r11, r.rsp) = (CODE, 110, 0x77, 0x123_0000)).await);
        let regs = guest.thread.regs();
        assert_eq!((fault.signal, fault.addr, regs.rip), (11, 0x123_0008, CODE));
        assert_eq!((regs.rax, regs.r11, regs.rsp), (110, 0x77, 0x123_0000));
        // Nor by who goes on step by step.
        let step = |r: &mut moat_platform::Regs| r.rflags |= TF;
        let fault = fault_of(guest.go_with(|r| step(r)).await);
        let regs = guest.thread.regs();
        assert_eq!((fault.signal, regs.rip, regs.r11), (11, CODE, 0x77));
    });
}

#[test]
fn single_steps_see_the_store_and_the_call() {
    let rig = rig();
    rig.run(async {
        let mut guest = storing(&rig).await;
        let trap =
            fault_of(guest.go_with(|r| (r.rip, r.rax, r.r11, r.rflags) = (CODE, 110, 0x77, r.rflags | TF)).await);
        let regs = guest.thread.regs();
        assert_eq!((trap.signal, regs.rip, regs.rax, regs.r11, stored(&guest)), (5, CALL, 110, 0x77, 0x77));
        let event = guest.go().await;
        assert_eq!((syscall_of(&event).0, guest.thread.regs().rip), (110, BEHIND));
    });
}

#[test]
fn a_kick_shows_the_state_before_or_after() {
    let rig = rig();
    rig.run(async {
        let mut guest = storing(&rig).await;
        let kicks = KickStorm::begin(&guest);
        let (mut n, mut kicked) = (2, 0);
        guest.thread.set_ret(110);
        while n < 30_000 {
            match guest.go().await {
                Event::Interrupted => {
                    let regs = guest.thread.regs();
                    match regs.rip {
                        CODE => assert_eq!(regs.r11, regs.rdi, "it is still to be stored"),
                        CALL => assert_eq!((stored(&guest), regs.rax), (regs.rdi, 110)),
                        rip => assert!((BEHIND..CODE + STORES.len() as u64).contains(&rip), "{rip:#x}"),
                    }
                    kicked += 1;
                }
                Event::Syscall { nr, args } => {
                    assert_eq!((nr, args[0], stored(&guest)), (110, n, n));
                    guest.thread.set_ret(110);
                    n += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        kicks.end();
        assert!(kicked > 100, "{kicked}");
    });
}
