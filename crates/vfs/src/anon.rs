//! Files that are in no directory: pipes, sockets, eventfds and their like.
//!
//! They live on file systems that are never mounted where a path leads ([`Pseudo`]); each open file has a dentry
//! of its own that is only a name.

use std::sync::{Arc, OnceLock};

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::stat::{self, DeviceId, Statfs};
use moat_abi::{Errno, Result};

use crate::cred::Credentials;
use crate::dentry::Dentry;
use crate::file::File;
use crate::filesystem::{FileSystem, new_anonymous_dev};
use crate::inode::{Inode, Metadata, OpenContext};
use crate::mount::{Mount, MountFlags};
use crate::open_file::OpenFile;
use crate::path::Path;

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
}

const ALL: [Pseudo; 6] = [Pseudo::Pipe, Pseudo::Socket, Pseudo::Anon, Pseudo::Shmem, Pseudo::Pidfd, Pseudo::Nsfs];

struct PseudoFs {
    kind: Pseudo,
    dev: DeviceId,
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
        }
    }
    fn root(&self) -> Arc<dyn Inode> {
        Arc::new(AnonInode { dev: self.dev, mode: FileType::Directory.mode_bits() | 0o555, ino: 1 })
    }
    fn dev(&self) -> DeviceId {
        self.dev
    }
    fn statfs(&self) -> Result<Statfs> {
        let f_type = match self.kind {
            Pseudo::Pipe => stat::PIPEFS_MAGIC,
            Pseudo::Socket => stat::SOCKFS_MAGIC,
            Pseudo::Anon => stat::ANON_INODE_FS_MAGIC,
            Pseudo::Shmem => stat::TMPFS_MAGIC,
            Pseudo::Pidfd => stat::PID_FS_MAGIC,
            Pseudo::Nsfs => stat::NSFS_MAGIC,
        };
        Ok(Statfs { f_type, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() })
    }
}

fn mounts() -> &'static [(Pseudo, Arc<Mount>)] {
    static MOUNTS: OnceLock<Vec<(Pseudo, Arc<Mount>)>> = OnceLock::new();
    MOUNTS.get_or_init(|| {
        let mount =
            |kind| Mount::new(Arc::new(PseudoFs { kind, dev: new_anonymous_dev() }), MountFlags::empty(), b"none");
        ALL.iter().map(|&kind| (kind, mount(kind))).collect()
    })
}

impl Pseudo {
    fn mount(self) -> &'static Arc<Mount> {
        let at = ALL.iter().position(|&k| k == self).unwrap_or(0);
        &mounts()[at].1
    }

    /// The device number of its inodes.
    #[must_use]
    pub fn dev(self) -> DeviceId {
        self.mount().fs().dev()
    }

    /// The path of a file that is shown by `name`: `pipe:[12]`.
    #[must_use]
    pub fn path(self, inode: Arc<dyn Inode>, name: &[u8]) -> Path {
        Path { mount: self.mount().clone(), dentry: Dentry::anonymous(inode, name) }
    }

    /// An inode number for such a file; never given twice.
    #[must_use]
    pub fn new_ino() -> u64 {
        use std::sync::atomic::{AtomicU64, Ordering};
        static NEXT: AtomicU64 = AtomicU64::new(1000);
        NEXT.fetch_add(1, Ordering::Relaxed)
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

/// Opens a file without an inode of its own, shown as "anon_inode:NAME", NAME with its brackets: `[eventfd]`.
#[must_use]
pub fn open_anon(name: &str, file: Arc<dyn File>, flags: OpenFlags, creds: &Arc<Credentials>) -> Arc<OpenFile> {
    static INODE: OnceLock<Arc<dyn Inode>> = OnceLock::new();
    // All of them share one inode, which has permissions but no type, as on Linux.
    let inode =
        INODE.get_or_init(|| Arc::new(AnonInode { dev: Pseudo::Anon.dev(), mode: 0o600, ino: Pseudo::new_ino() }));
    let path = Pseudo::Anon.path(inode.clone(), format!("anon_inode:{name}").as_bytes());
    OpenFile::new(file, path, flags, creds.clone())
}
