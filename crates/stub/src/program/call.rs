//! Calls from rewritten sites: the code that a site jumps to, and what a signal finds there.
//!
//! A site has become a jump to its landing, which leaves its number in r11. Of the application's registers only rcx and r11 may
//! be used at first, which a system call overwrites anyway, and neither its stack nor its flags. The area is where %gs
//! points, if the word behind MAGIC says so; all registers that are used later are kept there. Then the stub asks and waits as
//! a stopped thread does, and goes on behind the site.
//!
//! Signals find the application's state before the call (up to `call_commit`, by [`undo`]) or after it ([`finish`]).

use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU32, Ordering};

use crate::entry;
use crate::layout::{
    BOARD, Board, CallSlot, Control, DOORBELL, KICK_SIGNAL, LANDING_STRIDE, MAGIC, MAX_SITES, REPLY_EXIT, REPLY_FRAME,
    REPLY_RESUME, RING_SLEEP, SITES, STATE_ASLEEP, STATE_REPLIED, STATE_REQUEST, STATE_SLEEPS, STOP_CALL, STOP_FRAME,
    STOP_FRAMED_CALL, site,
};
use crate::raw::{address, pointer};

const CALL: usize = offset_of!(Control, call);
const ARGS: usize = CALL + offset_of!(CallSlot, args);
/// -EINTR, as the low half of rax.
const INTERRUPTED: i32 = -4;

