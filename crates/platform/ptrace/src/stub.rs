//! The code in every guest process: a `syscall` instruction, and atomic operations, each ending in one `int3`.
//!
//! The tracer points a stopped thread at an entry and takes it back at [`done`]. Guest code may jump here too:
//! it gets what it would get from the same instructions of its own.

use moat_platform::Atomic32;

// rdi = address, esi = operand, edx = expected value; the result is in eax. The compare-exchange loops give up (ud2)
// after a million lost races, so that other threads of the guest cannot hold the tracer for ever.
std::arch::global_asm!(
    r#"
    .pushsection .rodata.moat_ptrace_stub, "a", @progbits
    .globl moat_ptrace_stub_start
    .globl moat_ptrace_stub_end
    .globl moat_ptrace_stub_done
    .globl moat_ptrace_stub_load
    .globl moat_ptrace_stub_swap
    .globl moat_ptrace_stub_add
    .globl moat_ptrace_stub_or
    .globl moat_ptrace_stub_andnot
    .globl moat_ptrace_stub_xor
    .globl moat_ptrace_stub_cmpxchg
moat_ptrace_stub_start:
    syscall
moat_ptrace_stub_done:
    int3
moat_ptrace_stub_load:
    mov eax, [rdi]
    jmp moat_ptrace_stub_done
moat_ptrace_stub_swap:
    mov eax, esi
    xchg [rdi], eax
    jmp moat_ptrace_stub_done
moat_ptrace_stub_add:
    mov eax, esi
    lock xadd [rdi], eax
    jmp moat_ptrace_stub_done
moat_ptrace_stub_or:
    mov r8d, 1000000
    mov eax, [rdi]
2:  mov ecx, eax
    or ecx, esi
    lock cmpxchg [rdi], ecx
    je moat_ptrace_stub_done
    dec r8d
    jnz 2b
    ud2
moat_ptrace_stub_andnot:
    not esi
    mov r8d, 1000000
    mov eax, [rdi]
2:  mov ecx, eax
    and ecx, esi
    lock cmpxchg [rdi], ecx
    je moat_ptrace_stub_done
    dec r8d
    jnz 2b
    ud2
moat_ptrace_stub_xor:
    mov r8d, 1000000
    mov eax, [rdi]
2:  mov ecx, eax
    xor ecx, esi
    lock cmpxchg [rdi], ecx
    je moat_ptrace_stub_done
    dec r8d
    jnz 2b
    ud2
moat_ptrace_stub_cmpxchg:
    mov eax, edx
    lock cmpxchg [rdi], esi
    jmp moat_ptrace_stub_done
moat_ptrace_stub_end:
    .popsection
    "#
);

unsafe extern "C" {
    static moat_ptrace_stub_start: u8;
    static moat_ptrace_stub_end: u8;
    static moat_ptrace_stub_done: u8;
    static moat_ptrace_stub_load: u8;
    static moat_ptrace_stub_swap: u8;
    static moat_ptrace_stub_add: u8;
    static moat_ptrace_stub_or: u8;
    static moat_ptrace_stub_andnot: u8;
    static moat_ptrace_stub_xor: u8;
    static moat_ptrace_stub_cmpxchg: u8;
}

/// The code, to be put at the start of a page.
pub(crate) fn code() -> &'static [u8] {
    let (start, end) = (&raw const moat_ptrace_stub_start, &raw const moat_ptrace_stub_end);
    // SAFETY: the assembler laid out the bytes between the two labels, in a read-only section.
    unsafe { std::slice::from_raw_parts(start, end.addr() - start.addr()) }
}

fn offset(label: *const u8) -> u64 {
    (label.addr() - (&raw const moat_ptrace_stub_start).addr()) as u64
}

/// Offset of the `syscall` instruction.
pub(crate) const SYSCALL: u64 = 0;

/// Offset that `rip` has after the final `int3`.
pub(crate) fn done() -> u64 {
    offset(&raw const moat_ptrace_stub_done) + 1
}

/// An atomic operation: offset of the entry, operand (esi), expected value (edx).
pub(crate) fn atomic(op: Atomic32) -> (u64, u32, u32) {
    match op {
        Atomic32::Load => (offset(&raw const moat_ptrace_stub_load), 0, 0),
        Atomic32::Swap(v) => (offset(&raw const moat_ptrace_stub_swap), v, 0),
        Atomic32::Add(v) => (offset(&raw const moat_ptrace_stub_add), v, 0),
        Atomic32::Or(v) => (offset(&raw const moat_ptrace_stub_or), v, 0),
        Atomic32::AndNot(v) => (offset(&raw const moat_ptrace_stub_andnot), v, 0),
        Atomic32::Xor(v) => (offset(&raw const moat_ptrace_stub_xor), v, 0),
        Atomic32::CompareExchange { old, new } => (offset(&raw const moat_ptrace_stub_cmpxchg), new, old),
    }
}
