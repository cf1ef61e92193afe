//! The making of the template: the host process that all guest processes descend from.
//!
//! A helper that shares this process's memory makes a plain copy of it (a thread-like helper, because the copy of
//! one has no rseq registration), and the copy maps the stub, moves the vDSO to its fixed place, and jumps into
//! the stub, which unmaps everything else and installs the filter. Up to the jump the copy runs code of
//! this file, on a stack of its own, and makes nothing but system calls: other threads of the sentry may have
//! held any lock when it was made.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

use moat_abi::{Errno, Result};
use moat_host::features::{Feature, has};
use moat_host::seccomp::{Listener, Notification, WakeUp};
use moat_platform::{GUEST_TOP, PAGE_SIZE, VdsoLayout};
use moat_stub::layout::{AREA_BASE, AREA_LEN, BOARD, DOORBELL, Init, STACK_OFFSET, STUB_BASE};
use rustix::thread::{MembarrierCommand, membarrier};

use crate::area::{Area, AreaPool, control};
use crate::birth::prepare_area;
use crate::error::{StartError, end};
use crate::filter::{SegmentBases, program};
use crate::frame::{EXTENDED_SIZE, FrameLayout, MAGIC1, at};
use crate::vdso::{MOVES, Move, plan_vdso};

/// How long the template may take to come up.
const PATIENCE: Duration = Duration::from_secs(10);
const HELPER_STACK: usize = 256 * 1024;

/// Where [`Init`] is in the area.
macro_rules! init {
    ($field:ident) => {
        STACK_OFFSET + std::mem::offset_of!(Init, $field) as u64
    };
}

/// A template waiting in its first notification.
pub struct Started {
    /// Its process id.
    pub pid: i32,
    /// The listener of all guest processes.
    pub listener: Listener,
    /// What it waits in.
    pub notification: Notification,
    /// Its area, in slot 0.
    pub area: Area,
    /// Where the host puts frames.
    pub frame: FrameLayout,
    /// Where the vDSO is.
    pub vdso: VdsoLayout,
    /// The tables for rewritten call sites are mapped.
    pub rewrites: bool,
    /// Guest processes take part in the host's expedited barriers.
    pub barriers: bool,
}

/// What the helper and the copy read. Not on the main thread's stack, which the stub's places may be in the middle of.
struct Plan {
    moves: [Move; MOVES],
    areas_fd: i32,
    area_offset: i64,
    board_offset: i64,
    image: *const u8,
    image_len: usize,
    init: u64,
    pid: i32,
}

/// Makes the template.
///
/// # Errors
/// Those of clone and seccomp; ENOSYS if the host lacks a notifying filter or XSAVE; ETIMEDOUT; ECHILD if the copy ended.
pub fn start(areas: &AreaPool, bases: SegmentBases) -> Result<Started, StartError> {
    let area = areas.take()?;
    let (moves, vdso) = plan_vdso();
    write_init(area, areas, bases, &vdso);
    let mut plan = Box::new(Plan {
        moves,
        areas_fd: areas.fd().as_raw_fd(),
        area_offset: i64::try_from(area.file_offset()).map_err(|_| Errno::EOVERFLOW)?,
        board_offset: i64::try_from(areas.board().file_offset()).map_err(|_| Errno::EOVERFLOW)?,
        image: moat_stub::IMAGE.as_ptr(),
        image_len: moat_stub::IMAGE.len(),
        init: moat_stub::header().init,
        pid: 0,
    });
    run_helper(&mut plan)?;
    let finished = wait_for(plan.pid, area);
    if finished.is_err() {
        kill(plan.pid);
    }
    let (listener, notification) = finished?;
    let frame = frame_layout(area).inspect_err(|_| kill(plan.pid))?;
    let rewrites = area.read(init!(rewrites)) == 1;
    // Tried once: text that is half written can't be left so for want of a barrier.
    let barriers = area.read(init!(barriers)) == 1 && membarrier(MembarrierCommand::GlobalExpedited).is_ok();
    Ok(Started { pid: plan.pid, listener, notification, area, frame, vdso, rewrites, barriers })
}

