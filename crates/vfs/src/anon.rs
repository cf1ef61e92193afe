//! Files that are in no directory: pipes, sockets, eventfds and their like.
//!
//! They live on file systems that are never mounted where a path leads ([`Pseudo`]); each open file has a dentry
//! of its own that is only a name.

use std::sync::Arc;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::stat::{self, DeviceId, Statfs};
use moat_abi::{Errno, Result};

use crate::cred::Credentials;
use crate::dentry::Dentry;
use crate::file::File;
use crate::inode::{FileSystem, Inode, Metadata, OpenContext};
use crate::mount::{Mount, MountFlags};
use crate::open_file::OpenFile;
use crate::path::Path;
use crate::tables::Tables;
use crate::vfs::Vfs;

/// The file systems that have no directories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Pseudo {
    Pipe,
    Socket,
    /// eventfd, epoll and their like.
    Anon,
    /// memfds and System V shared memory.
    Shmem,
    Pidfd,
    /// Namespace files.
    Nsfs,
    /// Descriptors that the sandbox was given.
    Donated,
}

const ALL: [Pseudo; 7] =
    [Pseudo::Pipe, Pseudo::Socket, Pseudo::Anon, Pseudo::Shmem, Pseudo::Pidfd, Pseudo::Nsfs, Pseudo::Donated];

/// The first minor number that is not one of a pseudo file system.
pub(crate) const FIRST_FREE_MINOR: u64 = ALL.len() as u64 + 1;

struct PseudoFs {
    kind: Pseudo,
}

impl FileSystem for PseudoFs {
    fn name(&self) -> &'static str {
        match self.kind {
            Pseudo::Pipe => "pipefs",
            Pseudo::Socket => "sockfs",
            Pseudo::Anon => "anon_inodefs",
            Pseudo::Shmem => "tmpfs",
            Pseudo::Pidfd => "pidfs",
            Pseudo::Nsfs => "nsfs",
            Pseudo::Donated => "hostfs",
        }
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(AnonInode { dev: self.kind.dev(), mode: FileType::Directory.mode_bits() | 0o555, ino: 1 })
    }
    fn dev(&self) -> DeviceId {
        self.kind.dev()
    }
    fn statfs(&self) -> Result<Statfs> {
        let f_type = match self.kind {
            Pseudo::Pipe => stat::PIPEFS_MAGIC,
            Pseudo::Socket => stat::SOCKFS_MAGIC,
            Pseudo::Anon | Pseudo::Donated => stat::ANON_INODE_FS_MAGIC,
            Pseudo::Shmem => stat::TMPFS_MAGIC,
            Pseudo::Pidfd => stat::PID_FS_MAGIC,
            Pseudo::Nsfs => stat::NSFS_MAGIC,
        };
        Ok(Statfs { f_type, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() })
    }
}

impl Pseudo {
    /// The device number of its inodes: the same in all kernels.
    #[must_use]
    pub const fn dev(self) -> DeviceId {
        DeviceId::new(0, self as u32 + 1)
    }
}

/// The mounts of the pseudo file systems.
pub(crate) struct PseudoMounts {
    mounts: Vec<Arc<Mount>>,
    /// The one inode of files that have none of their own; it has permissions but no type, as on Linux.
    anon_inode: Arc<dyn Inode>,
}

impl PseudoMounts {
    pub(crate) fn new(tables: &Arc<Tables>) -> PseudoMounts {
        let mount = |kind| Mount::new(tables, Arc::new(PseudoFs { kind }), MountFlags::empty(), b"none");
        let ino = tables.ids.inodes.next();
        PseudoMounts {
            mounts: ALL.iter().map(|kind| mount(*kind)).collect(),
            anon_inode: Arc::new(AnonInode { dev: Pseudo::Anon.dev(), mode: 0o600, ino }),
        }
    }
}

/// A mount in no namespace, for files that a file system opens itself: the layers of an overlay.
pub struct InternalMount {
    mount: Arc<Mount>,
}

impl InternalMount {
    /// A mount of its own.
    #[must_use]
    pub fn new(tables: &Arc<Tables>) -> InternalMount {
        let fs = Arc::new(PseudoFs { kind: Pseudo::Anon });
        InternalMount { mount: Mount::new(tables, fs, MountFlags::empty(), b"none") }
    }

    /// The kernel's tables.
    #[must_use]
    pub fn tables(&self) -> &Arc<Tables> {
        self.mount.tables()
    }

    /// A path that leads to `inode` and is shown by `name`.
    #[must_use]
    pub fn path(&self, inode: Arc<dyn Inode>, name: &[u8]) -> Path {
        Path { mount: self.mount.clone(), dentry: Dentry::anonymous(&self.mount.tables().dentries, inode, name) }
    }
}

impl Vfs {
    /// The path of a file of a pseudo file system that is shown by `name`: `pipe:[12]`.
    #[must_use]
    pub fn pseudo_path(&self, kind: Pseudo, inode: Arc<dyn Inode>, name: &[u8]) -> Path {
        // The enum is the index: `ALL` is in its order.
        let mount = self.pseudo.mounts[kind as usize].clone();
        let dentry = Dentry::anonymous(&self.dentries, inode, name);
        Path { mount, dentry }
    }

    /// Opens a file without an inode of its own, shown as "anon_inode:NAME", NAME with its brackets: `[eventfd]`.
    #[must_use]
    pub fn open_anon(
        &self,
        name: &str,
        file: Arc<dyn File>,
        flags: OpenFlags,
        creds: &Arc<Credentials>,
    ) -> Arc<OpenFile> {
        let inode = self.pseudo.anon_inode.clone();
        let path = self.pseudo_path(Pseudo::Anon, inode, format!("anon_inode:{name}").as_bytes());
        OpenFile::new(file, path, flags, creds.clone())
    }
}

/// The inode of files that have none to speak of.
struct AnonInode {
    dev: DeviceId,
    mode: u32,
    ino: u64,
}

impl Inode for AnonInode {
    fn metadata(&self) -> Result<Metadata> {
        Ok(Metadata { dev: self.dev, ino: self.ino, mode: self.mode, nlink: 1, blksize: 4096, ..Metadata::default() })
    }
    fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }
    fn open(self: Arc<Self>, _ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        Err(Errno::ENXIO)
    }
}
