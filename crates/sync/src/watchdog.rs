//! The watchdog: tells of tasks that hold a worker for longer than [`LONG`].
//!
//! There is no thread for it. The worker that leads looks at the others while it waits for events, and wakes up for that each second as long
//! as one of them is busy; where the one that led is busy itself the guard takes its place ([`crate::executor`]). An idle executor is left
//! alone. Where all workers are held there is nobody to look.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::busy;

/// How long a task may hold a worker before it is named.
pub const LONG: Duration = Duration::from_secs(5);

/// How often the worker that leads looks.
pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

/// A task that holds a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The worker's thread.
    pub worker: i32,
    /// The task's process and thread; zeros if it is a future of the sentry's own.
    pub task: (i32, i32),
    /// How long it has been seen to hold the worker.
    pub time: Duration,
}

struct Worker {
    thread: i32,
    /// Odd while a future runs; each change is another one.
    turns: AtomicU64,
    process: AtomicI32,
    task: AtomicI32,
    /// When it entered the host call that it is in, or began to wait for a lock, by [`now_ns`]; else one of the values below.
    call: AtomicU64,
    /// See [`join`].
    back: fn(),
}

/// The worker is in no host call.
const OUTSIDE: u64 = 0;
/// It is, and another has taken over.
const TAKEN: u64 = 1;

/// How a host call has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// Nobody took notice.
    Unnoticed,
    /// Another worker does this one's work.
    TakenOver,
}

struct Seen {
    turns: u64,
    since: Instant,
    is_told: bool,
}

struct Watched {
    worker: Arc<Worker>,
    seen: Seen,
}

// No lock with a class: the workers have none at these points.
static WORKERS: parking_lot::Mutex<Vec<Watched>> = parking_lot::Mutex::new(Vec::new());
static TELL: OnceLock<fn(Held)> = OnceLock::new();

thread_local! {
    static OWN: OnceCell<Arc<Worker>> = const { OnceCell::new() };
}

/// Who is told; once.
pub fn tell(tell: fn(Held)) {
    let _ = TELL.set(tell);
}

/// The calling thread is a worker from here on; `back` is called when another has taken over its work while it waited for a lock, and the
/// wait is over.
pub(crate) fn join(back: fn()) {
    OWN.with(|own| {
        let _ = own.get_or_init(|| Worker::listed(back));
    });
}

impl Worker {
    /// The calling thread's.
    fn listed(back: fn()) -> Arc<Worker> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        let (turns, process, task) = (AtomicU64::new(0), AtomicI32::new(0), AtomicI32::new(0));
        let worker = Arc::new(Worker { thread, turns, process, task, call: AtomicU64::new(OUTSIDE), back });
        let seen = Seen { turns: 0, since: Instant::now(), is_told: false };
        let mut workers = WORKERS.lock();
        // Those of threads that have ended.
        workers.retain(|watched| Arc::strong_count(&watched.worker) > 1);
        workers.push(Watched { worker: worker.clone(), seen });
        worker
    }
}

/// A future begins to run on the calling worker, or ends.
pub(crate) fn turn() {
    OWN.with(|own| {
        let worker = own.get_or_init(|| Worker::listed(|| ()));
        // Only the worker itself writes.
        worker.turns.store(worker.turns.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    });
}

/// CLOCK_MONOTONIC in nanoseconds, which is none of the values above.
fn now_ns() -> u64 {
    let now = Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX).max(TAKEN.saturating_add(1))
}

/// The calling worker enters a host call, and holds nothing for as long.
pub(crate) fn enter_call() {
    turn();
    OWN.with(|own| {
        if let Some(worker) = own.get() {
            worker.call.store(now_ns(), Ordering::SeqCst);
        }
    });
}

/// It has come back.
pub(crate) fn leave_call() -> Call {
    turn();
    let was = OWN.with(|own| own.get().map_or(OUTSIDE, |worker| worker.call.swap(OUTSIDE, Ordering::SeqCst)));
    if was == TAKEN { Call::TakenOver } else { Call::Unnoticed }
}

