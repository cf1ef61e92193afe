//! [`HostTree`]: the operations by which a directory tree of the host is reached.
//!
//! Two implementations serve the same inodes: [`crate::direct::DirectTree`], where the sentry holds descriptors itself,
//! and [`crate::gofer::GoferTree`], where another process does. A [`HostTree::Node`] is an object: it stays the same file
//! whatever becomes of its names. A name is given by its directory and one component, to find, make, move or remove an
//! entry; no implementation follows a symbolic link of the host, ever.

use std::os::fd::OwnedFd;

use moat_abi::stat::{DeviceId, Statfs};
use moat_abi::{Errno, Result};
use moat_host::fanotify::FileHandle;
use moat_vfs::file::SyncKind;
use moat_vfs::inode::{Metadata, SetAttr};
use moat_vfs::outside::AsksHost;
use serde::{Deserialize, Serialize};

/// What an open host file is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostAccess {
    /// O_RDONLY.
    Read,
    /// O_RDONLY and O_NOATIME.
    ReadNoAtime,
    /// O_WRONLY.
    Write,
    /// O_RDWR.
    ReadWrite,
}

impl HostAccess {
    /// Whether a descriptor of this access can do what `wanted` asks for.
    #[must_use]
    pub fn allows(self, wanted: HostAccess) -> bool {
        self == wanted || (self == HostAccess::ReadWrite && wanted != HostAccess::ReadNoAtime)
    }
}

/// Who owns a node that is made, and its permission bits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NewHostNode {
    /// Permission bits, setuid, setgid and sticky included; umask and default ACL are applied already.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What kind of node is made, besides regular files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostKind<'a> {
    /// A directory.
    Directory,
    /// A symbolic link to this target.
    Symlink(&'a [u8]),
    /// A FIFO.
    Fifo,
    /// The node of a UNIX socket; what listens on it is the sandbox's own.
    Socket,
    /// A character device; EPERM, but for whiteouts (0:0), where nobody may make nodes for the tree.
    CharDevice(DeviceId),
    /// A block device; as above.
    BlockDevice(DeviceId),
}

/// An entry of a directory listing, `.` and `..` left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// The component.
    pub name: Vec<u8>,
    /// Host inode number.
    pub ino: u64,
    /// `DT_*`.
    pub dtype: u8,
    /// The position after it in the directory, as the host counts (`d_off`).
    pub next: i64,
}

/// How [`HostTree::rename`] treats an existing target, and what it leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostRename {
    /// Replace it.
    Replace,
    /// RENAME_NOREPLACE.
    NoReplace,
    /// RENAME_EXCHANGE.
    Exchange,
    /// RENAME_WHITEOUT.
    Whiteout,
    /// RENAME_WHITEOUT and RENAME_NOREPLACE.
    WhiteoutNoReplace,
}

