//! [`Fault`]s from the siginfo of a signal-delivery stop.

use moat_abi::siginfo::{BUS_ADRALN, FPE_INTDIV, FPE_INTOVF, SEGV_ACCERR, SEGV_PKUERR, SI_KERNEL};
use moat_host::ptrace::SigInfo;
use moat_platform::Fault;

// Vectors (Intel SDM volume 3, table 6-1).
const DIVIDE: u64 = 0;
const DEBUG: u64 = 1;
const BREAKPOINT: u64 = 3;
const OVERFLOW: u64 = 4;
const INVALID_OPCODE: u64 = 6;
const STACK: u64 = 12;
const PROTECTION: u64 = 13;
const PAGE_FAULT: u64 = 14;
const ALIGNMENT: u64 = 17;
const SIMD: u64 = 19;

// Page-fault error code bits.
const PRESENT: u64 = 1;
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 16;
const KEY: u64 = 32;

/// The fault that `info` tells of, or `None` if the signal was sent by a process and not by the processor.
///
/// The vector and the error code are derived from the signal's code. `readable` says whether the byte at an address can
/// be read: a fault on a readable byte was a write (or the byte changed meanwhile).
pub(crate) fn from_siginfo(info: &SigInfo, rip: u64, readable: impl FnOnce(u64) -> bool) -> Option<Fault> {
    if info.code <= 0 {
        return None;
    }
    let page_fault = |present: bool| {
        let access = match info.addr {
            addr if addr == rip => FETCH,
            addr if readable(addr) => WRITE,
            _ => 0,
        };
        (PAGE_FAULT, USER | access | if present { PRESENT } else { 0 })
    };
    let (trapno, err) = match (info.signal, info.code) {
        (libc::SIGSEGV, SI_KERNEL) => (PROTECTION, 0),
        (libc::SIGSEGV, SEGV_PKUERR) => (PAGE_FAULT, USER | PRESENT | KEY),
        (libc::SIGSEGV, code) => page_fault(code == SEGV_ACCERR),
        (libc::SIGBUS, SI_KERNEL) => (STACK, 0),
        (libc::SIGBUS, BUS_ADRALN) => (ALIGNMENT, 0),
        (libc::SIGBUS, _) => page_fault(false),
        (libc::SIGFPE, FPE_INTDIV) => (DIVIDE, 0),
        (libc::SIGFPE, FPE_INTOVF) => (OVERFLOW, 0),
        (libc::SIGFPE, _) => (SIMD, 0),
        (libc::SIGILL, _) => (INVALID_OPCODE, 0),
        (libc::SIGTRAP, SI_KERNEL) => (BREAKPOINT, 0),
        (libc::SIGTRAP, _) => (DEBUG, 0),
        _ => return None,
    };
    Some(Fault { signal: info.signal, code: info.code, addr: info.addr, trapno, err })
}

/// The fault that a processor reports for registers that user mode cannot have.
pub(crate) fn protection() -> Fault {
    Fault { signal: libc::SIGSEGV, code: SI_KERNEL, addr: 0, trapno: PROTECTION, err: 0 }
}
