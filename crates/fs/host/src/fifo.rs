//! FIFOs that are shared with the host (`--host-fifo=open`): what goes through one is the host's pipe, with whoever has it open there.
//!
//! [`HostFifo`] is an opening. The host opens a FIFO without waiting; where open(2) has to wait for the other end, that is looked for
//! again and again, since the host tells nobody that a FIFO was opened.

use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use moat_abi::fs::{AccessMode, F_GETPIPE_SZ, F_SETPIPE_SZ, OpenFlags};
use moat_abi::{Errno, PollEvents, Result};
use moat_sync::WaitQueue;
use moat_sync::reactor::Watch;
use moat_vfs::OpenFile;
use moat_vfs::caller::Caller;
use moat_vfs::file::{Completion, File, Seekable};
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::{PipeFlags, SpliceFlags};

use crate::inode::{HostInode, Opening};
use crate::tree::{HostAccess, HostTree};

/// A FIFO of the host, opened, or on the way to that.
pub(crate) struct HostFifo<T: HostTree> {
    inode: Arc<HostInode<T>>,
    access: HostAccess,
    queue: Arc<WaitQueue>,
    /// Unset while a writer waits for the first reader.
    end: OnceLock<End<T>>,
}

/// The host's descriptor, which does not block.
struct End<T: HostTree> {
    fd: Arc<OwnedFd>,
    /// Wakes the opening's queue.
    _watch: Watch,
    _opening: Opening<T>,
}

impl<T: HostTree> HostFifo<T> {
    /// Begins to open `inode`, a FIFO; [`File::finish_open`] says when it is done.
    ///
    /// # Errors
    /// ENXIO for a writer that does not wait, where nobody reads; EINVAL; those of the host.
    pub(crate) fn open(inode: Arc<HostInode<T>>, flags: OpenFlags) -> Result<HostFifo<T>> {
        let access = match flags.access_mode() {
            AccessMode::ReadOnly => HostAccess::Read,
            AccessMode::WriteOnly => HostAccess::Write,
            AccessMode::ReadWrite => HostAccess::ReadWrite,
            AccessMode::Neither => return Err(Errno::EINVAL),
        };
        let fifo = HostFifo { inode, access, queue: Arc::new(WaitQueue::new()), end: OnceLock::new() };
        match fifo.open_on_host() {
            Err(Errno::ENXIO) if access == HostAccess::Write && !flags.contains(OpenFlags::NONBLOCK) => {}
            opened => opened?,
        }
        Ok(fifo)
    }

    fn open_on_host(&self) -> Result<()> {
        let fd = Arc::new(self.inode.open_fifo(self.access)?);
        let watch = Watch::on_demand(fd.clone(), self.queue.clone())?;
        let _ = self.end.set(End { fd, _watch: watch, _opening: Opening::new(self.inode.clone()) });
        Ok(())
    }

    fn fd(&self) -> Result<&OwnedFd> {
        self.end.get().map(|end| &*end.fd).ok_or(Errno::EAGAIN)
    }
}

/// What is ready of `fd`, a pipe's end.
fn ready(fd: &OwnedFd) -> PollFlags {
    let zero = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    let all = PollFlags::IN | PollFlags::OUT | PollFlags::RDNORM | PollFlags::WRNORM;
    let mut fds = [PollFd::new(fd, all)];
    match rustix::event::poll(&mut fds, Some(&zero)) {
        Ok(_) => fds[0].revents(),
        Err(_) => PollFlags::ERR,
    }
}

/// Whether a writer is there, or was since `reader` was opened.
fn has_seen_writer(reader: &OwnedFd) -> Result<bool> {
    // A reader hears of a hang-up only after a writer.
    if ready(reader).intersects(PollFlags::IN | PollFlags::HUP) {
        return Ok(true);
    }
    // poll(2) says nothing of a writer that has written nothing. tee(2) takes nothing away: 0 is "nobody writes".
    let (_read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).map_err(Errno::from)?;
    match rustix::pipe::tee(reader, &write, 1, SpliceFlags::NONBLOCK) {
        Ok(copied) => Ok(copied != 0),
        Err(rustix::io::Errno::AGAIN) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

impl<T: HostTree> File for HostFifo<T> {
    fn finish_open(&self, _f: &OpenFile) -> Result<()> {
        match self.access {
            HostAccess::Read | HostAccess::ReadNoAtime => {
                if has_seen_writer(self.fd()?)? {
                    Ok(())
                } else {
                    Err(Errno::EAGAIN)
                }
            }
            HostAccess::Write if self.end.get().is_none() => match self.open_on_host() {
                // Of a FIFO without a name nobody can become the reader, so that Linux waits for ever.
                Err(Errno::ENXIO | Errno::ESTALE) => Err(Errno::EAGAIN),
                opened => opened,
            },
            // Opened for both it is its own other end.
            HostAccess::Write | HostAccess::ReadWrite => Ok(()),
        }
    }

    fn completion(&self) -> Completion {
        Completion::Asked
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let read = rustix::io::read(self.fd()?, buf).map_err(Errno::from)?;
        self.inode.changed();
        Ok(read)
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        let written = rustix::io::write(self.fd()?, buf).map_err(Errno::from)?;
        self.inode.changed();
        Ok(written)
    }

    fn append(&self, f: &OpenFile, buf: &[u8]) -> Result<(usize, u64)> {
        self.write(f, buf, 0).map(|written| (written, 0))
    }

    fn seekable(&self) -> Seekable {
        Seekable::No
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        self.fd().map_or(PollEvents::empty(), |fd| PollEvents::from_bits_truncate(u32::from(ready(fd).bits())))
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue)
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        if cmd != moat_abi::tty::FIONREAD {
            return Err(Errno::ENOTTY);
        }
        let unread = moat_host::tty::bytes_readable(self.fd()?)?;
        caller.write_user(arg, &unread.to_ne_bytes())?;
        Ok(0)
    }

    fn fcntl(&self, _f: &OpenFile, _caller: &dyn Caller, cmd: u32, _arg: u64) -> Result<u64> {
        match cmd {
            F_GETPIPE_SZ => {
                let bytes = rustix::pipe::fcntl_getpipe_size(self.fd()?).map_err(Errno::from)?;
                u64::try_from(bytes).map_err(|_| Errno::EIO)
            }
            // The memory would be the host's.
            F_SETPIPE_SZ => Err(Errno::EPERM),
            _ => Err(Errno::EINVAL),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_seen_before_it_writes_and_after_it_has_gone() {
        let dir = std::env::temp_dir().join(format!("moat-fifo-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("fifo");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        let open = |access: rustix::fs::OFlags| {
            rustix::fs::open(&path, access | rustix::fs::OFlags::NONBLOCK, rustix::fs::Mode::empty())
        };
        let reader = open(rustix::fs::OFlags::RDONLY).unwrap();
        assert_eq!(has_seen_writer(&reader), Ok(false));
        let writer = open(rustix::fs::OFlags::WRONLY).unwrap();
        assert_eq!(has_seen_writer(&reader), Ok(true));
        rustix::io::write(&writer, b"x").unwrap();
        assert_eq!(has_seen_writer(&reader), Ok(true));
        let mut byte = [0; 2];
        assert_eq!(rustix::io::read(&reader, &mut byte), Ok(1));
        drop(writer);
        assert_eq!(has_seen_writer(&reader), Ok(true));
        drop(reader);
        assert_eq!(has_seen_writer(&open(rustix::fs::OFlags::RDONLY).unwrap()), Ok(false));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
