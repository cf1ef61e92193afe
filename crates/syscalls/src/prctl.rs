//! prctl(2), arch_prctl(2), personality(2), rseq(2).

use std::sync::atomic::{AtomicBool, Ordering};

use moat_abi::cap::{Cap, SECBIT_KEEP_CAPS, SECBIT_KEEP_CAPS_LOCKED, SECBIT_NO_CAP_AMBIENT_RAISE};
use moat_abi::prctl::*;
use moat_abi::signal::Signal;
use moat_abi::{Errno, Result};
use moat_kernel::process::group::Dumpable;
use moat_kernel::task::current::RseqArea;
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, UserPtr};
use moat_platform::{GUEST_TOP, Order, execute};

syscalls! { pub static TABLE;
    157 prctl(option: u32, a: u64, b: u64, c: u64, d: u64) async sys_prctl, partial("PR_SET_MM: EINVAL; PR_SET_VMA checked only");
    158 arch_prctl(option: u32, addr: u64) sys_arch_prctl, partial("FS, GS, CPUID; no shadow stacks");
    135 personality(persona: u32) sys_personality, partial("kept; ADDR_NO_RANDOMIZE has effect");
    334 rseq(area: u64, len: u32, flags: u32, sig: u32) async sys_rseq, full;
}

/// All base bits and their locks.
const SECUREBITS_ALL: u32 = 0xff;
const SECURE_LOCKS: u32 = 0xaa;

