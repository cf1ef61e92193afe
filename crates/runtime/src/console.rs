//! [`Console`]: a pseudo-terminal for a container, whose master goes to the client's console socket.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use moat_abi::tty::Winsize;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    connect, sendmsg, socket_with,
};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};

use crate::Error;
use crate::error::{Context, Result};

/// The name that goes with the master: clients only look whether there is one. It is what runc sends.
const MASTER_NAME: &[u8] = b"/dev/ptmx";

/// A pseudo-terminal.
#[derive(Debug)]
pub struct Console {
    master: OwnedFd,
    slave: OwnedFd,
}

impl Console {
    /// Makes one with this many rows and columns.
    ///
    /// # Errors
    /// ENOSPC if there are no more of them.
    pub fn new(size: Option<(u16, u16)>) -> Result<Self> {
        let make = || {
            // Without NOCTTY it could become the terminal of this command's session.
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let master = openpt(flags)?;
            unlockpt(&master)?;
            // By the master and not by its name: whatever is mounted on /dev/pts, it is the right one.
            let slave = ioctl_tiocgptpeer(&master, flags)?;
            Ok::<_, rustix::io::Errno>(Console { master, slave })
        };
        let console = make().context(|| "making a pseudo-terminal".into())?;
        if let Some((rows, columns)) = size {
            let size = Winsize { ws_row: rows, ws_col: columns, ..Winsize::default() };
            moat_host::tty::set_winsize(&console.master, size)
                .map_err(|errno| std::io::Error::from_raw_os_error(errno.raw()))
                .context(|| "setting the size of a terminal".into())?;
        }
        Ok(console)
    }

    /// Sends the master to the socket at `path` and keeps the slave: as stdin, stdout and stderr.
    ///
    /// # Errors
    /// Of connect(2).
    pub fn hand_over(self, path: &Path) -> Result<[OwnedFd; 3]> {
        let send = || {
            let socket = connect_to(path)?;
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds = [self.master.as_fd()];
            control.push(SendAncillaryMessage::ScmRights(&fds));
            sendmsg(&socket, &[IoSlice::new(MASTER_NAME)], &mut control, SendFlags::NOSIGNAL)?;
            Ok::<_, std::io::Error>(())
        };
        send().context(|| format!("sending the terminal to the console socket {}", path.display()))?;
        // Three descriptors of one open file, as after a login.
        let copy = || self.slave.try_clone().context(|| "duplicating a terminal".into());
        Ok([copy()?, copy()?, self.slave])
    }
}

fn connect_to(path: &Path) -> std::io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    // Paths may be longer than a socket address.
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    // O_PATH: the directory needs to be passed through only, not read.
    let dir = rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let short = Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name);
    connect(&socket, &SocketAddrUnix::new(short)?)?;
    Ok(socket)
}

/// Whether a command that leaves its container behind can do what it was asked with its terminal: runc's rules.
///
/// # Errors
/// A terminal without a socket for it, or the reverse.
pub fn check_detached(terminal: bool, console_socket: Option<&Path>) -> Result<()> {
    match (terminal, console_socket) {
        (true, None) => {
            Err(Error::Invalid("cannot allocate tty if moat will detach without setting console socket".into()))
        }
        (false, Some(_)) => Err(refused_socket()),
        _ => Ok(()),
    }
}

/// The same for a command that stays.
///
/// # Errors
/// A console socket: the terminal is the caller's.
pub fn check_attached(console_socket: Option<&Path>) -> Result<()> {
    if console_socket.is_some() { Err(refused_socket()) } else { Ok(()) }
}

fn refused_socket() -> Error {
    Error::Invalid("cannot use console socket if moat will not detach or allocate tty".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    use std::io::IoSliceMut;
    use std::os::unix::net::UnixListener;

    #[test]
    fn the_master_arrives() {
        let dir = std::env::temp_dir().join(format!("moat-console-{}", std::process::id())).join("x".repeat(120));
        std::fs::create_dir_all(&dir).unwrap();
        // Bound by a relative path, as the absolute one is too long.
        let held = rustix::fs::open(&dir, OFlags::PATH, Mode::empty()).unwrap();
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/c.sock", held.as_raw_fd())).unwrap();
        let [stdin, ..] = Console::new(Some((24, 80))).unwrap().hand_over(&dir.join("c.sock")).unwrap();
        let (client, _) = listener.accept().unwrap();
        let mut bytes = [0; 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(&client, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::empty()).unwrap();
        assert_eq!(&bytes[..got.bytes], MASTER_NAME);
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let master = master.unwrap();
        assert_eq!(moat_host::tty::winsize(&stdin).unwrap().ws_col, 80);
        rustix::io::write(&stdin, b"hello").unwrap();
        let n = rustix::io::read(&master, &mut bytes).unwrap();
        assert_eq!(&bytes[..n], b"hello");
        std::fs::remove_dir_all(dir.parent().unwrap()).unwrap();
    }

    #[test]
    fn what_goes_together() {
        let socket = Some(Path::new("/s"));
        assert!(check_detached(true, None).is_err() && check_detached(false, socket).is_err());
        assert!(check_detached(true, socket).is_ok() && check_detached(false, None).is_ok());
        assert!(check_attached(None).is_ok() && check_attached(socket).is_err());
    }
}