global_asm!(
    ".globl call_landings",
    ".balign 16",
    "call_landings:",
    ".set number, 0",
    ".rept {sites}",
    "    .balign {landing}",
    "    .byte 0x41, 0xbb", // mov r11d, number
    "    .long number",
    "    jmp call_enter",
    "    .set number, number + 1",
    ".endr",
    "    .balign {landing}",
    ".globl call_landings_end",
    "call_landings_end:",

    ".globl call_enter",
    "call_enter:",
    ".globl call_probe",
    "call_probe:",
    "    mov rcx, gs:[{magic_at}]",
    "    lea rcx, [rcx - {magic}]",
    "    jrcxz 2f",
    // %gs is the application's own.
    ".globl call_framed",
    "call_framed:",
    "    ud2",
    "2:  rdgsbase rcx",
    "    mov [rcx + {rdi}], rdi",
    "    mov [rcx + {rsi}], rsi",
    "    mov [rcx + {rdx}], rdx",
    "    mov [rcx + {r10}], r10",
    "    mov [rcx + {r8}], r8",
    "    mov [rcx + {r9}], r9",
    "    mov [rcx + {rsp}], rsp",
    "    mov [rcx + {rbx}], rbx",
    "    mov [rcx + {rbp}], rbp",
    "    mov [rcx + {r12}], r12",
    "    mov [rcx + {r13}], r13",
    "    mov [rcx + {r14}], r14",
    "    mov [rcx + {r15}], r15",
    // Not the signal stack: a signal that comes now has its frame where all have theirs.
    ".globl call_saved",
    "call_saved:",
    "    lea rsp, [rcx + {rflags} + 8]",
    "    pushfq",
    ".globl call_flags",
    "call_flags:",
    // From here on rbx is the area; r11 stays the number of the site.
    "    mov rbx, rcx",
    "    movabs rdx, {site_words}",
    "    mov rdi, [rdx + r11 * 8]",
    "    mov rdx, rdi",
    "    shl rdx, 16",
    "    sar rdx, 16",
    "    mov [rbx + {rip}], rdx",
    "    mov rcx, rdi",
    "    shr rcx, {number_shift}",
    "    cmp ecx, {generic}",
    "    jne 4f",
    "    mov rdx, [rbx + {rsp}]",
    ".globl call_loads",
    "call_loads:",
    "    mov rdx, [rdx + 8]",
    "    mov [rbx + {r9}], rdx",
    // The whole register, as a trap gives it.
    "    mov rcx, rax",
    "4:  mov [rbx + {nr}], rcx",
    ".globl call_stored",
    "call_stored:",
    "    mov dword ptr [rbx + {kicked}], 0",
    "    rdfsbase rdx",
    "    mov [rbx + {fs_base}], rdx",
    "    mov dword ptr [rbx + {stop}], {stop_call}",
    "    rdpid rsi",
    "    and esi, 0xfff",
    "    mov [rbx + {cpu}], esi",
    "    rdtsc",
    "    mov [rbx + {stopped_at}], eax",
    "    mov [rbx + {stopped_at} + 4], edx",
    ".globl call_commit",
    "call_commit:",
    "    mov dword ptr [rbx + {state}], {state_request}",

    // The reply comes soon if a sentry thread on another CPU is looking at areas; on this one, waiting awake would only keep it
    // from running.
    "    movabs rdx, {board}",
    "    mov ecx, [rdx + {watcher}]",
    "    test ecx, ecx",
    "    jz 6f",
    "    dec ecx",
    "    cmp ecx, esi",
    "    je 6f",
    "    mov ecx, [rdx + {patience}]",
    "    jecxz 6f",
    "5:  cmp dword ptr [rbx + {state}], {state_replied}",
    "    je call_replied",
    "    pause",
    "    dec ecx",
    "    jnz 5b",
    // Whoever changes the word first decides: the sentry has replied, or it is to wake this thread.
    "6:  mov eax, {state_request}",
    "    mov ecx, {state_asleep}",
    "    lock cmpxchg [rbx + {state}], ecx",
    "    jne call_replied",
    // rcx and r11, which the host overwrites, hold nothing that is needed later.
    "7:  mov eax, {doorbell}",
    "    xor edi, edi",
    "    syscall",
    ".globl call_rang",
    "call_rang:",
    "    test eax, eax",
    "    jz call_replied",
    "    cmp eax, {interrupted}",
    "    je 7b",
    "    cmp eax, {ring_sleep}",
    "    jne call_alone",
    // The sentry has given up the notification: it changes the word when the reply is there.
    "8:  cmp dword ptr [rbx + {state}], {state_sleeps}",
    "    jne call_replied",
    "    mov eax, 202", // futex, FUTEX_WAIT
    "    lea rdi, [rbx + {state}]",
    "    xor esi, esi",
    "    mov edx, {state_sleeps}",
    "    xor r10d, r10d",
    "    syscall",
    "    jmp 8b",

    ".globl call_replied",
    "call_replied:",
    "    rdtsc",
    "    mov [rbx + {resumed_at}], eax",
    "    mov [rbx + {resumed_at} + 4], edx",
    // Taken and cleared at once: a reply that is still there when the thread rings has not been seen.
    "    xor ecx, ecx",
    "    xchg ecx, [rbx + {reply}]",
    ".globl call_taken",
    "call_taken:",
    "    cmp ecx, {reply_resume}",
    "    jne call_other",
    // A kick that came while it waited must not be lost: the sentry is to hear of the thread before application code runs.
    "    cmp dword ptr [rbx + {kicked}], 0",
    "    jne call_kicked",
    ".globl call_resume",
    // What may be changed by a call, or was used here; r12 to r15, rbp and r8 were not touched.
    "call_resume:",
    "    mov rdi, [rbx + {rdi}]",
    "    mov rsi, [rbx + {rsi}]",
    "    mov rdx, [rbx + {rdx}]",
    "    mov r10, [rbx + {r10}]",
    "    mov r9, [rbx + {r9}]",
    "    mov rax, [rbx + {result}]",
    "    mov rcx, [rbx + {rip}]",
    "    mov r11, [rbx + {rflags}]",
    "    lea rsp, [rbx + {rflags}]",
    "    popfq",
    "    mov rsp, [rbx + {rsp}]",
    "    mov rbx, [rbx + {rbx}]",
    "    jmp rcx",
    ".globl call_resume_end",
    "call_resume_end:",

    ".globl call_kicked",
    // Undefined instructions from here on are calls of the handler, which finds the frame it needs.
    "call_kicked:",
    "    ud2",
    "call_other:",
    "    cmp ecx, {reply_frame}",
    "    jne 9f",
    ".globl call_frame",
    "call_frame:",
    "    ud2",
    "9:  cmp ecx, {reply_exit}",
    "    jne call_alone",
    "    mov eax, 60", // exit
    "    xor edi, edi",
    "    syscall",
    // There is no sentry any more, or nobody who means it.
    "call_alone:",
    "    mov edi, 127",
    "    mov eax, 231", // exit_group
    "    syscall",
    "    ud2",
    ".globl call_end",
    "call_end:",

    sites = const MAX_SITES,
    landing = const LANDING_STRIDE,
    site_words = const SITES,
    magic_at = const CALL + offset_of!(CallSlot, magic),
    magic = const MAGIC,
    number_shift = const site::NUMBER_SHIFT,
    generic = const site::GENERIC,
    nr = const CALL + offset_of!(CallSlot, nr),
    rdi = const ARGS,
    rsi = const ARGS + 8,
    rdx = const ARGS + 16,
    r10 = const ARGS + 24,
    r8 = const ARGS + 32,
    r9 = const ARGS + 40,
    result = const CALL + offset_of!(CallSlot, result),
    rip = const CALL + offset_of!(CallSlot, rip),
    rsp = const CALL + offset_of!(CallSlot, rsp),
    rbx = const CALL + offset_of!(CallSlot, rbx),
    rbp = const CALL + offset_of!(CallSlot, rbp),
    r12 = const CALL + offset_of!(CallSlot, r12),
    r13 = const CALL + offset_of!(CallSlot, r13),
    r14 = const CALL + offset_of!(CallSlot, r14),
    r15 = const CALL + offset_of!(CallSlot, r15),
    kicked = const CALL + offset_of!(CallSlot, kicked),
    rflags = const CALL + offset_of!(CallSlot, rflags),
    fs_base = const offset_of!(Control, fs_base),
    stop = const offset_of!(Control, stop),
    stop_call = const STOP_CALL,
    cpu = const offset_of!(Control, cpu),
    stopped_at = const offset_of!(Control, stopped_at),
    resumed_at = const offset_of!(Control, resumed_at),
    state = const offset_of!(Control, state),
    state_request = const STATE_REQUEST,
    state_replied = const STATE_REPLIED,
    state_asleep = const STATE_ASLEEP,
    state_sleeps = const STATE_SLEEPS,
    ring_sleep = const RING_SLEEP,
    interrupted = const INTERRUPTED,
    board = const BOARD,
    watcher = const offset_of!(Board, watcher),
    patience = const offset_of!(Board, patience),
    doorbell = const DOORBELL,
    reply = const offset_of!(Control, reply),
    reply_resume = const REPLY_RESUME,
    reply_frame = const REPLY_FRAME,
    reply_exit = const REPLY_EXIT,
);

