//! Who makes nodes of devices in the host's trees of a container: [`moat_stub::node_maker`].
//!
//! mknod(2) of a device takes CAP_MKNOD in the host's first user namespace, and a sandbox is in one of its own. Where the
//! container's configuration gives that capability, and the command that makes the container has it, a process of two
//! pages keeps it for the sandbox (or its gofer), which asks by a socket. It ends when that is closed.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::thread::CapabilitySet;

use crate::blueprint::{Blueprint, DeviceNodes};
use crate::gofer::wait_for_end;
use crate::host_tree::Opener;

/// PROC_USER_INIT_INO of linux/proc_ns.h: the inode of the first user namespace.
const FIRST_USER_NAMESPACE: u64 = 0xefff_fffd;

/// The process.
#[derive(Debug)]
pub(crate) struct NodeMaker(OwnedFd);

impl NodeMaker {
    /// Waits until it has ended, which it does when its socket is closed, and reaps it.
    pub(crate) fn wait_for_end(&self) {
        wait_for_end(&self.0);
    }
}

/// Starts the process, if the container may have one and could do something with it; also gives the socket to ask it by. Where
/// it can't be started the container can't make such nodes, as with any runtime of an ordinary user.
pub(crate) fn start(blueprint: &Blueprint, opener: Opener) -> Option<(NodeMaker, OwnedFd)> {
    if blueprint.device_nodes == DeviceNodes::Refused || !blueprint.writes_to_the_host() {
        return None;
    }
    let may = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::MKNOD));
    let first = std::fs::metadata("/proc/self/ns/user").is_ok_and(|namespace| namespace.ino() == FIRST_USER_NAMESPACE);
    // Only detached trees are sure to be nodev, which it insists on.
    if !may || !first || opener != Opener::Detached {
        return None;
    }
    try_start().inspect_err(|error| tracing::debug!(%error, "no node maker")).ok()
}

fn try_start() -> io::Result<(NodeMaker, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let pidfd = moat_host::spawn::run_image(moat_stub::NODE_MAKER, c"moat-nodes", &theirs)?;
    Ok((NodeMaker(pidfd), ours))
}
