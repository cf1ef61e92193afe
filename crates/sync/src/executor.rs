//! The executor: runs guest tasks as futures on a few host threads.
//!
//! Worker threads share one queue of runnable futures. A worker without work becomes the *leader* if there is none:
//! it waits in one poll(2) for the platform's event descriptor, the [`crate::reactor`] (and by it [`unpark_leader`]) and the
//! timers; the others sleep. Having taken in an event the leader steps down and runs the future that
//! became runnable, so that a syscall is handled on the thread (and, with the host's synchronous wake-up, on the CPU)
//! that was told of it, with no hand-off. If more became runnable than one thread can do, or the thread is going to block
//! ([`block_in_place`]), another worker is woken and takes the lead. Where the only one awake is busy for long, a sleeper does so by itself:
//! one of them, the *guard*, does so after [`watchdog::INTERVAL`]. With nothing to run there is no guard. A host call that only may
//! sleep is a [`host_call`]: whoever leads or guards does the work of a worker that has been in one for long ([`calls`]).
//!
//! A future that has much to compute does so in turns: it asks [`is_turn_over`] between pieces of some 100 KiB or their like, and
//! is queued behind the others by [`end_turn`]. Before the next one runs the worker looks for events and timers.
//!
//! # Invariants
//! - A future is polled by one thread at a time; the queue holds it at most once.
//! - If the queue is not empty, some worker is running or about to look at it.

mod calls;
mod linger;
mod sleep;

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::os::fd::BorrowedFd;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::{Duration, Instant};

use async_task::Runnable;
use moat_abi::{Errno, Result};
use moat_host::cycles::Clock;
use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};

use crate::{busy, reactor, timer, watchdog};
pub use calls::host_call;
pub use linger::{lingered, may_linger, take_lingered};
use sleep::Guard;

/// Where the events of guest threads come from: the platform, as the executor sees it.
pub trait EventSource: Send + Sync {
    /// Readable when [`EventSource::dispatch`] has something to do.
    fn event_fd(&self) -> Option<BorrowedFd<'_>>;
    /// Takes in at least one event if there is one. Never blocks.
    fn dispatch(&self);
    /// Looks for events without a host call for as long as that pays; true if one was found.
    fn spin(&self) -> bool;
}

struct ExecutorState {
    queue: VecDeque<Runnable>,
    /// A worker is waiting for events, or on its way to.
    leading: bool,
    /// Workers asleep on the condition variable, but for the guard.
    asleep: usize,
    guard: Guard,
    /// Workers that neither sleep nor block.
    active: usize,
    threads: usize,
    stopping: bool,
    /// Events that were found by looking since the descriptors were last looked at.
    unpolled: u32,
}

impl ExecutorState {
    fn new() -> ExecutorState {
        ExecutorState {
            queue: VecDeque::new(),
            leading: false,
            asleep: 0,
            guard: Guard::None,
            active: 0,
            threads: 0,
            stopping: false,
            unpolled: 0,
        }
    }
}

struct Executor {
    state: Mutex<ExecutorState>,
    idle: Condvar,
    /// What the guard sleeps on.
    guarding: Condvar,
    source: OnceLock<Box<dyn EventSource>>,
    max_active: usize,
    lately: calls::Lately,
    /// When it was made.
    began: Clock,
}

/// Threads beyond which blocking work waits for a free one: bounds what a guest can make the sentry allocate.
const MAX_THREADS: usize = 128;
const STACK_BYTES: usize = 512 * 1024;
/// Events that are found by looking before the descriptors are looked at.
const UNPOLLED: u32 = 64;

static EXECUTOR: OnceLock<Executor> = OnceLock::new();

/// How long a future computes before others are to go on. Half as long again is what a sleeper is late by for each worker
/// that is inside one.
const TURN: Duration = Duration::from_millis(1);

thread_local! {
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
    /// When the future that runs was first asked for the length of its turn.
    static TURN_START: Cell<Option<Instant>> = const { Cell::new(None) };
}

fn executor() -> &'static Executor {
    EXECUTOR.get_or_init(|| {
        reactor::init().expect("the executor needs an epoll instance and an eventfd");
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Executor {
            state: Mutex::new(ExecutorState::new()),
            idle: Condvar::new(),
            guarding: Condvar::new(),
            source: OnceLock::new(),
            max_active: cpus.max(1),
            began: Clock::now(),
            lately: calls::Lately::default(),
        }
    })
}

