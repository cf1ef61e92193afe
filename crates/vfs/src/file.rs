//! [`File`]: what an open file does.

use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use moat_abi::fs::FileType;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::{NetNamespace, Pid};
use moat_image::pages::PagesWriter;
use moat_image::state::{
    ContainerIndex, HostTerminalState, MqueueState, NetlinkSocketState, OpenFileKind, OpenFileState, PacketSocketState,
    PathState, PipeState, PtyState, RawSocketState, TcpEndState, TcpSocketState, UdpSocketState, UnixEndpointState,
    UnixSocketState,
};
use moat_image::{Interner, Ref, Refusal};
use moat_mm::Mappable;
use moat_sync::WaitQueue;
use moat_sync::wait::{Notify, Registration};

use crate::caller::Caller;
use crate::inode::{Metadata, SetAttr};
use crate::locks::OutsideLocks;
use crate::open_file::OpenFile;
use crate::path::Path;
use crate::saved_namespaces::SavedNamespaces;

/// What lseek(2), pread(2) and pwrite(2) do to a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seekable {
    /// A stream: ESPIPE, and positions are ignored (pipes, sockets, terminals).
    No,
    /// lseek succeeds and changes nothing, pread is ESPIPE (eventfd, epoll: `noop_llseek`).
    Noop,
    /// lseek gives 0, pread works (/dev/null: `null_lseek`).
    Zero,
    /// A file with a size.
    Yes,
    /// Positions but no known size: SEEK_END is EINVAL (generated files of /proc: `seq_lseek`).
    NoEnd,
}

/// Which of lseek(2)'s sparse-file searches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SparseSeek {
    Data,
    Hole,
}

/// How much fsync must write out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncKind {
    /// fdatasync(2).
    Data,
    /// fsync(2).
    All,
}

/// How whoever waits for the end of an opening learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The file's queue is woken.
    Told,
    /// Nobody tells; it has to be asked for again and again.
    Asked,
}

/// What a task is about to do with a file: the question of [`File::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobControlAccess {
    /// To read.
    Read,
    /// To write.
    Write,
    /// To make this request.
    Ioctl(u32),
}

/// The answer of [`File::admit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Go on.
    Granted,
    /// A signal has been sent to the caller, which is to deal with it first: ERESTARTSYS.
    Signalled,
}

/// Whether a read of a stream goes on: the answer of [`File::read_on`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadOn {
    /// It ends with what it has.
    Enough,
    /// It waits for more.
    Wait,
    /// It waits for more, but no longer than this from the last byte (or its start); then it ends with what it has.
    WaitFor(Duration),
}

/// A directory entry on its way to getdents64(2).
#[derive(Clone, Copy, Debug)]
pub struct DirEntry<'a> {
    /// The name.
    pub name: &'a [u8],
    /// The inode number, never 0.
    pub ino: u64,
    /// The type, where it is known at no cost (else DT_UNKNOWN is shown).
    pub file_type: Option<FileType>,
    /// The position that follows this entry (`d_off`), greater than that of all before.
    pub next: u64,
}

/// The first position of [`File::readdir`]: 0 and 1 are `.` and `..`, which the vfs adds.
pub const FIRST_ENTRY: u64 = 2;

/// Takes one directory entry; `Break` means that it did not fit and is to come again.
pub type DirSink<'a> = dyn FnMut(DirEntry<'_>) -> ControlFlow<()> + 'a;

/// Whether a file that is opened again has to have the contents that it had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Yes: it is on the host, where others could have changed it.
    Contents,
    /// It comes from the kernel itself, or with the image.
    Type,
}

/// What files, inodes and file systems say of themselves for an image, they say to this: a [`Saver`](crate::persist::Saver).
pub trait SaveFiles {
    /// An open file description.
    ///
    /// # Errors
    /// What it is, if it can't be saved.
    fn open_file(&mut self, f: &Arc<OpenFile>) -> std::result::Result<Ref<OpenFileState>, Refusal>;

    /// A file that is opened by its path again.
    ///
    /// # Errors
    /// A name that is gone; a place outside of the container's mounts.
    fn by_path(&mut self, f: &OpenFile, compare: Compare) -> std::result::Result<OpenFileKind, Refusal>;

