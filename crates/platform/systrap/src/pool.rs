//! [`Pool`]: blank processes made ahead, for exec.
//!
//! The template is a guest thread like any other that never runs application code: blank processes are its forks,
//! made one after the other whenever fewer than [`TARGET`] are at hand. A refill is started by the dispatcher
//! after an event, not by the task that took a process.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use moat_abi::{Errno, Result};
use moat_platform::NewProcess;
use moat_sync::{LockClass, Mutex};

use crate::core::SystrapCore;
use crate::space::SpaceHandle;
use crate::state::Born;
use crate::thread::Thread;

/// Blank processes to have ready.
const TARGET: usize = 2;

/// The template and its blank children.
pub struct Pool {
    state: Mutex<PoolState>,
    /// The refill can go on: set by the template's events and by whoever takes a process.
    wanted: AtomicBool,
    template_pid: AtomicI32,
    /// The template is dead: no process can be made any more.
    broken: AtomicBool,
}

struct PoolState {
    template: Option<(Thread, SpaceHandle)>,
    blanks: Vec<Born>,
    waiting: Vec<Waker>,
    failure: Option<Errno>,
    /// No more processes are made.
    closed: bool,
    waker: Option<Waker>,
    /// Somebody came by while the template was being polled.
    missed: bool,
}

struct Refill(Weak<SystrapCore>);

impl Wake for Refill {
    fn wake(self: Arc<Self>) {
        if let Some(core) = self.0.upgrade() {
            core.pool.wanted.store(true, Ordering::Release);
        }
    }
}

impl Pool {
    /// Without a template yet.
    pub fn new() -> Pool {
        let state = PoolState {
            template: None,
            blanks: Vec::new(),
            waiting: Vec::new(),
            failure: None,
            closed: false,
            waker: None,
            missed: false,
        };
        Pool {
            state: Mutex::new(LockClass::Platform, state),
            wanted: AtomicBool::new(false),
            template_pid: AtomicI32::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Takes over the template.
    pub fn start(&self, core: &Arc<SystrapCore>, thread: Thread, space: SpaceHandle) {
        let mut s = self.state.lock();
        s.waker = Some(Waker::from(Arc::new(Refill(Arc::downgrade(core)))));
        self.template_pid.store(space.0.pid, Ordering::Relaxed);
        s.template = Some((thread, space));
        self.wanted.store(true, Ordering::Release);
    }

    /// Ends the template and all blank processes.
    pub fn close(&self) {
        self.give_up();
        let blanks = std::mem::take(&mut self.state.lock().blanks);
        drop(blanks);
    }

    /// Makes no more processes.
    fn give_up(&self) {
        let mut s = self.state.lock();
        s.closed = true;
        let (template, waiting) = (s.template.take(), std::mem::take(&mut s.waiting));
        drop(s);
        drop(template);
        waiting.into_iter().for_each(Waker::wake);
    }

    /// A process has exited: notes it if it is the template, which only the host itself can kill.
    pub fn exited(&self, pid: i32) {
        if pid == self.template_pid.load(Ordering::Relaxed) {
            self.broken.store(true, Ordering::Relaxed);
            self.wanted.store(true, Ordering::Release);
        }
    }

    /// Whether the template is dead.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Takes a blank process.
    pub fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<NewProcess>> {
        if let Some(taken) = self.take(None) {
            return Poll::Ready(taken);
        }
        self.wanted.store(true, Ordering::Release);
        self.pump_if_wanted();
        // Under the same lock as the fill, so that no wake-up is lost.
        match self.take(Some(cx.waker())) {
            Some(taken) => Poll::Ready(taken),
            None => Poll::Pending,
        }
    }

    fn take(&self, waker: Option<&Waker>) -> Option<Result<NewProcess>> {
        let mut s = self.state.lock();
        if let Some(mut born) = s.blanks.pop() {
            self.wanted.store(true, Ordering::Release);
            drop(s);
            born.thread.blank();
            let space = born.space?;
            return Some(Ok(NewProcess { space: Arc::new(space), thread: Box::new(born.thread) }));
        }
        let failure = if s.closed { Some(Errno::ESRCH) } else { s.failure.take() };
        if let Some(errno) = failure {
            return Some(Err(errno));
        }
        s.waiting.extend(waker.cloned());
        None
    }

    /// Goes on with the refill if there is something to do. Never blocks.
    pub fn pump_if_wanted(&self) {
        while self.wanted.swap(false, Ordering::AcqRel) {
            self.pump();
        }
    }

    /// Polls the template's fork once, outside the lock: another thread that comes by meanwhile finds no template and
    /// has this one look again.
    fn pump(&self) {
        if self.is_broken() {
            self.give_up();
            return;
        }
        let (mut thread, space, waker) = {
            let mut s = self.state.lock();
            if s.blanks.len() >= TARGET {
                return;
            }
            let Some(waker) = s.waker.clone() else { return };
            let Some((thread, space)) = s.template.take() else {
                s.missed = true;
                return;
            };
            (thread, space, waker)
        };
        let polled = thread.poll_make_process(&mut Context::from_waker(&waker));
        let mut s = self.state.lock();
        if s.closed {
            drop(s);
            drop((thread, space));
            return;
        }
        s.template = Some((thread, space));
        if std::mem::take(&mut s.missed) {
            self.wanted.store(true, Ordering::Release);
        }
        match polled {
            Poll::Pending => return,
            Poll::Ready(Ok(born)) => s.blanks.push(born),
            Poll::Ready(Err(errno)) => s.failure = Some(errno),
        }
        let again = s.failure.is_none() && s.blanks.len() < TARGET;
        let waiting = std::mem::take(&mut s.waiting);
        drop(s);
        if again {
            self.wanted.store(true, Ordering::Release);
        }
        for waker in waiting {
            waker.wake();
        }
    }
}