async fn sys_prctl(t: &mut CurrentTask, option: u32, a: u64, b: u64, c: u64, d: u64) -> SyscallResult {
    // Newer options demand zeros where they take no argument, so that these can get a meaning later; older ones ignore them.
    let rest_zero = b == 0 && c == 0 && d == 0;
    match option {
        PR_SET_NAME => return set_name(t, UserAddr::new(a)).await,
        PR_GET_NAME => {
            let mut name = [0u8; TASK_COMM_LEN];
            name.iter_mut().zip(t.comm()).take(TASK_COMM_LEN - 1).for_each(|(to, from)| *to = from);
            t.mm().write_bytes(UserAddr::new(a), &name)?;
        }
        PR_SET_PDEATHSIG => {
            let n = i32::try_from(a).map_err(|_| Errno::EINVAL)?;
            let signal = if n == 0 { None } else { Some(Signal::new(n).ok_or(Errno::EINVAL)?) };
            t.state().pdeath_signal = signal;
        }
        PR_GET_PDEATHSIG => {
            let n = t.state().pdeath_signal.map_or(0, Signal::number);
            t.mm().write(UserPtr::<i32>::new(UserAddr::new(a)), &n)?;
        }
        PR_GET_DUMPABLE => return Ok(t.group.dumpable() as u64),
        // SUID_DUMP_ROOT, 2, is only ever set by the kernel.
        PR_SET_DUMPABLE => t.group.set_dumpable(match a {
            0 => Dumpable::No,
            1 => Dumpable::Yes,
            _ => return Err(Errno::EINVAL.into()),
        }),
        PR_GET_KEEPCAPS => return Ok(u64::from(t.creds().securebits & SECBIT_KEEP_CAPS != 0)),
        PR_SET_KEEPCAPS => set_keepcaps(t, a)?,
        PR_GET_SECUREBITS => return Ok(u64::from(t.creds().securebits)),
        PR_SET_SECUREBITS => set_securebits(t, a)?,
        // Once set it can't be taken back, not even by exec.
        PR_SET_NO_NEW_PRIVS => {
            if a != 1 || !rest_zero {
                return Err(Errno::EINVAL.into());
            }
            let mut new = (**t.creds()).clone();
            new.no_new_privs = true;
            t.set_creds(new);
        }
        PR_GET_NO_NEW_PRIVS => {
            if a != 0 || !rest_zero {
                return Err(Errno::EINVAL.into());
            }
            return Ok(u64::from(t.creds().no_new_privs));
        }
        PR_CAPBSET_READ => {
            let cap = Cap::new(a).ok_or(Errno::EINVAL)?;
            return Ok(u64::from(t.creds().bounding.contains(cap)));
        }
        PR_CAPBSET_DROP => {
            let cap = Cap::new(a).ok_or(Errno::EINVAL)?;
            // A capability that was dropped from the set never comes back.
            if !t.creds().has_cap(Cap::SETPCAP) {
                return Err(Errno::EPERM.into());
            }
            let mut new = (**t.creds()).clone();
            new.bounding.remove(cap);
            t.set_creds(new);
        }
        PR_CAP_AMBIENT => return ambient(t, a, b, c == 0 && d == 0),
        PR_SET_CHILD_SUBREAPER => t.group.child_subreaper.store(a != 0, Ordering::Relaxed),
        PR_GET_CHILD_SUBREAPER => {
            let on = i32::from(t.group.child_subreaper.load(Ordering::Relaxed));
            t.mm().write(UserPtr::<i32>::new(UserAddr::new(a)), &on)?;
        }
        // Zero stands for the default of the thread, which is that of init here.
        PR_SET_TIMERSLACK => t.state().timer_slack_ns = if a == 0 { 50_000 } else { a },
        PR_GET_TIMERSLACK => return Ok(t.state().timer_slack_ns),
        PR_GET_TID_ADDRESS => {
            let addr = t.state().clear_child_tid;
            t.mm().write(UserPtr::<u64>::new(UserAddr::new(a)), &addr)?;
        }
        PR_SET_THP_DISABLE => {
            if !rest_zero {
                return Err(Errno::EINVAL.into());
            }
            t.state().thp_disabled = a != 0;
        }
        PR_GET_THP_DISABLE => {
            if a != 0 || !rest_zero {
                return Err(Errno::EINVAL.into());
            }
            return Ok(u64::from(t.state().thp_disabled));
        }
        // Yama is not there: tracing is not restricted beyond ids, and any process may be named.
        PR_SET_PTRACER => {}
        PR_SET_VMA => {
            // Names of anonymous areas are accepted and not shown: allocators set them for people who read /proc/PID/maps.
            if a != u64::from(PR_SET_VMA_ANON_NAME) {
                return Err(Errno::EINVAL.into());
            }
        }
        // rdtsc is never trapped on the way to the host: it can only be enabled.
        PR_GET_TSC => t.mm().write(UserPtr::<u32>::new(UserAddr::new(a)), &PR_TSC_ENABLE)?,
        PR_SET_TSC if a == u64::from(PR_TSC_ENABLE) => {}
        // Statistical timing is the only kind that Linux has.
        PR_GET_TIMING => return Ok(0),
        PR_SET_TIMING if a == 0 => {}
        PR_GET_SECCOMP => return Ok(crate::seccomp::mode(t)),
        PR_SET_SECCOMP => return crate::seccomp::set_by_prctl(t, a, b),
        PR_MCE_KILL | PR_SET_IO_FLUSHER if t.creds().has_root_cap(Cap::SYS_RESOURCE) || option == PR_MCE_KILL => {}
        // PR_MCE_KILL_DEFAULT: machine checks are the host's business.
        PR_MCE_KILL_GET => return Ok(2),
        // The host decides about mitigations, and has switched on what its processes need.
        PR_GET_SPECULATION_CTRL if a <= u64::from(PR_SPEC_L1D_FLUSH) => return Ok(u64::from(PR_SPEC_NOT_AFFECTED)),
        PR_GET_SPECULATION_CTRL => return Err(Errno::ENODEV.into()),
        PR_SET_SPECULATION_CTRL => return Err(Errno::ENODEV.into()),
        PR_TASK_PERF_EVENTS_DISABLE | PR_TASK_PERF_EVENTS_ENABLE => {}
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

async fn set_name(t: &mut CurrentTask, addr: UserAddr) -> SyscallResult {
    // At most 15 bytes are looked at; a longer name is cut.
    let mut raw = [0u8; TASK_COMM_LEN];
    let got = t.mm().read_partial(addr, &mut raw[..TASK_COMM_LEN - 1])?;
    let end = raw.iter().position(|b| *b == 0).unwrap_or(TASK_COMM_LEN - 1);
    // The name has no end within what could be read.
    if end > got {
        return Err(Errno::EFAULT.into());
    }
    let name = raw.get(..end).unwrap_or_default().to_vec();
    t.set_comm(name);
    Ok(0)
}

fn set_keepcaps(t: &mut CurrentTask, on: u64) -> Result<()> {
    let mut new = (**t.creds()).clone();
    match on {
        _ if new.securebits & SECBIT_KEEP_CAPS_LOCKED != 0 => return Err(Errno::EPERM),
        0 => new.securebits &= !SECBIT_KEEP_CAPS,
        1 => new.securebits |= SECBIT_KEEP_CAPS,
        _ => return Err(Errno::EINVAL),
    }
    t.set_creds(new);
    Ok(())
}

fn set_securebits(t: &mut CurrentTask, bits: u64) -> Result<()> {
    let old = t.creds().clone();
    let bits = u32::try_from(bits).map_err(|_| Errno::EPERM)?;
    // Each lock is the bit above what it locks.
    let locked = (old.securebits & SECURE_LOCKS) >> 1;
    let changes_locked = (old.securebits ^ bits) & locked != 0;
    let unlocks = old.securebits & SECURE_LOCKS & !bits != 0;
    if changes_locked || unlocks || bits & !SECUREBITS_ALL != 0 || !old.has_cap(Cap::SETPCAP) {
        return Err(Errno::EPERM);
    }
    let mut new = (*old).clone();
    new.securebits = bits;
    t.set_creds(new);
    Ok(())
}

fn ambient(t: &mut CurrentTask, operation: u64, cap: u64, rest_zero: bool) -> SyscallResult {
    let operation = u32::try_from(operation).map_err(|_| Errno::EINVAL)?;
    let mut new = (**t.creds()).clone();
    if operation == PR_CAP_AMBIENT_CLEAR_ALL {
        if cap != 0 || !rest_zero {
            return Err(Errno::EINVAL.into());
        }
        new.ambient = moat_abi::cap::CapSet::EMPTY;
        t.set_creds(new);
        return Ok(0);
    }
    if !rest_zero {
        return Err(Errno::EINVAL.into());
    }
    let cap = Cap::new(cap).ok_or(Errno::EINVAL)?;
    match operation {
        PR_CAP_AMBIENT_IS_SET => return Ok(u64::from(new.ambient.contains(cap))),
        PR_CAP_AMBIENT_RAISE => {
            // Ambient capabilities are a part of both sets, and may be forbidden as a whole.
            if !new.permitted.contains(cap)
                || !new.inheritable.contains(cap)
                || new.securebits & SECBIT_NO_CAP_AMBIENT_RAISE != 0
            {
                return Err(Errno::EPERM.into());
            }
            new.ambient.insert(cap);
        }
        PR_CAP_AMBIENT_LOWER => new.ambient.remove(cap),
        _ => return Err(Errno::EINVAL.into()),
    }
    t.set_creds(new);
    Ok(0)
}

fn sys_arch_prctl(t: &mut CurrentTask, option: u32, addr: u64) -> SyscallResult {
    match option {
        ARCH_SET_FS | ARCH_SET_GS => {
            // An address of the kernel's half would fault when it is loaded.
            if addr >= GUEST_TOP {
                return Err(Errno::EPERM.into());
            }
            let mut regs = t.thread().regs();
            if option == ARCH_SET_FS {
                regs.fs_base = addr;
            } else {
                regs.gs_base = addr;
            }
            t.thread().set_regs(&regs);
        }
        ARCH_GET_FS | ARCH_GET_GS => {
            let regs = t.thread().regs();
            let base = if option == ARCH_GET_FS { regs.fs_base } else { regs.gs_base };
            t.mm().write(UserPtr::<u64>::new(UserAddr::new(addr)), &base)?;
        }
        ARCH_GET_CPUID => return Ok(1),
        ARCH_SET_CPUID => return Err(Errno::ENODEV.into()),
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}

fn sys_personality(t: &mut CurrentTask, persona: u32) -> SyscallResult {
    let mut s = t.state();
    let old = s.personality;
    // 0xffffffff only asks (personality(2)).
    if persona != PER_GET {
        s.personality = persona;
    }
    Ok(u64::from(old))
}

/// `RSEQ_FLAG_UNREGISTER`.
const UNREGISTER: u32 = 1;
/// The first size of `struct rseq`, and its alignment.
const ORIGINAL_SIZE: u32 = 32;

/// An area has been registered with the host.
static HOST_HAS_RSEQ: AtomicBool = AtomicBool::new(false);

async fn sys_rseq(t: &mut CurrentTask, addr: u64, len: u32, flags: u32, sig: u32) -> SyscallResult {
    if flags & UNREGISTER != 0 {
        if flags != UNREGISTER {
            return Err(Errno::EINVAL.into());
        }
        let area = t.rseq.ok_or(Errno::EINVAL)?;
        if area.addr != addr || area.len != len {
            return Err(Errno::EINVAL.into());
        }
        if area.sig != sig {
            return Err(Errno::EPERM.into());
        }
        execute(t.thread(), Order::Rseq { addr, len, flags, sig }).await?;
        t.rseq = None;
        return Ok(0);
    }
    if flags != 0 {
        return Err(Errno::EINVAL.into());
    }
    // A second registration fails in any case; the errno says in what it differs from the first.
    if let Some(area) = t.rseq {
        if area.addr != addr || area.len != len {
            return Err(Errno::EINVAL.into());
        }
        return Err(if area.sig != sig { Errno::EPERM } else { Errno::EBUSY }.into());
    }
    if len < ORIGINAL_SIZE || !addr.is_multiple_of(u64::from(ORIGINAL_SIZE)) {
        return Err(Errno::EINVAL.into());
    }
    if addr >= GUEST_TOP {
        return Err(Errno::EFAULT.into());
    }
    let order = Order::Rseq { addr, len, flags, sig };
    // Nothing is left that the host could refuse, once it has shown that it has rseq at all.
    let size = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    // The host writes to the area at once, so all of it has to be writable.
    let certain = len == ORIGINAL_SIZE && t.mm().writable_prefix(UserAddr::new(addr), size) == size;
    if certain && HOST_HAS_RSEQ.load(Ordering::Relaxed) {
        // Deferred: registering costs no round trip of its own, and every thread does it at its start.
        t.thread().defer(order);
    } else {
        execute(t.thread(), order).await?;
        HOST_HAS_RSEQ.store(true, Ordering::Relaxed);
    }
    t.rseq = Some(RseqArea { addr, len, sig });
    Ok(0)
}
