//! What a signal finds on the way between a site's landing and its way back (`call.rs`), and the application's state there.

use core::sync::atomic::{AtomicU32, Ordering};

use crate::call::label;
use crate::entry;
use crate::layout::{
    Cell, Control, KICK_SIGNAL, LANDING_STRIDE, MAX_SITES, REPLY_RESUME, SITES, STATE_PLAIN, STATE_REPLIED, STOP_FRAME, STOP_FRAMED_CALL,
    STOP_UNFINISHED, STOP_UNWRITTEN, own_call, site,
};
use crate::parcel;
use crate::raw::{address, pointer};
use crate::sys;

pub const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
const SIGSEGV: u32 = 11;
/// -EFAULT, as rax has it.
pub const FAULT: u64 = 14_u64.wrapping_neg();
/// -EINTR, likewise.
const INTERRUPTED: u64 = 4_u64.wrapping_neg();
/// AUDIT_ARCH_X86_64.
const X86_64: u32 = 0xc000_003e;
const TRAP_FLAG: u64 = 1 << 8;
/// The interrupt flag, and the one that is always set.
const FLAGS: u64 = 0x202;

/// The general registers of a signal frame, in its order.
#[repr(C)]
pub struct Registers {
    r8: u64,
    r9: u64,
    r10: u64,
    r11: u64,
    r12: u64,
    r13: u64,
    r14: u64,
    r15: u64,
    rdi: u64,
    rsi: u64,
    rbp: u64,
    rbx: u64,
    rdx: u64,
    rax: u64,
    rcx: u64,
    rsp: u64,
    rip: u64,
    rflags: u64,
}

impl Registers {
    /// Number and arguments of a call that has trapped.
    pub fn call(&self) -> (u64, [u64; 6]) {
        (self.rax, [self.rdi, self.rsi, self.rdx, self.r10, self.r8, self.r9])
    }

    /// The stack pointer.
    pub fn stack(&self) -> u64 {
        self.rsp
    }

    /// What a call gives.
    pub fn set_result(&mut self, result: u64) {
        self.rax = result;
    }
}

/// What a signal has interrupted.
pub enum Interrupted {
    /// Nothing of this file.
    Elsewhere,
    /// A call that goes on where its frame says, and stops once more when that is due.
    Waiting,
    /// A call whose frame now has the application's state: a stop for this reason.
    Stopped(u32),
    /// An instruction that can't fault here.
    Broken,
}

