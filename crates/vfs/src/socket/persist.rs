//! Sockets out of an image: what a family is given for it, and what it gives.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_identity::{Counter, Credentials, NetNamespace, PidNamespace};
use moat_image::ImageError;
use moat_image::state::{SandboxState, SocketCoreState, SocketCredsState, SocketRef};

use super::{Socket, SocketCore, SocketCreds, SocketMemory};
use crate::open_file::OpenFile;
use crate::path::Path;

/// For whom, and in what world, the sockets of an image are made.
#[derive(Clone, Copy)]
pub struct RestoreSockets<'a> {
    /// The image.
    pub state: &'a SandboxState,
    /// The network namespace that they will be in.
    pub net: &'a Arc<NetNamespace>,
    /// Where the numbers of processes are those of the image.
    pub pids: &'a PidNamespace,
    /// Where inode numbers of sockets come from.
    pub inodes: &'a Arc<Counter>,
    /// Where the bytes in their queues are counted.
    pub memory: &'a Arc<SocketMemory>,
    /// The most that the configuration allows.
    pub most: &'a Credentials,
    /// Finds a place in the tree of mounts.
    pub path: &'a dyn Fn(&moat_image::state::PathState) -> Result<Path, ImageError>,
}

impl RestoreSockets<'_> {
    /// Whether the container's init may do in its network what takes `cap`.
    #[must_use]
    pub fn may(&self, cap: Cap) -> bool {
        self.most.has_cap_in(&self.net.user_ns, cap)
    }

    /// What all sockets have.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn core(&self, saved: &SocketCoreState) -> Result<SocketCore, ImageError> {
        SocketCore::restore(saved, self.inodes, self.memory)
    }

    /// Who sent something.
    ///
    /// # Errors
    /// A process that is not in the image.
    pub fn creds(&self, saved: &SocketCredsState) -> Result<SocketCreds, ImageError> {
        // Numbers of processes that are gone stay taken as long as something remembers them.
        let find = |number: i32| {
            self.pids.lookup(number).ok_or_else(|| ImageError::state(format!("a socket of process {number}")))
        };
        Ok(SocketCreds { process: saved.process.map(find).transpose()?, uid: saved.uid, gid: saved.gid })
    }
}

/// The sockets of one family out of an image.
pub trait RestoredSockets {
    /// A socket, for the one open file that it has.
    ///
    /// # Errors
    /// One that is not there, or has been given before.
    fn take(&mut self, socket: SocketRef) -> Result<Arc<dyn Socket>, ImageError>;

    /// Puts into their queues what was there, with the open files of the image by their numbers.
    ///
    /// # Errors
    /// What is wrong with it.
    fn fill(&self, files: &[Arc<OpenFile>]) -> Result<(), ImageError>;
}
