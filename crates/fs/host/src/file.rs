//! Open regular files of the host.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use moat_abi::fs::S_IALLUGO;
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_mm::mappable::{FileIdentity, MapFile, MapName, Mappable, Origin, Sharing};
use moat_platform::MapSource;
use moat_sync::{block_in_place, host_call};
use moat_vfs::caller::Caller;
use moat_vfs::file::{File, Seekable, SparseSeek, SyncKind};
use moat_vfs::inode::{Inode, Metadata, SetAttr};
use moat_vfs::locks::OutsideLocks;
use moat_vfs::persist::{Compare, MappedFile, SaveFiles};
use moat_vfs::{OpenFile, ops};
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::ReadWriteFlags;

use crate::inode::{HostInode, MappedStores, Opening};
use crate::ioctl;
use crate::tree::HostTree;

/// An open regular file. Its position is the description's, never the host descriptor's, which opens share.
pub struct HostFile<T: HostTree> {
    inode: Opening<T>,
    fd: Arc<OwnedFd>,
    /// Asked for at the first transfer with O_DIRECT.
    direct_block: OnceLock<u64>,
    /// Asked for at the first append: the host may take the offset instead.
    appends_at_offset: OnceLock<bool>,
    memory: HostCache,
}

/// Whether a file's file system says which of its bytes the host has in memory: overlayfs does not.
#[derive(Debug, Default)]
pub(crate) struct HostCache {
    is_silent: AtomicBool,
}

impl<T: HostTree> HostFile<T> {
    pub(crate) fn new(inode: Arc<HostInode<T>>, fd: Arc<OwnedFd>) -> HostFile<T> {
        HostFile {
            inode: Opening::new(inode),
            fd,
            direct_block: OnceLock::new(),
            appends_at_offset: OnceLock::new(),
            memory: HostCache::default(),
        }
    }

    /// The file was written by `f`: its attributes are forgotten. Set-id bits go where Linux takes them, and stay where it does not,
    /// though the host takes them from a writer without capabilities, as a sandbox with a gofer is.
    fn written(&self, f: &OpenFile, before: Option<u32>) {
        self.inode.changed();
        let Some(before) = before else { return };
        // What is written is written: a failure here has no way to be told.
        if let Ok(after) = Inode::metadata(&*self.inode) {
            let wanted = ops::mode_after_write(f.creds(), &Metadata { mode: before, ..after });
            let wanted = wanted.unwrap_or(before) & S_IALLUGO;
            if after.mode & S_IALLUGO != wanted {
                let _ = self.inode.set_attr(&SetAttr { mode: Some(wanted), ..SetAttr::default() });
            }
        }
    }

    /// The host's descriptor, for mappings.
    #[must_use]
    pub fn host_fd(&self) -> &Arc<OwnedFd> {
        &self.fd
    }
}

/// Reads what the host has in memory without sleeping, and only what it has not while another worker takes over. Where nobody can tell
/// it is a call that may sleep.
pub(crate) fn read_at(fd: &OwnedFd, memory: &HostCache, buf: &mut [u8], pos: u64) -> Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        let at = pos.checked_add(done as u64).ok_or(Errno::EINVAL)?;
        let rest = &mut buf[done..];
        if memory.is_silent.load(Ordering::Relaxed) {
            return and_so_far(done, host_call(|| rustix::io::pread(fd, rest, at)));
        }
        match rustix::io::preadv2(fd, &mut [std::io::IoSliceMut::new(rest)], at, ReadWriteFlags::NOWAIT) {
            Ok(0) => return Ok(done),
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::OPNOTSUPP) => memory.is_silent.store(true, Ordering::Relaxed),
            Err(rustix::io::Errno::AGAIN) => {
                return and_so_far(done, block_in_place(|| rustix::io::pread(fd, &mut buf[done..], at)));
            }
            failed => return and_so_far(done, failed),
        }
    }
    Ok(done)
}

/// What a read gives whose last part has gone like this.
fn and_so_far(done: usize, last: rustix::io::Result<usize>) -> Result<usize> {
    match last {
        Ok(n) => Ok(done.saturating_add(n)),
        Err(_) if done > 0 => Ok(done),
        Err(e) => Err(e.into()),
    }
}

impl<T: HostTree> File for HostFile<T> {
    fn read(&self, _f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let n = read_at(&self.fd, &self.memory, buf, pos);
        self.inode.was_read();
        n
    }

    fn write(&self, f: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        // Asked before, as the host may take the bits.
        let before = self.inode.set_id_mode();
        let n = host_call(|| rustix::io::pwrite(&self.fd, buf, pos)).map_err(Errno::from);
        self.written(f, before);
        n
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        let before = self.inode.set_id_mode();
        let iov = [std::io::IoSlice::new(buf)];
        let append = |offset| {
            host_call(|| rustix::io::pwritev2(&self.fd, &iov, offset, ReadWriteFlags::APPEND)).map_err(Errno::from)
        };
        let n = if *self.appends_at_offset.get_or_init(|| crate::direct::may_not_append(&*self.fd)) {
            // Where the end is now, if nobody else appends: nobody of this sandbox does.
            let _alone = self.inode.appending();
            append(host_call(|| crate::direct::metadata_of(&*self.fd))?.size)
        } else {
            append(0)
        };
        self.written(f, before);
        // The host does not say where it wrote.
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
        host_call(|| rustix::fs::seek(&self.fd, from)).map_err(Errno::from)
    }

