//! [`Setting`]: a number of /proc/sys that has an effect, and those of the one network namespace.
//!
//! Settings of System V IPC and POSIX message queues are in [`crate::ipc::IpcNamespace`].

use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::{Errno, Result};

/// A number that can be set within bounds.
pub struct Setting {
    value: AtomicU64,
    least: u64,
    most: u64,
}

impl Setting {
    /// `value` at first; `least` to `most` can be set.
    #[must_use]
    pub const fn new(value: u64, least: u64, most: u64) -> Setting {
        Setting { value: AtomicU64::new(value), least, most }
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// The number, cut to what an `i32` holds: limits that the interface has as `int`.
    #[must_use]
    pub fn get_i32(&self) -> i32 {
        i32::try_from(self.get()).unwrap_or(i32::MAX)
    }

    /// Sets it.
    ///
    /// # Errors
    /// EINVAL out of bounds.
    pub fn set(&self, value: u64) -> Result<()> {
        if !(self.least..=self.most).contains(&value) {
            return Err(Errno::EINVAL);
        }
        self.value.store(value, Ordering::Relaxed);
        Ok(())
    }
}

/// Settings of the network.
pub struct NetSettings {
    /// Ports below take CAP_NET_BIND_SERVICE (`net.ipv4.ip_unprivileged_port_start`).
    pub first_unprivileged_port: Setting,
    /// The first port of those that bind(2) chooses (`net.ipv4.ip_local_port_range`).
    pub first_local_port: Setting,
    /// The last of them.
    pub last_local_port: Setting,
    /// Greatest length of a queue of connections that wait to be accepted (`net.core.somaxconn`).
    pub max_backlog: Setting,
}

static NET: NetSettings = NetSettings {
    first_unprivileged_port: Setting::new(1024, 0, 65535),
    first_local_port: Setting::new(32768, 1, 65535),
    last_local_port: Setting::new(60999, 1, 65535),
    max_backlog: Setting::new(4096, 0, i32::MAX as u64),
};

/// Settings of the sandbox's network.
#[must_use]
pub fn net() -> &'static NetSettings {
    &NET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let s = Setting::new(5, 2, 9);
        assert_eq!((s.set(1), s.set(10), s.get()), (Err(Errno::EINVAL), Err(Errno::EINVAL), 5));
        assert_eq!((s.set(9), s.get_i32()), (Ok(()), 9));
        assert_eq!(Setting::new(u64::MAX, 0, u64::MAX).get_i32(), i32::MAX);
    }
}
