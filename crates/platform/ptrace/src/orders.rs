//! Orders, carried out by injection.

use std::os::fd::AsFd;
use std::sync::Arc;

use libc::pid_t;
use moat_abi::{Errno, Result};
use moat_host::ptrace;
use moat_platform::{GUEST_TOP, MapSource, Order};

use crate::command::Id;
use crate::inject::PASSED_FD;
use crate::stub;
use crate::tracer::{TraceeState, Tracer};

const READ: u32 = libc::PROT_READ.cast_unsigned();
const WRITE_OR_EXEC: u32 = (libc::PROT_WRITE | libc::PROT_EXEC).cast_unsigned();

/// The sentry has checked addresses against its VMA tree; this keeps a mistake there from reaching the stub.
fn check(addr: u64, len: u64) -> Result<()> {
    match addr.checked_add(len) {
        Some(end) if end <= GUEST_TOP => Ok(()),
        _ => Err(Errno::EINVAL),
    }
}

/// What the processor makes of a protection: a page that can be written or executed can be read.
///
/// Said to the host, so that process_vm_readv(2) reads what the guest itself could.
fn effective(prot: u32) -> u64 {
    u64::from(if prot & WRITE_OR_EXEC != 0 { prot | READ } else { prot })
}

fn flag(flag: i32) -> u64 {
    u64::from(flag.cast_unsigned())
}

impl Tracer {
    /// Carries out an order in a parked thread.
    ///
    /// # Errors
    /// The host's; EINVAL for an address above the guest's limit; ESRCH.
    pub fn execute(&mut self, id: Id, order: &Order) -> Result<u64> {
        match *order {
            Order::Mmap { addr, len, prot, ref source } => self.mmap(id, addr, len, prot, source),
            Order::Munmap { addr, len } => {
                check(addr, len)?;
                self.call(id, libc::SYS_munmap, [addr, len, 0, 0, 0, 0])
            }
            Order::Mprotect { addr, len, prot } => {
                check(addr, len)?;
                self.call(id, libc::SYS_mprotect, [addr, len, effective(prot), 0, 0, 0])
            }
            Order::Mremap { old_addr, old_len, new_addr, new_len, dont_unmap } => {
                check(old_addr, old_len)?;
                check(new_addr, new_len)?;
                let flags = match (old_addr == new_addr, dont_unmap) {
                    (true, _) => 0,
                    (false, false) => libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
                    (false, true) => libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED | libc::MREMAP_DONTUNMAP,
                };
                self.call(id, libc::SYS_mremap, [old_addr, old_len, new_len, flag(flags), new_addr, 0])
            }
            Order::Madvise { addr, len, advice } => {
                check(addr, len)?;
                self.call(id, libc::SYS_madvise, [addr, len, flag(advice), 0, 0, 0])
            }
            Order::Mlock { addr, len, lock } => {
                check(addr, len)?;
                let nr = if lock { libc::SYS_mlock2 } else { libc::SYS_munlock };
                match self.call(id, nr, [addr, len, 0, 0, 0, 0]) {
                    // Best effort: the host's limit is not the guest's.
                    Err(Errno::EPERM | Errno::ENOMEM | Errno::EAGAIN) => Ok(0),
                    result => result,
                }
            }
            Order::Atomic32 { addr, op } => {
                check(addr, 4).map_err(|_| Errno::EFAULT)?;
                let (entry, operand, expected) = stub::atomic(op);
                let old = self.run_stub(id, entry, 0, [addr, u64::from(operand), u64::from(expected), 0, 0, 0])?;
                Ok(old & 0xffff_ffff)
            }
            // With an area registered, the guest could have the host send this thread from the stub to guest code
            // (rseq_cs.abort_ip), where PTRACE_SYSEMU would not hold it.
            Order::Rseq { .. } => Err(Errno::ENOSYS),
            Order::SetName(name) => {
                let data = self.shared.layout.data();
                let process = Arc::clone(&self.parked(id)?.process);
                process.write_all(data, &name)?;
                self.call(id, libc::SYS_prctl, [flag(libc::PR_SET_NAME), data, 0, 0, 0, 0])
            }
            Order::WatchWrites => self.call(id, libc::SYS_userfaultfd, [moat_host::userfault::FLAGS, 0, 0, 0, 0, 0]),
            Order::EndWatch(number) => self.call(id, libc::SYS_close, [u64::from(number), 0, 0, 0, 0, 0]),
        }
    }

    fn mmap(&mut self, id: Id, addr: u64, len: u64, prot: u32, source: &MapSource) -> Result<u64> {
        check(addr, len)?;
        let prot = effective(prot);
        match source {
            MapSource::AnonPrivate { noreserve } => {
                let flags = libc::MAP_FIXED
                    | libc::MAP_PRIVATE
                    | libc::MAP_ANONYMOUS
                    | if *noreserve { libc::MAP_NORESERVE } else { 0 };
                self.call(id, libc::SYS_mmap, [addr, len, prot, flag(flags), u64::MAX, 0])
            }
            MapSource::File { fd, offset, shared } => {
                let flags = libc::MAP_FIXED | if *shared { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
                self.pass_fd(id, fd.as_fd())?;
                let result = self.call(id, libc::SYS_mmap, [addr, len, prot, flag(flags), PASSED_FD, *offset]);
                // Fails only if it was not passed (a guest thread overwrote the message), and then so did mmap.
                let _ = self.call(id, libc::SYS_close, [PASSED_FD, 0, 0, 0, 0, 0]);
                result
            }
        }
    }

    /// Writes to the memory of a process whatever its protection.
    ///
    /// # Errors
    /// EFAULT if nothing could be written; ESRCH.
    pub fn poke(&mut self, space: Id, addr: u64, bytes: &[u8]) -> Result<usize> {
        let tid = self.stopped_thread(space)?;
        let mut done = 0;
        while done < bytes.len() {
            let at = addr + done as u64;
            let skip = usize::try_from(at % 8).unwrap_or(0);
            let count = (8 - skip).min(bytes.len() - done);
            let Ok(word) = ptrace::peek(tid, at - skip as u64) else { break };
            let mut word = word.to_ne_bytes();
            word[skip..skip + count].copy_from_slice(&bytes[done..done + count]);
            if ptrace::poke(tid, at - skip as u64, u64::from_ne_bytes(word)).is_err() {
                break;
            }
            done += count;
        }
        if done == 0 { Err(Errno::EFAULT) } else { Ok(done) }
    }

    /// A stopped thread of a process; if all run, one has its switch end with an interruption.
    fn stopped_thread(&mut self, space: Id) -> Result<pid_t> {
        loop {
            let of_space =
                || self.tracees.values().filter(|t| t.process.id == space && t.state != TraceeState::Exiting);
            if let Some(parked) = of_space().find(|t| t.state == TraceeState::Parked) {
                return Ok(parked.tid);
            }
            let tid = of_space().map(|t| t.tid).min().ok_or(Errno::ESRCH)?;
            // Fails only if it is dead; its end is what comes then.
            let _ = ptrace::interrupt(tid);
            let status = self.wait_for(tid)?;
            self.status(tid, status);
        }
    }
}
