//! What all terminals have in common towards a task: admission by job control, and the requests of ioctl_tty(2) that
//! are about sessions, settings and the window, whatever device is behind the [`Terminal`].

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::tty::{
    ControlFlags, N_TTY, TCFLSH, TCGETA, TCGETS, TCGETS2, TCSBRK, TCSBRKP, TCSETA, TCSETAF, TCSETAW, TCSETS, TCSETS2,
    TCSETSF, TCSETSF2, TCSETSW, TCSETSW2, TCXONC, TIOCCBRK, TIOCGDEV, TIOCGETD, TIOCGPGRP, TIOCGSID, TIOCGSOFTCAR,
    TIOCGWINSZ, TIOCNOTTY, TIOCSBRK, TIOCSCTTY, TIOCSETD, TIOCSPGRP, TIOCSSOFTCAR, TIOCSWINSZ, Termio, Termios,
    Termios2, Winsize,
};
use moat_abi::{Errno, Result};
use moat_host::tty::When;
use moat_vfs::OpenFile;
use moat_vfs::caller::{Caller, CallingTask};
use moat_vfs::file::{Admission, JobControlAccess};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

use crate::job_control::{JobControl, Steal, TtyAccess, TtyCheck};
use crate::terminal::Terminal;

/// The end of a pty that a request came to; other terminals have a slave's end only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum End {
    Master,
    Slave,
}

/// Whether TOSTOP is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundOutput {
    /// Anybody may write.
    Allowed,
    /// Background processes are stopped.
    Stops,
}

/// Writes `value` to the caller's memory: how most of these requests end.
///
/// # Errors
/// EFAULT.
pub fn put<T: IntoBytes + Immutable>(caller: &dyn Caller, addr: u64, value: &T) -> Result<u64> {
    caller.write_user(addr, value.as_bytes()).map(|()| 0)
}

/// Reads a value from the caller's memory.
///
/// # Errors
/// EFAULT.
pub fn get<T: FromBytes + FromZeros + IntoBytes>(caller: &dyn Caller, addr: u64) -> Result<T> {
    let mut value = T::new_zeroed();
    caller.read_user(addr, value.as_mut_bytes())?;
    Ok(value)
}

/// The requests that only the foreground may make (`tty_check_change`).
const CHANGES: [u32; 17] = [
    TCSETS, TCSETSW, TCSETSF, TCSETS2, TCSETSW2, TCSETSF2, TCSETA, TCSETAW, TCSETAF, TCSBRK, TCSBRKP, TIOCSBRK,
    TIOCCBRK, TCXONC, TCFLSH, TIOCSETD, TIOCSPGRP,
];

/// Job control before a read, a write or an ioctl, as [`moat_vfs::File::admit`] wants it.
///
/// # Errors
/// EIO, but ENOTTY for TIOCSPGRP, where the caller ignores the signal or nobody could wake it again.
pub fn admit(
    control: &JobControl,
    output: BackgroundOutput,
    caller: &dyn Caller,
    what: JobControlAccess,
) -> Result<Admission> {
    let access = match what {
        JobControlAccess::Read => TtyAccess::Read,
        JobControlAccess::Write if output == BackgroundOutput::Stops => TtyAccess::Change,
        JobControlAccess::Ioctl(cmd) if CHANGES.contains(&cmd) => TtyAccess::Change,
        JobControlAccess::Write | JobControlAccess::Ioctl(_) => return Ok(Admission::Granted),
    };
    // The sentry itself is in no process group.
    let Some(t) = caller.task() else { return Ok(Admission::Granted) };
    match control.check(t, access) {
        TtyCheck::Allowed => Ok(Admission::Granted),
        TtyCheck::Signalled => Ok(Admission::Signalled),
        TtyCheck::Refused if what == JobControlAccess::Ioctl(TIOCSPGRP) => Err(Errno::ENOTTY),
        TtyCheck::Refused => Err(Errno::EIO),
    }
}

/// A request that came to `tty` through the description `f`; `None` if it is the device's own business.
///
/// # Errors
/// EFAULT, EINVAL, ENOTTY, EPERM, ESRCH by ioctl_tty(2).
pub fn ioctl(
    tty: &Arc<dyn Terminal>,
    end: End,
    f: &OpenFile,
    caller: &dyn Caller,
    cmd: u32,
    arg: u64,
) -> Result<Option<u64>> {
    let done = match cmd {
        TCGETS..=TCSETAF | TCGETS2 | TCSETS2..=TCSETSF2 => settings(tty, caller, cmd, arg),
        TIOCGPGRP | TIOCSPGRP | TIOCGSID | TIOCSCTTY | TIOCNOTTY => {
            let t = caller.task().ok_or(Errno::ENOTTY)?;
            job_control(tty, end, f, caller, t, cmd, arg)
        }
        TIOCGWINSZ => put::<Winsize>(caller, arg, &tty.winsize()?),
        TIOCSWINSZ => tty.set_winsize(get::<Winsize>(caller, arg)?).map(|()| 0),
        TIOCGETD => put(caller, arg, &N_TTY),
        TIOCSETD if get::<i32>(caller, arg)? == N_TTY => Ok(0),
        TIOCSETD => Err(Errno::EINVAL),
        TIOCGDEV => {
            let number = u32::try_from(tty.device_number()).map_err(|_| Errno::EINVAL)?;
            put(caller, arg, &number)
        }
        // A soft carrier is CLOCAL: the carrier of the line does not count.
        TIOCGSOFTCAR => {
            let local = tty.termios()?.c_cflag & ControlFlags::CLOCAL.bits() != 0;
            put(caller, arg, &i32::from(local))
        }
        TIOCSSOFTCAR => {
            let mut t = tty.termios()?;
            t.c_cflag &= !ControlFlags::CLOCAL.bits();
            if get::<i32>(caller, arg)? != 0 {
                t.c_cflag |= ControlFlags::CLOCAL.bits();
            }
            tty.set_termios(t, When::Now).map(|()| 0)
        }
        _ => return Ok(None),
    };
    done.map(Some)
}

