//! Calls from rewritten sites: the code that a site jumps to.
//!
//! A site has become a jump to its landing, which leaves its number in r11. Of the application's registers only rcx and r11 may
//! be used at first, which a system call overwrites anyway, and neither its stack nor its flags. The area is where %gs
//! points, if the word behind MAGIC says so; all registers that are used later are kept there. Then the stub asks and waits as
//! a stopped thread does, and goes on behind the site. A reply that lets the call return and nothing else (STATE_PLAIN) is one cache line: the
//! word that the stub looks at, and the result.
//!
//! Orders that are plain system calls, which the filter lets through, are carried out here, too; all others need a frame.
//!
//! Few bytes that the call refers to are copied into the area before the stub asks ([`takes`]), and from there to where they
//! belong when it goes on. Bytes that can't be read are not brought along; the sentry finds out why.
//!
//! A handler of a signal may begin in place of the code behind the site (`call/begins.rs`).
//!
//! Signals find the application's state before the call (up to `call_commit`) or after it (`interrupted.rs`).

mod begins;
mod orders;
mod own;

use core::arch::global_asm;
use core::mem::{offset_of, size_of};

use begins::begins;
use orders::orders;
use own::own_calls;

use crate::extended::FRESH;
use crate::layout::{
    ANSWERS, BOARD, Board, CELLS, CallSlot, Cell, Control, DOORBELL, FIRM_PATIENCE, LANDING_STRIDE, MAGIC, MAX_SITES, PARCEL, PARCEL_LEN,
    PATIENCE, REPLY_EXIT,
    REPLY_FRAME, REPLY_RESUME, REPLY_STOP, RING_SLEEP, SITES, STATE_ASLEEP, STATE_PLAIN, STATE_REQUEST, STATE_SLEEPS, STOP_CALL,
    STOP_ORDERS,
    own_call, site, takes,
};

const CALL: usize = offset_of!(Control, call);
const ARGS: usize = CALL + offset_of!(CallSlot, args);
/// -EINTR, as the low half of rax.
const INTERRUPTED: i32 = -4;
/// -EFAULT, likewise.
const FAULT: i32 = -14;

