//! mount(2) and umount(2).

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::mount::{MS_MGC_MSK, MS_MGC_VAL, MsFlags};
use moat_abi::{Errno, Result};

use crate::anon::Pseudo;
use crate::cred::{Credentials, UserNamespace};
use crate::filesystem::MountRequest;
use crate::mount::{Mount, MountFlags, MountNamespace, Subtree, Unmount};
use crate::path::Path;
use crate::vfs::Vfs;
use crate::walk::{LookupFlags, View, resolve};

/// The other arguments of mount(2).
pub struct Attach<'a> {
    /// Device, directory or word, by type.
    pub source: &'a [u8],
    /// File system type.
    pub fs_type: &'a [u8],
    /// `MS_*`, as the guest gave them.
    pub flags: u64,
    /// Option string.
    pub options: &'a [u8],
}

fn check_privilege(view: &View<'_>, ns: &MountNamespace) -> Result<()> {
    if view.creds().has_cap_in(ns.user_ns(), Cap::SYS_ADMIN) { Ok(()) } else { Err(Errno::EPERM) }
}

/// The per-mount part of `MS_*`; without any access-time flag it is relatime.
fn mount_flags(flags: MsFlags) -> MountFlags {
    // The lower bits of both sets of flags are the same; the locks are our own.
    let mut m = MountFlags::from_bits_truncate(u32::try_from(flags.bits() & 0xffff_ffff).unwrap_or(0))
        .difference(MountFlags::LOCKS);
    if !m.intersects(MountFlags::NOATIME | MountFlags::STRICTATIME) {
        m |= MountFlags::RELATIME;
    }
    if m.contains(MountFlags::STRICTATIME) {
        m -= MountFlags::RELATIME;
    }
    m
}

/// mount(2), in all its variants. `namespace` is the caller's.
///
/// # Errors
/// Those of mount(2).
pub fn mount(vfs: &Vfs, view: &View<'_>, caller_ns: &MountNamespace, target: &[u8], what: &Attach<'_>) -> Result<()> {
    let mut raw = what.flags;
    // Programs of the time before Linux 2.4 put a magic number in the upper half.
    if raw & MS_MGC_MSK == MS_MGC_VAL {
        raw &= !MS_MGC_MSK;
    }
    let flags = MsFlags::from_bits_truncate(raw);
    let at = resolve(view, target, LookupFlags::FOLLOW)?;
    check_privilege(view, caller_ns)?;
    // Another namespace's tree can be reached (/proc/PID/root), but not changed.
    if !caller_ns.contains(&at.mount) {
        return Err(Errno::EINVAL);
    }
    // The variants exclude one another, and are tried in Linux's order (`path_mount`).
    if flags.contains(MsFlags::REMOUNT) {
        return remount(view.creds(), &at, flags, what.options);
    }
    if flags.contains(MsFlags::BIND) {
        return bind(view, caller_ns, what.source, &at, flags);
    }
    if flags.intersects(MsFlags::SHARED | MsFlags::PRIVATE | MsFlags::SLAVE | MsFlags::UNBINDABLE) {
        return set_propagation(&at, flags);
    }
    if flags.contains(MsFlags::MOVE) {
        let from = resolve(view, what.source, LookupFlags::FOLLOW)?;
        return caller_ns.move_mount(&from, &at);
    }
    if what.fs_type.is_empty() {
        return Err(Errno::EINVAL);
    }
    // A source may be any word: whether it is a path is for the type to say.
    let source_path = if what.source.is_empty() { None } else { resolve(view, what.source, LookupFlags::FOLLOW).ok() };
    let tables = at.mount.tables();
    let request = MountRequest { source: what.source, source_path, options: what.options, caller: view.caller, tables };
    let owner = owner(view, what.fs_type);
    if !view.creds().has_cap_in(&owner, Cap::SYS_ADMIN) {
        return Err(Errno::EPERM);
    }
    let fs = vfs.registry.make_filesystem(what.fs_type, &request)?;
    let mut new = mount_flags(flags);
    if !caller_ns.user_ns().is_root() && SHOWS_THE_SYSTEM.contains(&what.fs_type) {
        new |= caller_ns.shows_already(&*fs, new).ok_or(Errno::EPERM)?;
    }
    let source: &[u8] = if what.source.is_empty() { b"none" } else { what.source };
    caller_ns.attach(&Mount::new_in(tables, fs, new, source, owner), &at)
}

