//! Many guests at once on the real executor with several workers: syscalls, forks, threads, kicks and deaths.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use moat_platform::conformance::{CODE, DATA, Guest, Rig, fork, spawn};
use moat_platform::{Event, PlatformEvents};
use moat_platform_systrap::Systrap;
use moat_sync::executor;

/// `1: syscall; jmp 1b`
const CALLS: &[u8] = &[0x0f, 0x05, 0xeb, 0xfc];

/// Calls in a row, each with the last one's result as its number; kicks may come in between.
async fn calls(guest: &mut Guest, count: u64) {
    let mut expected = 1000;
    guest.thread.set_ret(expected);
    let mut left = count;
    while left > 0 {
        match guest.go().await {
            Event::Interrupted => {}
            Event::Syscall { nr, .. } => {
                assert_eq!(nr, expected);
                expected += 1;
                guest.thread.set_ret(expected);
                left -= 1;
            }
            other => panic!("{other:?}"),
        }
    }
}

async fn family(platform: Arc<Systrap>, seed: u64) {
    let rig = Rig::new(platform);
    for round in 0..6 {
        let mut guest = rig.guest(CALLS).await;
        calls(&mut guest, 200).await;
        let mut side = spawn(&mut guest).await;
        let mut child = fork(&mut side).await;
        guest.write_u64(DATA, seed);
        child.write_u64(DATA, seed + 1);
        let stop = Arc::new(AtomicBool::new(false));
        let kickers = [guest.thread.kicker(), side.thread.kicker(), child.thread.kicker()];
        let kicking = {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    kickers.iter().for_each(|kicker| kicker.kick());
                    std::thread::sleep(Duration::from_micros(300));
                }
            })
        };
        calls(&mut child, 300).await;
        calls(&mut side, 300).await;
        calls(&mut guest, 300).await;
        assert_eq!((guest.read_u64(DATA), child.read_u64(DATA)), (seed, seed + 1));
        stop.store(true, Ordering::Relaxed);
        kicking.join().expect("kicker");
        if (round + seed).is_multiple_of(3) {
            guest.space.kill();
            while !matches!(guest.go().await, Event::Died) {}
        }
        assert_eq!(child.read_u64(CODE) & 0xffff_ffff, 0xfceb_050f);
    }
}

#[test]
fn many_families_at_once() {
    const FAMILIES: usize = 6;
    let platform = Arc::new(Systrap::new().expect("systrap starts"));
    executor::init().expect("executor");
    executor::set_source(Box::new(PlatformEvents(platform.clone()))).expect("source");
    let left = Arc::new(AtomicUsize::new(FAMILIES));
    for seed in 0..FAMILIES {
        let (platform, left) = (platform.clone(), left.clone());
        executor::spawn(async move {
            family(platform, seed as u64 * 1000).await;
            if left.fetch_sub(1, Ordering::SeqCst) == 1 {
                executor::stop();
            }
        });
    }
    let watchdog = left.clone();
    std::thread::spawn(move || {
        let end = Instant::now() + Duration::from_secs(120);
        while watchdog.load(Ordering::SeqCst) > 0 {
            if Instant::now() > end {
                eprintln!("{} families hang", watchdog.load(Ordering::SeqCst));
                std::process::abort();
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    executor::run(2);
    assert_eq!(left.load(Ordering::SeqCst), 0);
}
