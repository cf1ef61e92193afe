//! [`Watches`]: the watches by the file they are on.

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::fs::InotifyMask;
use moat_abi::{Errno, Result};
use moat_identity::Setting;
use moat_sync::{LockClass, Mutex, RwLock};

use super::instance::{Event, Inotify};
use crate::metadata::InodeKey;

/// What tells a watched file from all others.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum WatchId {
    /// The address of an inode that is one object as long as somebody has it.
    Object(usize),
    /// The number of one that is made anew at each lookup.
    Number(InodeKey),
}

/// A file to be watched.
pub(super) struct Watched {
    pub(super) id: WatchId,
    /// What /proc shows it as.
    pub(super) key: InodeKey,
    /// What keeps the inode, whose address stays its own as long as it is held.
    pub(super) held: Arc<dyn Any + Send + Sync>,
    /// The address of the file system that it goes with.
    pub(super) filesystem: usize,
}

/// How an event came about, for IN_EXCL_UNLINK.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Through {
    /// By a descriptor, whose name may be gone.
    Descriptor,
    /// By a name.
    Name,
}

/// One file watched by one instance.
pub(super) struct Watch {
    pub(super) instance: Weak<Inotify>,
    pub(super) wd: i32,
    /// What it is on.
    pub(super) on: Watched,
    /// Events, ONESHOT and EXCL_UNLINK.
    mask: AtomicU32,
}

impl Watch {
    pub(super) fn mask(&self) -> InotifyMask {
        InotifyMask::from_bits_retain(self.mask.load(Ordering::Relaxed))
    }
}

/// What a user has.
#[derive(Default)]
pub(super) struct Usage {
    pub(super) instances: u64,
    pub(super) watches: u64,
}

/// All watches of a kernel.
pub struct Watches {
    /// Watches there are: read without a lock by whoever has an event to tell.
    count: AtomicUsize,
    by_file: RwLock<HashMap<WatchId, Vec<Arc<Watch>>>>,
    users: Mutex<HashMap<u32, Usage>>,
    cookie: AtomicU32,
    /// What asks the host about files that others change too (`outside`); `None` where it can't tell.
    pub(super) outside: OnceLock<Option<Arc<dyn Any + Send + Sync>>>,
    /// `max_queued_events`, of instances made from then on.
    pub max_queued_events: Setting,
    /// `max_user_instances`.
    pub max_user_instances: Setting,
    /// `max_user_watches`.
    pub max_user_watches: Setting,
}

const INT_MAX: u64 = 0x7fff_ffff;
/// Bytes that Linux counts for one watch when it chooses `max_user_watches`.
const WATCH_BYTES: u64 = 1280;

impl Watches {
    /// No watches; of `total_memory` bytes one in a hundred may go to a user's (`inotify_user_setup`).
    #[must_use]
    pub fn new(total_memory: u64) -> Watches {
        // Within the bounds that Linux has for small and large machines.
        let most = (total_memory / 100 / WATCH_BYTES).clamp(8192, 1_048_576);
        Watches {
            count: AtomicUsize::new(0),
            by_file: RwLock::new(LockClass::Watches, HashMap::new()),
            users: Mutex::new(LockClass::Leaf, HashMap::new()),
            cookie: AtomicU32::new(0),
            outside: OnceLock::new(),
            max_queued_events: Setting::new(16384, 0, INT_MAX),
            max_user_instances: Setting::new(128, 0, INT_MAX),
            max_user_watches: Setting::new(most, 0, INT_MAX),
        }
    }

