//! Files in memory out of an image.

use std::collections::HashMap;
use std::sync::Arc;

use moat_abi::fs::PATH_MAX;
use moat_image::pages::Pages;
use moat_image::state::{FileSystemState, SandboxState, UnnamedFileState};
use moat_image::{ImageError, refs::find};

use super::Contents;
use crate::anon::Pseudo;
use crate::dentry::Dentry;
use crate::mount::Mount;
use crate::path::Path;
use crate::vfs::Vfs;

/// Puts the image's files into the file systems of its mounts, which are given in its order.
pub(super) fn restore(state: &SandboxState, mounts: &[Arc<Mount>], pages: &Pages) -> Result<(), ImageError> {
    let mut done = HashMap::new();
    for (saved, mount) in state.mounts.iter().zip(mounts) {
        let address = Arc::as_ptr(mount.fs()).addr();
        match done.insert(address, saved.file_system) {
            Some(before) if before == saved.file_system => continue,
            Some(_) => return Err(ImageError::state("two file systems that are one here")),
            None => {}
        }
        if let FileSystemState::Tree(tree) = state.file_systems.get(saved.file_system)? {
            mount.fs().restore(tree, pages)?;
            mount.root().forget_unused();
        }
    }
    Ok(())
}

/// Puts a file without a name back.
pub(super) fn restore_unnamed(
    file: &UnnamedFileState,
    vfs: &Vfs,
    mounts: &[Arc<Mount>],
    contents: &Contents<'_>,
) -> Result<Path, ImageError> {
    if file.name.len() > PATH_MAX {
        return Err(ImageError::state("the name of a file is too long"));
    }
    let Some(mount) = file.mount else {
        let inode = contents.memfds.restore_unnamed(&file.node, contents.pages)?;
        return Ok(vfs.pseudo_path(Pseudo::Shmem, inode, &file.name));
    };
    let mount = find(mounts, mount)?.clone();
    let inode = mount.fs().restore_unnamed(&file.node, contents.pages)?;
    let dentry = Dentry::removed(mount.root(), &file.name, inode);
    Ok(Path { mount, dentry })
}
