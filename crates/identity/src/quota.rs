//! [`Quota`]: how many namespaces of a kind there may be; [`NamespaceId`]: the number of one, which counts as long as it lives.
//!
//! Each costs memory of the sentry, and a guest can hold them by files without a process in them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::{Errno, Result};

use crate::setting::Setting;

/// How many there may be, and are (`struct ucounts`, but of all users together).
#[derive(Debug)]
pub struct Quota {
    /// Most of them (`/proc/sys/user/max_*_namespaces`).
    pub most: Setting,
    used: AtomicU64,
}

impl Quota {
    /// At most `most`, as long as nobody sets another number.
    #[must_use]
    pub fn new(most: u64) -> Arc<Quota> {
        Arc::new(Quota { most: Setting::new(most, 0, most), used: AtomicU64::new(0) })
    }

    /// Counts one more.
    ///
    /// # Errors
    /// ENOSPC.
    pub fn charge(self: &Arc<Quota>) -> Result<Charge> {
        let most = self.most.get();
        let more = |used: u64| used.checked_add(1).filter(|sum| *sum <= most);
        let done = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        done.map(|_| Charge(self.clone())).map_err(|_| Errno::ENOSPC)
    }
}

/// One that counts until it is dropped.
#[derive(Debug)]
pub struct Charge(Arc<Quota>);

impl Drop for Charge {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The number of a namespace, and what it counts as. Those that the sentry makes count as nothing.
#[derive(Debug)]
pub struct NamespaceId {
    /// The inode number of its file.
    pub number: u64,
    /// Held by the namespace.
    pub charge: Option<Charge>,
}

impl From<u64> for NamespaceId {
    fn from(number: u64) -> NamespaceId {
        NamespaceId { number, charge: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_counts_no_more() {
        let quota = Quota::new(2);
        let (a, _b) = (quota.charge().unwrap(), quota.charge().unwrap());
        assert_eq!(quota.charge().err(), Some(Errno::ENOSPC));
        drop(a);
        assert!(quota.charge().is_ok());
        quota.most.set(0).unwrap();
        assert_eq!(quota.charge().err(), Some(Errno::ENOSPC));
    }
}
