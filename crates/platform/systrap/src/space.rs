//! [`Space`]: one guest process; [`SpaceHandle`]: the sentry's reference to it.
//!
//! # Invariants
//! - A spare thread is parked, has no owner and nothing registered with the host that refers to guest memory.
//! - The process is not reaped before its last [`SpaceHandle`] is dropped, so its pid means this process
//!   wherever a handle is at hand.
//! - No process has the area of another's thread mapped: an area is listed here before its mapping is asked for, and the
//!   clone that makes a process is let through only when every listed area is known to be MADV_DONTFORK. "Known"
//!   means that the call was verified and that the same thread has made another call since, which it
//!   cannot before the first is complete.

mod change;
mod slots;
mod text;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Weak};

use moat_abi::{Errno, Result};
use moat_host::memory::RemoteRange;
use moat_platform::{AddressSpace, GUEST_BOTTOM, GUEST_TOP, PeakResident};
use moat_sync::{LockClass, Mutex};
use rustix::process::Signal;

use crate::area::{AreaPool, control};
use crate::core::SystrapCore;
use crate::entry::Traps;
use crate::sites::Sites;
use crate::space::slots::Slots;
pub use crate::space::slots::{FreeSlot, Stage};
use crate::state::HostThread;

/// Host threads without a task that one process keeps, for the next ones it makes.
const MAX_SPARES: usize = 8;

struct SpaceState {
    slots: Slots<HostThread>,
    /// Parked threads whose tasks have ended.
    spares: Vec<Weak<HostThread>>,
    exited: bool,
    handle_dropped: bool,
}

/// One guest process.
pub struct Space {
    /// The process id.
    pub pid: i32,
    pidfd: OwnedFd,
    pub(crate) core: Arc<SystrapCore>,
    /// Its rewritten call sites.
    pub sites: Sites,
    /// Those that may be worth it.
    pub traps: Traps,
    /// Where the areas of its threads come from.
    pub areas: Arc<AreaPool>,
    /// What its reaping tells of its memory.
    peak: Arc<PeakResident>,
    state: Mutex<SpaceState>,
}

impl Space {
    /// The process `pid`, whose first thread uses `first` of `areas`, and whose text is a copy of that of `parent`.
    ///
    /// # Errors
    /// ESRCH, EINVAL if it is not a process of its own; EMFILE.
    pub fn new(
        core: &Arc<SystrapCore>,
        pid: i32,
        areas: Arc<AreaPool>,
        first: FreeSlot,
        parent: Option<&Space>,
    ) -> Result<Arc<Space>> {
        let raw = rustix::process::Pid::from_raw(pid).ok_or(Errno::ESRCH)?;
        let pidfd = rustix::process::pidfd_open(raw, rustix::process::PidfdFlags::empty())?;
        let state = SpaceState { slots: Slots::new(first), spares: Vec::new(), exited: false, handle_dropped: false };
        let state = Mutex::new(LockClass::Platform, state);
        let sites = Sites::new(parent.map(|parent| &parent.sites));
        let traps = parent.map_or_else(Traps::default, |parent| parent.traps.duplicate());
        Ok(Arc::new(Space { pid, pidfd, core: core.clone(), sites, traps, areas, peak: Arc::default(), state }))
    }

    /// Readable when the process has exited.
    pub fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    /// Lists a thread, to be told of the process's end.
    pub fn add_thread(&self, thread: &Arc<HostThread>) {
        self.state.lock().slots.enter(thread.slot, thread);
    }

    /// Keeps a parked thread for the next task; false if there are enough, or nobody can make one any more.
    pub fn keep(&self, thread: &Arc<HostThread>) -> bool {
        let mut s = self.state.lock();
        let room = s.spares.len() < MAX_SPARES && !s.exited && !s.handle_dropped;
        if room {
            s.spares.push(Arc::downgrade(thread));
        }
        room
    }

    /// A kept thread: the one that has run last.
    pub fn take_spare(&self) -> Option<Arc<HostThread>> {
        self.state.lock().spares.pop()?.upgrade()
    }

    /// An area for a new thread: one that a thread has left, or a fresh one.
    ///
    /// # Errors
    /// EAGAIN if there are too many.
    pub fn take_slot(&self) -> Result<FreeSlot> {
        if let Some(free) = self.state.lock().slots.take() {
            return Ok(free);
        }
        let area = self.areas.take()?;
        let free = self.state.lock().slots.add(area);
        if free.is_none() {
            self.areas.give_back(std::iter::once(area));
        }
        free.ok_or(Errno::EAGAIN)
    }

    /// Gives a slot back to the process (not to the pool: it may still be mapped).
    pub fn release_slot(&self, slot: u32) {
        self.state.lock().slots.release(slot);
    }

    /// Marks the area of a slot as used by no thread.
    pub fn clear_alive(&self, slot: u32) {
        if let Some(area) = self.state.lock().slots.area(slot) {
            area.write32(control!(alive), 0);
        }
    }

    /// The stage of a slot.
    pub fn stage(&self, slot: u32) -> Option<Stage> {
        self.state.lock().slots.stage(slot)
    }

    /// Moves a slot on.
    pub fn set_stage(&self, slot: u32, stage: Stage) {
        self.state.lock().slots.set_stage(slot, stage);
    }

    /// Whether a child would inherit no area.
    pub fn all_protected(&self) -> bool {
        self.state.lock().slots.all_protected()
    }

