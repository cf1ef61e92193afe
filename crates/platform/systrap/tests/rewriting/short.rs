//! Sites of two bytes, which jump by way of padding.

use std::time::Duration;

use moat_platform::conformance::{CODE, Guest, RW, Rig, fork, syscall_of};
use moat_platform::{Event, Order};

use super::{TF, event_args, kick_after, raw, rig, untrapped};

/// `syscall; inc rdi; mov rsi, rax; mov eax, 110; jmp` back, then nothing but `int3`.
const SHORT: [u8; 31] = [
    0x0f, 0x05, 0x48, 0xff, 0xc7, 0x48, 0x89, 0xc6, 0xb8, 110, 0, 0, 0, 0xeb, 0xf1, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
    0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc, 0xcc,
];
/// Behind its call, and where its padding is jumped to.
const SHORT_BEHIND: u64 = CODE + 2;
const PADDING: u64 = CODE + 16;

/// A guest with a rewritten short site.
async fn shortened(rig: &Rig) -> Guest {
    let mut guest = rig.guest(&SHORT).await;
    guest.space.rewrite(SHORT_BEHIND);
    assert_eq!(raw(&guest)[..2], [0xeb, 14], "a jump to the padding");
    for n in 0..2u64 {
        let event = guest.go_with(|r| (r.rip, r.rax, r.rdi) = (CODE, 110, n)).await;
        assert_eq!((syscall_of(&event).0, event_args(&event)[0]), (110, n));
    }
    assert!(untrapped(&mut guest));
    guest
}

#[test]
fn a_short_site_jumps_by_way_of_padding() {
    let rig = rig();
    rig.run(async {
        let mut guest = shortened(&rig).await;
        for n in 2..300u64 {
            guest.thread.set_ret(n * 3);
            let event = guest.go().await;
            let (nr, args) = syscall_of(&event);
            assert_eq!((nr, args[0], args[1]), (110, n, n * 3));
            let regs = guest.thread.regs();
            assert_eq!((regs.rip, regs.rcx, regs.orig_rax), (SHORT_BEHIND, SHORT_BEHIND, 110));
            assert!(untrapped(&mut guest));
        }
        // The whole register counts, and calls that need all of the state have it.
        for nr in [u64::MAX, 500, 1 << 32 | 110, 9, 25] {
            let event = guest.go_with(|r| (r.rip, r.rax) = (CODE, nr)).await;
            assert_eq!(syscall_of(&event).0, nr);
            assert_eq!(untrapped(&mut guest), nr != 25);
        }
        // Both of its pieces read as they were, one byte at a time as well.
        let mut text = [0; SHORT.len()];
        assert_eq!(guest.space.read(CODE, &mut text), Ok(SHORT.len()));
        assert_eq!(text, SHORT);
        for (at, want) in (CODE..).zip(SHORT) {
            let mut byte = [0];
            assert_eq!((guest.space.read(at, &mut byte), byte), (Ok(1), [want]), "{at:#x}");
        }
        // A child has them too.
        let mut child = fork(&mut guest).await;
        let event = child.go_with(|r| (r.rip, r.rax, r.rdi) = (CODE, 110, 7)).await;
        assert_eq!(event_args(&event)[0], 7);
        let event = child.go_with(|r| (r.rip, r.rax, r.rdi) = (CODE, 110, 8)).await;
        assert_eq!(event_args(&event)[0], 8);
        assert!(untrapped(&mut child));
    });
}

#[test]
fn padding_is_no_place_to_be() {
    let rig = rig();
    rig.run(async {
        let mut guest = shortened(&rig).await;
        // Who is stopped on the way is at its site, and calls when it goes on.
        for n in 0..3_000u64 {
            let kick = kick_after(&guest, Duration::ZERO);
            let mut event = guest.go_with(|r| (r.rip, r.rax, r.rdi) = (CODE, 110, n)).await;
            while matches!(event, Event::Interrupted) {
                let regs = guest.thread.regs();
                assert_eq!((regs.rip, regs.rax, regs.rdi), (CODE, 110, n), "before the call");
                event = guest.go().await;
            }
            assert_eq!((syscall_of(&event).0, event_args(&event)[0]), (110, n));
            kick.join().expect("kick");
        }
        // A step of the program's own finds the instruction as it was.
        let mut event = guest.go_with(|r| (r.rip, r.rax, r.rflags) = (CODE, 110, r.rflags | TF)).await;
        // By the step, and perhaps by a kick that has come late.
        while matches!(event, Event::Interrupted) {
            event = guest.go().await;
        }
        assert_eq!((syscall_of(&event).0, guest.thread.regs().rip), (110, SHORT_BEHIND));
        assert_eq!(raw(&guest), SHORT[..7]);
        guest.space.rewrite(SHORT_BEHIND);
        assert_eq!(raw(&guest), SHORT[..7], "for good");
    });
}

#[test]
fn a_short_site_is_put_back_when_its_text_or_padding_can_be_written() {
    let rig = rig();
    rig.run(async {
        let mut guest = shortened(&rig).await;
        guest.space.write_forced(PADDING + 3, &[0xf4]).expect("padding");
        assert_eq!(raw(&guest), SHORT[..7], "its padding is written to");
        let event = guest.go_with(|r| (r.rip, r.rax, r.rdi) = (CODE, 110, 1)).await;
        assert_eq!(event_args(&event)[0], 1);
        // There is room for another jump.
        guest.space.rewrite(SHORT_BEHIND);
        assert_eq!(raw(&guest)[..2], [0xeb, 19], "behind the byte that was written");
        let event = guest.go_with(|r| (r.rip, r.rax, r.rdi) = (CODE, 110, 2)).await;
        assert_eq!(event_args(&event)[0], 2);
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: RW }).await;
        assert_eq!(raw(&guest), SHORT[..7], "it can be written");
        guest.write(CODE, &[0x90, 0x90]);
        guest.order(Order::Mprotect { addr: CODE, len: 0x1000, prot: 5 }).await;
        // Without a call there is nothing to be rewritten.
        guest.space.rewrite(SHORT_BEHIND);
        assert_eq!(raw(&guest)[..2], [0x90, 0x90]);
    });
}
