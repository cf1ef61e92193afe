//! [`SandboxState`]: all that the kernel knows of a sandbox, but for the contents of memory.
//!
//! One table for each kind of object; what refers to an object has its number. Fields that are added have `#[serde(default)]`, so that
//! images that lack them are read; [`crate::header::SCHEMA`] goes up when the meaning of one that is there changes.

mod anonymous;
mod container;
mod file;
mod identity;
mod index;
mod inet;
mod inotify;
mod ipc;
mod lock;
mod memory;
mod mount;
mod mqueue;
mod namespace;
mod packet;
mod process;
mod ptrace;
mod signal;
mod socket;
mod terminal;
mod tree;
mod unix;

use serde::{Deserialize, Serialize};

use crate::clocks::ClockState;
use crate::error::ImageError;
use crate::pages::Stored;
use crate::refs::Table;

pub use anonymous::*;
pub use container::*;
pub use file::*;
pub use identity::*;
pub use index::*;
pub use inet::*;
pub use inotify::*;
pub use ipc::*;
pub use lock::*;
pub use memory::*;
pub use mount::*;
pub use mqueue::*;
pub use namespace::*;
pub use packet::*;
pub use process::*;
pub use ptrace::*;
pub use signal::*;
pub use socket::*;
pub use terminal::*;
pub use tree::*;
pub use unix::*;

/// Everything of a sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct SandboxState {
    /// What the clocks showed.
    pub clocks: ClockState,
    /// The vDSO that programs have pointers into.
    pub vdso: VdsoState,
    /// The containers, the root container first.
    pub containers: Vec<ContainerState>,
    /// Process ids, the eldest first.
    pub pids: Table<PidState>,
    /// Credentials.
    pub credentials: Table<CredentialsState>,
    /// User namespaces that processes have made, each behind the one that it was made in.
    #[serde(default)]
    pub user_namespaces: Table<UserNamespaceState>,
    /// UTS namespaces that processes have made.
    #[serde(default)]
    pub uts_namespaces: Table<UtsNamespaceState>,
    /// Pid namespaces that processes have made, each behind the one that it was made in.
    #[serde(default)]
    pub pid_namespaces: Table<PidNamespaceState>,
    /// IPC namespaces that processes have made.
    #[serde(default)]
    pub ipc_namespaces: Table<IpcNamespaceState>,
    /// The System V objects of each of those.
    #[serde(default)]
    pub system_v_of_those: Vec<SystemVState>,
    /// Network namespaces that processes have made.
    #[serde(default)]
    pub net_namespaces: Table<NetNamespaceState>,
    /// Cgroup namespaces that processes have made.
    #[serde(default)]
    pub cgroup_namespaces: Table<CgroupNamespaceState>,
    /// Sessions.
    pub sessions: Table<SessionState>,
    /// Process groups.
    pub process_groups: Table<ProcessGroupState>,
    /// Processes, the eldest first.
    pub processes: Table<ProcessState>,
    /// Threads, the eldest first.
    pub tasks: Table<TaskState>,
    /// Tables of signal actions.
    pub signal_handlers: Table<SignalHandlersState>,
    /// Seccomp filters; each after the one that was there before it.
    pub seccomp_filters: Table<SeccompFilterState>,
    /// Address spaces.
    pub memories: Table<MemoryState>,
    /// What mappings show.
    pub mappables: Table<MappableState>,
    /// Descriptor tables.
    pub fd_tables: Table<FdTableState>,
    /// Roots, working directories and umasks.
    pub fs_contexts: Table<FsContextState>,
    /// Open file descriptions.
    pub open_files: Table<OpenFileState>,
    /// Mounts that paths go through.
    pub mounts: Table<MountState>,
    /// File systems.
    pub file_systems: Table<FileSystemState>,
    /// Files without a name.
    #[serde(default)]
    pub unnamed_files: Table<UnnamedFileState>,
    /// Pipes and FIFOs that are open.
    #[serde(default)]
    pub pipes: Table<PipeState>,
    /// UNIX sockets that are open, in flight, or in the queue of one that listens.
    #[serde(default)]
    pub unix_sockets: Table<UnixSocketState>,
    /// Their ends, and those of peers that are gone.
    #[serde(default)]
    pub unix_endpoints: Table<UnixEndpointState>,
    /// TCP sockets that are open, in flight, or in the queue of one that listens.
    #[serde(default)]
    pub tcp_sockets: Table<TcpSocketState>,
    /// Their ends, and those of peers that are gone.
    #[serde(default)]
    pub tcp_ends: Table<TcpEndState>,
    /// UDP sockets.
    #[serde(default)]
    pub udp_sockets: Table<UdpSocketState>,
    /// Netlink sockets.
    #[serde(default)]
    pub netlink_sockets: Table<NetlinkSocketState>,
    /// Raw and ping sockets.
    #[serde(default)]
    pub raw_sockets: Table<RawSocketState>,
    /// Packet sockets.
    #[serde(default)]
    pub packet_sockets: Table<PacketSocketState>,
    /// Pseudo-terminals.
    #[serde(default)]
    pub ptys: Table<PtyState>,
    /// Terminals of the host.
    #[serde(default)]
    pub host_terminals: Table<HostTerminalState>,
    /// System V objects.
    #[serde(default)]
    pub system_v: SystemVState,
    /// POSIX message queues.
    #[serde(default)]
    pub mqueues: Table<MqueueState>,
}