    fn metadata(&self, f: &OpenFile) -> Result<Metadata> {
        // Opened through a union, whose inode has the number and device that the guest knows.
        if !std::ptr::addr_eq(Arc::as_ptr(f.inode()), &raw const *self.inode) {
            return f.inode().metadata();
        }
        match self.inode.known_attributes() {
            Some(known) => Ok(known),
            None => self.inode.ask_by(|| host_call(|| crate::direct::metadata_of(&*self.fd))),
        }
    }

    fn mappable(self: Arc<Self>, f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        let meta = self.metadata(f)?;
        let name =
            MapName { identity: FileIdentity { dev: meta.dev.to_raw(), ino: meta.ino }, path: f.path().text(None) };
        // As mmap(2) has it: a shared mapping may be made writable, now or by mprotect(2), only of a file open for
        // writing.
        let may_store = f.flags().access_mode().can_write();
        Ok(Arc::new(HostMapping {
            inode: self.inode.inode().clone(),
            fd: self.fd.clone(),
            name,
            origin: MappedFile::of(f),
            may_store,
            stores: OnceLock::new(),
        }))
    }

    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        // Others on the host can change it while the container is only an image.
        saver.by_path(f, Compare::Contents)
    }

    fn truncate(&self, f: &OpenFile, len: u64) -> Result<()> {
        let before = self.inode.set_id_mode();
        let done = host_call(|| rustix::fs::ftruncate(&self.fd, len)).map_err(Errno::from);
        self.written(f, before);
        done
    }

    fn direct_block(&self, _f: &OpenFile) -> Option<u64> {
        Some(*self.direct_block.get_or_init(|| crate::direct::direct_block(&*self.fd)))
    }

    fn outside_locks(&self) -> Option<&dyn OutsideLocks> {
        if self.inode.is_shared() { Some(&*self.inode) } else { None }
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        ioctl::file(&self.fd, caller, cmd, arg)
    }

    fn fallocate(&self, f: &OpenFile, mode: u32, offset: u64, len: u64) -> Result<()> {
        let before = self.inode.set_id_mode();
        let mode = FallocateFlags::from_bits(mode).ok_or(Errno::EOPNOTSUPP)?;
        let done = block_in_place(|| rustix::fs::fallocate(&self.fd, mode, offset, len)).map_err(Errno::from);
        self.written(f, before);
        done
    }

    fn sync(&self, _f: &OpenFile, kind: SyncKind) -> Result<()> {
        block_in_place(|| match kind {
            SyncKind::Data => rustix::fs::fdatasync(&self.fd),
            SyncKind::All => rustix::fs::fsync(&self.fd),
        })
        .map_err(Errno::from)
    }
}

/// A host file as mappings see it. It keeps the descriptor, not the open file description.
struct HostMapping<T: HostTree> {
    inode: Arc<HostInode<T>>,
    fd: Arc<OwnedFd>,
    name: MapName,
    origin: MappedFile,
    /// Made of an opening for writing.
    may_store: bool,
    /// Set as long as the guest can change the file through it.
    stores: OnceLock<MappedStores<T>>,
}

impl<T: HostTree> Mappable for HostMapping<T> {
    fn map_source(&self, what: &MapFile) -> Result<MapSource> {
        if self.may_store && what.sharing == Sharing::Shared {
            // From the first such mapping on attributes are asked each time.
            self.stores.get_or_init(|| MappedStores::new(self.inode.clone()));
        }
        Ok(MapSource::File { fd: self.fd.clone(), offset: what.offset, shared: what.sharing == Sharing::Shared })
    }

    fn mapped(&self, _what: &MapFile) -> Result<()> {
        // mmap(2) of the host is an access (`file_accessed`), whatever is loaded later.
        self.inode.was_read();
        Ok(())
    }

    fn identity(&self) -> FileIdentity {
        self.name.identity
    }

    fn describe(&self) -> MapName {
        self.name.clone()
    }

    fn origin(&self) -> Origin<'_> {
        Origin::File(&self.origin)
    }

    fn sync(&self, _offset: u64, _len: u64) -> Result<()> {
        block_in_place(|| rustix::fs::fdatasync(&self.fd)).map_err(Errno::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_that_does_not_say_what_is_in_memory_is_read_all_the_same() {
        let fd = rustix::fs::memfd_create("text", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        rustix::io::write(&fd, b"0123456789").unwrap();
        for is_silent in [false, true] {
            let memory = HostCache { is_silent: AtomicBool::new(is_silent) };
            let mut buf = [0; 8];
            assert_eq!(read_at(&fd, &memory, &mut buf, 4), Ok(6));
            assert_eq!(&buf[..6], b"456789");
            assert_eq!(read_at(&fd, &memory, &mut buf, 10), Ok(0));
            // What has not been said once is not asked for again.
            assert!(memory.is_silent.load(Ordering::Relaxed) || !is_silent);
        }
    }
}
