//! [`Counters`]: numbers that many threads add to all the time and hardly anybody reads.
//!
//! Each thread has a shard of its own, so that an addition is a load and a store to memory that no other thread writes: no
//! atomic read-modify-write, no cache line that goes from CPU to CPU. Who wants to know adds the shards up.
//!
//! # Invariants
//! - Of the threads alive at a time only one has a given place; the lock of [`PLACES`] orders those that have it one after the other.
//! - What is read may lack additions under way; it never goes down.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

/// Places for threads: more than the executor has. Threads beyond share one, and add atomically.
const MAX_PLACES: usize = 160;

/// Which places are taken.
static PLACES: Mutex<[bool; MAX_PLACES]> = Mutex::new([false; MAX_PLACES]);

/// The place of a thread, given back when the thread ends.
struct ThreadNumber(usize);

impl ThreadNumber {
    fn take() -> ThreadNumber {
        let mut places = PLACES.lock();
        let free = places.iter().position(|taken| !taken);
        if let Some(place) = free.and_then(|at| places.get_mut(at)) {
            *place = true;
        }
        ThreadNumber(free.unwrap_or(MAX_PLACES))
    }
}

impl Drop for ThreadNumber {
    fn drop(&mut self) {
        if let Some(place) = PLACES.lock().get_mut(self.0) {
            *place = false;
        }
    }
}

thread_local! {
    /// Gives the place back.
    static PLACE: ThreadNumber = ThreadNumber::take();
    /// Its number, which costs one load.
    static NUMBER: Cell<usize> = const { Cell::new(usize::MAX) };
}

fn place() -> usize {
    match NUMBER.get() {
        usize::MAX => {
            // A thread that is ending has none any more.
            let number = PLACE.try_with(|place| place.0).unwrap_or(MAX_PLACES);
            NUMBER.set(number);
            number
        }
        number => number,
    }
}

/// A fixed number of counters.
pub struct Counters {
    len: usize,
    /// One for each place, and the shared one; made when the first thread of that place adds something.
    shards: Box<[OnceLock<Box<[AtomicU64]>>]>,
}

impl Counters {
    /// `len` counters, all zero.
    #[must_use]
    pub fn new(len: usize) -> Counters {
        Counters { len, shards: (0..=MAX_PLACES).map(|_| OnceLock::new()).collect() }
    }

    /// Adds to counter `index`; one that is not there is passed over.
    pub fn add(&self, index: usize, n: u64) {
        let place = place();
        let Some(shard) = self.shards.get(place) else { return };
        let shard = shard.get_or_init(|| (0..self.len).map(|_| AtomicU64::new(0)).collect());
        let Some(counter) = shard.get(index) else { return };
        // Nobody else writes to the shard of a place, so that nothing is lost between load and store.
        if place < MAX_PLACES {
            counter.store(counter.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
        } else {
            counter.fetch_add(n, Ordering::Relaxed);
        }
    }

    /// All of them.
    #[must_use]
    pub fn read(&self) -> Vec<u64> {
        // Not at one moment for all: who adds meanwhile is not held up.
        let mut sums = vec![0u64; self.len];
        for shard in self.shards.iter().filter_map(OnceLock::get) {
            for (sum, counter) in sums.iter_mut().zip(shard) {
                *sum = sum.wrapping_add(counter.load(Ordering::Relaxed));
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn nothing_is_lost_with_more_threads_than_places() {
        let counters = Arc::new(Counters::new(3));
        // Twice as many as there are places, some of which end before others begin.
        for _ in 0..2 {
            let threads: Vec<_> = (0..MAX_PLACES + 20)
                .map(|_| {
                    let counters = counters.clone();
                    std::thread::spawn(move || {
                        for _ in 0..1000 {
                            counters.add(1, 2);
                        }
                        counters.add(2, 1);
                        counters.add(3, 1);
                    })
                })
                .collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        }
        let threads = 2 * (MAX_PLACES as u64 + 20);
        assert_eq!(counters.read(), [0, threads * 2000, threads]);
        // Places are given back.
        assert!(std::thread::spawn(place).join().unwrap() < MAX_PLACES);
    }
}
