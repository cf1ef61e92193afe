//! epoll(7): [`Epoll`], a file that collects readiness of others.
//!
//! Each watched description has an [`Item`], which is the `Notify` in that file's wait queue: a wake-up puts the item on the
//! ready list, and collecting asks the file itself what is ready. A level-triggered item that was ready goes back on the list.
//!
//! # Invariants
//! - The ready list's lock is a leaf, since wake-ups come with the watched file's locks held.
//! - `queued` is cleared before the file is asked, so that a change after the answer queues the item again.

mod persist;

use std::collections::{HashMap, VecDeque};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::poll::{EpollEvent, EpollFlags};
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::wait::{Notify, Registration};
use moat_sync::{LockClass, Mutex, WaitQueue};

use crate::fd_table::Fd;
use crate::file::{File, Seekable};
use crate::open_file::{OpenFile, Watcher};
use crate::persist::SaveFiles;

/// Epolls watching epolls, at most (`EP_MAX_NESTS` and the outermost).
const MAX_DEPTH: usize = 5;

/// The input flags that are not events.
const OPTIONS: u32 =
    EpollFlags::EXCLUSIVE.bits() | EpollFlags::WAKEUP.bits() | EpollFlags::ONESHOT.bits() | EpollFlags::ET.bits();

struct Item {
    epoll: Weak<Epoll>,
    fd: Fd,
    file: Weak<OpenFile>,
    events: AtomicU32,
    data: AtomicU64,
    /// On the ready list.
    queued: AtomicBool,
    /// See [`Arming`].
    arming: Arming,
    registration: Mutex<Option<Registration>>,
}

impl Item {
    fn wanted(&self) -> PollEvents {
        PollEvents::from_bits_truncate(self.events.load(Ordering::Relaxed) & !OPTIONS) | PollEvents::ALWAYS
    }

    fn has(&self, flag: EpollFlags) -> bool {
        self.events.load(Ordering::Relaxed) & flag.bits() != 0
    }

    /// What of the wanted is ready.
    fn ready(&self) -> PollEvents {
        match self.file.upgrade() {
            Some(f) if !self.arming.is_off() => f.poll() & self.wanted(),
            _ => PollEvents::empty(),
        }
    }
}

/// Whether an item gives events: not once it has been spent (ONESHOT) or taken out of the epoll.
///
/// The lowest bit says that it is off; the others count epoll_ctl(2) calls, so that who undoes a delivery does not undo what
/// came after it.
#[derive(Default)]
struct Arming(AtomicU64);

/// A ONESHOT item's state before it was spent.
#[derive(Clone, Copy)]
struct Unspent(u64);

impl Arming {
    fn is_off(&self) -> bool {
        self.0.load(Ordering::Acquire) & 1 != 0
    }

    /// Switches it off for one delivery; `None` if it is off already.
    // Two calls may find a ONESHOT item at once; the exchange lets one of them have it.
    fn spend(&self) -> Option<Unspent> {
        let before = self.0.load(Ordering::Acquire);
        let spent = before & 1 == 0 && self.exchange(before, before | 1);
        spent.then_some(Unspent(before))
    }

    /// Switches it on again after a delivery that failed, unless epoll_ctl(2) came first.
    fn unspend(&self, Unspent(before): Unspent) {
        self.exchange(before | 1, before);
    }

    /// EPOLL_CTL_MOD.
    fn rearm(&self) {
        self.step(|calls| calls << 1);
    }

    /// EPOLL_CTL_DEL, or the file's end.
    fn retire(&self) {
        self.step(|calls| calls << 1 | 1);
    }

