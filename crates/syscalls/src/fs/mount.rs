//! mount(2), umount2(2), pivot_root(2).

use moat_abi::cap::Cap;
use moat_abi::fs::{FileType, PATH_MAX};
use moat_abi::mount::{MNT_DETACH, MNT_EXPIRE, MNT_FORCE, UMOUNT_NOFOLLOW};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::UserAddr;
use moat_vfs::Fd;
use moat_vfs::mount::Unmount;
use moat_vfs::ops::{self, Attach};
use moat_vfs::walk::LookupFlags;

use super::at::{LookupStart, find, read_path};
use crate::PathArg;

syscalls! { pub static TABLE;
    165 mount(source: PathArg, target: PathArg, fs_type: PathArg, flags: u64, data: UserAddr) sys_mount, partial("all propagation types behave as private");
    166 umount2(target: PathArg, flags: u32) sys_umount2, partial("no MNT_EXPIRE");
    155 pivot_root(new_root: PathArg, put_old: PathArg) sys_pivot_root, full;
}

fn optional(t: &CurrentTask, text: UserAddr) -> Result<Vec<u8>> {
    if text.is_null() { Ok(Vec::new()) } else { t.mm().read_cstr(text, PATH_MAX) }
}

fn sys_mount(
    t: &mut CurrentTask,
    source: PathArg,
    target: PathArg,
    fs_type: PathArg,
    flags: u64,
    data: UserAddr,
) -> SyscallResult {
    // In the order of the kernel's own copies, which decides between errnos.
    let fs_type = optional(t, fs_type.0)?;
    let source = optional(t, source.0)?;
    let options = optional(t, data)?;
    let target = read_path(t, target)?;
    let place = LookupStart::cwd(t);
    let what = Attach { source: &source, fs_type: &fs_type, flags, options: &options };
    ops::mount(&t.kernel().vfs, &place.view(t), &place.namespace, &target, &what)?;
    Ok(0)
}

fn sys_umount2(t: &mut CurrentTask, target: PathArg, flags: u32) -> SyscallResult {
    if flags & !(MNT_FORCE | MNT_DETACH | UMOUNT_NOFOLLOW) != 0 || flags & MNT_EXPIRE != 0 {
        return Err(Errno::EINVAL.into());
    }
    let target = read_path(t, target)?;
    let place = LookupStart::cwd(t);
    let how = if flags & MNT_DETACH != 0 { Unmount::Detach } else { Unmount::IfUnused };
    let lookup = if flags & UMOUNT_NOFOLLOW != 0 { LookupFlags::empty() } else { LookupFlags::FOLLOW };
    ops::unmount(&place.view(t), &place.namespace, &target, how, lookup)?;
    Ok(0)
}

fn sys_pivot_root(t: &mut CurrentTask, new_root: PathArg, put_old: PathArg) -> SyscallResult {
    let place = LookupStart::cwd(t);
    if !t.creds().has_cap_in(place.namespace.user_ns(), Cap::SYS_ADMIN) {
        return Err(Errno::EPERM.into());
    }
    let new = find(t, Fd::CWD, new_root, LookupFlags::FOLLOW | LookupFlags::DIRECTORY)?;
    let put = find(t, Fd::CWD, put_old, LookupFlags::FOLLOW | LookupFlags::DIRECTORY)?;
    if place.root.inode().file_type() != FileType::Directory {
        return Err(Errno::EINVAL.into());
    }
    place.namespace.pivot_root(&new, &put, &place.root)?;
    // The callers of pivot_root(2) go on to chdir and chroot; Linux moves all processes whose root was the old one.
    // The task's own root and directory follow; others that had them are not looked for.
    let mut fs = t.fs().lock();
    if fs.root == place.root {
        fs.root = new.clone();
    }
    if fs.cwd == place.root {
        fs.cwd = new;
    }
    Ok(0)
}
