//! Attributes of a mount tree without mount_setattr(2): mount(2) changes those of a mount that is attached somewhere.
//!
//! A thread with a mount namespace of its own attaches the tree there, remounts its mounts one by one and copies it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, StatVfsMountFlags, openat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, mount_remount, move_mount,
    open_tree,
};

use super::{MountAttributes, in_private_namespace};

/// Where the tree is while its mounts are changed, in a directory that covers the root of the thread's namespace.
const NAME: &str = "tree";

/// A copy of `tree` whose mounts have these attributes too.
pub(super) fn copy_with_attributes(tree: &OwnedFd, set: MountAttributes) -> io::Result<OwnedFd> {
    in_private_namespace(|| {
        let directory = empty_directory()?;
        match FileType::from_raw_mode(rustix::fs::fstat(tree)?.st_mode) {
            FileType::Directory => rustix::fs::mkdirat(&directory, NAME, Mode::RWXU)?,
            _ => drop(openat(&directory, NAME, OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC, Mode::RUSR)?),
        }
        move_mount(tree, "", &directory, NAME, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
        for mount in mounts_of(tree)? {
            mount.add(tree, set)?;
        }
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_EMPTY_PATH;
        Ok(open_tree(tree, "", flags)?)
    })
}

fn empty_directory() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let directory = rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    move_mount(&directory, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    Ok(directory)
}

/// A mount of the tree.
#[derive(Debug, PartialEq, Eq)]
struct Mounted {
    id: u64,
    /// Below the tree's root.
    path: PathBuf,
}

impl Mounted {
    /// Adds attributes; a mount that others cover is left alone: no path leads there.
    fn add(&self, tree: &OwnedFd, set: MountAttributes) -> io::Result<()> {
        let path = if self.path.as_os_str().is_empty() { None } else { Some(&self.path) };
        let opened =
            path.map(|path| openat(tree, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()));
        let opened = opened.transpose()?;
        let fd = opened.as_ref().unwrap_or(tree);
        if mount_id(fd)? != self.id {
            return Ok(());
        }
        let has = rustix::fs::fstatvfs(fd)?.f_flag;
        let mut flags = MountFlags::BIND;
        for (attribute, state, flag) in [
            (MountAttributes::RDONLY, StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
            (MountAttributes::NOSUID, StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
            (MountAttributes::NODEV, StatVfsMountFlags::NODEV, MountFlags::NODEV),
            (MountAttributes::empty(), StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        ] {
            // Those that are not named again would be taken away; what is said of access times stays by itself.
            flags.set(flag, has.contains(state) || !attribute.is_empty() && set.contains(attribute));
        }
        Ok(mount_remount(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()), flags, c"")?)
    }
}

/// The mounts at and below `tree`, which is attached in this thread's namespace.
fn mounts_of(tree: &OwnedFd) -> io::Result<Vec<Mounted>> {
    let mut text = Vec::new();
    File::open("/proc/thread-self/mountinfo")?.read_to_end(&mut text)?;
    Ok(below(&text, mount_id(tree)?))
}

/// The mount of a descriptor, as proc_pid_fdinfo(5) says it; of this thread, whose descriptors are the process's.
fn mount_id(fd: impl AsFd) -> io::Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The mount `root` and those below it in the text of a proc_pid_mountinfo(5); parents come before their children.
fn below(text: &[u8], root: u64) -> Vec<Mounted> {
    let mut lines: Vec<(u64, u64, PathBuf)> = text.split(|byte| *byte == b'\n').filter_map(fields).collect();
    let Some(prefix) = lines.iter().find(|(id, ..)| *id == root).map(|(.., path)| path.clone()) else {
        return Vec::new();
    };
    let mut found = BTreeSet::from([root]);
    let mut mounts = vec![Mounted { id: root, path: PathBuf::new() }];
    // A line may come before that of its parent.
    loop {
        let before = mounts.len();
        lines.retain(|(id, parent, path)| {
            let is_below = found.contains(parent) && !found.contains(id);
            if let (true, Ok(path)) = (is_below, path.strip_prefix(&prefix)) {
                found.insert(*id);
                mounts.push(Mounted { id: *id, path: path.to_owned() });
            }
            !is_below
        });
        if mounts.len() == before {
            return mounts;
        }
    }
}

/// Id, parent's id and mount point of a line.
fn fields(line: &[u8]) -> Option<(u64, u64, PathBuf)> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse::<u64>().ok();
    let (id, parent) = (number()?, number()?);
    Some((id, parent, unescaped(fields.nth(2)?)))
}

/// White space and backslashes are written as three octal digits.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                path.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                path.push(byte);
                rest = after;
            }
        }
    }
    Path::new(&std::ffi::OsString::from_vec(path)).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_one() {
        let text = b"20 1 8:1 / / rw - ext4 /dev/vda rw\n\
            23 22 0:5 / /tree/a\\040b/c rw - tmpfs none rw\n\
            21 20 0:6 / /tree rw - tmpfs none rw\n\
            22 21 0:7 / /tree/a\\040b rw,nosuid shared:3 - tmpfs none rw\n\
            24 20 0:7 / /trees rw - tmpfs none rw\n\
            nonsense\n";
        let path = |text: &str| PathBuf::from(text);
        let mounts: Vec<_> = below(text, 21).into_iter().map(|mount| (mount.id, mount.path)).collect();
        assert_eq!(mounts, [(21, path("")), (22, path("a b")), (23, path("a b/c"))]);
        assert!(below(text, 99).is_empty());
        assert_eq!(unescaped(b"a\\134b\\"), path("a\\b\\"));
    }
}
