//! Waiting: the one way in which a task sleeps, [`CurrentTask::wait_for`].
//!
//! A call that may block says three things: its [`Source`], which is what to listen to; its look, which tries once and
//! gives [`Poll::Pending`] where the call has to wait; and its [`Wait`], which is what else ends the wait and how the call
//! goes on after a signal. Kernel objects never block: they give EAGAIN, which [`until_ready`] turns into a look.
//!
//! # Invariants
//! - Listen before look: a change between the look and the sleep wakes the sleeper. Only the first look comes before, so that
//!   a call that need not wait registers nowhere and allocates nothing.
//! - Whatever ended the sleep, the look decides: it is made once more after a signal and after the deadline, as
//!   `wait_event_interruptible` does.
//! - Every wait that a signal ends says what its restart is. So a wait can be given up at any time and begun again by the
//!   restart alone: what the repeated call needs is in the task ([`Restart::Block`], the saved mask, the vfork(2) child, stop
//!   states) or in guest memory, and nothing is in the future only. A call with partial progress gives it as its result.
//! - A wait that signals don't end ([`Wait::killable`]) looks at state that is in the task or its thread group alone.
//! - A frozen task stays asleep until it is thawed, whatever happens to its object; or until it is saved (`rest`): then its wait ends
//!   as by a signal, but is begun again before anything else, with the time that was left.
//! - No lock is held across a wait.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Instant;

use moat_abi::{Errno, PollEvents, Result};
use moat_host::clock::monotonic_ns;
use moat_sync::WaitQueue;
use moat_sync::timer::sleep_until;
use moat_sync::trace::{self, Event, Kind, Observer};
use moat_sync::wait::Listener;
use moat_vfs::OpenFile;

use crate::error::{Restart, SyscallError};
use crate::task::CurrentTask;
use crate::task::Task;
use crate::task::rest::Resume;
use crate::task::waits::WaitSite;
use crate::task::work::Work;

pub use crate::error::Deadline;

/// Why a wait ended before its look gave a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// A signal to deliver, a kill, a stop; the call ends with this error.
    Interrupted(SyscallError),
    /// The deadline passed, or nothing can ever end the wait.
    TimedOut,
}

impl WaitError {
    /// The error of the call, with `timed_out` for a deadline that passed.
    #[must_use]
    pub fn or_timed_out(self, timed_out: Errno) -> SyscallError {
        match self {
            WaitError::Interrupted(error) => error,
            WaitError::TimedOut => timed_out.into(),
        }
    }
}

impl From<WaitError> for SyscallError {
    /// A wait that timed out is EAGAIN, which callers with another rule handle first.
    fn from(e: WaitError) -> Self {
        e.or_timed_out(Errno::EAGAIN)
    }
}

/// What a signal does to a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OnSignal {
    /// Nothing: the death of the task only ends the wait (`TASK_KILLABLE`).
    Stay,
    /// It ends the wait (`TASK_INTERRUPTIBLE`), and the call fails so.
    End(SyscallError),
}

impl OnSignal {
    fn mask(self) -> Work {
        match self {
            OnSignal::Stay => Work::KILL,
            OnSignal::End(_) => Work::INTERRUPTS,
        }
    }

    fn error(self) -> SyscallError {
        match self {
            // Nobody sees it: the task dies before application code runs.
            OnSignal::Stay => Restart::NoIntr.into(),
            OnSignal::End(error) => error,
        }
    }
}

/// What ends a wait besides its look, and how the call goes on then.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    wchan: &'static str,
    deadline: Option<Deadline>,
    on_signal: OnSignal,
    /// How the task is saved that waits here, if not by giving up the call.
    resume: Option<Resume>,
}

impl Wait {
    /// A wait that signals end and `restart` makes again. `wchan` names it for /proc/PID/wchan and stack dumps.
    #[must_use]
    pub fn restarting(wchan: &'static str, restart: Restart) -> Wait {
        Wait { wchan, deadline: None, on_signal: OnSignal::End(restart.into()), resume: None }
    }

