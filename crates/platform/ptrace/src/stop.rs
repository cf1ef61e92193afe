//! What a stop of a thread in application code means to the sentry.

use std::sync::Arc;

use libc::pid_t;
use moat_abi::Result;
use moat_host::ptrace::{self, AUDIT_ARCH_X86_64, Status, UserRegs};
use moat_platform::{Event, ForeignAbi, GUEST_BOTTOM};

use crate::fault;
use crate::regs::guest_regs;
use crate::tracer::Tracee;

/// What a stop of a thread in application code means; `None` if nothing, and it was resumed.
pub(crate) fn stopped(tracee: &mut Tracee, status: Status) -> Result<Option<Event>> {
    let tid = tracee.tid;
    match status {
        Status::Syscall => {
            tracee.regs = stopped_regs(tid)?;
            let foreign = ptrace::syscall_arch(tid)? != AUDIT_ARCH_X86_64;
            tracee.dirty = true;
            let args = guest_regs(&tracee.regs).syscall_args();
            return Ok(Some(if foreign {
                Event::ForeignSyscall(ForeignAbi::I386)
            } else {
                Event::Syscall { nr: tracee.regs.orig_rax, args }
            }));
        }
        Status::Stop => {
            tracee.regs = stopped_regs(tid)?;
            tracee.regs.orig_rax = u64::MAX;
            tracee.dirty = false;
            return Ok(Some(Event::Interrupted));
        }
        Status::Signal(_) => {
            tracee.regs = stopped_regs(tid)?;
            tracee.regs.orig_rax = u64::MAX;
            tracee.dirty = false;
            let info = ptrace::siginfo(tid)?;
            if info.signal == libc::SIGSYS && info.code > 0 {
                return Ok(Some(vsyscall(tracee, info.addr)));
            }
            let process = Arc::clone(&tracee.process);
            let readable = |addr| addr >= GUEST_BOTTOM && process.read(addr, &mut [0]).is_ok();
            if let Some(fault) = fault::from_siginfo(&info, tracee.regs.rip, readable) {
                return Ok(Some(Event::Fault(fault)));
            }
        }
        Status::Event(_) | Status::Gone => {}
    }
    // A signal from outside: dropped.
    ptrace::sysemu(tid)?;
    Ok(None)
}

/// The registers of a thread that has stopped in application code.
///
/// A guest can load null selectors with any privilege level, which the host would refuse to set.
fn stopped_regs(tid: pid_t) -> Result<UserRegs> {
    let mut regs = ptrace::regs(tid)?;
    for selector in [&mut regs.ds, &mut regs.es, &mut regs.fs, &mut regs.gs] {
        if *selector & 3 != 3 {
            *selector = 0;
        }
    }
    Ok(regs)
}

/// The filter stopped the host's emulation of a vsyscall at `addr`, which has done the `ret` already: undoes it.
fn vsyscall(tracee: &mut Tracee, addr: u64) -> Event {
    tracee.regs.rip = addr;
    tracee.regs.rsp = tracee.regs.rsp.wrapping_sub(8);
    tracee.dirty = true;
    Event::ForeignSyscall(ForeignAbi::Vsyscall)
}
