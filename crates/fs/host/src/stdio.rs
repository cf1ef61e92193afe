//! [`HostStream`]: a descriptor that came from outside, used as it is: stdio of the container.
//!
//! The open file description is shared with processes of the host, so its flags are never changed (O_NONBLOCK would hit
//! them too): each kind has its own way of not blocking. The position of a regular file is kept in step with the
//! host's, so that what runs after the sandbox with the same stdout goes on behind its output.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::reactor::Watch;
use moat_sync::{WaitQueue, block_in_place};
use moat_vfs::OpenFile;
use moat_vfs::Vfs;
use moat_vfs::anon::Pseudo;
use moat_vfs::caller::Caller;
use moat_vfs::cred::Credentials;
use moat_vfs::file::{Admission, File, JobControlAccess, Seekable, SyncKind};
use moat_vfs::inode::{Inode, Metadata};
use moat_vfs::persist::SaveFiles;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::SeekFrom;
use rustix::io::ReadWriteFlags;
use rustix::net::{RecvFlags, SendFlags};

use crate::file::{HostCache, read_at};
use crate::terminal::HostTerminal;

/// How a kind of descriptor is read and written without blocking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// By position.
    Regular,
    /// RWF_NOWAIT, or else as devices.
    Pipe,
    /// MSG_DONTWAIT.
    Socket,
    /// Only by asking poll(2) first: terminals and other devices.
    Device,
}

/// A donated descriptor.
pub struct HostStream {
    fd: Arc<OwnedFd>,
    kind: Kind,
    terminal: Option<Arc<HostTerminal>>,
    watch: Option<Watch>,
}

/// RWF_NOWAIT on a stream takes the offset -1: "the current position".
const CURRENT: u64 = u64::MAX;

/// Bytes that a pipe which is ready takes without blocking; pipe(7).
const PIPE_BUF: usize = 4096;

/// Bytes that a terminal which is ready takes without blocking for long.
const TERMINAL_BUF: usize = 2048;

impl HostStream {
    /// A further description of a terminal.
    pub(crate) fn of_terminal(terminal: &Arc<HostTerminal>) -> HostStream {
        let fd = terminal.fd.clone();
        let watch = Watch::new(fd.clone()).ok();
        HostStream { fd, kind: Kind::Device, terminal: Some(terminal.clone()), watch }
    }

    fn ready(&self, events: PollFlags) -> bool {
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.fd, events)];
        matches!(rustix::event::poll(&mut fds, Some(&zero)), Ok(n) if n > 0)
    }

    fn read_when_ready(&self, buf: &mut [u8]) -> Result<usize> {
        if !self.ready(PollFlags::IN) {
            return Err(Errno::EAGAIN);
        }
        // If somebody on the host is faster, only this thread waits.
        block_in_place(|| rustix::io::read(&self.fd, buf)).map_err(Errno::from)
    }

    fn write_when_ready(&self, buf: &[u8], most: usize) -> Result<usize> {
        if !self.ready(PollFlags::OUT) {
            return Err(Errno::EAGAIN);
        }
        let some = &buf[..buf.len().min(most)];
        block_in_place(|| rustix::io::write(&self.fd, some)).map_err(Errno::from)
    }

    /// The terminal, if it is one.
    #[must_use]
    pub fn terminal(&self) -> Option<&Arc<HostTerminal>> {
        self.terminal.as_ref()
    }

    fn keep_in_step(&self, end: u64) {
        // It was seekable when it was donated; a failure would only misplace what others write later.
        let _ = rustix::fs::seek(&self.fd, SeekFrom::Start(end));
    }
}

