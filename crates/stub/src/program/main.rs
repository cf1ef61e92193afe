//! The program inside every guest process: signal handler, order interpreter, first code of the template.
//!
//! It runs on the thread's own signal stack, inside its area. Everything it reads there may have been
//! written by hostile siblings, who gain nothing by it: the filter decides what the host does.
#![no_std]
#![no_main]

#[path = "../layout.rs"]
#[allow(dead_code)]
mod layout;

mod call;
mod entry;
mod extended;
mod init;
mod interrupted;
mod orders;
mod parcel;
#[path = "../raw.rs"]
mod raw;
mod sys;

use core::sync::atomic::{AtomicU32, Ordering};

use interrupted::{Interrupted, Registers};
use layout::{
    BOARD, Board, Control, FEATURE_FSGSBASE, FEATURE_RDPID, FIRM_PATIENCE, REPLY_EXIT, REPLY_RESUME, STATE_ASLEEP, STATE_REPLIED,
    STATE_REQUEST, STATE_SLEEPS, STOP_ORDERS, STOP_UNWRITTEN,
};

/// Offsets in the kernel's `struct rt_sigframe`: the return address, then `struct ucontext`.
const FRAME_REGISTERS: usize = 8 + 40;
const FRAME_RIP: usize = FRAME_REGISTERS + 16 * 8;
/// `si_arch` of a SIGSYS, behind `struct sigcontext` and the mask.
const FRAME_ARCH: usize = FRAME_REGISTERS + 256 + 8 + 28;

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    sys::die()
}

/// Every host signal that guests can get, with all others of the kind blocked.
///
/// # Safety
/// Called by the entry code with the frame that the kernel made and the area that it lies in.
#[unsafe(no_mangle)]
unsafe extern "C" fn on_signal(signal: u32, frame: *mut u8, control: *mut Control) {
    // SAFETY: the kernel has just written the frame; the area is mapped at least as far as the stack is.
    unsafe {
        match interrupted::interrupted(signal, frame.add(FRAME_REGISTERS).cast(), control) {
            Interrupted::Elsewhere => {}
            Interrupted::Stopped(why) => {
                (*control).frame = sys::address(frame);
                stop(control, why);
                serve(control);
                return;
            }
            Interrupted::Waiting => return,
            Interrupted::Broken => sys::die(),
        }
        if signal != sys::SIGSYS && signal != layout::KICK_SIGNAL {
            let rip = frame.add(FRAME_RIP).cast::<u64>();
            if signal == interrupted::SIGTRAP && entry::copies(*rip) {
                return;
            }
            match entry::fault_origin(*rip) {
                entry::FaultOrigin::Atomic(recovery) => {
                    *rip = recovery;
                    return;
                }
                // Application code jumped in here with bad registers, or a sibling overwrote our memory.
                entry::FaultOrigin::Stub => sys::die(),
                entry::FaultOrigin::Application => {}
            }
        }
        let registers = frame.add(FRAME_REGISTERS).cast::<Registers>();
        if signal == sys::SIGSYS
            && interrupted::has_own(registers, frame.add(FRAME_ARCH).cast::<u32>().read_volatile(), control)
        {
            return;
        }
        (*control).frame = sys::address(frame);
        if signal == sys::SIGSYS {
            parcel::take(registers, frame, control);
        }
        stop(control, signal);
        serve(control);
    }
}

/// Tells the sentry that this thread has stopped and waits for its reply.
///
/// # Safety
/// `control` is this thread's area.
unsafe fn stop(control: *mut Control, why: u32) {
    // SAFETY: by the caller.
    unsafe {
        if (*control).features & FEATURE_FSGSBASE != 0 {
            (*control).fs_base = sys::rdfsbase();
            (*control).gs_base = sys::rdgsbase();
        } else {
            sys::call(sys::ARCH_PRCTL, [sys::ARCH_GET_FS, &raw const (*control).fs_base as u64, 0, 0, 0, 0]);
            sys::call(sys::ARCH_PRCTL, [sys::ARCH_GET_GS, &raw const (*control).gs_base as u64, 0, 0, 0, 0]);
        }
        (&raw mut (*control).stop).write_volatile(why);
        let state = AtomicU32::from_ptr(&raw mut (*control).call.state);
        match waits_awake(control) {
            STATE_REPLIED => {}
            STATE_SLEEPS => sys::sleep(state),
            _ => sys::ring(state),
        }
    }
}