/// Looks whether a signal came in between a site's landing and its way back, and if so puts the application's state
/// into the frame.
///
/// # Safety
/// `r` are the registers of the frame on the signal stack of this thread, whose area is at `control`.
pub unsafe fn interrupted(signal: u32, r: *mut Registers, control: *mut Control) -> Interrupted {
    // SAFETY: by the caller.
    unsafe {
        let rip = (*r).rip;
        if rip < label!(call_landings) || rip >= label!(call_end) {
            return Interrupted::Elsewhere;
        }
        match signal {
            KICK_SIGNAL if rip >= label!(call_own) && rip < label!(call_unanswered) => own(r, control),
            // Right before an order that may take long: it would not end it any more.
            KICK_SIGNAL if (label!(call_order_loads)..=label!(call_order)).contains(&rip) && waits(r) => {
                (&raw mut (*control).call.kicked).write_volatile(0);
                ((*r).rax, (*r).rip) = (INTERRUPTED, label!(call_order_made));
                Interrupted::Waiting
            }
            // A handler of the application's is to begin, and then to be interrupted.
            KICK_SIGNAL if begins(control) => {
                (&raw mut (*control).call.kicked).write_volatile(1);
                Interrupted::Waiting
            }
            // The sentry does not know of the call yet: it is made again from its first instruction.
            KICK_SIGNAL if rip <= label!(call_commit) => {
                (&raw mut (*control).in_host).write_volatile(0);
                undo(r, control);
                Interrupted::Stopped(KICK_SIGNAL)
            }
            // The call is over as far as the sentry is concerned: application code goes on behind it, after the kick.
            KICK_SIGNAL if resumes(r, control) => {
                (&raw mut (*control).reply).write_volatile(0);
                if rip < label!(call_resume) {
                    give(control);
                }
                finish(r, control);
                Interrupted::Stopped(KICK_SIGNAL)
            }
            KICK_SIGNAL => {
                (&raw mut (*control).call.kicked).write_volatile(1);
                Interrupted::Waiting
            }
            SIGTRAP if rip == label!(call_kicked) => {
                give(control);
                finish(r, control);
                Interrupted::Stopped(KICK_SIGNAL)
            }
            // A step onto the landing, or a store there that a debug register watches: the site's first instruction has been carried
            // out, and the call is next.
            SIGTRAP if rip < label!(call_landings_end) => {
                let landing = landed(rip);
                let fits = if landing.stores { store(r) } else { first_instruction(r, landing.number) };
                (*r).rip = word(landing.number).0.wrapping_sub(if fits { site::SHORT_LEN } else { site::LEN });
                Interrupted::Stopped(if fits { SIGTRAP } else { SIGSEGV })
            }
            SIGSEGV | SIGBUS if rip == label!(call_probe) => framed(r),
            SIGTRAP if rip == label!(call_framed) => framed(r),
            SIGTRAP if rip == label!(call_unanswered) => {
                ask(r, control);
                Interrupted::Stopped(STOP_FRAMED_CALL)
            }
            SIGTRAP if rip == label!(call_frame) => {
                finish(r, control);
                Interrupted::Stopped(STOP_FRAME)
            }
            // The application's stack pointer leads nowhere: its own load or store would have faulted, and does so once more.
            SIGSEGV | SIGBUS if rip == label!(call_loads) || rip < label!(call_landings_end) => {
                undo(r, control);
                Interrupted::Stopped(signal)
            }
            // What the call refers to can't be read: the sentry says what that means.
            SIGSEGV | SIGBUS if rip == label!(call_takes) || rip == label!(call_reads) => {
                (*r).rip = label!(call_asks);
                Interrupted::Waiting
            }
            // Nor can this be written, though it could a moment ago.
            SIGSEGV | SIGBUS if rip == label!(call_copies) => {
                (&raw mut (*control).call.result).write_volatile(FAULT);
                (*r).rip = label!(call_resume);
                Interrupted::Waiting
            }
            // What a handler was to find.
            SIGSEGV | SIGBUS if (label!(call_begins)..label!(call_begun)).contains(&rip) => {
                (&raw mut (*control).call.fpstate).write_volatile(0);
                finish(r, control);
                Interrupted::Stopped(STOP_UNWRITTEN)
            }
            // A debug register watches what is copied: Linux does not tell of what the kernel reads and writes itself.
            SIGTRAP if (label!(call_takes)..=label!(call_asks)).contains(&rip) => Interrupted::Waiting,
            SIGTRAP if (label!(call_copies)..=label!(call_resume)).contains(&rip) => Interrupted::Waiting,
            SIGTRAP if (label!(call_begins)..=label!(call_begun)).contains(&rip) => Interrupted::Waiting,
            _ => Interrupted::Broken,
        }
    }
}

/// Whether the reply that has come, or is being carried out, is that a handler begins.
unsafe fn begins(control: *const Control) -> bool {
    // SAFETY: by the caller.
    unsafe { (&raw const (*control).call.fpstate).read_volatile() != 0 }
}

/// A call that the host carries out, before it, in it or right behind it.
unsafe fn own(r: *mut Registers, control: *mut Control) -> Interrupted {
    // SAFETY: by the caller.
    unsafe {
        (&raw mut (*control).in_host).write_volatile(0);
        let result = match (*r).rip {
            // It has not been made.
            rip if rip < label!(call_owned) => INTERRUPTED,
            rip if rip == label!(call_owned) => (*r).rax,
            _ => (&raw const (*control).call.result).read_volatile(),
        };
        (&raw mut (*control).call.result).write_volatile(result);
        Interrupted::Stopped(match result {
            INTERRUPTED => {
                ask(r, control);
                STOP_UNFINISHED
            }
            FAULT => {
                ask(r, control);
                STOP_FRAMED_CALL
            }
            _ => {
                finish(r, control);
                KICK_SIGNAL
            }
        })
    }
}

