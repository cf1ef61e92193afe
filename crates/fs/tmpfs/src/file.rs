//! The `File` trait of regular files and directories; the inode serves all its openings.

use std::sync::Arc;

use moat_abi::fs::{F_ADD_SEALS, F_GET_SEALS, SealFlags};
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_mm::Mappable;
use moat_vfs::atime::AtimeRule;
use moat_vfs::clock::now;
use moat_vfs::file::{DirSink, SparseSeek};
use moat_vfs::ops::mode_after_write;
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Caller, File, Metadata, OpenFile, Seekable, SyncKind};

use crate::inode::{Content, TmpInode};
use crate::mapping::Mapping;
use crate::medium;

impl TmpInode {
    /// Sets the times of a write, and takes set-id bits and file capabilities away.
    fn written(&self, f: &OpenFile) {
        self.shared().note_change();
        // The time of this write counts.
        self.take_stores();
        let t = now();
        let mut a = self.attr();
        a.mtime = t;
        a.ctime = t;
        a.drop_capabilities();
        if a.mode & 0o6000 != 0 {
            let meta = Metadata { mode: a.mode, uid: a.uid, gid: a.gid, ..Metadata::default() };
            a.mode = mode_after_write(f.creds(), &meta).unwrap_or(a.mode);
        }
    }

    fn was_read(&self, f: &OpenFile) {
        self.was_accessed(f.atime_rule());
    }

    /// Sets the access time if `rule` says so.
    pub(crate) fn was_accessed(&self, rule: AtimeRule) {
        let t = now();
        let mut a = self.attr();
        if rule.wants(a.atime, a.mtime, a.ctime, t) {
            a.atime = t;
        }
    }
}

impl File for TmpInode {
    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }

    fn read(&self, f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let data = self.data()?.lock();
        // A read from a disk may sleep, and others must get at the file meanwhile: without the lock then.
        let n = match data.on_medium(self.shared(), pos, buf.len()) {
            Some((memory, n)) => {
                drop(data);
                medium::read(&memory, &mut buf[..n], pos)?
            }
            None => {
                let n = data.read(buf, pos)?;
                drop(data);
                n
            }
        };
        self.was_read(f);
        Ok(n)
    }

    fn write(&self, f: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        let n = self.data()?.lock().write(self.shared(), buf, pos)?;
        self.written(f);
        Ok(n)
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        // One lock for the size and the write: of two that append, neither overwrites the other.
        let (n, end) = {
            let mut d = self.data()?.lock();
            let pos = d.size();
            let n = d.write(self.shared(), buf, pos)?;
            (n, pos.saturating_add(n as u64))
        };
        self.written(f);
        Ok((n, end))
    }

    fn direct_block(&self, _f: &OpenFile) -> Option<u64> {
        matches!(self.content, Content::File(_)).then_some(1)
    }

    fn seek_sparse(&self, _f: &OpenFile, offset: u64, what: SparseSeek) -> Result<u64> {
        self.data().map_err(|_| Errno::EINVAL)?.lock().seek_sparse(offset, what)
    }

    fn readdir(&self, f: &OpenFile, pos: u64, sink: &mut DirSink<'_>) -> Result<u64> {
        let reached = self.entries()?.lock().read(pos, sink)?;
        self.was_read(f);
        Ok(reached)
    }

    fn mappable(self: Arc<Self>, f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        if !matches!(self.content, Content::File(_)) {
            return Err(Errno::ENODEV);
        }
        Ok(Arc::new(Mapping::new(f, self)))
    }

    fn truncate(&self, f: &OpenFile, len: u64) -> Result<()> {
        self.data().map_err(|_| Errno::EINVAL)?.lock().set_size(self.shared(), len)?;
        self.written(f);
        Ok(())
    }

    fn fallocate(&self, f: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        self.data()?.lock().fallocate(self.shared(), mode, offset, len)?;
        self.written(f);
        Ok(())
    }

    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        saver.in_memory(f)
    }

    fn sync(&self, _f: &OpenFile, _kind: SyncKind) -> Result<()> {
        // Nothing is more durable than the memory that it is in.
        Ok(())
    }

    fn fcntl(&self, _f: &OpenFile, _caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        let Ok(data) = self.data() else { return Err(Errno::EINVAL) };
        match cmd {
            F_GET_SEALS => Ok(u64::from(data.lock().seals().bits())),
            F_ADD_SEALS => {
                let bits = u32::try_from(arg).map_err(|_| Errno::EINVAL)?;
                data.lock().add_seals(SealFlags::from_bits(bits).ok_or(Errno::EINVAL)?)?;
                Ok(0)
            }
            moat_abi::fs::F_SETPIPE_SZ | moat_abi::fs::F_GETPIPE_SZ => Err(Errno::EBADF),
            _ => Err(Errno::EINVAL),
        }
    }
}
