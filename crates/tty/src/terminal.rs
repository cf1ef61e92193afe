//! [`Terminal`]: what a terminal of any kind offers to the sessions that it can control.

use std::sync::Arc;

use moat_abi::Result;
use moat_abi::tty::{Termios2, Winsize};
use moat_host::tty::When;
use moat_image::Refusal;
use moat_image::state::TerminalRef;
use moat_vfs::file::File;
use moat_vfs::inode::OpenContext;
use moat_vfs::persist::SaveFiles;

use crate::job_control::JobControl;

/// A terminal that can control a session.
pub trait Terminal: Send + Sync {
    /// Its job-control state.
    fn job_control(&self) -> &JobControl;
    /// `tty_nr` of /proc/PID/stat.
    fn device_number(&self) -> u64;
    /// Opens it another time, without making it anybody's controlling terminal: /dev/tty, /dev/console.
    ///
    /// # Errors
    /// EIO.
    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>>;
    /// Its settings.
    ///
    /// # Errors
    /// EIO.
    fn termios(&self) -> Result<Termios2>;
    /// Changes its settings.
    ///
    /// # Errors
    /// EIO, EINTR.
    fn set_termios(&self, new: Termios2, when: When) -> Result<()>;
    /// The size of its window.
    ///
    /// # Errors
    /// EIO.
    fn winsize(&self) -> Result<Winsize>;
    /// Changes the size of its window; if that is a change, the foreground group gets SIGWINCH.
    ///
    /// # Errors
    /// EIO.
    fn set_winsize(&self, new: Winsize) -> Result<()>;
    /// Its name in an image.
    ///
    /// # Errors
    /// One that is outside of what is being saved.
    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<TerminalRef, Refusal>;
}
