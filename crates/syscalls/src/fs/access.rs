//! access(2) and faccessat2(2).

use moat_abi::Errno;
use moat_abi::fs::{AtFlags, R_OK, W_OK, X_OK};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_vfs::ops::{self, AccessIds};
use moat_vfs::{Access, Fd};

use super::at::{find, lookup_flags};
use crate::PathArg;

syscalls! { pub static TABLE;
    21 access(path: PathArg, mode: u32) sys_access, full;
    269 faccessat(dirfd: Fd, path: PathArg, mode: u32) sys_faccessat, full;
    439 faccessat2(dirfd: Fd, path: PathArg, mode: u32, flags: u32) sys_faccessat2, full;
}

fn sys_access(t: &mut CurrentTask, path: PathArg, mode: u32) -> SyscallResult {
    sys_faccessat2(t, Fd::CWD, path, mode, 0)
}

fn sys_faccessat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, mode: u32) -> SyscallResult {
    sys_faccessat2(t, dirfd, path, mode, 0)
}

fn sys_faccessat2(t: &mut CurrentTask, dirfd: Fd, path: PathArg, mode: u32, flags: u32) -> SyscallResult {
    // Checked before the path is looked at.
    if mode & !(R_OK | W_OK | X_OK) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let lookup = lookup_flags(flags, AtFlags::EACCESS | AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH)?;
    let ids = if flags & AtFlags::EACCESS.bits() != 0 { AccessIds::Effective } else { AccessIds::Real };
    let at = find(t, dirfd, path, lookup)?;
    // R_OK, W_OK and X_OK are the permission bits.
    ops::access(t.creds(), &at, Access::from_bits_truncate(mode), ids)?;
    Ok(0)
}
