//! Waiting in the host: calls of futex(2) that the host carries out on the task's thread ([`HostFutex`]), by the rules of
//! [`super::wait`].

use std::future::poll_fn;
use std::task::{Context, Poll};

use moat_abi::{Errno, Result};
use moat_platform::HostFutex;

use crate::error::Restart;
use crate::task::CurrentTask;
use crate::task::wait::{Wait, WaitError, Waiting};
use crate::task::work::Work;

/// What takes the thread out of the host: also that it is to rest.
const ENDS: Work = Work::INTERRUPTS.union(Work::FREEZE);

impl CurrentTask {
    /// Has the host carry out `call`, which may wait as `wait` says; its deadline is in the call. `ended` is looked at each time the
    /// task is woken, and ends the call with EINTR.
    ///
    /// # Errors
    /// [`WaitError`]; the call's own are in the result.
    pub(crate) async fn wait_in_host(
        &mut self,
        wait: &Wait,
        call: &HostFutex,
        mut ended: impl FnMut(&mut Context<'_>) -> bool,
    ) -> std::result::Result<Result<u64>, WaitError> {
        loop {
            if self.work().intersects(Work::INTERRUPTS.difference(Work::SAVE)) {
                return Err(wait.interrupted());
            }
            if self.work().contains(Work::SAVE) {
                return Err(self.give_up(wait));
            }
            if self.work().contains(Work::FREEZE) {
                self.while_frozen().await;
                continue;
            }
            let (task, mut kicked, mut over) = (self.task().clone(), false, false);
            let waiting = Waiting::begin(&task, wait.wchan());
            let result = poll_fn(|cx| {
                // A result beats an interruption.
                if let Poll::Ready(result) = self.thread().poll_futex(cx, call) {
                    return Poll::Ready(result);
                }
                loop {
                    over = over || ended(cx);
                    if over || task.work().intersects(ENDS) {
                        break;
                    }
                    // A stale flag of an earlier wake-up makes this ready once; the second poll leaves the waker.
                    if task.interrupt.poll(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                // The thread itself has to leave the call, and says how that ended.
                if !std::mem::replace(&mut kicked, true)
                    && let Some(kicker) = task.kicker()
                {
                    kicker.kick();
                }
                Poll::Pending
            })
            .await;
            drop(waiting);
            match result {
                Err(Errno::EINTR) if over => return Ok(result),
                Err(Errno::EINTR) => {}
                result => {
                    // It is not to go on while it is frozen.
                    self.while_frozen().await;
                    return Ok(result);
                }
            }
        }
    }

    /// The end of a wait whose task is to be saved: the call is made again, and goes on with its own deadline.
    pub(super) fn give_up(&mut self, wait: &Wait) -> WaitError {
        self.given_up = Some(wait.deadline());
        WaitError::Interrupted(Restart::Again.into())
    }
}
