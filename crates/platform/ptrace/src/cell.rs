//! [`Cell`]: where the tracer leaves the outcome of a thread's command, and whom it wakes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use moat_abi::Result;
use moat_platform::{Event, GuestThread, NewProcess, Regs};
use moat_sync::{LockClass, Mutex};

/// How a command of a guest thread ended.
pub(crate) enum Outcome {
    /// A switch: the event and the registers at it.
    Event(Event, Regs),
    /// An order.
    Order(Result<u64>),
    /// A fork.
    Fork(Result<NewProcess>),
    /// A spawn.
    Spawn(Result<Box<dyn GuestThread>>),
    /// The thread is gone. Not stored: [`Cell::poll`] gives it for ever.
    Dead,
}

/// Shared by a guest thread's handle, its kickers and the tracer.
pub(crate) struct Cell {
    inner: Mutex<Inner>,
    /// The thread runs application code (or is about to): a kick must reach the tracer.
    running: AtomicBool,
    /// A kick that no event has answered yet.
    kicked: AtomicBool,
}

#[derive(Default)]
struct Inner {
    outcome: Option<Outcome>,
    waker: Option<Waker>,
    dead: bool,
}

impl Cell {
    pub fn new() -> Cell {
        Cell {
            inner: Mutex::new(LockClass::Platform, Inner::default()),
            running: AtomicBool::new(false),
            kicked: AtomicBool::new(false),
        }
    }

    /// Prepares for a command: forgets an older outcome. False if the thread is gone.
    pub fn begin(&self, cx: &Context<'_>) -> bool {
        let mut inner = self.inner.lock();
        let stale = (inner.outcome.take(), inner.waker.replace(cx.waker().clone()));
        let alive = !inner.dead;
        drop(inner);
        // Outside the lock: an outcome may own handles, and a waker the task that owns some, whose drop sends commands.
        drop(stale);
        alive
    }

    /// Looks for the outcome of the command.
    pub fn poll(&self, cx: &Context<'_>) -> Poll<Outcome> {
        let mut inner = self.inner.lock();
        if let Some(outcome) = inner.outcome.take() {
            return Poll::Ready(outcome);
        }
        if inner.dead {
            return Poll::Ready(Outcome::Dead);
        }
        if !inner.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            let stale = inner.waker.replace(cx.waker().clone());
            drop(inner);
            drop(stale);
        }
        Poll::Pending
    }

    /// Stores an outcome and wakes the poller.
    pub fn finish(&self, outcome: Outcome) {
        let (old, waker) = {
            let mut inner = self.inner.lock();
            (inner.outcome.replace(outcome), inner.waker.take())
        };
        drop(old);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The thread is gone.
    pub fn die(&self) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.dead = true;
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the thread is gone.
    pub fn is_dead(&self) -> bool {
        self.inner.lock().dead
    }

    /// Asks for an end of the switch; true if the tracer must be told.
    pub fn kick(&self) -> bool {
        self.kicked.store(true, Ordering::SeqCst);
        self.running.load(Ordering::SeqCst)
    }

    /// Whether application code runs.
    pub fn is_running(&self) -> bool {
        self.running.load(Ordering::SeqCst)
    }

    /// The tracer is about to resume application code; false if there is a kick to answer first.
    pub fn start(&self) -> bool {
        self.running.store(true, Ordering::SeqCst);
        !self.kicked.load(Ordering::SeqCst)
    }

    /// An event ends the switch, and answers any kick.
    pub fn stop(&self) {
        self.running.store(false, Ordering::SeqCst);
        self.kicked.store(false, Ordering::SeqCst);
    }

    /// Whether a kick waits for an answer.
    pub fn is_kicked(&self) -> bool {
        self.kicked.load(Ordering::SeqCst)
    }
}
