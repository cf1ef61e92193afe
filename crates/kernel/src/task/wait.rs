//! Waiting: the one place where a task sleeps, and how signals end the sleep.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use moat_abi::{Errno, PollEvents};
use moat_sync::WaitQueue;
use moat_sync::timer::sleep_until;
use moat_sync::wait::Listener;

use crate::task::CurrentTask;
use crate::task::Task;
use crate::task::work::Work;

/// A point on the host's monotonic clock at which a wait ends.
pub type Deadline = Instant;

/// A wait ended because of a signal, a kill or a stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted;

/// Why a wait ended before its object was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitError {
    /// A signal to deliver, a kill, a stop.
    Interrupted,
    /// The deadline passed.
    TimedOut,
}

impl From<Interrupted> for WaitError {
    fn from(_: Interrupted) -> Self {
        WaitError::Interrupted
    }
}

/// What may end a wait besides its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interruptible {
    /// Any work for the task: `TASK_INTERRUPTIBLE`.
    BySignals,
    /// The death of the task only: `TASK_KILLABLE`.
    ByKill,
}

impl Interruptible {
    fn mask(self) -> Work {
        match self {
            Interruptible::BySignals => Work::INTERRUPTS,
            Interruptible::ByKill => Work::KILL,
        }
    }
}

/// Polls `inner` unless the task has work that interrupts it.
struct Guarded<'a, F> {
    task: &'a Task,
    mask: Work,
    inner: F,
}

impl<F: Future + Unpin> Future for Guarded<'_, F> {
    type Output = Result<F::Output, Interrupted>;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Poll::Ready(value) = Pin::new(&mut self.inner).poll(cx) {
            return Poll::Ready(Ok(value));
        }
        loop {
            if self.task.work().intersects(self.mask) {
                return Poll::Ready(Err(Interrupted));
            }
            // A stale flag of an earlier wake-up makes this Ready once; the second poll leaves the waker.
            if self.task.interrupt.poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl CurrentTask {
    /// Waits for `listener`, at most until `deadline`.
    ///
    /// `wchan` names the wait for /proc/PID/wchan and stack dumps. No lock may be held.
    ///
    /// # Errors
    /// [`WaitError::Interrupted`] if a signal is to be delivered or the task is to stop or die.
    pub async fn wait(
        &mut self,
        listener: &mut Listener,
        deadline: Option<Deadline>,
        wchan: &'static str,
    ) -> Result<(), WaitError> {
        self.wait_as(listener, deadline, wchan, Interruptible::BySignals).await
    }

    /// As [`CurrentTask::wait`], with a choice of what interrupts.
    ///
    /// A frozen task stays here until it is thawed, whatever happens to the object.
    ///
    /// # Errors
    /// As [`CurrentTask::wait`].
    pub async fn wait_as(
        &mut self,
        listener: &mut Listener,
        deadline: Option<Deadline>,
        wchan: &'static str,
        by: Interruptible,
    ) -> Result<(), WaitError> {
        if self.task().work().contains(Work::FREEZE) {
            self.group.container.note_stopped();
        }
        let done = self.wait_unfrozen(listener, deadline, wchan, by).await;
        self.while_frozen().await;
        done
    }

    /// Sleeps for as long as the task's container is frozen; only its death ends that early (`do_freezer_trap`).
    pub(crate) async fn while_frozen(&mut self) {
        if !self.task().work().contains(Work::FREEZE) {
            return;
        }
        let container = self.group.container.clone();
        let mut listener = container.thawed().listen(PollEvents::all());
        container.note_stopped();
        while self.task().work().contains(Work::FREEZE) {
            let wait = self.wait_unfrozen(&mut listener, None, "do_freezer_trap", Interruptible::ByKill);
            if wait.await.is_err() {
                return;
            }
        }
    }

    async fn wait_unfrozen(
        &mut self,
        listener: &mut Listener,
        deadline: Option<Deadline>,
        wchan: &'static str,
        by: Interruptible,
    ) -> Result<(), WaitError> {
        let _waiting = Waiting::begin(self.task(), wchan);
        match deadline {
            None => Ok(Guarded { task: self.task(), mask: by.mask(), inner: listener }.await?),
            Some(at) => {
                let mut sleep = sleep_until(at);
                let either = std::future::poll_fn(|cx| {
                    if Pin::new(&mut *listener).poll(cx).is_ready() {
                        return Poll::Ready(Ok(()));
                    }
                    Pin::new(&mut sleep).poll(cx).map(|()| Err(WaitError::TimedOut))
                });
                Guarded { task: self.task(), mask: by.mask(), inner: either }.await?
            }
        }
    }

    /// Waits for one of `events` on `queue`.
    ///
    /// The change must not have happened before this call: to look at an object and wait without missing a change,
    /// listen first, look, then [`CurrentTask::wait`]; [`CurrentTask::block_on`] does that.
    ///
    /// # Errors
    /// Interrupted.
    pub async fn wait_on(
        &mut self,
        queue: &WaitQueue,
        events: PollEvents,
        wchan: &'static str,
    ) -> Result<(), WaitError> {
        let mut listener = queue.listen(events);
        self.wait(&mut listener, None, wchan).await
    }

    /// Calls `attempt` until it gives something else than EAGAIN, waiting on `queue` in between.
    ///
    /// # Errors
    /// Those of `attempt`; a restart if interrupted; EAGAIN once the deadline has passed.
    pub async fn block_on<R>(
        &mut self,
        queue: &WaitQueue,
        events: PollEvents,
        deadline: Option<Deadline>,
        wchan: &'static str,
        mut attempt: impl FnMut(&mut CurrentTask) -> moat_abi::Result<R>,
    ) -> Result<R, crate::SyscallError> {
        match attempt(self) {
            Err(Errno::EAGAIN) => {}
            done => return Ok(done?),
        }
        let mut listener = queue.listen(events);
        loop {
            match attempt(self) {
                Err(Errno::EAGAIN) => self.wait(&mut listener, deadline, wchan).await?,
                done => return Ok(done?),
            }
        }
    }

    /// Sleeps until `deadline` (for ever without one).
    ///
    /// # Errors
    /// Interrupted before.
    pub async fn sleep(&mut self, deadline: Option<Deadline>, wchan: &'static str) -> Result<(), Interrupted> {
        match self.wait(&mut Listener::new(), deadline, wchan).await {
            Err(WaitError::Interrupted) => Err(Interrupted),
            Ok(()) | Err(WaitError::TimedOut) => Ok(()),
        }
    }

    /// Whether a wait would be interrupted at once.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        self.task().work().intersects(Work::INTERRUPTS)
    }
}

/// Names what a task waits for, until dropped.
struct Waiting<'a>(&'a Task);

impl<'a> Waiting<'a> {
    fn begin(task: &'a Task, wchan: &'static str) -> Waiting<'a> {
        *task.wchan.lock() = Some(wchan);
        Waiting(task)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        *self.0.wchan.lock() = None;
    }
}