    /// A file in memory, which goes with the image: by its path, or, if its name is gone, as it is.
    ///
    /// # Errors
    /// A place outside of the container's mounts; what the file can't be saved for.
    fn in_memory(&mut self, f: &OpenFile) -> std::result::Result<OpenFileKind, Refusal>;

    /// A place in the tree of mounts.
    ///
    /// # Errors
    /// A name that is gone; a mount that the container was not made with.
    fn path(&mut self, path: &Path) -> std::result::Result<PathState, Refusal>;

    /// The container whose process something was met at.
    fn container(&self) -> ContainerIndex;

    /// Where contents go; none in a survey.
    fn pages(&mut self) -> Option<&mut PagesWriter>;

    /// Pipes, each by the address of what its ends share.
    fn pipes(&mut self) -> &mut Interner<PipeState>;

    /// UNIX sockets, each by its address.
    fn unix_sockets(&mut self) -> &mut Interner<UnixSocketState>;

    /// What peers know of them, each by its address.
    fn unix_endpoints(&mut self) -> &mut Interner<UnixEndpointState>;

    /// TCP sockets, each by its address.
    fn tcp_sockets(&mut self) -> &mut Interner<TcpSocketState>;

    /// What peers know of them, each by its address.
    fn tcp_ends(&mut self) -> &mut Interner<TcpEndState>;

    /// UDP sockets, each by its address.
    fn udp_sockets(&mut self) -> &mut Interner<UdpSocketState>;

    /// Netlink sockets, each by its address.
    fn netlink_sockets(&mut self) -> &mut Interner<NetlinkSocketState>;

    /// Raw and ping sockets, each by its address.
    fn raw_sockets(&mut self) -> &mut Interner<RawSocketState>;

    /// Packet sockets, each by its address.
    fn packet_sockets(&mut self) -> &mut Interner<PacketSocketState>;

    /// POSIX message queues, each by its address.
    fn mqueues(&mut self) -> &mut Interner<MqueueState>;

    /// Pseudo-terminals, each by its address.
    fn ptys(&mut self) -> &mut Interner<PtyState>;

    /// Terminals of the host, each by its address.
    fn host_terminals(&mut self) -> &mut Interner<HostTerminalState>;

    /// Whether a network namespace is the container's.
    ///
    /// # Errors
    /// One of the guest's own.
    fn network(&self, net: &NetNamespace) -> std::result::Result<(), Refusal>;

    /// Namespaces that processes have made.
    fn namespaces(&mut self) -> &mut SavedNamespaces;

    /// A process that something remembers, whether it lives or not: the number that it is found by, that in the container's namespace.
    fn process(&mut self, pid: &Arc<Pid>) -> i32;

    /// Has `save` called when the objects that are being saved have been: for those that lead to others of their kind as deep as the
    /// guest likes. Whatever is known by its address is kept alive by it.
    fn later(&mut self, save: SaveLater);
}

/// The rest of an object that has a name already.
pub type SaveLater = Box<dyn FnOnce(&mut dyn SaveFiles) -> std::result::Result<(), Refusal>>;

