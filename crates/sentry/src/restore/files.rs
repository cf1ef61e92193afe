//! Open files out of an image: the one place where it is said how each kind is made.

use std::any::Any;
use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::socket::{AF_INET, AF_NETLINK, AF_PACKET, AF_UNIX};
use moat_fs_anon::eventfd::Take;
use moat_fs_anon::pipe::{End, Pipe};
use moat_fs_anon::{EventFd, SignalFd, TimerFd};
use moat_fs_devpts::RestoredPtys;
use moat_fs_host::severed;
use moat_fs_host::terminal::{self, Window};
use moat_fs_mqueue::{NamespaceQueues, RestoredQueues};
use moat_identity::{NetNamespace, PidNamespace};
use moat_image::refs::find;
use moat_image::state::{
    ContainerIndex, HostTerminalState, MqueueState, OpenFileKind, OpenFileState, PathState, PidFdState, PipeState,
    SocketRef, of_container,
};
use moat_image::{ImageError, Ref};
use moat_kernel::Kernel;
use moat_kernel::checkpoint::{self, Configured, GivenTerminal, MadeNamespaces, Opened};
use moat_kernel::nsfs;
use moat_kernel::process::pidfd;
use moat_vfs::epoll::Epoll;
use moat_vfs::inotify::Inotify;
use moat_vfs::persist::{Restorer, hold_again, owner_of};
use moat_vfs::socket::{RestoreSockets, RestoredSockets, Socket};
use moat_vfs::{Credentials, OpenFile, Path, Vfs};

use super::Console;

/// What containers are given anew.
pub(super) struct Given<'a> {
    /// What each is given.
    pub(super) to: &'a [GivenTo],
    /// The most that any of their processes may do.
    pub(super) most: &'a Credentials,
}

/// What a container is given anew.
pub(super) struct GivenTo {
    /// The init's descriptors.
    pub(super) donated: Vec<Arc<OpenFile>>,
    /// The terminal that it has for its console.
    pub(super) console: Option<Console>,
}

impl Given<'_> {
    /// What a terminal of an image comes back as.
    fn terminal(&self, saved: &HostTerminalState) -> Option<GivenTerminal> {
        // Nobody gives a terminal that exec was run on again.
        let Console { terminal, window } = self.console(saved)?;
        Some(GivenTerminal { terminal: terminal.clone(), resized: *window == Window::Changed })
    }

    fn console(&self, saved: &HostTerminalState) -> Option<&Console> {
        of_container(self.to, saved.container).ok()?.console.as_ref().filter(|_| saved.console)
    }
}

