//! [`FileSystem`], and the registry of file system types by name.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use moat_abi::stat::{DeviceId, Statfs};
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, RwLock};

use crate::caller::Caller;
use crate::inode::Inode;
use crate::path::Path;

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
}

/// Makes a file system of a type.
pub type Constructor = fn(&MountRequest<'_>) -> Result<Arc<dyn FileSystem>>;

/// What a type needs (the first column of /proc/filesystems).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backing {
    /// `nodev`.
    Nothing,
    /// A block device.
    Device,
}

static TYPES: RwLock<BTreeMap<&'static str, (Backing, Constructor)>> = RwLock::new(LockClass::Table, BTreeMap::new());

/// Adds a file system type; a second call with the name replaces it.
pub fn register_filesystem(name: &'static str, constructor: Constructor) {
    TYPES.write().insert(name, (Backing::Nothing, constructor));
}

/// The names of all types, for /proc/filesystems.
#[must_use]
pub fn filesystem_types() -> Vec<(&'static str, Backing)> {
    TYPES.read().iter().map(|(name, (backing, _))| (*name, *backing)).collect()
}

/// Makes a file system of type `name`.
///
/// # Errors
/// ENODEV for an unknown type; those of the constructor.
pub fn make_filesystem(name: &[u8], request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let name = std::str::from_utf8(name).map_err(|_| Errno::ENODEV)?;
    let constructor = TYPES.read().get(name).map(|t| t.1).ok_or(Errno::ENODEV)?;
    constructor(request)
}

/// A device number for a file system without a device, never given twice.
///
/// The host's own anonymous devices are small numbers too: nothing compares them with ours.
#[must_use]
pub fn new_anonymous_dev() -> DeviceId {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    DeviceId::new(0, NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Splits an option string at its commas into `key` or `key=value`.
pub fn options(text: &[u8]) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
    text.split(|&b| b == b',').filter(|o| !o.is_empty()).map(|o| match o.iter().position(|&b| b == b'=') {
        Some(at) => (&o[..at], Some(&o[at + 1..])),
        None => (o, None),
    })
}
