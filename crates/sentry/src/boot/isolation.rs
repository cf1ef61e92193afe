//! The sandbox process's root: empty and read-only, but for the host files that are mounted in it one by one and a
//! procfs of its own pid namespace, without the files that tell of the host.

use std::io;
use std::os::fd::AsFd;

use moat_control::spec::{Backing, FdNumber, FileBind, MountKind, Overlay, Trees};
use moat_control::{BootError, SandboxSpec};
use moat_host::mounts::MountAttributes;
use moat_jail::DonatedFiles;
use moat_jail::root::{self, EmptyRoot, FILE_NAME};

/// Shuts the process in. The procfs is at /proc and in [`moat_host::procfs`], if the host allows one.
pub(super) fn enter(spec: &mut SandboxSpec, files: &mut DonatedFiles) -> Result<(), BootError> {
    root::make_private()?;
    if spec.jail.trees == Trees::Attached {
        detach_all(spec, files)?;
    }
    // A procfs can be made while one that hides nothing is still mounted (`mount_too_revealing`): before the root goes.
    let proc_dir = root::new_procfs().inspect_err(|error| tracing::debug!(%error, "no procfs")).ok();
    if proc_dir.is_none() {
        // Before the root goes, and before a filter that lets nothing be opened is in force.
        moat_host::procfs::go_without();
    }
    let root = EmptyRoot::enter()?;
    if let Some(proc_dir) = proc_dir {
        root.mount_proc(&proc_dir).map_err(|e| BootError::host("mounting the sandbox's /proc", &e))?;
        moat_host::procfs::set_dir(proc_dir);
    }
    // The root is writable until it is sealed.
    for (index, backing) in backings(spec).enumerate() {
        if let Backing::File(file) = backing {
            mount_file(&root, file, files, index).map_err(|e| BootError::host("mounting a host file", &e))?;
        }
    }
    root.seal()
}

/// All host backings of the spec that are mounted.
fn backings(spec: &mut SandboxSpec) -> impl Iterator<Item = &mut Backing> {
    let mounts = spec.container.mounts.iter_mut().filter_map(|mount| match &mut mount.kind {
        MountKind::Bind { backing, .. } => Some(backing),
        _ => None,
    });
    std::iter::once(&mut spec.container.root.backing).chain(mounts)
}

/// The descriptor of a tree that the sandbox itself was given.
fn tree_fd(backing: &Backing) -> Option<FdNumber> {
    match backing {
        Backing::Directory(number) => Some(*number),
        Backing::File(file) => Some(file.dir),
        Backing::Gofer(_) => None,
    }
}

/// Replaces plain descriptors by detached copies of the mounts below them, in place.
fn detach_all(spec: &SandboxSpec, files: &mut DonatedFiles) -> Result<(), BootError> {
    let root = &spec.container.root;
    let mounts = spec.container.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Bind { backing, overlay } => Some((backing, overlay, mount.flags.readonly)),
        _ => None,
    });
    let mut trees = Vec::new();
    for (backing, overlay, readonly) in mounts.chain([(&root.backing, &root.overlay, root.readonly)]) {
        // What lies under an overlay is not written to, so its mount is read-only as well.
        trees.push((tree_fd(backing), readonly || *overlay != Overlay::None));
        if let Overlay::Files(files) = overlay {
            trees.push((tree_fd(&files.medium), false));
        }
    }
    for (number, readonly) in trees {
        let Some(number) = number else { continue };
        let mut attributes = MountAttributes::NOSUID | MountAttributes::NODEV;
        attributes.set(MountAttributes::RDONLY, readonly);
        root::detached_copy(files.get(number)?.as_fd(), attributes)
            .and_then(|tree| files.replace(number, &tree))
            .map_err(|e| BootError::host("copying the mounts of a host tree", &e))?;
    }
    Ok(())
}

/// Mounts a host file on a file in a directory of its own, and puts that directory's descriptor into the spec.
fn mount_file(root: &EmptyRoot, bind: &mut FileBind, files: &mut DonatedFiles, index: usize) -> io::Result<()> {
    let tree = files.take(bind.dir).map_err(|_| io::Error::from(rustix::io::Errno::BADF))?;
    bind.dir = files.insert(root.mount_file(&tree, index)?);
    FILE_NAME.clone_into(&mut bind.name);
    Ok(())
}
