//! An empty read-only root, and host trees that `..` cannot leave.
//!
//! The process has mount, pid and user namespaces of its own when it comes here. Afterwards its root is a tmpfs with
//! nothing in it but the host files that are mounted one by one and a procfs of its own pid namespace, without the files
//! that tell of the host; the host's tree is unmounted.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use moat_control::spec::{Backing, FileBind, MountKind, Overlay};
use moat_control::{BootError, SandboxSpec};
use moat_host::mounts::{MountAttributes, set_attributes};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::args::DonatedFiles;
use super::flags::Trees;

/// The name of a host file in the directory made for it.
const FILE_NAME: &str = "file";

/// Shuts the process in. Gives a procfs of its pid namespace, which is at /proc too, if the host allows one.
pub(super) fn enter(
    spec: &mut SandboxSpec,
    files: &mut DonatedFiles,
    trees: Trees,
) -> Result<Option<OwnedFd>, BootError> {
    // Nothing done here may propagate to the host, nor its mounts hither.
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(|e| BootError::host("making mounts private", &e.into()))?;
    if trees == Trees::Attached {
        detach_all(spec, files)?;
    }
    let proc_dir = new_procfs().inspect_err(|error| tracing::debug!(%error, "no procfs")).ok();
    let root = new_root().map_err(|e| BootError::host("making an empty root", &e))?;
    pivot(root.as_fd()).map_err(|e| BootError::host("changing to the empty root", &e))?;
    if let Some(proc_dir) = &proc_dir {
        mount_proc(proc_dir).map_err(|e| BootError::host("mounting the sandbox's /proc", &e))?;
    }
    for (index, backing) in backings(spec).enumerate() {
        if let Backing::File(file) = backing {
            mount_file(file, files, index).map_err(|e| BootError::host("mounting a host file", &e))?;
        }
    }
    rustix::mount::mount_remount(
        "/",
        MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC,
        c"",
    )
    .map_err(|e| BootError::host("making the root read-only", &e.into()))?;
    Ok(proc_dir)
}

/// All host backings of the spec.
fn backings(spec: &mut SandboxSpec) -> impl Iterator<Item = &mut Backing> {
    let mounts = spec.container.mounts.iter_mut().filter_map(|mount| match &mut mount.kind {
        MountKind::Bind { backing, .. } => Some(backing),
        _ => None,
    });
    std::iter::once(&mut spec.container.root.backing).chain(mounts)
}

fn backing_fd(backing: &Backing) -> i32 {
    match backing {
        Backing::Directory(number) => *number,
        Backing::File(file) => file.dir,
    }
}

/// Replaces plain descriptors by detached copies of the mounts below them, in place.
fn detach_all(spec: &SandboxSpec, files: &mut DonatedFiles) -> Result<(), BootError> {
    let mut trees = vec![(
        backing_fd(&spec.container.root.backing),
        spec.container.root.readonly || spec.container.root.overlay != Overlay::None,
    )];
    for mount in &spec.container.mounts {
        if let MountKind::Bind { backing, overlay } = &mount.kind {
            trees.push((backing_fd(backing), mount.flags.readonly || *overlay != Overlay::None));
        }
    }
    for (number, readonly) in trees {
        let mut attributes = MountAttributes::NOSUID | MountAttributes::NODEV;
        attributes.set(MountAttributes::RDONLY, readonly);
        detached_copy(files.get(number)?.as_fd(), attributes)
            .and_then(|tree| files.replace(number, &tree))
            .map_err(|e| BootError::host("copying the mounts of a host tree", &e))?;
    }
    Ok(())
}

fn detached_copy(fd: BorrowedFd<'_>, attributes: MountAttributes) -> io::Result<OwnedFd> {
    // The descriptor belongs to the creator's mount namespace, whose mounts cannot be copied here; the same place in
    // this namespace's copy of it can.
    let path = std::fs::read_link(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let tree = rustix::mount::open_tree(CWD, &path, flags)?;
    let (wanted, got) = (rustix::fs::fstat(fd)?, rustix::fs::fstat(&tree)?);
    if (wanted.st_dev, wanted.st_ino) != (got.st_dev, got.st_ino) {
        return Err(io::Error::from(rustix::io::Errno::STALE));
    }
    set_attributes(&tree, attributes)?;
    Ok(tree)
}

fn new_root() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "mode", "0755")?;
    rustix::mount::fsconfig_set_string(&context, "size", "1m")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// A procfs that shows this pid namespace's processes and nothing else of the host.
fn new_procfs() -> io::Result<OwnedFd> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(&context, "subset", "pid")?;
    rustix::mount::fsconfig_create(&context)?;
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Shows the procfs at /proc, where platforms look at their own process before the seccomp filter is on.
fn mount_proc(proc_dir: &OwnedFd) -> io::Result<()> {
    rustix::fs::mkdir("/proc", Mode::from_raw_mode(0o555))?;
    Ok(rustix::mount::move_mount(proc_dir, "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// Makes `root` the root of this mount namespace and unmounts the old one.
fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    let old = rustix::fs::open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::mount::move_mount(root, "", CWD, "/", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(root)?;
    // With both at "." the old root ends up on top of the new one.
    rustix::process::pivot_root(".", ".")?;
    rustix::process::fchdir(&old)?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Mounts a host file on a file in a directory of its own, and puts that directory's descriptor into the spec.
fn mount_file(bind: &mut FileBind, files: &mut DonatedFiles, index: usize) -> io::Result<()> {
    let tree = files.take(bind.dir).map_err(|_| io::Error::from(rustix::io::Errno::BADF))?;
    let directory = Path::new("/").join(index.to_string());
    rustix::fs::mkdir(&directory, Mode::from_raw_mode(0o755))?;
    let dir = rustix::fs::open(&directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    drop(rustix::fs::openat(&dir, FILE_NAME, create, Mode::from_raw_mode(0o600))?);
    rustix::mount::move_mount(&tree, "", &dir, FILE_NAME, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    bind.dir = files.insert(dir);
    FILE_NAME.clone_into(&mut bind.name);
    Ok(())
}
