//! [`Space`]: one guest process, as the sentry holds it.
//!
//! Copies are process_vm_readv(2) and process_vm_writev(2), from whatever thread asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::sync_channel;

use libc::{iovec, pid_t};
use moat_abi::{Errno, Result};
use moat_host::memory::RemoteRange;
use moat_platform::{AddressSpace, GUEST_TOP, PAGE_SIZE};

use crate::command::{Command, Id, Shared};

/// What the tracer and the handle know of a process.
pub(crate) struct Process {
    pub id: Id,
    pub pid: pid_t,
    /// False once the process is reaped, when `pid` may name another. The host hands ids out in a cycle,
    /// so `pid` is not reused between a look at this and the call after it.
    alive: AtomicBool,
}

impl Process {
    pub fn new(id: Id, pid: pid_t) -> Process {
        Process { id, pid, alive: AtomicBool::new(true) }
    }

    pub fn bury(&self) {
        self.alive.store(false, Ordering::SeqCst);
    }

    fn check_alive(&self) -> Result<()> {
        if self.alive.load(Ordering::SeqCst) { Ok(()) } else { Err(Errno::ESRCH) }
    }

    /// Copies `len` bytes page by page where it must, so that the count is exact to the byte.
    fn copy(&self, addr: u64, len: usize, call: impl Fn(u64, usize, usize) -> Result<usize>) -> Result<usize> {
        let mut done = 0;
        let mut by_page = false;
        while done < len {
            self.check_alive()?;
            let at = addr + done as u64;
            let left = len - done;
            let in_page = usize::try_from(PAGE_SIZE - at % PAGE_SIZE).unwrap_or(0).min(left);
            match call(at, done, if by_page { in_page } else { left }) {
                Ok(0) => break,
                Ok(n) => done += n,
                // The first page may be good all the same.
                Err(Errno::EFAULT) if !by_page && in_page < left => by_page = true,
                Err(Errno::EFAULT) => break,
                Err(e) => return Err(e),
            }
        }
        self.check_alive()?;
        if done == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// Reads memory, the stub's included.
    pub fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize> {
        let len = buf.len();
        let base = buf.as_mut_ptr();
        self.copy(addr, len, |at, offset, count| {
            // SAFETY: `offset + count <= len`, so the pointer and the local range stay inside `buf`, which is borrowed mutably.
            vm_call(libc::SYS_process_vm_readv, self.pid, unsafe { base.add(offset) }, at, count)
        })
    }

    /// Writes memory, the stub's included.
    pub fn write(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        let base = buf.as_ptr().cast_mut();
        self.copy(addr, buf.len(), |at, offset, count| {
            // SAFETY: as in `read`; the host only reads the local range.
            vm_call(libc::SYS_process_vm_writev, self.pid, unsafe { base.add(offset) }, at, count)
        })
    }

    /// Writes all of `buf` to the stub's data page.
    pub fn write_all(&self, addr: u64, buf: &[u8]) -> Result<()> {
        if self.write(addr, buf)? == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }
}

/// One process_vm_readv or process_vm_writev with one range on each side.
fn vm_call(nr: libc::c_long, pid: pid_t, local: *mut u8, addr: u64, len: usize) -> Result<usize> {
    let local = iovec { iov_base: local.cast(), iov_len: len };
    let remote = iovec {
        iov_base: std::ptr::without_provenance_mut(usize::try_from(addr).map_err(|_| Errno::EFAULT)?),
        iov_len: len,
    };
    // SAFETY: both callers pass a local range that is valid for the direction of the call; the remote one is the other process's.
    let ret = unsafe { libc::syscall(nr, pid, &raw const local, 1usize, &raw const remote, 1usize, 0usize) };
    usize::try_from(ret).map_err(|_| moat_host::last_errno())
}

/// The handle.
pub(crate) struct Space {
    pub process: Arc<Process>,
    pub shared: Arc<Shared>,
}

/// The part of `len` that is below the guest's limit.
fn below_top(addr: u64, len: usize) -> Result<usize> {
    let room = GUEST_TOP.saturating_sub(addr);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if room == 0 && len > 0 { Err(Errno::EFAULT) } else { Ok(len.min(room)) }
}

/// The ranges for the host, if all of them are below the guest's limit.
fn inside(ranges: &[(u64, usize)]) -> Result<Vec<RemoteRange>> {
    let range = |(addr, len): &(u64, usize)| match below_top(*addr, *len)? {
        inside if inside == *len => Ok(RemoteRange { addr: *addr, len: *len }),
        _ => Err(Errno::EFAULT),
    };
    ranges.iter().map(range).collect()
}

impl AddressSpace for Space {
    fn read(&self, addr: u64, buf: &mut [u8]) -> Result<usize> {
        let len = below_top(addr, buf.len())?;
        self.process.read(addr, &mut buf[..len])
    }

    fn write(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        let len = below_top(addr, buf.len())?;
        self.process.write(addr, &buf[..len])
    }

    fn read_ranges(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> Result<usize> {
        moat_host::memory::read_ranges(self.process.pid, &inside(ranges)?, buf)
    }

    fn write_ranges(&self, ranges: &[(u64, usize)], buf: &[u8]) -> Result<usize> {
        moat_host::memory::write_ranges(self.process.pid, &inside(ranges)?, buf)
    }

    fn write_forced(&self, addr: u64, buf: &[u8]) -> Result<usize> {
        let len = below_top(addr, buf.len())?;
        if len == 0 {
            return Ok(0);
        }
        let (reply, answer) = sync_channel(1);
        self.shared.send(Command::Poke { space: self.process.id, addr, bytes: buf[..len].to_vec(), reply });
        answer.recv().unwrap_or(Err(Errno::ESRCH))
    }

    fn host_pid(&self) -> i32 {
        self.process.pid
    }

    fn kill(&self) {
        self.shared.send(Command::Kill(self.process.id));
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        self.kill();
    }
}
