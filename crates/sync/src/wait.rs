//! [`WaitQueue`]: how an object tells that its readiness changed.
//!
//! An object owns a `WaitQueue` and calls [`WaitQueue::wake`] after each change, outside its own locks where it
//! can. Who waits registers first and looks at the object afterwards, so that no change is missed: [`WaitQueue::until`] does
//! that for the sentry's own futures. Tasks, which signals interrupt, wait by `CurrentTask::wait_for`.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use moat_abi::PollEvents;

use crate::lock::{LockClass, Mutex};
use crate::trace;

/// Something that is told of readiness.
pub trait Notify: Send + Sync {
    /// Called with the events that may have come true. Must not block; may be called spuriously and from any
    /// thread, with the queue's owner possibly locked: it must not call back into the object.
    fn notify(&self, events: PollEvents);
}

struct Entry {
    id: u64,
    events: PollEvents,
    notify: Arc<dyn Notify>,
}

#[derive(Default)]
struct List {
    next_id: u64,
    entries: Vec<Entry>,
}

struct Inner {
    // Both are read without the list's lock.
    len: AtomicUsize,
    wakes: AtomicU64,
    list: Mutex<List>,
    source: OnceLock<Arc<dyn Source>>,
}

/// Something that wakes a queue only when it has been asked for it.
pub(crate) trait Source: Send + Sync {
    /// Somebody waits for `events` from now on. What is true already has to be told too.
    fn ask_for(&self, events: PollEvents);
}

/// A list of those who wait for one object.
pub struct WaitQueue {
    inner: Arc<Inner>,
}

impl Default for WaitQueue {
    fn default() -> Self {
        WaitQueue::new()
    }
}

impl WaitQueue {
    /// An empty queue.
    #[must_use]
    pub fn new() -> WaitQueue {
        WaitQueue {
            inner: Arc::new(Inner {
                len: AtomicUsize::new(0),
                wakes: AtomicU64::new(0),
                list: Mutex::new(LockClass::WaitQueue, List::default()),
                source: OnceLock::new(),
            }),
        }
    }

    /// Sets who is asked when somebody begins to wait; once.
    pub(crate) fn set_source(&self, source: Arc<dyn Source>) {
        let _ = self.inner.source.set(source);
    }

    /// Whether there is one.
    pub(crate) fn has_source(&self) -> bool {
        self.inner.source.get().is_some()
    }

    /// Tells all who asked for any of `events`, or for what is always reported.
    pub fn wake(&self, events: PollEvents) {
        // SeqCst on both sides: either the waker sees the entry or the waiter sees the change, and this number.
        self.inner.wakes.fetch_add(1, Ordering::SeqCst);
        if self.inner.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        // Copied first: who is notified may register or leave.
        let notify: Vec<_> = {
            let list = self.inner.list.lock();
            list.entries.iter().filter(|e| e.events.intersects(events)).map(|e| e.notify.clone()).collect()
        };
        for n in notify {
            n.notify(events);
        }
    }

    /// Tells the one who has waited longest for any of `events`; the others stay asleep.
    pub fn wake_one(&self, events: PollEvents) {
        self.inner.wakes.fetch_add(1, Ordering::SeqCst);
        if self.inner.len.load(Ordering::SeqCst) == 0 {
            return;
        }
        let first = {
            let mut list = self.inner.list.lock();
            let at = list.entries.iter().position(|e| e.events.intersects(events));
            // To the end, so that the next call picks another one even if this one is slow to leave.
            at.map(|at| {
                let e = list.entries.remove(at);
                let notify = e.notify.clone();
                list.entries.push(e);
                notify
            })
        };
        if let Some(n) = first {
            n.notify(events);
        }
    }

    /// Tells everybody everything.
    pub fn wake_all(&self) {
        self.wake(PollEvents::all());
    }

    /// How often it was woken: who looked at the object, then listened, and finds this number as it was before the look has
    /// missed nothing and need not look again.
    #[must_use]
    pub fn wakes(&self) -> u64 {
        self.inner.wakes.load(Ordering::SeqCst)
    }

    /// Whether nobody waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.len.load(Ordering::SeqCst) == 0
    }

    /// Calls `notify` on changes of `events` (and of what is always reported) until the registration is dropped.
    #[must_use]
    pub fn register(&self, events: PollEvents, notify: Arc<dyn Notify>) -> Registration {
        let mut list = self.inner.list.lock();
        list.next_id += 1;
        let id = list.next_id;
        list.entries.push(Entry { id, events: events | PollEvents::ALWAYS, notify });
        self.inner.len.store(list.entries.len(), Ordering::SeqCst);
        drop(list);
        // Only once the entry is in: what is true already is reported at once.
        if let Some(source) = self.inner.source.get() {
            source.ask_for(events);
        }
        Registration { queue: self.inner.clone(), id }
    }

    /// Waits for `look` to give a value, looking again after each change of `events`: for the sentry's own futures, which no
    /// signal interrupts. A task waits by its kernel's `wait_for` instead.
    pub async fn until<R>(&self, events: PollEvents, mut look: impl FnMut() -> Poll<R>) -> R {
        let mut listener = self.listen(events);
        loop {
            if let Poll::Ready(value) = look() {
                return value;
            }
            (&mut listener).await;
        }
    }

    /// A future that ends at the first change of `events` from this call on.
    #[must_use]
    pub fn listen(&self, events: PollEvents) -> Listener {
        let mut l = Listener::new();
        l.add(self, events);
        l
    }
}

