//! How a worker's time was spent: [`blocked`], and the part of its busy time that it had a CPU for, [`on_cpu`].
//!
//! Clocks that user code can read run on while a thread waits for a CPU. The one that does not costs a host call, so it is read once in
//! [`INTERVAL`] of busy time, and tells the share that counts until the next reading.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Busy time between two readings of the thread's CPU clock.
const INTERVAL: Duration = Duration::from_millis(5);

/// All of it, as a share.
const WHOLE: u32 = 1024;

#[derive(Clone, Copy)]
struct Busy {
    /// See [`blocked`].
    blocked: Duration,
    /// Cycles of lingering that nobody has asked for yet.
    lingered: u64,
    /// Busy time since the last reading.
    unmeasured: Duration,
    /// The thread's CPU time then.
    cpu: Duration,
    /// The share of busy time with a CPU.
    share: u32,
}

const NEW: Busy =
    Busy { blocked: Duration::ZERO, lingered: 0, unmeasured: Duration::ZERO, cpu: Duration::ZERO, share: WHOLE };

thread_local! {
    static BUSY: Cell<Busy> = const { Cell::new(NEW) };
}

/// How long the calling thread has been in [`crate::block_in_place`], as a worker, since it was started.
#[must_use]
pub fn blocked() -> Duration {
    BUSY.get().blocked
}

pub(crate) fn add_blocked(time: Duration) {
    let busy = BUSY.get();
    BUSY.set(Busy { blocked: busy.blocked.saturating_add(time), ..busy });
}

/// Notes that a future has lingered for so many cycles on the calling worker.
pub(crate) fn add_lingered(cycles: u64) {
    let busy = BUSY.get();
    BUSY.set(Busy { lingered: busy.lingered.saturating_add(cycles), ..busy });
}

/// How many cycles futures have lingered on the calling worker since it was last asked.
pub(crate) fn take_lingered() -> u64 {
    let busy = BUSY.get();
    BUSY.set(Busy { lingered: 0, ..busy });
    busy.lingered
}

/// The part of `spent`, for which the calling thread was busy, that it had a CPU.
#[must_use]
pub fn on_cpu(spent: Duration) -> Duration {
    let mut busy = BUSY.get();
    busy.unmeasured = busy.unmeasured.saturating_add(spent);
    if busy.unmeasured >= INTERVAL {
        busy.measure(thread_cpu());
    }
    BUSY.set(busy);
    match busy.share {
        WHOLE => spent,
        share => spent.saturating_mul(share).checked_div(WHOLE).unwrap_or(spent),
    }
}

impl Busy {
    fn measure(&mut self, cpu: Duration) {
        let used = cpu.saturating_sub(self.cpu);
        // What it used between busy times is in it too: the share is too large rather than too small.
        let share = used.as_nanos().saturating_mul(WHOLE.into()).checked_div(self.unmeasured.as_nanos());
        self.share = share.and_then(|share| u32::try_from(share).ok()).unwrap_or(WHOLE).min(WHOLE);
        (self.unmeasured, self.cpu) = (Duration::ZERO, cpu);
    }
}

fn thread_cpu() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn the_share_is_that_of_the_cpu_clock() {
        let ms = Duration::from_millis;
        let mut busy = Busy { unmeasured: ms(8), cpu: ms(1), ..NEW };
        busy.measure(ms(3));
        assert_eq!((busy.share, busy.unmeasured, busy.cpu), (WHOLE / 4, Duration::ZERO, ms(3)));
        // It also ran outside.
        busy.unmeasured = ms(8);
        busy.measure(ms(40));
        assert_eq!(busy.share, WHOLE);
    }

    #[test]
    fn who_sleeps_is_not_on_a_cpu() {
        std::thread::spawn(|| {
            // The thread's start counts for the first reading.
            let _ = on_cpu(INTERVAL);
            let start = Instant::now();
            std::thread::sleep(Duration::from_millis(200));
            assert!(on_cpu(start.elapsed()) < Duration::from_millis(50));
        })
        .join()
        .unwrap();
    }
}