unsafe extern "C" {
    safe fn call_landings();
    safe fn call_landings_end();
    safe fn call_probe();
    safe fn call_framed();
    safe fn call_saved();
    safe fn call_flags();
    safe fn call_loads();
    safe fn call_stored();
    safe fn call_commit();
    safe fn call_rang();
    safe fn call_replied();
    safe fn call_taken();
    safe fn call_resume();
    safe fn call_resume_end();
    safe fn call_kicked();
    safe fn call_frame();
    safe fn call_end();
}

/// The address of a label.
macro_rules! label {
    ($name:ident) => {
        address($name as *const ())
    };
}

const SIGILL: u32 = 4;
const SIGTRAP: u32 = 5;
const SIGBUS: u32 = 7;
const SIGSEGV: u32 = 11;

/// Where the jump table leads a site.
pub fn landing(number: u64) -> u64 {
    label!(call_landings) + number * LANDING_STRIDE
}

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

/// What a signal has interrupted.
pub enum Interrupted {
    /// Nothing of this file.
    Elsewhere,
    /// A call that has been told of and is not replied to, or not yet heard of it: it stops once more when it is.
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
            // The sentry does not know of the call yet: it is made again from its first instruction.
            KICK_SIGNAL if rip <= label!(call_commit) => {
                undo(r, control);
                Interrupted::Stopped(KICK_SIGNAL)
            }
            // The call is over as far as the sentry is concerned: application code goes on behind it, after the kick.
            KICK_SIGNAL if resumes(r, control) => {
                (&raw mut (*control).reply).write_volatile(0);
                finish(r, control);
                Interrupted::Stopped(KICK_SIGNAL)
            }
            KICK_SIGNAL => {
                (&raw mut (*control).call.kicked).write_volatile(1);
                Interrupted::Waiting
            }
            SIGILL if rip == label!(call_kicked) => {
                finish(r, control);
                Interrupted::Stopped(KICK_SIGNAL)
            }
            // A step onto the landing: the site's first instruction has been carried out, and the call is next.
            SIGTRAP if rip < label!(call_landings_end) => {
                (*r).r11 = (rip - label!(call_landings)) / LANDING_STRIDE;
                let fits = first_instruction(r);
                (*r).rip = word(r).0.wrapping_sub(if fits { 2 } else { site::LEN });
                Interrupted::Stopped(if fits { SIGTRAP } else { SIGSEGV })
            }
            SIGSEGV | SIGBUS if rip == label!(call_probe) => framed(r),
            SIGILL if rip == label!(call_framed) => framed(r),
            SIGILL if rip == label!(call_frame) => {
                finish(r, control);
                Interrupted::Stopped(STOP_FRAME)
            }
            // The application's stack pointer leads nowhere: its own load would have faulted, and does so once more.
            SIGSEGV | SIGBUS if rip == label!(call_loads) => {
                undo(r, control);
                Interrupted::Stopped(signal)
            }
            _ => Interrupted::Broken,
        }
    }
}

