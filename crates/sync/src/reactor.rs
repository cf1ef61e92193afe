//! Readiness of host descriptors: an epoll instance that the leading executor thread watches.
//!
//! # Invariants
//! - Every report of the host wakes the leader, so a descriptor that nobody waits for should not be under watch:
//!   [`Watch::on_demand`] asks the host when somebody begins to wait, and stops when reports go unheard.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::{Errno, PollEvents, Result};
use rustix::event::{EventfdFlags, epoll, eventfd};

use crate::lock::{LockClass, Mutex};
use crate::wait::{Source, WaitQueue};

struct Reactor {
    epoll: OwnedFd,
    /// Written to by [`interrupt`], never read: each write is an edge.
    interrupts: OwnedFd,
    // The last key that was given, and the entries.
    table: Mutex<(u64, HashMap<u64, Watched>)>,
}

/// An entry of the reactor's table.
#[derive(Clone)]
struct Watched {
    queue: Weak<WaitQueue>,
    demand: Option<Arc<Demand>>,
}

/// The key of [`Reactor::interrupts`].
const INTERRUPT: u64 = 0;

static REACTOR: OnceLock<Reactor> = OnceLock::new();

/// All that is ever watched for, besides errors and hang-ups, which the host always tells.
const ALL: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::OUT)
    .union(epoll::EventFlags::PRI)
    .union(epoll::EventFlags::RDNORM)
    .union(epoll::EventFlags::RDBAND)
    .union(epoll::EventFlags::WRNORM)
    .union(epoll::EventFlags::WRBAND)
    .union(epoll::EventFlags::RDHUP);

/// So many reports in a row that nobody waited for end the watch until somebody waits again.
const MOST_UNHEARD: u32 = 4;

fn reactor() -> Result<&'static Reactor> {
    if let Some(r) = REACTOR.get() {
        return Ok(r);
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(Errno::from)?;
    let interrupts = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).map_err(Errno::from)?;
    let edges = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&epoll, &interrupts, epoll::EventData::new_u64(INTERRUPT), edges).map_err(Errno::from)?;
    let new = Reactor { epoll, interrupts, table: Mutex::new(LockClass::Leaf, (0, HashMap::new())) };
    Ok(REACTOR.get_or_init(|| new))
}

/// Makes the reactor's descriptor before the seccomp filter forbids it.
///
/// # Errors
/// EMFILE, ENOMEM from the host.
pub fn init() -> Result<()> {
    reactor().map(|_| ())
}

impl Reactor {
    /// Makes a new entry; gives its key.
    fn enter(&self, watched: Watched) -> u64 {
        let mut t = self.table.lock();
        t.0 += 1;
        let key = t.0;
        t.1.insert(key, watched);
        key
    }
}

/// A host descriptor under watch (edge-triggered); dropping it ends the watch.
pub struct Watch {
    fd: Arc<OwnedFd>,
    key: u64,
    queue: Arc<WaitQueue>,
    demand: Option<Arc<Demand>>,
}

impl Watch {
    /// Wakes [`Watch::wait_queue`] at each change of `fd`'s readiness.
    ///
    /// # Errors
    /// EPERM for a descriptor that can't be polled (a regular file); ENOMEM, ENOSPC from the host.
    pub fn new(fd: Arc<OwnedFd>) -> Result<Watch> {
        Watch::always(fd, Arc::new(WaitQueue::new()))
    }

    fn always(fd: Arc<OwnedFd>, queue: Arc<WaitQueue>) -> Result<Watch> {
        let r = reactor()?;
        // Before the host knows of it, which may report at once.
        let key = r.enter(Watched { queue: Arc::downgrade(&queue), demand: None });
        if let Err(e) = epoll::add(&r.epoll, &fd, epoll::EventData::new_u64(key), ALL | epoll::EventFlags::ET) {
            r.table.lock().1.remove(&key);
            return Err(e.into());
        }
        Ok(Watch { fd, key, queue, demand: None })
    }

    /// Wakes `queue`, while somebody waits in it, at each change of `fd`'s readiness; `fd` can be polled. Only the first descriptor of
    /// a queue is watched on demand: others always.
    ///
    /// # Errors
    /// EMFILE, ENOMEM from the host.
    pub fn on_demand(fd: Arc<OwnedFd>, queue: Arc<WaitQueue>) -> Result<Watch> {
        if queue.has_source() {
            return Watch::always(fd, queue);
        }
        let r = reactor()?;
        let state = DemandState { asked: epoll::EventFlags::empty(), known: false, unheard: 0 };
        let state = Mutex::new(LockClass::Leaf, state);
        let demand = Arc::new(Demand { fd: Arc::downgrade(&fd), key: OnceLock::new(), state });
        let key = r.enter(Watched { queue: Arc::downgrade(&queue), demand: Some(demand.clone()) });
        let _ = demand.key.set(key);
        // The key is set by now: who waits asks the host with it.
        queue.set_source(demand.clone());
        Ok(Watch { fd, key, queue, demand: Some(demand) })
    }

