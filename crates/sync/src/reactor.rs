//! Readiness of host descriptors: an epoll instance that the leading executor thread watches.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::{Errno, PollEvents, Result};
use rustix::event::epoll;

use crate::lock::{LockClass, Mutex};
use crate::wait::WaitQueue;

struct Reactor {
    epoll: OwnedFd,
    table: Mutex<(u64, HashMap<u64, Weak<WaitQueue>>)>,
}

static REACTOR: OnceLock<Reactor> = OnceLock::new();

fn reactor() -> Result<&'static Reactor> {
    if let Some(r) = REACTOR.get() {
        return Ok(r);
    }
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|e| Errno::from_raw(e.raw_os_error()))?;
    let new = Reactor { epoll, table: Mutex::new(LockClass::Leaf, (0, HashMap::new())) };
    Ok(REACTOR.get_or_init(|| new))
}

/// Makes the reactor's descriptor before the seccomp filter forbids it.
///
/// # Errors
/// EMFILE, ENOMEM from the host.
pub fn init() -> Result<()> {
    reactor().map(|_| ())
}

/// A host descriptor under watch (edge-triggered); dropping it ends the watch.
pub struct Watch {
    fd: Arc<OwnedFd>,
    key: u64,
    queue: Arc<WaitQueue>,
}

impl Watch {
    /// Wakes [`Watch::wait_queue`] at each change of `fd`'s readiness.
    ///
    /// # Errors
    /// EPERM for a descriptor that can't be polled (a regular file); ENOMEM, ENOSPC from the host.
    pub fn new(fd: Arc<OwnedFd>) -> Result<Watch> {
        Watch::with_queue(fd, Arc::new(WaitQueue::new()))
    }

    /// As [`Watch::new`], with a queue that is woken by others too.
    ///
    /// # Errors
    /// As [`Watch::new`].
    pub fn with_queue(fd: Arc<OwnedFd>, queue: Arc<WaitQueue>) -> Result<Watch> {
        let r = reactor()?;
        let key = {
            let mut t = r.table.lock();
            t.0 += 1;
            let key = t.0;
            t.1.insert(key, Arc::downgrade(&queue));
            key
        };
        let flags = epoll::EventFlags::IN
            | epoll::EventFlags::OUT
            | epoll::EventFlags::PRI
            | epoll::EventFlags::RDHUP
            | epoll::EventFlags::ET;
        if let Err(e) = epoll::add(&r.epoll, &fd, epoll::EventData::new_u64(key), flags) {
            r.table.lock().1.remove(&key);
            return Err(Errno::from_raw(e.raw_os_error()));
        }
        Ok(Watch { fd, key, queue })
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
            // An error would mean that the watch is gone already.
            let _ = epoll::delete(&r.epoll, &self.fd);
        }
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
        let queue = r.table.lock().1.get(&key).and_then(Weak::upgrade);
        if let Some(q) = queue {
            q.wake(PollEvents::from_bits_truncate(flags.bits()));
        }
    }
}