    /// A wait that signals end with EINTR, whatever the handler's flags.
    #[must_use]
    pub fn failing(wchan: &'static str) -> Wait {
        Wait { wchan, deadline: None, on_signal: OnSignal::End(Errno::EINTR.into()), resume: None }
    }

    /// A wait that only the death of the task ends.
    #[must_use]
    pub fn killable(wchan: &'static str) -> Wait {
        Wait { wchan, deadline: None, on_signal: OnSignal::Stay, resume: None }
    }

    /// As [`Wait::killable`], for a wait that `resume` begins again in a task that was saved.
    #[must_use]
    pub(crate) fn resumable(wchan: &'static str, resume: Resume) -> Wait {
        Wait { resume: Some(resume), ..Wait::killable(wchan) }
    }

    /// What ends its sleep early.
    fn mask(&self) -> Work {
        let saved = if self.resume.is_some() { Work::SAVE } else { Work::empty() };
        self.on_signal.mask() | saved
    }

    /// The same wait, at most until `deadline` if there is one.
    #[must_use]
    pub fn until(self, deadline: Option<Deadline>) -> Wait {
        Wait { deadline, ..self }
    }

    /// Its name.
    pub(super) fn wchan(&self) -> &'static str {
        self.wchan
    }

    /// When it is over.
    pub(super) fn deadline(&self) -> Option<Deadline> {
        self.deadline
    }

    /// The end of this wait by a signal.
    #[must_use]
    pub fn interrupted(&self) -> WaitError {
        WaitError::Interrupted(self.on_signal.error())
    }

    /// Whether its deadline has passed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.deadline.is_some_and(|at| at <= Instant::now())
    }
}

/// Whether a listener can be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listening {
    /// By a change.
    Yes,
    /// The source never changes: waiting for it is of no use.
    Never,
}

/// What a wait listens to: one queue, several, or none.
pub trait Source {
    /// Registers `listener` for the changes that the look depends on.
    fn listen(&self, listener: &mut Listener) -> Listening;

    /// A count that grows with each change, where there is one: it saves the look after listening.
    fn changes(&self) -> Option<u64> {
        None
    }
}

/// Some events of one queue.
impl Source for (&WaitQueue, PollEvents) {
    fn listen(&self, listener: &mut Listener) -> Listening {
        listener.add(self.0, self.1);
        Listening::Yes
    }

    fn changes(&self) -> Option<u64> {
        Some(self.0.wakes())
    }
}

/// Some events of an open file.
impl Source for (&OpenFile, PollEvents) {
    fn listen(&self, listener: &mut Listener) -> Listening {
        match self.0.register(self.1, listener.notifier()) {
            Some(registration) => {
                listener.keep(registration);
                Listening::Yes
            }
            None => Listening::Never,
        }
    }
}

/// Nothing: only a signal or the deadline ends the wait.
impl Source for () {
    fn listen(&self, _listener: &mut Listener) -> Listening {
        Listening::Yes
    }

    fn changes(&self) -> Option<u64> {
        Some(0)
    }
}

/// The look that an attempt makes: EAGAIN waits, all else is the result.
pub fn until_ready<R>(attempt: Result<R>) -> Poll<Result<R>> {
    match attempt {
        Err(Errno::EAGAIN) => Poll::Pending,
        done => Poll::Ready(done),
    }
}

/// The task has work that ends its wait.
struct HasWork;

/// Polls `inner` unless the task has work that interrupts it.
struct Guarded<'a, F> {
    task: &'a Task,
    mask: Work,
    inner: F,
}