/// The address behind the site whose number is in r11, and the number that it calls with.
unsafe fn word(r: *const Registers) -> (u64, u64) {
    // SAFETY: by the caller; the pages at SITES hold that many words.
    let word = unsafe {
        let at = SITES + (*r).r11 % u64::from(MAX_SITES) * 8;
        pointer::<u64>(at).read_volatile()
    };
    ((word << 16).cast_signed().wrapping_shr(16).cast_unsigned(), word >> site::NUMBER_SHIFT)
}

/// Carries out the instruction that the site's jump replaces; false if it faults.
unsafe fn first_instruction(r: *mut Registers) -> bool {
    // SAFETY: by the caller; a load that faults is recovered from.
    unsafe {
        let (_, number) = word(r);
        if number != site::GENERIC {
            (*r).rax = number;
            return true;
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
        let (rip, _) = word(r);
        if !first_instruction(r) {
            (*r).rip = rip.wrapping_sub(site::LEN);
            return Interrupted::Stopped(SIGSEGV);
        }
        (*r).rip = rip;
        ((*r).rcx, (*r).r11) = (rip, (*r).rflags);
        Interrupted::Stopped(STOP_FRAMED_CALL)
    }
}

/// The state before the site's first instruction.
unsafe fn undo(r: *mut Registers, control: *mut Control) {
    // SAFETY: by the caller.
    unsafe {
        let at = (*r).rip;
        if at < label!(call_landings_end) {
            (*r).r11 = (at - label!(call_landings)) / LANDING_STRIDE;
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
        (*r).rip = word(r).0.wrapping_sub(site::LEN);
    }
}

/// Whether the interrupted call has its reply, and goes on behind the site.
unsafe fn resumes(r: *const Registers, control: *const Control) -> bool {
    // SAFETY: by the caller.
    unsafe {
        let rip = (*r).rip;
        if rip >= label!(call_resume) {
            return rip < label!(call_resume_end);
        }
        if rip >= label!(call_taken) {
            return (*r).rcx == u64::from(REPLY_RESUME);
        }
            // Before the reply is taken: it is there if the word says so, or the ring has returned with it.
    let state = AtomicU32::from_ptr((&raw const (*control).state).cast_mut()).load(Ordering::Acquire);
        let replied = rip >= label!(call_replied)
            || state == STATE_REPLIED
            || rip == label!(call_rang) && (*r).rax == 0;
        replied && (&raw const (*control).reply).read_volatile() == REPLY_RESUME
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
