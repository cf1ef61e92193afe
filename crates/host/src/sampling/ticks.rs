//! Samples of CPU time: a timer of the process (ITIMER_PROF) interrupts the thread that has used up each period.

use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_abi::Result;

use super::ring::{Registers, Ring};
use crate::result::check;

static RING: Ring = Ring::new();
static ON: AtomicBool = AtomicBool::new(false);

/// Begins to sample, so many times in each second of CPU time.
///
/// # Errors
/// ENOMEM; EINVAL for a rate of 0.
pub fn start(per_second: u32) -> Result<()> {
    RING.prepare()?;
    // SAFETY: sigaction is plain data for which zero is valid; the handler has the signature that SA_SIGINFO demands and makes
    // only async-signal-safe calls. It stays for ever: a signal may be pending when the timer stops.
    let installed = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = (tick as *const ()).addr();
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
        libc::sigaction(libc::SIGPROF, &raw const action, ptr::null_mut())
    };
    check(installed.into())?;
    ON.store(true, Ordering::Relaxed);
    set_timer(1_000_000u32.checked_div(per_second).unwrap_or(0))
}

/// Ends that.
pub fn stop() {
    ON.store(false, Ordering::Relaxed);
    // An empty period is always accepted.
    let _ = set_timer(0);
}

/// What has been sampled since the last call.
pub fn ring() -> &'static Ring {
    &RING
}

fn set_timer(period_us: u32) -> Result<()> {
    let period = libc::timeval { tv_sec: 0, tv_usec: period_us.into() };
    let timer = libc::itimerval { it_interval: period, it_value: period };
    // SAFETY: reads one struct of its type.
    check(unsafe { libc::setitimer(libc::ITIMER_PROF, &raw const timer, ptr::null_mut()) }.into()).map(drop)
}

extern "C" fn tick(_signal: libc::c_int, _info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    if !ON.load(Ordering::Relaxed) {
        return;
    }
    // SAFETY: the kernel passes a valid context; errno is the thread's own, and what is interrupted must find it as it was.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        let registers = &(*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs;
        let register = |number: libc::c_int| {
            let value = usize::try_from(number).ok().and_then(|number| registers.get(number));
            value.map_or(0, |value| value.cast_unsigned())
        };
        let here = Registers { ip: register(libc::REG_RIP), sp: register(libc::REG_RSP), bp: register(libc::REG_RBP) };
        RING.push(here, [0; 2]);
        *errno = before;
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_busy_thread_is_sampled_and_an_idle_process_is_not() {
        start(250).unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        let mut seen = 0;
        while seen < 5 {
            assert!(Instant::now() < end, "{seen}");
            ring().take(|sample| seen += u32::from(!sample.stack.is_empty()));
        }
        stop();
    }
}
