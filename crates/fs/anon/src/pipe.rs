//! Pipes: pipe(7).
//!
//! # Invariants
//! - Counts of ends change under the state's lock and only with an [`End`]; each end gives its count back when dropped.
//! - The queue is woken after the lock is released.

mod persist;

use std::collections::VecDeque;
use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::{AccessMode, F_GETPIPE_SZ, F_SETPIPE_SZ, FileType, OpenFlags, PIPE_BUF, S_IALLUGO};
use moat_abi::time::Timespec;
use moat_abi::tty::FIONREAD;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::anon::Pseudo;
use moat_vfs::clock::now;
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Caller, Credentials, File, Inode, Metadata, OpenContext, OpenFile, SetAttr, SetTime, Vfs};

/// Bytes that a new pipe holds.
const DEFAULT_SIZE: usize = 64 * 1024;
/// The most that F_SETPIPE_SZ gives without privilege (`/proc/sys/fs/pipe-max-size`), and with it.
const MAX_SIZE: usize = 1024 * 1024;
const MAX_SIZE_PRIVILEGED: usize = 1 << 31;
const PAGE: usize = 4096;

struct PipeState {
    data: VecDeque<u8>,
    /// Lengths of the packets in `data` that were written with O_DIRECT; what precedes them is plain bytes.
    packets: VecDeque<usize>,
    size: usize,
    readers: u32,
    writers: u32,
    /// Readers and writers there ever were: a FIFO's open waits for one of these to move.
    readers_ever: u64,
    writers_ever: u64,
}

/// Whether an opening needs somebody at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Partner {
    /// It waits for them: a FIFO.
    Awaited,
    /// A pipe without a name was made with both ends.
    Known,
}

struct Attr {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Timespec,
    mtime: Timespec,
    ctime: Timespec,
}

/// A pipe: a buffer with readers and writers.
pub struct Pipe {
    ino: u64,
    state: Mutex<PipeState>,
    attr: Mutex<Attr>,
    queue: WaitQueue,
}

impl Pipe {
    /// An empty pipe without ends.
    #[must_use]
    pub(crate) fn new(creds: &Credentials, ino: u64) -> Arc<Pipe> {
        let t = now();
        Arc::new(Pipe {
            ino,
            state: Mutex::new(
                LockClass::Stream,
                PipeState {
                    data: VecDeque::new(),
                    packets: VecDeque::new(),
                    size: DEFAULT_SIZE,
                    readers: 0,
                    writers: 0,
                    readers_ever: 0,
                    writers_ever: 0,
                },
            ),
            attr: Mutex::new(
                LockClass::Inode,
                Attr { mode: 0o600, uid: creds.fsuid, gid: creds.fsgid, atime: t, mtime: t, ctime: t },
            ),
            queue: WaitQueue::new(),
        })
    }

    /// Adds an end; gives it with what it saw of the other side, for which it waits if nobody is there.
    pub(crate) fn open_end(self: &Arc<Self>, mode: AccessMode, partner: Partner) -> Arc<End> {
        let (reads, writes) = (mode.can_read(), mode.can_write());
        let (readers_seen, writers_seen) = {
            let mut s = self.state.lock();
            // Who finds nobody waits: the number tells whether somebody has come since.
            let seen = |there: u32, ever: u64| (there == 0 && partner == Partner::Awaited).then_some(ever);
            let seen = (seen(s.readers, s.readers_ever), seen(s.writers, s.writers_ever));
            s.readers += u32::from(reads);
            s.writers += u32::from(writes);
            s.readers_ever += u64::from(reads);
            s.writers_ever += u64::from(writes);
            seen
        };
        // Openings of the other side may go on.
        self.queue.wake_all();
        Arc::new(End { pipe: self.clone(), reads, writes, readers_seen, writers_seen })
    }

    /// Whether somebody reads.
    pub(crate) fn has_readers(&self) -> bool {
        self.state.lock().readers > 0
    }

    fn set_size(&self, caller: &dyn Caller, bytes: u64) -> Result<u64> {
        let bytes = usize::try_from(bytes).map_err(|_| Errno::EINVAL)?;
        if bytes > MAX_SIZE_PRIVILEGED {
            return Err(Errno::EINVAL);
        }
        // Whole pages, a power of two of them (`round_pipe_size`).
        let size = bytes.max(PAGE).next_power_of_two();
        if size > MAX_SIZE && !caller.creds().has_root_cap(Cap::SYS_RESOURCE) {
            return Err(Errno::EPERM);
        }
        {
            let mut s = self.state.lock();
            if s.data.len() > size {
                return Err(Errno::EBUSY);
            }
            s.size = size;
            // What a larger size took is given back.
            s.data.shrink_to(size);
        }
        self.queue.wake(PollEvents::WRITE_READY);
        Ok(size as u64)
    }
}

impl PipeState {
    fn writable(&self) -> bool {
        // As long as a page is free: then a write of PIPE_BUF succeeds.
        self.size - self.data.len().min(self.size) >= PIPE_BUF.min(self.size)
    }