/// Looks for the reply while a sentry thread is looking at this area, for a bounded time. Gives the state.
///
/// ASLEEP: the stub has to ring, and the sentry answers the ring whatever it has written. SLEEPS: the reply will take long.
///
/// # Safety
/// `control` is this thread's area.
unsafe fn waits_awake(control: *mut Control) -> u32 {
    // SAFETY: by the caller; the board is mapped in every guest process.
    unsafe {
        let state = AtomicU32::from_ptr(&raw mut (*control).call.state);
        let board = BOARD as *const Board;
        let cpu = if (*control).features & FEATURE_RDPID != 0 { sys::rdpid() } else { u32::MAX };
        (&raw mut (*control).call.info).write_volatile(cpu & layout::info::CPU);
        (&raw mut (*control).stopped_at).write_volatile(sys::rdtsc());
        state.store(STATE_REQUEST, Ordering::Release);
        let watcher = (&raw const (*board).watcher).read_volatile();
        if watcher != 0 && watcher.wrapping_sub(1) != cpu {
            let patience = (&raw const (*board).patience).read_volatile();
            for look in 0..patience {
                let now = state.load(Ordering::Acquire);
                if now != STATE_REQUEST {
                    return now;
                }
                core::hint::spin_loop();
                // It is still awake, or busy with this very call.
                if look >= FIRM_PATIENCE && (&raw const (*board).watcher).read_volatile() == 0 {
                    break;
                }
            }
        }
        // Sequentially consistent with the sentry's exchange: exactly one of the two succeeds.
        match state.compare_exchange(STATE_REQUEST, STATE_ASLEEP, Ordering::SeqCst, Ordering::SeqCst) {
            Ok(_) => STATE_ASLEEP,
            Err(now) => now,
        }
    }
}

/// Does what the reply in the area says, until it says to go back to application code.
///
/// # Safety
/// `control` is this thread's area and holds a reply.
#[unsafe(no_mangle)]
unsafe extern "C" fn serve(control: *mut Control) {
    // SAFETY: by the caller; each field is read once, by a volatile read.
    unsafe {
        loop {
            (&raw mut (*control).resumed_at).write_volatile(sys::rdtsc());
            let count = (&raw const (*control).order_count).read_volatile();
            let all_done = orders::carry_out(control, count);
            let reply = (&raw const (*control).reply).read_volatile();
            // So that the sentry can tell a ring that was interrupted by a stop signal from a new one.
            (&raw mut (*control).reply).write_volatile(0);
            if reply == REPLY_EXIT {
                sys::exit_thread();
            }
            if !(all_done && reply == REPLY_RESUME) {
                stop(control, STOP_ORDERS);
                continue;
            }
            let begins = (&raw const (*control).call.fpstate).read_volatile() != 0;
            let given = parcel::give(control);
            if begins && !(given && extended::give(control)) {
                (&raw mut (*control).call.fpstate).write_volatile(0);
                stop(control, STOP_UNWRITTEN);
                continue;
            }
            if !begins && !given {
                let frame = (&raw const (*control).frame).read_volatile();
                (*raw::pointer::<u8>(frame).add(FRAME_REGISTERS).cast::<Registers>()).set_result(interrupted::FAULT);
            }
            break;
        }
        if (&raw const (*control).set_bases).read_volatile() != 0 {
            let (fs, gs) = ((*control).fs_base, (*control).gs_base);
            if (*control).features & FEATURE_FSGSBASE != 0 {
                sys::wrfsbase(fs);
                sys::wrgsbase(gs);
            } else {
                sys::call(sys::ARCH_PRCTL, [sys::ARCH_SET_FS, fs, 0, 0, 0, 0]);
                sys::call(sys::ARCH_PRCTL, [sys::ARCH_SET_GS, gs, 0, 0, 0, 0]);
            }
        }
    }
}
