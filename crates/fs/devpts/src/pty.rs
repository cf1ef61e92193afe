//! [`Pty`]: a master and its slave, with the line discipline between them.

mod persist;

pub(crate) use persist::save_all;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::cap::Cap;
use moat_abi::fs::OpenFlags;
use moat_abi::signal::Signal;
use moat_abi::stat::DeviceId;
use moat_abi::tty::{LocalFlags, Termios2, Winsize};
use moat_abi::{Errno, PollEvents, Result};
use moat_host::tty::When;
use moat_image::Refusal;
use moat_image::state::TerminalRef;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_tty::ioctl::BackgroundOutput;
use moat_tty::{JobControl, Terminal};
use moat_vfs::caller::Caller;
use moat_vfs::file::File;
use moat_vfs::inode::OpenContext;
use moat_vfs::persist::SaveFiles;

use crate::ldisc::packet::Flush;
use crate::ldisc::{Effects, LineDiscipline};
use crate::node::Node;

/// Major number of the slaves of the first 2^20 ptys.
pub(crate) const SLAVE_MAJOR: u32 = 136;

/// How many ptys there may be in all instances together (`kernel.pty.max`).
const MAX_PTYS: usize = 4096;

/// How many ptys a kernel has.
#[derive(Default)]
pub(crate) struct PtyCount(AtomicUsize);

/// One of the ptys that there may be.
struct Slot(Arc<PtyCount>);

