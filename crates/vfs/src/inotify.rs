//! inotify(7): who watches which files, and what they are told.
//!
//! - [`Watches`], one per kernel: the watches by the file they are on, and the limits of /proc/sys/fs/inotify.
//! - [`Inotify`]: an instance: its watches by number, and the events that wait to be read; `file`: as a file.
//! - `events`: where the rest of the vfs says what happened to a file; `outside`: where the host does, of trees that others change.
//!
//! Files are told apart by [`WatchId`](table::WatchId): the inode's address, which its watches keep alive; a file that is made
//! anew at each lookup (/proc) has a number instead. While nothing is watched an event costs one look at a counter.
//!
//! # Invariants
//! - Watches come and go under the table's lock, and an instance's own lock is taken inside of it: a watch is in both tables
//!   or in none.
//! - What a watch holds is let go outside of both locks: the last reference to an inode may take any lock of its file system.
//! - An instance queues nothing for a watch that it has not: IN_IGNORED is a watch's last event.
//! - Tables and queues know nothing of dentries and inodes, so that those can know of them.

mod events;
mod file;
mod instance;
mod outside;
mod persist;
mod served;
mod table;

pub use instance::Inotify;
pub use table::Watches;

pub(crate) use table::Through;