fn kill(pid: i32) {
    use moat_abi::clone::WaitFlags;
    use moat_host::wait::{WaitTarget, waitid};
    if let Some(raw) = rustix::process::Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(raw, rustix::process::Signal::KILL);
        let _ = waitid(WaitTarget::Pid(pid), WaitFlags::EXITED | WaitFlags::ALL);
    }
}

fn write_init(area: Area, areas: &AreaPool, bases: SegmentBases, vdso: &VdsoLayout) {
    prepare_area(area, 0, 0, bases);
    let keep = if vdso.vdso.is_empty() { GUEST_TOP..GUEST_TOP } else { vdso.vvar.start..vdso.vdso.end };
    area.write(init!(keep), keep.start);
    area.write(init!(keep) + 8, keep.end);
    let image_len = (moat_stub::IMAGE.len() as u64).next_multiple_of(PAGE_SIZE);
    area.write(init!(stub_end), STUB_BASE + image_len);
    area.write(init!(rewrites), 0);
    area.write(init!(barriers), 0);
    area.write32(init!(areas_fd), areas.fd().as_raw_fd().cast_unsigned());
    area.write32(init!(listener), 0);
    // SECCOMP_FILTER_FLAG_NEW_LISTENER, and WAIT_KILLABLE_RECV (Linux 5.19) if the host knows it.
    let flags = if has(Feature::SeccompWaitKillable) { 0x8 | 0x20 } else { 0x8 };
    area.write32(init!(filter_flags), flags);
    let program = program(bases);
    area.write32(init!(filter_len), u32::try_from(program.len()).unwrap_or(0));
    for (i, instruction) in (0u64..).zip(&program) {
        area.write(init!(filter) + i * 8, *instruction);
    }
}

/// Runs the helper to its end; `plan.pid` is then the copy.
fn run_helper(plan: &mut Plan) -> Result<()> {
    use moat_abi::clone::WaitFlags;
    use moat_host::wait::{WaitTarget, waitid};
    let mut stack = vec![0u128; HELPER_STACK / 16];
    let top = stack.as_mut_ptr_range().end.cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_FS;
    // SAFETY: the sets are initialised by sigfillset. No handler of the sentry may run in the helper.
    let old = unsafe {
        let (mut all, mut old) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        old
    };
    // SAFETY: CLONE_VFORK holds this thread until the helper has exited, so that plan and stack outlive it; the
    // helper makes one system call and exits.
    let helper = unsafe { libc::clone(helper, top, flags, std::ptr::from_mut(plan).cast()) };
    let result = if helper < 0 { Err(moat_host::last_errno()) } else { Ok(()) };
    // SAFETY: the set that was in force before.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const old, std::ptr::null_mut()) };
    result?;
    waitid(WaitTarget::Pid(helper), WaitFlags::EXITED | WaitFlags::ALL)?;
    if plan.pid > 0 { Ok(()) } else { Err(Errno::from_raw(-plan.pid)) }
}

/// Makes the copy, as a child of the sentry's.
extern "C" fn helper(plan: *mut libc::c_void) -> libc::c_int {
    let plan = plan.cast::<Plan>();
    let flags = libc::CLONE_PARENT | libc::CLONE_FILES;
    // SAFETY: a fork without a new stack: the copy goes on here, in its own copy of the memory. The plan is the
    // sentry's, which waits.
    unsafe {
        let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
        if pid == 0 {
            become_template(&*plan);
        }
        (*plan).pid = if pid > 0 { pid as i32 } else { -moat_host::last_errno().raw() };
    }
    0
}

