//! [`Master`]: an open pty master.

use std::sync::Arc;

use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_sync::WaitQueue;
use moat_tty::Terminal;
use moat_tty::ioctl::{self as tty, End};
use moat_vfs::caller::Caller;
use moat_vfs::file::{Admission, File, JobControlAccess};
use moat_vfs::persist::SaveFiles;
use moat_vfs::{OpenFile, Path};

use crate::ioctl;
use crate::pty::Pty;

/// Bytes that go through the line discipline at a time.
const WRITE_BYTES: usize = 16 * 1024;

/// The master of a pty; there is one description for each pty.
pub(crate) struct Master {
    pub(crate) pty: Arc<Pty>,
    /// The root of its devpts, as it was found when the master was opened: where TIOCGPTPEER finds the slave.
    pub(crate) root: Path,
}

impl File for Master {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        self.save_file(f, saver)
    }

    fn admit(&self, _f: &OpenFile, caller: &dyn Caller, what: JobControlAccess) -> Result<Admission> {
        match what {
            // These act on the slave, whoever asks.
            JobControlAccess::Ioctl(cmd) if ioctl::changes_slave(cmd) => {
                tty::admit(self.pty.job_control(), self.pty.background_output(), caller, what)
            }
            _ => Ok(Admission::Granted),
        }
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], _pos: u64) -> Result<usize> {
        self.pty.change(|s| {
            let (n, effects) = s.ldisc.master_read(buf);
            let n = match n {
                Some(n) => Ok(n),
                // What it wrote before is read first.
                None if s.slave_gone() => Err(Errno::EIO),
                None => Err(Errno::EAGAIN),
            };
            (n, effects)
        })
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], _pos: u64) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        // Some 50 ns a byte.
        let part = buf.get(..WRITE_BYTES).unwrap_or(buf);
        self.pty.change(|s| {
            let (n, effects) = s.ldisc.master_write(part);
            (if n == 0 { Err(Errno::EAGAIN) } else { Ok(n) }, effects)
        })
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        self.pty.look(|s| {
            let mut ready = s.ldisc.master_poll();
            ready.set(PollEvents::HUP, s.slave_gone());
            ready
        })
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.pty.master_queue)
    }

    fn ioctl(&self, f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        if let Some(done) = tty::ioctl(&self.pty.terminal()?, End::Master, f, caller, cmd, arg)? {
            return Ok(done);
        }
        ioctl::master(&self.pty, &self.root, f, caller, cmd, arg)
    }

    fn fdinfo(&self, _f: &OpenFile) -> String {
        format!("tty-index:\t{}\n", self.pty.index)
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        self.pty.close_master();
    }
}
