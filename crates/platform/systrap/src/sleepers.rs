//! [`Sleepers`]: guest threads that are parked for long wait on a futex.
//!
//! A parked thread waits in a notification, which the host keeps in one list of the whole sandbox; it walks through that list at
//! each poll(2), receipt and answer. With thousands of threads in sleeping system calls every call of any thread
//! would pay for them. So once the list is long, the thread that has been in it longest is told with each new ring
//! to wait on the state word of its area instead: shared memory, in which the sentry changes the word and wakes it.

use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicIsize, Ordering};

use moat_sync::{LockClass, Mutex};

/// Notifications up to which the host's list is short.
const SHORT: isize = 64;
/// Rings that are remembered while it is.
const MAX_REMEMBERED: usize = 256;
/// Rings that are looked at for each new one.
const LOOKS: usize = 4;

/// Whether a thread is where it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parked {
    /// It has gone on, or waits otherwise.
    Gone,
    /// It is.
    Still,
    /// It was, and has been told to wait on its futex.
    Asleep,
}

/// A thread that may be parked.
pub trait Sleeper: Send + Sync {
    /// Whether it is still parked in notification `id`; has it wait on its futex if that is asked for.
    fn parked(&self, id: u64, send_to_sleep: bool) -> Parked;
}

/// Who is parked, the oldest first.
pub struct Sleepers {
    /// Notifications that the host lists.
    listed: AtomicIsize,
    rings: Mutex<VecDeque<(Weak<dyn Sleeper>, u64)>>,
}

impl Sleepers {
    /// Nobody is parked.
    pub fn new() -> Sleepers {
        Sleepers { listed: AtomicIsize::new(0), rings: Mutex::new(LockClass::Platform, VecDeque::new()) }
    }

    /// The host's list has grown, or shrunk.
    pub fn listed(&self, change: isize) {
        self.listed.fetch_add(change, Ordering::Relaxed);
    }

    /// A thread has parked in notification `id`.
    pub fn parked(&self, thread: Weak<dyn Sleeper>, id: u64) {
        let mut remembered = {
            let mut rings = self.rings.lock();
            rings.push_back((thread, id));
            rings.len()
        };
        for _ in 0..LOOKS {
            // Approximate: threads come and go on all CPUs, and nothing but the price hangs on it.
            let long = self.listed.load(Ordering::Relaxed) > SHORT;
            if !long && remembered <= MAX_REMEMBERED {
                return;
            }
            let Some((oldest, id)) = self.rings.lock().pop_front() else { return };
            remembered = remembered.saturating_sub(1);
            match oldest.upgrade().map_or(Parked::Gone, |oldest| oldest.parked(id, long)) {
                Parked::Gone => {}
                // Behind all others: the list is short by now, or it has been looked at often enough.
                Parked::Still => self.rings.lock().push_back((oldest, id)),
                Parked::Asleep => return,
            }
        }
    }
}