    /// The slots that a fork has to see to first. Those in the hands of a thread that is just being made are not
    /// among them: the fork is then refused and tried again.
    pub fn unprotected(&self) -> Vec<FreeSlot> {
        self.state.lock().slots.unprotected()
    }

    /// Whether it has never had another thread than its first, which is still there.
    pub fn is_single(&self) -> bool {
        // A slot is another thread's only after it has been given up, and the first thread has not given its own up.
        self.state.lock().slots.is_single()
    }

    /// Kills the process.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Sends a signal to the host process.
    pub fn signal(&self, signal: Signal) {
        // It may be dead already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// The process has exited: tells its threads, and reaps it if nobody holds it.
    pub fn exited(&self) {
        let threads = {
            let mut s = self.state.lock();
            s.exited = true;
            s.slots.take_threads()
        };
        for thread in threads {
            self.core.forget_thread_if(&thread);
            thread.died();
        }
        if self.state.lock().handle_dropped {
            self.reap();
        }
    }

    fn handle_dropped(&self) {
        let exited = {
            let mut s = self.state.lock();
            s.handle_dropped = true;
            s.exited
        };
        if exited {
            self.reap();
        } else {
            self.kill();
        }
    }

    /// Frees the process id and the areas. Called once, after exit and with the handle dropped.
    fn reap(&self) {
        use moat_abi::clone::WaitFlags;
        use moat_host::wait::{WaitTarget, waitid};
        let flags = WaitFlags::EXITED | WaitFlags::NOHANG | WaitFlags::ALL;
        // Before its id can be another's.
        self.core.forget_space(self.pid);
        // Somebody else's wait for any child may have taken it, with what it had used.
        let end = waitid(WaitTarget::Pidfd(self.pidfd.as_fd()), flags).ok().flatten();
        let kib = end.and_then(|end| u64::try_from(end.rusage.ru_maxrss).ok()).unwrap_or(0);
        self.peak.set(kib.saturating_mul(1024));
        let areas = self.state.lock().slots.take_areas();
        self.areas.give_back(areas.into_iter());
    }
}

/// The reference that keeps a guest process alive.
pub struct SpaceHandle(pub Arc<Space>);

impl Drop for SpaceHandle {
    fn drop(&mut self) {
        self.0.handle_dropped();
    }
}

/// The bytes of a range between [`GUEST_BOTTOM`] and [`GUEST_TOP`].
fn clamp(addr: u64, len: usize) -> Result<usize> {
    if addr < GUEST_BOTTOM {
        return Err(Errno::EFAULT);
    }
    let room = GUEST_TOP.checked_sub(addr).filter(|room| *room > 0).ok_or(Errno::EFAULT)?;
    Ok(len.min(usize::try_from(room).unwrap_or(usize::MAX)))
}

/// The ranges for the host, if all of them lie between [`GUEST_BOTTOM`] and [`GUEST_TOP`].
fn inside(ranges: &[(u64, usize)]) -> Result<Vec<RemoteRange>> {
    let range = |(addr, len): &(u64, usize)| match clamp(*addr, *len)? {
        inside if inside == *len => Ok(RemoteRange { addr: *addr, len: *len }),
        _ => Err(Errno::EFAULT),
    };
    ranges.iter().map(range).collect()
}

impl AddressSpace for SpaceHandle {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = clamp(addr, buf.len())?;
        let read = moat_host::memory::read(self.0.pid, addr, &mut buf[..len])?;
        if self.0.sites.any() {
            self.0.show_original(addr, &mut buf[..read.min(len)]);
        }
        Ok(read)
    }

    fn write(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = clamp(addr, buf.len())?;
        moat_host::memory::write(self.0.pid, addr, &buf[..len])
    }

    fn read_ranges(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<usize> {
        let read = moat_host::memory::read_ranges(self.0.pid, &inside(ranges)?, buf)?;
        if self.0.sites.any() {
            let mut rest = &mut buf[..read];
            for (addr, len) in ranges {
                let (part, behind) = rest.split_at_mut((*len).min(rest.len()));
                self.0.show_original(*addr, part);
                rest = behind;
            }
        }
        Ok(read)
    }

    fn write_ranges(&self, ranges: &[(u64, usize)], buf: &[u8]) -> Result<usize> {
        moat_host::memory::write_ranges(self.0.pid, &inside(ranges)?, buf)
    }

    fn write_forced(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let len = clamp(addr, buf.len())?;
        self.0.restore(addr, addr.saturating_add(u64::try_from(len).unwrap_or(u64::MAX)));
        let file = File::from(moat_host::procfs::open_memory(self.0.pid)?);
        // EIO is what the host says of a page that is not there.
        file.write_at(&buf[..len], addr).map_err(|_| Errno::EFAULT)
    }

    fn rewrite(&self, behind: u64) {
        self.0.rewrite(behind);
    }

    fn keep_text(&self) {
        self.0.keep_text();
    }

    fn pass_barrier(&self) -> Result<()> {
        self.0.pass_barrier()
    }

    fn host_pid(&self) -> i32 {
        self.0.pid
    }

    fn last_peak(&self) -> Option<Arc<PeakResident>> {
        Some(self.0.peak.clone())
    }

    fn kill(&self) {
        self.0.kill();
    }
}

/// tgkill(2); signal 0 only checks that the thread is of that process.
///
/// # Errors
/// ESRCH.
pub fn tgkill(pid: i32, tid: i32, signal: i32) -> Result<()> {
    // SAFETY: takes no pointers.
    let r = unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
    if r == 0 { Ok(()) } else { Err(moat_host::last_errno()) }
}