/// Whether the order that is about to be carried out is one that a kick ends.
unsafe fn waits(r: *const Registers) -> bool {
    // SAFETY: by the caller; the code for orders has a cell's address in r12.
    unsafe { matches!(pointer::<Cell>((*r).r12).read_volatile().op, own_call::FUTEX | own_call::WAITV) }
}

/// The state of a call that the sentry is asked for, as if it had trapped.
unsafe fn ask(r: *mut Registers, control: *mut Control) {
    // SAFETY: by the caller.
    unsafe {
        finish(r, control);
        (*r).rax = (&raw const (*control).call.nr).read_volatile();
    }
}

/// Whether the host carries out the call that has trapped with this frame: then its registers are where a call from a rewritten site
/// has them, and the frame leads to the code for that.
///
/// # Safety
/// `r` are the registers of the frame on the signal stack of this thread, whose area is at `control`, `arch` what the call is of.
pub unsafe fn has_own(r: *mut Registers, arch: u32, control: *mut Control) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let (nr, args) = (*r).call();
        let enabled = (&raw const (*control).own_calls).read_volatile() != 0;
        // Whoever steps through instructions would step through the stub's.
        let steps = (*r).rflags & TRAP_FLAG != 0;
        let is_own = nr == own_call::SCHED_YIELD || nr == own_call::FUTEX && u32::try_from(args[1] & 0xffff_ffff).is_ok_and(own_call::is_own);
        if !enabled || !is_own || arch != X86_64 || steps {
            return false;
        }
        let call = &raw mut (*control).call;
        ((*call).nr, (*call).args) = (nr, args);
        ((*call).rip, (*call).rsp, (*call).rflags) = ((*r).rip, (*r).rsp, (*r).rflags);
        ((*call).rbx, (*call).rbp) = ((*r).rbx, (*r).rbp);
        [(*call).r12, (*call).r13, (*call).r14, (*call).r15] = [(*r).r12, (*r).r13, (*r).r14, (*r).r15];
        (&raw mut (*control).began).write_volatile(sys::rdtsc());
        (&raw mut (*control).in_host).write_volatile(1);
        ((*r).rip, (*r).rbx, (*r).rflags) = (label!(call_own), address(control.cast_const()), FLAGS);
    }
    true
}

/// What a signal has found in a landing.
struct Landing {
    /// The number of its site.
    number: u64,
    /// What the site stores is still in r11, and not stored.
    stores: bool,
}

fn landed(rip: u64) -> Landing {
    let at = rip - label!(call_landings);
    let number = at / LANDING_STRIDE;
    Landing { number, stores: number >= site::FIRST_STORING.into() && at % LANDING_STRIDE < site::STORE_LEN }
}

/// The address behind the site of a number, and what the site calls with.
unsafe fn word(number: u64) -> (u64, u64) {
    // SAFETY: by the caller; the pages at SITES hold that many words.
    let word = unsafe {
        let at = SITES + number % u64::from(MAX_SITES) * 8;
        pointer::<u64>(at).read_volatile()
    };
    ((word << 16).cast_signed().wrapping_shr(16).cast_unsigned(), word >> site::NUMBER_SHIFT)
}

/// Carries out the store that a landing begins with; false if it faults.
unsafe fn store(r: *mut Registers) -> bool {
    // SAFETY: by the caller; a store that faults is recovered from.
    unsafe { entry::stub_copy((*r).rsp.wrapping_add(8), address(&raw const (*r).r11), 8) == 0 }
}

/// Carries out the instruction that a site's jump replaces; false if it faults.
unsafe fn first_instruction(r: *mut Registers, site: u64) -> bool {
    // SAFETY: by the caller; a load that faults is recovered from.
    unsafe {
        let (_, number) = word(site);
        match number {
            // A jump alone has been carried out, in place of the call that is next; or the landing has stored what is to be.
            site::SHORT | site::STORES => return true,
            site::GENERIC => {}
            _ => {
                (*r).rax = number;
                return true;
            }
        }
        let (low, high) = (entry::stub_load((*r).rsp.wrapping_add(8)), entry::stub_load((*r).rsp.wrapping_add(12)));
        (*r).r9 = high << 32 | low;
        low >> 32 == 0 && high >> 32 == 0
    }
}

