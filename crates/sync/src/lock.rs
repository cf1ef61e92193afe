//! [`Mutex`] and [`RwLock`] with a checked order.
//!
//! Each lock is made with a [`LockClass`]. A thread may take a lock only if its class comes after the classes
//! of all locks that it holds; debug builds check that and panic with both names. Release builds pay nothing.

use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::time::Duration;

use crate::contention;

/// The order of all locks: one that is listed earlier is taken earlier (is "outer").
///
/// Two locks of one class may be held together only where the class says so ([`LockClass::may_nest`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs)]
pub enum LockClass {
    /// The position of an open file description, held across the read or write that moves it.
    FilePosition,
    /// Control server and sandbox life cycle.
    Control,
    /// The tables of pids, thread groups, sessions; parent-child links.
    Tasks,
    /// Signal state of a thread group.
    Signals,
    /// One task's own mutable state.
    Task,
    /// Per-process state outside signals: fs context, rlimits, names.
    Process,
    /// The descriptor table.
    FdTable,
    /// An epoll instance (may nest: an epoll watches an epoll).
    Epoll,
    /// Mount tree.
    Mounts,
    /// rename(2) serialisation of a file system.
    Rename,
    /// A directory's entries while they change (ancestor before descendant).
    Directory,
    /// A dentry (parent before child).
    Dentry,
    /// The VMA tree of an address space.
    Vmas,
    /// Futex buckets (two are locked in the order of their numbers).
    Futex,
    /// An open file description.
    OpenFile,
    /// An inode's state (directory before child).
    Inode,
    /// File data.
    FileData,
    /// Record locks and leases.
    FileLocks,
    /// A terminal.
    Tty,
    /// A socket (connected pairs are locked in address order).
    Socket,
    /// A pipe or other stream buffer.
    Stream,
    /// Changes of a network namespace's links, addresses and routes (`rtnl_mutex`).
    NetConfiguration,
    /// The buffers of a network link's device, while frames are taken from it.
    Link,
    /// A network namespace's stack.
    NetStack,
    /// Timers as kernel objects.
    KernelTimer,
    /// The watches of inotify.
    Watches,
    /// Small leaf tables (id allocation, caches).
    Table,
    /// The platform's own tables.
    Platform,
    /// A wait queue's list.
    WaitQueue,
    /// A listener of a wait queue.
    Listener,
    /// The executor's timers.
    Timers,
    /// The executor's queues.
    Executor,
    /// Logs and counters: taken under anything.
    Leaf,
}

impl LockClass {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            LockClass::FilePosition => "FilePosition",
            LockClass::Control => "Control",
            LockClass::Tasks => "Tasks",
            LockClass::Signals => "Signals",
            LockClass::Task => "Task",
            LockClass::Process => "Process",
            LockClass::FdTable => "FdTable",
            LockClass::Epoll => "Epoll",
            LockClass::Mounts => "Mounts",
            LockClass::Rename => "Rename",
            LockClass::Directory => "Directory",
            LockClass::Dentry => "Dentry",
            LockClass::Vmas => "Vmas",
            LockClass::Futex => "Futex",
            LockClass::OpenFile => "OpenFile",
            LockClass::Inode => "Inode",
            LockClass::FileData => "FileData",
            LockClass::FileLocks => "FileLocks",
            LockClass::Tty => "Tty",
            LockClass::Socket => "Socket",
            LockClass::Stream => "Stream",
            LockClass::NetConfiguration => "NetConfiguration",
            LockClass::Link => "Link",
            LockClass::NetStack => "NetStack",
            LockClass::KernelTimer => "KernelTimer",
            LockClass::Watches => "Watches",
            LockClass::Table => "Table",
            LockClass::Platform => "Platform",
            LockClass::WaitQueue => "WaitQueue",
            LockClass::Listener => "Listener",
            LockClass::Timers => "Timers",
            LockClass::Executor => "Executor",
            LockClass::Leaf => "Leaf",
        }
    }

    /// Whether a second lock of this class may be taken by a thread that holds one.
    #[must_use]
    pub const fn may_nest(self) -> bool {
        matches!(
            self,
            LockClass::Epoll
                | LockClass::Futex
                | LockClass::Directory
                | LockClass::Dentry
                | LockClass::Inode
                | LockClass::Socket
                | LockClass::Vmas
                | LockClass::FileData
                | LockClass::Mounts
        )
    }
}

#[cfg(debug_assertions)]
mod order {
    use super::LockClass;
    use std::cell::RefCell;

    thread_local! {
        static HELD: RefCell<Vec<LockClass>> = const { RefCell::new(Vec::new()) };
    }

    /// One entry of the thread's list of held locks.
    pub(super) struct Token(LockClass);

    impl Token {
        pub(super) fn take(class: LockClass) -> Token {
            HELD.with_borrow_mut(|held| {
                // Compared with all of them: guards are dropped in any order.
                if let Some(&last) = held.iter().max() {
                    let fine = class > last || (class == last && class.may_nest());
                    assert!(fine, "lock order: {class:?} taken while {held:?} held");
                }
                held.push(class);
            });
            Token(class)
        }
    }

