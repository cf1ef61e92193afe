//! [`Inotify`]: an instance: its watches, and the events that wait to be read.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use moat_abi::fs::{InotifyEvent, InotifyMask};
use moat_abi::{Errno, PollEvents, Result};
use moat_sync::{LockClass, Mutex, WaitQueue};
use zerocopy::IntoBytes;

use super::table::{Watch, Watches};

/// The name of a directory's entry.
pub(super) type Name = Arc<[u8]>;

/// Bytes of an event without its name.
const HEADER: usize = size_of::<InotifyEvent>();

/// An event that waits to be read.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) wd: i32,
    pub(super) mask: InotifyMask,
    pub(super) cookie: u32,
    /// The entry's name, where a directory is watched.
    pub(super) name: Option<Name>,
}

impl Event {
    /// An event of the watched file itself.
    pub(super) fn of_watch(wd: i32, mask: InotifyMask) -> Event {
        Event { wd, mask, cookie: 0, name: None }
    }

    /// Bytes of the name with its NUL and the padding up to the next event.
    fn name_bytes(&self) -> usize {
        self.name.as_ref().map_or(0, |n| n.len().saturating_add(1).next_multiple_of(HEADER))
    }

    fn bytes(&self) -> usize {
        HEADER.saturating_add(self.name_bytes())
    }

    /// Whether it says nothing new after `last` (`inotify_merge`); cookies are not looked at.
    fn repeats(&self, last: &Event) -> bool {
        !last.mask.contains(InotifyMask::IGNORED)
            && (last.wd, last.mask, &last.name) == (self.wd, self.mask, &self.name)
    }
}

#[derive(Default)]
struct InstanceState {
    watches: BTreeMap<i32, Arc<Watch>>,
    queue: VecDeque<Event>,
    overflown: bool,
}

/// An instance: inotify_init1(2).
pub struct Inotify {
    table: Arc<Watches>,
    uid: u32,
    max_queued: usize,
    last_wd: AtomicI32,
    state: Mutex<InstanceState>,
    wait: WaitQueue,
}

impl Inotify {
    /// An instance of `uid` that watches nothing.
    ///
    /// # Errors
    /// EMFILE beyond `max_user_instances`.
    pub(super) fn new(table: Arc<Watches>, uid: u32) -> Result<Arc<Inotify>> {
        // Counted before it exists, so that two threads can't both take the last place.
        table.charge(uid, |u| &mut u.instances, &table.max_user_instances, Errno::EMFILE)?;
        let max_queued = usize::try_from(table.max_queued_events.get()).unwrap_or(usize::MAX);
        Ok(Arc::new(Inotify {
            table,
            uid,
            max_queued,
            last_wd: AtomicI32::new(0),
            state: Mutex::new(LockClass::Table, InstanceState::default()),
            wait: WaitQueue::new(),
        }))
    }

    /// One out of an image, which watches nothing yet.
    pub(super) fn restored(
        table: Arc<Watches>,
        uid: u32,
        max_queued: usize,
        last_wd: i32,
        queue: Vec<Event>,
    ) -> Arc<Inotify> {
        table.count_one(uid, |u| &mut u.instances);
        let overflown = queue.iter().any(|event| event.mask.contains(InotifyMask::Q_OVERFLOW));
        let state = InstanceState { watches: BTreeMap::new(), queue: queue.into(), overflown };
        Arc::new(Inotify {
            table,
            uid,
            max_queued,
            last_wd: AtomicI32::new(last_wd),
            state: Mutex::new(LockClass::Table, state),
            wait: WaitQueue::new(),
        })
    }

    /// The events that wait.
    pub(super) fn queued(&self) -> Vec<Event> {
        self.state.lock().queue.iter().cloned().collect()
    }

    pub(super) fn max_queued(&self) -> usize {
        self.max_queued
    }

    pub(super) fn last_wd(&self) -> i32 {
        self.last_wd.load(Ordering::Relaxed)
    }

    /// Whether a watch has this number.
    pub(super) fn has(&self, wd: i32) -> bool {
        self.state.lock().watches.contains_key(&wd)
    }

    pub(super) fn table(&self) -> &Arc<Watches> {
        &self.table
    }

    /// Woken when an event has been queued.
    pub(super) fn queue_of_readers(&self) -> &WaitQueue {
        &self.wait
    }

    /// Bytes of the events that wait.
    pub(super) fn bytes_queued(&self) -> usize {
        self.state.lock().queue.iter().map(Event::bytes).sum()
    }

