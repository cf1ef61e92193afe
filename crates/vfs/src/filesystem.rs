//! What mount(2) asks a file system type for: [`MountRequest`].

use std::sync::Arc;

use crate::caller::Caller;
use crate::path::Path;
use crate::tables::Tables;

pub use crate::inode::FileSystem;

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