impl<F: Future + Unpin> Future for Guarded<'_, F> {
    type Output = std::result::Result<F::Output, HasWork>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // A result beats an interruption.
        if let Poll::Ready(value) = Pin::new(&mut self.inner).poll(cx) {
            return Poll::Ready(Ok(value));
        }
        loop {
            if self.task.work().intersects(self.mask) {
                return Poll::Ready(Err(HasWork));
            }
            // A stale flag of an earlier wake-up makes this Ready once; the second poll leaves the waker.
            if self.task.interrupt.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl CurrentTask {
    /// Waits until `look` gives a value.
    ///
    /// The look is made at once, and again after each change of `source`, each time with the task unlocked.
    ///
    /// # Errors
    /// [`WaitError`]; a look that can fail has its errors in `R`.
    pub async fn wait_for<R>(
        &mut self,
        source: &(impl Source + ?Sized),
        wait: &Wait,
        mut look: impl FnMut(&mut CurrentTask) -> Poll<R>,
    ) -> std::result::Result<R, WaitError> {
        let resumed = self.resumed(wait);
        let wait = resumed.as_ref().unwrap_or(wait);
        let before = source.changes();
        if let Poll::Ready(value) = look(self) {
            return Ok(value);
        }
        if wait.is_over() {
            return Err(WaitError::TimedOut);
        }
        let mut listener = Listener::new();
        if source.listen(&mut listener) == Listening::Never {
            return Err(WaitError::TimedOut);
        }
        if before.is_some() && source.changes() == before {
            // Nothing has changed since the look.
            self.sleep_on(&mut listener, wait, &mut look).await
        } else {
            self.wait_with(&mut listener, wait, look).await
        }
    }

    /// As [`CurrentTask::wait_for`], with a listener that has been registered before: where entering the queue is part of what
    /// the call does, as with a futex.
    ///
    /// # Errors
    /// As [`CurrentTask::wait_for`].
    pub async fn wait_with<R>(
        &mut self,
        listener: &mut Listener,
        wait: &Wait,
        mut look: impl FnMut(&mut CurrentTask) -> Poll<R>,
    ) -> std::result::Result<R, WaitError> {
        let resumed = self.resumed(wait);
        let wait = resumed.as_ref().unwrap_or(wait);
        match look(self) {
            Poll::Ready(value) => Ok(value),
            Poll::Pending => self.sleep_on(listener, wait, &mut look).await,
        }
    }

    /// Sleeps until a signal or the deadline ends it.
    ///
    /// # Errors
    /// The restart of `wait`, if it was interrupted before.
    pub async fn sleep(&mut self, wait: &Wait) -> std::result::Result<(), SyscallError> {
        match self.wait_for(&(), wait, |_| Poll::<Infallible>::Pending).await {
            Err(WaitError::TimedOut) => Ok(()),
            Err(WaitError::Interrupted(error)) => Err(error),
            Ok(never) => match never {},
        }
    }

    /// Sleeps and looks in turn.
    async fn sleep_on<R>(
        &mut self,
        listener: &mut Listener,
        wait: &Wait,
        look: &mut impl FnMut(&mut CurrentTask) -> Poll<R>,
    ) -> std::result::Result<R, WaitError> {
        loop {
            // `freeze` may be waiting for this task to rest.
            if self.task().work().contains(Work::FREEZE) {
                self.group.container.note_stopped();
            }
            let mut ended = self.sleep_once(listener, wait, wait.mask()).await;
            if let Some(resume) = wait.resume.as_ref().filter(|_| self.work().contains(Work::FREEZE)) {
                self.rest(resume).await;
                if !self.work().contains(Work::KILL) {
                    ended = Ok(());
                }
            }
            // A look would let the call end, which is not to happen while frozen.
            self.while_frozen().await;
            if let Poll::Ready(value) = look(self) {
                return Ok(value);
            }
            ended?;
        }
    }

    /// The wait of a call that goes on with the time that was left of it.
    fn resumed(&mut self, wait: &Wait) -> Option<Wait> {
        let deadline = self.take_restart_deadline()?;
        Some(wait.until(deadline))
    }

    /// Sleeps for as long as the task's container is frozen; only its death ends that early (`do_freezer_trap`), or that it is
    /// to be saved.
    pub(super) async fn while_frozen(&mut self) {
        if !self.task().work().contains(Work::FREEZE) {
            return;
        }
        let container = self.group.container.clone();
        let mut listener = container.thawed().listen(PollEvents::all());
        container.note_stopped();
        let wait = Wait::killable("do_freezer_trap");
        while self.task().work().contains(Work::FREEZE) && !self.task().work().contains(Work::SAVE) {
            if self.sleep_once(&mut listener, &wait, Work::KILL | Work::SAVE).await.is_err() {
                return;
            }
        }
    }

    /// Sleeps until `listener` is told of something, the deadline, or work in `mask`.
    pub(super) async fn sleep_once(
        &mut self,
        listener: &mut Listener,
        wait: &Wait,
        mask: Work,
    ) -> std::result::Result<(), WaitError> {
        let waiting = Waiting::begin(self.task(), wait.wchan);
        let began_ns = trace::began();
        let mut sleep = wait.deadline.map(sleep_until);
        let either = std::future::poll_fn(|cx| {
            // A change beats the deadline.
            if Pin::new(&mut *listener).poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            match &mut sleep {
                Some(sleep) => Pin::new(sleep).poll(cx).map(|()| Err(WaitError::TimedOut)),
                None => Poll::Pending,
            }
        });
        let ended = Guarded { task: self.task(), mask, inner: either }.await;
        drop(waiting);
        let ended = match ended {
            Ok(ended) => ended,
            Err(HasWork) if self.work().intersects(Work::INTERRUPTS.difference(Work::SAVE)) => Err(wait.interrupted()),
            // Only a checkpoint wants it.
            Err(HasWork) => Err(self.give_up(wait)),
        };
        if began_ns != 0 {
            self.observe_wait(began_ns, wait.wchan, listener, &ended);
        }
        ended
    }

    #[cold]
    fn observe_wait(
        &self,
        began_ns: u64,
        wchan: &'static str,
        listener: &Listener,
        ended: &std::result::Result<(), WaitError>,
    ) {
        let result = match ended {
            Ok(()) => listener.woken_by(),
            Err(WaitError::Interrupted(_)) => self.interrupt.fired_by(),
            Err(WaitError::TimedOut) => 0,
        };
        let event = Event { label: wchan, result, ..Event::since(Kind::Wait, began_ns) };
        if trace::is_on(Observer::Times) {
            self.kernel().times.add_wait(event.duration_ns);
        }
        self.emit(event);
    }

    /// Whether a wait would be interrupted at once.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.task().work().intersects(Work::INTERRUPTS)
    }
}

