//! ptrace(2): what a tracer asks.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::ptrace::*;
use moat_abi::siginfo::{AUDIT_ARCH_X86_64, SI_USER, SigInfo};
use moat_abi::signal::{SigSet, Signal};
use moat_abi::{Errno, Result, elf};
use moat_mm::{UserAddr, UserPtr};
use moat_platform::{GUEST_TOP, GuestThread};
use zerocopy::{FromBytes, IntoBytes};

use crate::ptrace::bond::{detach, link};
use crate::ptrace::{Run, StopKind, Trace, TraceStop, access, regs};
use crate::signal::send::{Origin, Target};
use crate::task::{CurrentTask, Task};

const NT_PRSTATUS: u64 = elf::NT_PRSTATUS as u64;
const NT_PRFPREG: u64 = elf::NT_PRFPREG as u64;
const NT_X86_XSTATE: u64 = elf::NT_X86_XSTATE as u64;
const FPREGS: usize = 512;

/// ptrace(2).
///
/// # Errors
/// ESRCH for what is no stopped tracee of the caller; EPERM; EIO for bad addresses and requests; EFAULT.
pub fn ptrace(t: &mut CurrentTask, request: u32, pid: i32, addr: u64, data: u64) -> Result<u64> {
    // Made by the tracee itself: there is nobody to look up, and `pid` is ignored.
    if request == PTRACE_TRACEME {
        return trace_me(t);
    }
    let task = t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::ESRCH)?;
    match request {
        PTRACE_ATTACH => return attach(t, &task, PtraceOptions::empty(), false),
        PTRACE_SEIZE => {
            if addr != 0 {
                return Err(Errno::EIO);
            }
            let bits = u32::try_from(data).map_err(|_| Errno::EIO)?;
            let options = PtraceOptions::from_bits(bits).ok_or(Errno::EIO)?;
            return attach(t, &task, options, true);
        }
        _ => {}
    }
    check_tracee(t, &task)?;
    // These two are for a tracee that runs as well; all others need it stopped.
    match request {
        PTRACE_INTERRUPT => return interrupt(&task),
        PTRACE_KILL => {
            let _ = task.group.send(
                Target::Process,
                SigInfo::kill(Signal::SIGKILL, SI_USER, t.tgid(), t.creds().uid),
                Origin::Outside,
            );
            return Ok(0);
        }
        _ => {}
    }
    let stop = stopped(&task)?;
    match request {
        PTRACE_PEEKTEXT | PTRACE_PEEKDATA => {
            let mm = task.mm_of().ok_or(Errno::EIO)?;
            // The call itself writes the word to `data`: giving it as the result is the C library's doing.
            let word = mm.read(UserPtr::<u64>::new(UserAddr::new(addr))).map_err(|_| Errno::EIO)?;
            write(t, data, word.as_bytes())
        }
        PTRACE_POKETEXT | PTRACE_POKEDATA => {
            let mm = task.mm_of().ok_or(Errno::EIO)?;
            // Also where the tracee may not write: breakpoints go into its code.
            match mm.write_forced(UserAddr::new(addr), &data.to_ne_bytes()) {
                Ok(8) => Ok(0),
                _ => Err(Errno::EIO),
            }
        }
        PTRACE_PEEKUSR => peek_user(t, &task, addr, data),
        PTRACE_POKEUSR => poke_user(&task, addr, data),
        PTRACE_GETREGS => {
            let user = with_thread(&task, |th| Ok(regs::to_user(&th.regs())))?;
            write(t, data, user.as_bytes())
        }
        PTRACE_SETREGS => {
            let user = t.mm().read(UserPtr::<UserRegs>::new(UserAddr::new(data)))?;
            set_user_regs(&task, &user)
        }
        // The first 512 bytes of the extended state are the legacy area.
        PTRACE_GETFPREGS => {
            let fpu = with_thread(&task, |th| th.fpu())?;
            write(t, data, fpu.get(..FPREGS).ok_or(Errno::EIO)?)
        }
        PTRACE_SETFPREGS => {
            let mut image = [0; FPREGS];
            t.mm().read_bytes(UserAddr::new(data), &mut image)?;
            set_fpregs(&task, &image)
        }
        PTRACE_GETREGSET => get_regset(t, &task, addr, data),
        PTRACE_SETREGSET => set_regset(t, &task, addr, data),
        PTRACE_SETOPTIONS => {
            let bits = u32::try_from(data).map_err(|_| Errno::EINVAL)?;
            let options = PtraceOptions::from_bits(bits).ok_or(Errno::EINVAL)?;
            with_trace(&task, |trace| trace.options = options)?;
            Ok(0)
        }
        PTRACE_GETEVENTMSG => {
            let message = with_trace(&task, |trace| trace.message)?;
            write(t, data, message.as_bytes())
        }
        PTRACE_GETSIGINFO => {
            // EINVAL is how a tracer by PTRACE_ATTACH tells a group stop from a signal's; one by PTRACE_SEIZE has an event for it.
            if stop.kind == StopKind::Group && stop.code >> 8 == 0 {
                return Err(Errno::EINVAL);
            }
            write(t, data, stop.info.as_bytes())
        }
        PTRACE_SETSIGINFO => {
            let info = t.mm().read(UserPtr::<SigInfo>::new(UserAddr::new(data)))?;
            with_trace(&task, |trace| {
                if let Some(s) = trace.stop.as_mut() {
                    s.info = info;
                }
            })?;
            Ok(0)
        }
        PTRACE_PEEKSIGINFO => peek_siginfo(t, &task, addr, data),
        PTRACE_GETSIGMASK => {
            // `addr` is the size of the set: the kernel's, not the C library's.
            if addr != 8 {
                return Err(Errno::EINVAL);
            }
            let mask = task.group.signals.lock().threads.get(&task.id).map_or(SigSet::EMPTY, |x| x.blocked);
            write(t, data, mask.as_bytes())
        }
        PTRACE_SETSIGMASK => {
            if addr != 8 {
                return Err(Errno::EINVAL);
            }
            let mask = t.mm().read(UserPtr::<SigSet>::new(UserAddr::new(data)))?;
            task.group.signals.lock().set_blocked(task.id, mask);
            Ok(0)
        }
        PTRACE_GET_SYSCALL_INFO => syscall_info(t, &task, &stop, addr, data),
        PTRACE_LISTEN => listen(&task, &stop),
        PTRACE_CONT => resume(&task, Run::Free, data),
        PTRACE_SYSCALL => resume(&task, Run::ToSyscall, data),
        PTRACE_SYSEMU => resume(&task, Run::Emulate, data),
        PTRACE_SINGLESTEP => resume(&task, Run::Step, data),
        PTRACE_DETACH => {
            let signal = signal_argument(data)?;
            detach(t.task(), &task, signal);
            Ok(0)
        }
        PTRACE_ARCH_PRCTL => arch_prctl(t, &task, addr, data),
        _ => Err(Errno::EIO),
    }
}