    fn take(&mut self, buf: &mut [u8]) -> usize {
        let (limit, packet) = match self.packets.front() {
            // Packets are only at the front once the plain bytes before them are gone: a mix is read as bytes.
            Some(&len) if self.packets.iter().sum::<usize>() == self.data.len() => (len, true),
            _ => (self.data.len(), false),
        };
        let n = buf.len().min(limit);
        let (a, b) = self.data.as_slices();
        let first = a.len().min(n);
        buf[..first].copy_from_slice(&a[..first]);
        buf[first..n].copy_from_slice(&b[..n - first]);
        // The rest of a packet is lost, as pipe(2) says of O_DIRECT.
        self.data.drain(..if packet { limit } else { n });
        if packet {
            self.packets.pop_front();
        } else if !self.packets.is_empty() {
            // Read as bytes, the packets have lost their borders.
            self.packets.clear();
        }
        n
    }
}

/// One opening of a pipe.
pub struct End {
    pipe: Arc<Pipe>,
    reads: bool,
    writes: bool,
    /// The readers there had ever been when this end came to wait for one.
    readers_seen: Option<u64>,
    /// As above, of writers.
    writers_seen: Option<u64>,
}

impl End {
    /// The pipe.
    #[must_use]
    pub fn pipe(&self) -> &Arc<Pipe> {
        &self.pipe
    }

    /// Copies up to `buf.len()` bytes without taking them (tee(2)); they begin at `skip`.
    ///
    /// # Errors
    /// EAGAIN if there is nothing and a writer.
    pub fn peek(&self, buf: &mut [u8], skip: usize) -> Result<usize> {
        let s = self.pipe.state.lock();
        let have = s.data.len().saturating_sub(skip);
        if have == 0 {
            return if s.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
        }
        let n = buf.len().min(have);
        for (to, from) in buf[..n].iter_mut().zip(s.data.iter().skip(skip)) {
            *to = *from;
        }
        Ok(n)
    }

    /// Bytes that can be written at once.
    #[must_use]
    pub fn room(&self) -> usize {
        let s = self.pipe.state.lock();
        s.size.saturating_sub(s.data.len())
    }

    /// Bytes that wait to be read.
    #[must_use]
    pub fn available(&self) -> usize {
        self.pipe.state.lock().data.len()
    }
}

impl Drop for End {
    fn drop(&mut self) {
        {
            let mut s = self.pipe.state.lock();
            s.readers -= u32::from(self.reads);
            s.writers -= u32::from(self.writes);
            // With all ends gone a FIFO starts afresh.
            if s.readers == 0 && s.writers == 0 {
                s.data = VecDeque::new();
                s.packets.clear();
            }
        }
        self.pipe.queue.wake_all();
    }
}

impl File for End {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        self.save_end(f, saver)
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = {
            let mut s = self.pipe.state.lock();
            if s.data.is_empty() {
                return if s.writers == 0 { Ok(0) } else { Err(Errno::EAGAIN) };
            }
            s.take(buf)
        };
        self.pipe.queue.wake(PollEvents::WRITE_READY);
        Ok(n)
    }

    fn write(&self, f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        let n = {
            let mut s = self.pipe.state.lock();
            if s.readers == 0 {
                return Err(Errno::EPIPE);
            }
            let room = s.size.saturating_sub(s.data.len());
            // Up to PIPE_BUF bytes go in one piece; more wait for as much room, as on Linux for a free page.
            if room < buf.len().min(PIPE_BUF) {
                return Err(Errno::EAGAIN);
            }
            let n = buf.len().min(room);
            if f.flags().contains(OpenFlags::DIRECT) && n > 0 {
                // No packet is longer than PIPE_BUF (pipe(2)).
                let n = n.min(PIPE_BUF);
                s.packets.push_back(n);
                s.data.extend(&buf[..n]);
                n
            } else {
                s.data.extend(&buf[..n]);
                n
            }
        };
        self.pipe.queue.wake(PollEvents::READ_READY);
        Ok(n)
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        let s = self.pipe.state.lock();
        let mut events = PollEvents::empty();
        if self.reads {
            if !s.data.is_empty() {
                events |= PollEvents::READ_READY;
            }
            // A reader that came first is told of a hang-up only after a writer has been there.
            if s.writers == 0 && self.writers_seen != Some(s.writers_ever) {
                events |= PollEvents::HUP;
            }
        }
        if self.writes {
            if s.writable() {
                events |= PollEvents::WRITE_READY;
            }
            if s.readers == 0 {
                events |= PollEvents::ERR;
            }
        }
        events
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pipe.queue)
    }

    fn finish_open(&self, _f: &OpenFile) -> Result<()> {
        let s = self.pipe.state.lock();
        // Opened for both it never waits: it is its own partner (fifo(7)).
        let reader_waits = self.reads && !self.writes && s.writers == 0 && self.writers_seen == Some(s.writers_ever);
        let writer_waits = self.writes && !self.reads && s.readers == 0 && self.readers_seen == Some(s.readers_ever);
        if reader_waits || writer_waits { Err(Errno::EAGAIN) } else { Ok(()) }
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let n = i32::try_from(self.available()).unwrap_or(i32::MAX);
        caller.write_user(arg, &n.to_ne_bytes())?;
        Ok(0)
    }

    fn fcntl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            F_GETPIPE_SZ => Ok(self.pipe.state.lock().size as u64),
            // The argument is an `unsigned int`.
            F_SETPIPE_SZ => self.pipe.set_size(caller, arg & 0xffff_ffff),
            _ => Err(Errno::EINVAL),
        }
    }
}