/// The copy: system calls only.
///
/// # Safety
/// Runs in a process of its own; overwrites whatever is mapped at the stub's and the vDSO's places, which none of
/// this code and its stack are.
unsafe fn become_template(plan: &Plan) -> ! {
    // SAFETY: by the caller. No kernel knows the call, and the platform's own filter is not there yet.
    unsafe {
        // A filter around this one that lets it seem to succeed answers for the sentry, too: the template would go on without it.
        if libc::syscall(DOORBELL as libc::c_long) != -1 {
            libc::_exit(end::DOORBELL_ANSWERED);
        }
        for m in &plan.moves {
            if m.len != 0 {
                let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
                if libc::syscall(libc::SYS_mremap, m.from, m.len, m.len, flags, m.to) as u64 != m.to {
                    libc::_exit(end::VDSO_STAYS);
                }
            }
        }
        let text = libc::mmap(
            STUB_BASE as *mut libc::c_void,
            plan.image_len,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED,
            -1,
            0,
        );
        let area = libc::mmap(
            AREA_BASE as *mut libc::c_void,
            AREA_LEN as usize,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_FIXED,
            plan.areas_fd,
            plan.area_offset,
        );
        let board = libc::mmap(
            BOARD as *mut libc::c_void,
            PAGE_SIZE as usize,
            libc::PROT_READ,
            libc::MAP_SHARED | libc::MAP_FIXED,
            plan.areas_fd,
            plan.board_offset,
        );
        if text as u64 != STUB_BASE || area as u64 != AREA_BASE || board as u64 != BOARD {
            libc::_exit(end::NOT_MAPPED);
        }
        std::ptr::copy_nonoverlapping(plan.image, text.cast(), plan.image_len);
        if libc::mprotect(text, plan.image_len, libc::PROT_READ | libc::PROT_EXEC) != 0 {
            libc::_exit(end::NOT_PROTECTED);
        }
        std::arch::asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "call {init}",
            "ud2",
            stack = in(reg) AREA_BASE + AREA_LEN,
            init = in(reg) plan.init,
            in("rdi") AREA_BASE,
            options(noreturn),
        )
    }
}

/// Waits for the filter and for the first ring.
fn wait_for(pid: i32, area: Area) -> Result<(Listener, Notification), StartError> {
    use moat_abi::clone::WaitFlags;
    use moat_host::wait::{WaitTarget, waitid};
    let end = Instant::now() + PATIENCE;
    let number = loop {
        match area.read32(init!(listener)).cast_signed() {
            0 => {}
            number if number > 0 => break number - 1,
            errno => return Err(Errno::from_raw(-errno).into()),
        }
        let flags = WaitFlags::EXITED | WaitFlags::NOHANG | WaitFlags::ALL;
        if let Some(event) = waitid(WaitTarget::Pid(pid), flags)? {
            return Err(StartError { errno: Errno::ECHILD, ended: Some((event.code, event.status)) });
        }
        if Instant::now() > end {
            return Err(Errno::ETIMEDOUT.into());
        }
        std::thread::sleep(Duration::from_micros(100));
    };
    // SAFETY: seccomp(2) put it into the descriptor table that the copy shared with us, for us.
    let listener = Listener::new(unsafe { OwnedFd::from_raw_fd(number) })?;
    let mut fds = [rustix::event::PollFd::new(&listener, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 10, tv_nsec: 0 };
    if rustix::event::poll(&mut fds, Some(&timeout))? == 0 {
        return Err(Errno::ETIMEDOUT.into());
    }
    let notification = listener.receive()?;
    if notification.tid != pid || u64::from(notification.nr) != DOORBELL {
        return Err(Errno::EPROTO.into());
    }
    // Older hosts (before 6.6) work without, more slowly.
    let _ = listener.set_wake_up(WakeUp::SameCpu);
    Ok((listener, notification))
}

/// Learns from the template's frame where frames are. It is not hostile yet, but it is checked all the same.
fn frame_layout(area: Area) -> Result<FrameLayout> {
    let offset = |addr: u64| addr.checked_sub(AREA_BASE).filter(|o| *o > STACK_OFFSET && *o < AREA_LEN - 512);
    let frame = offset(area.read(control!(frame))).ok_or(Errno::EPROTO)?;
    let fpstate = offset(area.read(frame + at::FPSTATE)).ok_or(Errno::ENOSYS)?;
    let fp_len = u64::from(area.read32(fpstate + EXTENDED_SIZE));
    let fits = fp_len >= 576 && fp_len.is_multiple_of(4) && fpstate + fp_len <= AREA_LEN && fpstate > frame;
    if area.read32(fpstate + EXTENDED_SIZE - 4) != MAGIC1 || !fits || !frame.is_multiple_of(8) {
        return Err(Errno::ENOSYS);
    }
    // Room for one more frame, of a fault in an order.
    if frame - STACK_OFFSET < AREA_LEN - frame + 4096 {
        return Err(Errno::ENOSYS);
    }
    Ok(FrameLayout { frame, fpstate, fp_len })
}
