//! Saying which call a seccomp filter refused, before this process ends.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

/// Where the report goes; -1 for nowhere.
static REPORT_FD: AtomicI32 = AtomicI32::new(-1);

/// Exit code of a process that made a refused call: 128 plus SIGSYS.
const EXIT_CODE: i32 = 128 + libc::SIGSYS;

/// Makes SIGSYS (of SECCOMP_RET_TRAP) write the number of the refused call to `log` and end the process.
///
/// `log` must stay open as long as the process runs.
///
/// # Errors
/// Of sigaction(2).
pub fn report_to(log: BorrowedFd<'static>) -> io::Result<()> {
    REPORT_FD.store(log.as_raw_fd(), Ordering::Relaxed);
    // SAFETY: sigaction is plain data for which zero is valid (empty mask, no flags); the handler has the signature
    // that SA_SIGINFO demands and makes only async-signal-safe calls.
    let result = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = refused as extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGSYS, &raw const action, ptr::null_mut())
    };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

extern "C" fn refused(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    /// `offsetof(siginfo_t, si_syscall)`: after signo, errno, code, padding and call_addr.
    const SYSCALL_OFFSET: usize = 24;
    // SAFETY: the kernel passes a valid siginfo of 128 bytes, in which SIGSYS has an int there.
    let number = unsafe { info.cast::<u8>().add(SYSCALL_OFFSET).cast::<i32>().read_unaligned() };
    let mut text = *b"seccomp: the sentry made a host call that its filter refuses: number      \n";
    let mut rest = number.unsigned_abs();
    for byte in text.iter_mut().rev().skip(1).take(5) {
        *byte = b'0' + u8::try_from(rest % 10).unwrap_or(0);
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    // SAFETY: writes a local array; _exit does not return.
    unsafe {
        libc::write(REPORT_FD.load(Ordering::Relaxed), text.as_ptr().cast(), text.len());
        libc::_exit(EXIT_CODE)
    }
}
