//! Instances of inotify.

use serde::{Deserialize, Serialize};

use super::mount::PathState;

/// An instance of inotify(7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InotifyState {
    /// The user whose it is.
    pub uid: u32,
    /// Events that may wait.
    pub max_queued: u64,
    /// The number that was given last.
    pub last_wd: i32,
    /// The watches.
    pub watches: Vec<WatchState>,
    /// The events that wait to be read.
    pub events: Vec<InotifyEventState>,
}

/// A watch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WatchState {
    /// Its number.
    pub wd: i32,
    /// The file.
    pub path: PathState,
    /// Events, IN_ONESHOT and IN_EXCL_UNLINK.
    pub mask: u32,
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InotifyEventState {
    /// The number of the watch.
    pub wd: i32,
    /// What happened.
    pub mask: u32,
    /// What joins the two events of a rename.
    pub cookie: u32,
    /// The entry of the directory.
    pub name: Option<serde_bytes::ByteBuf>,
}
