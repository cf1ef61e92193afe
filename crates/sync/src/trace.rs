//! The trace: what tasks and threads do, one event after the other, while somebody wants to know.
//!
//! Each thread writes into a ring of its own, which one reader empties. While nobody wants to know, a place that could write costs a
//! load and a branch ([`began`]).
//!
//! # Invariants
//! - A ring that is full forgets its oldest event, and counts it: nobody waits for the reader.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::time::{ClockId, clock_gettime};

/// Events that a thread's ring holds.
const CAPACITY: usize = 16 << 10;

/// What wants to know when things begin and end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observer {
    /// The trace.
    Trace,
    /// The sums of times by system call.
    Times,
}

impl Observer {
    const fn bit(self) -> u8 {
        match self {
            Observer::Trace => 1,
            Observer::Times => 2,
        }
    }
}

/// What an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A system call, from the sentry's first look at it to its result.
    Call,
    /// Application code, from the resumption of the thread until the sentry is told of its next stop. Where the platform knows it, `values`
    /// has how long the ways there and back took, and `label` how the sentry was told.
    Guest,
    /// A task slept.
    Wait,
    /// A page fault or other exception that the sentry handled.
    Fault,
    /// A signal was taken; it has no length.
    Signal,
    /// A worker was busy with a task.
    Poll,
    /// A thread waited for a lock.
    Lock,
    /// A task has got a name, which is in `values`; it has no length.
    Name,
}

/// Something that happened.
#[derive(Clone, Copy, Debug)]
pub struct Event {
    /// What.
    pub kind: Kind,
    /// The task's process, by a number that is its own; 0 if it concerns none.
    pub process: u64,
    /// The task, by a number that is its own.
    pub task: u64,
    /// When it began, on the monotonic clock.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// The system call, signal or exception.
    pub number: u64,
    /// Arguments of the call, or whatever else the kind has.
    pub values: [u64; 6],
    /// The call's result as its register has it; of a wait, the task that ended it, or 0.
    pub result: u64,
    /// What was waited for.
    pub label: &'static str,
}

impl Event {
    /// One of `kind` that began at `start_ns` and ends at this moment, with nothing else in it.
    #[must_use]
    pub fn since(kind: Kind, start_ns: u64) -> Event {
        let duration_ns = now_ns().saturating_sub(start_ns);
        let (process, task, number, values, result) = (0, 0, 0, [0; 6], 0);
        Event { kind, process, task, start_ns, duration_ns, number, values, result, label: "" }
    }
}

struct Ring {
    thread: i32,
    events: parking_lot::Mutex<VecDeque<Event>>,
}

static OBSERVERS: AtomicU8 = AtomicU8::new(0);
static DROPPED: AtomicU64 = AtomicU64::new(0);
// No lock with a class: it is taken once by each thread, under whatever that holds.
static RINGS: parking_lot::Mutex<Vec<Arc<Ring>>> = parking_lot::Mutex::new(Vec::new());

thread_local! {
    static RING: RefCell<Option<Arc<Ring>>> = const { RefCell::new(None) };
    /// The task that the thread is busy with, while there is a trace.
    static CURRENT: Cell<u64> = const { Cell::new(0) };
}

/// Whether anybody wants to know.
#[inline]
#[must_use]
pub fn is_observed() -> bool {
    OBSERVERS.load(Ordering::Relaxed) != 0
}

/// Whether this one does.
#[inline]
#[must_use]
pub fn is_on(observer: Observer) -> bool {
    OBSERVERS.load(Ordering::Relaxed) & observer.bit() != 0
}

/// The time, if anybody wants to know when something begins; 0 else.
#[inline]
#[must_use]
pub fn began() -> u64 {
    if is_observed() { now_ns() } else { 0 }
}

/// The monotonic clock.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let (seconds, ns) = (now.tv_sec.cast_unsigned(), now.tv_nsec.cast_unsigned());
    seconds.saturating_mul(1_000_000_000).saturating_add(ns)
}

/// `observer` wants to know from here on. A trace forgets what is left of the last one.
pub fn start(observer: Observer) {
    if observer == Observer::Trace {
        for ring in RINGS.lock().iter() {
            ring.events.lock().clear();
        }
        DROPPED.store(0, Ordering::Relaxed);
    }
    OBSERVERS.fetch_or(observer.bit(), Ordering::Release);
}

/// It does no longer.
pub fn stop(observer: Observer) {
    // What is under way may still write an event: the next start forgets it.
    OBSERVERS.fetch_and(!observer.bit(), Ordering::Relaxed);
}

/// Adds an event of the calling thread to the trace.
#[cold]
#[inline(never)]
pub fn emit(event: Event) {
    // A thread that is ending has no ring any more.
    let _ = RING.try_with(|own| {
        // Nothing below emits: it can't be borrowed already.
        let mut own = own.borrow_mut();
        let ring = own.get_or_insert_with(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get();
            let events = parking_lot::Mutex::new(VecDeque::with_capacity(CAPACITY));
            let ring = Arc::new(Ring { thread, events });
            RINGS.lock().push(ring.clone());
            ring
        });
        let mut events = ring.events.lock();
        if events.len() >= CAPACITY {
            events.pop_front();
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        events.push_back(event);
    });
}

/// Takes out what is there: each thread's id, and its events in their order.
pub fn take(mut each: impl FnMut(i32, Vec<Event>)) {
    // Copied: a thread that begins must not wait until all have been emptied.
    let rings = RINGS.lock().clone();
    for ring in &rings {
        let events: Vec<Event> = ring.events.lock().drain(..).collect();
        if !events.is_empty() {
            each(ring.thread, events);
        }
    }
    // Those of threads that have ended.
    RINGS.lock().retain(|ring| Arc::strong_count(ring) > 2 || !ring.events.lock().is_empty());
}

/// Events that were forgotten since the trace began.
#[must_use]
pub fn dropped() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

/// The task that the calling thread is busy with from here on; 0 for none.
pub fn set_current(task: u64) {
    CURRENT.set(task);
}

/// The task that the calling thread is busy with, if there is a trace.
pub(crate) fn current() -> u64 {
    if is_on(Observer::Trace) { CURRENT.get() } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_thread_and_the_oldest_are_forgotten() {
        assert_eq!(began(), 0);
        start(Observer::Trace);
        let begin = began();
        std::thread::spawn(move || {
            for number in 0..CAPACITY as u64 + 2 {
                emit(Event { number, ..Event::since(Kind::Call, begin) });
            }
        })
        .join()
        .unwrap();
        let mut seen = Vec::new();
        take(|_, events| seen.extend(events.into_iter().filter(|e| e.kind == Kind::Call && e.start_ns == begin)));
        assert_eq!((seen.len(), seen[0].number, dropped()), (CAPACITY, 2, 2));
        stop(Observer::Trace);
        take(|_, _| {});
        take(|_, events| assert!(events.iter().all(|e| e.start_ns != begin)));
    }
}