impl Slot {
    fn take(count: &Arc<PtyCount>) -> Result<Slot> {
        let more = |n: usize| (n < MAX_PTYS).then_some(n + 1);
        let taken = count.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.map(|_| Slot(count.clone())).map_err(|_| Errno::ENOSPC)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whether the slave can be opened (TIOCSPTLCK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SlaveLock {
    Locked,
    Unlocked,
}

/// Whether further openings fail (TIOCEXCL).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exclusive {
    No,
    Yes,
}

/// What changes in a pty.
pub(crate) struct PtyState {
    pub(crate) ldisc: LineDiscipline,
    pub(crate) lock: SlaveLock,
    pub(crate) exclusive: Exclusive,
    winsize: Winsize,
    master_open: bool,
    /// Open file descriptions of the slave, hung up or not.
    slaves: usize,
    /// A slave has been open and none is: the master reads EIO.
    slave_gone: bool,
    /// Counts hang-ups: a description from before the last one is dead.
    hang_ups: u64,
}

impl PtyState {
    /// Whether the master's other side is closed.
    pub(crate) fn slave_gone(&self) -> bool {
        self.slave_gone
    }

    /// Whether a description of the slave that was made after `hang_ups` hang-ups is dead.
    pub(crate) fn is_hung_up(&self, hang_ups: u64) -> bool {
        self.hang_ups != hang_ups
    }
}

/// The file system that a pty has its name and index in.
pub(crate) trait Indices: Send + Sync {
    /// Takes the name of a pty away (`devpts_pty_kill`).
    fn unlink(&self, index: u32);

    /// Both ends of a pty are closed.
    fn free(&self, index: u32);
}

/// A pseudo-terminal.
pub(crate) struct Pty {
    this: Weak<Pty>,
    pub(crate) index: u32,
    indices: Weak<dyn Indices>,
    /// The slave's node.
    pub(crate) node: Node,
    control: JobControl,
    pub(crate) master_queue: WaitQueue,
    pub(crate) slave_queue: WaitQueue,
    state: Mutex<PtyState>,
    _slot: Slot,
}

impl Pty {
    /// A pty with its master open and its slave locked.
    ///
    /// # Errors
    /// ENOSPC if there are too many.
    pub(crate) fn new(index: u32, count: &Arc<PtyCount>, indices: Weak<dyn Indices>, node: Node) -> Result<Arc<Pty>> {
        let slot = Slot::take(count)?;
        let state = PtyState {
            ldisc: LineDiscipline::new(Termios2::pty_default()),
            // Until unlockpt(3): the master's owner sets the node's owner first.
            lock: SlaveLock::Locked,
            exclusive: Exclusive::No,
            winsize: Winsize::default(),
            master_open: true,
            slaves: 0,
            slave_gone: false,
            hang_ups: 0,
        };
        Ok(Arc::new_cyclic(|this| Pty {
            this: this.clone(),
            index,
            indices,
            node,
            control: JobControl::default(),
            master_queue: WaitQueue::new(),
            slave_queue: WaitQueue::new(),
            state: Mutex::new(LockClass::Tty, state),
            _slot: slot,
        }))
    }

    /// The pty as the terminal of a session.
    ///
    /// # Errors
    /// EIO, which can't happen to a caller with a reference.
    pub(crate) fn terminal(&self) -> Result<Arc<dyn Terminal>> {
        self.this.upgrade().map(|p| p as Arc<dyn Terminal>).ok_or(Errno::EIO)
    }

    /// Looks at the state.
    pub(crate) fn look<R>(&self, body: impl FnOnce(&mut PtyState) -> R) -> R {
        body(&mut self.state.lock())
    }

    /// Does something with the line discipline, then wakes and signals whom it concerns, unlocked.
    pub(crate) fn change<R>(&self, body: impl FnOnce(&mut PtyState) -> (R, Effects)) -> R {
        let (result, effects) = body(&mut self.state.lock());
        if !effects.wake_slave.is_empty() {
            self.slave_queue.wake(effects.wake_slave);
        }
        if !effects.wake_master.is_empty() {
            self.master_queue.wake(effects.wake_master);
        }
        for signal in effects.signals.iter() {
            self.control.signal_foreground(signal);
        }
        result
    }

    /// Whether TOSTOP is set.
    pub(crate) fn background_output(&self) -> BackgroundOutput {
        let flags = self.look(|s| s.ldisc.termios().c_lflag);
        if flags & LocalFlags::TOSTOP.bits() == 0 { BackgroundOutput::Allowed } else { BackgroundOutput::Stops }
    }

    /// Counts a description of the slave in; gives the hang-ups before it.
    ///
    /// # Errors
    /// EIO without a master or while locked; EBUSY under TIOCEXCL.
    pub(crate) fn count_slave(&self, caller: &dyn Caller) -> Result<u64> {
        let privileged = caller.creds().has_root_cap(Cap::SYS_ADMIN);
        self.look(|s| {
            if !s.master_open || s.lock == SlaveLock::Locked {
                return Err(Errno::EIO);
            }
            if s.exclusive == Exclusive::Yes && !privileged {
                return Err(Errno::EBUSY);
            }
            s.slaves += 1;
            // Reads of the master wait again.
            s.slave_gone = false;
            Ok(s.hang_ups)
        })
    }

    /// A description of the slave is gone.
    pub(crate) fn close_slave(&self) {
        let free = self.look(|s| {
            s.slaves = s.slaves.saturating_sub(1);
            s.slave_gone = s.slaves == 0;
            s.slave_gone && !s.master_open
        });
        // Reads of the master give EIO from here on.
        self.master_queue.wake_all();
        self.free_index_if(free);
    }

    /// The master is gone: the name goes, and who uses the slave is hung up (`pty_close`).
    pub(crate) fn close_master(&self) {
        let free = self.look(|s| {
            s.master_open = false;
            s.hang_ups += 1;
            s.slaves == 0
        });
        // The name first: nobody may open the slave by it any more.
        if let Some(instance) = self.indices.upgrade() {
            instance.unlink(self.index);
        }
        self.slave_queue.wake_all();
        self.control.hang_up();
        self.free_index_if(free);
    }

    fn free_index_if(&self, free: bool) {
        if free && let Some(instance) = self.indices.upgrade() {
            instance.free(self.index);
        }
    }

    /// TIOCVHANGUP: every description of the slave is dead from here on; settings and queues start afresh
    /// (`__tty_hangup`).
    pub(crate) fn hang_up_slaves(&self) {
        self.change(|s| {
            s.hang_ups += 1;
            let mut e = s.ldisc.flush(Flush::Both);
            let reset = s.ldisc.set_termios(Termios2::pty_default());
            e.signals = e.signals.union(reset.signals);
            e.wake_master |= reset.wake_master;
            // All who wait must find it dead.
            e.wake_slave = PollEvents::all();
            ((), e)
        });
        self.control.hang_up();
    }
}

impl Terminal for Pty {
    fn job_control(&self) -> &JobControl {
        &self.control
    }

    fn device_number(&self) -> u64 {
        DeviceId::new(SLAVE_MAJOR, self.index).to_raw()
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        // Through /dev/tty or the console it does not become a controlling terminal.
        self.open_slave(ctx.flags | OpenFlags::NOCTTY, ctx.caller)
    }

    fn termios(&self) -> Result<Termios2> {
        Ok(self.look(|s| *s.ldisc.termios()))
    }

    fn set_termios(&self, new: Termios2, when: When) -> Result<()> {
        // Output is with the master at once: there is nothing to drain.
        self.change(|s| {
            let mut e = if when == When::Flushed { s.ldisc.flush(Flush::Input) } else { Effects::default() };
            let set = s.ldisc.set_termios(new);
            e.signals = e.signals.union(set.signals);
            e.wake_master |= set.wake_master;
            e.wake_slave |= set.wake_slave;
            ((), e)
        });
        Ok(())
    }

    fn winsize(&self) -> Result<Winsize> {
        Ok(self.look(|s| s.winsize))
    }

    fn set_winsize(&self, new: Winsize) -> Result<()> {
        let changed = self.look(|s| std::mem::replace(&mut s.winsize, new) != new);
        // SIGWINCH is for changes only (`tty_do_resize`).
        if changed {
            self.control.signal_foreground(Signal::SIGWINCH);
        }
        Ok(())
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<TerminalRef, Refusal> {
        // All devpts of the container were saved before any session.
        let name = saver.ptys().name_of(std::ptr::from_ref(self).addr());
        name.map(TerminalRef::Pty).ok_or_else(|| Refusal::new("a controlling terminal outside of the sandbox"))
    }
}
