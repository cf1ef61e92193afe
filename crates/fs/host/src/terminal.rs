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

fn task<'a>(caller: &'a dyn Caller) -> Result<&'a CurrentTask> {
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