    impl Drop for Token {
        fn drop(&mut self) {
            HELD.with_borrow_mut(|held| {
                if let Some(at) = held.iter().rposition(|&c| c == self.0) {
                    held.remove(at);
                }
            });
        }
    }
}

#[cfg(not(debug_assertions))]
mod order {
    pub(super) struct Token;
    impl Token {
        #[inline(always)]
        pub(super) fn take(_class: super::LockClass) -> Token {
            Token
        }
    }
}

use order::Token;

/// A mutual-exclusion lock with a place in the lock order.
pub struct Mutex<T: ?Sized> {
    class: LockClass,
    inner: parking_lot::Mutex<T>,
}

/// The right to use what a [`Mutex`] guards.
pub struct MutexGuard<'a, T: ?Sized> {
    inner: parking_lot::MutexGuard<'a, T>,
    _token: Token,
}

impl<T> Mutex<T> {
    /// Makes a lock of `class`.
    pub const fn new(class: LockClass, value: T) -> Mutex<T> {
        Mutex { class, inner: parking_lot::const_mutex(value) }
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.inner.into_inner()
    }
}

impl<T: ?Sized> Mutex<T> {
    /// Takes the lock.
    #[inline]
    #[track_caller]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let token = Token::take(self.class);
        let inner = match self.inner.try_lock() {
            Some(inner) => inner,
            None => contention::wait(self.class, Location::caller(), || self.inner.lock()),
        };
        MutexGuard { inner, _token: token }
    }

    /// Takes the lock if it is free.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let inner = self.inner.try_lock()?;
        Some(MutexGuard { inner, _token: Token::take(self.class) })
    }

    /// The value, with no locking needed.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T: ?Sized> Deref for MutexGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// A condition that host threads wait for with a [`Mutex`].
///
/// For the waits that depend on another host thread only, and that end soon: a task waits with a
/// [`crate::WaitQueue`].
#[derive(Debug, Default)]
pub struct Condvar(parking_lot::Condvar);

impl Condvar {
    /// A condition that nobody waits for.
    #[must_use]
    pub const fn new() -> Condvar {
        Condvar(parking_lot::Condvar::new())
    }

    /// Gives the lock up, waits for a notification, and takes it again. May return without one.
    pub fn wait<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>) {
        self.0.wait(&mut guard.inner);
    }

    /// As [`Condvar::wait`], for at most so long.
    pub fn wait_for<T: ?Sized>(&self, guard: &mut MutexGuard<'_, T>, most: Duration) {
        self.0.wait_for(&mut guard.inner, most);
    }

    /// Ends the wait of one thread.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Ends the waits of all threads.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A readers-writer lock with a place in the lock order.
pub struct RwLock<T: ?Sized> {
    class: LockClass,
    inner: parking_lot::RwLock<T>,
}

/// Shared use of what a [`RwLock`] guards.
pub struct RwLockReadGuard<'a, T: ?Sized> {
    inner: parking_lot::RwLockReadGuard<'a, T>,
    _token: Token,
}

/// Exclusive use of what a [`RwLock`] guards.
pub struct RwLockWriteGuard<'a, T: ?Sized> {
    inner: parking_lot::RwLockWriteGuard<'a, T>,
    _token: Token,
}

impl<T> RwLock<T> {
    /// Makes a lock of `class`.
    pub const fn new(class: LockClass, value: T) -> RwLock<T> {
        RwLock { class, inner: parking_lot::const_rwlock(value) }
    }
}

impl<T: ?Sized> RwLock<T> {
    /// Takes the lock shared.
    #[inline]
    #[track_caller]
    pub fn read(&self) -> RwLockReadGuard<'_, T> {
        let token = Token::take(self.class);
        let inner = match self.inner.try_read() {
            Some(inner) => inner,
            None => contention::wait(self.class, Location::caller(), || self.inner.read()),
        };
        RwLockReadGuard { inner, _token: token }
    }

    /// Takes the lock exclusively.
    #[inline]
    #[track_caller]
    pub fn write(&self) -> RwLockWriteGuard<'_, T> {
        let token = Token::take(self.class);
        let inner = match self.inner.try_write() {
            Some(inner) => inner,
            None => contention::wait(self.class, Location::caller(), || self.inner.write()),
        };
        RwLockWriteGuard { inner, _token: token }
    }

    /// The value, with no locking needed.
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

impl<T: ?Sized> Deref for RwLockReadGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> Deref for RwLockWriteGuard<'_, T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T: ?Sized> DerefMut for RwLockWriteGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(debug_assertions)]
    #[should_panic(expected = "lock order")]
    fn the_wrong_order_is_caught() {
        let outer = Mutex::new(LockClass::Tasks, ());
        let inner = Mutex::new(LockClass::Inode, ());
        let _held = inner.lock();
        let _wrong = outer.lock();
    }

    #[test]
    fn the_right_order_passes_and_releases() {
        let outer = Mutex::new(LockClass::Tasks, 1);
        let inner = RwLock::new(LockClass::Inode, 2);
        for _ in 0..2 {
            let a = outer.lock();
            let b = inner.read();
            assert_eq!(*a + *b, 3);
        }
    }
}
