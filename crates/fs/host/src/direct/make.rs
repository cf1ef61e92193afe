//! Making nodes, and giving them the owner and mode that the guest wants.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use rustix::fs::{self, AtFlags, Gid, Mode, OFlags, Uid};

use super::{BASE, DirectNode, FILE, NodeMaker};
use crate::tree::{HostKind, NewHostNode};

/// Gives a new node its owner and mode, where those differ from what the host gave it.
///
/// By its descriptor: the name may have been given to something else meanwhile. Without the right to give files away
/// (rootless) only the sentry's own ids can be represented: EOVERFLOW for others, as Linux gives for ids that a mount
/// can't map.
fn set_owner_and_mode(fd: BorrowedFd<'_>, expected: FileType, new: NewHostNode) -> Result<()> {
    let st = fs::fstat(fd).map_err(Errno::from)?;
    if FileType::from_mode(st.st_mode) != Some(expected) {
        return Err(Errno::ESTALE);
    }
    let owner_differs = st.st_uid != new.uid || st.st_gid != new.gid;
    if owner_differs {
        let owner = (Some(Uid::from_raw(new.uid)), Some(Gid::from_raw(new.gid)));
        fs::chownat(fd, c"", owner.0, owner.1, AtFlags::EMPTY_PATH).map_err(|e| match e {
            rustix::io::Errno::INVAL | rustix::io::Errno::PERM => Errno::EOVERFLOW,
            e => e.into(),
        })?;
    }
    // A change of the owner clears the setuid bits. A symbolic link has no mode of its own.
    if expected == FileType::Symlink || (!owner_differs && st.st_mode & 0o7777 == new.mode) {
        return Ok(());
    }
    // A path descriptor takes no fchmod(2).
    if !matches!(expected, FileType::Regular | FileType::Directory) {
        let again = fs::fstat(fd).map_err(Errno::from)?.st_mode & 0o7777;
        return if again == new.mode { Ok(()) } else { moat_host::objects::chmod(fd, new.mode) };
    }
    fs::fchmod(fd, Mode::from_raw_mode(new.mode)).map_err(Errno::from)
}

fn undo(dir: &DirectNode, name: &[u8], made: FileType) {
    let flags = if made == FileType::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    let _ = fs::unlinkat(dir, name, flags);
}

/// Makes a regular file, open for reading and writing.
pub(super) fn file(dir: &DirectNode, name: &[u8], new: NewHostNode) -> Result<OwnedFd> {
    let flags = FILE | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    // Nobody else's until it has its owner.
    let fd = fs::openat(dir, name, flags, Mode::from_raw_mode(0o600)).map_err(Errno::from)?;
    set_owner_and_mode(fd.as_fd(), FileType::Regular, new).inspect_err(|_| undo(dir, name, FileType::Regular))?;
    Ok(fd)
}

/// Makes a regular file without a name, which can get one.
pub(super) fn unnamed(dir: &DirectNode, new: NewHostNode) -> Result<OwnedFd> {
    let flags = BASE | OFlags::TMPFILE | OFlags::RDWR;
    let fd = fs::openat(dir, c".", flags, Mode::from_raw_mode(0o600)).map_err(Errno::from)?;
    set_owner_and_mode(fd.as_fd(), FileType::Regular, new)?;
    Ok(fd)
}

/// Makes any other node; gives a descriptor of it.
pub(super) fn node(
    dir: &DirectNode,
    name: &[u8],
    kind: HostKind<'_>,
    new: NewHostNode,
    nodes: Option<&NodeMaker>,
) -> Result<OwnedFd> {
    // Without a descriptor that is more than a path the mode can't be changed later on older kernels.
    let mode = Mode::from_raw_mode(new.mode & 0o777);
    let special = |file_type, rdev: DeviceId| {
        let device = fs::makedev(rdev.major, rdev.minor);
        fs::mknodat(dir, name, file_type, mode, device).map_err(Errno::from)
    };
    // Whiteouts (0:0) are everybody's.
    let device = |file_type: fs::FileType, rdev: DeviceId| match nodes {
        Some(nodes) if file_type == fs::FileType::BlockDevice || rdev != DeviceId::NONE => {
            nodes.make(dir.as_fd(), name, file_type.as_raw_mode() | mode.as_raw_mode(), rdev)
        }
        _ => special(file_type, rdev),
    };
    let expected = match kind {
        HostKind::Directory => {
            // As above, nobody else's yet.
            fs::mkdirat(dir, name, Mode::from_raw_mode(0o700)).map_err(Errno::from)?;
            FileType::Directory
        }
        HostKind::Symlink(target) => {
            fs::symlinkat(target, dir, name).map_err(Errno::from)?;
            FileType::Symlink
        }
        HostKind::Fifo => {
            special(fs::FileType::Fifo, DeviceId::NONE)?;
            FileType::Fifo
        }
        HostKind::Socket => {
            special(fs::FileType::Socket, DeviceId::NONE)?;
            FileType::Socket
        }
        HostKind::CharDevice(rdev) => {
            device(fs::FileType::CharacterDevice, rdev)?;
            FileType::CharDevice
        }
        HostKind::BlockDevice(rdev) => {
            device(fs::FileType::BlockDevice, rdev)?;
            FileType::BlockDevice
        }
    };
    finish(dir, name, expected, new)
}

/// Gives what has just been made its owner and mode, or removes it again; gives a descriptor of it.
pub(super) fn finish(dir: &DirectNode, name: &[u8], expected: FileType, new: NewHostNode) -> Result<OwnedFd> {
    let flags = match expected {
        FileType::Directory => BASE | OFlags::RDONLY | OFlags::DIRECTORY,
        _ => BASE | OFlags::PATH,
    };
    // The name may lead to another file by now, which `set_owner_and_mode` finds out.
    let opened = fs::openat(dir, name, flags, Mode::empty()).map_err(Errno::from);
    let done = opened.and_then(|fd| set_owner_and_mode(fd.as_fd(), expected, new).map(|()| fd));
    done.inspect_err(|_| undo(dir, name, expected))
}
