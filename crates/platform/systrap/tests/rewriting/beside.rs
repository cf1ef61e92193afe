//! Sites that are rewritten and put back while other threads of the process run.

use std::time::Duration;

use moat_platform::conformance::{CODE, DATA, Guest, RW, Rig, both, spawn};
use moat_platform::{Event, Order};

use super::{BEHIND, COUNTS, Loops, call, is_rewritten, kick_after, raw, rig, untrapped};

/// A guest that has called once, and a thread of it that loops next.
async fn beside(rig: &Rig) -> (Guest, Guest) {
    let mut guest = rig.guest(&COUNTS).await;
    call(&mut guest, 0).await;
    let mut side = spawn(&mut guest).await;
    side.write_loop().await;
    (guest, side)
}

#[test]
fn a_site_is_rewritten_and_put_back_while_a_thread_runs() {
    let rig = rig();
    rig.run(async {
        let (mut guest, mut side) = beside(&rig).await;
        let kick = kick_after(&side, Duration::from_millis(30));
        let (ended, ()) = both(side.go(), async {
            for _ in 0..3 {
                guest.space.rewrite(BEHIND);
                assert!(is_rewritten(&guest));
                guest.space.write_forced(BEHIND, &COUNTS[7..8]).expect("written");
                guest.space.write_forced(CODE, &COUNTS[..7]).expect("written");
                assert_eq!(raw(&guest), COUNTS[..7]);
            }
            guest.space.rewrite(BEHIND);
        })
        .await;
        kick.join().expect("kick");
        assert!(matches!(ended, Event::Interrupted));
        assert!(is_rewritten(&guest));
        // The first has not seen its area yet.
        call(&mut guest, 1).await;
        for count in 2..20 {
            call(&mut guest, count).await;
            assert!(untrapped(&mut guest));
        }
    });
}

#[test]
fn nothing_is_rewritten_while_orders_are_carried_out() {
    let rig = rig();
    rig.run(async {
        let (guest, mut side) = beside(&rig).await;
        // Nobody knows when it is done with it, before it stops.
        side.thread.defer(Order::Mprotect { addr: DATA, len: 0x1000, prot: RW });
        let kick = kick_after(&side, Duration::from_millis(30));
        let (ended, ()) = both(side.go(), async {
            guest.space.rewrite(BEHIND);
        })
        .await;
        kick.join().expect("kick");
        assert!(matches!(ended, Event::Interrupted));
        assert_eq!(raw(&guest), COUNTS[..7], "while orders were carried out");
    });
}