/// [`takes::TABLE`], where the code below finds it.
static TAKES: [u16; takes::CALLS] = takes::TABLE;

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
    "    int3",
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
    // For the copies below; the application gets its own flags back.
    "    cld",
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
    // The two highest are no numbers of calls, but sites whose number is in rax.
    "    cmp ecx, {short}",
    "    jb 4f",
    "    je 3f",
    "    mov rdx, [rbx + {rsp}]",
    ".globl call_loads",
    "call_loads:",
    "    mov rdx, [rdx + 8]",
    "    mov [rbx + {r9}], rdx",
    // The whole register, as a trap gives it.
    "3:  mov rcx, rax",
    "4:  mov [rbx + {nr}], rcx",
    ".globl call_stored",
    "call_stored:",
    // An answer that lies here: a call that concerns the process alone (`kernel/src/task/answers.rs`).
    "    cmp rcx, {answers_len}",
    "    jae 5f",
    "    mov edx, [rbx + rcx * 4 + {answers}]",
    "    test edx, edx",
    "    jz 5f",
    "    dec edx",
    "    mov [rbx + {result}], rdx",
    "    jmp call_resume",
    own_calls!(),
    "5:  mov dword ptr [rbx + {kicked}], 0",
    "    mov dword ptr [rbx + {taken}], 0",
    "    cmp rcx, {takes_len}",
    "    jae call_asks",
    "    lea rdx, [rip + {takes}]",
    "    movzx eax, word ptr [rdx + rcx * 2]",
    "    test eax, eax",
    "    jz call_asks",
    "    mov ecx, eax",
    "    and ecx, 7",
    "    mov rsi, [rbx + rcx * 8 + {rdi}]",
    // What is not there is no reason for a fault: many calls say so by a null pointer.
    "    test rsi, rsi",
    "    jz call_asks",
    "    lea rdi, [rbx + {parcel}]",
    "    test eax, {string}",
    "    jnz 7f",
    "    mov edx, eax",
    "    shr edx, {words}",
    "    shl edx, 2",
    "    jnz 6f",
    "    mov ecx, eax",
    "    shr ecx, {length}",
    "    and ecx, 7",
    "    mov rdx, [rbx + rcx * 8 + {rdi}]",
    "    cmp rdx, {parcel_len}",
    "    ja call_asks",
    "    mov ecx, eax",
    "    shr ecx, {shift}",
    "    and ecx, 7",
    "    shl rdx, cl",
    "6:  cmp rdx, {parcel_len}",
    "    ja call_asks",
    "    mov ecx, edx",
    ".globl call_takes",
    "call_takes:",
    "    rep movsb",
    "    mov [rbx + {taken}], edx",
    "    jmp call_asks",
    "7:  mov ecx, {string_len}",
    "    mov edx, edi",
    ".globl call_reads",
    "call_reads:",
    "    mov al, [rsi]",
    "    mov [rdi], al",
    "    inc rsi",
    "    inc rdi",
    "    test al, al",
    "    jz 8f",
    "    dec ecx",
    "    jnz call_reads",
    "8:  sub edi, edx",
    "    mov [rbx + {taken}], edi",
    ".globl call_asks",
    "call_asks:",
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
    "call_waits:",
    "    movabs rdx, {board}",
    "    mov ecx, [rdx + {watcher}]",
    "    test ecx, ecx",
    "    jz 6f",
    "    dec ecx",
    "    cmp ecx, esi",
    "    je 6f",
    "    mov ecx, [rdx + {patience}]",
    "    jecxz 6f",
    "5:  mov eax, [rbx + {state}]",
    "    cmp eax, {state_request}",
    "    jne 7f",
    "    pause",
    "    dec ecx",
    "    jz 6f",
    "    cmp ecx, {loose}",
    "    ja 5b",
    // It is still awake, or busy with this very call.
    "    cmp dword ptr [rdx + {watcher}], 0",
    "    jne 5b",
    // Whoever changes the word first decides: the sentry has replied, or it is to wake this thread.
    "6:  mov eax, {state_request}",
    "    mov ecx, {state_asleep}",
    "    lock cmpxchg [rbx + {state}], ecx",
    "    je 9f",
    // The reply, or word that there will be none for long.
    "7:  cmp eax, {state_plain}",
    "    je call_plain",
    "    cmp eax, {state_sleeps}",
    "    je 8f",
    "    jmp call_replied",
    // rcx and r11, which the host overwrites, hold nothing that is needed later.
    "9:  mov eax, {doorbell}",
    "    xor edi, edi",
    "    syscall",
    ".globl call_rang",
    "call_rang:",
    "    test eax, eax",
    "    jz call_replied",
    "    cmp eax, {interrupted}",
    "    je 9b",
    "    cmp eax, {ring_sleep}",
    "    jne call_alone",
    // The sentry has given up the notification, or never wanted one: it changes the word when the reply is there.
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
    "    cmp dword ptr [rbx + {order_count}], 0",
    "    jne call_orders",
    ".globl call_ordered",
    "call_ordered:",
    "    cmp qword ptr [rbx + {fpstate}], 0",
    "    jne call_begins",
    // A kick that came while it waited must not be lost: the sentry is to hear of the thread before application code runs.
    "    cmp dword ptr [rbx + {kicked}], 0",
    "    jne call_kicks",
    ".globl call_gives",
    "call_gives:",
    "    mov edx, [rbx + {gift_count}]",
    "    test edx, edx",
    "    jz call_resume",
    "    mov rsi, [rbx + {gifts_at}]",
    "    lea rsi, [rbx + rsi + {parcel}]",
    "    lea r10, [rbx + {gifts}]",
    "8:  mov rdi, [r10]",
    "    mov rcx, [r10 + 8]",
    ".globl call_copies",
    "call_copies:",
    "    rep movsb",
    "    add r10, 16",
    "    dec edx",
    "    jnz 8b",
    "    jmp call_resume",
    "call_plain:",
    "    rdtsc",
    "    mov [rbx + {resumed_at}], eax",
    "    mov [rbx + {resumed_at} + 4], edx",
    "    cmp dword ptr [rbx + {kicked}], 0",
    "    jne call_kicks",
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

    // Breakpoints are calls of the handler, which finds the frame it needs, behind them. Undefined instructions would be, too, but many
    // virtual machines are left at those, which costs several times as much.
    "call_kicks:",
    "    int3",
    ".globl call_kicked",
    "call_kicked:",
    "    ud2",
    "call_other:",
    "    cmp ecx, {reply_frame}",
    "    jne 9f",
    "    cmp qword ptr [rbx + {fpstate}], 0",
    "    jne call_begins",
    "call_frames:",
    "    int3",
    ".globl call_frame",
    "call_frame:",
    "    ud2",
    "9:  cmp ecx, {reply_stop}",
    "    je call_orders",
    "    cmp ecx, {reply_exit}",
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

    begins!(),
    orders!(),
    ".globl call_end",
    "call_end:",

    sites = const MAX_SITES,
    landing = const LANDING_STRIDE,
    site_words = const SITES,
    magic_at = const CALL + offset_of!(CallSlot, magic),
    magic = const MAGIC,
    number_shift = const site::NUMBER_SHIFT,
    short = const site::SHORT,
    takes = sym TAKES,
    takes_len = const takes::CALLS,
    taken = const CALL + offset_of!(CallSlot, taken),
    parcel = const PARCEL,
    parcel_len = const PARCEL_LEN,
    string = const takes::STRING,
    string_len = const takes::STRING_LEN,
    words = const takes::WORDS,
    length = const takes::LEN,
    shift = const takes::SHIFT,
    gift_count = const CALL + offset_of!(CallSlot, gift_count),
    gifts_at = const CALL + offset_of!(CallSlot, gifts_at),
    gifts = const CALL + offset_of!(CallSlot, gifts),
    fpstate = const CALL + offset_of!(CallSlot, fpstate),
    xfeatures = const CALL + offset_of!(CallSlot, xfeatures),
    fresh = sym FRESH,
    answers = const offset_of!(Control, answers),
    answers_len = const ANSWERS,
    futex = const own_call::FUTEX,
    waitv = const own_call::WAITV,
    wait_realtime = const own_call::WAIT_REALTIME,
    private = const own_call::PRIVATE,
    last_command = const own_call::LAST,
    commands = const own_call::COMMANDS,
    own_calls = const offset_of!(Control, own_calls),
    sched_yield = const own_call::SCHED_YIELD,
    in_host = const offset_of!(Control, in_host),
    began = const offset_of!(Control, began),
    fault = const FAULT,
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
    cpu = const CALL + offset_of!(CallSlot, cpu),
    stopped_at = const offset_of!(Control, stopped_at),
    resumed_at = const offset_of!(Control, resumed_at),
    state = const CALL + offset_of!(CallSlot, state),
    state_plain = const STATE_PLAIN,
    state_request = const STATE_REQUEST,
    state_asleep = const STATE_ASLEEP,
    state_sleeps = const STATE_SLEEPS,
    ring_sleep = const RING_SLEEP,
    interrupted = const INTERRUPTED,
    board = const BOARD,
    watcher = const offset_of!(Board, watcher),
    patience = const offset_of!(Board, patience),
    loose = const PATIENCE - FIRM_PATIENCE,
    doorbell = const DOORBELL,
    reply = const offset_of!(Control, reply),
    reply_resume = const REPLY_RESUME,
    reply_frame = const REPLY_FRAME,
    reply_stop = const REPLY_STOP,
    reply_exit = const REPLY_EXIT,
    stop_orders = const STOP_ORDERS,
    order_count = const offset_of!(Control, order_count),
    orders_done = const offset_of!(Control, orders_done),
    cells = const offset_of!(Control, cells),
    max_cells = const CELLS,
    cell_args = const offset_of!(Cell, args),
    cell_result = const offset_of!(Cell, result),
    cell_len = const size_of::<Cell>(),
    // As a signed number, which the comparison extends: results from here on are errors.
    max_errno = const -4095,
);