/// Types that are mounted in user namespaces (`FS_USERNS_MOUNT`).
const FOR_USERS: [&[u8]; 8] = [b"cgroup2", b"devpts", b"mqueue", b"overlay", b"proc", b"ramfs", b"sysfs", b"tmpfs"];
/// Types of which a part may have been covered for a reason (`SB_I_USERNS_VISIBLE`).
const SHOWS_THE_SYSTEM: [&[u8]; 2] = [b"proc", b"sysfs"];

/// The user namespace that a new file system belongs to: the caller's, or that of what it shows.
fn owner(view: &View<'_>, fs_type: &[u8]) -> Arc<UserNamespace> {
    let own = view.creds().user_ns.clone();
    if !FOR_USERS.contains(&fs_type) {
        return own.first();
    }
    let Some(task) = view.caller.task() else { return own };
    match fs_type {
        b"proc" => task.process_pid().namespace().user_ns.clone(),
        b"sysfs" => task.namespaces().net.user_ns.clone(),
        b"mqueue" => task.namespaces().ipc.user_ns.clone(),
        b"cgroup2" => task.namespaces().cgroup.user_ns.clone(),
        _ => own,
    }
}

fn remount(creds: &Credentials, at: &Path, flags: MsFlags, options: &[u8]) -> Result<()> {
    if !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    let old = at.mount.flags();
    let mut new = mount_flags(flags);
    // What is not said of access times stays.
    if !flags.intersects(MsFlags::NOATIME | MsFlags::NODIRATIME | MsFlags::RELATIME | MsFlags::STRICTATIME) {
        new = new.difference(MountFlags::ATIME) | (old & MountFlags::ATIME);
    }
    // As its maker wanted it: whoever has it in a less privileged namespace can't undo that.
    if !old.may_become(new) {
        return Err(Errno::EPERM);
    }
    // With MS_BIND only this mount's flags change, not the file system's options.
    if !flags.contains(MsFlags::BIND) {
        if !creds.has_cap_in(at.mount.user_ns(), Cap::SYS_ADMIN) {
            return Err(Errno::EPERM);
        }
        at.mount.fs().remount(options)?;
    }
    at.mount.set_flags(new | (old & MountFlags::LOCKS));
    Ok(())
}

fn bind(view: &View<'_>, ns: &MountNamespace, source: &[u8], at: &Path, flags: MsFlags) -> Result<()> {
    if source.is_empty() {
        return Err(Errno::EINVAL);
    }
    let from = resolve(view, source, LookupFlags::FOLLOW)?;
    // What is shown is a part of the own tree, or a namespace by its file; no namespace may come to hold itself.
    let is_namespace = from.inode().metadata()?.dev == Pseudo::Nsfs.dev();
    if !(ns.contains(&from.mount) || is_namespace) || !ns.may_hold(&from) {
        return Err(Errno::EINVAL);
    }
    let subtree = if flags.contains(MsFlags::REC) { Subtree::All } else { Subtree::Top };
    if subtree == Subtree::Top && MountNamespace::has_locked_children(&from) {
        return Err(Errno::EINVAL);
    }
    ns.attach_copy(&MountNamespace::copy_tree(&from, subtree), at)
}

/// Propagation types are accepted and all behave as private: no mount of a sandbox has a peer outside it.
fn set_propagation(at: &Path, flags: MsFlags) -> Result<()> {
    let kinds = MsFlags::SHARED | MsFlags::PRIVATE | MsFlags::SLAVE | MsFlags::UNBINDABLE;
    // Nothing but MS_REC and MS_SILENT may go with it (`flags_to_propagation_type`).
    let others = flags - kinds - MsFlags::REC - MsFlags::SILENT;
    if (flags & kinds).bits().count_ones() != 1 || !others.is_empty() || !at.is_mount_root() {
        return Err(Errno::EINVAL);
    }
    Ok(())
}

/// umount2(2): removes the mount that `target` shows.
///
/// # Errors
/// Those of umount(2).
pub fn unmount(
    view: &View<'_>,
    caller_ns: &MountNamespace,
    target: &[u8],
    how: Unmount,
    lookup: LookupFlags,
) -> Result<()> {
    check_privilege(view, caller_ns)?;
    let at = resolve(view, target, lookup)?;
    if !caller_ns.contains(&at.mount) {
        return Err(Errno::EINVAL);
    }
    caller_ns.unmount(&at, how)
}
