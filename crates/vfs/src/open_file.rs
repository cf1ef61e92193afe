//! [`OpenFile`]: the open file description, which descriptors share.

mod lease;
mod path_only;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::fs::{AccessMode, FileType, InotifyMask, OpenFlags, SEEK_CUR, SEEK_DATA, SEEK_END, SEEK_HOLE, SEEK_SET};
use moat_abi::{Errno, PollEvents, Result};
use moat_sync::wait::{Notify, Registration};
use moat_sync::{LockClass, Mutex};

use crate::atime::AtimeRule;
use crate::cred::Credentials;
use crate::file::{DirEntry, DirSink, FIRST_ENTRY, File, Seekable, SparseSeek, moved};
use crate::inode::{Inode, Metadata, SetAttr};
use crate::inotify::Through;
use crate::locks::LockOwner;
use crate::mount::MountFlags;
use crate::path::Path;
use crate::text_busy::WriteAccess;

pub use crate::owner::{Owner, OwnerId};

#[derive(Default)]
struct AsyncState {
    owner: Owner,
    /// 0: SIGIO without details.
    signal: u32,
    fd: i32,
    registration: Option<Registration>,
}

/// An open file description: what a descriptor refers to.
pub struct OpenFile {
    id: u64,
    file: Arc<dyn File>,
    path: Path,
    flags: AtomicU32,
    /// Changed under `moving`; read without it, so that /proc can show it whoever reads the file.
    pos: AtomicU64,
    moving: Mutex<()>,
    creds: Arc<Credentials>,
    asynchronous: Mutex<AsyncState>,
    /// Notes to be taken back when the description goes: see `locks` and `epoll`.
    has_locks: AtomicBool,
    watchers: Mutex<Vec<Weak<dyn Watcher>>>,
    _write_access: Option<WriteAccess>,
}

/// Something that is told when a description goes (an epoll that watches it).
pub trait Watcher: Send + Sync {
    /// The description with this id is gone.
    fn closed(&self, id: u64);
}

impl OpenFile {
    /// Makes a description. `flags` are those of open(2); what acts at open only is dropped.
    #[must_use]
    pub fn new(file: Arc<dyn File>, path: Path, flags: OpenFlags, creds: Arc<Credentials>) -> Arc<OpenFile> {
        OpenFile::writing(file, path, flags, creds, None)
    }

    /// As [`OpenFile::new`], holding the right to write to a file that is not executed meanwhile.
    #[must_use]
    pub fn writing(
        file: Arc<dyn File>,
        path: Path,
        flags: OpenFlags,
        creds: Arc<Credentials>,
        write_access: Option<WriteAccess>,
    ) -> Arc<OpenFile> {
        Arc::new(OpenFile {
            id: path.mount.tables().ids.open_files.next(),
            file,
            path,
            flags: AtomicU32::new((flags - OpenFlags::OPEN_ONLY).bits()),
            pos: AtomicU64::new(0),
            moving: Mutex::new(LockClass::FilePosition, ()),
            creds,
            asynchronous: Mutex::new(LockClass::OpenFile, AsyncState::default()),
            has_locks: AtomicBool::new(false),
            watchers: Mutex::new(LockClass::OpenFile, Vec::new()),
            _write_access: write_access,
        })
    }

    /// Names the description; never given twice.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What serves it.
    #[must_use]
    pub fn file(&self) -> &Arc<dyn File> {
        &self.file
    }

    /// What serves it, as its concrete type.
    #[must_use]
    pub fn downcast<T: File>(&self) -> Option<&T> {
        crate::file::downcast(&self.file)
    }