fn write(t: &CurrentTask, addr: u64, bytes: &[u8]) -> Result<u64> {
    t.mm().write_bytes(UserAddr::new(addr), bytes)?;
    Ok(0)
}

fn signal_argument(data: u64) -> Result<i32> {
    let n = i32::try_from(data).map_err(|_| Errno::EIO)?;
    if n == 0 || Signal::new(n).is_some() { Ok(n) } else { Err(Errno::EIO) }
}

fn with_trace<R>(task: &Task, f: impl FnOnce(&mut Trace) -> R) -> Result<R> {
    let mut s = task.group.signals.lock();
    s.threads.get_mut(&task.id).and_then(|x| x.trace.as_deref_mut()).map(f).ok_or(Errno::ESRCH)
}

fn with_thread<R>(task: &Task, f: impl FnOnce(&mut dyn GuestThread) -> Result<R>) -> Result<R> {
    // Lent for the time of a stop only.
    let mut parked = task.parked.lock();
    f(parked.as_deref_mut().ok_or(Errno::ESRCH)?)
}

fn check_tracee(t: &CurrentTask, task: &Task) -> Result<()> {
    let mine = with_trace(task, |trace| trace.tracer.upgrade().is_some_and(|x| Arc::ptr_eq(&x, t.task())))?;
    if mine { Ok(()) } else { Err(Errno::ESRCH) }
}

fn stopped(task: &Task) -> Result<TraceStop> {
    // A tracee that listens counts as running.
    with_trace(task, |trace| if trace.listening { None } else { trace.stop })?.ok_or(Errno::ESRCH)
}

