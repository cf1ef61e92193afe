//! [`AsyncMutex`]: a lock that a task may hold across an await.
//!
//! Used where an operation on an address space is half in the sentry and half in a guest thread. First come, first
//! served; not interruptible, so what is done under it must end by itself.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::wait::Wakeup;

#[derive(Default)]
struct AsyncMutexState {
    held: bool,
    queue: VecDeque<Arc<Wakeup>>,
}

/// A fair mutual-exclusion lock for tasks.
#[derive(Default)]
pub struct AsyncMutex {
    state: Arc<parking_lot::Mutex<AsyncMutexState>>,
}

/// The lock, held until dropped.
pub struct AsyncGuard {
    state: Arc<parking_lot::Mutex<AsyncMutexState>>,
}

impl AsyncMutex {
    /// A free lock.
    #[must_use]
    pub fn new() -> AsyncMutex {
        AsyncMutex::default()
    }

    /// Waits for the lock.
    #[must_use]
    pub fn lock(&self) -> Lock {
        Lock { state: self.state.clone(), waiting: None }
    }

    /// Takes the lock if it is free.
    #[must_use]
    pub fn try_lock(&self) -> Option<AsyncGuard> {
        let mut s = self.state.lock();
        if s.held {
            return None;
        }
        s.held = true;
        Some(AsyncGuard { state: self.state.clone() })
    }
}

fn release(state: &parking_lot::Mutex<AsyncMutexState>) {
    let next = {
        let mut s = state.lock();
        let next = s.queue.pop_front();
        // With someone waiting the lock passes on without becoming free.
        s.held = next.is_some();
        next
    };
    if let Some(w) = next {
        // Woken with the state unlocked, which the next poll takes.
        w.fire();
    }
}

impl Drop for AsyncGuard {
    fn drop(&mut self) {
        release(&self.state);
    }
}

/// The future of [`AsyncMutex::lock`].
pub struct Lock {
    state: Arc<parking_lot::Mutex<AsyncMutexState>>,
    waiting: Option<Arc<Wakeup>>,
}

impl Future for Lock {
    type Output = AsyncGuard;
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<AsyncGuard> {
        if self.waiting.is_none() {
            let wakeup = {
                let mut s = self.state.lock();
                if !s.held {
                    s.held = true;
                    None
                } else {
                    let w = Arc::new(Wakeup::default());
                    s.queue.push_back(w.clone());
                    Some(w)
                }
            };
            match wakeup {
                None => return Poll::Ready(AsyncGuard { state: self.state.clone() }),
                Some(w) => self.waiting = Some(w),
            }
        }
        let w = self.waiting.clone().expect("set above");
        match w.poll(cx) {
            Poll::Ready(()) => {
                self.waiting = None;
                Poll::Ready(AsyncGuard { state: self.state.clone() })
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let Some(w) = self.waiting.take() else { return };
        let mut s = self.state.lock();
        let before = s.queue.len();
        s.queue.retain(|x| !Arc::ptr_eq(x, &w));
        // Not in the queue any more: the lock was passed to us and nobody will take it.
        let ours = s.queue.len() == before;
        drop(s);
        if ours {
            release(&self.state);
        }
    }
}
