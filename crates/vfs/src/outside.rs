//! Who asks the host what others do to files of trees that are shared with it, for `inotify`.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use moat_abi::Result;
use moat_host::fanotify::{Event, FileHandle};

/// Who asks.
pub trait AsksHost: Send + Sync {
    /// Marks a file that is open for reading: `what` of it is told from now on. Gives what names it, and what is told of what was asked.
    fn mark(&self, open: BorrowedFd<'_>, what: u64) -> Option<(FileHandle, u64)>;

    /// Takes `what` back.
    fn unmark(&self, open: BorrowedFd<'_>, what: u64);

    /// Listens to a process that has marked files for this one, until the source fails.
    fn listen(&self, source: Arc<dyn ServedEvents>);
}

/// Events of files that another process, a gofer, has marked. It works for this one, so that what it does is no other's change, nor
/// is what this one does: each has a group, of the kinds of events that only its process causes besides others.
pub trait ServedEvents: Send + Sync {
    /// The group of what only this process does besides others, MODIFY and ACCESS of files: it is read here.
    fn own_group(&self) -> &Arc<OwnedFd>;

    /// The group of all else, to be polled alone.
    fn served_group(&self) -> &Arc<OwnedFd>;

    /// What the other process has read from that, without what it did itself.
    ///
    /// # Errors
    /// The other process is gone.
    fn read_served(&self) -> Result<Served>;
}

/// What the other process has read.
pub struct Served {
    /// Of others.
    pub events: Vec<Event>,
    /// Whether there may be more.
    pub left: Left,
    /// Files of which it has set one time, which the host tells as a MODIFY or an ACCESS.
    pub touched: Vec<FileHandle>,
}

/// Whether a reading has come to the end of what waited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It has.
    Nothing,
    /// Maybe not.
    More,
}
