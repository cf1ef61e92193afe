//! [`HostTerminal`]: a terminal of the host as a terminal of the guest.
//!
//! Line editing and echo are the host's; sessions and foreground groups are the guest's own. The host sends its signals
//! (^C, window changes) to the `moat` command, which hands them on to the foreground group.

mod persist;

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use moat_abi::tty::{FIONREAD, LocalFlags, TCFLSH, TCSBRK, TCXONC, TIOCOUTQ, Termios2, Winsize};
use moat_abi::{Errno, Result};
use moat_host::tty::{self, When};
use moat_image::Refusal;
use moat_image::state::TerminalRef;
use moat_sync::block_in_place;
use moat_tty::ioctl::{BackgroundOutput, End, put};
use moat_tty::{JobControl, Terminal};
use moat_vfs::OpenFile;
use moat_vfs::caller::Caller;
use moat_vfs::file::{Admission, File, JobControlAccess};
use moat_vfs::inode::OpenContext;
use moat_vfs::persist::SaveFiles;

use crate::stdio::HostStream;

pub use persist::{Window, open_again};

/// A terminal of the host.
pub struct HostTerminal {
    pub(crate) fd: Arc<OwnedFd>,
    rdev: AtomicU64,
    control: JobControl,
    /// Whether it is the console of the container, which comes back with it.
    console: AtomicBool,
}

impl Terminal for HostTerminal {
    fn job_control(&self) -> &JobControl {
        &self.control
    }

    fn device_number(&self) -> u64 {
        self.rdev.load(Ordering::Relaxed)
    }

    fn open(self: Arc<Self>, _ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        Ok(Arc::new(HostStream::of_terminal(&self)))
    }

    fn termios(&self) -> Result<Termios2> {
        tty::termios(&self.fd)
    }

    fn set_termios(&self, new: Termios2, when: When) -> Result<()> {
        block_in_place(|| tty::set_termios(&self.fd, new, when))
    }

    fn winsize(&self) -> Result<Winsize> {
        tty::winsize(&self.fd)
    }

    /// The host's SIGWINCH comes back through the `moat` command.
    fn set_winsize(&self, new: Winsize) -> Result<()> {
        tty::set_winsize(&self.fd, new)
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<TerminalRef, Refusal> {
        Ok(TerminalRef::Host { host: self.save_terminal(saver)? })
    }
}

impl HostTerminal {
    pub(crate) fn new(fd: Arc<OwnedFd>, rdev: u64) -> HostTerminal {
        HostTerminal { fd, rdev: AtomicU64::new(rdev), control: JobControl::default(), console: AtomicBool::new(false) }
    }

    /// Sets the device number by which the guest knows it, instead of the host's.
    pub fn set_device_number(&self, rdev: u64) {
        self.rdev.store(rdev, Ordering::Relaxed);
    }

    /// Job control, as [`moat_vfs::File::admit`] wants it.
    pub(crate) fn admit(&self, caller: &dyn Caller, what: JobControlAccess) -> Result<Admission> {
        // Others on the host may have changed it.
        let tostop = tty::termios(&self.fd)?.c_lflag & LocalFlags::TOSTOP.bits() != 0;
        let output = if tostop { BackgroundOutput::Stops } else { BackgroundOutput::Allowed };
        moat_tty::ioctl::admit(&self.control, output, caller, what)
    }

    /// The ioctls of ioctl_tty(2).
    ///
    /// # Errors
    /// ENOTTY for others; EPERM for what would act on the host.
    pub(crate) fn ioctl(
        this: &Arc<HostTerminal>,
        f: &OpenFile,
        caller: &dyn Caller,
        cmd: u32,
        arg: u64,
    ) -> Result<u64> {
        let terminal: Arc<dyn Terminal> = this.clone();
        if let Some(done) = moat_tty::ioctl::ioctl(&terminal, End::Slave, f, caller, cmd, arg)? {
            return Ok(done);
        }
        match cmd {
            TCSBRK | TCXONC | TCFLSH => this.act(cmd, arg),
            FIONREAD => put(caller, arg, &tty::bytes_readable(&this.fd)?),
            TIOCOUTQ => put(caller, arg, &tty::bytes_unsent(&this.fd)?),
            // TIOCSTI and its like would type into the host's terminal.
            _ => Err(Errno::ENOTTY),
        }
    }

    fn act(&self, cmd: u32, arg: u64) -> Result<u64> {
        use rustix::termios::{Action, QueueSelector, tcdrain, tcflow, tcflush, tcsendbreak};
        let done = match (cmd, arg) {
            (TCSBRK, 0) => tcsendbreak(&self.fd),
            // Waits until the output has gone.
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
        done.map(|()| 0).map_err(Errno::from)
    }
}
