//! ptrace(2) and waitpid(2), typed: what the ptrace platform's one tracer thread calls.
//!
//! ptrace(2) binds a tracee to the host *thread* that attached to it, so every call here must come from that thread; another
//! gets ESRCH. ESRCH also means that the tracee was killed.

use std::ffi::c_void;
use std::mem::{MaybeUninit, size_of};

use libc::{c_int, c_uint, pid_t};
use moat_abi::{Errno, Result};

use crate::last_errno;

pub use libc::user_regs_struct as UserRegs;

const PTRACE_SYSEMU: c_uint = 31;
const PTRACE_GET_RSEQ_CONFIGURATION: c_uint = 0x420f;
const NT_X86_XSTATE: usize = 0x202;
/// The FXSAVE area alone (elf.h).
const NT_PRFPREG: usize = 2;
const FXSAVE: usize = 512;
const XSAVE_HEADER: usize = 64;
/// Bits of the header: what is not in its initial state.
const X87: u64 = 1;
const SSE: u64 = 2;
/// The sixteen XMM registers in the FXSAVE area.
const XMM: usize = 160;
const XMM_END: usize = XMM + 16 * 16;

/// `audit.h`'s AUDIT_ARCH_X86_64.
pub const AUDIT_ARCH_X86_64: u32 = 0xc000_003e;

/// A change of state of a tracee or child, from waitpid(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is gone, and reaped: exited or killed.
    Gone,
    /// It stopped before the delivery of this signal.
    Signal(i32),
    /// It stopped at the entry of a system call (PTRACE_O_TRACESYSGOOD).
    Syscall,
    /// PTRACE_EVENT_STOP: an interrupt, a group stop, or the first stop of a tracee attached by clone.
    Stop,
    /// Another PTRACE_EVENT_*.
    Event(i32),
}

impl Status {
    fn from_raw(raw: c_int) -> Status {
        if libc::WIFEXITED(raw) || libc::WIFSIGNALED(raw) {
            return Status::Gone;
        }
        let (signal, event) = ((raw >> 8) & 0xff, raw >> 16);
        match (signal, event) {
            (_, libc::PTRACE_EVENT_STOP) => Status::Stop,
            (s, 0) if s == libc::SIGTRAP | 0x80 => Status::Syscall,
            (s, 0) => Status::Signal(s),
            (_, e) => Status::Event(e),
        }
    }
}

/// Whether a wait blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Until something changes.
    Block,
    /// Look only.
    Poll,
}

/// Waits for any tracee or child of the calling *thread* (__WNOTHREAD); `None` if nothing changed.
///
/// # Errors
/// ECHILD if there are none.
pub fn wait_any(wait: Wait) -> Result<Option<(pid_t, Status)>> {
    let flags = libc::__WALL | libc::__WNOTHREAD | if wait == Wait::Poll { libc::WNOHANG } else { 0 };
    loop {
        let mut raw = 0;
        // SAFETY: `raw` is a live c_int.
        match unsafe { libc::waitpid(-1, &raw mut raw, flags) } {
            0 => return Ok(None),
            -1 => match last_errno() {
                Errno::EINTR => {}
                e => return Err(e),
            },
            pid => return Ok(Some((pid, Status::from_raw(raw)))),
        }
    }
}

/// One ptrace request.
///
/// # Safety
/// `addr` and `data` are what `request` takes: live memory of the right size where it reads or writes some.
unsafe fn ptrace(request: c_uint, tid: pid_t, addr: usize, data: *mut c_void) -> Result<u64> {
    // SAFETY: passed on to the caller. The raw call has no special cases for PEEK requests, as glibc's has.
    let ret =
        unsafe { libc::syscall(libc::SYS_ptrace, libc::c_long::from(request), libc::c_long::from(tid), addr, data) };
    if ret < 0 { Err(last_errno()) } else { Ok(ret.cast_unsigned()) }
}

fn number(n: usize) -> *mut c_void {
    std::ptr::without_provenance_mut(n)
}

