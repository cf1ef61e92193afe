//! A pty in an image, and out of it.

use std::sync::{Arc, Weak};

use moat_abi::tty::Winsize;
use moat_image::state::{FileSystemState, PtyState as Saved};
use moat_image::{ImageError, Met};
use moat_vfs::persist::SaveFiles;

use super::{Exclusive, Indices, Pty, PtyCount, SlaveLock};
use crate::ldisc::LineDiscipline;
use crate::node::Node;
use crate::slave::Slave;

/// Saves the ptys of a devpts.
pub(crate) fn save_all(ptys: &[Arc<Pty>], saver: &mut dyn SaveFiles) -> FileSystemState {
    let mut names = Vec::new();
    for pty in ptys {
        let (Met::First(name) | Met::Before(name)) = saver.ptys().meet(Arc::as_ptr(pty).addr());
        saver.ptys().fill(name, pty.save());
        names.push(name);
    }
    FileSystemState::Terminals(names)
}

impl Pty {
    pub(crate) fn save(&self) -> Saved {
        let meta = self.node.metadata();
        let times = [meta.atime, meta.mtime, meta.ctime].map(|t| (t.tv_sec, t.tv_nsec));
        self.look(|s| {
            let Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel } = s.winsize;
            Saved {
                index: self.index,
                mode: meta.mode & moat_abi::fs::S_IALLUGO,
                uid: meta.uid,
                gid: meta.gid,
                times,
                locked: s.lock == SlaveLock::Locked,
                exclusive: s.exclusive == Exclusive::Yes,
                winsize: [ws_row, ws_col, ws_xpixel, ws_ypixel],
                master_open: s.master_open,
                slave_gone: s.slave_gone,
                hang_ups: s.hang_ups,
                ldisc: s.ldisc.save(),
            }
        })
    }

    /// One out of an image, with neither end open.
    ///
    /// # Errors
    /// What is wrong with it; too many.
    pub(crate) fn restored(
        saved: &Saved,
        count: &Arc<PtyCount>,
        indices: Weak<dyn Indices>,
        node: Node,
    ) -> Result<Arc<Pty>, ImageError> {
        let ldisc = LineDiscipline::restore(&saved.ldisc)?;
        // Each closing of a master counts one more.
        if saved.hang_ups >= 1 << 62 {
            return Err(ImageError::state("the hang-ups of a pseudo-terminal"));
        }
        let pty = Pty::new(saved.index, count, indices, node);
        let pty = pty.map_err(|errno| ImageError::Unfit(format!("a pseudo-terminal: {errno}")))?;
        let [ws_row, ws_col, ws_xpixel, ws_ypixel] = saved.winsize;
        pty.look(|s| {
            s.ldisc = ldisc;
            s.lock = if saved.locked { SlaveLock::Locked } else { SlaveLock::Unlocked };
            s.exclusive = if saved.exclusive { Exclusive::Yes } else { Exclusive::No };
            s.winsize = Winsize { ws_row, ws_col, ws_xpixel, ws_ypixel };
            // Until its master is opened again.
            s.master_open = false;
            s.slave_gone = saved.slave_gone;
            s.hang_ups = saved.hang_ups;
        });
        Ok(pty)
    }

    /// Whether the master is open.
    pub(crate) fn has_master(&self) -> bool {
        self.look(|s| s.master_open)
    }

    /// The master is open again.
    pub(crate) fn master_opened(&self) {
        self.look(|s| s.master_open = true);
    }

    /// A description of the slave that was opened after so many hang-ups; none if there have not been so many.
    pub(crate) fn open_again(self: &Arc<Self>, hang_ups: u64) -> Option<Slave> {
        self.look(|s| {
            let was = hang_ups <= s.hang_ups;
            if was {
                s.slaves = s.slaves.saturating_add(1);
                s.slave_gone = false;
            }
            was.then(|| Slave::new(self.clone(), hang_ups))
        })
    }
}
