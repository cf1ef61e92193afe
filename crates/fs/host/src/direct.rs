//! [`DirectTree`]: the sentry reaches the host's files itself, relative to directory descriptors that it was given.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_abi::fs::FileType;
use moat_abi::stat::{DeviceId, Statfs};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_vfs::inode::{Metadata, SetAttr, SetTime};

use rustix::fs::{self, AtFlags, Dir, Gid, Mode, OFlags, RenameFlags, Timestamps, Uid};

use crate::tree::{HostAccess, HostEntry, HostRename, HostTree, NewHostNode};

/// A tree below one donated directory descriptor.
pub struct DirectTree {
    root: OwnedFd,
}

impl DirectTree {
    /// The tree below `root`, a directory opened with O_PATH or O_RDONLY.
    #[must_use]
    pub fn new(root: OwnedFd) -> DirectTree {
        DirectTree { root }
    }
}

/// Flags of every open: the host's descriptors stay in this process, links are not followed, terminals not taken.
const BASE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NOCTTY);
/// O_NONBLOCK, so that a FIFO put in a regular file's place can't block the sentry.
const FILE: OFlags = BASE.union(OFlags::NONBLOCK);

fn errno(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

/// A component that the host would read as more than a name would leave the tree.
fn component(name: &[u8]) -> Result<&[u8]> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    Ok(name)
}

fn timespec(sec: i64, nsec: u64) -> Timespec {
    Timespec { tv_sec: sec, tv_nsec: i64::try_from(nsec).unwrap_or(0) }
}

/// Translates a host stat.
#[must_use]
pub(crate) fn metadata(st: &fs::Stat) -> Metadata {
    Metadata {
        dev: DeviceId::new(fs::major(st.st_dev), fs::minor(st.st_dev)),
        ino: st.st_ino,
        mode: st.st_mode,
        nlink: u32::try_from(st.st_nlink).unwrap_or(u32::MAX),
        uid: st.st_uid,
        gid: st.st_gid,
        rdev: DeviceId::new(fs::major(st.st_rdev), fs::minor(st.st_rdev)),
        size: u64::try_from(st.st_size).unwrap_or(0),
        blksize: u32::try_from(st.st_blksize).unwrap_or(4096),
        blocks: u64::try_from(st.st_blocks).unwrap_or(0),
        atime: timespec(st.st_atime, st.st_atime_nsec),
        mtime: timespec(st.st_mtime, st.st_mtime_nsec),
        ctime: timespec(st.st_ctime, st.st_ctime_nsec),
        btime: None,
    }
}

fn host_time(t: Option<SetTime>) -> fs::Timespec {
    match t {
        None => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_OMIT },
        Some(SetTime::Now) => fs::Timespec { tv_sec: 0, tv_nsec: fs::UTIME_NOW },
        Some(SetTime::At(t)) => fs::Timespec { tv_sec: t.tv_sec, tv_nsec: t.tv_nsec },
    }
}

/// Gives a new node its owner and mode, where those differ from what the host gave it.
///
/// By its descriptor: the name may have been given to something else meanwhile. Without the right to give files away
/// (rootless) only the sentry's own ids can be represented: EOVERFLOW for others, as Linux gives for ids that a mount
/// can't map.
fn dress(fd: BorrowedFd<'_>, expected: FileType, node: NewHostNode) -> Result<()> {
    let st = fs::fstat(fd).map_err(errno)?;
    if FileType::from_mode(st.st_mode) != Some(expected) {
        return Err(Errno::ESTALE);
    }
    let owner_differs = st.st_uid != node.uid || st.st_gid != node.gid;
    if owner_differs {
        let owner = (Some(Uid::from_raw(node.uid)), Some(Gid::from_raw(node.gid)));
        fs::chownat(fd, c"", owner.0, owner.1, AtFlags::EMPTY_PATH).map_err(|e| match e {
            rustix::io::Errno::INVAL | rustix::io::Errno::PERM => Errno::EOVERFLOW,
            e => errno(e),
        })?;
    }
    // A change of the owner clears the setuid bits. A symbolic link has no mode of its own.
    if expected != FileType::Symlink && (owner_differs || st.st_mode & 0o7777 != node.mode) {
        fs::fchmod(fd, Mode::from_raw_mode(node.mode)).map_err(errno)?;
    }
    Ok(())
}

