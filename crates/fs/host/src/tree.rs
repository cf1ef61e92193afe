//! [`HostTree`]: the operations by which a directory tree of the host is reached.
//!
//! Two implementations serve the same inodes: [`crate::direct::DirectTree`], where the sentry holds directory
//! descriptors itself, and [`crate::gofer::GoferTree`], where another process does. Every operation names a file by its
//! directory and one component; no implementation follows a symbolic link of the host, ever.

use std::os::fd::OwnedFd;

use moat_abi::Result;
use moat_abi::stat::Statfs;
use moat_vfs::inode::{Metadata, SetAttr};
use serde::{Deserialize, Serialize};

/// What an open host file is to be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostAccess {
    /// O_RDONLY.
    Read,
    /// O_WRONLY.
    Write,
    /// O_RDWR.
    ReadWrite,
}

/// Who owns a node that is made, and its permission bits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NewHostNode {
    /// Permission bits, setuid, setgid and sticky included; the umask is applied already.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
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
}

/// How [`HostTree::rename`] treats an existing target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostRename {
    /// Replace it.
    Replace,
    /// RENAME_NOREPLACE.
    NoReplace,
    /// RENAME_EXCHANGE.
    Exchange,
}

/// A directory tree of the host. Names are single components, neither `.` nor `..`, without `/` and NUL.
///
/// Errors are the host's errnos. Calls may sleep on the host's disk.
#[allow(missing_docs)]
pub trait HostTree: Send + Sync + 'static {
    /// A directory that the tree can name again without its path.
    type Dir: Send + Sync + 'static;

    fn open_root(&self) -> Result<Self::Dir>;
    fn open_dir(&self, dir: &Self::Dir, name: &[u8]) -> Result<Self::Dir>;
    /// lstat(2) of an entry.
    fn stat(&self, dir: &Self::Dir, name: &[u8]) -> Result<Metadata>;
    fn stat_dir(&self, dir: &Self::Dir) -> Result<Metadata>;
    /// Opens a regular file.
    fn open(&self, dir: &Self::Dir, name: &[u8], access: HostAccess) -> Result<OwnedFd>;
    /// Makes a regular file, which must not exist, and opens it for reading and writing.
    fn create(&self, dir: &Self::Dir, name: &[u8], node: NewHostNode) -> Result<OwnedFd>;
    fn mkdir(&self, dir: &Self::Dir, name: &[u8], node: NewHostNode) -> Result<()>;
    fn symlink(&self, dir: &Self::Dir, name: &[u8], target: &[u8], node: NewHostNode) -> Result<()>;
    /// Makes a FIFO.
    fn mkfifo(&self, dir: &Self::Dir, name: &[u8], node: NewHostNode) -> Result<()>;
    fn link(&self, dir: &Self::Dir, name: &[u8], new_dir: &Self::Dir, new_name: &[u8]) -> Result<()>;
    fn unlink(&self, dir: &Self::Dir, name: &[u8]) -> Result<()>;
    fn rmdir(&self, dir: &Self::Dir, name: &[u8]) -> Result<()>;
    fn rename(&self, dir: &Self::Dir, name: &[u8], new_dir: &Self::Dir, new_name: &[u8], how: HostRename)
    -> Result<()>;
    fn read_link(&self, dir: &Self::Dir, name: &[u8]) -> Result<Vec<u8>>;
    /// Changes the attributes of an entry; `None` names the directory itself.
    fn set_attr(&self, dir: &Self::Dir, name: Option<&[u8]>, attr: &SetAttr) -> Result<()>;
    fn list(&self, dir: &Self::Dir) -> Result<Vec<HostEntry>>;
    fn statfs(&self, dir: &Self::Dir) -> Result<Statfs>;
}