/// All open files of an image, by their numbers.
///
/// # Errors
/// What is wrong with one of them.
pub(super) fn open_all(
    restorer: &Restorer<'_>,
    kernel: &Arc<Kernel>,
    containers: &[Configured],
    namespaces: &MadeNamespaces,
    given: &Given<'_>,
) -> Result<Opened, ImageError> {
    let numbers = checkpoint::numbers(kernel, containers);
    let (state, vfs, ns) = (restorer.state(), &kernel.vfs, &*numbers);
    let member = of_container(containers, 0)?;
    let pipes = state.pipes.iter().map(|pipe| RestoredPipe::make(restorer, vfs, pipe)).collect::<Result<_, _>>()?;
    let net = &member.place.namespaces.net;
    let path = |path: &PathState| restorer.path(path);
    let request = RestoreSockets {
        state,
        net,
        pids: ns,
        inodes: &vfs.ids.inodes,
        // Whose a socket was, nobody knows: what waits in them is the first container's.
        memory: member.processes.allowance().socket_memory(),
        most: given.most,
        path: &path,
    };
    let family = |number| {
        let family = vfs.registry.family(number);
        family.map_err(|errno| ImageError::Unfit(format!("sockets of family {number}: {errno}")))
    };
    let unix = family(AF_UNIX)?.restore(&request)?;
    // With the host's network there are none, and none can be.
    let has_inet = !(state.tcp_sockets.is_empty() && state.udp_sockets.is_empty() && state.raw_sockets.is_empty());
    let inet = if has_inet { Some(family(AF_INET)?.restore(&request)?) } else { None };
    let netlink = match state.netlink_sockets.is_empty() {
        true => None,
        false => Some(family(AF_NETLINK)?.restore(&request)?),
    };
    let packet = match state.packet_sockets.is_empty() {
        true => None,
        false => Some(family(AF_PACKET)?.restore(&request)?),
    };
    let families = Families { unix, inet, netlink, packet };
    let queues = |queue: &MqueueState| {
        let ipc = match queue.ipc {
            None => &of_container(containers, queue.container)?.place.namespaces.ipc,
            Some(name) => find(namespaces.ipcs(), name)?,
        };
        Ok(NamespaceQueues::of(vfs.tables(), ipc))
    };
    let queues = RestoredQueues::make(queues, kernel, ns, state.mqueues.iter())?;
    let mut opener = Opener {
        restorer,
        kernel,
        ns,
        net,
        namespaces,
        given,
        pipes,
        families,
        queues,
        ptys: RestoredPtys::make(restorer)?,
    };
    let files = state.open_files.iter().map(|file| opener.open(file)).collect::<Result<Vec<_>, _>>()?;
    opener.families.fill(&files)?;
    for (saved, f) in state.open_files.iter().zip(&files) {
        hold_again(f, &saved.held)?;
        if let Some(owner) = &saved.owner {
            f.set_owner(owner_of(owner, ns)?);
        }
        f.set_signal(Some(saved.signal).filter(|signal| *signal <= 64).unwrap_or_default());
        f.set_async_fd(saved.async_fd);
        // Those flags that F_SETFL gives: O_ASYNC begins to tell from here on.
        f.set_flags(OpenFlags::from_bits_truncate(saved.flags));
    }
    // Those that refer to others once all are there.
    for (file, open) in state.open_files.iter().zip(&files) {
        let (OpenFileKind::Epoll(items), Some(epoll)) = (&file.kind, open.downcast::<Epoll>()) else { continue };
        for item in items {
            epoll.put_item_back(item, find(&files, item.file)?)?;
        }
    }
    // FIFOs that are held for a moment are closed before anybody watches them.
    let ptys = opener.ptys;
    ptys.all_opened(&state.ptys)?;
    drop(opener.pipes);
    for (file, open) in state.open_files.iter().zip(&files) {
        let OpenFileKind::Inotify(saved) = &file.kind else { continue };
        if let Ok(instance) = (open.file().clone() as Arc<dyn Any + Send + Sync>).downcast::<Inotify>() {
            instance.watch_again(saved, path)?;
        }
    }
    let host_terminals = state.host_terminals.iter().map(|saved| given.terminal(saved)).collect();
    Ok(Opened { files, terminals: ptys.terminals(), host_terminals })
}

struct RestoredPipe {
    pipe: Arc<Pipe>,
    fifo: Option<Path>,
    /// A FIFO is forgotten when nobody has it open.
    _open: Option<Arc<OpenFile>>,
}

impl RestoredPipe {
    fn make(restorer: &Restorer<'_>, vfs: &Vfs, saved: &PipeState) -> Result<RestoredPipe, ImageError> {
        let Some(path) = &saved.fifo else {
            return Ok(RestoredPipe { pipe: Pipe::restore(vfs, saved)?, fifo: None, _open: None });
        };
        let path = restorer.path(path)?;
        let open = restorer.open_as_kernel(path.clone(), OpenFlags::RDWR)?;
        let end: &End = open.downcast().ok_or_else(|| ImageError::Unfit(format!("{path:?} is no FIFO any more")))?;
        end.pipe().refill(saved)?;
        Ok(RestoredPipe { pipe: end.pipe().clone(), fifo: Some(path), _open: Some(open) })
    }
}

/// The sockets of an image; of families that have some, but for UNIX sockets.
struct Families<'a> {
    unix: Box<dyn RestoredSockets + 'a>,
    inet: Option<Box<dyn RestoredSockets + 'a>>,
    netlink: Option<Box<dyn RestoredSockets + 'a>>,
    packet: Option<Box<dyn RestoredSockets + 'a>>,
}

impl Families<'_> {
    fn take(&mut self, socket: SocketRef) -> Result<Arc<dyn Socket>, ImageError> {
        let family = match socket {
            SocketRef::Unix(_) => Some(&mut self.unix),
            SocketRef::Tcp(_) | SocketRef::Udp(_) | SocketRef::Raw(_) => self.inet.as_mut(),
            SocketRef::Netlink(_) => self.netlink.as_mut(),
            SocketRef::Packet(_) => self.packet.as_mut(),
        };
        family.ok_or_else(|| ImageError::state("a socket that is not there"))?.take(socket)
    }

    fn fill(&self, files: &[Arc<OpenFile>]) -> Result<(), ImageError> {
        self.unix.fill(files)?;
        [&self.inet, &self.netlink, &self.packet].into_iter().flatten().try_for_each(|family| family.fill(files))
    }
}