fn trace_me(t: &mut CurrentTask) -> Result<u64> {
    if t.traced.load(Ordering::Relaxed) {
        return Err(Errno::EPERM);
    }
    // The thread that made this process, or another of its process if that one has ended.
    let parent = {
        let family = t.kernel().family.lock();
        let node = family.node(t.group.id).ok_or(Errno::ESRCH)?;
        let group = node.parent.and_then(|p| family.node(p)).map(|n| n.group.clone());
        group.and_then(|g| g.thread(node.parent_task).or_else(|| g.any_thread()))
    };
    // The init of a container has no parent: as on Linux the call succeeds and nobody traces.
    let Some(parent) = parent else { return Ok(0) };
    link(&parent, t.task(), Trace::new(&parent, PtraceOptions::empty(), false));
    Ok(0)
}

fn attach(t: &CurrentTask, task: &Arc<Task>, options: PtraceOptions, seize: bool) -> Result<u64> {
    // A stopped thread could not be resumed by its own process if that waited for it.
    if Arc::ptr_eq(&task.group, &t.group) {
        return Err(Errno::EPERM);
    }
    access::check(t.task(), t.creds(), task, access::Ids::Real)?;
    if task.traced.load(Ordering::Relaxed) {
        return Err(Errno::EPERM);
    }
    // It has ended, and only its zombie is left.
    if task.group.thread(task.id).is_none() {
        return Err(Errno::EPERM);
    }
    link(t.task(), task, Trace::new(t.task(), options, seize));
    let group = task.group.clone();
    // The stop by which waitpid(2) tells of the attachment.
    if !seize {
        group.send(
            Target::Thread(task.id),
            SigInfo::kill(Signal::SIGSTOP, SI_USER, t.tgid(), t.creds().uid),
            Origin::Outside,
        )?;
    }
    // A thread that is in a group stop passes over into a ptrace stop.
    {
        let mut s = group.signals.lock();
        if let Some(th) = s.threads.get_mut(&task.id)
            && th.stopped
        {
            th.stopped = false;
            th.stop_pending = true;
            s.wake(task.id);
        }
    }
    group.stop_queue.wake_all();
    Ok(0)
}

fn interrupt(task: &Task) -> Result<u64> {
    let mut s = task.group.signals.lock();
    let trace = s.threads.get_mut(&task.id).and_then(|x| x.trace.as_deref_mut()).ok_or(Errno::ESRCH)?;
    if !trace.seized {
        return Err(Errno::EIO);
    }
    trace.interrupt = true;
    // A tracee that listens leaves its stop, to make the new one.
    if std::mem::take(&mut trace.listening) {
        trace.stop = None;
    }
    s.wake(task.id);
    drop(s);
    task.group.stop_queue.wake_all();
    Ok(0)
}

fn listen(task: &Task, stop: &TraceStop) -> Result<u64> {
    if stop.code >> 8 != PTRACE_EVENT_STOP {
        return Err(Errno::EIO);
    }
    let again = with_trace(task, |trace| {
        trace.listening = true;
        // A change that came before is told at once.
        if trace.notify {
            trace.listening = false;
            trace.stop = None;
        }
        trace.notify
    })?;
    if again {
        task.group.signals.lock().wake(task.id);
        task.group.stop_queue.wake_all();
    }
    Ok(0)
}

fn resume(task: &Task, run: Run, data: u64) -> Result<u64> {
    let signal = signal_argument(data)?;
    {
        let mut s = task.group.signals.lock();
        let trace = s.threads.get_mut(&task.id).and_then(|x| x.trace.as_deref_mut()).ok_or(Errno::ESRCH)?;
        let stop = trace.stop.take().ok_or(Errno::ESRCH)?;
        trace.run = run;
        trace.resume_signal = signal;
        // For the same signal its siginfo counts, as PTRACE_SETSIGINFO may have changed it.
        trace.resume_info = (stop.info.si_signo == signal && signal != 0).then_some(stop.info);
        s.recalc(task.id);
    }
    task.group.stop_queue.wake_all();
    Ok(0)
}

/// Sets registers one after the other, as `genregs_set` does: what comes before a segment base that can't be is set.
fn set_user_regs(task: &Task, user: &UserRegs) -> Result<u64> {
    with_thread(task, |th| {
        let old = th.regs();
        let mut new = regs::from_user(user, &old);
        let (bad_fs, bad_gs) = (new.fs_base >= GUEST_TOP, new.gs_base >= GUEST_TOP);
        if bad_fs {
            new.fs_base = old.fs_base;
        }
        if bad_fs || bad_gs {
            new.gs_base = old.gs_base;
        }
        th.set_regs(&new);
        if bad_fs || bad_gs { Err(Errno::EIO) } else { Ok(0) }
    })
}

