//! Kicks of a guest by another thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moat_platform::conformance::Guest;

/// Kicks the guest when some time is over.
pub fn kick_after(guest: &Guest, time: Duration) -> std::thread::JoinHandle<()> {
    let kicker = guest.thread.kicker();
    std::thread::spawn(move || {
        std::thread::sleep(time);
        kicker.kick();
    })
}

/// Kicks a guest again and again, after pauses of all kinds.
pub struct KickStorm {
    stop: Arc<AtomicBool>,
    kicks: std::thread::JoinHandle<()>,
}

impl KickStorm {
    /// Begins.
    pub fn begin(guest: &Guest) -> KickStorm {
        let (stop, kicker) = (Arc::new(AtomicBool::new(false)), guest.thread.kicker());
        let kicks = std::thread::spawn({
            let stop = stop.clone();
            move || {
                let mut pause = 0;
                while !stop.load(Ordering::Relaxed) {
                    kicker.kick();
                    pause = (pause * 7 + 3) % 101;
                    std::thread::sleep(Duration::from_micros(pause));
                }
            }
        });
        KickStorm { stop, kicks }
    }

    /// Ends, when the last kick has been sent.
    pub fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.kicks.join().expect("kicker");
    }
}
