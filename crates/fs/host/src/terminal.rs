//! [`HostTerminal`]: a terminal of the host as a terminal of the guest.
//!
//! Line editing and echo are the host's; sessions and foreground groups are the guest's own. The host sends its signals
//! (^C, window changes) to the `moat` command, which hands them on to the foreground group.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::tty::{
    FIONREAD, TCFLSH, TCGETS, TCGETS2, TCSBRK, TCSETS, TCSETS2, TCSETSF, TCSETSF2, TCSETSW, TCSETSW2, TCXONC, TIOCGPGRP,
    TIOCGSID, TIOCGWINSZ, TIOCNOTTY, TIOCOUTQ, TIOCSCTTY, TIOCSPGRP, TIOCSWINSZ, Termios, Termios2, Winsize,
};
use moat_abi::{Errno, Result};
use moat_host::tty::{self, When};
use moat_kernel::process::session::{JobControl, Steal, Terminal, TtyAccess, TtyCheck};
use moat_kernel::task::CurrentTask;
use moat_sync::block_in_place;
use moat_vfs::OpenFile;
use moat_vfs::caller::Caller;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// A terminal of the host.
pub struct HostTerminal {
    fd: Arc<OwnedFd>,
    rdev: u64,
    control: JobControl,
}

impl Terminal for HostTerminal {
    fn job_control(&self) -> &JobControl {
        &self.control
    }

    fn device_number(&self) -> u64 {
        self.rdev
    }

    fn hang_up(&self) {}
}

fn task(caller: &dyn Caller) -> Result<&CurrentTask> {
    caller.as_any().downcast_ref().ok_or(Errno::ENOTTY)
}

fn put<T: IntoBytes + Immutable>(caller: &dyn Caller, addr: u64, value: &T) -> Result<u64> {
    caller.write_user(addr, value.as_bytes()).map(|()| 0)
}

fn get<T: FromBytes + FromZeros + IntoBytes>(caller: &dyn Caller, addr: u64) -> Result<T> {
    let mut value = T::new_zeroed();
    caller.read_user(addr, value.as_mut_bytes())?;
    Ok(value)
}

impl HostTerminal {
    pub(crate) fn new(fd: Arc<OwnedFd>, rdev: u64) -> HostTerminal {
        HostTerminal { fd, rdev, control: JobControl::default() }
    }

    /// Job control of reads and writes is decided where the task is known: nothing to add here.
    pub(crate) fn before_read(&self, _f: &OpenFile) -> Result<()> {
        Ok(())
    }

    pub(crate) fn before_write(&self, _f: &OpenFile) -> Result<()> {
        Ok(())
    }

    fn may_change(&self, caller: &dyn Caller) -> Result<()> {
        match self.control.check(task(caller)?, TtyAccess::Change) {
            TtyCheck::Allowed => Ok(()),
            TtyCheck::Refused => Err(Errno::EIO),
            TtyCheck::Signalled => Err(Errno::EINTR),
        }
    }
}

impl HostTerminal {
    /// The ioctls of tty_ioctl(4).
    ///
    /// # Errors
    /// ENOTTY for others; EIO and EINTR by job control; EPERM for what would act on the host.
    pub(crate) fn ioctl(this: &Arc<HostTerminal>, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        let fd = &this.fd;
        match cmd {
            TCGETS => put::<Termios>(caller, arg, &tty::termios(fd)?.to_termios()),
            TCGETS2 => put::<Termios2>(caller, arg, &tty::termios(fd)?),
            TCSETS | TCSETSW | TCSETSF => {
                this.may_change(caller)?;
                let new = tty::termios(fd)?.with_termios(get::<Termios>(caller, arg)?);
                this.set(new, cmd - TCSETS)
            }
            TCSETS2 | TCSETSW2 | TCSETSF2 => {
                this.may_change(caller)?;
                this.set(get::<Termios2>(caller, arg)?, cmd - TCSETS2)
            }
            TCSBRK | TCXONC | TCFLSH => {
                this.may_change(caller)?;
                this.act(cmd, arg)
            }
            TIOCGWINSZ => put::<Winsize>(caller, arg, &tty::winsize(fd)?),
            TIOCSWINSZ => tty::set_winsize(fd, get::<Winsize>(caller, arg)?).map(|()| 0),
            FIONREAD => put(caller, arg, &tty::bytes_readable(fd)?),
            TIOCOUTQ => put(caller, arg, &tty::bytes_unsent(fd)?),
            TIOCGPGRP => put(caller, arg, &this.control.get_foreground(task(caller)?)?),
            TIOCGSID => put(caller, arg, &this.control.get_session(task(caller)?)?),
            TIOCSPGRP => {
                this.may_change(caller)?;
                this.control.set_foreground(task(caller)?, get::<i32>(caller, arg)?).map(|()| 0)
            }
            TIOCSCTTY => {
                let tty: Arc<dyn Terminal> = this.clone();
                let steal = if arg == 1 { Steal::Yes } else { Steal::No };
                JobControl::acquire(&tty, task(caller)?, steal).map(|()| 0)
            }
            TIOCNOTTY => this.control.release(task(caller)?).map(|()| 0),
            // TIOCSTI and its like would type into the host's terminal.
            _ => Err(Errno::ENOTTY),
        }
    }

    /// `how`: 0 now, 1 drained, 2 flushed, which is the order of the requests' numbers.
    fn set(&self, new: Termios2, how: u32) -> Result<u64> {
        let when = match how {
            0 => When::Now,
            1 => When::Drained,
            _ => When::Flushed,
        };
        block_in_place(|| tty::set_termios(&self.fd, new, when)).map(|()| 0)
    }

    fn act(&self, cmd: u32, arg: u64) -> Result<u64> {
        use rustix::termios::{Action, QueueSelector, tcdrain, tcflow, tcflush, tcsendbreak};
        let done = match (cmd, arg) {
            (TCSBRK, 0) => tcsendbreak(&self.fd),
            (TCSBRK, _) => block_in_place(|| tcdrain(&self.fd)),
            (TCXONC, 0) => tcflow(&self.fd, Action::OOff),
            (TCXONC, 1) => tcflow(&self.fd, Action::OOn),
            (TCXONC, 2) => tcflow(&self.fd, Action::IOff),
            (TCXONC, 3) => tcflow(&self.fd, Action::IOn),
            (TCFLSH, 0) => tcflush(&self.fd, QueueSelector::IFlush),
            (TCFLSH, 1) => tcflush(&self.fd, QueueSelector::OFlush),
            (TCFLSH, 2) => tcflush(&self.fd, QueueSelector::IOFlush),
            _ => return Err(Errno::EINVAL),
        };
        done.map(|()| 0).map_err(|e| Errno::from_raw(e.raw_os_error()))
    }
}
