//! [`Allowance`]: what a container may use, as its cgroup on the host has it: shown to its processes, and the number of tasks
//! enforced.
//!
//! The host limits memory and CPU time. Tasks are counted here, because a guest task is not just one host thread: the host's
//! limit of those is higher. A task counts from before it is made until it is reaped, as in Linux's `kernel/cgroup/pids.c`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::socket::SocketMemory;

/// The limits that the host enforces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// CPUs that there seem to be.
    pub cpu_count: usize,
    /// Bytes of memory that there seem to be.
    pub total_memory: u64,
    /// Quota and period of CPU time in microseconds, if it is limited.
    pub cpu_max: Option<(u64, u64)>,
    /// Bytes of memory that may be used, if that is limited.
    pub memory_max: Option<u64>,
}

impl Shares {
    /// Bytes of memory that there are for it.
    fn memory(&self) -> u64 {
        self.memory_max.map_or(self.total_memory, |max| max.min(self.total_memory))
    }
}

/// No limit of tasks.
const UNLIMITED: u64 = u64::MAX;

/// What a container may use.
pub struct Allowance {
    shares: Mutex<Shares>,
    sockets: Arc<SocketMemory>,
    tasks_max: AtomicU64,
    tasks: AtomicU64,
    tasks_peak: AtomicU64,
    /// Tasks that were not made for the limit.
    refused: AtomicU64,
}

impl Allowance {
    /// With these shares and any number of tasks.
    #[must_use]
    pub fn new(shares: Shares) -> Arc<Allowance> {
        Arc::new(Allowance {
            sockets: SocketMemory::new(shares.memory()),
            shares: Mutex::new(LockClass::Leaf, shares),
            tasks_max: AtomicU64::new(UNLIMITED),
            tasks: AtomicU64::new(0),
            tasks_peak: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        })
    }

    /// What the host limits.
    #[must_use]
    pub fn shares(&self) -> Shares {
        *self.shares.lock()
    }

    /// Changes what is shown of it.
    pub fn set_shares(&self, shares: Shares) {
        self.sockets.set_total(shares.memory());
        *self.shares.lock() = Shares { cpu_count: shares.cpu_count.max(1), ..shares };
    }

    /// What its sockets hold, and may hold.
    #[must_use]
    pub fn socket_memory(&self) -> &Arc<SocketMemory> {
        &self.sockets
    }

    /// CPUs that there seem to be; at least one.
    #[must_use]
    pub fn cpu_count(&self) -> usize {
        self.shares().cpu_count.max(1)
    }

    /// The most tasks that there may be (`pids.max`); `None` for any number.
    #[must_use]
    pub fn tasks_max(&self) -> Option<u64> {
        Some(self.tasks_max.load(Ordering::Relaxed)).filter(|max| *max != UNLIMITED)
    }

    /// Sets it. What is there already stays.
    pub fn set_tasks_max(&self, max: Option<u64>) {
        self.tasks_max.store(max.unwrap_or(UNLIMITED), Ordering::Relaxed);
    }

    /// Tasks that there are, zombies included (`pids.current`).
    #[must_use]
    pub fn tasks(&self) -> u64 {
        self.tasks.load(Ordering::Relaxed)
    }

    /// The most that there have been (`pids.peak`).
    #[must_use]
    pub fn tasks_peak(&self) -> u64 {
        self.tasks_peak.load(Ordering::Relaxed)
    }

    /// How often the limit was met (`max` of `pids.events`).
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Counts a task that is about to be made.
    ///
    /// # Errors
    /// EAGAIN if there are as many as there may be (`pids_can_fork`).
    pub fn charge(self: &Arc<Self>) -> Result<TaskCharge> {
        // Counted before the look: of two at once, both can't be the last that fits.
        let charge = self.charge_anyway();
        if self.tasks() > self.tasks_max.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(Errno::EAGAIN);
        }
        self.tasks_peak.fetch_max(self.tasks(), Ordering::Relaxed);
        Ok(charge)
    }

    /// Counts a task that comes from outside, whatever the limit (`pids_can_attach`).
    #[must_use]
    pub fn charge_anyway(self: &Arc<Self>) -> TaskCharge {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        TaskCharge(self.clone())
    }
}

/// One task, counted until this is dropped.
pub struct TaskCharge(Arc<Allowance>);

impl Drop for TaskCharge {
    fn drop(&mut self) {
        self.0.tasks.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowance() -> Arc<Allowance> {
        Allowance::new(Shares { cpu_count: 2, total_memory: 1 << 30, cpu_max: None, memory_max: None })
    }

    #[test]
    fn a_full_container_gets_no_more_tasks() {
        let a = allowance();
        a.set_tasks_max(Some(2));
        let (first, second) = (a.charge().unwrap(), a.charge().unwrap());
        assert_eq!(a.charge().err(), Some(Errno::EAGAIN));
        assert_eq!((a.tasks(), a.tasks_peak(), a.refused()), (2, 2, 1));
        drop(first);
        let third = a.charge().unwrap();
        // Who comes from outside is let in, and counted.
        let fourth = a.charge_anyway();
        assert_eq!((a.tasks(), a.refused()), (3, 1));
        a.set_tasks_max(Some(3));
        assert_eq!(a.charge().err(), Some(Errno::EAGAIN));
        a.set_tasks_max(None);
        assert!(a.charge().is_ok() && a.tasks_max().is_none());
        drop((second, third, fourth));
        assert_eq!(a.tasks(), 0);
    }

    #[test]
    fn there_is_always_a_cpu() {
        let a = allowance();
        a.set_shares(Shares { cpu_count: 0, ..a.shares() });
        assert_eq!(a.cpu_count(), 1);
    }
}
