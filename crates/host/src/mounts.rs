//! Attributes of detached mount trees, by mount_setattr(2) where the host has it, and unshare(2) of mounts and of the working directory.

mod attached;

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::ptr;

use bitflags::bitflags;

use crate::features::{Feature, has};

bitflags! {
    /// MOUNT_ATTR_*.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MountAttributes: u64 {
        /// MOUNT_ATTR_RDONLY.
        const RDONLY = libc::MOUNT_ATTR_RDONLY;
        /// MOUNT_ATTR_NOSUID.
        const NOSUID = libc::MOUNT_ATTR_NOSUID;
        /// MOUNT_ATTR_NODEV.
        const NODEV = libc::MOUNT_ATTR_NODEV;
    }
}

/// Gives all mounts of `tree`, a detached one of open_tree(2), these attributes besides those that they have.
///
/// The result takes the place of `tree`: before Linux 5.12 it is a copy.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over the mount's namespace.
pub fn with_attributes(tree: OwnedFd, set: MountAttributes) -> io::Result<OwnedFd> {
    if has(Feature::MountSetattr) {
        return set_attributes(&tree, set).map(|()| tree);
    }
    attached::copy_with_attributes(&tree, set)
}

fn set_attributes(tree: impl AsFd, set: MountAttributes) -> io::Result<()> {
    // SAFETY: mount_attr is plain integers, for which zero is valid.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = set.bits();
    mount_setattr(tree.as_fd(), libc::AT_RECURSIVE, &attr)
}

/// How far [`map_ids`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdMapped {
    /// The mount itself.
    Mount,
    /// Those below it, too.
    All,
}

/// Has the mount that `tree` (of open_tree(2)) is the root of show ids as `user_namespace` maps them.
///
/// # Errors
/// EINVAL where the file system can't; EPERM without CAP_SYS_ADMIN over it; ENOSYS before Linux 5.12.
pub fn map_ids(tree: impl AsFd, user_namespace: impl AsFd, how_far: IdMapped) -> io::Result<()> {
    // SAFETY: mount_attr is plain integers, for which zero is valid.
    let mut attr: libc::mount_attr = unsafe { std::mem::zeroed() };
    attr.attr_set = libc::MOUNT_ATTR_IDMAP;
    attr.userns_fd = u64::try_from(user_namespace.as_fd().as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let recursion = match how_far {
        IdMapped::Mount => 0,
        IdMapped::All => libc::AT_RECURSIVE,
    };
    mount_setattr(tree.as_fd(), recursion, &attr)
}

/// mount_setattr(2), which rustix lacks.
fn mount_setattr(tree: BorrowedFd<'_>, recursion: libc::c_int, attr: &libc::mount_attr) -> io::Result<()> {
    // SAFETY: the path is an empty C string and `attr` is valid for the size given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            tree.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursion,
            ptr::from_ref(attr),
            size_of::<libc::mount_attr>(),
        )
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives the calling thread a mount namespace, a root and a working directory of its own.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN.
fn private_namespace() -> io::Result<()> {
    // SAFETY: takes a number only; without CLONE_FILES the descriptors stay in common.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNS | libc::CLONE_FS) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Calls `work` in a thread with a mount namespace of its own, from which nothing propagates; it is gone with the thread.
///
/// # Errors
/// Those of `work`; EPERM without CAP_SYS_ADMIN.
pub fn in_private_namespace<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    use rustix::mount::MountPropagationFlags;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            private_namespace()?;
            rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

/// Calls `work` in a thread whose working directory is `directory`; that of the others stays.
///
/// # Errors
/// Those of `work`; of chdir(2).
pub fn in_directory<T: Send>(directory: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: takes a number only; the root and the working directory are the thread's own from here on.
            if unsafe { libc::unshare(libc::CLONE_FS) } == -1 {
                return Err(io::Error::last_os_error());
            }
            std::env::set_current_dir(directory)?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(io::ErrorKind::Other.into()))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, Mode, OFlags, StatVfsMountFlags, fstatvfs, openat};
    use rustix::mount::{MountFlags, OpenTreeFlags, mount, open_tree};

    use super::*;

    #[test]
    fn a_directory_of_one_thread() {
        let before = std::env::current_dir().unwrap();
        let inside = in_directory(Path::new("/proc"), std::env::current_dir).unwrap();
        assert_eq!((inside.as_path(), std::env::current_dir().unwrap()), (Path::new("/proc"), before));
        assert!(in_directory(Path::new("/no/such"), || Ok(())).is_err());
    }

    const ALL: OpenTreeFlags =
        OpenTreeFlags::OPEN_TREE_CLONE.union(OpenTreeFlags::OPEN_TREE_CLOEXEC).union(OpenTreeFlags::AT_RECURSIVE);

    /// What both ways have to do: a tree with mounts below each other, one of them hidden by another, and a single file.
    fn check(way: impl Fn(OwnedFd, MountAttributes) -> io::Result<OwnedFd> + Send + Sync) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let wanted = MountAttributes::RDONLY | MountAttributes::NODEV;
        in_private_namespace(|| {
            let place = std::env::temp_dir().join(format!("moat-mounts-{:?}", std::thread::current().id()));
            fs::create_dir_all(&place)?;
            let tmpfs = |path: &std::path::Path, flags| {
                fs::create_dir_all(path)?;
                io::Result::Ok(mount("none", path, "tmpfs", flags, None)?)
            };
            tmpfs(&place, MountFlags::NOEXEC | MountFlags::NOATIME)?;
            tmpfs(&place.join("with space"), MountFlags::empty())?;
            tmpfs(&place.join("with space"), MountFlags::NOSUID)?;
            tmpfs(&place.join("with space/deep"), MountFlags::empty())?;
            fs::write(place.join("file"), "text")?;

            let tree = way(open_tree(CWD, &place, ALL)?, wanted)?;
            let flags_of = |path: &str| {
                let found = openat(&tree, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
                io::Result::Ok(fstatvfs(found)?.f_flag)
            };
            let all = StatVfsMountFlags::RDONLY | StatVfsMountFlags::NODEV;
            for path in [".", "with space", "with space/deep"] {
                assert!(flags_of(path)?.contains(all), "{path}");
            }
            assert!(flags_of(".")?.contains(StatVfsMountFlags::NOEXEC | StatVfsMountFlags::NOATIME));
            assert!(flags_of("with space")?.contains(StatVfsMountFlags::NOSUID));
            assert!(!flags_of("with space/deep")?.intersects(StatVfsMountFlags::NOSUID | StatVfsMountFlags::NOEXEC));
            let create = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let made = openat(&tree, "with space/deep/new", create, Mode::RUSR);
            assert_eq!(made.err(), Some(rustix::io::Errno::ROFS));
            assert!(!fstatvfs(fs::File::open(&place)?)?.f_flag.contains(StatVfsMountFlags::RDONLY), "the original");

            let file = way(open_tree(CWD, place.join("file"), ALL)?, MountAttributes::RDONLY)?;
            assert!(fstatvfs(&file)?.f_flag.contains(StatVfsMountFlags::RDONLY));
            assert_eq!(rustix::fs::fstat(&file)?.st_size, 4);
            rustix::mount::unmount(&place, rustix::mount::UnmountFlags::DETACH)?;
            fs::remove_dir(&place)
        })
        .unwrap();
    }

    #[test]
    fn attributes_of_a_tree() {
        check(with_attributes);
    }

    #[test]
    fn attributes_of_a_tree_without_mount_setattr() {
        check(|tree, set| attached::copy_with_attributes(&tree, set));
    }
}
