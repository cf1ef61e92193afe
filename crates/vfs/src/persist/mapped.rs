//! [`MappedFile`]: what a mapping remembers of its file; and what mappings show, into an image.

use std::sync::Arc;

use moat_abi::fs::AccessMode;
use moat_image::state::{MappableKind, MappableState};
use moat_image::{Met, Ref, Refusal};
use moat_mm::{Mappable, Origin};

use super::memory::save_memory;
use super::save::{Saver, address, identity, is_unnamed, unknown};
use crate::file::{Compare, SaveFiles};
use crate::open_file::OpenFile;
use crate::path::Path;

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

impl Saver {
    /// A segment of shared memory that is saved by its place among them: what shows it is known from here on.
    pub fn segment(&mut self, object: &Arc<dyn Mappable>, index: u32) {
        // By its address it is the one that areas hold.
        if let Met::First(name) = self.mappables.meet(address(object)) {
            self.mappables.fill(name, MappableState { kind: MappableKind::Segment(index) });
        }
    }

    /// What a mapping shows.
    ///
    /// # Errors
    /// What it is, if it can't be saved.
    pub fn mappable(&mut self, object: &Arc<dyn Mappable>) -> Result<Ref<MappableState>, Refusal> {
        let name = match self.mappables.meet(address(object)) {
            Met::Before(name) => return Ok(name),
            Met::First(name) => name,
        };
        let kind = match object.origin() {
            Origin::File(file) => {
                let file = file.downcast_ref::<MappedFile>();
                let MappedFile { path, writable } = file.ok_or_else(|| Refusal::new("a file of an unknown kind"))?;
                let other = Saver::other_name(path);
                let path = other.as_ref().unwrap_or(path);
                if is_unnamed(path) {
                    let kind = MappableKind::Unnamed { file: self.unnamed(path)?, writable: *writable };
                    self.mappables.fill(name, MappableState { kind });
                    return Ok(name);
                }
                let found = path.inode().metadata().map_err(|_| unknown(path))?;
                // What is executed and mapped has to be what it was: programs have pointers into it.
                let found = identity(&found, Compare::Contents);
                MappableKind::File { path: self.path(path)?, writable: *writable, found }
            }
            Origin::Memory(memory, len) => {
                let segments = save_memory(memory.fd(), len, self.pages.as_mut())?;
                MappableKind::SharedAnonymous { len, segments }
            }
            Origin::Other(what) => return Err(Refusal::new(what)),
        };
        self.mappables.fill(name, MappableState { kind });
        Ok(name)
    }
}
