//! Code that cannot be Rust: signal entry and return, the first instructions after a clone, recoverable accesses.

use core::arch::global_asm;

use crate::layout::{AREA_LEN, AREA_STRIDE, Control, DOORBELL};
use crate::raw::address;

global_asm!(
    ".pushsection .stub.header, \"a\"",
    ".quad stub_init, stub_text_start, stub_text_end, call_asks_anew",
    ".popsection",

    // A signal: edi is its number, rsp the frame. The kernel cleared DF and TF but not AC, and may have
    // interrupted code with any register contents; none need be kept, they come back from the frame.
    ".globl stub_signal",
    "stub_signal:",
    "    mov rbx, rsp",
    "    mov rsi, rsp",
    "    mov rdx, rsp",
    "    and rdx, -{stride}",
    "    and rsp, -16",
    "    push 2",
    "    popfq",
    "    call {on_signal}",
    "stub_return:",
    "    lea rsp, [rbx + 8]",
    "    mov eax, 15", // rt_sigreturn
    "    syscall",
    "    ud2",

    // stub_fork(flags, area, descriptor and token, offset): the parent gets clone's result. The child has no
    // memory of its own but copies of the application's, and no stack, until it has mapped its area.
    ".globl stub_fork",
    "stub_fork:",
    "    push rbx",
    "    push r12",
    "    push r13",
    "    mov rbx, rsi",
    "    mov r12, rdx",
    "    mov r13, rcx",
    "    xor esi, esi",
    "    xor edx, edx",
    "    xor r10d, r10d",
    "    xor r8d, r8d",
    "    mov eax, 56", // clone
    "    syscall",
    "    test rax, rax",
    "    jz 2f",
    "    pop r13",
    "    pop r12",
    "    pop rbx",
    "    ret",
    // The child is parked in this call until the sentry first resumes it; the reply is then in the area.
    "2:  mov rdi, rbx",
    "    mov esi, {area_len}",
    "    mov edx, 3",      // PROT_READ | PROT_WRITE
    "    mov r10d, 0x11",  // MAP_SHARED | MAP_FIXED
    "    mov r8, r12",
    "    mov r9, r13",
    "    mov eax, 9", // mmap
    "    syscall",
    "    cmp rax, rbx",
    "    jne stub_die",
    "    mov rdi, rbx",
    "stub_serve_first:",
    "    mov rbx, [rdi + {frame}]",
    "    mov rsp, rbx",
    "    and rsp, -16",
    "    call {serve}",
    "    jmp stub_return",

    // stub_spawn(flags, area of the new thread, token)
    ".globl stub_spawn",
    "stub_spawn:",
    "    push rbx",
    "    push r12",
    "    mov rbx, rsi",
    "    mov r12, rdx",
    "    mov rsi, [rbx + {frame}]",
    "    and rsi, -16",
    "    xor edx, edx",
    "    lea r10, [rbx + {alive}]",
    "    xor r8d, r8d",
    "    mov eax, 56",
    "    syscall",
    "    test rax, rax",
    "    jz 3f",
    "    pop r12",
    "    pop rbx",
    "    ret",
    // The new thread is parked in this call until the sentry first resumes it.
    "3:  mov rdi, r12",
    "    mov eax, {doorbell}",
    "    syscall",
    "    test rax, rax",
    "    jnz stub_die",
    "    mov rdi, rbx",
    "    jmp stub_serve_first",

    "stub_die:",
    "    mov edi, 127",
    "    mov eax, 231", // exit_group
    "    syscall",
    "    ud2",

    // Accesses to application memory that may fault: the handler then resumes at the recovery label.
    ".globl stub_load",
    "stub_load:",
    "stub_load_access:",
    "    mov eax, [rdi]",
    "    ret",
    ".globl stub_compare_exchange",
    "stub_compare_exchange:",
    "    mov eax, esi",
    "stub_compare_exchange_access:",
    "    lock cmpxchg [rdi], edx",
    "    mov eax, eax",
    "    ret",
    // stub_copy(to, from, length)
    ".globl stub_copy",
    "stub_copy:",
    "    mov rcx, rdx",
    "    cld",
    "stub_copy_access:",
    "    rep movsb",
    "stub_copied:",
    "    xor eax, eax",
    "    ret",
    // stub_string(to, from, most): with its NUL
    ".globl stub_string",
    "stub_string:",
    "    mov ecx, edx",
    "    mov rdx, rdi",
    "stub_string_access:",
    "    mov al, [rsi]",
    "stub_string_read:",
    "    mov [rdi], al",
    "    inc rsi",
    "    inc rdi",
    "    test al, al",
    "    jz 1f",
    "    dec ecx",
    "    jnz stub_string_access",
    "1:  mov rax, rdi",
    "    sub rax, rdx",
    "    ret",
    "stub_recovery:",
    "    mov rax, -1",
    "    ret",

    stride = const AREA_STRIDE,
    area_len = const AREA_LEN,
    frame = const core::mem::offset_of!(Control, frame),
    alive = const core::mem::offset_of!(Control, alive),
    doorbell = const DOORBELL,
    on_signal = sym crate::on_signal,
    serve = sym crate::serve,
);

unsafe extern "C" {
    /// The handler of every signal.
    pub safe fn stub_signal();
    /// See the assembly.
    pub fn stub_fork(flags: u64, area: u64, descriptor: u64, offset: u64) -> u64;
    /// See the assembly.
    pub fn stub_spawn(flags: u64, area: u64, token: u64) -> u64;
    /// The word at an address; above 32 bits if it faulted.
    pub fn stub_load(addr: u64) -> u64;
    /// The word that was there; above 32 bits if it faulted.
    pub fn stub_compare_exchange(addr: u64, old: u32, new: u32) -> u64;
    /// Copies; not 0 if it faulted.
    pub fn stub_copy(to: u64, from: u64, len: u64) -> u64;
    /// Copies a string of so many bytes at most; how long it is, above 32 bits if it faulted.
    pub fn stub_string(to: u64, from: u64, most: u64) -> u64;
    safe fn stub_string_access();
    safe fn stub_string_read();
    safe fn stub_copy_access();
    safe fn stub_copied();
    safe fn stub_load_access();
    safe fn stub_compare_exchange_access();
    safe fn stub_recovery();
    safe static stub_text_start: u8;
    safe static stub_text_end: u8;
}

/// Whose instruction faulted.
pub enum FaultOrigin {
    /// The application's.
    Application,
    /// One that is allowed to: go on at this address.
    Atomic(u64),
    /// Any other of the stub's.
    Stub,
}

/// The address of a label.
macro_rules! at {
    ($label:ident) => {
        address($label as *const ())
    };
}

/// Whether it copies there: a debug register that watches the memory is told of, and Linux does not tell of such copies.
pub fn copies(rip: u64) -> bool {
    (at!(stub_copy_access)..=at!(stub_copied)).contains(&rip) || rip == at!(stub_string_read)
}

/// Classifies an instruction pointer.
pub fn fault_origin(rip: u64) -> FaultOrigin {
    let may_fault =
        [at!(stub_load_access), at!(stub_compare_exchange_access), at!(stub_copy_access), at!(stub_string_access)];
    if may_fault.contains(&rip) {
        FaultOrigin::Atomic(at!(stub_recovery))
    } else if (address(&raw const stub_text_start)..address(&raw const stub_text_end)).contains(&rip) {
        FaultOrigin::Stub
    } else {
        FaultOrigin::Application
    }
}