fn peek_user(t: &CurrentTask, task: &Task, addr: u64, data: u64) -> Result<u64> {
    if !addr.is_multiple_of(8) || addr >= USER_SIZE {
        return Err(Errno::EIO);
    }
    if let Some(n) = debug_register(addr) {
        let word = with_trace(task, |trace| trace.debug.get(n))?;
        return write(t, data, word.as_bytes());
    }
    let user = with_thread(task, |th| Ok(regs::to_user(&th.regs())))?;
    let at = usize::try_from(addr).map_err(|_| Errno::EIO)?;
    let word = user.as_bytes().get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
    write(t, data, word.as_bytes())
}

/// The debug register at an offset of `struct user`.
fn debug_register(addr: u64) -> Option<usize> {
    addr.checked_sub(USER_DEBUGREG_OFFSET).and_then(|at| usize::try_from(at / 8).ok())
}

fn poke_user(task: &Task, addr: u64, data: u64) -> Result<u64> {
    if !addr.is_multiple_of(8) || addr >= USER_SIZE {
        return Err(Errno::EIO);
    }
    let at = usize::try_from(addr).map_err(|_| Errno::EIO)?;
    if let Some(n) = debug_register(addr) {
        with_trace(task, |trace| trace.debug.set(n, data))??;
        return Ok(0);
    }
    let mut user = with_thread(task, |th| Ok(regs::to_user(&th.regs())))?;
    match user.as_mut_bytes().get_mut(at..at + 8) {
        Some(place) => place.copy_from_slice(&data.to_ne_bytes()),
        None => return Err(Errno::EIO),
    }
    set_user_regs(task, &user)
}

fn set_fpregs(task: &Task, image: &[u8]) -> Result<u64> {
    with_thread(task, |th| {
        let mut full = th.fpu()?;
        // The software bytes at the end of the area are the kernel's.
        let n = FPREGS - 48;
        full.get_mut(..n).ok_or(Errno::EIO)?.copy_from_slice(image.get(..n).ok_or(Errno::EIO)?);
        // The legacy state counts as in use.
        if let Some(features) = full.get_mut(FPREGS) {
            *features |= 3;
        }
        th.set_fpu(&full)?;
        Ok(0)
    })
}

/// `struct iovec` at `data`.
fn iovec(t: &CurrentTask, data: u64) -> Result<(u64, usize)> {
    let iov = t.mm().read(UserPtr::<[u64; 2]>::new(UserAddr::new(data)))?;
    Ok((iov[0], usize::try_from(iov[1]).map_err(|_| Errno::EINVAL)?))
}

fn get_regset(t: &CurrentTask, task: &Task, kind: u64, data: u64) -> Result<u64> {
    let (base, len) = iovec(t, data)?;
    let bytes = match kind {
        NT_PRSTATUS => with_thread(task, |th| Ok(regs::to_user(&th.regs()).as_bytes().to_vec()))?,
        NT_PRFPREG => with_thread(task, |th| th.fpu())?.get(..FPREGS).ok_or(Errno::EIO)?.to_vec(),
        NT_X86_XSTATE => regs::xstate(with_thread(task, |th| th.fpu())?)?,
        _ => return Err(Errno::EINVAL),
    };
    let n = len.min(bytes.len());
    t.mm().write_bytes(UserAddr::new(base), bytes.get(..n).ok_or(Errno::EIO)?)?;
    write(t, data.wrapping_add(8), (n as u64).as_bytes())
}

