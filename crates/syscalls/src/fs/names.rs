//! Making, removing and renaming names: mkdir(2), mknod(2), link(2), symlink(2), readlink(2), unlink(2), rename(2).

use moat_abi::cap::Cap;
use moat_abi::fs::{AtFlags, FileType, PATH_MAX, RENAME_EXCHANGE, RENAME_NOREPLACE, RENAME_WHITEOUT, S_IFMT};
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_vfs::inode::{NodeKind, RenameFlags};
use moat_vfs::walk::{LookupFlags, View, resolve_parent};
use moat_vfs::{Fd, ops};

use super::at::{LookupStart, find, is_empty, lookup_flags, read_path};
use crate::PathArg;

syscalls! { pub static TABLE;
    83 mkdir(path: PathArg, mode: u32) sys_mkdir, full;
    258 mkdirat(dirfd: Fd, path: PathArg, mode: u32) sys_mkdirat, full;
    133 mknod(path: PathArg, mode: u32, dev: u32) sys_mknod, full;
    259 mknodat(dirfd: Fd, path: PathArg, mode: u32, dev: u32) sys_mknodat, full;
    84 rmdir(path: PathArg) sys_rmdir, full;
    87 unlink(path: PathArg) sys_unlink, full;
    263 unlinkat(dirfd: Fd, path: PathArg, flags: u32) sys_unlinkat, full;
    82 rename(old: PathArg, new: PathArg) sys_rename, full;
    264 renameat(old_dirfd: Fd, old: PathArg, new_dirfd: Fd, new: PathArg) sys_renameat, full;
    316 renameat2(old_dirfd: Fd, old: PathArg, new_dirfd: Fd, new: PathArg, flags: u32) sys_renameat2, full;
    86 link(old: PathArg, new: PathArg) sys_link, full;
    265 linkat(old_dirfd: Fd, old: PathArg, new_dirfd: Fd, new: PathArg, flags: u32) sys_linkat, full;
    88 symlink(target: PathArg, path: PathArg) sys_symlink, full;
    266 symlinkat(target: PathArg, dirfd: Fd, path: PathArg) sys_symlinkat, full;
    89 readlink(path: PathArg, buf: UserAddr, size: i32) sys_readlink, full;
    267 readlinkat(dirfd: Fd, path: PathArg, buf: UserAddr, size: i32) sys_readlinkat, full;
}

/// Runs an operation on a path that need not exist.
fn on_path<R>(
    t: &CurrentTask,
    dirfd: Fd,
    path: PathArg,
    body: impl FnOnce(&View<'_>, &[u8]) -> Result<R>,
) -> Result<R> {
    let text = read_path(t, path)?;
    let place = LookupStart::at(t, dirfd, &text)?;
    body(&place.view(t), &text)
}

fn sys_mkdir(t: &mut CurrentTask, path: PathArg, mode: u32) -> SyscallResult {
    sys_mkdirat(t, Fd::CWD, path, mode)
}

fn sys_mkdirat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, mode: u32) -> SyscallResult {
    on_path(t, dirfd, path, |v, p| ops::mkdir(v, p, mode))?;
    Ok(0)
}

fn sys_mknod(t: &mut CurrentTask, path: PathArg, mode: u32, dev: u32) -> SyscallResult {
    sys_mknodat(t, Fd::CWD, path, mode, dev)
}

fn node_kind(mode: u32, dev: u32) -> Result<NodeKind<'static>> {
    // A mode without a type makes a regular file (mknod(2)).
    if mode & S_IFMT == 0 {
        return Ok(NodeKind::File);
    }
    match FileType::from_mode(mode).ok_or(Errno::EINVAL)? {
        FileType::Regular => Ok(NodeKind::File),
        FileType::Fifo => Ok(NodeKind::Fifo),
        FileType::Socket => Ok(NodeKind::Socket),
        file_type @ (FileType::CharDevice | FileType::BlockDevice) => {
            Ok(NodeKind::Device { file_type, rdev: DeviceId::from_raw(u64::from(dev)) })
        }
        // mkdir(2) is for that.
        FileType::Directory => Err(Errno::EPERM),
        FileType::Symlink => Err(Errno::EINVAL),
    }
}

fn sys_mknodat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, mode: u32, dev: u32) -> SyscallResult {
    let kind = node_kind(mode, dev)?;
    on_path(t, dirfd, path, |v, p| ops::mknod(v, p, mode, kind))?;
    Ok(0)
}

fn sys_rmdir(t: &mut CurrentTask, path: PathArg) -> SyscallResult {
    on_path(t, Fd::CWD, path, ops::rmdir)?;
    Ok(0)
}

fn sys_unlink(t: &mut CurrentTask, path: PathArg) -> SyscallResult {
    on_path(t, Fd::CWD, path, ops::unlink)?;
    Ok(0)
}

