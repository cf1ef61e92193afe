//! [`Slave`]: an open file description of a pty's slave.

use std::sync::Arc;
use std::time::Duration;

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::WaitQueue;
use moat_tty::ioctl::{self as tty, End};
use moat_tty::job_control::Steal;
use moat_tty::{JobControl, Terminal};
use moat_vfs::OpenFile;
use moat_vfs::caller::Caller;
use moat_vfs::file::{Admission, File, JobControlAccess, ReadOn};
use moat_vfs::inode::Metadata;
use moat_vfs::persist::SaveFiles;

use crate::ioctl;
use crate::ldisc::{Effects, ReadRule};
use crate::pty::Pty;

/// The slave as a task has it open.
pub(crate) struct Slave {
    pub(crate) pty: Arc<Pty>,
    /// Hang-ups before it was opened.
    hang_ups: u64,
}

impl Slave {
    pub(crate) fn new(pty: Arc<Pty>, hang_ups: u64) -> Slave {
        Slave { pty, hang_ups }
    }

    /// Hang-ups before it was opened.
    pub(crate) fn hang_ups(&self) -> u64 {
        self.hang_ups
    }

    fn is_hung_up(&self) -> bool {
        self.pty.look(|s| s.is_hung_up(self.hang_ups))
    }
}

/// VTIME.
fn tenths(deciseconds: u8) -> Duration {
    Duration::from_millis(u64::from(deciseconds) * 100)
}

impl Pty {
    /// Opens the slave, which makes it the caller's controlling terminal where that is due (`tty_open`).
    ///
    /// # Errors
    /// EIO without a master or while locked; EBUSY under TIOCEXCL.
    pub(crate) fn open_slave(self: &Arc<Self>, flags: OpenFlags, caller: &dyn Caller) -> Result<Arc<dyn File>> {
        let hang_ups = self.count_slave(caller)?;
        let slave = Arc::new(Slave::new(self.clone(), hang_ups));
        if !flags.contains(OpenFlags::NOCTTY)
            && flags.access_mode().can_read()
            && let Some(t) = caller.task()
        {
            let tty: Arc<dyn Terminal> = self.clone();
            // Who is no session leader, or has a terminal, opens it as any other file.
            let _ = JobControl::acquire(&tty, t, caller.creds(), Steal::No);
        }
        Ok(slave)
    }
}

impl File for Slave {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        self.save_file(f, saver)
    }

    fn admit(&self, _f: &OpenFile, caller: &dyn Caller, what: JobControlAccess) -> Result<Admission> {
        // Job control ends with the terminal: the calls themselves say that it is dead.
        if self.is_hung_up() {
            return Ok(Admission::Granted);
        }
        tty::admit(self.pty.job_control(), self.pty.background_output(), caller, what)
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        let n = self.pty.change(|s| {
            if s.is_hung_up(self.hang_ups) {
                // A terminal that is hung up reads as an end of file.
                return (Ok(0), Effects::default());
            }
            // Even a descriptor that may block does not wait then (termios(3)).
            let never_waits = s.ldisc.read_rule() == ReadRule::Timeout { deciseconds: 0 };
            let (n, effects) = s.ldisc.slave_read(buf);
            let n = match n {
                Some(n) => Ok(n),
                None if never_waits => Ok(0),
                None => Err(Errno::EAGAIN),
            };
            (n, effects)
        })?;
        if n > 0 {
            self.pty.node.note_read();
        }
        Ok(n)
    }

    fn read_on(&self, _f: &OpenFile, done: usize) -> ReadOn {
        match self.pty.look(|s| s.ldisc.read_rule()) {
            ReadRule::Any | ReadRule::Timeout { .. } if done > 0 => ReadOn::Enough,
            ReadRule::Any => ReadOn::Wait,
            ReadRule::Timeout { deciseconds } => ReadOn::WaitFor(tenths(deciseconds)),
            ReadRule::Minimum(minimum) | ReadRule::MinimumOrGap { minimum, .. } if done >= usize::from(minimum) => {
                ReadOn::Enough
            }
            // The time runs from the last byte, so not before the first.
            ReadRule::MinimumOrGap { deciseconds, .. } if done > 0 => ReadOn::WaitFor(tenths(deciseconds)),
            ReadRule::Minimum(_) | ReadRule::MinimumOrGap { .. } => ReadOn::Wait,
        }
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.pty.change(|s| {
            if s.is_hung_up(self.hang_ups) {
                return (Err(Errno::EIO), Effects::default());
            }
            let (n, effects) = s.ldisc.slave_write(buf);
            (if n == 0 { Err(Errno::EAGAIN) } else { Ok(n) }, effects)
        })?;
        self.pty.node.note_write();
        Ok(n)
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        self.pty.look(|s| {
            if s.is_hung_up(self.hang_ups) {
                // As `hung_up_tty_poll`.
                return PollEvents::READ_READY | PollEvents::WRITE_READY | PollEvents::ERR | PollEvents::HUP;
            }
            s.ldisc.slave_poll()
        })
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pty.slave_queue)
    }

    fn ioctl(&self, f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        if self.is_hung_up() {
            // As `hung_up_tty_ioctl`.
            return Err(if cmd == moat_abi::tty::TIOCSPGRP { Errno::ENOTTY } else { Errno::EIO });
        }
        if let Some(done) = tty::ioctl(&self.pty.terminal()?, End::Slave, f, caller, cmd, arg)? {
            return Ok(done);
        }
        ioctl::slave(&self.pty, caller, cmd, arg)
    }

    /// Also when the name and its inode have passed to another pty.
    fn metadata(&self, _f: &OpenFile) -> Result<Metadata> {
        Ok(self.pty.node.metadata())
    }
}

impl Drop for Slave {
    fn drop(&mut self) {
        self.pty.close_slave();
    }
}
