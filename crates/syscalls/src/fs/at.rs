//! Where the paths of a call begin: a directory descriptor, the working directory, the root.

use std::sync::Arc;

use moat_abi::fs::{AtFlags, PATH_MAX};
use moat_abi::{Errno, Result};
use moat_kernel::CurrentTask;
use moat_vfs::mount::MountNamespace;
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{Fd, Path};

use crate::PathArg;

/// Reads a path (`getname`): that it is not empty comes before what a descriptor is.
///
/// # Errors
/// EFAULT, ENAMETOOLONG, ENOENT.
pub(crate) fn read_path(t: &CurrentTask, path: PathArg) -> Result<Vec<u8>> {
    let text = t.mm().read_cstr(path.0, PATH_MAX)?;
    if text.is_empty() { Err(Errno::ENOENT) } else { Ok(text) }
}

/// Whether a path is the empty one.
pub(crate) fn is_empty(t: &CurrentTask, path: PathArg) -> bool {
    t.mm().read_cstr(path.0, 1).is_ok()
}

/// A task's root, umask and the place that relative paths begin at.
pub(crate) struct LookupStart {
    pub(crate) root: Path,
    pub(crate) base: Path,
    pub(crate) umask: u32,
    pub(crate) namespace: Arc<MountNamespace>,
}

impl LookupStart {
    /// The place that `dirfd` means for `path`: nothing if the path is absolute.
    ///
    /// # Errors
    /// EBADF.
    pub(crate) fn at(t: &CurrentTask, dirfd: Fd, path: &[u8]) -> Result<LookupStart> {
        let absolute = path.first() == Some(&b'/');
        // The descriptor is not looked at if the path is absolute, so a bad one is no error then.
        let other = if absolute || dirfd == Fd::CWD { None } else { Some(t.fds().get_any(dirfd)?.path().clone()) };
        // Cloned under one lock, so that root and base are of one moment.
        let fs = t.fs().lock();
        let base = match other {
            Some(p) => p,
            None if absolute => fs.root.clone(),
            None => fs.cwd.clone(),
        };
        Ok(LookupStart { root: fs.root.clone(), base, umask: fs.umask, namespace: fs.namespace.clone() })
    }

    /// The working directory.
    pub(crate) fn cwd(t: &CurrentTask) -> LookupStart {
        let fs = t.fs().lock();
        LookupStart { root: fs.root.clone(), base: fs.cwd.clone(), umask: fs.umask, namespace: fs.namespace.clone() }
    }

    /// The view of a task from here.
    pub(crate) fn view<'a>(&'a self, t: &'a CurrentTask) -> View<'a> {
        View { caller: t, root: &self.root, base: &self.base, umask: self.umask }
    }
}

/// Resolves a path that a call was given.
///
/// # Errors
/// Those of path resolution; EBADF, EFAULT.
pub(crate) fn find(t: &CurrentTask, dirfd: Fd, path: PathArg, flags: LookupFlags) -> Result<Path> {
    let text = match flags.contains(LookupFlags::EMPTY_PATH) {
        // A null path is an empty one where an empty one is allowed (Linux 6.11).
        true if path.0.is_null() => Vec::new(),
        true => t.mm().read_cstr(path.0, PATH_MAX)?,
        false => read_path(t, path)?,
    };
    let place = LookupStart::at(t, dirfd, &text)?;
    resolve(&place.view(t), &text, flags)
}

/// Checks `AT_*` flags and makes lookup flags of them.
///
/// # Errors
/// EINVAL for a flag that is not in `allowed`.
pub(crate) fn lookup_flags(flags: u32, allowed: AtFlags) -> Result<LookupFlags> {
    if flags & !allowed.bits() != 0 {
        return Err(Errno::EINVAL);
    }
    let flags = AtFlags::from_bits_truncate(flags);
    let mut lookup = LookupFlags::empty();
    // Calls that know AT_SYMLINK_FOLLOW do not follow by default.
    let follow = if allowed.contains(AtFlags::SYMLINK_FOLLOW) {
        flags.contains(AtFlags::SYMLINK_FOLLOW)
    } else {
        !flags.contains(AtFlags::SYMLINK_NOFOLLOW)
    };
    lookup.set(LookupFlags::FOLLOW, follow);
    lookup.set(LookupFlags::EMPTY_PATH, flags.contains(AtFlags::EMPTY_PATH));
    Ok(lookup)
}
