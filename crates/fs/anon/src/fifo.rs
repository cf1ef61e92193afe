//! FIFOs: the pipes behind nodes of file systems, found by inode while somebody has one open.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use moat_abi::fs::{AccessMode, OpenFlags};
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::inode::InodeKey;
use moat_vfs::{File, OpenContext};

use crate::pipe::{Partner, Pipe};

/// The FIFOs that somebody has open.
pub struct Fifos {
    pipes: Mutex<HashMap<InodeKey, Weak<Pipe>>>,
}

impl Default for Fifos {
    fn default() -> Fifos {
        Fifos { pipes: Mutex::new(LockClass::Table, HashMap::new()) }
    }
}

impl Fifos {
    /// Opens the FIFO of an inode. The opening is complete once the other end is there (`finish_open`).
    ///
    /// # Errors
    /// ENXIO for writing with O_NONBLOCK and no reader.
    pub fn open(&self, key: InodeKey, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        let new = Pipe::new(ctx.caller.creds(), ctx.path.mount.tables().ids.inodes.next());
        let pipe = {
            let mut pipes = self.pipes.lock();
            match pipes.get(&key).and_then(Weak::upgrade) {
                Some(p) => p,
                None => {
                    // FIFOs are few: opening a new one is the time to forget those that are gone.
                    pipes.retain(|_, p| p.strong_count() > 0);
                    pipes.insert(key, Arc::downgrade(&new));
                    new
                }
            }
        };
        open_pipe(&pipe, ctx, Partner::Awaited)
    }
}

/// Adds an end to a pipe by the rules of fifo(7).
pub(crate) fn open_pipe(pipe: &Arc<Pipe>, ctx: &OpenContext<'_>, partner: Partner) -> Result<Arc<dyn File>> {
    let mode = ctx.flags.access_mode();
    if mode == AccessMode::Neither {
        return Err(Errno::EINVAL);
    }
    let needs_reader = partner == Partner::Awaited && mode == AccessMode::WriteOnly;
    if needs_reader && ctx.flags.contains(OpenFlags::NONBLOCK) && !pipe.has_readers() {
        return Err(Errno::ENXIO);
    }
    Ok(pipe.open_end(mode, partner))
}