    /// The queue that is woken.
    #[must_use]
    pub fn wait_queue(&self) -> &WaitQueue {
        &self.queue
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Ok(r) = reactor() {
            r.table.lock().1.remove(&self.key);
            if self.demand.as_ref().is_none_or(|d| d.state.lock().known) {
                // An error would mean that the watch is gone already.
                let _ = epoll::delete(&r.epoll, &self.fd);
            }
        }
    }
}

/// What the host has been asked for about one descriptor.
struct Demand {
    /// Not owned: the queue, which who waits may keep, must not keep the descriptor open.
    fd: Weak<OwnedFd>,
    key: OnceLock<u64>,
    state: Mutex<DemandState>,
}

struct DemandState {
    /// What the host reports.
    asked: epoll::EventFlags,
    /// The descriptor is in the epoll instance.
    known: bool,
    /// Reports in a row that came while nobody waited.
    unheard: u32,
}

impl Demand {
    fn tell_host(&self, state: &mut DemandState) {
        let (Ok(r), Some(fd), Some(key)) = (reactor(), self.fd.upgrade(), self.key.get()) else { return };
        let data = epoll::EventData::new_u64(*key);
        let flags = state.asked | epoll::EventFlags::ET;
        let done = if state.known {
            epoll::modify(&r.epoll, &fd, data, flags)
        } else {
            epoll::add(&r.epoll, &fd, data, flags)
        };
        // Out of memory: the next who waits asks again.
        match done {
            Ok(()) => state.known = true,
            Err(_) => state.asked = epoll::EventFlags::empty(),
        }
    }

    /// A report has come; `queue` is empty if nobody waited for it.
    fn reported(&self, queue: &WaitQueue) {
        let mut state = self.state.lock();
        // Who begins to wait enters the queue first and asks then: it is seen here, or finds nothing asked for.
        if !queue.is_empty() {
            state.unheard = 0;
            return;
        }
        state.unheard += 1;
        if state.unheard >= MOST_UNHEARD && !state.asked.is_empty() {
            state.asked = epoll::EventFlags::empty();
            self.tell_host(&mut state);
        }
    }
}

impl Source for Demand {
    fn ask_for(&self, events: PollEvents) {
        let wanted = epoll::EventFlags::from_bits_truncate(events.bits()) & ALL;
        let mut state = self.state.lock();
        state.unheard = 0;
        if !state.known || !state.asked.contains(wanted) {
            state.asked |= wanted;
            self.tell_host(&mut state);
        }
    }
}

/// Has whoever waits for [`fd`] look up.
pub(crate) fn interrupt() {
    if let Some(r) = REACTOR.get() {
        // The counter can't get full.
        let _ = rustix::io::write(&r.interrupts, &1u64.to_ne_bytes());
    }
}

/// The descriptor that is readable when [`dispatch`] has something to do.
pub(crate) fn fd() -> Option<BorrowedFd<'static>> {
    REACTOR.get().map(|r| r.epoll.as_fd())
}

/// Wakes the queues of the descriptors that changed. Never blocks.
pub(crate) fn dispatch() {
    let Some(r) = REACTOR.get() else { return };
    let mut events = Vec::with_capacity(64);
    let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    if epoll::wait(&r.epoll, rustix::buffer::spare_capacity(&mut events), Some(&zero)).is_err() {
        return;
    }
    for e in &events {
        let (key, flags) = (e.data.u64(), e.flags);
        let watched = r.table.lock().1.get(&key).cloned();
        // The watch may be gone by now.
        let Some((queue, demand)) = watched.and_then(|w| Some((w.queue.upgrade()?, w.demand))) else { continue };
        queue.wake(PollEvents::from_bits_truncate(flags.bits()));
        if let Some(demand) = demand {
            demand.reported(&queue);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::{Context, Waker};
    use std::time::{Duration, Instant};

    use super::*;

    /// Another test's executor may take the reports in as well.
    fn eventually(mut condition: impl FnMut() -> bool) {
        let end = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < end);
            dispatch();
        }
    }

    #[test]
    fn a_watch_on_demand_begins_ends_and_begins_again() {
        let fd = Arc::new(eventfd(0, EventfdFlags::NONBLOCK).unwrap());
        let queue = Arc::new(WaitQueue::new());
        let watch = Watch::on_demand(fd.clone(), queue.clone()).unwrap();
        let demand = watch.demand.clone().unwrap();
        let write = || rustix::io::write(&fd, &1u64.to_ne_bytes()).unwrap();
        write();
        dispatch();
        assert!(!demand.state.lock().known);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            // It is readable already.
            let mut listener = queue.listen(PollEvents::IN);
            eventually(|| Pin::new(&mut listener).poll(&mut cx).is_ready());
            write();
            eventually(|| Pin::new(&mut listener).poll(&mut cx).is_ready());
            drop(listener);
            eventually(|| {
                write();
                demand.state.lock().asked.is_empty()
            });
        }
        let weak = Arc::downgrade(&fd);
        let kept = queue.listen(PollEvents::IN);
        drop(watch);
        drop(fd);
        assert!(weak.upgrade().is_none());
        drop(kept);
    }
}
