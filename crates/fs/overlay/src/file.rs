//! [`LowerFile`]: a regular file of a lower tree that is open for reading.

use std::sync::{Arc, OnceLock};

use moat_abi::Result;
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_mm::mappable::Mappable;
use moat_vfs::OpenFile;
use moat_vfs::caller::Caller;
use moat_vfs::file::{File, Seekable, SparseSeek, SyncKind};
use moat_vfs::inode::{Inode, Metadata, OpenContext};
use moat_vfs::persist::{Compare, SaveFiles};

/// Says whether there is a copy.
type FindCopy = dyn Fn() -> Option<Arc<dyn Inode>> + Send + Sync;

/// Reads what is below until the file is copied up, and the copy from then on (`ovl_real_file`). Mappings stay with what they were
/// made of, as on Linux.
pub(crate) struct LowerFile {
    lower: Arc<dyn File>,
    find_copy: Box<FindCopy>,
    copy: OnceLock<Arc<dyn File>>,
}

impl LowerFile {
    pub(crate) fn new(lower: Arc<dyn File>, find_copy: Box<FindCopy>) -> LowerFile {
        LowerFile { lower, find_copy, copy: OnceLock::new() }
    }

    /// What serves the file at this moment.
    fn real(&self, f: &OpenFile) -> Result<&Arc<dyn File>> {
        if let Some(copy) = self.copy.get() {
            return Ok(copy);
        }
        let Some(upper) = (self.find_copy)() else { return Ok(&self.lower) };
        let caller = f.path().mount.tables().kernel_caller();
        let copy = upper.open(&OpenContext { flags: f.flags(), caller: &caller, path: f.path() })?;
        Ok(self.copy.get_or_init(|| copy))
    }
}

impl File for LowerFile {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.by_path(f, Compare::Contents)
    }

    fn read(&self, f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        self.real(f)?.read(f, buf, pos)
    }

    fn seekable(&self) -> Seekable {
        self.lower.seekable()
    }

    fn direct_block(&self, _f: &OpenFile) -> Option<u64> {
        Some(1)
    }

    fn seek_sparse(&self, f: &OpenFile, offset: u64, what: SparseSeek) -> Result<u64> {
        self.real(f)?.seek_sparse(f, offset, what)
    }

    fn metadata(&self, f: &OpenFile) -> Result<Metadata> {
        f.inode().metadata()
    }

    fn mappable(self: Arc<Self>, f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        self.real(f)?.clone().mappable(f)
    }

    fn ioctl(&self, f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        self.real(f)?.ioctl(f, caller, cmd, arg)
    }

    fn sync(&self, f: &OpenFile, kind: SyncKind) -> Result<()> {
        self.real(f)?.sync(f, kind)
    }

    fn release(&self, f: &OpenFile) {
        self.lower.release(f);
        if let Some(copy) = self.copy.get() {
            copy.release(f);
        }
    }
}
