//! The guest's mounts as the sandbox spec describes them.

use serde::{Deserialize, Serialize};

use super::{FdNumber, NodeSpec};

/// The root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootSpec {
    /// Always a directory.
    pub backing: Backing,
    /// The guest sees it read-only.
    pub readonly: bool,
    /// Where changes go.
    pub overlay: Overlay,
    /// Whether others may change it.
    pub sharing: Sharing,
}

/// Whether a part of the host's tree is changed by others while a container uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// It is not, and what was looked up may be remembered.
    #[default]
    Exclusive,
    /// It may be, and is asked each time.
    Shared,
}

/// What guests may do with the Unix sockets and FIFOs of the host that they find in its trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostNodes {
    /// Whether they connect to its sockets, else nobody listens there; and whether theirs are the host's, too.
    #[serde(default)]
    pub sockets: SocketUse,
    /// Whether they open its FIFOs; else a FIFO is the sandbox's own.
    #[serde(default)]
    pub fifos: HostUse,
}

/// Whether guests reach what a node of the host stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostUse {
    /// They do not.
    #[default]
    None,
    /// They do.
    Open,
}

/// What guests do with Unix sockets in the host's trees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SocketUse {
    /// They have their own alone.
    #[default]
    None,
    /// They connect to those of the host.
    Open,
    /// What they bind is the host's, for its processes to connect to.
    Create,
    /// Both.
    All,
}

impl SocketUse {
    /// Whether guests connect to sockets of the host.
    #[must_use]
    pub fn opens(self) -> bool {
        matches!(self, SocketUse::Open | SocketUse::All)
    }

    /// Whether what guests bind is the host's.
    #[must_use]
    pub fn creates(self) -> bool {
        matches!(self, SocketUse::Create | SocketUse::All)
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountSpec {
    /// Absolute, clean guest path; directories missing on the way are made.
    pub destination: String,
    /// What is mounted.
    pub kind: MountKind,
    /// Mount attributes.
    pub flags: MountFlags,
}

/// What a mount shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "type")]
pub enum MountKind {
    /// proc(5) of the guest.
    Proc,
    /// sysfs(5) of the guest.
    Sysfs,
    /// The guest's device nodes, as devtmpfs gives them; always mounted on /dev.
    Dev,
    /// Pseudo-terminals.
    Devpts(DevptsOptions),
    /// POSIX message queues.
    Mqueue,
    /// A read-only view of the container's cgroup.
    Cgroup,
    /// A file system in the guest's memory.
    Tmpfs(TmpfsOptions),
    /// A node of its own, mounted on a file.
    Node(NodeSpec),
    /// A host directory, or a host file mounted on a file.
    Bind {
        /// The host's side.
        backing: Backing,
        /// Where changes go.
        overlay: Overlay,
    },
}

/// The host's side of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backing {
    /// An O_PATH descriptor of a directory. `..` at it stays there, where the host allows that to be arranged.
    Directory(FdNumber),
    /// A file.
    File(FileBind),
    /// A directory or file that a gofer serves.
    Gofer(GoferBind),
}

/// A tree that a gofer serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoferBind {
    /// The socket by which it is asked for.
    pub socket: FdNumber,
    /// The entry of the tree's root that is mounted; the root itself if none.
    pub name: Option<String>,
}

/// A host file, reached as `name` in the directory `dir`; in there it can be opened again with other flags.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileBind {
    /// While the spec is in transit the donated O_PATH descriptor of the file itself; the sandbox process puts in
    /// its place that of a directory with nothing but the file in it, before the kernel starts.
    pub dir: FdNumber,
    /// The entry in that directory.
    pub name: String,
}

/// Whether changes reach the backing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// They do.
    #[default]
    None,
    /// They stay in the sandbox's memory, within these limits, and vanish with it.
    Memory(OverlayLimits),
    /// They vanish with the sandbox, too; the contents of larger files are in files without a name.
    Files(FileOverlay),
}

/// Where an overlay has its files, and what it may take there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileOverlay {
    /// A directory of its own; never a [`Backing::File`].
    pub medium: Backing,
    /// Its limits; no number of bytes means as many as the host has.
    pub limits: OverlayLimits,
    /// The entry of the root of the tree below that is this directory, which the guest is not shown.
    pub hidden: Option<String>,
}

/// What an overlay may take; `None` is what a tmpfs takes by itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverlayLimits {
    /// Bytes of contents.
    pub size_bytes: Option<u64>,
    /// Files, directories and all else.
    pub inodes: Option<u64>,
}

/// Options of a devpts mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DevptsOptions {
    /// Mode of new slaves.
    pub mode: u32,
    /// Mode of the ptmx node.
    pub ptmx_mode: u32,
    /// Group of new slaves; the opener's if none.
    pub gid: Option<u32>,
}

impl Default for DevptsOptions {
    fn default() -> Self {
        DevptsOptions { mode: 0o620, ptmx_mode: 0o666, gid: None }
    }
}

/// Options of a tmpfs mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// What /proc/mounts shows as its device.
    #[serde(default = "TmpfsOptions::default_source")]
    pub source: String,
    /// Limit of the data, in bytes; half of the guest's memory if none.
    pub size_bytes: Option<u64>,
    /// Limit of inodes.
    pub nr_inodes: Option<u64>,
    /// Mode of the root directory.
    pub mode: u32,
    /// Owner of the root directory.
    pub uid: u32,
    /// Group of the root directory.
    pub gid: u32,
    /// It begins with the contents of the directory that it covers.
    pub copy_up: bool,
}

impl Default for TmpfsOptions {
    fn default() -> Self {
        TmpfsOptions {
            source: TmpfsOptions::default_source(),
            size_bytes: None,
            nr_inodes: None,
            mode: 0o1777,
            uid: 0,
            gid: 0,
            copy_up: false,
        }
    }
}

impl TmpfsOptions {
    fn default_source() -> String {
        "tmpfs".into()
    }
}

/// Attributes that any mount can have, as in mount(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct MountFlags {
    pub readonly: bool,
    pub nosuid: bool,
    pub nodev: bool,
    pub noexec: bool,
    pub noatime: bool,
}