    /// Whether anything is watched.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::Relaxed) != 0
    }

    /// A number that the two events of one rename share; never 0.
    pub(crate) fn new_cookie(&self) -> u32 {
        let last = self.cookie.fetch_add(1, Ordering::Relaxed);
        last.checked_add(1).unwrap_or_else(|| self.new_cookie())
    }

    /// Counts one more for a user, if the limit allows.
    pub(super) fn charge(&self, uid: u32, of: fn(&mut Usage) -> &mut u64, limit: &Setting, errno: Errno) -> Result<()> {
        let mut users = self.users.lock();
        let used = of(users.entry(uid).or_default());
        if *used >= limit.get() {
            return Err(errno);
        }
        *used = used.saturating_add(1);
        Ok(())
    }

    pub(super) fn uncharge(&self, uid: u32, of: fn(&mut Usage) -> &mut u64, number: u64) {
        let mut users = self.users.lock();
        if let Some(user) = users.get_mut(&uid) {
            // A user with nothing is not kept.
            let used = of(user);
            *used = used.saturating_sub(number);
            if user.instances == 0 && user.watches == 0 {
                users.remove(&uid);
            }
        }
    }

    /// Watches `file` for `instance`, or changes what it is watched for.
    pub(super) fn watch(&self, instance: &Arc<Inotify>, file: Watched, ask: InotifyMask) -> Result<i32> {
        let id = file.id;
        let mut table = self.by_file.write();
        // From the table's lock on, so that two threads can't both add a watch of one file.
        let marks = table.get(&id).map_or(&[][..], Vec::as_slice);
        let known = marks.iter().find(|w| std::ptr::eq(w.instance.as_ptr(), Arc::as_ptr(instance)));
        if let Some(known) = known {
            if ask.contains(InotifyMask::MASK_CREATE) {
                return Err(Errno::EEXIST);
            }
            // Without IN_MASK_ADD the new mask replaces the old.
            let old = if ask.contains(InotifyMask::MASK_ADD) { known.mask() } else { InotifyMask::empty() };
            known.mask.store((old | kept(ask)).bits(), Ordering::Relaxed);
            return Ok(known.wd);
        }
        // Last of the checks: what is counted is then there.
        self.charge(instance.uid(), |u| &mut u.watches, &self.max_user_watches, Errno::ENOSPC)?;
        let watch = Arc::new(Watch {
            instance: Arc::downgrade(instance),
            wd: instance.next_wd(),
            on: file,
            mask: AtomicU32::new(kept(ask).bits()),
        });
        let wd = watch.wd;
        instance.enter(watch.clone());
        table.entry(id).or_default().push(watch);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(wd)
    }

    /// Watches `file` under a number that was given before.
    pub(super) fn watch_as(&self, instance: &Arc<Inotify>, wd: i32, file: Watched, mask: InotifyMask) -> Result<()> {
        let id = file.id;
        let mut table = self.by_file.write();
        let marks = table.entry(id).or_default();
        let known = marks.iter().any(|w| std::ptr::eq(w.instance.as_ptr(), Arc::as_ptr(instance)));
        if known || instance.has(wd) {
            return Err(Errno::EEXIST);
        }
        // Counted, but not refused: so many there were.
        self.count_one(instance.uid(), |u| &mut u.watches);
        let mask = AtomicU32::new(kept(mask).bits());
        let watch = Arc::new(Watch { instance: Arc::downgrade(instance), wd, on: file, mask });
        instance.enter(watch.clone());
        marks.push(watch);
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Counts one more for a user, whatever the limit is.
    pub(super) fn count_one(&self, uid: u32, of: fn(&mut Usage) -> &mut u64) {
        let mut users = self.users.lock();
        let used = of(users.entry(uid).or_default());
        *used = used.saturating_add(1);
    }

    pub(super) fn cookies(&self) -> &AtomicU32 {
        &self.cookie
    }

    /// Takes watches out of the table; the caller lets them go.
    fn forget(&self, table: &mut HashMap<WatchId, Vec<Arc<Watch>>>, gone: &Arc<Watch>) {
        if let Some(marks) = table.get_mut(&gone.on.id) {
            marks.retain(|w| !Arc::ptr_eq(w, gone));
            if marks.is_empty() {
                table.remove(&gone.on.id);
            }
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Ends a watch, which its instance is told.
    pub(super) fn unwatch(&self, instance: &Inotify, wd: i32) -> Result<()> {
        let gone = {
            let mut table = self.by_file.write();
            // Taken from the instance first: of two threads that end the watch one gets EINVAL.
            let gone = instance.leave(wd).ok_or(Errno::EINVAL)?;
            self.forget(&mut table, &gone);
            gone
        };
        // Outside of the table's lock, where the watch may be dropped too.
        self.uncharge(instance.uid(), |u| &mut u.watches, 1);
        instance.queue(Event::of_watch(gone.wd, InotifyMask::IGNORED));
        Ok(())
    }

    /// Ends all watches of an instance that nobody can read any more.
    pub(super) fn unwatch_all(&self, instance: &Inotify) {
        let gone = {
            let mut table = self.by_file.write();
            let gone = instance.leave_all();
            gone.iter().for_each(|w| self.forget(&mut table, w));
            gone
        };
        // Its reader is gone, so nothing is queued for it.
        self.uncharge(instance.uid(), |u| &mut u.watches, u64::try_from(gone.len()).unwrap_or(u64::MAX));
    }

    /// The watches on a file.
    pub(super) fn on(&self, file: WatchId) -> Vec<Arc<Watch>> {
        self.by_file.read().get(&file).cloned().unwrap_or_default()
    }

    /// Events of these watches were lost: each instance is told so once.
    pub(super) fn overflow(&self, watches: Vec<Arc<Watch>>) {
        let mut told: Vec<Weak<Inotify>> = Vec::new();
        for w in watches {
            if told.iter().any(|known| Weak::ptr_eq(known, &w.instance)) {
                continue;
            }
            if let Some(instance) = w.instance.upgrade() {
                instance.queue(Event::of_watch(-1, InotifyMask::Q_OVERFLOW));
            }
            told.push(w.instance.clone());
        }
    }

    /// The watches on files of a file system, by its address.
    pub(super) fn within(&self, filesystem: usize) -> Vec<Arc<Watch>> {
        self.by_file.read().values().flatten().filter(|w| w.on.filesystem == filesystem).cloned().collect()
    }

    /// Ends watches, and tells them `what` before.
    pub(super) fn end(&self, watches: Vec<Arc<Watch>>, what: InotifyMask) {
        for w in watches {
            let Some(instance) = w.instance.upgrade() else { continue };
            // IN_UNMOUNT comes whether asked for or not (inotify(7)).
            if w.mask().contains(what) || what == InotifyMask::UNMOUNT {
                instance.tell(&w, Event::of_watch(w.wd, what));
            }
            // Fails where somebody else has ended it meanwhile.
            let _ = self.unwatch(&instance, w.wd);
        }
    }
}

/// The part of a request that belongs to the watch.
fn kept(ask: InotifyMask) -> InotifyMask {
    ask & (InotifyMask::ALL_EVENTS | InotifyMask::ONESHOT | InotifyMask::EXCL_UNLINK)
}
