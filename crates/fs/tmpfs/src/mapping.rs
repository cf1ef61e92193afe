//! [`Mapping`]: a tmpfs file as mmap(2) sees it.

use std::sync::Arc;

use moat_abi::fs::{FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE, SealFlags};
use moat_abi::mman::ProtFlags;
use moat_abi::{Errno, Result};
use moat_mm::mappable::{FileIdentity, MapFile, MapName, Mappable, Origin, Sharing};
use moat_platform::MapSource;
use moat_vfs::atime::AtimeRule;
use moat_vfs::persist::MappedFile;
use moat_vfs::{OpenFile, Path};

use crate::inode::TmpInode;

/// A mapping's hold on a file, and on the path it was opened by, which keeps the mount busy as on Linux. Through an overlay the
/// path's inode is another one than the file's.
pub struct Mapping {
    path: Path,
    origin: MappedFile,
    inode: Arc<TmpInode>,
    atime: AtimeRule,
}

impl Mapping {
    pub(crate) fn new(f: &OpenFile, inode: Arc<TmpInode>) -> Mapping {
        Mapping { path: f.path().clone(), origin: MappedFile::of(f), atime: f.atime_rule(), inode }
    }
}

/// What the host is to map of `inode`: also for file systems that keep their data in a tmpfs.
///
/// # Errors
/// EPERM for a shared writable mapping of a sealed file; ENOMEM, EMFILE from the host.
pub fn map_source(inode: &TmpInode, what: &MapFile) -> Result<MapSource> {
    let memory = {
        let mut d = inode.data().map_err(|_| Errno::ENODEV)?.lock();
        // Private copies don't reach the file, so seals allow them.
        let shared = what.sharing == Sharing::Shared;
        if shared
            && what.prot.contains(ProtFlags::WRITE)
            && d.seals().intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE)
        {
            return Err(Errno::EPERM);
        }
        let memory = d.host_memory(inode.shared())?;
        if shared {
            inode.shared().note_change();
            // mprotect(2) may let stores through later.
            d.note_mapped();
        }
        memory
    };
    Ok(memory.map_source(what.offset, what.sharing))
}

impl Mappable for Mapping {
    fn map_source(&self, what: &MapFile) -> Result<MapSource> {
        map_source(&self.inode, what)
    }

    fn mapped(&self, _what: &MapFile) -> Result<()> {
        // An access, whatever is loaded later (`file_accessed`).
        self.inode.was_accessed(self.atime);
        Ok(())
    }

    fn identity(&self) -> FileIdentity {
        FileIdentity { dev: self.inode.shared().dev.to_raw(), ino: self.inode.ino() }
    }

    fn describe(&self) -> MapName {
        // What stat(2) of the path says: in an overlay that is another device and number than the file's own.
        let shown = self.path.inode().metadata();
        let identity = shown.map_or(self.identity(), |m| FileIdentity { dev: m.dev.to_raw(), ino: m.ino });
        MapName { identity, path: self.path.text(None) }
    }

    fn origin(&self) -> Origin<'_> {
        Origin::File(&self.origin)
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
        self.inode.data()?.lock().fallocate(self.inode.shared(), mode, offset, len)
    }
}