fn sys_unlinkat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, flags: u32) -> SyscallResult {
    if flags & !AtFlags::REMOVEDIR.bits() != 0 {
        return Err(Errno::EINVAL.into());
    }
    on_path(t, dirfd, path, if flags == 0 { ops::unlink } else { ops::rmdir })?;
    Ok(0)
}

fn sys_rename(t: &mut CurrentTask, old: PathArg, new: PathArg) -> SyscallResult {
    sys_renameat2(t, Fd::CWD, old, Fd::CWD, new, 0)
}

fn sys_renameat(t: &mut CurrentTask, old_dirfd: Fd, old: PathArg, new_dirfd: Fd, new: PathArg) -> SyscallResult {
    sys_renameat2(t, old_dirfd, old, new_dirfd, new, 0)
}

fn sys_renameat2(
    t: &mut CurrentTask,
    old_dirfd: Fd,
    old: PathArg,
    new_dirfd: Fd,
    new: PathArg,
    flags: u32,
) -> SyscallResult {
    if flags & !(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // Before the texts, of which an empty one is ENOENT. A whiteout is a device that anybody may make (Linux 5.8).
    if flags & RENAME_EXCHANGE != 0 && flags & (RENAME_NOREPLACE | RENAME_WHITEOUT) != 0 {
        return Err(Errno::EINVAL.into());
    }
    // Both texts are read before either directory is looked at, but of errors those about the old name come first.
    let new = read_path(t, new);
    let old = read_path(t, old)?;
    let from = LookupStart::at(t, old_dirfd, &old)?;
    let to = new.and_then(|new| Ok((LookupStart::at(t, new_dirfd, &new)?, new)));
    if to.is_err() {
        resolve_parent(&from.view(t), &old, LookupFlags::empty())?;
    }
    let (to, new) = to?;
    ops::rename(&from.view(t), &old, &to.view(t), &new, RenameFlags::from_bits_truncate(flags))?;
    Ok(0)
}

fn sys_link(t: &mut CurrentTask, old: PathArg, new: PathArg) -> SyscallResult {
    sys_linkat(t, Fd::CWD, old, Fd::CWD, new, 0)
}

fn sys_linkat(
    t: &mut CurrentTask,
    old_dirfd: Fd,
    old: PathArg,
    new_dirfd: Fd,
    new: PathArg,
    flags: u32,
) -> SyscallResult {
    let lookup = lookup_flags(flags, AtFlags::SYMLINK_FOLLOW | AtFlags::EMPTY_PATH)?;
    let by_descriptor = lookup.contains(LookupFlags::EMPTY_PATH) && old_dirfd != Fd::CWD && is_empty(t, old);
    // Only who could read everything links by descriptor alone, or the opener itself (Linux 6.10).
    if by_descriptor
        && !t.creds().has_root_cap(Cap::DAC_READ_SEARCH)
        && !std::sync::Arc::ptr_eq(t.fds().get_any(old_dirfd)?.creds(), t.creds())
    {
        return Err(Errno::ENOENT.into());
    }
    let source = find(t, old_dirfd, old, lookup)?;
    on_path(t, new_dirfd, new, |v, p| ops::link(v, &source, p))?;
    Ok(0)
}

fn sys_symlink(t: &mut CurrentTask, target: PathArg, path: PathArg) -> SyscallResult {
    sys_symlinkat(t, target, Fd::CWD, path)
}

fn sys_symlinkat(t: &mut CurrentTask, target: PathArg, dirfd: Fd, path: PathArg) -> SyscallResult {
    let target = read_path(t, target)?;
    on_path(t, dirfd, path, |v, p| ops::symlink(v, &target, p))?;
    Ok(0)
}

fn sys_readlink(t: &mut CurrentTask, path: PathArg, buf: UserAddr, size: i32) -> SyscallResult {
    sys_readlinkat(t, Fd::CWD, path, buf, size)
}

fn sys_readlinkat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, buf: UserAddr, size: i32) -> SyscallResult {
    let size = usize::try_from(size).ok().filter(|&s| s > 0).ok_or(Errno::EINVAL)?;
    let text = t.mm().read_cstr(path.0, PATH_MAX)?;
    // An empty path means an O_PATH descriptor of the link itself.
    let place = LookupStart::at(t, dirfd, &text)?;
    let lookup = if text.is_empty() { LookupFlags::EMPTY_PATH } else { LookupFlags::empty() };
    let at = moat_vfs::walk::resolve(&place.view(t), &text, lookup)?;
    if at.inode().file_type() != FileType::Symlink {
        return Err(if text.is_empty() { Errno::ENOENT } else { Errno::EINVAL }.into());
    }
    // A magic link has no text of its own: the path of what it leads to is shown.
    let target = match at.inode().follow(t)? {
        Some(to) => to.text(Some(&place.root)),
        None => at.inode().read_link_for(t)?,
    };
    // Cut without a word and without a NUL (readlink(2)).
    let shown = target.get(..size).unwrap_or(&target);
    t.mm().write_bytes(buf, shown)?;
    Ok(shown.len() as u64)
}
