//! Deadlines on the host's monotonic clock, served by the leading executor thread.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use moat_abi::PollEvents;

use crate::executor;
use crate::lock::{LockClass, Mutex};
use crate::wait::{Notify, Wakeup};

type Key = (Instant, u64);

#[derive(Default)]
struct Heap {
    next_id: u64,
    timers: BTreeMap<Key, Arc<dyn Notify>>,
}

static HEAP: Mutex<Heap> = Mutex::new(LockClass::Timers, Heap { next_id: 0, timers: BTreeMap::new() });

/// A deadline that has been set; dropping it cancels it.
pub struct Timer {
    key: Key,
}

impl Timer {
    /// Calls `notify` with [`PollEvents::IN`] once `deadline` has passed.
    #[must_use]
    pub fn set(deadline: Instant, notify: Arc<dyn Notify>) -> Timer {
        let (key, first) = {
            let mut heap = HEAP.lock();
            // The id tells timers of one instant apart.
            heap.next_id += 1;
            let key = (deadline, heap.next_id);
            let first = heap.timers.first_key_value().is_none_or(|(k, _)| key < *k);
            heap.timers.insert(key, notify);
            (key, first)
        };
        // The leader waits for the timer that was the first so far.
        if first {
            executor::unpark_leader();
        }
        Timer { key }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let gone = HEAP.lock().timers.remove(&self.key);
        // Dropped unlocked: what was to be notified may go with it.
        drop(gone);
    }
}

fn next_deadline() -> Option<Instant> {
    HEAP.lock().timers.first_key_value().map(|((at, _), _)| *at)
}

/// How long it is until the next timer is due, if there is one.
pub(crate) fn time_left() -> Option<Duration> {
    next_deadline().map(|at| at.saturating_duration_since(Instant::now()))
}

/// Notifies all timers that are due.
pub(crate) fn fire_due() {
    // Without a timer the clock need not be read.
    if next_deadline().is_none() {
        return;
    }
    let now = Instant::now();
    loop {
        let due = {
            let mut heap = HEAP.lock();
            match heap.timers.first_entry() {
                Some(e) if e.key().0 <= now => Some(e.remove()),
                _ => None,
            }
        };
        match due {
            // Unlocked: it may set and drop timers.
            Some(n) => n.notify(PollEvents::IN),
            None => return,
        }
    }
}

/// A future that ends when `deadline` has passed.
#[must_use]
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, timer: None, wakeup: Arc::new(Wakeup::default()) }
}

/// The future of [`sleep_until`].
pub struct Sleep {
    deadline: Instant,
    timer: Option<Timer>,
    wakeup: Arc<Wakeup>,
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= self.deadline {
            return Poll::Ready(());
        }
        if self.timer.is_none() {
            self.timer = Some(Timer::set(self.deadline, self.wakeup.clone()));
        }
        self.wakeup.poll(cx)
    }
}
