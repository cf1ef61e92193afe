//! Locks, wait queues, timers and the executor: everything by which the sentry's threads meet.
//!
//! - [`lock`]: [`Mutex`] and [`RwLock`] whose order is checked in debug builds against one table, [`LockClass`].
//! - [`wait`]: [`WaitQueue`], by which an object says that its readiness changed.
//! - [`timer`]: deadlines on the host's monotonic clock.
//! - [`executor`]: runs guest tasks as futures on a few host threads, one of which leads: it waits for the
//!   platform, the host descriptors ([`reactor`]) and the timers.
//! - [`busy`]: how workers spend their time.
//! - [`watchdog`]: tells of tasks that hold a worker for long.
//! - [`trace`]: what threads and tasks did, for recordings.
//! - [`contention`]: how long threads waited for locks, for profiles.
//! - [`Counters`]: numbers that many threads add to.
//! - [`WeakList`]: values that others own.
//! - [`async_mutex`]: a lock that may be held across an await.
//!
//! # Invariants
//! - No lock of [`lock`] is held across an await, a guest-memory copy or a host call that may block.
//! - An idle executor makes no host call and burns no CPU.

pub mod async_mutex;
pub mod busy;
pub mod contention;
mod counters;
pub mod executor;
pub mod lock;
pub mod reactor;
pub mod timer;
pub mod trace;
pub mod wait;
pub mod watchdog;
mod weak_list;

pub use counters::Counters;
pub use executor::{block_in_place, host_call, spawn};
pub use lock::{Condvar, LockClass, Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
pub use wait::{Listener, Notify, WaitQueue};
pub use weak_list::WeakList;