/// A call on whose way no register but r11 and rcx has been used: as one that has trapped.
unsafe fn framed(r: *mut Registers) -> Interrupted {
    // SAFETY: by the caller.
    unsafe {
        let (rip, _) = word((*r).r11);
        if !first_instruction(r, (*r).r11) {
            (*r).rip = rip.wrapping_sub(site::LEN);
            return Interrupted::Stopped(SIGSEGV);
        }
        (*r).rip = rip;
        ((*r).rcx, (*r).r11) = (rip, (*r).rflags);
        Interrupted::Stopped(STOP_FRAMED_CALL)
    }
}

/// The state before the site's first instruction, or before its call where that is too late.
unsafe fn undo(r: *mut Registers, control: *mut Control) {
    // SAFETY: by the caller.
    unsafe {
        let at = (*r).rip;
        let mut landing = Landing { number: (*r).r11, stores: false };
        if at < label!(call_landings_end) {
            landing = landed(at);
        } else if at > label!(call_saved) {
            let call = &raw const (*control).call;
            [(*r).rdi, (*r).rsi, (*r).rdx, ..] = (*call).args;
            ((*r).rsp, (*r).rbx) = ((*call).rsp, (*call).rbx);
            if at >= label!(call_flags) {
                (*r).rflags = (*call).rflags;
            }
            if at >= label!(call_stored) {
                // rdtsc has overwritten it, or a number that is loaded again.
                (*r).rax = (*call).nr;
            }
        }
        let (behind, number) = word(landing.number);
        // What has been stored is not stored again: r11 has it no more.
        let called = number == site::SHORT || number == site::STORES && !landing.stores;
        (*r).rip = behind.wrapping_sub(if called { site::SHORT_LEN } else { site::LEN });
    }
}

/// `STATE_*` of this thread.
unsafe fn state(control: *const Control) -> u32 {
    // SAFETY: by the caller.
    unsafe { AtomicU32::from_ptr((&raw const (*control).call.state).cast_mut()).load(Ordering::Acquire) }
}

/// Whether the interrupted call has its reply, and goes on behind the site. The sentry knows of the call.
unsafe fn resumes(r: *const Registers, control: *const Control) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let rip = (*r).rip;
        if state(control) == STATE_PLAIN {
            return rip < label!(call_resume_end);
        }
        if rip >= label!(call_begun) && rip < label!(call_begun_end) {
            return (*r).r11 == u64::from(REPLY_RESUME);
        }
        if rip >= label!(call_gives) {
            return rip < label!(call_resume_end);
        }
        // What it is to do first is done in any case.
        if (&raw const (*control).order_count).read_volatile() != 0 {
            return false;
        }
        if rip >= label!(call_taken) {
            return (*r).rcx == u64::from(REPLY_RESUME);
        }
        // Before the reply is taken: it is there if the word says so, or the ring has returned with it.
        let replied = rip >= label!(call_replied)
            || state(control) == STATE_REPLIED
            || rip == label!(call_rang) && (*r).rax == 0;
        replied && (&raw const (*control).reply).read_volatile() == REPLY_RESUME
    }
}

/// Has the application's memory as it is after the call, wherever the thread has come to with that.
unsafe fn give(control: *mut Control) {
    // SAFETY: by the caller.
    unsafe {
        // A plain reply gives nothing: what is said of gifts is from an earlier one.
        if state(control) != STATE_PLAIN && !parcel::give(control) {
            (&raw mut (*control).call.result).write_volatile(FAULT);
        }
    }
}

/// The state after the call.
unsafe fn finish(r: *mut Registers, control: *mut Control) {
    // SAFETY: by the caller.
    unsafe {
        let call = &raw const (*control).call;
        [(*r).rdi, (*r).rsi, (*r).rdx, (*r).r10, (*r).r8, (*r).r9] = (*call).args;
        ((*r).rsp, (*r).rbx, (*r).rbp) = ((*call).rsp, (*call).rbx, (*call).rbp);
        [(*r).r12, (*r).r13, (*r).r14, (*r).r15] = [(*call).r12, (*call).r13, (*call).r14, (*call).r15];
        ((*r).rflags, (*r).r11) = ((*call).rflags, (*call).rflags);
        (*r).rax = (*call).result;
        ((*r).rip, (*r).rcx) = ((*call).rip, (*call).rip);
    }
}