impl Task {
    /// Where a wait of that name is.
    pub(crate) fn wait_site(&self, wchan: &'static str) -> WaitSite {
        let call = self.call.get().map(|(number, _)| number);
        WaitSite { tgid: self.tgid(), comm: self.comm(), call, wchan }
    }

    /// What it waits for and since when on the monotonic clock; 0 if that is before a [`crate::task::waits::WaitProfile`] began.
    pub fn waiting(&self) -> Option<(WaitSite, u64)> {
        let wchan = (*self.wchan.lock())?;
        Some((self.wait_site(wchan), self.waiting_since_ns.load(Ordering::Relaxed)))
    }
}

/// Names what a task waits for, until dropped.
pub(super) struct Waiting<'a> {
    task: &'a Task,
    wchan: &'static str,
}

impl<'a> Waiting<'a> {
    pub(super) fn begin(task: &'a Task, wchan: &'static str) -> Waiting<'a> {
        let since_ns = if task.kernel().waits.is_on() { monotonic_ns() } else { 0 };
        task.waiting_since_ns.store(since_ns, Ordering::Relaxed);
        *task.wchan.lock() = Some(wchan);
        Waiting { task, wchan }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Waiting { task, wchan } = *self;
        *task.wchan.lock() = None;
        let waits = &task.kernel().waits;
        if waits.is_on() {
            waits.add(task.wait_site(wchan), task.waiting_since_ns.load(Ordering::Relaxed));
        }
    }
}
