//! [`Gofer`]: the process that serves a container's host files to a sandbox that has no access of its own.
//!
//! While a container's trees are opened they are added to [`Exports`], each of which gives the sandbox a socket
//! instead; [`Exports::start`] then starts the process. It ends by itself when the sandbox closes the sockets.

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use moat_control::BootError;
use moat_control::spec::{
    Backing, FdNumber, GoferBind, GoferSpec, GoferTree, HostNodes, Lifetime, SPEC_VERSION, TreeKind,
};
use moat_control::start::StartOutcome;
use moat_host::spawn::{Cgroups, Child, Donation, ParentDeath, Spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};

use crate::blueprint::Descriptors;
use crate::error::{Context, Result};
use crate::host_tree::{Access, Opener};
use crate::identity::UserNamespace;
use crate::namespaces::{NetworkNamespace, Plan};
use crate::sandbox::{c_strings, tail_of_log};
use crate::{Config, Error};

/// How long a gofer may take to end when its sandbox has.
const END_TIMEOUT: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// The trees that a gofer is to serve.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    donation: Donation,
    trees: Vec<GoferTree>,
    node_maker: Option<FdNumber>,
}

/// Descriptors on their way to a sandbox, but for trees, in whose place it gets sockets.
pub(crate) struct Served<'a, D> {
    /// The sandbox's.
    pub(crate) descriptors: &'a mut D,
    /// The gofer's.
    pub(crate) exports: &'a mut Exports,
}

impl<D: Descriptors> Descriptors for Served<'_, D> {
    fn add(&mut self, fd: OwnedFd) -> FdNumber {
        self.descriptors.add(fd)
    }

    fn add_node_maker(&mut self, socket: OwnedFd) -> Option<FdNumber> {
        self.exports.node_maker = Some(self.exports.donation.add(socket));
        None
    }

    fn add_tree(&mut self, tree: OwnedFd, kind: TreeKind, access: Access) -> Result<Backing> {
        let socket = self.exports.add(tree, kind, access)?;
        let name = match kind {
            TreeKind::Directory => None,
            TreeKind::File => Some(moat_jail::root::FILE_NAME.to_owned()),
        };
        Ok(Backing::Gofer(GoferBind { socket: self.descriptors.add(socket), name }))
    }
}

/// A gofer that this process started.
#[derive(Debug)]
pub(crate) struct Gofer {
    child: Child,
    start: Option<OwnedFd>,
    panic_log: File,
}

impl Exports {
    /// Adds a tree; gives the sandbox's end of its socket.
    fn add(&mut self, tree: OwnedFd, kind: TreeKind, access: Access) -> Result<OwnedFd> {
        // SEQPACKET keeps requests apart, and tells when the other end is gone.
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
            .context(|| "creating a socket pair".into())?;
        self.trees.push(GoferTree {
            tree: self.donation.add(tree),
            kind,
            readonly: access == Access::ReadOnly,
            socket: self.donation.add(ours),
        });
        Ok(theirs)
    }

    /// Starts the gofer of container `id`, whose sandbox is in the namespaces of `plan`. It is not waited for. Without
    /// trees there is none.
    pub(crate) fn start(
        self,
        config: &Config,
        plan: &Plan,
        opener: Opener,
        lifetime: Lifetime,
        host_nodes: HostNodes,
        id: &str,
    ) -> Result<Option<Gofer>> {
        if self.trees.is_empty() {
            return Ok(None);
        }
        let host = namespaces(plan).prepare_namespaces()?;
        let Exports { mut donation, trees, node_maker } = self;
        let jail = host.jail(opener.trees());
        let spec =
            GoferSpec { version: SPEC_VERSION, jail, trees, node_maker, host_nodes, lifetime, debug: config.debug };
        // Waited for later: the gofer starts while the sandbox does.
        let (start, start_write) = pipe_with(PipeFlags::CLOEXEC).context(|| "creating a pipe".into())?;
        let panic_log = memfd("moat-panic-log")?;
        let args = vec![
            moat_gofer::PROCESS_NAME.to_owned(),
            "gofer".into(),
            format!("--spec-fd={}", donation.add(spec_file(&spec)?.into())),
            format!("--start-sync-fd={}", donation.add(start_write)),
            format!("--panic-log-fd={}", donation.add(copy(&panic_log)?)),
            format!("--donated={}", donation.len()),
            id.into(),
        ];
        let child = Spawn {
            args: &c_strings(args)?,
            env: &[],
            namespaces: host.namespaces,
            joins: host.joins(),
            id_maps: host.identity.maps.as_ref(),
            cgroups: Cgroups::default(),
            credentials: host.identity.credentials,
            controlling_terminal: None,
            parent_death: match lifetime {
                Lifetime::Attached => ParentDeath::Kill,
                Lifetime::Detached => ParentDeath::Ignore,
            },
        }
        .run(donation)
        .context(|| "creating the gofer process".into())?;
        Ok(Some(Gofer { child, start: Some(start), panic_log }))
    }
}

/// The gofer's own namespaces: the ids are the sandbox's, the network is empty.
fn namespaces(plan: &Plan) -> Plan {
    let user = match &plan.user {
        // The gofer needs no right to anybody's network.
        UserNamespace::Current => UserNamespace::New,
        user => user.clone(),
    };
    Plan { user, network: NetworkNamespace::New, capabilities: 0 }
}

impl Gofer {
    /// The process.
    pub(crate) fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Waits until it serves, or has said why it can't.
    pub(crate) fn wait_until_ready(&mut self) -> Result<()> {
        let Some(start) = self.start.take() else { return Ok(()) };
        match StartOutcome::read_from(File::from(start)).context(|| "waiting for the gofer to start".into())? {
            StartOutcome::Booted => Ok(()),
            StartOutcome::Failed(error) => Err(Error::boot(error, "")),
            // Either execve(2) failed, which left an errno, or the program ended, which may have left a log.
            StartOutcome::Died => match self.child.early_error() {
                Some(error) => Err(Error::Host { what: "executing the gofer process".into(), error }),
                None => {
                    self.wait_for_end();
                    let panic_log = tail_of_log(&mut self.panic_log, 0).unwrap_or_default();
                    Err(Error::Boot(BootError::new(format!("the gofer died before it served files: {panic_log}"))))
                }
            },
        }
    }

    /// Waits until the process has ended, which it does when its sandbox has, and reaps it. A disk may hold it up; it is
    /// not waited for longer than a few seconds then.
    pub(crate) fn wait_for_end(&self) {
        wait_for_end(&self.child.pidfd);
    }
}

/// Waits for a process that ends when its sandbox has, but not for long, and reaps it.
pub(crate) fn wait_for_end(pidfd: &OwnedFd) {
    let ended = || poll(&mut [PollFd::new(pidfd, PollFlags::IN)], Some(&END_TIMEOUT));
    while matches!(ended(), Err(rustix::io::Errno::INTR)) {}
    let _ = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
}

fn memfd(name: &str) -> Result<File> {
    let fd = rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).context(|| "creating a memfd".into())?;
    Ok(File::from(fd))
}

fn copy(file: &File) -> Result<OwnedFd> {
    Ok(file.try_clone().context(|| "duplicating a memfd".into())?.into())
}

fn spec_file(spec: &GoferSpec) -> Result<File> {
    let bytes = spec.encode().map_err(|e| Error::Invalid(e.to_string()))?;
    let mut file = memfd("moat-gofer-spec")?;
    file.write_all(&bytes).and_then(|()| file.rewind()).context(|| "writing the gofer's spec".into())?;
    Ok(file)
}
