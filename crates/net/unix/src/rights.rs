//! Descriptors in flight: SCM_RIGHTS.
//!
//! [`Rights`] are open files in a message that nobody has received. A socket whose only references are in flight, in
//! queues of sockets that are themselves so, can never be received again: [`InFlight::collect`] finds such groups and empties
//! their queues. It runs when a UNIX socket goes while others are in flight, and when many are.
//!
//! Dropping a file may drop a queue with more files in it, to any depth: they go through a list per thread, not recursion.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::cap::Cap;
use moat_abi::socket::SCM_MAX_FD;
use moat_abi::{Errno, Result};
use moat_identity::Resource;
use moat_sync::{LockClass, Mutex};
use moat_vfs::{Caller, OpenFile};

/// Files in flight in the whole sandbox, whatever the privileges.
const MOST: usize = 1024 * 1024;
/// Sockets in flight that make a send look for garbage first (`UNIX_INFLIGHT_TRIGGER_GC`).
const MANY_SOCKETS: usize = 16_000;

struct Flight {
    file: Weak<OpenFile>,
    count: usize,
}

#[derive(Default)]
struct Table {
    /// UNIX sockets in flight by the id of their description.
    sockets: HashMap<u64, Flight>,
    /// Files in flight by the user who sent them.
    users: HashMap<u32, usize>,
    total: usize,
    /// Sum of the counts in `sockets`.
    socket_count: usize,
}

/// All files in flight, in all namespaces: a descriptor may be sent from one to another.
pub struct InFlight {
    find: FindQueue,
    table: Mutex<Table>,
    /// UNIX sockets in flight, with repetitions.
    sockets: AtomicUsize,
    /// Of these, what the last collection left.
    survivors: AtomicUsize,
    /// Sockets released since.
    released: AtomicUsize,
}

impl InFlight {
    /// None. `find` knows the sockets among open files.
    pub(crate) fn new(find: FindQueue) -> InFlight {
        InFlight {
            find,
            table: Mutex::new(LockClass::Table, Table::default()),
            sockets: AtomicUsize::new(0),
            survivors: AtomicUsize::new(0),
            released: AtomicUsize::new(0),
        }
    }

    fn is_socket(&self, file: &OpenFile) -> bool {
        (self.find)(file).is_some()
    }
}

/// A socket whose queue can have files in flight.
pub(crate) trait RightsQueue {
    /// Shows what is in the queue, and in those of connections that nobody has accepted yet.
    fn for_each_rights(&self, show: &mut dyn FnMut(&Rights));

    /// Takes it out.
    fn take_rights(&self) -> Vec<Rights>;
}

/// The queue behind an open file, if it has one.
pub(crate) type FindQueue = fn(&OpenFile) -> Option<&dyn RightsQueue>;

/// Files in flight, counted.
pub struct Rights {
    flight: Arc<InFlight>,
    files: Vec<Arc<OpenFile>>,
    uid: u32,
}

impl Rights {
    /// Puts files in flight.
    ///
    /// # Errors
    /// ETOOMANYREFS if the user has more of them than RLIMIT_NOFILE allows descriptors; EINVAL for more than 253.
    pub fn new(flight: &Arc<InFlight>, files: &[Arc<OpenFile>], caller: Option<&dyn Caller>) -> Result<Rights> {
        if files.len() > SCM_MAX_FD {
            return Err(Errno::EINVAL);
        }
        if flight.sockets_in_flight() > MANY_SOCKETS.max(2 * flight.survivors.load(Ordering::Relaxed)) {
            flight.collect();
        }
        let task = caller.and_then(|c| c.task());
        let limit = task.map_or(u64::MAX, |t| t.limits().get(Resource::OpenFiles).soft);
        let (uid, exempt) = caller.map_or((0, true), |c| {
            let creds = c.creds();
            (creds.uid, creds.has_root_cap(Cap::SYS_RESOURCE) || creds.has_root_cap(Cap::SYS_ADMIN))
        });
        let limit = if exempt { u64::MAX } else { limit };
        if !flight.add(uid, files, limit) {
            // Some of them may be garbage.
            flight.collect();
            if !flight.add(uid, files, limit) {
                return Err(Errno::ETOOMANYREFS);
            }
        }
        Ok(Rights { flight: flight.clone(), files: files.to_vec(), uid })
    }

