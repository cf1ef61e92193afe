//! [`Watches`]: the groups of fanotify(7) that a tree's files are marked in.
//!
//! The host says of an event only to the process that caused it that it did. Two processes work for the guest, each does other kinds of
//! things, and each has a group for them: what it reads there and has not done itself is another's change. Only where this process sets
//! one time of a file does the host tell what else the client does: it remembers which.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_abi::Result;
use moat_host::fanotify::{self, FileHandle};
use moat_sync::{LockClass, Mutex};

/// What the client does with files that it was given: reads, and changes of contents.
const OF_CLIENT: u64 = libc::FAN_MODIFY | libc::FAN_ACCESS;
/// What this process never does.
const NOT_OWN: u64 = libc::FAN_MODIFY;
/// Bytes of events that are read at a time: they fit into a message.
const BUFFER: usize = 32 << 10;

/// Files whose times were set that are remembered.
const MOST_TOUCHED: usize = 256;

/// The groups of a tree.
pub(crate) struct Watches {
    client: OwnedFd,
    own: OwnedFd,
    /// Files of which one time was set since the client last asked.
    touched: Mutex<Vec<FileHandle>>,
}

impl Watches {
    /// # Errors
    /// EPERM where the host has no groups for everybody; EMFILE.
    pub(crate) fn new() -> Result<Watches> {
        let touched = Mutex::new(LockClass::Leaf, Vec::new());
        Ok(Watches { client: fanotify::group()?, own: fanotify::group()?, touched })
    }

    pub(crate) fn client(&self) -> &OwnedFd {
        &self.client
    }

    pub(crate) fn own(&self) -> &OwnedFd {
        &self.own
    }

    /// Marks a file; gives what names it, and what is told of `what`.
    ///
    /// # Errors
    /// Those of fanotify_mark(2).
    pub(crate) fn mark(&self, file: &OwnedFd, what: u64) -> Result<(FileHandle, u64)> {
        let handle = fanotify::handle_of(file)?;
        let (client, own) = parts(what);
        let told = fanotify::mark_as_known(&self.own, file, own)?;
        // The host refuses a mark for nothing.
        if let Some(client) = client {
            fanotify::mark(&self.client, file, client)?;
        }
        Ok((handle, told | what & OF_CLIENT))
    }

    /// Takes `what` back.
    pub(crate) fn unmark(&self, file: &OwnedFd, what: u64) {
        let (client, own) = parts(what);
        let _ = fanotify::unmark(&self.own, file, own);
        if let Some(client) = client {
            let _ = fanotify::unmark(&self.client, file, client);
        }
    }

    /// Notes that one time of a file has been set, which the client's group tells already.
    pub(crate) fn touched(&self, file: BorrowedFd<'_>) {
        let Ok(handle) = fanotify::handle_of(file) else { return };
        let mut touched = self.touched.lock();
        // Beyond that the client is told what it did itself: an event too many.
        if touched.len() < MOST_TOUCHED && !touched.contains(&handle) {
            touched.push(handle);
        }
    }

    /// What others than this process did, as the host writes it, empty if nothing waits; and the files of which it has set one time.
    ///
    /// # Errors
    /// Those of read(2).
    pub(crate) fn told(&self) -> Result<(Vec<u8>, Vec<FileHandle>)> {
        let mut buf = vec![0; BUFFER];
        // What this process has done alone is nothing to tell, and may have more behind it.
        let events = loop {
            match fanotify::read_of_others(self.own.as_fd(), &mut buf)? {
                None => break Vec::new(),
                Some(events) if events.is_empty() => {}
                Some(events) => break events,
            }
        };
        Ok((events, std::mem::take(&mut *self.touched.lock())))
    }
}

/// What is asked of the client's group, if anything, and of the own one.
fn parts(what: u64) -> (Option<u64>, u64) {
    // Directories are read by this process.
    let client = what & (OF_CLIENT | fanotify::EVENT_ON_CHILD);
    ((client & OF_CLIENT != 0).then_some(client), what & !NOT_OWN)
}