/// A place in a wait queue, given up when dropped.
pub struct Registration {
    queue: Arc<Inner>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut list = self.queue.list.lock();
        if let Some(at) = list.entries.iter().position(|e| e.id == self.id) {
            let gone = list.entries.remove(at);
            self.queue.len.store(list.entries.len(), Ordering::SeqCst);
            drop(list);
            // Dropped unlocked: a notification is of any type.
            drop(gone);
        }
    }
}

/// A flag with a waker: the simplest [`Notify`].
#[derive(Default)]
pub struct Wakeup {
    fired: AtomicBool,
    /// The task that fired it last, as the trace numbers tasks.
    by: AtomicU64,
    waker: parking_lot::Mutex<Option<Waker>>,
}

impl Wakeup {
    /// Sets the flag and wakes who polls it.
    pub fn fire(&self) {
        if trace::is_observed() {
            self.by.store(trace::current(), Ordering::Relaxed);
        }
        self.fired.store(true, Ordering::Release);
        if let Some(w) = self.waker.lock().take() {
            w.wake();
        }
    }

    /// The task that fired it last during a trace; 0 if it was none.
    #[must_use]
    pub fn fired_by(&self) -> u64 {
        self.by.load(Ordering::Relaxed)
    }

    /// Takes the flag, or leaves the waker of `cx` to be woken.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.fired.swap(false, Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.waker.lock() = Some(cx.waker().clone());
        // It may have fired before the waker was in its place.
        if self.fired.swap(false, Ordering::Acquire) { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Notify for Wakeup {
    fn notify(&self, _events: PollEvents) {
        self.fire();
    }
}

/// A future that ends at the first notification from any of its queues.
///
/// It can be awaited again: it then waits for the next notification.
pub struct Listener {
    wakeup: Arc<Wakeup>,
    registrations: Vec<Registration>,
}

impl Default for Listener {
    fn default() -> Self {
        Listener::new()
    }
}

impl Listener {
    /// A listener of no queue yet.
    #[must_use]
    pub fn new() -> Listener {
        Listener { wakeup: Arc::new(Wakeup::default()), registrations: Vec::new() }
    }

    /// The task whose change woke it last during a trace; 0 if it was none.
    #[must_use]
    pub fn woken_by(&self) -> u64 {
        self.wakeup.fired_by()
    }

    /// Listens to one more queue.
    pub fn add(&mut self, queue: &WaitQueue, events: PollEvents) {
        let r = queue.register(events, self.wakeup.clone());
        self.registrations.push(r);
    }

    /// Keeps `registration`, whose notify is this listener's [`Listener::notifier`].
    pub fn keep(&mut self, registration: Registration) {
        self.registrations.push(registration);
    }

    /// What to register with an object that takes a [`Notify`] itself.
    #[must_use]
    pub fn notifier(&self) -> Arc<dyn Notify> {
        self.wakeup.clone()
    }
}

impl Future for Listener {
    type Output = ();
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.wakeup.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_between_listen_and_poll_is_not_lost() {
        let q = WaitQueue::new();
        let mut l = q.listen(PollEvents::IN);
        q.wake(PollEvents::OUT);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut l).poll(&mut cx).is_pending());
        q.wake(PollEvents::IN);
        assert!(Pin::new(&mut l).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut l).poll(&mut cx).is_pending());
        drop(l);
        assert!(q.is_empty());
    }

    #[test]
    fn until_looks_again_after_each_change() {
        let q = WaitQueue::new();
        let mut looks = 0;
        {
            let look = || {
                looks += 1;
                if looks == 3 { Poll::Ready(looks) } else { Poll::Pending }
            };
            let mut wait = std::pin::pin!(q.until(PollEvents::IN, look));
            let mut cx = Context::from_waker(Waker::noop());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            q.wake(PollEvents::IN);
            assert!(wait.as_mut().poll(&mut cx).is_pending());
            q.wake(PollEvents::IN);
            assert_eq!(wait.as_mut().poll(&mut cx), Poll::Ready(3));
        }
        assert!(q.is_empty());
    }

    #[test]
    fn wake_one_takes_turns() {
        let q = WaitQueue::new();
        let mut a = q.listen(PollEvents::IN);
        let mut b = q.listen(PollEvents::IN);
        let mut cx = Context::from_waker(Waker::noop());
        q.wake_one(PollEvents::IN);
        assert!(Pin::new(&mut a).poll(&mut cx).is_ready());
        assert!(Pin::new(&mut b).poll(&mut cx).is_pending());
        q.wake_one(PollEvents::IN);
        assert!(Pin::new(&mut b).poll(&mut cx).is_ready());
    }
}
