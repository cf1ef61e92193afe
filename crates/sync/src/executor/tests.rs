use super::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::{LockClass, Mutex};

#[test]
fn a_turn_is_over_after_its_time_and_begins_anew() {
    assert!(!is_turn_over());
    std::thread::sleep(TURN);
    assert!(is_turn_over());
    TURN_START.set(None);
    assert!(!is_turn_over());
}

#[test]
fn futures_timers_and_blocking_work_all_end() {
    // The executor of this process runs once: what holds a worker and never asks for its turn is part of the same run.
    let (held, seen) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (holds, sees, saw) = (held.clone(), seen.clone(), seen.clone());
    spawn(async move {
        // Both workers sleep by then, one of them in poll(2); it takes this in and is held.
        timer::sleep_until(Instant::now() + Duration::from_millis(1300)).await;
        let deadline = Instant::now() + Duration::from_secs(20);
        while saw.load(Ordering::SeqCst) == 0 && Instant::now() < deadline {
            std::hint::spin_loop();
        }
        holds.store(saw.load(Ordering::SeqCst), Ordering::SeqCst);
        stop();
    });
    spawn(async move {
        timer::sleep_until(Instant::now() + Duration::from_millis(1400)).await;
        sees.store(1, Ordering::SeqCst);
    });
    let done = Arc::new(AtomicUsize::new(0));
    let (told, ran) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (tell, run_meanwhile) = (told.clone(), ran.clone());
    spawn(async move {
        // By now the other worker leads, asleep in poll(2).
        timer::sleep_until(Instant::now() + Duration::from_millis(20)).await;
        let tells = tell.clone();
        spawn(async move { tells.store(1, Ordering::SeqCst) });
        // Blocks until what it has made runnable has run: somebody else has to.
        let mut looks = 0..5000;
        block_in_place(|| {
            while tell.load(Ordering::SeqCst) == 0 && looks.next().is_some() {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        run_meanwhile.store(tell.load(Ordering::SeqCst), Ordering::SeqCst);
    });
    // A host call that sleeps until another task has run: on one worker after the other, so that nobody but a guard is left.
    let (answered, waited) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..2 {
        let (answered, waited) = (answered.clone(), waited.clone());
        spawn(async move {
            timer::sleep_until(Instant::now() + Duration::from_millis(150)).await;
            let mut looks = 0..5000;
            let seen = host_call(|| {
                while answered.load(Ordering::SeqCst) == 0 && looks.next().is_some() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                answered.load(Ordering::SeqCst)
            });
            waited.fetch_add(seen, Ordering::SeqCst);
        });
    }
    let answers = answered.clone();
    spawn(async move {
        timer::sleep_until(Instant::now() + Duration::from_millis(200)).await;
        answers.store(1, Ordering::SeqCst);
    });
    // A lock that is held across a host call, which ends when another task has run: who waits for the lock must not keep that from it.
    let (lock, freed) = (Arc::new(Mutex::new(LockClass::Table, 0)), Arc::new(AtomicUsize::new(0)));
    let (of_holder, frees) = (lock.clone(), freed.clone());
    spawn(async move {
        timer::sleep_until(Instant::now() + Duration::from_millis(500)).await;
        let mut held = of_holder.lock();
        let mut looks = 0..500;
        *held = host_call(|| {
            while frees.load(Ordering::SeqCst) == 0 && looks.next().is_some() {
                std::thread::sleep(Duration::from_millis(1));
            }
            1 + frees.load(Ordering::SeqCst)
        });
    });
    let found = Arc::new(AtomicUsize::new(0));
    for _ in 0..host_cpus() + 1 {
        let (lock, found) = (lock.clone(), found.clone());
        spawn(async move {
            timer::sleep_until(Instant::now() + Duration::from_millis(520)).await;
            found.fetch_max(*lock.lock(), Ordering::SeqCst);
        });
    }
    spawn(async move {
        timer::sleep_until(Instant::now() + Duration::from_millis(540)).await;
        freed.store(1, Ordering::SeqCst);
    });
    for i in 0..8u64 {
        let done = done.clone();
        spawn(async move {
            timer::sleep_until(Instant::now() + Duration::from_millis(100 + i)).await;
            block_in_place(|| std::thread::sleep(Duration::from_millis(2)));
            done.fetch_add(1, Ordering::SeqCst);
        });
    }
    run(1);
    assert_eq!(done.load(Ordering::SeqCst), 8);
    assert_eq!((told.load(Ordering::SeqCst), ran.load(Ordering::SeqCst)), (1, 1));
    assert_eq!(waited.load(Ordering::SeqCst), 2, "a timer came while all workers were in host calls");
    assert_eq!(found.load(Ordering::SeqCst), 2, "a timer came while all others waited for a lock");
    assert_eq!(held.load(Ordering::SeqCst), 1, "a timer came while one worker was held and the other slept");
}