/// Waits for a lock that another thread has, by `lock`: perhaps for as long as that is in a host call, so others may take over from a
/// worker here as they may there. A worker that waits for long is told of all the same.
pub(crate) fn wait_for_lock<G>(lock: impl FnOnce() -> G) -> G {
    let worker = OWN.try_with(|own| own.get().cloned()).ok().flatten();
    // In a host call, or between futures, nobody waits for what this worker does.
    let runs = |worker: &Arc<Worker>| {
        !worker.turns.load(Ordering::Relaxed).is_multiple_of(2) && worker.call.load(Ordering::SeqCst) == OUTSIDE
    };
    let Some(worker) = worker.filter(runs) else { return lock() };
    let start = Instant::now();
    worker.call.store(now_ns(), Ordering::SeqCst);
    let guard = lock();
    if worker.call.swap(OUTSIDE, Ordering::SeqCst) == TAKEN {
        busy::add_blocked(start.elapsed());
        (worker.back)();
    }
    guard
}

/// Takes over from the workers that have been in a host call, or have waited for a lock, for longer than `patience_ns`; how many.
pub(crate) fn take_over(patience_ns: u64) -> usize {
    let latest = now_ns().saturating_sub(patience_ns);
    let is_taken = |watched: &&Watched| {
        let call = &watched.worker.call;
        let since = call.load(Ordering::SeqCst);
        since > TAKEN
            && since < latest
            && call.compare_exchange(since, TAKEN, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    };
    WORKERS.lock().iter().filter(is_taken).count()
}

/// The calling worker is busy with this process's thread from here on; zeros: with none.
pub fn set_task(process: i32, task: i32) {
    OWN.with(|own| {
        if let Some(worker) = own.get() {
            worker.process.store(process, Ordering::Relaxed);
            worker.task.store(task, Ordering::Relaxed);
        }
    });
}

/// What the calling worker is busy with; zeros for none.
#[must_use]
pub fn task() -> (i32, i32) {
    let of = |worker: &Arc<Worker>| (worker.process.load(Ordering::Relaxed), worker.task.load(Ordering::Relaxed));
    OWN.try_with(|own| own.get().map(of).unwrap_or_default()).unwrap_or_default()
}

/// Looks at all workers, and tells of each that has held its task for long, once.
pub(crate) fn look(now: Instant) {
    let mut held = Vec::new();
    for Watched { worker, seen } in WORKERS.lock().iter_mut() {
        let turns = worker.turns.load(Ordering::Relaxed);
        if turns != seen.turns || turns.is_multiple_of(2) {
            *seen = Seen { turns, since: now, is_told: false };
            continue;
        }
        let time = now.saturating_duration_since(seen.since);
        if time >= LONG && !seen.is_told {
            seen.is_told = true;
            let task = (worker.process.load(Ordering::Relaxed), worker.task.load(Ordering::Relaxed));
            held.push(Held { worker: worker.thread, task, time });
        }
    }
    // With the lock given up: who is told may take long.
    if let Some(tell) = TELL.get() {
        held.into_iter().for_each(tell);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    static TOLD: parking_lot::Mutex<Vec<Held>> = parking_lot::Mutex::new(Vec::new());

    #[test]
    fn who_holds_a_worker_for_long_is_named_once() {
        tell(|held| TOLD.lock().push(held));
        let (go, gone) = mpsc::channel();
        let (ready, is_ready) = mpsc::channel();
        let worker = std::thread::spawn(move || {
            turn();
            set_task(7, 8);
            ready.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            gone.recv().unwrap();
            turn();
            ready.send(0).unwrap();
            gone.recv().unwrap();
        });
        let thread = is_ready.recv().unwrap();
        let now = Instant::now();
        let told = || TOLD.lock().iter().filter(|held| held.worker == thread).copied().collect::<Vec<_>>();
        for seconds in [0, 4] {
            look(now + Duration::from_secs(seconds));
            assert_eq!(told(), []);
        }
        look(now + Duration::from_secs(6));
        look(now + Duration::from_secs(9));
        assert_eq!(told(), [Held { worker: thread, task: (7, 8), time: Duration::from_secs(6) }]);
        go.send(()).unwrap();
        is_ready.recv().unwrap();
        look(now + Duration::from_secs(20));
        look(now + Duration::from_secs(30));
        assert_eq!(told().len(), 1);
        go.send(()).unwrap();
        worker.join().unwrap();
    }
}
