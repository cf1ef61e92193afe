//! The gofer process, `moat gofer`: it serves the host's files of one container to a sandbox that can't reach them.
//!
//! With `--directfs=false` the sandbox process has no directory descriptor. It has a socket for each host mount, at the
//! other end of which is this process. Nothing that comes over a socket is trusted: the sentry may be in the
//! hands of an attacker, who must get no further than to the files that the container has anyway.
//!
//! - [`server`]: the connections of a tree, a thread each; [`handles`]: the directories that it has open.
//! - [`moat_fs_host::DirectTree`] does the work, as it does in a sandbox with direct access.
//! - [`rules`]: the host calls that are left to this process.
//!
//! # Invariants
//! - Directories are named by numbers that this process gave out; entries by one component, which
//!   [`moat_fs_host::DirectTree`] checks.
//! - Only descriptors of regular files are passed to the sandbox, with `--host-uds` sockets that are connected or bound, with
//!   `--host-fifo=open` those of FIFOs, and groups of fanotify(7).
//! - The process ends when all its sockets are closed, so that it never outlives the sandbox.
#![forbid(unsafe_code)]

mod handles;
mod rules;
mod server;
mod watches;

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use moat_control::spec::{GoferSpec, GoferTree, HostUse, Lifetime, MAX_SPEC_BYTES, SocketUse, TreeKind, Trees};
use moat_control::{BootError, StartSync};
use moat_fs_host::{Fifos, NodeMaker, Sockets, SpecialNodes};
use moat_host::mounts::MountAttributes;
use moat_jail::root::{self, EmptyRoot};
use moat_jail::seccomp::Refusal;
use moat_jail::{DonatedFiles, StartFds, privileges};

/// `argv[0]` of the process.
pub const PROCESS_NAME: &str = "moat-gofer";

/// Runs the gofer. `args` is argv after "gofer".
pub fn main(args: impl Iterator<Item = OsString>) -> ! {
    moat_jail::process::main(c"moat-gofer", args, serve)
}

/// A tree and the socket that it is served at.
struct Export {
    /// A directory.
    tree: OwnedFd,
    socket: OwnedFd,
}

/// Gives the exit code.
fn serve(mut files: DonatedFiles, fds: &StartFds, start_sync: &StartSync) -> Result<u8, BootError> {
    let spec = read_spec(files.take(fds.spec)?)?;
    // Mounting takes privileges, which go next.
    let exports = shut_in(&spec, &mut files)?;
    let nodes = spec.node_maker.map(|fd| files.take(fd)).transpose()?.map(|fd| Arc::new(NodeMaker::new(fd)));
    privileges::drop_all_but(spec.jail.run_as, privileges::DIRECT_FILE_ACCESS)?;
    if spec.lifetime == Lifetime::Attached {
        privileges::die_with_parent()?;
    }
    // Whatever else was donated is not this process's.
    drop(files);
    let refusal = if spec.debug { Refusal::Report } else { Refusal::Kill };
    let sockets = match spec.host_nodes.sockets {
        SocketUse::None => Sockets::Refuse,
        SocketUse::Open => Sockets::Connect,
        SocketUse::Create => Sockets::Create,
        SocketUse::All => Sockets::All,
    };
    let fifos = match spec.host_nodes.fifos {
        HostUse::None => Fifos::Own,
        HostUse::Open => Fifos::Host,
    };
    // Before anything is read that comes from the sandbox.
    moat_jail::seccomp::install(rules::all().chain(rules::of_sockets(spec.host_nodes.sockets)), refusal)?;
    let special = SpecialNodes { sockets, fifos };
    let serving = server::start(exports.into_iter().map(|e| (e.tree, e.socket)), nodes.as_ref(), special)?;
    start_sync.booted().map_err(|e| BootError::host("telling the creator", &e))?;
    serving.wait();
    Ok(0)
}

fn read_spec(fd: OwnedFd) -> Result<GoferSpec, BootError> {
    let mut bytes = Vec::new();
    File::from(fd)
        .take(MAX_SPEC_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|e| BootError::host("reading the gofer's spec", &e))?;
    GoferSpec::decode(&bytes).map_err(|e| BootError::new(e.to_string()))
}

/// Makes an empty root with nothing in it but the files to serve, each in a directory of its own.
fn shut_in(spec: &GoferSpec, files: &mut DonatedFiles) -> Result<Vec<Export>, BootError> {
    root::make_private()?;
    let mut opened = Vec::with_capacity(spec.trees.len());
    for tree in &spec.trees {
        opened.push((detached(tree, files.take(tree.tree)?, spec.jail.trees)?, files.take(tree.socket)?));
    }
    // While the host's own is still there: it must not show more than that.
    let procfs = root::new_procfs();
    let root = EmptyRoot::enter()?;
    if spec.host_nodes.sockets != SocketUse::None {
        // A socket is connected to, or bound, by a path: the link of a descriptor.
        let procfs = procfs.as_ref().map_err(|e| BootError::host("making a procfs", e))?;
        root.mount_proc(procfs).map_err(|e| BootError::host("mounting the gofer's /proc", &e))?;
    }
    // For the extended attributes of what can't be opened.
    match procfs {
        Ok(procfs) => moat_host::procfs::set_dir(procfs),
        Err(error) => {
            tracing::debug!(%error, "no procfs");
            // Nothing looks for one when the filter is in force, which lets nothing be opened by a path.
            moat_host::procfs::go_without();
        }
    }
    let mut exports = Vec::with_capacity(opened.len());
    for (index, ((tree, socket), spec)) in opened.into_iter().zip(&spec.trees).enumerate() {
        let tree = match spec.kind {
            TreeKind::Directory => tree,
            TreeKind::File => root.mount_file(&tree, index).map_err(|e| BootError::host("mounting a host file", &e))?,
        };
        exports.push(Export { tree, socket });
    }
    root.seal()?;
    Ok(exports)
}

fn detached(tree: &GoferTree, fd: OwnedFd, trees: Trees) -> Result<OwnedFd, BootError> {
    if trees == Trees::Detached {
        return Ok(fd);
    }
    let mut attributes = MountAttributes::NOSUID | MountAttributes::NODEV;
    attributes.set(MountAttributes::RDONLY, tree.readonly);
    root::detached_copy(fd.as_fd(), attributes).map_err(|e| BootError::host("copying the mounts of a host tree", &e))
}
