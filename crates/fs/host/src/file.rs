//! Open regular files and directories of the host.

use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_mm::mappable::{FileIdentity, MapFile, MapName, Mappable, Sharing};
use moat_platform::MapSource;
use moat_sync::{LockClass, Mutex, block_in_place};
use moat_vfs::OpenFile;
use moat_vfs::file::{DirEntry, DirSink, FIRST_ENTRY, File, Seekable, SparseSeek, SyncKind};
use moat_vfs::inode::Metadata;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::ReadWriteFlags;

use crate::inode::HostInode;
use crate::tree::{HostEntry, HostTree};

fn errno(e: rustix::io::Errno) -> Errno {
    Errno::from_raw(e.raw_os_error())
}

/// An open regular file. Its position is the description's, never the host descriptor's, which opens share.
pub struct HostFile<T: HostTree> {
    inode: Arc<HostInode<T>>,
    fd: Arc<OwnedFd>,
}

impl<T: HostTree> HostFile<T> {
    pub(crate) fn new(inode: Arc<HostInode<T>>, fd: Arc<OwnedFd>) -> HostFile<T> {
        HostFile { inode, fd }
    }

    /// The host's descriptor, for mappings.
    #[must_use]
    pub fn host_fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

/// Reads what the host has in memory without sleeping, and only what it has not while another worker takes over.
pub(crate) fn read_at(fd: &OwnedFd, buf: &mut [u8], pos: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let mut iov = [std::io::IoSliceMut::new(&mut buf[done..])];
        let at = pos.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        match rustix::io::preadv2(fd, &mut iov, at, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Ok(done),
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::OPNOTSUPP) => {
                return match block_in_place(|| rustix::io::pread(fd, &mut buf[done..], at)) {
                    Ok(n) => Ok(done + n),
                    Err(_) if done > 0 => Ok(done),
                    Err(e) => Err(errno(e)),
                };
            }
            Err(_) if done > 0 => return Ok(done),
            Err(e) => return Err(errno(e)),
        }
    }
    Ok(done)
}

impl<T: HostTree> File for HostFile<T> {
    fn read(&self, _f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        read_at(&self.fd, buf, pos)
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        let n = rustix::io::pwrite(&self.fd, buf, pos).map_err(errno);
        self.inode.changed();
        n
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        let iov = [std::io::IoSlice::new(buf)];
        let n = rustix::io::pwritev2(&self.fd, &iov, 0, ReadWriteFlags::APPEND).map_err(errno);
        self.inode.changed();
        Ok((n?, self.metadata(f)?.size))
    }

    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }

    fn seek_sparse(&self, _f: &OpenFile, offset: u64, what: SparseSeek) -> Result<u64> {
        // The host descriptor's position is used by nobody, so moving it is harmless.
        let from = match what {
            SparseSeek::Data => SeekFrom::Data(offset),
            SparseSeek::Hole => SeekFrom::Hole(offset),
        };
        rustix::fs::seek(&self.fd, from).map_err(errno)
    }

    fn metadata(&self, f: &OpenFile) -> Result<Metadata> {
        // Opened through a union, whose inode has the number and device that the guest knows.
        if !std::ptr::addr_eq(Arc::as_ptr(f.inode()), Arc::as_ptr(&self.inode)) {
            return f.inode().metadata();
        }
        if let Some(known) = self.inode.known() {
            return Ok(known);
        }
        let host = rustix::fs::fstat(&self.fd).map_err(errno)?;
        Ok(self.inode.learn(crate::direct::metadata(&host)))
    }

    fn mappable(self: Arc<Self>, f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        let meta = self.metadata(f)?;
        let name =
            MapName { identity: FileIdentity { dev: meta.dev.to_raw(), ino: meta.ino }, path: f.path().text(None) };
        Ok(Arc::new(HostMapping { fd: self.fd.clone(), name }))
    }

    fn truncate(&self, _f: &OpenFile, len: u64) -> Result<()> {
        let done = rustix::fs::ftruncate(&self.fd, len).map_err(errno);
        self.inode.changed();
        done
    }

    fn fallocate(&self, _f: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let done = block_in_place(|| rustix::fs::fallocate(&self.fd, mode, offset, len)).map_err(errno);
        self.inode.changed();
        done
    }

    fn sync(&self, _f: &OpenFile, kind: SyncKind) -> Result<()> {
        block_in_place(|| match kind {
            SyncKind::Data => rustix::fs::fdatasync(&self.fd),
            SyncKind::All => rustix::fs::fsync(&self.fd),
        })
        .map_err(errno)
    }
}

/// A host file as mappings see it. It keeps the descriptor, not the open file description.
struct HostMapping {
    fd: Arc<OwnedFd>,
    name: MapName,
}

impl Mappable for HostMapping {
    fn map_source(&self, what: &MapFile) -> Result<MapSource> {
        Ok(MapSource::File { fd: self.fd.clone(), offset: what.offset, shared: what.sharing == Sharing::Shared })
    }

    fn identity(&self) -> FileIdentity {
        self.name.identity
    }

    fn describe(&self) -> MapName {
        self.name.clone()
    }

    fn sync(&self, _offset: u64, _len: u64) -> Result<()> {
        block_in_place(|| rustix::fs::fdatasync(&self.fd)).map_err(errno)
    }
}

/// An open directory: a listing taken when reading starts at its beginning.
pub struct HostDirFile<T: HostTree> {
    inode: Arc<HostInode<T>>,
    /// Kept, so that the directory stays the one that was opened whatever others do to its names.
    dir: Arc<T::Dir>,
    listing: Mutex<Option<Arc<Vec<HostEntry>>>>,
}

impl<T: HostTree> HostDirFile<T> {
    pub(crate) fn new(inode: Arc<HostInode<T>>, dir: Arc<T::Dir>) -> HostDirFile<T> {
        HostDirFile { inode, dir, listing: Mutex::new(LockClass::FileData, None) }
    }
}

impl<T: HostTree> File for HostDirFile<T> {
    fn read(&self, _f: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EISDIR)
    }

    fn metadata(&self, f: &OpenFile) -> Result<Metadata> {
        // Opened through a union, whose inode has the number and device that the guest knows.
        if !std::ptr::addr_eq(Arc::as_ptr(f.inode()), Arc::as_ptr(&self.inode)) {
            return f.inode().metadata();
        }
        self.inode.dir_metadata(&self.dir)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }

    fn readdir(&self, _f: &OpenFile, pos: u64, sink: &mut DirSink<'_>) -> Result<u64> {
        let known = if pos == FIRST_ENTRY { None } else { self.listing.lock().clone() };
        let listing = match known {
            Some(l) => l,
            None => {
                let fresh = Arc::new(self.inode.entries(&self.dir)?);
                *self.listing.lock() = Some(fresh.clone());
                fresh
            }
        };
        let mut pos = pos;
        let start = usize::try_from(pos - FIRST_ENTRY).unwrap_or(usize::MAX);
        for e in listing.iter().skip(start) {
            let file_type = FileType::from_mode(u32::from(e.dtype) << 12);
            let entry = DirEntry { name: &e.name, ino: e.ino.max(1), file_type, next: pos + 1 };
            if let ControlFlow::Break(()) = sink(entry) {
                break;
            }
            pos += 1;
        }
        Ok(pos)
    }

    fn sync(&self, _f: &OpenFile, _kind: SyncKind) -> Result<()> {
        Ok(())
    }
}