impl File for HostStream {
    fn admit(&self, _f: &OpenFile, caller: &dyn Caller, what: JobControlAccess) -> Result<Admission> {
        match &self.terminal {
            Some(t) => t.admit(caller, what),
            None => Ok(Admission::Granted),
        }
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        match self.kind {
            Kind::Regular => {
                let n = read_at(&self.fd, &HostCache::default(), buf, pos)?;
                self.keep_in_step(pos + n as u64);
                Ok(n)
            }
            Kind::Pipe => {
                let mut iov = [std::io::IoSliceMut::new(buf)];
                match rustix::io::preadv2(&self.fd, &mut iov, CURRENT, ReadWriteFlags::NOWAIT) {
                    // A named pipe, which the host opens without that ability.
                    Err(rustix::io::Errno::OPNOTSUPP) => self.read_when_ready(buf),
                    result => result.map_err(Errno::from),
                }
            }
            Kind::Socket => rustix::net::recv(&self.fd, buf, RecvFlags::DONTWAIT).map(|(n, _)| n).map_err(Errno::from),
            Kind::Device => self.read_when_ready(buf),
        }
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        match self.kind {
            Kind::Regular => {
                let n = rustix::io::pwrite(&self.fd, buf, pos).map_err(Errno::from)?;
                self.keep_in_step(pos + n as u64);
                Ok(n)
            }
            Kind::Pipe => {
                // O_NONBLOCK would be seen by everybody who shares the pipe, so it is said for this one call.
                let iov = [std::io::IoSlice::new(buf)];
                match rustix::io::pwritev2(&self.fd, &iov, CURRENT, ReadWriteFlags::NOWAIT) {
                    Err(rustix::io::Errno::OPNOTSUPP) => self.write_when_ready(buf, PIPE_BUF),
                    result => result.map_err(Errno::from),
                }
            }
            Kind::Socket => {
                rustix::net::send(&self.fd, buf, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).map_err(Errno::from)
            }
            Kind::Device => self.write_when_ready(buf, TERMINAL_BUF),
        }
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        if self.kind != Kind::Regular {
            return self.write(f, buf, 0).map(|n| (n, 0));
        }
        // pwrite(2) on an O_APPEND description appends whatever the offset, which is what is wanted here.
        let iov = [std::io::IoSlice::new(buf)];
        let n = rustix::io::pwritev2(&self.fd, &iov, 0, ReadWriteFlags::APPEND).map_err(Errno::from)?;
        let end = rustix::fs::seek(&self.fd, SeekFrom::End(0)).map_err(Errno::from)?;
        Ok((n, end))
    }

    fn seekable(&self) -> Seekable {
        if self.kind == Kind::Regular { Seekable::Yes } else { Seekable::No }
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        let all = PollFlags::IN | PollFlags::OUT | PollFlags::PRI | PollFlags::RDHUP;
        let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.fd, all)];
        match rustix::event::poll(&mut fds, Some(&zero)) {
            Ok(_) => {
                let mut ready = PollEvents::from_bits_truncate(u32::from(fds[0].revents().bits()));
                // The host gives only what was asked for; guests may ask for these names of the same events.
                if ready.contains(PollEvents::IN) {
                    ready |= PollEvents::RDNORM;
                }
                if ready.contains(PollEvents::OUT) {
                    ready |= PollEvents::WRNORM;
                }
                ready
            }
            Err(_) => PollEvents::ERR,
        }
    }

    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        match &self.terminal {
            Some(terminal) => terminal.save_file(f, saver),
            // Those of the init are known by their numbers.
            None => {
                let meta = f.metadata().map_err(|errno| Refusal::new(format!("a descriptor of the host ({errno})")))?;
                crate::severed::save(f, &meta)
            }
        }
    }

    fn direct_block(&self, _f: &OpenFile) -> Option<u64> {
        (self.kind == Kind::Regular).then(|| crate::direct::direct_block(&*self.fd))
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        self.watch.as_ref().map(Watch::wait_queue)
    }

    fn ioctl(&self, f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        if let Some(t) = &self.terminal {
            return HostTerminal::ioctl(t, f, caller, cmd, arg);
        }
        if cmd == moat_abi::tty::FIONREAD && self.kind != Kind::Device {
            let n = moat_host::tty::bytes_readable(&self.fd)?;
            caller.write_user(arg, &n.to_ne_bytes())?;
            return Ok(0);
        }
        Err(Errno::ENOTTY)
    }

    fn truncate(&self, _f: &OpenFile, len: u64) -> Result<()> {
        if self.kind != Kind::Regular {
            return Err(Errno::EINVAL);
        }
        rustix::fs::ftruncate(&self.fd, len).map_err(Errno::from)
    }

    fn sync(&self, _f: &OpenFile, _kind: SyncKind) -> Result<()> {
        if self.kind != Kind::Regular {
            return Err(Errno::EINVAL);
        }
        block_in_place(|| rustix::fs::fsync(&self.fd)).map_err(Errno::from)
    }
}

/// The inode behind a donated descriptor: what the host says of it, on a device of its own.
struct StreamInode {
    fd: Arc<OwnedFd>,
    file_type: FileType,
    dev: DeviceId,
    ino: u64,
}

impl Inode for StreamInode {
    fn metadata(&self) -> Result<Metadata> {
        let mut meta = crate::direct::metadata_of(&*self.fd)?;
        meta.dev = self.dev;
        meta.ino = self.ino;
        Ok(meta)
    }

    fn file_type(&self) -> FileType {
        self.file_type
    }
}