/// A directory tree of the host. Names are single components, neither `.` nor `..`, without `/` and NUL.
///
/// Errors are the host's errnos. Calls may sleep on the host's disk. What asks for a descriptor that is more than a path
/// (attributes and extended attributes on older kernels) gives ENOSYS for a node that is not: see [`HostTree::hold`].
#[allow(missing_docs)]
pub trait HostTree: Send + Sync + 'static {
    /// A file of any type, held.
    type Node: Send + Sync + 'static;
    /// Whether `adopt` makes nodes.
    const ADOPTS: bool;

    fn root(&self) -> Result<Self::Node>;
    /// lstat(2) of an entry.
    fn stat_at(&self, dir: &Self::Node, name: &[u8]) -> Result<Metadata>;
    /// Holds the file that an entry names.
    fn lookup(&self, dir: &Self::Node, name: &[u8]) -> Result<(Self::Node, Metadata)>;
    /// As `lookup`, for a regular file: the node can be opened again without a name, for `access` or, failing that, reading.
    fn hold(&self, dir: &Self::Node, name: &[u8], access: HostAccess) -> Result<(Self::Node, Metadata)>;
    /// A node of the file that `fd` has open; `None` where it can't be had.
    fn adopt(&self, fd: &OwnedFd, access: HostAccess) -> Option<Self::Node>;
    fn stat(&self, node: &Self::Node) -> Result<Metadata>;
    /// Opens a regular file.
    fn open_at(&self, dir: &Self::Node, name: &[u8], access: HostAccess) -> Result<OwnedFd>;
    /// Opens a FIFO, without waiting for its other end: ENXIO for writing where nobody reads; EPERM where FIFOs are the sandbox's own.
    fn open_fifo_at(&self, dir: &Self::Node, name: &[u8], access: HostAccess) -> Result<OwnedFd>;
    /// As `open_at`, with a node where the descriptor is none by itself ([`HostTree::adopt`]): what others remove stays reachable for
    /// who has it open.
    fn open_held_at(&self, dir: &Self::Node, name: &[u8], access: HostAccess) -> Result<(OwnedFd, Option<Self::Node>)> {
        Ok((self.open_at(dir, name, access)?, None))
    }
    /// Opens a directory for reading; EOPNOTSUPP where no descriptor of one is to be had.
    fn open_directory(&self, _dir: &Self::Node) -> Result<OwnedFd> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Opens a regular file that is held, whatever its names; ESTALE if the node can't do that.
    fn reopen(&self, node: &Self::Node, access: HostAccess) -> Result<OwnedFd>;
    /// Makes a regular file, which must not exist, and opens it for reading and writing.
    fn create(&self, dir: &Self::Node, name: &[u8], new: NewHostNode) -> Result<OwnedFd>;
    /// Makes a regular file without a name (O_TMPFILE), open for reading and writing.
    fn unnamed(&self, dir: &Self::Node, new: NewHostNode) -> Result<(Self::Node, OwnedFd)>;
    /// Makes a node that is no regular file.
    fn make(
        &self,
        dir: &Self::Node,
        name: &[u8],
        kind: HostKind<'_>,
        new: NewHostNode,
    ) -> Result<(Self::Node, Metadata)>;
    fn link(&self, node: &Self::Node, new_dir: &Self::Node, new_name: &[u8]) -> Result<()>;
    fn link_at(&self, dir: &Self::Node, name: &[u8], new_dir: &Self::Node, new_name: &[u8]) -> Result<()>;
    fn unlink(&self, dir: &Self::Node, name: &[u8]) -> Result<()>;
    fn rmdir(&self, dir: &Self::Node, name: &[u8]) -> Result<()>;
    fn rename(
        &self,
        dir: &Self::Node,
        name: &[u8],
        new_dir: &Self::Node,
        new_name: &[u8],
        how: HostRename,
    ) -> Result<()>;
    /// A socket of the host, which does not block, connected to the one that the node is: ECONNREFUSED where that is not to be.
    fn connect(&self, node: &Self::Node, socket_type: u32) -> Result<OwnedFd>;
    /// Makes a socket of the host, which does not block, with this name; EPERM where sockets are the sandbox's own.
    fn bind(
        &self,
        dir: &Self::Node,
        name: &[u8],
        socket_type: u32,
        new: NewHostNode,
    ) -> Result<(Self::Node, Metadata, OwnedFd)>;
    /// Has a directory, or a regular file that [`HostTree::hold`] gave, marked by the process that serves the tree: EOPNOTSUPP where
    /// that is this one.
    fn watch(&self, _node: &Self::Node, _by: &dyn AsksHost, _what: u64) -> Result<(FileHandle, u64)> {
        Err(Errno::EOPNOTSUPP)
    }
    /// Takes that back.
    fn unwatch(&self, _node: &Self::Node, _what: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }
    fn read_link(&self, node: &Self::Node) -> Result<Vec<u8>>;
    /// Changes attributes, but for the size.
    fn set_attr(&self, node: &Self::Node, attr: &SetAttr) -> Result<()>;
    fn get_xattr(&self, node: &Self::Node, name: &[u8]) -> Result<Vec<u8>>;
    fn set_xattr(&self, node: &Self::Node, name: &[u8], value: &[u8], flags: u32) -> Result<()>;
    fn list_xattr(&self, node: &Self::Node) -> Result<Vec<Vec<u8>>>;
    fn remove_xattr(&self, node: &Self::Node, name: &[u8]) -> Result<()>;
    fn list(&self, dir: &Self::Node) -> Result<Vec<HostEntry>>;
    /// fsync(2) or fdatasync(2) of a directory.
    fn sync(&self, dir: &Self::Node, kind: SyncKind) -> Result<()>;
    /// syncfs(2) of the file system that a directory is on.
    fn sync_fs(&self, dir: &Self::Node) -> Result<()>;
    fn statfs(&self, node: &Self::Node) -> Result<Statfs>;
}
