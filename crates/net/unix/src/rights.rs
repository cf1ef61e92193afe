//! Descriptors in flight: SCM_RIGHTS.
//!
//! [`Rights`] are open files in a message that nobody has received. A socket whose only references are in flight, in
//! queues of sockets that are themselves so, can never be received again: [`collect`] finds such groups and empties their
//! queues. It runs when a UNIX socket goes while others are in flight, and when many are.
//!
//! Dropping a file may drop a queue with more files in it, to any depth: they go through a list per thread, not recursion.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::cap::Cap;
use moat_abi::socket::SCM_MAX_FD;
use moat_abi::{Errno, Result};
use moat_kernel::Resource;
use moat_kernel::task::current::from_caller;
use moat_sync::{LockClass, Mutex};
use moat_vfs::socket::SocketFile;
use moat_vfs::{Caller, OpenFile};

use crate::socket::UnixSocket;

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
}

static SOCKETS_IN_FLIGHT: AtomicUsize = AtomicUsize::new(0);
/// Sockets in flight that the last collection left, and sockets released since.
static SURVIVORS: AtomicUsize = AtomicUsize::new(0);
static RELEASED: AtomicUsize = AtomicUsize::new(0);

fn table() -> &'static Mutex<Table> {
    static TABLE: OnceLock<Mutex<Table>> = OnceLock::new();
    TABLE.get_or_init(|| Mutex::new(LockClass::Table, Table::default()))
}

fn as_unix(file: &OpenFile) -> Option<&UnixSocket> {
    file.downcast::<SocketFile>()?.downcast()
}

/// Files in flight, counted.
pub struct Rights {
    files: Vec<Arc<OpenFile>>,
    uid: u32,
}

impl Rights {
    /// Puts files in flight.
    ///
    /// # Errors
    /// ETOOMANYREFS if the user has more of them than RLIMIT_NOFILE allows descriptors; EINVAL for more than 253.
    pub fn new(files: &[Arc<OpenFile>], caller: Option<&dyn Caller>) -> Result<Rights> {
        if files.len() > SCM_MAX_FD {
            return Err(Errno::EINVAL);
        }
        let in_flight = SOCKETS_IN_FLIGHT.load(Ordering::Relaxed);
        if in_flight > MANY_SOCKETS.max(2 * SURVIVORS.load(Ordering::Relaxed)) {
            collect();
        }
        let task = caller.and_then(from_caller);
        let limit = task.map_or(u64::MAX, |t| t.group.limits.get(Resource::OpenFiles).soft);
        let (uid, exempt) = caller.map_or((0, true), |c| {
            let creds = c.creds();
            (creds.uid, creds.has_root_cap(Cap::SYS_RESOURCE) || creds.has_root_cap(Cap::SYS_ADMIN))
        });
        let limit = if exempt { u64::MAX } else { limit };
        if !table().lock().add(uid, files, limit) {
            // Some of them may be garbage.
            collect();
            if !table().lock().add(uid, files, limit) {
                return Err(Errno::ETOOMANYREFS);
            }
        }
        Ok(Rights { files: files.to_vec(), uid })
    }

    /// The files, taken out of flight.
    #[must_use]
    pub fn receive(mut self) -> Vec<Arc<OpenFile>> {
        let files = std::mem::take(&mut self.files);
        table().lock().remove(self.uid, &files);
        files
    }

    /// More references to the files, for MSG_PEEK.
    #[must_use]
    pub fn peek(&self) -> Vec<Arc<OpenFile>> {
        self.files.clone()
    }

    fn sockets(&self) -> impl Iterator<Item = u64> {
        self.files.iter().filter(|f| as_unix(f).is_some()).map(|f| f.id())
    }
}

impl Table {
    /// Counts files in; false, with nothing changed, if the user has more than `limit` already.
    fn add(&mut self, uid: u32, files: &[Arc<OpenFile>], limit: u64) -> bool {
        let mine = self.users.get(&uid).copied().unwrap_or(0);
        if self.total + files.len() > MOST || mine as u64 > limit {
            return false;
        }
        self.total += files.len();
        *self.users.entry(uid).or_insert(0) += files.len();
        for f in files.iter().filter(|f| as_unix(f).is_some()) {
            self.sockets.entry(f.id()).or_insert_with(|| Flight { file: Arc::downgrade(f), count: 0 }).count += 1;
            SOCKETS_IN_FLIGHT.fetch_add(1, Ordering::Relaxed);
        }
        true
    }