/// Attaches to `tid` without stopping it; `options` are PTRACE_O_*.
///
/// # Errors
/// EPERM, ESRCH.
pub fn seize(tid: pid_t, options: c_int) -> Result<()> {
    let options = usize::try_from(options).map_err(|_| Errno::EINVAL)?;
    // SAFETY: no memory is passed.
    unsafe { ptrace(libc::PTRACE_SEIZE, tid, 0, number(options)) }.map(drop)
}

/// Makes a running tracee stop with [`Status::Stop`] soon, if nothing else stops it first.
///
/// # Errors
/// ESRCH.
pub fn interrupt(tid: pid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    unsafe { ptrace(libc::PTRACE_INTERRUPT, tid, 0, number(0)) }.map(drop)
}

/// Resumes, dropping the signal it stopped for. System calls are executed and not reported.
///
/// # Errors
/// ESRCH.
pub fn cont(tid: pid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    unsafe { ptrace(libc::PTRACE_CONT, tid, 0, number(0)) }.map(drop)
}

/// Resumes, dropping the signal it stopped for. The next system call is reported and not executed.
///
/// # Errors
/// ESRCH.
pub fn sysemu(tid: pid_t) -> Result<()> {
    // SAFETY: no memory is passed.
    unsafe { ptrace(PTRACE_SYSEMU, tid, 0, number(0)) }.map(drop)
}

/// The general registers of a stopped tracee.
///
/// # Errors
/// ESRCH.
pub fn regs(tid: pid_t) -> Result<UserRegs> {
    let mut regs = MaybeUninit::<UserRegs>::uninit();
    // SAFETY: PTRACE_GETREGS fills a user_regs_struct, which `regs` has room for.
    unsafe { ptrace(libc::PTRACE_GETREGS, tid, 0, regs.as_mut_ptr().cast())? };
    // SAFETY: the request succeeded, and so filled all of it.
    Ok(unsafe { regs.assume_init() })
}

/// Sets the general registers of a stopped tracee.
///
/// # Errors
/// EIO for a base or selector that user mode cannot have, after some registers were set; ESRCH.
pub fn set_regs(tid: pid_t, regs: &UserRegs) -> Result<()> {
    // SAFETY: PTRACE_SETREGS only reads the user_regs_struct.
    unsafe { ptrace(libc::PTRACE_SETREGS, tid, 0, std::ptr::from_ref(regs).cast_mut().cast()) }.map(drop)
}

/// Reads the extended state as an XSAVE image in standard format; gives its length. On a processor without XSAVE it has
/// the FXSAVE area, and a header that says so.
///
/// # Errors
/// ESRCH; EFAULT for a buffer that is shorter than such an image.
pub fn xstate(tid: pid_t, buf: &mut [u8]) -> Result<usize> {
    match get_regset(tid, NT_X86_XSTATE, buf) {
        Err(Errno::ENODEV) => {
            let image = buf.get_mut(..FXSAVE + XSAVE_HEADER).ok_or(Errno::EFAULT)?;
            let (legacy, header) = image.split_at_mut(FXSAVE);
            get_regset(tid, NT_PRFPREG, legacy)?;
            header.fill(0);
            header[..8].copy_from_slice(&(X87 | SSE).to_le_bytes());
            Ok(image.len())
        }
        other => other,
    }
}

/// Sets the extended state from a whole XSAVE image in standard format.
///
/// # Errors
/// EINVAL for an image that the processor would refuse; EFAULT for one of a wrong size; ESRCH.
pub fn set_xstate(tid: pid_t, image: &[u8]) -> Result<()> {
    match set_regset(tid, NT_X86_XSTATE, image) {
        Err(Errno::ENODEV) => set_regset(tid, NT_PRFPREG, &legacy_state(image).ok_or(Errno::EFAULT)?),
        other => other,
    }
}

