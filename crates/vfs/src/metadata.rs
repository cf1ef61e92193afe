//! [`Metadata`]: the attributes of a file, and what may be asked of it.

use bitflags::bitflags;
use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::time::Timespec;

/// The attributes of a file, as stat(2) and statx(2) report them. Ids are the kernel's.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs, reason = "the fields are those of inode(7)")]
pub struct Metadata {
    /// The file system's device, not the one a device node stands for.
    pub dev: DeviceId,
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    /// The device that a device node stands for.
    pub rdev: DeviceId,
    /// Bytes.
    pub size: u64,
    /// Preferred size of a transfer, in bytes.
    pub blksize: u32,
    /// Units of 512 bytes.
    pub blocks: u64,
    pub atime: Timespec,
    pub mtime: Timespec,
    pub ctime: Timespec,
    /// When the file was made, where the file system knows it.
    pub btime: Option<Timespec>,
}

impl Metadata {
    /// Names the inode among all: what locks and FIFOs are found by.
    #[must_use]
    pub fn key(&self) -> InodeKey {
        InodeKey { dev: self.dev, ino: self.ino }
    }

    /// The file type; a mode without one counts as a regular file.
    #[must_use]
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.mode).unwrap_or(FileType::Regular)
    }
}

/// Names an inode among all file systems while it is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs)]
pub struct InodeKey {
    pub dev: DeviceId,
    pub ino: u64,
}

bitflags! {
    /// What is to be done with a file, for permission checks (`MAY_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Access: u32 {
        /// Execute, or search a directory.
        const EXEC = 1;
        /// Write, or change a directory's entries.
        const WRITE = 2;
        /// Read, or list a directory.
        const READ = 4;
    }
}
