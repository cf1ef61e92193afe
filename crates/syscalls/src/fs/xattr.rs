//! Extended attributes: the twelve calls of xattr(7), and name_to_handle_at(2).

use moat_abi::fs::{XATTR_CREATE, XATTR_LIST_MAX, XATTR_NAME_MAX, XATTR_REPLACE, XATTR_SIZE_MAX};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_vfs::walk::LookupFlags;
use moat_vfs::{Fd, Path, ops};

use super::at::find;
use crate::PathArg;

syscalls! { pub static TABLE;
    188 setxattr(path: PathArg, name: PathArg, value: UserAddr, size: usize, flags: u32) sys_setxattr, full;
    189 lsetxattr(path: PathArg, name: PathArg, value: UserAddr, size: usize, flags: u32) sys_lsetxattr, full;
    190 fsetxattr(fd: Fd, name: PathArg, value: UserAddr, size: usize, flags: u32) sys_fsetxattr, full;
    191 getxattr(path: PathArg, name: PathArg, value: UserAddr, size: usize) sys_getxattr, full;
    192 lgetxattr(path: PathArg, name: PathArg, value: UserAddr, size: usize) sys_lgetxattr, full;
    193 fgetxattr(fd: Fd, name: PathArg, value: UserAddr, size: usize) sys_fgetxattr, full;
    194 listxattr(path: PathArg, list: UserAddr, size: usize) sys_listxattr, full;
    195 llistxattr(path: PathArg, list: UserAddr, size: usize) sys_llistxattr, full;
    196 flistxattr(fd: Fd, list: UserAddr, size: usize) sys_flistxattr, full;
    197 removexattr(path: PathArg, name: PathArg) sys_removexattr, full;
    198 lremovexattr(path: PathArg, name: PathArg) sys_lremovexattr, full;
    199 fremovexattr(fd: Fd, name: PathArg) sys_fremovexattr, full;
    303 name_to_handle_at(dirfd: Fd, path: PathArg, handle: UserAddr, mount_id: UserAddr, flags: u32) sys_name_to_handle_at, stub("no file system has handles");
    304 open_by_handle_at(mount: Fd, handle: UserAddr, flags: u32) sys_open_by_handle_at, stub("no file system has handles");
}

fn follow(t: &CurrentTask, path: PathArg) -> Result<Path> {
    find(t, Fd::CWD, path, LookupFlags::FOLLOW)
}

fn nofollow(t: &CurrentTask, path: PathArg) -> Result<Path> {
    find(t, Fd::CWD, path, LookupFlags::empty())
}

fn of_fd(t: &CurrentTask, fd: Fd) -> Result<Path> {
    Ok(t.fds().get(fd)?.path().clone())
}

fn read_name(t: &CurrentTask, name: PathArg) -> Result<Vec<u8>> {
    let name = t
        .mm()
        .read_cstr(name.0, XATTR_NAME_MAX + 1)
        // A name that is too long is ERANGE for attributes.
        .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::ERANGE } else { e })?;
    if name.is_empty() { Err(Errno::ERANGE) } else { Ok(name) }
}

/// Gives `data` if it fits; its length alone for a size of 0.
fn give(t: &CurrentTask, data: &[u8], to: UserAddr, size: usize) -> SyscallResult {
    if size > 0 {
        if data.len() > size {
            return Err(Errno::ERANGE.into());
        }
        t.mm().write_bytes(to, data)?;
    }
    Ok(data.len() as u64)
}

fn set(t: &CurrentTask, at: Result<Path>, name: PathArg, value: UserAddr, size: usize, flags: u32) -> SyscallResult {
    if flags & !(XATTR_CREATE | XATTR_REPLACE) != 0 {
        return Err(Errno::EINVAL.into());
    }
    let name = read_name(t, name)?;
    // Before memory is taken for it.
    if size > XATTR_SIZE_MAX {
        return Err(Errno::E2BIG.into());
    }
    let mut bytes = vec![0; size];
    t.mm().read_bytes(value, &mut bytes)?;
    ops::set_xattr(t.creds(), &at?, &name, &bytes, flags)?;
    Ok(0)
}

