//! [`Adopted`]: a terminal that is no pty of the guest's, with a name in a devpts: that of the host which a process was
//! started on, so that ttyname(3) has an answer.

use std::sync::{Arc, Weak};

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, Result};
use moat_tty::job_control::Steal;
use moat_tty::{JobControl, Terminal};
use moat_vfs::file::File;
use moat_vfs::inode::OpenContext;

use crate::node::Node;

/// The name, which lasts as long as the terminal.
pub(crate) struct Adopted {
    pub(crate) node: Node,
    pub(crate) terminal: Weak<dyn Terminal>,
}

impl Adopted {
    /// Whether the terminal is still in use.
    pub(crate) fn is_alive(&self) -> bool {
        self.terminal.strong_count() > 0
    }

    /// Opens the terminal another time.
    ///
    /// # Errors
    /// EIO if nobody uses it any more.
    pub(crate) fn open(&self, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        let terminal = self.terminal.upgrade().ok_or(Errno::EIO)?;
        let file = terminal.clone().open(ctx)?;
        if !ctx.flags.contains(OpenFlags::NOCTTY)
            && ctx.flags.access_mode().can_read()
            && let Some(t) = ctx.caller.task()
        {
            // Who is no session leader, or has a terminal, opens it as any other file.
            let _ = JobControl::acquire(&terminal, t, ctx.caller.creds(), Steal::No);
        }
        Ok(file)
    }
}