    fn remove(&mut self, uid: u32, files: &[Arc<OpenFile>]) {
        self.total -= files.len();
        if let Some(n) = self.users.get_mut(&uid) {
            *n -= files.len();
            if *n == 0 {
                self.users.remove(&uid);
            }
        }
        for f in files.iter().filter(|f| as_unix(f).is_some()) {
            if let Some(flight) = self.sockets.get_mut(&f.id()) {
                flight.count -= 1;
                if flight.count == 0 {
                    self.sockets.remove(&f.id());
                }
                SOCKETS_IN_FLIGHT.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }
}

thread_local! {
    static TRASH: RefCell<Vec<Arc<OpenFile>>> = const { RefCell::new(Vec::new()) };
    static EMPTYING: Cell<bool> = const { Cell::new(false) };
    static COLLECT_AFTER: Cell<bool> = const { Cell::new(false) };
}

impl Drop for Rights {
    fn drop(&mut self) {
        let files = std::mem::take(&mut self.files);
        if files.is_empty() {
            return;
        }
        table().lock().remove(self.uid, &files);
        TRASH.with_borrow_mut(|t| t.extend(files));
        empty_trash();
    }
}

fn empty_trash() {
    if EMPTYING.replace(true) {
        return;
    }
    while let Some(file) = TRASH.with_borrow_mut(Vec::pop) {
        drop(file);
    }
    EMPTYING.set(false);
    if COLLECT_AFTER.replace(false) {
        collect();
    }
}

/// A UNIX socket is gone: others may have become unreachable by it.
pub(crate) fn socket_released() {
    // A collection looks at every socket in flight: with many of them it waits until as much may be won.
    let released = RELEASED.fetch_add(1, Ordering::Relaxed) + 1;
    if SOCKETS_IN_FLIGHT.load(Ordering::Relaxed) == 0 || released * 16 < SURVIVORS.load(Ordering::Relaxed) {
        return;
    }
    if EMPTYING.get() {
        COLLECT_AFTER.set(true);
    } else {
        collect();
    }
}

/// Empties the queues of sockets that nobody can receive any more (`unix_gc`).
pub fn collect() {
    RELEASED.store(0, Ordering::Relaxed);
    let candidates = candidates();
    let garbage = unreachable(&candidates);
    SURVIVORS.store(SOCKETS_IN_FLIGHT.load(Ordering::Relaxed).saturating_sub(garbage.len()), Ordering::Relaxed);
    // Whoever has got hold of one in the meantime keeps all of them alive until the next time.
    let still = |(id, file): &(u64, &Arc<OpenFile>)| {
        let t = table().lock();
        // One reference more: the one in `candidates`.
        t.sockets.get(id).is_some_and(|flight| flight.count + 1 == Arc::strong_count(file))
    };
    let all: Vec<_> = garbage.iter().filter_map(|id| Some((*id, &candidates.get(id)?.0))).collect();
    if all.is_empty() || !all.iter().all(still) {
        return;
    }
    let queues: Vec<_> = all.iter().filter_map(|(_, f)| as_unix(f)).map(UnixSocket::take_rights).collect();
    drop(queues);
}

/// Sockets whose references are all in flight, with the number of these.
fn candidates() -> HashMap<u64, (Arc<OpenFile>, usize)> {
    let t = table().lock();
    let mut found = HashMap::new();
    for (id, flight) in &t.sockets {
        if flight.file.strong_count() == flight.count
            && let Some(file) = flight.file.upgrade()
        {
            found.insert(*id, (file, flight.count));
        }
    }
    found
}

/// The candidates that are in flight only in queues of other such candidates.
fn unreachable(candidates: &HashMap<u64, (Arc<OpenFile>, usize)>) -> Vec<u64> {
    let mut inside: HashMap<u64, usize> = HashMap::new();
    let mut edges: HashMap<u64, Vec<u64>> = HashMap::new();
    for (id, (file, _)) in candidates {
        let mut queued = Vec::new();
        if let Some(socket) = as_unix(file) {
            socket.for_each_rights(&mut |r| queued.extend(r.sockets()));
        }
        for to in &queued {
            *inside.entry(*to).or_insert(0) += 1;
        }
        edges.insert(*id, queued);
    }
    let mut reached: Vec<u64> = candidates
        .iter()
        .filter(|(id, (_, count))| inside.get(id).copied().unwrap_or(0) < *count)
        .map(|(id, _)| *id)
        .collect();
    let mut live: std::collections::HashSet<u64> = reached.iter().copied().collect();
    while let Some(id) = reached.pop() {
        for to in edges.get(&id).into_iter().flatten() {
            if candidates.contains_key(to) && live.insert(*to) {
                reached.push(*to);
            }
        }
    }
    candidates.keys().copied().filter(|id| !live.contains(id)).collect()
}

/// UNIX sockets in flight, for tests.
#[must_use]
pub fn sockets_in_flight() -> usize {
    SOCKETS_IN_FLIGHT.load(Ordering::Relaxed)
}