    /// Puts files in flight again that an image had there, whatever their user's limit is.
    ///
    /// # Errors
    /// More than a message has, or the sandbox.
    pub(crate) fn restored(flight: &Arc<InFlight>, files: Vec<Arc<OpenFile>>, uid: u32) -> Result<Rights> {
        // Nothing is collected meanwhile: who has them open is yet to be made.
        if files.len() > SCM_MAX_FD || !flight.add(uid, &files, u64::MAX) {
            return Err(Errno::ETOOMANYREFS);
        }
        Ok(Rights { flight: flight.clone(), files, uid })
    }

    /// The user who is charged for them.
    pub(crate) fn uid(&self) -> u32 {
        self.uid
    }

    /// The files, taken out of flight.
    #[must_use]
    pub fn receive(mut self) -> Vec<Arc<OpenFile>> {
        let files = std::mem::take(&mut self.files);
        self.flight.remove(self.uid, &files);
        files
    }

    /// More references to the files, for MSG_PEEK.
    #[must_use]
    pub fn peek(&self) -> Vec<Arc<OpenFile>> {
        self.files.clone()
    }

    fn sockets(&self) -> impl Iterator<Item = u64> {
        self.files.iter().filter(|f| self.flight.is_socket(f)).map(|f| f.id())
    }
}

impl Table {
    /// Counts files in; false, with nothing changed, if the user has more than `limit` already.
    fn add(&mut self, find: FindQueue, uid: u32, files: &[Arc<OpenFile>], limit: u64) -> bool {
        let mine = self.users.get(&uid).copied().unwrap_or(0);
        // Compared before these are added, as in `too_many_unix_fds`.
        if self.total + files.len() > MOST || mine as u64 > limit {
            return false;
        }
        self.total += files.len();
        *self.users.entry(uid).or_insert(0) += files.len();
        for f in files.iter().filter(|f| find(f).is_some()) {
            self.sockets.entry(f.id()).or_insert_with(|| Flight { file: Arc::downgrade(f), count: 0 }).count += 1;
            self.socket_count += 1;
        }
        true
    }

    fn remove(&mut self, find: FindQueue, uid: u32, files: &[Arc<OpenFile>]) {
        self.total -= files.len();
        if let Some(n) = self.users.get_mut(&uid) {
            *n -= files.len();
            if *n == 0 {
                self.users.remove(&uid);
            }
        }
        for f in files.iter().filter(|f| find(f).is_some()) {
            if let Some(flight) = self.sockets.get_mut(&f.id()) {
                flight.count -= 1;
                if flight.count == 0 {
                    self.sockets.remove(&f.id());
                }
                self.socket_count -= 1;
            }
        }
    }
}

thread_local! {
    // Files to be dropped, whether a caller further up drops them, and a collection to be made afterwards.
    static TRASH: RefCell<Vec<Arc<OpenFile>>> = const { RefCell::new(Vec::new()) };
    static EMPTYING: Cell<bool> = const { Cell::new(false) };
    static COLLECT_AFTER: RefCell<Option<Arc<InFlight>>> = const { RefCell::new(None) };
}

impl InFlight {
    fn add(&self, uid: u32, files: &[Arc<OpenFile>], limit: u64) -> bool {
        let mut table = self.table.lock();
        let added = table.add(self.find, uid, files, limit);
        // A copy that is read without the lock.
        self.sockets.store(table.socket_count, Ordering::Relaxed);
        added
    }

    fn remove(&self, uid: u32, files: &[Arc<OpenFile>]) {
        let mut table = self.table.lock();
        table.remove(self.find, uid, files);
        self.sockets.store(table.socket_count, Ordering::Relaxed);
    }
}

impl Drop for Rights {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.files);
        if files.is_empty() {
            return;
        }
        self.flight.remove(self.uid, &files);
        TRASH.with_borrow_mut(|t| t.extend(files));
        empty_trash();
    }
}