fn set_regset(t: &CurrentTask, task: &Task, kind: u64, data: u64) -> Result<u64> {
    let (base, len) = iovec(t, data)?;
    match kind {
        NT_PRSTATUS => {
            let mut user = with_thread(task, |th| Ok(regs::to_user(&th.regs())))?;
            let all = user.as_mut_bytes();
            let n = len.min(all.len()) & !7;
            t.mm().read_bytes(UserAddr::new(base), all.get_mut(..n).ok_or(Errno::EIO)?)?;
            set_user_regs(task, &user)?;
            write(t, data.wrapping_add(8), (n as u64).as_bytes())
        }
        NT_PRFPREG => {
            let mut image = [0; FPREGS];
            let n = len.min(FPREGS);
            t.mm().read_bytes(UserAddr::new(base), image.get_mut(..n).ok_or(Errno::EIO)?)?;
            set_fpregs(task, &image)
        }
        NT_X86_XSTATE => {
            let mut full = with_thread(task, |th| th.fpu())?;
            // Without the end marker that a signal frame has.
            let size = full.len().saturating_sub(4);
            if len < FPREGS + 64 {
                return Err(Errno::EFAULT);
            }
            let mut image = vec![0; len.min(size)];
            t.mm().read_bytes(UserAddr::new(base), &mut image)?;
            // The software bytes in between are the kernel's.
            full.get_mut(..464).ok_or(Errno::EIO)?.copy_from_slice(image.get(..464).ok_or(Errno::EIO)?);
            let n = image.len();
            full.get_mut(FPREGS..n).ok_or(Errno::EIO)?.copy_from_slice(image.get(FPREGS..n).ok_or(Errno::EIO)?);
            with_thread(task, |th| th.set_fpu(&full))?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL),
    }
}

fn peek_siginfo(t: &CurrentTask, task: &Task, addr: u64, data: u64) -> Result<u64> {
    let args = t.mm().read(UserPtr::<PtracePeeksiginfoArgs>::new(UserAddr::new(addr)))?;
    if args.nr < 0 || args.flags & !1 != 0 {
        return Err(Errno::EINVAL);
    }
    let (skip, take) = (usize::try_from(args.off).unwrap_or(usize::MAX), usize::try_from(args.nr).unwrap_or(0));
    let infos: Vec<SigInfo> = {
        let s = task.group.signals.lock();
        let th = s.threads.get(&task.id).ok_or(Errno::ESRCH)?;
        let queue = if args.flags & 1 != 0 { &s.shared } else { &th.pending };
        queue.iter().skip(skip).take(take).map(|q| q.info).collect()
    };
    t.mm().write_array(UserAddr::new(data), &infos)?;
    Ok(infos.len() as u64)
}

fn syscall_info(t: &CurrentTask, task: &Task, stop: &TraceStop, size: u64, data: u64) -> Result<u64> {
    let r = with_thread(task, |th| Ok(th.regs()))?;
    let mut info = PtraceSyscallInfo {
        arch: AUDIT_ARCH_X86_64,
        instruction_pointer: r.rip,
        stack_pointer: r.rsp,
        ..PtraceSyscallInfo::default()
    };
    // Bytes up to the last field that the kind of stop has.
    let used = match stop.kind {
        StopKind::SyscallEntry => {
            info.op = PTRACE_SYSCALL_INFO_ENTRY;
            info.data[0] = r.orig_rax;
            info.data[1..7].copy_from_slice(&r.syscall_args());
            80
        }
        StopKind::SyscallExit => {
            info.op = PTRACE_SYSCALL_INFO_EXIT;
            info.data[0] = r.rax;
            info.data[1] = u64::from(moat_abi::Errno::from_ret(r.rax).is_err());
            33
        }
        _ => 24,
    };
    let n = used.min(usize::try_from(size).unwrap_or(usize::MAX));
    t.mm().write_bytes(UserAddr::new(data), info.as_bytes().get(..n).ok_or(Errno::EIO)?)?;
    Ok(used as u64)
}

fn arch_prctl(t: &CurrentTask, task: &Task, addr: u64, option: u64) -> Result<u64> {
    use moat_abi::prctl::{ARCH_GET_FS, ARCH_GET_GS, ARCH_SET_FS, ARCH_SET_GS};
    let option = u32::try_from(option).map_err(|_| Errno::EINVAL)?;
    let mut r = with_thread(task, |th| Ok(th.regs()))?;
    match option {
        ARCH_GET_FS => return write(t, addr, r.fs_base.as_bytes()),
        ARCH_GET_GS => return write(t, addr, r.gs_base.as_bytes()),
        ARCH_SET_FS | ARCH_SET_GS if addr >= GUEST_TOP => return Err(Errno::EPERM),
        ARCH_SET_FS => r.fs_base = addr,
        ARCH_SET_GS => r.gs_base = addr,
        _ => return Err(Errno::EINVAL),
    }
    with_thread(task, |th| {
        th.set_regs(&r);
        Ok(0)
    })
}

// `FromBytes` is needed by the reads above through `UserPtr`.
const _: fn() = || {
    fn needs<T: FromBytes>() {}
    needs::<UserRegs>();
};
