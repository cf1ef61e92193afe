//! Requests that a file system of the host answers itself: ioctl_iflags(2), FIEMAP.

use std::os::fd::OwnedFd;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_host::objects::{
    self, FIEMAP_EXTENT_BYTES, FIEMAP_HEADER_BYTES, FS_IOC_FIEMAP, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS,
};
use moat_sync::block_in_place;
use moat_vfs::caller::Caller;

/// FS_IMMUTABLE_FL and FS_APPEND_FL: for CAP_LINUX_IMMUTABLE, over the host, which no sandbox has.
const PRIVILEGED_FLAGS: u32 = 0x10 | 0x20;

/// Extents of one answer, so that a guest can't have the sentry allocate at will. More are given by further requests.
const MAX_EXTENTS: u32 = 1024;

/// Answers a request on an open regular file.
///
/// # Errors
/// ENOTTY for other requests; those of the host.
pub(crate) fn file(fd: &OwnedFd, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
    match u64::from(cmd) {
        FS_IOC_GETFLAGS => {
            let flags = objects::inode_flags(fd)?;
            caller.write_user(arg, &flags.to_ne_bytes())?;
            Ok(0)
        }
        FS_IOC_SETFLAGS => {
            let mut raw = [0; 4];
            caller.read_user(arg, &mut raw)?;
            let flags = u32::from_ne_bytes(raw);
            // Flags that are there already may be passed again.
            let changed = flags ^ objects::inode_flags(fd)?;
            if changed & PRIVILEGED_FLAGS != 0 && !caller.creds().has_root_cap(Cap::LINUX_IMMUTABLE) {
                return Err(Errno::EPERM);
            }
            block_in_place(|| objects::set_inode_flags(fd, flags))?;
            Ok(0)
        }
        FS_IOC_FIEMAP => fiemap(fd, caller, arg),
        _ => Err(Errno::ENOTTY),
    }
}

fn fiemap(fd: &OwnedFd, caller: &dyn Caller, arg: u64) -> Result<u64> {
    let mut header = [0; FIEMAP_HEADER_BYTES];
    caller.read_user(arg, &mut header)?;
    // `fm_mapped_extents` is at 20, `fm_extent_count` at 24.
    let count = u32::from_ne_bytes(*header[24..].first_chunk().ok_or(Errno::EINVAL)?).min(MAX_EXTENTS);
    header[24..28].copy_from_slice(&count.to_ne_bytes());
    let room = FIEMAP_HEADER_BYTES + usize::try_from(count).unwrap_or(0) * FIEMAP_EXTENT_BYTES;
    let mut answer = vec![0; room];
    answer[..FIEMAP_HEADER_BYTES].copy_from_slice(&header);
    block_in_place(|| objects::fiemap(fd, &mut answer))?;
    let mapped = u32::from_ne_bytes(*answer[20..].first_chunk().ok_or(Errno::EINVAL)?).min(count);
    let filled = FIEMAP_HEADER_BYTES + usize::try_from(mapped).unwrap_or(0) * FIEMAP_EXTENT_BYTES;
    caller.write_user(arg, &answer[..filled])?;
    Ok(0)
}