    fn exchange(&self, from: u64, to: u64) -> bool {
        self.0.compare_exchange(from, to, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    fn step(&self, next: impl Fn(u64) -> u64) {
        let mut now = self.0.load(Ordering::Acquire);
        while !self.exchange(now, next((now >> 1).wrapping_add(1))) {
            now = self.0.load(Ordering::Acquire);
        }
    }
}

/// What registers with the watched file.
struct ItemNotify(Weak<Item>);

impl Notify for ItemNotify {
    fn notify(&self, events: PollEvents) {
        // Room in a pipe is no edge for one that waits for data, though both wake one queue.
        if let Some(item) = self.0.upgrade()
            && events.intersects(item.wanted())
            && let Some(epoll) = item.epoll.upgrade()
        {
            epoll.queue_item(&item);
        }
    }
}

type Key = (Fd, u64);

/// An epoll instance.
pub struct Epoll {
    me: Weak<Epoll>,
    items: Mutex<HashMap<Key, Arc<Item>>>,
    ready: Mutex<VecDeque<Arc<Item>>>,
    queue: WaitQueue,
}

impl Epoll {
    /// An epoll that watches nothing.
    #[must_use]
    pub fn new() -> Arc<Epoll> {
        Arc::new_cyclic(|me| Epoll {
            me: me.clone(),
            items: Mutex::new(LockClass::Epoll, HashMap::new()),
            ready: Mutex::new(LockClass::Listener, VecDeque::new()),
            queue: WaitQueue::new(),
        })
    }

    // Off first: a spent item must not come back by a wake-up.
    fn queue_item(&self, item: &Arc<Item>) {
        if item.arming.is_off() || item.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        // Queued before the wake-up, so that a woken thread finds it.
        self.ready.lock().push_back(item.clone());
        self.queue.wake(PollEvents::READ_READY);
    }

    /// Watches `file`, named by `fd`.
    ///
    /// # Errors
    /// EEXIST, EINVAL, ELOOP; EPERM for a file whose readiness never changes.
    pub fn add(&self, fd: Fd, file: &Arc<OpenFile>, event: EpollEvent) -> Result<()> {
        let events = event.events;
        let target: Option<&Epoll> = file.downcast();
        check_exclusive(events, target.is_some())?;
        // Only epolls that watch epolls can form a circle: all other additions go without the kernel-wide lock.
        let _nesting = match target {
            Some(t) => {
                let guard = file.path().mount.tables().epoll_nesting.lock();
                self.check_nesting(t)?;
                Some(guard)
            }
            None => None,
        };
        let item = Arc::new(Item {
            epoll: self.me.clone(),
            fd,
            file: Arc::downgrade(file),
            events: AtomicU32::new(events),
            data: AtomicU64::new(event.data),
            queued: AtomicBool::new(false),
            arming: Arming::default(),
            registration: Mutex::new(LockClass::OpenFile, None),
        });
        {
            // In the map before the file is asked: an event that comes meanwhile finds the item.
            let mut items = self.items.lock();
            if items.contains_key(&(fd, file.id())) {
                return Err(Errno::EEXIST);
            }
            items.insert((fd, file.id()), item.clone());
        }
        // All events: a later MOD may want others, and unwanted ones are filtered when asked.
        let Some(r) = file.register(PollEvents::all(), Arc::new(ItemNotify(Arc::downgrade(&item)))) else {
            self.items.lock().remove(&(fd, file.id()));
            return Err(Errno::EPERM);
        };
        *item.registration.lock() = Some(r);
        let watcher: Weak<dyn Watcher> = self.me.clone();
        // The item goes with the description, not with the descriptor that it was added by.
        file.watch_close(watcher);
        // After the registration: a change before it is seen here, one after it is reported.
        if !item.ready().is_empty() {
            self.queue_item(&item);
        }
        Ok(())
    }

    fn find(&self, fd: Fd, file: &OpenFile) -> Result<Arc<Item>> {
        self.items.lock().get(&(fd, file.id())).cloned().ok_or(Errno::ENOENT)
    }

    /// Changes what is wanted of `file`.
    ///
    /// # Errors
    /// ENOENT, EINVAL.
    pub fn modify(&self, fd: Fd, file: &Arc<OpenFile>, event: EpollEvent) -> Result<()> {
        let item = self.find(fd, file)?;
        if event.events & EpollFlags::EXCLUSIVE.bits() != 0 || item.has(EpollFlags::EXCLUSIVE) {
            return Err(Errno::EINVAL);
        }
        // The new wish first, then the arming: a wake-up in between meets either the old or the whole new one.
        item.events.store(event.events, Ordering::Relaxed);
        item.data.store(event.data, Ordering::Relaxed);
        item.arming.rearm();
        // What is ready already gives an edge: EPOLL_CTL_MOD is how programs ask for one again.
        if !item.ready().is_empty() {
            self.queue_item(&item);
        }
        Ok(())
    }

    /// Stops watching `file`.
    ///
    /// # Errors
    /// ENOENT.
    pub fn remove(&self, fd: Fd, file: &OpenFile) -> Result<()> {
        let item = self.items.lock().remove(&(fd, file.id())).ok_or(Errno::ENOENT)?;
        retire(&item);
        Ok(())
    }

    /// ELOOP if `target` watches this epoll, or the chain would be too long.
    fn check_nesting(&self, target: &Epoll) -> Result<()> {
        // Weak, so that a circle under construction keeps nobody alive.
        let mut level = vec![target.me.clone()];
        for _ in 0..MAX_DEPTH {
            // Level by level: the depth is what is bounded, not the number.
            let mut next = Vec::new();
            for e in level.iter().filter_map(Weak::upgrade) {
                if std::ptr::eq(&*e, self) {
                    return Err(Errno::ELOOP);
                }
                next.extend(e.watched_epolls());
            }
            if next.is_empty() {
                return Ok(());
            }
            level = next;
        }
        Err(Errno::ELOOP)
    }

    fn watched_epolls(&self) -> Vec<Weak<Epoll>> {
        // Copied, since downcasting may drop a file and take any lock.
        let items: Vec<_> = self.items.lock().values().cloned().collect();
        let files = items.iter().filter_map(|i| i.file.upgrade());
        files.filter_map(|f| f.downcast::<Epoll>().map(|e| e.me.clone())).collect()
    }

    /// Takes up to `max` events and has `copy` give them to the guest, which tells how many it could; gives that number.
    ///
    /// What could not be given is not taken: an edge or a ONESHOT item is there for the next call (`ep_send_events`).
    ///
    /// # Errors
    /// EFAULT if not one of the events could be given.
    pub fn deliver(&self, max: usize, copy: impl FnOnce(&[EpollEvent]) -> usize) -> Result<usize> {
        let (events, taken) = self.collect(max);
        if events.is_empty() {
            return Ok(0);
        }
        // With no lock held: it writes to guest memory.
        let given = copy(&events);
        if given < events.len() {
            self.put_back(taken.into_iter().filter(|t| t.index >= given));
        }
        if given == 0 { Err(Errno::EFAULT) } else { Ok(given) }
    }

    /// Takes up to `max` events; also gives the items that are not ready any more by that.
    fn collect(&self, max: usize) -> (Vec<EpollEvent>, Vec<Taken>) {
        // Taken as a whole, so that wake-ups while this runs go to a new list.
        let mut pending = std::mem::take(&mut *self.ready.lock());
        let (mut events, mut taken) = (Vec::new(), Vec::new());
        let mut again = Vec::new();
        while events.len() < max
            && let Some(item) = pending.pop_front()
        {
            item.queued.store(false, Ordering::Release);
            let ready = item.ready();
            if ready.is_empty() {
                continue;
            }
            let index = events.len();
            let event = EpollEvent { events: ready.bits(), data: item.data.load(Ordering::Relaxed) };
            if item.has(EpollFlags::ONESHOT) {
                // Off already: another call has just taken it.
                let Some(unspent) = item.arming.spend() else { continue };
                taken.push(Taken { index, item, unspent: Some(unspent) });
            } else if item.has(EpollFlags::ET) {
                taken.push(Taken { index, item, unspent: None });
            } else if !item.queued.swap(true, Ordering::AcqRel) {
                again.push(item);
            }
            events.push(event);
        }
        if pending.is_empty() && again.is_empty() {
            return (events, taken);
        }
        {
            // What was not looked at comes first, and what was ready last: nobody starves.
            let mut list = self.ready.lock();
            for item in pending.into_iter().rev() {
                list.push_front(item);
            }
            list.extend(again);
        }
        // Another thread may sleep that missed what is back on the list.
        self.queue.wake(PollEvents::READ_READY);
        (events, taken)
    }

    /// Makes items ready again whose events have not been given.
    fn put_back(&self, taken: impl Iterator<Item = Taken>) {
        for Taken { item, unspent, .. } in taken {
            if let Some(unspent) = unspent {
                item.arming.unspend(unspent);
            }
            self.queue_item(&item);
        }
    }
}

/// An item that its event has made unready: an edge, or the one event of a ONESHOT item.
struct Taken {
    /// Of its event among those collected.
    index: usize,
    item: Arc<Item>,
    unspent: Option<Unspent>,
}

/// The rules of EPOLLEXCLUSIVE, epoll_ctl(2).
fn check_exclusive(events: u32, target_is_epoll: bool) -> Result<()> {
    let allowed =
        (PollEvents::IN | PollEvents::OUT | PollEvents::ALWAYS).bits() | OPTIONS & !EpollFlags::ONESHOT.bits();
    if events & EpollFlags::EXCLUSIVE.bits() != 0 && (target_is_epoll || events & !allowed != 0) {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

fn retire(item: &Item) {
    item.arming.retire();
    // The registration goes with the lock given up: it takes the file's own locks.
    let gone = item.registration.lock().take();
    drop(gone);
}

impl Watcher for Epoll {
    fn closed(&self, id: u64) {
        let gone: Vec<_> = {
            // One description may be watched by several descriptors.
            let mut items = self.items.lock();
            let keys: Vec<Key> = items.keys().filter(|k| k.1 == id).copied().collect();
            keys.iter().filter_map(|k| items.remove(k)).collect()
        };
        gone.iter().for_each(|i| retire(i));
    }
}

impl File for Epoll {
    fn save(&self, _f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        self.save_items(saver)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Noop
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        // A list may hold items that are no longer ready; only asking tells.
        let items: Vec<_> = self.ready.lock().iter().cloned().collect();
        let any = items.iter().any(|i| !i.ready().is_empty());
        if any { PollEvents::READ_READY } else { PollEvents::empty() }
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn fdinfo(&self, _f: &OpenFile) -> String {
        let items: Vec<_> = self.items.lock().values().cloned().collect();
        let mut text = String::new();
        for i in items {
            let (events, data) = (i.events.load(Ordering::Relaxed), i.data.load(Ordering::Relaxed));
            // Writing to a string can't fail.
            let _ = writeln!(text, "tfd: {:8} events: {events:8x} data: {data:16x}", i.fd.0);
        }
        text
    }
}