fn empty_trash() {
    if EMPTYING.replace(true) {
        return;
    }
    // Taken out first: the drop may add more.
    while let Some(file) = TRASH.with_borrow_mut(Vec::pop) {
        drop(file);
    }
    EMPTYING.set(false);
    if let Some(flight) = COLLECT_AFTER.take() {
        flight.collect();
    }
}

impl InFlight {
    /// UNIX sockets in flight, with repetitions.
    #[must_use]
    pub fn sockets_in_flight(&self) -> usize {
        self.sockets.load(Ordering::Relaxed)
    }

    /// A UNIX socket is gone: others may have become unreachable by it.
    pub(crate) fn socket_released(self: &Arc<Self>) {
        // A collection looks at every socket in flight: with many of them it waits until as much may be won.
        let released = self.released.fetch_add(1, Ordering::Relaxed) + 1;
        if self.sockets_in_flight() == 0 || released * 16 < self.survivors.load(Ordering::Relaxed) {
            return;
        }
        if EMPTYING.get() {
            COLLECT_AFTER.set(Some(self.clone()));
        } else {
            self.collect();
        }
    }

    /// Empties the queues of sockets that nobody can receive any more (`unix_gc`).
    pub fn collect(&self) {
        self.released.store(0, Ordering::Relaxed);
        let candidates = self.candidates();
        let garbage = unreachable(self.find, &candidates);
        self.survivors.store(self.sockets_in_flight().saturating_sub(garbage.len()), Ordering::Relaxed);
        // Whoever has got hold of one in the meantime keeps all of them alive until the next time.
        let still = |(id, file): &(u64, &Arc<OpenFile>)| {
            let t = self.table.lock();
            // One reference more: the one in `candidates`.
            t.sockets.get(id).is_some_and(|flight| flight.count + 1 == Arc::strong_count(file))
        };
        let all: Vec<_> = garbage.iter().filter_map(|id| Some((*id, &candidates.get(id)?.0))).collect();
        if all.is_empty() || !all.iter().all(still) {
            return;
        }
        let queues: Vec<_> = all.iter().filter_map(|(_, f)| (self.find)(f)).map(RightsQueue::take_rights).collect();
        drop(queues);
    }

    /// Sockets whose references are all in flight, with the number of these.
    fn candidates(&self) -> HashMap<u64, (Arc<OpenFile>, usize)> {
        let t = self.table.lock();
        let mut found = HashMap::new();
        for (id, flight) in &t.sockets {
            // All references are in flight: nobody has the socket open.
            if flight.file.strong_count() == flight.count
                && let Some(file) = flight.file.upgrade()
            {
                found.insert(*id, (file, flight.count));
            }
        }
        found
    }
}

/// The candidates that are in flight only in queues of other such candidates.
fn unreachable(find: FindQueue, candidates: &HashMap<u64, (Arc<OpenFile>, usize)>) -> Vec<u64> {
    let mut inside: HashMap<u64, usize> = HashMap::new();
    let mut edges: HashMap<u64, Vec<u64>> = HashMap::new();
    for (id, (file, _)) in candidates {
        let mut queued = Vec::new();
        if let Some(socket) = find(file) {
            socket.for_each_rights(&mut |r| queued.extend(r.sockets()));
        }
        for to in &queued {
            *inside.entry(*to).or_insert(0) += 1;
        }
        edges.insert(*id, queued);
    }
    let mut reached: Vec<u64> = candidates
        .iter()
        // Also in flight in a queue outside, from which it may be received.
        .filter(|(id, (_, count))| inside.get(id).copied().unwrap_or(0) < *count)
        .map(|(id, _)| *id)
        .collect();
    let mut live: std::collections::HashSet<u64> = reached.iter().copied().collect();
    // What is queued in a socket that may be received may be, too.
    while let Some(id) = reached.pop() {
        for to in edges.get(&id).into_iter().flatten() {
            if candidates.contains_key(to) && live.insert(*to) {
                reached.push(*to);
            }
        }
    }
    candidates.keys().copied().filter(|id| !live.contains(id)).collect()
}
