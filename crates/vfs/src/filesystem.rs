//! [`FileSystem`], and what mount(2) asks a file system type for: [`MountRequest`].

use std::sync::Arc;

use moat_abi::Result;
use moat_abi::stat::{DeviceId, Statfs};

use crate::caller::Caller;
use crate::inode::Inode;
use crate::path::Path;
use crate::vfs::Tables;

/// A mounted file system (Linux's super block).
pub trait FileSystem: Send + Sync + 'static {
    /// The type's name, as in /proc/filesystems.
    fn name(&self) -> &'static str;

    /// The root directory (or the one file of a file mount); the same inode each time.
    fn root(&self) -> Arc<dyn Inode>;

    /// The device number that stat(2) reports.
    fn dev(&self) -> DeviceId;

    /// statfs(2), without the mount's flags.
    ///
    /// # Errors
    /// EIO.
    fn statfs(&self) -> Result<Statfs>;

    /// Writes everything out: sync(2), syncfs(2), umount(2).
    ///
    /// # Errors
    /// EIO.
    fn sync(&self) -> Result<()> {
        Ok(())
    }

    /// Changes the options: mount(2) with MS_REMOUNT. The mount's own flags are not its business.
    ///
    /// # Errors
    /// EINVAL for an option that is unknown or can't change.
    fn remount(&self, _options: &[u8]) -> Result<()> {
        Ok(())
    }

    /// The options for /proc/mounts after the flags: `,size=4k`, or nothing.
    fn show_options(&self) -> String {
        String::new()
    }
}

/// What mount(2) asks a file system type for.
pub struct MountRequest<'a> {
    /// The source as given: a device, or any word.
    pub source: &'a [u8],
    /// The source as a path, for those types that take one.
    pub source_path: Option<Path>,
    /// The option string.
    pub options: &'a [u8],
    /// Who mounts.
    pub caller: &'a dyn Caller,
    /// The kernel's tables, for the file system's own mounts and its device number.
    pub tables: &'a Arc<Tables>,
}

/// Splits an option string at its commas into `key` or `key=value`.
pub fn options(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    text.split(|&b| b == b',').filter(|o| !o.is_empty()).map(|o| match o.iter().position(|&b| b == b'=') {
        Some(at) => (&o[..at], Some(&o[at + 1..])),
        None => (o, None),
    })
}