/// The vDSO: programs keep pointers into it, so a restore needs the same one at the same place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct VdsoState {
    pub vvar_start: u64,
    pub start: u64,
    pub end: u64,
    /// CRC-32 of its code.
    pub crc32: u32,
}

impl SandboxState {
    /// As bytes.
    ///
    /// # Errors
    /// What can't be encoded.
    pub fn encode(&self) -> Result<Vec<u8>, ImageError> {
        let mut bytes = Vec::new();
        ciborium::into_writer(self, &mut bytes).map_err(|e| ImageError::state(format!("writing the state: {e}")))?;
        Ok(bytes)
    }

    /// The state with these bytes. What it refers to is checked where it is used.
    ///
    /// # Errors
    /// [`ImageError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<SandboxState, ImageError> {
        // The decoder takes memory for what it has read, not for what a length says, and nests to a bounded depth.
        ciborium::from_reader(bytes).map_err(|e| ImageError::state(format!("the kernel state: {e}")))
    }

    /// All stretches of `pages` that it names.
    pub fn stored(&self) -> impl Iterator<Item = Stored> {
        let memories = self.memories.iter().flat_map(|memory| memory.segments.iter().map(|segment| segment.stored));
        let shared = self.mappables.iter().flat_map(|mappable| match &mappable.kind {
            MappableKind::SharedAnonymous { segments, .. } => segments.as_slice(),
            MappableKind::File { .. } | MappableKind::Unnamed { .. } | MappableKind::Segment(_) => &[],
        });
        let trees = self.file_systems.iter().flat_map(|fs| match fs {
            FileSystemState::Tree(tree) => tree.nodes.as_slice(),
            FileSystemState::Made | FileSystemState::Terminals(_) => &[],
        });
        let nodes = trees.chain(self.unnamed_files.iter().map(|file| &file.node));
        let files = nodes.flat_map(NodeState::segments);
        let later = self.containers.iter().map(|container| &container.system_v);
        let system_v = std::iter::once(&self.system_v).chain(&self.system_v_of_those).chain(later);
        let system_v = system_v.flat_map(|objects| objects.shm.objects.iter());
        let system_v = system_v.flat_map(|segment| segment.object.segments.iter());
        memories.chain(shared.chain(files).chain(system_v).map(|segment| segment.stored))
    }
}