    /// Its watches, by number.
    pub(super) fn watches(&self) -> Vec<Arc<Watch>> {
        self.state.lock().watches.values().cloned().collect()
    }

    /// Gives up everything: nobody can read it any more.
    pub(super) fn end(&self) {
        self.table.unwatch_all(self);
        self.table.uncharge(self.uid, |u| &mut u.instances, 1);
    }

    /// Moves events to `buf`, as many as fit.
    ///
    /// # Errors
    /// EAGAIN if there is none; EINVAL if the first does not fit.
    pub(super) fn take(&self, buf: &mut [u8]) -> Result<usize> {
        let mut s = self.state.lock();
        let mut done: usize = 0;
        while let Some(next) = s.queue.front() {
            let len = next.bytes();
            // Whole events only (inotify(7)).
            let Some(to) = buf.get_mut(done..).and_then(|rest| rest.get_mut(..len)) else { break };
            // This one fits, so it leaves the queue.
            let Some(event) = s.take() else { break };
            let name_len = u32::try_from(event.name_bytes()).unwrap_or(0);
            let raw = InotifyEvent { wd: event.wd, mask: event.mask.bits(), cookie: event.cookie, len: name_len };
            // The name ends with a NUL and is padded with more.
            to.fill(0);
            let (head, rest) = to.split_at_mut(HEADER);
            head.copy_from_slice(raw.as_bytes());
            if let Some(name) = &event.name
                && let Some(at) = rest.get_mut(..name.len())
            {
                at.copy_from_slice(name);
            }
            done = done.saturating_add(len);
        }
        match done {
            0 if s.queue.is_empty() => Err(Errno::EAGAIN),
            // The buffer is too small for the first event, which stays.
            0 => Err(Errno::EINVAL),
            n => Ok(n),
        }
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// EINVAL if there is none of this number.
    pub fn unwatch(&self, wd: i32) -> Result<()> {
        self.table.unwatch(self, wd)
    }

    pub(super) fn uid(&self) -> u32 {
        self.uid
    }

    /// A number for a new watch. Numbers begin anew only when all have been used (`idr_alloc_cyclic`).
    pub(super) fn next_wd(&self) -> i32 {
        let used = &self.state.lock().watches;
        loop {
            // After the highest number it begins at 1 again, passing over those in use.
            let wd = self.last_wd.load(Ordering::Relaxed).checked_add(1).unwrap_or(1);
            self.last_wd.store(wd, Ordering::Relaxed);
            if !used.contains_key(&wd) {
                return wd;
            }
        }
    }

    pub(super) fn enter(&self, watch: Arc<Watch>) {
        self.state.lock().watches.insert(watch.wd, watch);
    }

    pub(super) fn leave(&self, wd: i32) -> Option<Arc<Watch>> {
        self.state.lock().watches.remove(&wd)
    }

    pub(super) fn leave_all(&self) -> Vec<Arc<Watch>> {
        std::mem::take(&mut self.state.lock().watches).into_values().collect()
    }

    /// Queues an event of a watch, if the watch is still there.
    pub(super) fn tell(&self, watch: &Arc<Watch>, event: Event) {
        let queued = {
            let mut s = self.state.lock();
            // Under the lock that IN_IGNORED is queued under: nothing comes after a watch's last event.
            s.watches.contains_key(&watch.wd) && s.push(event, self.max_queued)
        };
        if queued {
            self.wait.wake(PollEvents::READ_READY);
        }
    }

    /// Queues an event.
    pub(super) fn queue(&self, event: Event) {
        let queued = self.state.lock().push(event, self.max_queued);
        if queued {
            self.wait.wake(PollEvents::READ_READY);
        }
    }
}

impl InstanceState {
    /// Whether the event was queued: not if it repeats the last one, or the queue is full.
    fn push(&mut self, event: Event, most: usize) -> bool {
        // One note of the overflow, until a reader has taken it.
        if self.queue.len() >= most {
            if self.overflown {
                return false;
            }
            self.overflown = true;
            self.queue.push_back(Event::of_watch(-1, InotifyMask::Q_OVERFLOW));
            return true;
        }
        // Only the last event is compared: older ones have something in between.
        if self.queue.back().is_some_and(|last| event.repeats(last)) {
            return false;
        }
        self.queue.push_back(event);
        true
    }

    fn take(&mut self) -> Option<Event> {
        let event = self.queue.pop_front()?;
        if event.mask.contains(InotifyMask::Q_OVERFLOW) {
            self.overflown = false;
        }
        Some(event)
    }
}