/// What an open file description does. An inode may be its own `File`; a driver may make one for each opening.
///
/// Everything is synchronous: what would wait gives EAGAIN (whatever O_NONBLOCK says) after which
/// [`File::wait_queue`] tells of changes. Buffers are the sentry's, so no guest memory is touched. The access mode
/// has been checked by [`OpenFile`]; a position lock of the description may be held, but nothing of the inode's.
pub trait File: Send + Sync + Any {
    /// Reads at `pos` (which streams ignore); 0 is the end.
    ///
    /// # Errors
    /// EAGAIN; EINVAL by default; EISDIR for directories.
    fn read(&self, _f: &OpenFile, _buf: &mut [u8], _pos: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Whether `caller` may use the file at this moment: job control of terminals. Asked once a call, before anything else.
    ///
    /// # Errors
    /// EIO, ENOTTY.
    fn admit(&self, _f: &OpenFile, _caller: &dyn Caller, _what: JobControlAccess) -> Result<Admission> {
        Ok(Admission::Granted)
    }

    /// Whether a read that has `done` bytes of a stream goes on: VMIN and VTIME of terminals. The default takes what comes.
    fn read_on(&self, _f: &OpenFile, done: usize) -> ReadOn {
        if done > 0 { ReadOn::Enough } else { ReadOn::Wait }
    }

    /// Writes at `pos` (which streams ignore).
    ///
    /// # Errors
    /// EAGAIN, EPIPE (the caller sends SIGPIPE), ENOSPC, EFBIG; EINVAL by default.
    fn write(&self, _f: &OpenFile, _buf: &[u8], _pos: u64) -> Result<usize> {
        Err(Errno::EINVAL)
    }

    /// Whether a write depends on nothing but the number of bytes: then they are not fetched, and may even be missing (null(4)).
    fn ignores_bytes(&self) -> bool {
        false
    }

    /// Writes at the end (O_APPEND); gives the bytes written and where the end is then.
    ///
    /// # Errors
    /// As [`File::write`].
    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        let end = self.metadata(f)?.size;
        let n = self.write(f, buf, end)?;
        Ok((n, end.saturating_add(n as u64)))
    }

    /// What positions mean here.
    fn seekable(&self) -> Seekable {
        Seekable::No
    }

    /// Finds the next data or hole at or after `offset`, for a file with a size. The default knows no holes.
    ///
    /// # Errors
    /// ENXIO past the end.
    fn seek_sparse(&self, f: &OpenFile, offset: u64, what: SparseSeek) -> Result<u64> {
        let size = self.metadata(f)?.size;
        if offset >= size {
            return Err(Errno::ENXIO);
        }
        Ok(if what == SparseSeek::Data { offset } else { size })
    }

    /// Gives the entries from position `pos` (at least [`FIRST_ENTRY`]) on, without `.` and `..`; returns the position reached.
    ///
    /// A position must stay good while entries come and go: every entry that lives through a whole pass is given once.
    ///
    /// # Errors
    /// ENOTDIR by default; ENOENT for a directory that has been removed.
    fn readdir(&self, _f: &OpenFile, _pos: u64, _sink: &mut DirSink<'_>) -> Result<u64> {
        Err(Errno::ENOTDIR)
    }

    /// What is ready. The default is that of a regular file: always readable and writable.
    fn poll(&self, _f: &OpenFile) -> PollEvents {
        PollEvents::READ_READY | PollEvents::WRITE_READY
    }

    /// The queue that is woken when [`File::poll`] may have changed; `None` if it never does.
    fn wait_queue(&self) -> Option<&WaitQueue> {
        None
    }

    /// Has `notify` called when any of `events` may have come true; `None` if readiness never changes.
    ///
    /// For files that are woken from more than one queue; otherwise [`File::wait_queue`] does.
    fn register(&self, events: PollEvents, notify: Arc<dyn Notify>) -> Option<Registration> {
        self.wait_queue().map(|q| q.register(events, notify))
    }

    /// The longest that a call waits for any of `events`, in place of for ever (SO_RCVTIMEO, SO_SNDTIMEO).
    fn timeout(&self, _events: PollEvents) -> Option<Duration> {
        None
    }

    /// Whether the opening is complete: EAGAIN while open(2) must wait for a peer (a FIFO's other end).
    ///
    /// # Errors
    /// EAGAIN; ENXIO.
    fn finish_open(&self, _f: &OpenFile) -> Result<()> {
        Ok(())
    }

    /// How who waits for [`File::finish_open`] learns of it.
    fn completion(&self) -> Completion {
        Completion::Told
    }

    /// ioctl(2), but for FIOCLEX, FIONCLEX, FIONBIO, FIOASYNC, which are everybody's.
    ///
    /// # Errors
    /// ENOTTY by default.
    fn ioctl(&self, _f: &OpenFile, _caller: &dyn Caller, _cmd: u32, _arg: u64) -> Result<u64> {
        Err(Errno::ENOTTY)
    }

