//! [`NewNode`]: what is to be made by [`super::Inode::create`].

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;

/// A file to make. The mode has the umask applied and the setgid rules of the directory taken in.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct NewNode<'a> {
    /// Permission bits (07777).
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub kind: NodeKind<'a>,
}

/// What kind of file to make.
#[derive(Clone, Copy, Debug)]
pub enum NodeKind<'a> {
    /// A regular file.
    File,
    /// A regular file without a name (O_TMPFILE); the name given is empty. It can be linked later.
    TmpFile,
    /// A directory.
    Dir,
    /// A symbolic link with this target.
    Symlink(&'a [u8]),
    /// A FIFO.
    Fifo,
    /// A UNIX socket's node.
    Socket,
    /// The same, as bind(2) makes it: a file system of the host's may give a socket of the host the name.
    BoundSocket(&'a BoundSocket),
    /// A device node.
    Device {
        /// `CharDevice` or `BlockDevice`.
        file_type: FileType,
        /// The device.
        rdev: DeviceId,
    },
}

impl NodeKind<'_> {
    /// The file type that results.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        match self {
            NodeKind::File | NodeKind::TmpFile => FileType::Regular,
            NodeKind::Dir => FileType::Directory,
            NodeKind::Symlink(_) => FileType::Symlink,
            NodeKind::Fifo => FileType::Fifo,
            NodeKind::Socket | NodeKind::BoundSocket(_) => FileType::Socket,
            NodeKind::Device { file_type, .. } => *file_type,
        }
    }
}

/// A socket that is being bound.
#[derive(Debug)]
pub struct BoundSocket {
    /// `SOCK_*`.
    pub socket_type: u32,
    /// The socket of the host that has the name there, where the file system makes one. It does not block.
    pub host: OnceLock<OwnedFd>,
}