/// Makes open file descriptions of donated descriptors. Those that are one file on the host become one here.
///
/// # Errors
/// Those of fstat(2) and epoll_ctl(2) on the host.
pub fn import(vfs: &Vfs, fds: Vec<OwnedFd>, creds: &Arc<Credentials>) -> Result<Vec<Arc<OpenFile>>> {
    let mut terminals: Vec<(u64, Arc<HostTerminal>)> = Vec::new();
    let mut files: Vec<Arc<OpenFile>> = Vec::with_capacity(fds.len());
    let mut regular: Vec<(Arc<OwnedFd>, Arc<OpenFile>)> = Vec::new();
    for fd in fds {
        let fd = Arc::new(fd);
        let st = rustix::fs::fstat(&fd).map_err(Errno::from)?;
        if let Some((_, file)) = regular.iter().find(|(known, _)| share_position(known, &fd)) {
            files.push(file.clone());
            continue;
        }
        let file_type = FileType::from_mode(st.st_mode).unwrap_or(FileType::CharDevice);
        let kind = match file_type {
            FileType::Regular | FileType::Directory | FileType::BlockDevice => Kind::Regular,
            FileType::Fifo => Kind::Pipe,
            FileType::Socket => Kind::Socket,
            FileType::CharDevice | FileType::Symlink => Kind::Device,
        };
        let terminal = if kind == Kind::Device && moat_host::tty::termios(&fd).is_ok() {
            // All descriptors of a terminal share its job control.
            let known = terminals.iter().find(|(rdev, _)| *rdev == st.st_rdev).map(|(_, t)| t.clone());
            let t = known.unwrap_or_else(|| Arc::new(HostTerminal::new(fd.clone(), st.st_rdev)));
            terminals.push((st.st_rdev, t.clone()));
            Some(t)
        } else {
            None
        };
        // Files that can't be polled are always ready.
        let watch = if kind == Kind::Regular { None } else { Watch::new(fd.clone()).ok() };
        let flags = rustix::fs::fcntl_getfl(&fd).map_err(Errno::from)?;
        // The host's flag is for others: the guest's own starts clear.
        let flags = OpenFlags::from_bits_truncate(flags.bits()) - OpenFlags::NONBLOCK;
        let pos = if kind == Kind::Regular { rustix::fs::tell(&fd).unwrap_or(0) } else { 0 };
        let ino = st.st_ino.max(1);
        let name = match kind {
            Kind::Pipe => format!("pipe:[{ino}]"),
            Kind::Socket => format!("socket:[{ino}]"),
            Kind::Device | Kind::Regular => format!("host:[{ino}]"),
        };
        let inode = Arc::new(StreamInode { fd: fd.clone(), file_type, dev: Pseudo::Donated.dev(), ino });
        let path = vfs.pseudo_path(Pseudo::Donated, inode, name.as_bytes());
        let stream = HostStream { fd: fd.clone(), kind, terminal, watch };
        let file = OpenFile::new(Arc::new(stream), path, flags, creds.clone());
        file.set_pos(pos);
        if kind == Kind::Regular {
            regular.push((fd, file.clone()));
        }
        files.push(file);
    }
    Ok(files)
}

/// Whether two descriptors are of one open file description of a regular file, as with `>file 2>&1`: then the position
/// of one is the other's.
fn share_position(a: &OwnedFd, b: &OwnedFd) -> bool {
    let file = |fd| rustix::fs::fstat(fd).map(|st| (st.st_dev, st.st_ino)).ok();
    if file(a).is_none() || file(a) != file(b) {
        return false;
    }
    // They may be at the same place by chance, so one is moved for a moment, while nothing in the guest runs yet.
    let Ok(before) = rustix::fs::tell(a) else { return false };
    let Some(elsewhere) = before.checked_add(1) else { return false };
    let shared = rustix::fs::tell(b) == Ok(before)
        && rustix::fs::seek(a, SeekFrom::Start(elsewhere)).is_ok()
        && rustix::fs::tell(b) == Ok(elsewhere);
    let _ = rustix::fs::seek(a, SeekFrom::Start(before));
    shared
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn only_one_description_shares_its_position() {
        let fd = rustix::fs::memfd_create("stdio", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(fd);
        file.write_all(b"abc").unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let same = OwnedFd::from(file.try_clone().unwrap());
        let mut other = std::fs::File::open(path).unwrap();
        std::io::Seek::seek(&mut other, std::io::SeekFrom::Start(3)).unwrap();
        let file = OwnedFd::from(file);
        assert!(share_position(&file, &same));
        assert!(!share_position(&file, &OwnedFd::from(other)));
        assert_eq!(rustix::fs::tell(&file), Ok(3));
        let (pipe, _) = rustix::pipe::pipe().unwrap();
        assert!(!share_position(&pipe, &pipe));
    }
}