impl Inode for Pipe {
    fn file_type(&self) -> FileType {
        FileType::Fifo
    }

    fn metadata(&self) -> Result<Metadata> {
        let a = self.attr.lock();
        Ok(Metadata {
            dev: Pseudo::Pipe.dev(),
            ino: self.ino,
            mode: FileType::Fifo.mode_bits() | a.mode,
            nlink: 1,
            uid: a.uid,
            gid: a.gid,
            blksize: 4096,
            atime: a.atime,
            mtime: a.mtime,
            ctime: a.ctime,
            ..Metadata::default()
        })
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        if change.size.is_some() {
            return Err(Errno::EINVAL);
        }
        let t = now();
        let resolve = |s: SetTime| match s {
            SetTime::Now => t,
            SetTime::At(at) => at,
        };
        let mut a = self.attr.lock();
        a.mode = change.mode.map_or(a.mode, |m| m & S_IALLUGO);
        a.uid = change.uid.unwrap_or(a.uid);
        a.gid = change.gid.unwrap_or(a.gid);
        a.atime = change.atime.map_or(a.atime, resolve);
        a.mtime = change.mtime.map_or(a.mtime, resolve);
        a.ctime = t;
        Ok(())
    }

    /// Opens another end, through /proc/PID/fd. It waits for nobody: the other side may be gone for good.
    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        crate::fifo::open_pipe(&self, ctx, Partner::Known)
    }
}

/// Makes a pipe; gives its reading and its writing end. `flags` may hold NONBLOCK and DIRECT.
#[must_use]
pub fn new_pipe(vfs: &Vfs, flags: OpenFlags, creds: &Arc<Credentials>) -> (Arc<OpenFile>, Arc<OpenFile>) {
    let pipe = Pipe::new(creds, vfs.ids.inodes.next());
    let name = format!("pipe:[{}]", pipe.ino);
    let path = vfs.pseudo_path(Pseudo::Pipe, pipe.clone(), name.as_bytes());
    let reader = OpenFile::new(pipe.open_end(AccessMode::ReadOnly, Partner::Known), path.clone(), flags, creds.clone());
    let writer = OpenFile::new(
        pipe.open_end(AccessMode::WriteOnly, Partner::Known),
        path,
        flags | OpenFlags::WRONLY,
        creds.clone(),
    );
    (reader, writer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vfs() -> Vfs {
        moat_vfs::vfs::fake::vfs(moat_vfs::Registry::default())
    }

    fn root() -> Arc<Credentials> {
        Arc::new(Credentials::root(moat_identity::UserNamespace::root()))
    }

    fn pipe() -> (Arc<OpenFile>, Arc<OpenFile>) {
        new_pipe(&vfs(), OpenFlags::empty(), &root())
    }

    #[test]
    fn small_writes_are_whole_and_large_ones_fill() {
        let (r, w) = pipe();
        let big = vec![1; DEFAULT_SIZE - 10];
        assert_eq!(w.write(&big), Ok(DEFAULT_SIZE - 10));
        assert_eq!(w.poll(), PollEvents::empty());
        assert_eq!(w.write(&[2; 11]), Err(Errno::EAGAIN));
        assert_eq!(w.write(&[2; PIPE_BUF + 1]), Err(Errno::EAGAIN));
        assert_eq!(w.write(&[2; 10]), Ok(10));
        let mut buf = vec![0; 2 * DEFAULT_SIZE];
        assert_eq!(r.read(&mut buf), Ok(DEFAULT_SIZE));
        assert_eq!(&buf[DEFAULT_SIZE - 11..DEFAULT_SIZE], [1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
        assert_eq!(r.read(&mut buf), Err(Errno::EAGAIN));
    }

    #[test]
    fn ends_that_go_are_seen() {
        let (r, w) = pipe();
        let mut buf = [0; 4];
        assert_eq!(w.write(b"xy"), Ok(2));
        drop(w);
        assert_eq!(r.poll(), PollEvents::READ_READY | PollEvents::HUP);
        assert_eq!(r.read(&mut buf), Ok(2));
        assert_eq!(r.read(&mut buf), Ok(0));
        let (r, w) = pipe();
        drop(r);
        assert!(w.poll().contains(PollEvents::ERR));
        assert_eq!(w.write(b"x"), Err(Errno::EPIPE));
    }

    #[test]
    fn packets_keep_their_borders() {
        let (r, w) = new_pipe(&vfs(), OpenFlags::DIRECT, &root());
        let mut buf = [0; 16];
        assert_eq!((w.write(b"abc"), w.write(b"defg")), (Ok(3), Ok(4)));
        assert_eq!(r.read(&mut buf[..2]), Ok(2), "the rest of a packet is lost");
        assert_eq!(r.read(&mut buf), Ok(4));
    }
}