    /// The commands of fcntl(2) that only some files have: F_SETPIPE_SZ, F_GETPIPE_SZ, F_ADD_SEALS, F_GET_SEALS.
    ///
    /// # Errors
    /// EBADF (pipe sizes) or EINVAL (seals) by default; EPERM, EBUSY.
    fn fcntl(&self, _f: &OpenFile, _caller: &dyn Caller, cmd: u32, _arg: u64) -> Result<u64> {
        Err(match cmd {
            moat_abi::fs::F_SETPIPE_SZ | moat_abi::fs::F_GETPIPE_SZ => Errno::EBADF,
            _ => Errno::EINVAL,
        })
    }

    /// The attributes for fstat(2); those of the inode unless the file knows better.
    ///
    /// # Errors
    /// As [`crate::Inode::metadata`].
    fn metadata(&self, f: &OpenFile) -> Result<Metadata> {
        f.inode().metadata()
    }

    /// The file as mmap(2) sees it. Callers check the access mode; the same object for the same file lets mappings join.
    ///
    /// # Errors
    /// ENODEV for what can't be mapped.
    fn mappable(self: Arc<Self>, _f: &OpenFile) -> Result<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }

    /// ftruncate(2), also of a file whose name is gone.
    ///
    /// # Errors
    /// EINVAL for what is no regular file; EFBIG, ENOSPC.
    fn truncate(&self, f: &OpenFile, len: u64) -> Result<()> {
        f.inode().set_attr(&SetAttr::size(len))
    }

    /// fallocate(2) with checked mode bits and range; `mode` is `FALLOC_FL_*`.
    ///
    /// # Errors
    /// EOPNOTSUPP by default; ENOSPC, EFBIG, EPERM (seals).
    fn fallocate(&self, _f: &OpenFile, _mode: u32, _offset: u64, _len: u64) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// fsync(2), fdatasync(2).
    ///
    /// # Errors
    /// EINVAL by default; EIO.
    fn sync(&self, _f: &OpenFile, _kind: SyncKind) -> Result<()> {
        Err(Errno::EINVAL)
    }

    /// What positions and lengths have to be multiples of with O_DIRECT, in bytes: 1 if anything goes, `None` if it can't be opened so.
    fn direct_block(&self, _f: &OpenFile) -> Option<u64> {
        None
    }

    /// Where its locks are taken outside of the sandbox as well; `None` where nobody there could see them.
    fn outside_locks(&self) -> Option<&dyn OutsideLocks> {
        None
    }

    /// One of the descriptors is being closed (`flush`): its error is the result of close(2).
    ///
    /// # Errors
    /// EIO.
    fn flush(&self, _f: &OpenFile) -> Result<()> {
        Ok(())
    }

    /// The last reference to the description is gone. Locks of others may be held: do little.
    fn release(&self, _f: &OpenFile) {}

    /// Whether it is a [`SocketFile`](crate::socket::SocketFile), whose reads and writes wait their own way.
    fn is_socket(&self) -> bool {
        false
    }

    /// What it is, as an image has it. Whoever says so is restored from it; everything else is refused before anything is stopped.
    ///
    /// # Errors
    /// By default, the name of what can't be saved.
    fn save(&self, f: &OpenFile, _saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        let name = String::from_utf8_lossy(&f.path().text(None)).into_owned();
        Err(Refusal::new(format!("{name} ({})", std::any::type_name::<Self>())))
    }

    /// Lines for /proc/PID/fdinfo/FD after the common ones.
    fn fdinfo(&self, _f: &OpenFile) -> String {
        String::new()
    }
}

/// `file` as its concrete type.
pub fn downcast<T: File>(file: &Arc<dyn File>) -> Option<&T> {
    let any: &dyn Any = &**file;
    any.downcast_ref()
}

/// A position `offset` bytes from `base`.
///
/// # Errors
/// EOVERFLOW beyond the largest; EINVAL below zero.
pub(crate) fn moved(base: u64, offset: i64) -> Result<u64> {
    // In 128 bits, where no sum of the two can wrap.
    let sum = i128::from(base) + i128::from(offset);
    if sum > i128::from(i64::MAX) {
        return Err(Errno::EOVERFLOW);
    }
    u64::try_from(sum).map_err(|_| Errno::EINVAL)
}
