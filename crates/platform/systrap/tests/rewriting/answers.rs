//! Calls that the stub has an answer to.

use std::time::Duration;

use moat_platform::conformance::{CODE, STACK, fork, spawn, syscall_of};
use moat_platform::{ANSWERABLE, Answers, Event};
use moat_stub::layout::ANSWERS;

use super::{COUNTS, DF, call, event_args, kick_after, rewritten, rig};

#[test]
fn the_stub_has_room_for_all_answers() {
    assert!(ANSWERABLE.iter().all(|nr| usize::try_from(*nr).is_ok_and(|nr| nr < ANSWERS)));
}

#[test]
fn answers_that_lie_ready_are_given() {
    let rig = rig();
    rig.run(async {
        let (mut guest, first) = rewritten(&rig).await;
        call(&mut guest, first).await;
        let getppid = ANSWERABLE.iter().position(|nr| *nr == 110).expect("one of them");
        let mut answers = Answers::default();
        answers.ids[getppid] = Some(4321);
        guest.thread.publish(&answers);
        let kicker = guest.thread.kicker();
        let mut count = first;
        // It goes on and on, and can be interrupted before or after any call.
        for round in 0..500 {
            let kick = kick_after(&guest, Duration::from_micros(round % 50));
            let event = guest.go().await;
            kick.join().expect("kick");
            assert!(matches!(event, Event::Interrupted), "{event:?}");
            let r = guest.thread.regs();
            let at = r.rip.wrapping_sub(CODE);
            assert!(at < COUNTS.len() as u64, "interrupted at {:#x}", r.rip);
            assert!(r.rdi >= count, "{} after {count}", r.rdi);
            count = r.rdi;
            // However slow it is: it begins at the end of a call that was not answered so.
            assert!(r.rdi <= first + 1 || r.rsi == 4321, "{}", r.rsi);
            assert!(at != 7 || r.rdi <= first || r.rax == 4321);
            assert_eq!((r.rsp, r.rbx, r.rbp, r.r12, r.r13, r.r14, r.r15), (STACK, 11, 12, 13, 14, 15, 16));
            assert_eq!((r.rflags & DF, r.gs_base), (DF, 0));
        }
        // Taken back, also while it runs.
        let forgets = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(5));
            kicker.forget();
        });
        let event = guest.go().await;
        forgets.join().expect("forgets");
        assert_eq!(syscall_of(&event).0, 110);
        assert!(event_args(&event)[0] > count);
        // A new thread and a new process have none.
        guest.thread.publish(&answers);
        let (mut side, mut child) = (spawn(&mut guest).await, fork(&mut guest).await);
        for other in [&mut side, &mut child] {
            for _ in 0..3 {
                assert_eq!(syscall_of(&other.go().await).0, 110);
                other.thread.set_ret(0);
            }
        }
    });
}