/// Makes the host descriptors that the executor needs, before the seccomp filter forbids it.
///
/// # Errors
/// EMFILE, ENOMEM from the host.
pub fn init() -> Result<()> {
    reactor::init()?;
    executor();
    Ok(())
}

/// Sets where guest events come from; once per process.
///
/// # Errors
/// EBUSY if it is set already.
pub fn set_source(source: Box<dyn EventSource>) -> Result<()> {
    executor().source.set(source).map_err(|_| Errno::EBUSY)
}

/// Starts a future; it runs until it ends.
pub fn spawn(future: impl Future<Output = ()> + Send + 'static) {
    let (runnable, task) = async_task::spawn(future, schedule);
    task.detach();
    runnable.schedule();
}

fn schedule(runnable: Runnable) {
    let e = executor();
    let mut s = e.state.lock();
    s.queue.push_back(runnable);
    if IS_WORKER.get() {
        // This worker looks at the queue when its future yields; help it only if it has more than it can do next.
        if s.queue.len() > 1 && s.has_sleepers() && s.active < e.max_active {
            e.wake_sleeper(&s);
        }
    } else if s.leading {
        drop(s);
        unpark_leader();
    } else if s.has_sleepers() {
        e.wake_sleeper(&s);
    }
}

/// Makes the leader look at its queue and timers again.
pub(crate) fn unpark_leader() {
    if let Some(e) = EXECUTOR.get()
        && e.state.lock().leading
    {
        reactor::interrupt();
    }
}

/// Runs the executor on this thread and on `extra_workers` more, until [`stop`].
pub fn run(extra_workers: usize) {
    for _ in 0..extra_workers {
        start_thread(|_| ());
    }
    executor().state.lock().threads += 1;
    work();
}

/// Makes every worker return once it has finished the future at hand.
pub fn stop() {
    let e = executor();
    e.state.lock().stopping = true;
    e.wake_all();
    // The leader sleeps in poll(2), not on the condition.
    reactor::interrupt();
}

/// How many CPUs of the host the executor may use.
#[must_use]
pub fn host_cpus() -> usize {
    executor().max_active
}

/// Starts a worker, which does `first` before anything else.
fn start_thread(first: fn(&Executor)) {
    let e = executor();
    {
        let mut s = e.state.lock();
        if s.threads >= MAX_THREADS {
            return;
        }
        s.threads += 1;
    }
    let started = std::thread::Builder::new().name("executor".into()).stack_size(STACK_BYTES).spawn(move || {
        first(executor());
        work();
    });
    // The host may have no more threads: those that there are go on.
    if started.is_err() {
        e.state.lock().threads -= 1;
    }
}

/// Runs `f`, which may block, while another worker takes over this one's role.
///
/// For host calls that may sleep: disk, fsync, the gofer. Costs a thread wake-up, so try a non-blocking form first.
pub fn block_in_place<R>(f: impl FnOnce() -> R) -> R {
    if !IS_WORKER.get() {
        return f();
    }
    let e = executor();
    let (need_thread, wake_leader) = {
        let mut s = e.state.lock();
        s.active -= 1;
        // A sleeper takes over the queue, and the lead if nobody has it.
        if s.has_sleepers() {
            e.wake_sleeper(&s);
            (false, false)
        } else {
            // With another at work the queue is seen to; one that leads does not know of what this worker has put there.
            (s.active == 0, s.leading && !s.queue.is_empty())
        }
    };
    if wake_leader {
        reactor::interrupt();
    }
    if need_thread {
        start_thread(|_| ());
    }
    // What `f` makes runnable is for others: `schedule` must wake one.
    IS_WORKER.set(false);
    // Who sleeps here holds no worker.
    watchdog::turn();
    let start = Instant::now();
    let r = f();
    watchdog::turn();
    busy::add_blocked(start.elapsed());
    IS_WORKER.set(true);
    e.state.lock().active += 1;
    r
}

/// Whether the future that runs on this thread has computed for so long that it is to let others go on.
///
/// The turn begins with the first question, so that futures which never ask pay nothing.
#[must_use]
pub fn is_turn_over() -> bool {
    let now = Instant::now();
    match TURN_START.get() {
        Some(start) => now.duration_since(start) >= TURN,
        None => {
            TURN_START.set(Some(now));
            false
        }
    }
}