fn job_control(
    tty: &Arc<dyn Terminal>,
    end: End,
    f: &OpenFile,
    caller: &dyn Caller,
    t: &dyn CallingTask,
    cmd: u32,
    arg: u64,
) -> Result<u64> {
    let control = tty.job_control();
    match (cmd, end) {
        (TIOCGPGRP, End::Slave) => put(caller, arg, &control.get_foreground(t)?),
        // Whoever has the master may ask, of whichever session.
        (TIOCGPGRP, End::Master) => {
            put(caller, arg, &control.foreground().map_or(0, |p| p.pid().number_in(t.process_pid().namespace())))
        }
        (TIOCGSID, End::Slave) => put(caller, arg, &control.get_session(t)?),
        (TIOCGSID, End::Master) => {
            let session = control.session().ok_or(Errno::ENOTTY)?;
            put(caller, arg, &session.pid().number_in(t.process_pid().namespace()))
        }
        (TIOCSPGRP, _) => control.set_foreground(t, get::<i32>(caller, arg)?).map(|()| 0),
        (TIOCSCTTY, _) => {
            // Who may not read it may not take it (`tiocsctty`).
            if !f.access_mode().can_read() && !caller.creds().has_root_cap(Cap::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            let steal = if arg == 1 { Steal::Yes } else { Steal::No };
            JobControl::acquire(tty, t, caller.creds(), steal).map(|()| 0)
        }
        (TIOCNOTTY, End::Slave) => control.release(t).map(|()| 0),
        _ => Err(Errno::ENOTTY),
    }
}

fn settings(tty: &Arc<dyn Terminal>, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
    let when = match cmd {
        TCSETS | TCSETS2 | TCSETA => When::Now,
        TCSETSW | TCSETSW2 | TCSETAW => When::Drained,
        _ => When::Flushed,
    };
    let new = match cmd {
        TCGETS => return put::<Termios>(caller, arg, &tty.termios()?.to_termios()),
        TCGETS2 => return put::<Termios2>(caller, arg, &tty.termios()?),
        TCGETA => return put::<Termio>(caller, arg, &to_termio(&tty.termios()?)),
        TCSETA | TCSETAW | TCSETAF => with_termio(tty.termios()?, &get::<Termio>(caller, arg)?),
        TCSETS | TCSETSW | TCSETSF => tty.termios()?.with_termios(get::<Termios>(caller, arg)?),
        _ => get::<Termios2>(caller, arg)?,
    };
    tty.set_termios(new, when).map(|()| 0)
}

/// The low half of a flag word, which is all that `struct termio` has.
fn low(word: u32) -> u16 {
    let [a, b, ..] = word.to_le_bytes();
    u16::from_le_bytes([a, b])
}

fn to_termio(t: &Termios2) -> Termio {
    let mut c_cc = [0; 8];
    for (to, from) in c_cc.iter_mut().zip(t.c_cc) {
        *to = from;
    }
    Termio {
        c_iflag: low(t.c_iflag),
        c_oflag: low(t.c_oflag),
        c_cflag: low(t.c_cflag),
        c_lflag: low(t.c_lflag),
        c_line: t.c_line,
        c_cc,
        pad: 0,
    }
}

fn with_termio(mut t: Termios2, new: &Termio) -> Termios2 {
    // `struct termio` leaves the upper half as it is.
    let join = |old: u32, new: u16| (old & 0xffff_0000) | u32::from(new);
    t.c_iflag = join(t.c_iflag, new.c_iflag);
    t.c_oflag = join(t.c_oflag, new.c_oflag);
    t.c_cflag = join(t.c_cflag, new.c_cflag);
    t.c_lflag = join(t.c_lflag, new.c_lflag);
    t.c_line = new.c_line;
    for (to, from) in t.c_cc.iter_mut().zip(new.c_cc) {
        *to = from;
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn termio_changes_the_low_halves_only() {
        let mut t = Termios2::pty_default();
        t.c_cflag |= 0x8000_0000;
        let mut small = to_termio(&t);
        small.c_lflag = 0;
        small.c_cc[0] = 9;
        let new = with_termio(t, &small);
        assert_eq!((new.c_lflag, new.c_cflag, new.c_cc[0], new.c_cc[8]), (0, t.c_cflag, 9, t.c_cc[8]));
    }
}