fn get(t: &CurrentTask, at: Result<Path>, name: PathArg, value: UserAddr, size: usize) -> SyscallResult {
    let name = read_name(t, name)?;
    let data = ops::get_xattr(t.creds(), &at?, &name)?;
    give(t, &data, value, size)
}

fn list(t: &CurrentTask, at: Result<Path>, to: UserAddr, size: usize) -> SyscallResult {
    let names = ops::list_xattr(t.creds(), &at?)?;
    if names.len() > XATTR_LIST_MAX {
        return Err(Errno::E2BIG.into());
    }
    give(t, &names, to, size)
}

fn remove(t: &CurrentTask, at: Result<Path>, name: PathArg) -> SyscallResult {
    let name = read_name(t, name)?;
    ops::remove_xattr(t.creds(), &at?, &name)?;
    Ok(0)
}

fn sys_setxattr(
    t: &mut CurrentTask,
    path: PathArg,
    name: PathArg,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(t, follow(t, path), name, value, size, flags)
}

fn sys_lsetxattr(
    t: &mut CurrentTask,
    path: PathArg,
    name: PathArg,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(t, nofollow(t, path), name, value, size, flags)
}

fn sys_fsetxattr(
    t: &mut CurrentTask,
    fd: Fd,
    name: PathArg,
    value: UserAddr,
    size: usize,
    flags: u32,
) -> SyscallResult {
    set(t, of_fd(t, fd), name, value, size, flags)
}

fn sys_getxattr(t: &mut CurrentTask, path: PathArg, name: PathArg, value: UserAddr, size: usize) -> SyscallResult {
    get(t, follow(t, path), name, value, size)
}

fn sys_lgetxattr(t: &mut CurrentTask, path: PathArg, name: PathArg, value: UserAddr, size: usize) -> SyscallResult {
    get(t, nofollow(t, path), name, value, size)
}

fn sys_fgetxattr(t: &mut CurrentTask, fd: Fd, name: PathArg, value: UserAddr, size: usize) -> SyscallResult {
    get(t, of_fd(t, fd), name, value, size)
}

fn sys_listxattr(t: &mut CurrentTask, path: PathArg, to: UserAddr, size: usize) -> SyscallResult {
    list(t, follow(t, path), to, size)
}

fn sys_llistxattr(t: &mut CurrentTask, path: PathArg, to: UserAddr, size: usize) -> SyscallResult {
    list(t, nofollow(t, path), to, size)
}

fn sys_flistxattr(t: &mut CurrentTask, fd: Fd, to: UserAddr, size: usize) -> SyscallResult {
    list(t, of_fd(t, fd), to, size)
}

fn sys_removexattr(t: &mut CurrentTask, path: PathArg, name: PathArg) -> SyscallResult {
    remove(t, follow(t, path), name)
}

fn sys_lremovexattr(t: &mut CurrentTask, path: PathArg, name: PathArg) -> SyscallResult {
    remove(t, nofollow(t, path), name)
}

fn sys_fremovexattr(t: &mut CurrentTask, fd: Fd, name: PathArg) -> SyscallResult {
    remove(t, of_fd(t, fd), name)
}

fn sys_name_to_handle_at(
    t: &mut CurrentTask,
    dirfd: Fd,
    path: PathArg,
    _handle: UserAddr,
    _mount_id: UserAddr,
    _flags: u32,
) -> SyscallResult {
    // A bad path has its own error first.
    find(t, dirfd, path, LookupFlags::EMPTY_PATH)?;
    Err(Errno::EOPNOTSUPP.into())
}

fn sys_open_by_handle_at(_t: &mut CurrentTask, _mount: Fd, _handle: UserAddr, _flags: u32) -> SyscallResult {
    Err(Errno::EOPNOTSUPP.into())
}