    /// The name it was opened by.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The inode.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.path.inode()
    }

    /// The credentials of the opener.
    #[must_use]
    pub fn creds(&self) -> &Arc<Credentials> {
        &self.creds
    }

    /// The flags, as F_GETFL gives them.
    #[must_use]
    pub fn flags(&self) -> OpenFlags {
        OpenFlags::from_bits_retain(self.flags.load(Ordering::Relaxed))
    }

    /// Whether O_NONBLOCK is set.
    #[must_use]
    pub fn is_nonblocking(&self) -> bool {
        self.flags().contains(OpenFlags::NONBLOCK)
    }

    /// Whether this is an O_PATH description.
    #[must_use]
    pub fn is_path(&self) -> bool {
        self.flags.load(Ordering::Relaxed) & OpenFlags::PATH.bits() != 0
    }

    /// The access mode.
    #[must_use]
    pub fn access_mode(&self) -> AccessMode {
        self.flags().access_mode()
    }

    /// EBADF unless it is open for reading.
    ///
    /// # Errors
    /// EBADF.
    pub fn check_readable(&self) -> Result<()> {
        if self.access_mode().can_read() && !self.is_path() { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// EBADF unless it is open for writing.
    ///
    /// # Errors
    /// EBADF.
    pub fn check_writable(&self) -> Result<()> {
        if self.access_mode().can_write() && !self.is_path() { Ok(()) } else { Err(Errno::EBADF) }
    }

    /// Changes the flags that F_SETFL may change; the caller has checked the permissions for it.
    pub fn set_flags(self: &Arc<Self>, flags: OpenFlags) {
        let mask = OpenFlags::SETFL_MASK;
        let before = self.flags();
        self.flags.store(((before - mask) | (flags & mask)).bits(), Ordering::Relaxed);
        self.update_async();
    }

    // Positions

    /// The position.
    #[must_use]
    pub fn pos(&self) -> u64 {
        self.pos.load(Ordering::Relaxed)
    }

    /// Sets the position without checks: restore, and copies of a position.
    pub fn set_pos(&self, pos: u64) {
        let _moving = self.moving.lock();
        self.pos.store(pos, Ordering::Relaxed);
    }

    /// Reads at the position and moves it. Access has been checked.
    ///
    /// # Errors
    /// Those of [`File::read`].
    pub fn read(&self, buf: &mut [u8]) -> Result<usize> {
        if matches!(self.file.seekable(), Seekable::No | Seekable::Noop) {
            return self.told(self.file.read(self, buf, 0)?, InotifyMask::ACCESS);
        }
        let _moving = self.moving.lock();
        let pos = self.pos();
        let n = self.file.read(self, buf, pos)?;
        self.pos.store(pos.saturating_add(n as u64), Ordering::Relaxed);
        self.told(n, InotifyMask::ACCESS)
    }

    /// Reads at `pos`. Access has been checked.
    ///
    /// # Errors
    /// ESPIPE; those of [`File::read`].
    pub fn read_at(&self, buf: &mut [u8], pos: u64) -> Result<usize> {
        self.check_positional()?;
        self.told(self.file.read(self, buf, pos)?, InotifyMask::ACCESS)
    }

    /// Writes at the position, or at the end with O_APPEND, and moves it. Access and RLIMIT_FSIZE have been checked.
    ///
    /// # Errors
    /// Those of [`File::write`].
    pub fn write(&self, buf: &[u8]) -> Result<usize> {
        if matches!(self.file.seekable(), Seekable::No | Seekable::Noop) {
            return self.told(self.file.write(self, buf, 0)?, InotifyMask::MODIFY);
        }
        let _moving = self.moving.lock();
        if self.flags().contains(OpenFlags::APPEND) {
            let (n, end) = self.file.append(self, buf)?;
            self.pos.store(end, Ordering::Relaxed);
            return self.told(n, InotifyMask::MODIFY);
        }
        let pos = self.pos();
        let n = self.file.write(self, buf, pos)?;
        self.pos.store(pos.saturating_add(n as u64), Ordering::Relaxed);
        self.told(n, InotifyMask::MODIFY)
    }

    /// Writes at `pos`, though with O_APPEND at the end (as Linux does, against POSIX).
    ///
    /// # Errors
    /// ESPIPE; those of [`File::write`].
    pub fn write_at(&self, buf: &[u8], pos: u64) -> Result<usize> {
        self.check_positional()?;
        if self.flags().contains(OpenFlags::APPEND) {
            return self.append(buf);
        }
        self.told(self.file.write(self, buf, pos)?, InotifyMask::MODIFY)
    }

    /// Writes at the end. Access has been checked.
    ///
    /// # Errors
    /// Those of [`File::append`].
    pub fn append(&self, buf: &[u8]) -> Result<usize> {
        let (n, _) = self.file.append(self, buf)?;
        self.told(n, InotifyMask::MODIFY)
    }

    /// Tells those who watch the file what was done to it through this description.
    pub fn notify(&self, what: InotifyMask) {
        if !self.is_path() {
            self.path.mount.tables().watches.file_event(&self.path.dentry, what, Through::Descriptor);
        }
    }

    /// Tells them of a change of attributes, which is one of the file and not of the description: IN_EXCL_UNLINK hides none.
    pub fn notify_attributes(&self, change: &SetAttr) {
        self.path.mount.tables().watches.attributes_event(&self.path.dentry, change);
    }

    /// Gives `n`, the bytes moved, after telling of it.
    fn told(&self, n: usize, what: InotifyMask) -> Result<usize> {
        if n > 0 {
            self.notify(what);
        }
        Ok(n)
    }

    /// ESPIPE for what has no positions: pread(2) and its like.
    ///
    /// # Errors
    /// ESPIPE.
    pub fn check_positional(&self) -> Result<()> {
        match self.file.seekable() {
            Seekable::No | Seekable::Noop => Err(Errno::ESPIPE),
            Seekable::Zero | Seekable::Yes | Seekable::NoEnd => Ok(()),
        }
    }

    /// lseek(2).
    ///
    /// # Errors
    /// ESPIPE, EINVAL, ENXIO, EOVERFLOW as lseek(2).
    pub fn seek(&self, offset: i64, whence: u32) -> Result<u64> {
        if whence > SEEK_HOLE {
            return Err(Errno::EINVAL);
        }
        match self.file.seekable() {
            Seekable::No => return Err(Errno::ESPIPE),
            Seekable::Noop => return Ok(self.pos()),
            Seekable::Zero => return Ok(0),
            Seekable::NoEnd if !matches!(whence, SEEK_SET | SEEK_CUR) => return Err(Errno::EINVAL),
            Seekable::NoEnd | Seekable::Yes => {}
        }
        let _moving = self.moving.lock();
        let new = match whence {
            SEEK_SET => u64::try_from(offset).map_err(|_| Errno::EINVAL)?,
            SEEK_CUR => moved(self.pos(), offset)?,
            SEEK_END => moved(self.file.metadata(self)?.size, offset)?,
            SEEK_DATA | SEEK_HOLE => {
                let what = if whence == SEEK_DATA { SparseSeek::Data } else { SparseSeek::Hole };
                self.file.seek_sparse(self, u64::try_from(offset).map_err(|_| Errno::ENXIO)?, what)?
            }
            _ => return Err(Errno::EINVAL),
        };
        self.pos.store(new, Ordering::Relaxed);
        Ok(new)
    }

    /// Gives the directory entries from the position on, `.` and `..` first, and moves it.
    ///
    /// # Errors
    /// ENOTDIR, ENOENT.
    pub fn readdir(&self, sink: &mut DirSink<'_>) -> Result<()> {
        if self.inode().file_type() != FileType::Directory {
            return Err(Errno::ENOTDIR);
        }
        let _moving = self.moving.lock();
        if self.path.dentry.is_deleted() && self.file.metadata(self)?.nlink == 0 {
            return Err(Errno::ENOENT);
        }
        if self.pos() < FIRST_ENTRY {
            let here = self.file.metadata(self)?.ino;
            // `..` of a mount's root is the root itself, whatever is above the mount point.
            let above = match self.path.dentry.parent() {
                Some(p) if !self.path.is_mount_root() => p.inode().metadata()?.ino,
                _ => here,
            };
            for (at, name, ino) in [(0, &b"."[..], here), (1, &b".."[..], above)] {
                if self.pos() == at {
                    let entry = DirEntry { name, ino, file_type: Some(FileType::Directory), next: at + 1 };
                    if sink(entry).is_break() {
                        return Ok(());
                    }
                    self.pos.store(at + 1, Ordering::Relaxed);
                }
            }
        }
        let reached = self.file.readdir(self, self.pos(), sink)?;
        self.pos.store(reached, Ordering::Relaxed);
        self.notify(InotifyMask::ACCESS);
        Ok(())
    }

    /// The attributes.
    ///
    /// # Errors
    /// Those of [`File::metadata`].
    pub fn metadata(&self) -> Result<Metadata> {
        if self.is_path() { self.inode().metadata() } else { self.file.metadata(self) }
    }

    /// Whether a read of it sets the access time, as its mount has it now.
    #[must_use]
    pub fn atime_rule(&self) -> AtimeRule {
        let mount = self.path.mount.flags();
        if self.flags().contains(OpenFlags::NOATIME) || mount.intersects(MountFlags::NOATIME | MountFlags::RDONLY) {
            AtimeRule::Never
        } else if mount.contains(MountFlags::STRICTATIME) {
            AtimeRule::Always
        } else {
            AtimeRule::Relative
        }
    }

    // Readiness

    /// What is ready.
    #[must_use]
    pub fn poll(&self) -> PollEvents {
        self.file.poll(self)
    }

    /// Has `notify` called on changes.
    #[must_use]
    pub fn register(&self, events: PollEvents, notify: Arc<dyn Notify>) -> Option<Registration> {
        self.file.register(events, notify)
    }

    /// Has `watcher` told when this description goes.
    pub fn watch_close(&self, watcher: Weak<dyn Watcher>) {
        let mut w = self.watchers.lock();
        w.retain(|w| w.strong_count() > 0);
        if !w.iter().any(|w| w.ptr_eq(&watcher)) {
            w.push(watcher);
        }
    }

    // Signals

    /// F_GETOWN, F_GETSIG.
    #[must_use]
    pub fn owner(&self) -> (Owner, u32) {
        let a = self.asynchronous.lock();
        (a.owner.clone(), a.signal)
    }

    /// F_SETOWN: who gets signals; needs O_ASYNC to get any.
    pub fn set_owner(&self, owner: Owner) {
        self.asynchronous.lock().owner = owner;
    }

    /// F_SETSIG: which signal; 0 is SIGIO.
    pub fn set_signal(&self, signal: u32) {
        self.asynchronous.lock().signal = signal;
    }

    /// The descriptor that O_ASYNC was set through, which `si_fd` tells.
    pub fn set_async_fd(&self, fd: i32) {
        self.asynchronous.lock().fd = fd;
    }

    /// The descriptor that O_ASYNC was set through.
    #[must_use]
    pub fn async_fd(&self) -> i32 {
        self.asynchronous.lock().fd
    }

    fn update_async(self: &Arc<Self>) {
        let on = self.flags().contains(OpenFlags::ASYNC);
        if on == self.asynchronous.lock().registration.is_some() {
            return;
        }
        let new = if on {
            let events = PollEvents::READABLE | PollEvents::WRITABLE | PollEvents::PRI;
            self.register(events, Arc::new(SignalOnReady { file: Arc::downgrade(self) }))
        } else {
            None
        };
        let old = std::mem::replace(&mut self.asynchronous.lock().registration, new);
        drop(old);
    }

    /// Gives up the locks that `owner` holds on the file, outside of the sandbox too.
    pub(crate) fn release_locks(&self, owner: LockOwner) {
        if let Some(outside) = self.file.outside_locks() {
            outside.release(owner);
        }
        let Ok(meta) = self.inode().metadata() else { return };
        let tables = self.path.mount.tables();
        tables.locks.release(meta.key(), owner);
        if owner == LockOwner::Description(self.id) && !tables.leases.is_empty() {
            // Most have none.
            let _ = tables.leases.remove(meta.key(), self.id);
        }
    }

    /// Has what the description locks given up when it goes.
    pub fn note_lock(&self) {
        self.has_locks.store(true, Ordering::Relaxed);
    }
}

struct SignalOnReady {
    file: Weak<OpenFile>,
}

impl Notify for SignalOnReady {
    fn notify(&self, events: PollEvents) {
        // The locks of the file may be held here, so the state is only tried for.
        let Some(f) = self.file.upgrade() else { return };
        let Some((owner, signal, fd)) = f.asynchronous.try_lock().map(|a| (a.owner.clone(), a.signal, a.fd)) else {
            return;
        };
        if !matches!(owner.id, OwnerId::None)
            && let Some(signals) = f.path.mount.tables().io_signals.upgrade()
        {
            signals.send_io_signal(&owner, signal, fd, events.bits());
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        let wrote = self.access_mode().can_write();
        self.notify(if wrote { InotifyMask::CLOSE_WRITE } else { InotifyMask::CLOSE_NOWRITE });
        let watchers = std::mem::take(self.watchers.get_mut());
        for w in watchers {
            if let Some(w) = w.upgrade() {
                w.closed(self.id);
            }
        }
        if *self.has_locks.get_mut() {
            self.release_locks(LockOwner::Description(self.id));
        }
        self.asynchronous.get_mut().registration = None;
        if !self.is_path() {
            self.file.clone().release(self);
        }
    }
}
