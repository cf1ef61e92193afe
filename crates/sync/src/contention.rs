//! How long threads wait for locks, by class and place, while somebody wants to know.
//!
//! Only a thread that found a lock taken comes here, so that a free lock costs what it always does.

use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::lock::LockClass;
use crate::trace::{self, Event, Kind, Observer};
use crate::watchdog;

/// Shorter waits are not in the trace.
const LONG: Duration = Duration::from_micros(10);

/// What was waited for locks of one class at one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contended {
    /// The class.
    pub class: LockClass,
    /// Where the lock was taken.
    pub at: &'static Location<'static>,
    /// How often it was found taken.
    pub count: u64,
    /// How long was waited in all.
    pub time_ns: u64,
}

static ON: AtomicBool = AtomicBool::new(false);
// No lock with a class: it is taken under all of them. As many entries as the program has places.
static SITES: parking_lot::Mutex<BTreeMap<LockSite, Contended>> = parking_lot::Mutex::new(BTreeMap::new());

/// Class, file, line, column.
type LockSite = (LockClass, &'static str, u32, u32);

/// Begins to count.
pub fn start() {
    SITES.lock().clear();
    ON.store(true, Ordering::Release);
}

/// Ends that; gives what was counted.
#[must_use]
pub fn stop() -> Vec<Contended> {
    ON.store(false, Ordering::Relaxed);
    std::mem::take(&mut *SITES.lock()).into_values().collect()
}

/// Takes a lock, by `lock`, that was found taken.
#[cold]
#[inline(never)]
pub(crate) fn wait<G>(class: LockClass, at: &'static Location<'static>, lock: impl FnOnce() -> G) -> G {
    let began = trace::began();
    if !ON.load(Ordering::Relaxed) && began == 0 {
        return watchdog::wait_for_lock(lock);
    }
    let start = Instant::now();
    let guard = watchdog::wait_for_lock(lock);
    // A trace has room for what matters to a person only.
    if trace::is_on(Observer::Trace) && start.elapsed() >= LONG {
        trace::emit(Event { label: class.name(), ..Event::since(Kind::Lock, began) });
    }
    if !ON.load(Ordering::Relaxed) {
        return guard;
    }
    let time_ns = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
    // While the lock is held, which makes others wait a little longer; without it the guard could not be given back.
    let mut sites = SITES.lock();
    let new = Contended { class, at, count: 0, time_ns: 0 };
    let site = sites.entry((class, at.file(), at.line(), at.column())).or_insert(new);
    site.count = site.count.saturating_add(1);
    site.time_ns = site.time_ns.saturating_add(time_ns);
    drop(sites);
    guard
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Mutex;

    #[test]
    fn a_wait_is_counted_where_the_lock_was_taken() {
        let lock = Mutex::new(LockClass::Tty, ());
        start();
        let line = std::thread::scope(|scope| {
            let held = lock.lock();
            let waiter = scope.spawn(|| {
                drop(lock.lock());
                line!() - 1
            });
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
            waiter.join().unwrap()
        });
        let sites = stop();
        let site = sites.iter().find(|site| site.class == LockClass::Tty).unwrap();
        assert_eq!((site.at.file(), site.at.line(), site.count), (file!(), line, 1));
        assert!((20_000_000..10_000_000_000).contains(&site.time_ns), "{}", site.time_ns);
        drop(lock.lock());
        assert_eq!(stop(), []);
    }
}
