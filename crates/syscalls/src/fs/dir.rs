//! Directories: getdents64(2), chdir(2), getcwd(2), chroot(2).

use std::ops::ControlFlow;

use moat_abi::cap::Cap;
use moat_abi::fs::{DIRENT_HEADER, DIRENT64_HEADER, DT_UNKNOWN, FileType};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_vfs::path::Reach;
use moat_vfs::walk::LookupFlags;
use moat_vfs::{Access, DirEntry, Fd, Path};

use super::at::find;
use crate::PathArg;

syscalls! { pub static TABLE;
    78 getdents(fd: Fd, buf: UserAddr, size: u32) sys_getdents, full;
    217 getdents64(fd: Fd, buf: UserAddr, size: u32) sys_getdents64, full;
    79 getcwd(buf: UserAddr, size: usize) sys_getcwd, full;
    80 chdir(path: PathArg) sys_chdir, full;
    81 fchdir(fd: Fd) sys_fchdir, full;
    161 chroot(path: PathArg) sys_chroot, full;
}

/// Bytes of entries given at a time, however large the guest's buffer is.
const MOST: usize = 256 * 1024;

/// The layout of an entry.
#[derive(Clone, Copy)]
enum Layout {
    /// `linux_dirent`.
    Old,
    /// `linux_dirent64`.
    New,
}

impl Layout {
    fn len(self, e: &DirEntry<'_>) -> usize {
        let plain = match self {
            // The type is in the last byte, behind the NUL.
            Layout::Old => DIRENT_HEADER + e.name.len() + 2,
            Layout::New => DIRENT64_HEADER + e.name.len() + 1,
        };
        // Entries begin at multiples of eight.
        plain.next_multiple_of(8)
    }

    /// Appends an entry if it fits in `limit` bytes.
    fn put(self, out: &mut Vec<u8>, limit: usize, e: &DirEntry<'_>) -> ControlFlow<()> {
        let len = self.len(e);
        // A name of NAME_MAX fits; anything longer ends the list.
        let Ok(reclen) = u16::try_from(len) else { return ControlFlow::Break(()) };
        if out.len() + len > limit {
            return ControlFlow::Break(());
        }
        let start = out.len();
        let file_type = e.file_type.map_or(DT_UNKNOWN, FileType::dirent_type);
        out.extend_from_slice(&e.ino.to_ne_bytes());
        out.extend_from_slice(&e.next.to_ne_bytes());
        out.extend_from_slice(&reclen.to_ne_bytes());
        if let Layout::New = self {
            out.push(file_type);
        }
        out.extend_from_slice(e.name);
        out.resize(start + len, 0);
        if let (Layout::Old, Some(last)) = (self, out.last_mut()) {
            *last = file_type;
        }
        ControlFlow::Continue(())
    }
}

fn list(t: &CurrentTask, fd: Fd, buf: UserAddr, size: u32, layout: Layout) -> SyscallResult {
    let f = t.fds().get(fd)?;
    let limit = (size as usize).min(MOST);
    // The position moves over what is given only: what can't be copied is not taken.
    let room = t.mm().writable_prefix(buf, limit);
    let mut out = Vec::with_capacity(room.min(32 * 1024));
    let mut refused = None;
    f.readdir(&mut |e| {
        let fits = layout.put(&mut out, room, &e);
        if fits.is_break() && out.is_empty() {
            // The first entry does not fit: EINVAL for a buffer that is
            // too small, EFAULT for one that is not all there.
            refused = Some(if layout.len(&e) > limit { Errno::EINVAL } else { Errno::EFAULT });
        }
        fits
    })?;
    // The size is an int where entries are counted against it.
    if i32::try_from(size).is_err() && (refused.is_some() || !out.is_empty()) {
        refused = Some(Errno::EINVAL);
    }
    if let Some(errno) = refused {
        return Err(errno.into());
    }
    t.mm().write_bytes(buf, &out)?;
    Ok(out.len() as u64)
}

fn sys_getdents(t: &mut CurrentTask, fd: Fd, buf: UserAddr, size: u32) -> SyscallResult {
    list(t, fd, buf, size, Layout::Old)
}

fn sys_getdents64(t: &mut CurrentTask, fd: Fd, buf: UserAddr, size: u32) -> SyscallResult {
    list(t, fd, buf, size, Layout::New)
}

fn sys_getcwd(t: &mut CurrentTask, buf: UserAddr, size: usize) -> SyscallResult {
    let (cwd, root) = {
        let fs = t.fs().lock();
        (fs.cwd.clone(), fs.root.clone())
    };
    // A directory that was removed has no path (getcwd(2)).
    if cwd.dentry.is_deleted() {
        return Err(Errno::ENOENT.into());
    }
    let (path, reach) = cwd.trace(Some(&root));
    // Since Linux 2.6.36 a directory outside of the root is shown so, not refused.
    let mut text = if reach == Reach::Inside { Vec::new() } else { b"(unreachable)".to_vec() };
    text.extend_from_slice(&path);
    text.push(0);
    if text.len() > size {
        return Err(Errno::ERANGE.into());
    }
    t.mm().write_bytes(buf, &text)?;
    Ok(text.len() as u64)
}

fn check_search(t: &CurrentTask, at: &Path) -> Result<()> {
    if at.inode().file_type() != FileType::Directory {
        return Err(Errno::ENOTDIR);
    }
    at.inode().permission(t.creds(), Access::EXEC)
}

fn sys_chdir(t: &mut CurrentTask, path: PathArg) -> SyscallResult {
    let to = find(t, Fd::CWD, path, LookupFlags::FOLLOW)?;
    set_cwd(t, to)
}

fn sys_fchdir(t: &mut CurrentTask, fd: Fd) -> SyscallResult {
    let to = t.fds().get_any(fd)?.path().clone();
    set_cwd(t, to)
}

fn set_cwd(t: &CurrentTask, to: Path) -> SyscallResult {
    check_search(t, &to)?;
    // Dropped after the lock: it may be the last reference to a mount.
    let old = std::mem::replace(&mut t.fs().lock().cwd, to);
    drop(old);
    Ok(0)
}

fn sys_chroot(t: &mut CurrentTask, path: PathArg) -> SyscallResult {
    let to = find(t, Fd::CWD, path, LookupFlags::FOLLOW)?;
    check_search(t, &to)?;
    // After the path's own errors, as on Linux.
    if !t.creds().has_cap(Cap::SYS_CHROOT) {
        return Err(Errno::EPERM.into());
    }
    let old = std::mem::replace(&mut t.fs().lock().root, to);
    drop(old);
    Ok(0)
}
