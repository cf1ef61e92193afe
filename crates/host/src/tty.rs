//! Terminals of the host in the kernel's own layout, as they are passed through to a guest.
//!
//! For moat's own use of a terminal (raw mode of `moat run`) rustix's `termios` module is enough.

use std::os::fd::{AsFd, AsRawFd};

use moat_abi::tty::{
    FIONREAD, TCFLSH, TCGETS2, TCSETS2, TCSETSF2, TCSETSW2, TCXONC, TIOCGWINSZ, TIOCOUTQ, TIOCPKT, TIOCSWINSZ,
    Termios2, Winsize,
};
use moat_abi::{Errno, Result};

use crate::result::check;

/// When new terminal settings take effect, tcsetattr(3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// At once (TCSANOW).
    Now,
    /// When the output is written (TCSADRAIN). May block.
    Drained,
    /// When the output is written, and unread input is dropped (TCSAFLUSH). May block.
    Flushed,
}

/// Packet mode of a pty master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PacketMode {
    /// Reads start with a control byte.
    On,
    /// Reads are data alone.
    Off,
}

/// An ioctl with an address as its argument.
///
/// # Safety
/// `request` reads or writes exactly a `T`.
unsafe fn ioctl<T>(fd: impl AsFd, request: u32, arg: *mut T) -> Result<()> {
    // SAFETY: the caller says that the request's argument is a `T`, and every caller passes a live one.
    check(i64::from(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), u64::from(request), arg) })).map(drop)
}

/// The settings of a terminal.
///
/// # Errors
/// ENOTTY if it is none.
pub fn termios(fd: impl AsFd) -> Result<Termios2> {
    let mut t = Termios2::default();
    // SAFETY: TCGETS2 writes a struct termios2.
    unsafe { ioctl(fd, TCGETS2, &raw mut t) }?;
    Ok(t)
}

/// Changes the settings of a terminal.
///
/// # Errors
/// ENOTTY if it is none; EINTR while it drains.
pub fn set_termios(fd: impl AsFd, mut t: Termios2, when: When) -> Result<()> {
    let request = match when {
        When::Now => TCSETS2,
        When::Drained => TCSETSW2,
        When::Flushed => TCSETSF2,
    };
    // SAFETY: the three requests read a struct termios2.
    unsafe { ioctl(fd, request, &raw mut t) }
}

/// The size of a terminal's window.
///
/// # Errors
/// ENOTTY if it is none.
pub fn winsize(fd: impl AsFd) -> Result<Winsize> {
    let mut w = Winsize::default();
    // SAFETY: TIOCGWINSZ writes a struct winsize.
    unsafe { ioctl(fd, TIOCGWINSZ, &raw mut w) }?;
    Ok(w)
}

/// Changes the size of a terminal's window, which sends SIGWINCH to its foreground processes.
///
/// # Errors
/// ENOTTY if it is none.
pub fn set_winsize(fd: impl AsFd, mut w: Winsize) -> Result<()> {
    // SAFETY: TIOCSWINSZ reads a struct winsize.
    unsafe { ioctl(fd, TIOCSWINSZ, &raw mut w) }
}

/// Bytes that can be read (FIONREAD).
///
/// # Errors
/// ENOTTY for a file that can't say.
pub fn bytes_readable(fd: impl AsFd) -> Result<i32> {
    let mut n = 0i32;
    // SAFETY: FIONREAD writes an int.
    unsafe { ioctl(fd, FIONREAD, &raw mut n) }?;
    Ok(n)
}

/// Bytes written that have not gone out (TIOCOUTQ, SIOCOUTQ).
///
/// # Errors
/// ENOTTY for a file that can't say.
pub fn bytes_unsent(fd: impl AsFd) -> Result<i32> {
    let mut n = 0i32;
    // SAFETY: TIOCOUTQ writes an int.
    unsafe { ioctl(fd, TIOCOUTQ, &raw mut n) }?;
    Ok(n)
}

/// Switches packet mode of a pty master.
///
/// # Errors
/// ENOTTY if it is none.
pub fn set_packet_mode(fd: impl AsFd, mode: PacketMode) -> Result<()> {
    let mut on = i32::from(mode == PacketMode::On);
    // SAFETY: TIOCPKT reads an int.
    unsafe { ioctl(fd, TIOCPKT, &raw mut on) }
}

/// Flushes the queues of a terminal (TCFLSH) or controls its flow (TCXONC); `arg` as in ioctl_tty(2).
///
/// # Errors
/// EINVAL for another request or argument, ENOTTY if it is no terminal.
pub fn ioctl_with_number(fd: impl AsFd, request: u32, arg: u32) -> Result<()> {
    if request != TCFLSH && request != TCXONC {
        return Err(Errno::EINVAL);
    }
    // SAFETY: both requests take a number, no address.
    check(i64::from(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), u64::from(request), u64::from(arg)) })).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::pty::{OpenptFlags, openpt};

    #[test]
    fn a_new_pty_has_the_default_settings() {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("ptmx");
        assert_eq!(termios(&master), Ok(Termios2::pty_default()));
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 1, ws_ypixel: 2 };
        set_winsize(&master, size).expect("TIOCSWINSZ");
        assert_eq!(winsize(&master), Ok(size));
        assert_eq!(bytes_readable(&master), Ok(0));
    }

    #[test]
    fn a_file_is_no_terminal() {
        let file = std::fs::File::open("/dev/null").expect("open");
        assert_eq!(termios(&file), Err(Errno::ENOTTY));
    }
}
