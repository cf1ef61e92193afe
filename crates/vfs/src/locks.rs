//! Locks on files: POSIX record locks, OFD locks and flock(2).

use crate::open_file::OpenFile;

/// Gives up the POSIX locks that the descriptor table `owner` holds on a file.
pub(crate) fn release_posix(_f: &OpenFile, _owner: u64) {}

/// Gives up the OFD and flock locks of a description.
pub(crate) fn release_description(_f: &OpenFile) {}
