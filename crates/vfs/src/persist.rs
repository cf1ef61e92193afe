//! Descriptors, open files and paths in an image, and out of it.
//!
//! - [`Saver`]: gives each object a name when it is first met, and collects what is saved of it.
//! - [`Restorer`]: the same objects in a new kernel, whose mounts have been made from the configuration.
//! - [`MappedFile`]: what a mapping remembers of its file.
//!
//! An open file says what it is by [`File::save`](crate::File::save), a file system by
//! [`FileSystem::save`](crate::FileSystem::save). Both refuse unless they say otherwise, so that nothing is lost in silence.

mod memory;
mod restore;
mod save;
mod trees;

use moat_abi::fs::AccessMode;

use crate::open_file::OpenFile;
use crate::path::Path;

pub use memory::{restore_memory, save_memory};
pub use restore::{Bounds, Contents, Restorer};
pub use save::{Compare, Saver};

/// The file that a mapping shows, by which it can be opened again: [`moat_mm::Origin::File`].
pub struct MappedFile {
    pub(crate) path: Path,
    pub(crate) writable: bool,
}

impl MappedFile {
    /// That of an open file.
    #[must_use]
    pub fn of(f: &OpenFile) -> MappedFile {
        MappedFile::new(f.path().clone(), f.access_mode() == AccessMode::ReadWrite)
    }

    /// The file at `path`, opened for writing or not.
    #[must_use]
    pub fn new(path: Path, writable: bool) -> MappedFile {
        MappedFile { path, writable }
    }
}