/// Lets the other futures that are runnable go on, and events be taken in.
pub async fn end_turn() {
    let mut ended = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut ended, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn work() {
    let e = executor();
    IS_WORKER.set(true);
    watchdog::join(calls::is_back);
    e.state.lock().active += 1;
    loop {
        let mut s = e.state.lock();
        if s.stopping {
            break;
        }
        if let Some(runnable) = s.queue.pop_front() {
            // Nobody takes in events while it runs: should that be long, the guard will.
            let guarded = s.leading || s.guard != Guard::None;
            let nobody_sleeps = s.asleep == 0;
            if !guarded {
                s.guard = Guard::Wanted;
                e.idle.notify_one();
            }
            drop(s);
            if !guarded && nobody_sleeps {
                start_thread(|e| e.guard(&mut e.state.lock()));
            }
            TURN_START.set(None);
            watchdog::turn();
            runnable.run();
            watchdog::turn();
            if TURN_START.take().is_some() {
                look_for_events(e);
            }
            continue;
        }
        // Who comes back from `block_in_place` may be one more than there are CPUs.
        if s.leading || s.active > e.max_active {
            s.active -= 1;
            e.sleep(&mut s);
            s.active += 1;
            continue;
        }
        s.leading = true;
        drop(s);
        let polled = wait_for_events(e);
        let mut s = e.state.lock();
        s.leading = false;
        if polled {
            s.unpolled = 0;
        }
        // More than this thread can do next: let another help, and lead.
        if s.queue.len() > 1 && s.has_sleepers() && s.active < e.max_active {
            e.wake_sleeper(&s);
        }
    }
    IS_WORKER.set(false);
    let mut s = e.state.lock();
    s.active -= 1;
    s.threads -= 1;
    drop(s);
    // Each must see for itself that it is to stop.
    e.wake_all();
}

/// Takes in what has happened while a future computed, unless another worker waits for that.
fn look_for_events(e: &Executor) {
    {
        let mut s = e.state.lock();
        if s.leading {
            return;
        }
        s.leading = true;
    }
    timer::fire_due();
    poll_events(e, Some(Duration::ZERO));
    let mut s = e.state.lock();
    (s.leading, s.unpolled) = (false, 0);
}

/// Waits until something may have become runnable; true if the descriptors were looked at.
fn wait_for_events(e: &Executor) -> bool {
    timer::fire_due();
    let (others_run, is_due) = {
        let mut s = e.state.lock();
        if !s.queue.is_empty() {
            return false;
        }
        s.unpolled = s.unpolled.saturating_add(1);
        (s.active > 1, s.unpolled > UNPOLLED)
    };
    let source = e.source.get();
    let found = source.is_some_and(|s| s.spin());
    // A guest that has its next event ready whenever we look must not keep the descriptors waiting for ever.
    if found && !is_due {
        return false;
    }
    let timeout = timer::time_left().map(|left| left.min(Duration::from_secs(3600)));
    if others_run && !found {
        let most = calls::TICK;
        poll_events(e, Some(timeout.map_or(most, |left| left.min(most))));
        e.state.lock().take_over();
        watchdog::look(Instant::now());
        return true;
    }
    // With an event in hand this is only a look at the descriptors.
    poll_events(e, if found { Some(Duration::ZERO) } else { timeout });
    true
}

/// One poll(2) of the leader's.
fn poll_events(e: &Executor, timeout: Option<Duration>) {
    let source = e.source.get();
    let timeout = timeout
        .map(|t| rustix::time::Timespec { tv_sec: t.as_secs().cast_signed(), tv_nsec: i64::from(t.subsec_nanos()) });
    let mut fds = Vec::with_capacity(2);
    let source_fd = source.and_then(|s| s.event_fd());
    let source_at = source_fd.map(|fd| {
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        fds.len() - 1
    });
    let reactor_at = reactor::fd().map(|fd| {
        fds.push(PollFd::from_borrowed_fd(fd, PollFlags::IN));
        fds.len() - 1
    });
    match poll(&mut fds, timeout.as_ref()) {
        Ok(0) | Err(_) => {}
        Ok(_) => {
            if let (Some(at), Some(s)) = (source_at, source)
                && !fds[at].revents().is_empty()
            {
                s.dispatch();
            }
            if reactor_at.is_some_and(|at| !fds[at].revents().is_empty()) {
                reactor::dispatch();
            }
        }
    }
    timer::fire_due();
}

#[cfg(test)]
mod tests;