unsafe extern "C" {
    pub safe fn call_landings();
    pub safe fn call_landings_end();
    pub safe fn call_probe();
    pub safe fn call_framed();
    pub safe fn call_saved();
    pub safe fn call_flags();
    pub safe fn call_loads();
    pub safe fn call_stored();
    pub safe fn call_own();
    pub safe fn call_owned();
    pub safe fn call_own_ends();
    pub safe fn call_unanswered();
    pub safe fn call_takes();
    pub safe fn call_reads();
    pub safe fn call_asks();
    pub safe fn call_commit();
    pub safe fn call_rang();
    pub safe fn call_replied();
    pub safe fn call_taken();
    pub safe fn call_gives();
    pub safe fn call_copies();
    pub safe fn call_resume();
    pub safe fn call_resume_end();
    pub safe fn call_begins();
    pub safe fn call_begun();
    pub safe fn call_begun_end();
    pub safe fn call_kicked();
    pub safe fn call_frame();
    pub safe fn call_order_loads();
    pub safe fn call_order();
    pub safe fn call_order_made();
    pub safe fn call_end();
}

/// The address of a label.
macro_rules! label {
    ($name:ident) => {
        $crate::raw::address($crate::call::$name as *const ())
    };
}
pub(crate) use label;

/// Where the jump table leads a site.
pub fn landing(number: u64) -> u64 {
    label!(call_landings) + number * LANDING_STRIDE
}
