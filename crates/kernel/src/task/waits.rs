//! [`WaitProfile`]: how long tasks wait and for what, while somebody wants to know.
//!
//! # Invariants
//! - A wait that began before the profile counts from the profile's beginning, one that goes on at its end up to that.
//! - While nobody wants to know, a wait costs one load.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use moat_host::clock::monotonic_ns;
use moat_sync::{LockClass, Mutex};

/// Places that a profile tells apart; guests choose names of commands.
const MAX_SITES: usize = 4096;

/// Where a task waited.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WaitSite {
    /// The thread group, as its own namespace numbers it.
    pub tgid: i32,
    /// The command.
    pub comm: Vec<u8>,
    /// The system call, if it was in one.
    pub call: Option<u64>,
    /// The wait's name.
    pub wchan: &'static str,
}

/// What has been waited at a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// How often.
    pub count: u64,
    /// How long in all.
    pub time_ns: u64,
}

/// The places and times of waits.
pub struct WaitProfile {
    on: AtomicBool,
    /// When the profile began.
    began_ns: AtomicU64,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    sites: HashMap<WaitSite, Waited>,
    /// Waits at places that had no room.
    dropped: u64,
}

impl Default for WaitProfile {
    fn default() -> WaitProfile {
        WaitProfile {
            on: AtomicBool::new(false),
            began_ns: AtomicU64::new(0),
            table: Mutex::new(LockClass::Leaf, Table::default()),
        }
    }
}

impl WaitProfile {
    /// Whether waits are counted.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Begins a profile.
    pub fn start(&self) {
        // What a profile that nobody ended has left.
        *self.table.lock() = Table::default();
        self.began_ns.store(monotonic_ns(), Ordering::Relaxed);
        self.on.store(true, Ordering::Release);
    }

    /// Ends it: the places, with those where somebody `still` waits and since when, and how many waits found no room.
    pub fn stop(&self, still: impl IntoIterator<Item = (WaitSite, u64)>) -> (Vec<(WaitSite, Waited)>, u64) {
        still.into_iter().for_each(|(site, since_ns)| self.add(site, since_ns));
        // A wait that ends at this moment may still be added, and is forgotten with the next start.
        self.on.store(false, Ordering::Relaxed);
        let table = std::mem::take(&mut *self.table.lock());
        (table.sites.into_iter().collect(), table.dropped)
    }

    /// Somebody has waited there since `since_ns`.
    pub(crate) fn add(&self, site: WaitSite, since_ns: u64) {
        let since_ns = since_ns.max(self.began_ns.load(Ordering::Relaxed));
        self.note(site, monotonic_ns().saturating_sub(since_ns));
    }

    /// Somebody has waited there for so long.
    pub(crate) fn note(&self, site: WaitSite, time_ns: u64) {
        let mut table = self.table.lock();
        // A guest can rename itself before each wait.
        if table.sites.len() >= MAX_SITES && !table.sites.contains_key(&site) {
            table.dropped = table.dropped.saturating_add(1);
            return;
        }
        let waited = table.sites.entry(site).or_default();
        waited.count = waited.count.saturating_add(1);
        waited.time_ns = waited.time_ns.saturating_add(time_ns);
    }
}