/// The FXSAVE area of an XSAVE image, in which what the header leaves out is in its initial state.
fn legacy_state(image: &[u8]) -> Option<[u8; FXSAVE]> {
    let mut legacy: [u8; FXSAVE] = image.get(..FXSAVE)?.try_into().ok()?;
    let features = u64::from_le_bytes(image.get(FXSAVE..FXSAVE + 8)?.try_into().ok()?);
    if features & X87 == 0 {
        // All but MXCSR and its mask, and what follows the eight registers.
        legacy[..24].fill(0);
        legacy[32..XMM].fill(0);
        legacy[..2].copy_from_slice(&0x37f_u16.to_le_bytes());
    }
    if features & SSE == 0 {
        legacy[XMM..XMM_END].fill(0);
    }
    Some(legacy)
}

/// Reads a set of registers; gives the length.
fn get_regset(tid: pid_t, kind: usize, buf: &mut [u8]) -> Result<usize> {
    let mut iov = libc::iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: the iovec describes `buf`, which is writable.
    unsafe { ptrace(libc::PTRACE_GETREGSET, tid, kind, (&raw mut iov).cast())? };
    Ok(iov.iov_len)
}

fn set_regset(tid: pid_t, kind: usize, image: &[u8]) -> Result<()> {
    let mut iov = libc::iovec { iov_base: image.as_ptr().cast_mut().cast(), iov_len: image.len() };
    // SAFETY: PTRACE_SETREGSET only reads what the iovec describes, which is `image`.
    unsafe { ptrace(libc::PTRACE_SETREGSET, tid, kind, (&raw mut iov).cast()) }.map(drop)
}

/// The parts of a siginfo that an exception fills.
#[derive(Clone, Copy, Debug)]
pub struct SigInfo {
    /// `si_signo`.
    pub signal: i32,
    /// `si_code`: above 0 if the kernel itself sent it.
    pub code: i32,
    /// `si_addr` of a fault, `si_call_addr` of a SIGSYS.
    pub addr: u64,
}

/// The siginfo of a tracee that is in a signal-delivery stop.
///
/// # Errors
/// EINVAL if it is in another stop; ESRCH.
pub fn siginfo(tid: pid_t) -> Result<SigInfo> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: PTRACE_GETSIGINFO fills a siginfo_t, which `info` has room for.
    unsafe { ptrace(libc::PTRACE_GETSIGINFO, tid, 0, info.as_mut_ptr().cast())? };
    // SAFETY: a siginfo_t is plain data, zeroed above and then filled; si_addr is at the same place as si_call_addr.
    let (info, addr) = unsafe { (info.assume_init(), info.assume_init_ref().si_addr()) };
    Ok(SigInfo { signal: info.si_signo, code: info.si_code, addr: addr.addr() as u64 })
}

/// The AUDIT_ARCH_* of the system call that a tracee is stopped in (linux/ptrace.h, struct ptrace_syscall_info).
///
/// # Errors
/// ESRCH.
pub fn syscall_arch(tid: pid_t) -> Result<u32> {
    let mut info = [0u32; 22];
    // SAFETY: the kernel writes at most the size passed as `addr`, which is that of `info`.
    unsafe { ptrace(libc::PTRACE_GET_SYSCALL_INFO, tid, size_of::<[u32; 22]>(), info.as_mut_ptr().cast())? };
    Ok(info[1])
}

/// A registered rseq(2) area: address, length and signature.
///
/// # Errors
/// ESRCH; EIO where the host has no rseq, or can't say (before Linux 5.13).
pub fn rseq_configuration(tid: pid_t) -> Result<(u64, u32, u32)> {
    // struct ptrace_rseq_configuration: u64 pointer, u32 size, u32 signature, u32 flags, u32 pad.
    let mut conf = [0u64; 3];
    // SAFETY: the kernel writes at most the size passed as `addr`, which is that of `conf`.
    unsafe { ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, size_of::<[u64; 3]>(), conf.as_mut_ptr().cast())? };
    let low = |v: u64| (v & 0xffff_ffff) as u32;
    Ok((conf[0], low(conf[1]), low(conf[1] >> 32)))
}

