//! [`ConsoleSocket`]: where the runtime sends the master of a terminal that it has made.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// How long the runtime's connection is waited for: it has been made when this is asked.
const PATIENCE: Duration = Duration::from_secs(5);

/// A listening socket, which is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

impl ConsoleSocket {
    /// Makes it in a directory.
    ///
    /// # Errors
    /// Of bind(2).
    pub(crate) fn bind(directory: &Path, name: &str) -> io::Result<Self> {
        let path = directory.join(name);
        let _ = fs::remove_file(&path);
        // A bundle's path may be longer than a socket address.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let held = rustix::fs::open(directory, flags, Mode::empty())?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", held.as_raw_fd()))?;
        Ok(ConsoleSocket { listener, path })
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Takes what was sent.
    ///
    /// # Errors
    /// Nothing was; of accept(2) and recvmsg(2).
    pub(crate) fn receive(self) -> io::Result<OwnedFd> {
        wait(&self.listener)?;
        let (connection, _) = self.listener.accept()?;
        wait(&connection)?;
        let mut text = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        recvmsg(&connection, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        master.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the runtime has sent no terminal"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn wait(fd: impl AsFd) -> io::Result<()> {
    let limit = Timespec { tv_sec: i64::try_from(PATIENCE.as_secs()).unwrap_or(1), tv_nsec: 0 };
    match rustix::io::retry_on_intr(|| poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&limit)))? {
        0 => Err(io::Error::new(io::ErrorKind::TimedOut, "the runtime has sent no terminal")),
        _ => Ok(()),
    }
}