impl DirectTree {
    /// Sets the mode of what can be opened; chmod by name would follow a link that was swapped in.
    fn chmod(dir: &OwnedFd, name: Option<&[u8]>, mode: u32) -> Result<()> {
        let mode = Mode::from_raw_mode(mode);
        let fd = match name {
            None => fs::openat(dir, c".", BASE | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map_err(errno)?,
            Some(name) => {
                fs::openat(dir, component(name)?, FILE | OFlags::RDONLY, Mode::empty()).map_err(|e| match e {
                    rustix::io::Errno::LOOP | rustix::io::Errno::NXIO => Errno::EOPNOTSUPP,
                    e => errno(e),
                })?
            }
        };
        fs::fchmod(fd, mode).map_err(errno)
    }

    /// Opens the node that was just made, to [`dress`] it; removes it again if that fails.
    fn finish(dir: &OwnedFd, name: &[u8], flags: OFlags, expected: FileType, node: NewHostNode) -> Result<()> {
        let opened = fs::openat(dir, name, FILE | flags, Mode::empty()).map_err(errno);
        let done = opened.and_then(|fd| dress(fd.as_fd(), expected, node));
        if done.is_err() {
            Self::undo(dir, name, expected);
        }
        done
    }

    fn undo(dir: &OwnedFd, name: &[u8], made: FileType) {
        let flags = if made == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let _ = fs::unlinkat(dir, name, flags);
    }
}

impl HostTree for DirectTree {
    type Dir = OwnedFd;

    fn open_root(&self) -> Result<OwnedFd> {
        self.root.try_clone().map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
    }

    fn open_dir(&self, dir: &OwnedFd, name: &[u8]) -> Result<OwnedFd> {
        fs::openat(dir, component(name)?, BASE | OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).map_err(errno)
    }

    fn stat(&self, dir: &OwnedFd, name: &[u8]) -> Result<Metadata> {
        fs::statat(dir, component(name)?, AtFlags::SYMLINK_NOFOLLOW).map(|st| metadata(&st)).map_err(errno)
    }

    fn stat_dir(&self, dir: &OwnedFd) -> Result<Metadata> {
        fs::fstat(dir).map(|st| metadata(&st)).map_err(errno)
    }

    fn open(&self, dir: &OwnedFd, name: &[u8], access: HostAccess) -> Result<OwnedFd> {
        let access = match access {
            HostAccess::Read => OFlags::RDONLY,
            HostAccess::Write => OFlags::WRONLY,
            HostAccess::ReadWrite => OFlags::RDWR,
        };
        let fd = fs::openat(dir, component(name)?, FILE | access, Mode::empty()).map_err(errno)?;
        let st = fs::fstat(&fd).map_err(errno)?;
        // The name may have been given to something else since it was looked up.
        if FileType::from_mode(st.st_mode) == Some(FileType::Regular) { Ok(fd) } else { Err(Errno::ESTALE) }
    }

    fn create(&self, dir: &OwnedFd, name: &[u8], node: NewHostNode) -> Result<OwnedFd> {
        let name = component(name)?;
        let flags = FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
        let fd = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(errno)?;
        dress(fd.as_fd(), FileType::Regular, node).inspect_err(|_| Self::undo(dir, name, FileType::Regular))?;
        Ok(fd)
    }