/// What the C library has registered of the calling thread: where the host can't say, which it can from Linux 5.13 on.
///
/// None where the C library uses no rseq(2): one before glibc 2.35, or a host without it.
#[must_use]
pub fn rseq_of_c_library() -> Option<(u64, u32, u32)> {
    // The only length that hosts took which can't say, and the signature of glibc on x86-64.
    const LENGTH: u32 = 32;
    const SIGNATURE: u32 = 0x5305_3053;
    let (offset, size, thread): (*const i64, *const u32, i64);
    // SAFETY: reads two entries of the table of global symbols, which are null for a symbol that is not there, and the
    // word at the thread pointer, which is the pointer itself (the ABI's, for thread-local storage).
    unsafe {
        std::arch::asm!(
            ".weak __rseq_offset",
            ".weak __rseq_size",
            "mov {offset}, qword ptr [rip + __rseq_offset@GOTPCREL]",
            "mov {size}, qword ptr [rip + __rseq_size@GOTPCREL]",
            "mov {thread}, qword ptr fs:[0]",
            offset = out(reg) offset,
            size = out(reg) size,
            thread = out(reg) thread,
            options(nostack, readonly, preserves_flags),
        );
    }
    // SAFETY: constants of glibc's, `ptrdiff_t` and `unsigned int`, if they are there.
    let (offset, size) = unsafe { (offset.as_ref()?, size.as_ref()?) };
    (*size != 0).then(|| (thread.wrapping_add(*offset).cast_unsigned(), LENGTH, SIGNATURE))
}

/// Writes one word to a stopped tracee, whatever the protection of the page (breaks copy-on-write).
///
/// # Errors
/// EIO or EFAULT if nothing writable can be put there; ESRCH.
pub fn poke(tid: pid_t, addr: u64, word: u64) -> Result<()> {
    let addr = usize::try_from(addr).map_err(|_| Errno::EFAULT)?;
    let word = usize::try_from(word).map_err(|_| Errno::EFAULT)?;
    // SAFETY: both are plain numbers for this request.
    unsafe { ptrace(libc::PTRACE_POKEDATA, tid, addr, number(word)) }.map(drop)
}

/// Reads one word of a stopped tracee, whatever the protection of the page.
///
/// # Errors
/// EIO if the address is not mapped; ESRCH.
pub fn peek(tid: pid_t, addr: u64) -> Result<u64> {
    let addr = usize::try_from(addr).map_err(|_| Errno::EFAULT)?;
    let mut word = 0u64;
    // SAFETY: the raw system call stores the word at `data`, which is `word`.
    unsafe { ptrace(libc::PTRACE_PEEKDATA, tid, addr, (&raw mut word).cast())? };
    Ok(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_header_leaves_out_is_initial() {
        let mut image = [0xff; FXSAVE + XSAVE_HEADER];
        image[FXSAVE..].fill(0);
        let neither = legacy_state(&image).unwrap();
        assert_eq!(
            (&neither[..2], &neither[24..32], neither[32], neither[XMM]),
            (&[0x7f, 3][..], &[0xff; 8][..], 0, 0)
        );
        image[FXSAVE] = 3;
        assert_eq!(legacy_state(&image).unwrap(), [0xff; FXSAVE]);
        assert_eq!(legacy_state(&image[..FXSAVE]), None);
    }

    #[test]
    fn the_c_librarys_rseq_is_what_the_host_knows() {
        let Some((addr, len, sig)) = rseq_of_c_library() else { return };
        let rseq = |flags: u32| {
            // SAFETY: takes back the calling thread's own registration, and makes it again.
            unsafe { libc::syscall(libc::SYS_rseq, addr, len, flags, sig) }
        };
        assert_eq!((rseq(1), rseq(0)), (0, 0), "{addr:#x}");
    }
}
