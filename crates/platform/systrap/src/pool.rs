//! [`Pool`]: a template and the blank processes made from it ahead, for exec; the platform's [`Stock`].
//!
//! A template is a guest thread like any other that never runs application code: blank processes are its forks,
//! made one after the other whenever fewer than [`TARGET`] are at hand. A refill is started by the dispatcher
//! after an event, not by the task that took a process. The template of another pool is such a fork as well, whose areas
//! come from that pool's memory.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Wake, Waker};

use moat_abi::{Errno, Result};
use moat_platform::{Made, NewProcess, Stock};
use moat_sync::{LockClass, Mutex};

use crate::area::AreaPool;
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
    /// That of some pool can.
    any_wanted: Arc<AtomicBool>,
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
    /// The template's fork has begun; for a template, or as a blank process.
    under_way: Option<Option<Arc<Founding>>>,
    /// Templates that are asked for.
    foundings: VecDeque<Arc<Founding>>,
}

/// A template for another pool that is being made.
struct Founding {
    areas: Arc<AreaPool>,
    outcome: Mutex<Outcome>,
}

#[derive(Default)]
struct Outcome {
    made: Option<Result<Born>>,
    waker: Option<Waker>,
}

impl Founding {
    fn finish(&self, made: Result<Born>) {
        let mut outcome = self.outcome.lock();
        outcome.made = Some(made);
        let waker = outcome.waker.take();
        drop(outcome);
        // Unlocked: who waits may be polled at once, and locks this again.
        waker.into_iter().for_each(Waker::wake);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<Result<Born>> {
        let mut outcome = self.outcome.lock();
        match outcome.made.take() {
            Some(made) => Poll::Ready(made),
            None => {
                outcome.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

struct Refill(Weak<Pool>);

impl Wake for Refill {
    fn wake(self: Arc<Self>) {
        if let Some(pool) = self.0.upgrade() {
            pool.refill();
        }
    }
}

impl Pool {
    /// Without a template yet. `any_wanted` is set when it has something to do.
    pub fn new(any_wanted: Arc<AtomicBool>) -> Arc<Pool> {
        let state = PoolState {
            template: None,
            blanks: Vec::new(),
            waiting: Vec::new(),
            failure: None,
            closed: false,
            waker: None,
            missed: false,
            under_way: None,
            foundings: VecDeque::new(),
        };
        Arc::new(Pool {
            state: Mutex::new(LockClass::Platform, state),
            wanted: AtomicBool::new(false),
            any_wanted,
            template_pid: AtomicI32::new(0),
            broken: AtomicBool::new(false),
        })
    }

    /// Takes over the template. No process is made from it before the first is asked for.
    pub fn start(self: &Arc<Self>, thread: Thread, space: SpaceHandle) {
        let mut s = self.state.lock();
        s.waker = Some(Waker::from(Arc::new(Refill(Arc::downgrade(self)))));
        self.template_pid.store(space.0.pid, Ordering::Relaxed);
        s.template = Some((thread, space));
    }

    /// Has the dispatcher look whether there are blank processes to be made.
    pub fn refill(&self) {
        // This pool's flag first: the dispatcher clears the common one before it looks at those of the pools.
        self.wanted.store(true, Ordering::Release);
        self.any_wanted.store(true, Ordering::Release);
    }

    /// Makes no more processes.
    fn give_up(&self) {
        let mut s = self.state.lock();
        s.closed = true;
        let (template, waiting) = (s.template.take(), std::mem::take(&mut s.waiting));
        let (under_way, foundings) = (s.under_way.take().flatten(), std::mem::take(&mut s.foundings));
        drop(s);
        drop(template);
        under_way.into_iter().chain(foundings).for_each(|founding| founding.finish(Err(Errno::ESRCH)));
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Whether `pid` is its template.
    pub fn is_template(&self, pid: i32) -> bool {
        pid == self.template_pid.load(Ordering::Relaxed)
    }

    /// A process has exited: notes it if it is the template, which only the host itself can kill.
    pub fn exited(&self, pid: i32) {
        if self.is_template(pid) {
            self.broken.store(true, Ordering::Relaxed);
            self.refill();
        }
    }

    /// Whether the template is dead.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// Makes the template of another pool, whose processes have areas of `areas`.
    ///
    /// # Errors
    /// EAGAIN or ENOMEM from the host; ESRCH if this pool's template is dead.
    pub async fn make_template(&self, areas: Arc<AreaPool>) -> Result<Born> {
        let founding = Arc::new(Founding { areas, outcome: Mutex::new(LockClass::Platform, Outcome::default()) });
        {
            let mut s = self.state.lock();
            if s.closed {
                return Err(Errno::ESRCH);
            }
            s.foundings.push_back(founding.clone());
        }
        self.refill();
        self.pump_if_wanted();
        std::future::poll_fn(|cx| founding.poll(cx)).await
    }

    fn poll_take(&self, cx: &mut Context<'_>) -> Poll<Result<NewProcess>> {
        if let Some(taken) = self.take(None) {
            return Poll::Ready(taken);
        }
        self.refill();
        self.pump_if_wanted();
        // Under the same lock as the fill, so that no wake-up is lost.
        match self.take(Some(cx.waker())) {
            Some(taken) => Poll::Ready(taken),
            None => Poll::Pending,
        }
    }

    fn take(&self, waker: Option<&Waker>) -> Option<Result<NewProcess>> {
        let mut s = self.state.lock();
        // The youngest: its pages are the likeliest to be in a cache still.
        if let Some(mut born) = s.blanks.pop() {
            self.refill();
            drop(s);
            born.thread.blank();
            let space = born.space?;
            return Some(Ok(NewProcess { space: Arc::new(space), thread: Box::new(born.thread) }));
        }
        // A failure is told once, so that the next one who asks has the host tried again.
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
            // A fork that has begun is always seen through, even if the stock has filled up meanwhile.
            if s.under_way.is_none() && s.foundings.is_empty() && s.blanks.len() >= TARGET {
                return;
            }
            let Some(waker) = s.waker.clone() else { return };
            let Some((mut thread, space)) = s.template.take() else {
                s.missed = true;
                return;
            };
            if s.under_way.is_none() {
                // Templates come before blank processes: a container waits for each of them, and is started but once.
                let founding = s.foundings.pop_front();
                thread.child_areas = founding.as_ref().map(|founding| founding.areas.clone());
                s.under_way = Some(founding);
            }
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
        // Whoever came by has had a reason (a wake-up of the fork) that this poll may not have seen.
        if std::mem::take(&mut s.missed) {
            self.refill();
        }
        let Poll::Ready(made) = polled else { return };
        let founding = s.under_way.take().flatten();
        match (&founding, made) {
            (Some(founding), made) => {
                self.refill();
                drop(s);
                founding.finish(made);
                return;
            }
            (None, Ok(born)) => s.blanks.push(born),
            (None, Err(errno)) => s.failure = Some(errno),
        }
        // A template may have been asked for while this process was being made.
        let again = !s.foundings.is_empty() || s.failure.is_none() && s.blanks.len() < TARGET;
        let waiting = std::mem::take(&mut s.waiting);
        drop(s);
        if again {
            self.refill();
        }
        for waker in waiting {
            waker.wake();
        }
    }
}

impl Stock for Pool {
    fn new_process(&self) -> Made<'_, NewProcess> {
        Box::pin(std::future::poll_fn(|cx| self.poll_take(cx)))
    }

    fn template(&self) -> Result<OwnedFd> {
        // Its handle is held until the pool is closed, by this or by who polls it, so that the id is its own.
        let s = self.state.lock();
        let pid = rustix::process::Pid::from_raw(self.template_pid.load(Ordering::Relaxed));
        let pid = pid.filter(|_| !s.closed).ok_or(Errno::ESRCH)?;
        Ok(rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())?)
    }

    fn close(&self) {
        self.give_up();
        // Processes are killed by their drop, which is not for under the lock.
        let blanks = std::mem::take(&mut self.state.lock().blanks);
        drop(blanks);
    }
}