struct Opener<'a> {
    restorer: &'a Restorer<'a>,
    kernel: &'a Arc<Kernel>,
    ns: &'a PidNamespace,
    net: &'a Arc<NetNamespace>,
    namespaces: &'a MadeNamespaces,
    given: &'a Given<'a>,
    pipes: Vec<RestoredPipe>,
    families: Families<'a>,
    queues: RestoredQueues,
    ptys: RestoredPtys,
}

impl Opener<'_> {
    fn open(&mut self, file: &OpenFileState) -> Result<Arc<OpenFile>, ImageError> {
        let flags = OpenFlags::from_bits_truncate(file.flags).difference(OpenFlags::OPEN_ONLY | OpenFlags::PATH);
        let vfs = &self.kernel.vfs;
        let creds = self.restorer.credentials(file.credentials)?;
        let open = match &file.kind {
            OpenFileKind::Path { path, found } => return self.restorer.open(file, path, found),
            OpenFileKind::Unnamed(name) => return self.restorer.open_unnamed(file, *name),
            OpenFileKind::Donated(number) => return self.donated(0, *number, file),
            OpenFileKind::DonatedTo { container, number } => return self.donated(*container, *number, file),
            OpenFileKind::Pipe(end) => {
                let RestoredPipe { pipe, fifo, .. } = self.pipe(end.pipe)?;
                pipe.put_end_back(vfs, end, fifo.clone(), flags, &creds)?
            }
            OpenFileKind::EventFd { count, semaphore } => {
                let take = if *semaphore { Take::One } else { Take::All };
                EventFd::restore(vfs, *count, take, flags, &creds)?
            }
            OpenFileKind::TimerFd(timer) => TimerFd::restore(vfs, timer, flags, &creds)?,
            OpenFileKind::SignalFd(saved) => SignalFd::restore(self.kernel, self.ns, saved, flags, &creds)?,
            OpenFileKind::PidFd(saved) => self.pidfd(saved, flags, &creds)?,
            OpenFileKind::Socket(saved) => {
                let socket = self.families.take(saved.socket)?;
                vfs.open_restored_socket(socket, self.net, saved, flags, &creds)
            }
            OpenFileKind::Inotify(saved) => Inotify::restore(vfs, saved, flags, &creds)?,
            OpenFileKind::Mqueue(saved) => {
                let path = saved.path.as_ref().map(|path| self.restorer.path(path)).transpose()?;
                self.queues.open(saved, file, path, &creds)?
            }
            OpenFileKind::PtyMaster(saved) => self.ptys.open_master(saved, self.restorer, flags, &creds)?,
            OpenFileKind::PtySlave(saved) => self.ptys.open_slave(saved, self.restorer, flags, &creds)?,
            OpenFileKind::HostTerminal(saved) => {
                // Its other openings belong to the same terminal; without one they have hung up.
                let console = self.given.console(self.restorer.state().host_terminals.get(saved.terminal)?);
                let terminal = console.map(|console| &console.terminal);
                terminal::open_again(terminal, saved, self.restorer, vfs, flags, &creds)?
            }
            OpenFileKind::Namespace(saved) => {
                let namespace = self.namespaces.of_file(*saved, self.restorer)?;
                nsfs::open(self.kernel, &namespace, flags, &creds)
            }
            OpenFileKind::Severed(saved) => severed::restore(vfs, saved, flags, &creds)?,
            OpenFileKind::Epoll(_) => vfs.open_anon("[eventpoll]", Epoll::new(), flags, &creds),
        };
        Ok(open)
    }

    fn pidfd(
        &self,
        saved: &PidFdState,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let pid = self.ns.lookup(saved.pid).ok_or_else(|| ImageError::state(format!("a pidfd of {}", saved.pid)))?;
        let scope = if saved.thread { pidfd::Scope::Thread } else { pidfd::Scope::Process };
        let open = pidfd::open(self.kernel, &pid, scope, creds, pidfd::Blocking::Yes);
        open.set_flags(flags);
        Ok(open)
    }

    fn pipe(&self, name: Ref<PipeState>) -> Result<&RestoredPipe, ImageError> {
        find(&self.pipes, name)
    }

    fn donated(
        &self,
        container: ContainerIndex,
        number: u32,
        file: &OpenFileState,
    ) -> Result<Arc<OpenFile>, ImageError> {
        let donated = &of_container(self.given.to, container)?.donated;
        let given = usize::try_from(number).ok().and_then(|at| donated.get(at));
        let given = given.ok_or_else(|| {
            ImageError::Unfit(format!("the init was started with a descriptor {number}, which is to be given again"))
        })?;
        // Those that F_SETFL may change; the others are the new descriptor's.
        given.set_flags(OpenFlags::from_bits_truncate(file.flags));
        Ok(given.clone())
    }
}