    fn mkdir(&self, dir: &OwnedFd, name: &[u8], node: NewHostNode) -> Result<()> {
        let name = component(name)?;
        fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)).map_err(errno)?;
        Self::finish(dir, name, OFlags::RDONLY | OFlags::DIRECTORY, FileType::Directory, node)
    }

    fn symlink(&self, dir: &OwnedFd, name: &[u8], target: &[u8], node: NewHostNode) -> Result<()> {
        let name = component(name)?;
        fs::symlinkat(target, dir, name).map_err(errno)?;
        Self::finish(dir, name, OFlags::PATH, FileType::Symlink, node)
    }

    fn mkfifo(&self, dir: &OwnedFd, name: &[u8], node: NewHostNode) -> Result<()> {
        let name = component(name)?;
        fs::mknodat(dir, name, fs::FileType::Fifo, Mode::from_raw_mode(0o600), 0).map_err(errno)?;
        Self::finish(dir, name, OFlags::RDONLY, FileType::Fifo, node)
    }

    fn link(&self, dir: &OwnedFd, name: &[u8], new_dir: &OwnedFd, new_name: &[u8]) -> Result<()> {
        fs::linkat(dir, component(name)?, new_dir, component(new_name)?, AtFlags::empty()).map_err(errno)
    }

    fn unlink(&self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        fs::unlinkat(dir, component(name)?, AtFlags::empty()).map_err(errno)
    }

    fn rmdir(&self, dir: &OwnedFd, name: &[u8]) -> Result<()> {
        fs::unlinkat(dir, component(name)?, AtFlags::REMOVEDIR).map_err(errno)
    }

    fn rename(&self, dir: &OwnedFd, name: &[u8], new_dir: &OwnedFd, new_name: &[u8], how: HostRename) -> Result<()> {
        let flags = match how {
            HostRename::Replace => RenameFlags::empty(),
            HostRename::NoReplace => RenameFlags::NOREPLACE,
            HostRename::Exchange => RenameFlags::EXCHANGE,
        };
        fs::renameat_with(dir, component(name)?, new_dir, component(new_name)?, flags).map_err(errno)
    }

    fn read_link(&self, dir: &OwnedFd, name: &[u8]) -> Result<Vec<u8>> {
        fs::readlinkat(dir, component(name)?, Vec::new()).map(|t| t.into_bytes()).map_err(errno)
    }

    fn set_attr(&self, dir: &OwnedFd, name: Option<&[u8]>, attr: &SetAttr) -> Result<()> {
        let (path, at): (&[u8], _) = match name {
            Some(name) => (component(name)?, AtFlags::SYMLINK_NOFOLLOW),
            None => (b"", AtFlags::EMPTY_PATH),
        };
        if let Some(size) = attr.size {
            let fd = self.open(dir, name.ok_or(Errno::EISDIR)?, HostAccess::Write)?;
            fs::ftruncate(fd, size).map_err(errno)?;
        }
        if attr.uid.is_some() || attr.gid.is_some() {
            fs::chownat(dir, path, attr.uid.map(Uid::from_raw), attr.gid.map(Gid::from_raw), at).map_err(errno)?;
        }
        // After the owner, whose change clears bits.
        if let Some(mode) = attr.mode {
            Self::chmod(dir, name, mode)?;
        }
        if attr.atime.is_some() || attr.mtime.is_some() {
            let times = Timestamps { last_access: host_time(attr.atime), last_modification: host_time(attr.mtime) };
            match name {
                Some(name) => fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?,
                None => fs::utimensat(dir, c".", &times, AtFlags::empty()).map_err(errno)?,
            }
        }
        Ok(())
    }

    fn list(&self, dir: &OwnedFd) -> Result<Vec<HostEntry>> {
        let fd = fs::openat(dir, c".", BASE | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map_err(errno)?;
        let mut entries = Vec::new();
        for entry in Dir::new(fd).map_err(errno)? {
            let entry = entry.map_err(errno)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                entries.push(HostEntry { name: name.to_vec(), ino: entry.ino(), dtype: dtype(entry.file_type()) });
            }
        }
        Ok(entries)
    }

    fn statfs(&self, dir: &OwnedFd) -> Result<Statfs> {
        let s = fs::fstatfs(dir).map_err(errno)?;
        Ok(Statfs {
            f_type: s.f_type,
            f_bsize: s.f_bsize,
            f_blocks: s.f_blocks,
            f_bfree: s.f_bfree,
            f_bavail: s.f_bavail,
            f_files: s.f_files,
            f_ffree: s.f_ffree,
            f_namelen: 255,
            f_frsize: s.f_frsize,
            ..Statfs::default()
        })
    }
}

/// `DT_*`, which is the type of a mode shifted down.
fn dtype(t: fs::FileType) -> u8 {
    u8::try_from(t.as_raw_mode() >> 12).unwrap_or(0)
}
