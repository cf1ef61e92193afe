//! Guest programs, in assembler. Each is position-independent, runs with zeroed registers and ends in a loop of events.

/// Makes a function that gives the machine code of a program.
macro_rules! program {
    ($(#[$doc:meta])* $name:ident: $($line:literal)+) => {
        core::arch::global_asm!(
            ".pushsection .rodata.moat_conformance, \"a\", @progbits",
            concat!(".globl moat_conformance_", stringify!($name)),
            concat!(".globl moat_conformance_end_", stringify!($name)),
            concat!("moat_conformance_", stringify!($name), ":"),
            $($line,)+
            "ud2",
            concat!("moat_conformance_end_", stringify!($name), ":"),
            ".popsection"
        );
        $(#[$doc])*
        #[must_use]
        pub fn $name() -> &'static [u8] {
            unsafe extern "C" {
                #[link_name = concat!("moat_conformance_", stringify!($name))]
                static START: u8;
                #[link_name = concat!("moat_conformance_end_", stringify!($name))]
                static END: u8;
            }
            let (start, end) = (&raw const START, &raw const END);
            // SAFETY: the assembler laid out the bytes between the two labels, in a read-only section.
            unsafe { core::slice::from_raw_parts(start, end.addr() - start.addr()) }
        }
    };
}

program!(
    /// System call 1000 with six arguments, then 1001 with the result as its argument.
    two_syscalls:
    "mov eax, 1000"
    "mov edi, 1"
    "mov esi, 2"
    "mov rdx, -3"
    "mov r10d, 4"
    "movabs r8, 0x1234567890abcdef"
    "mov r9d, 6"
    "syscall"
    "mov rdi, rax"
    "mov eax, 1001"
    "syscall"
);
program!(
    /// System calls with whatever is in the registers, for ever.
    syscalls:
    "2: syscall"
    "jmp 2b"
);
program!(
    /// System call number rbx, then rbx + 1, ..., each with the last result as its argument.
    counting:
    "2: mov rdi, rax"
    "mov rax, rbx"
    "syscall"
    "inc rbx"
    "jmp 2b"
);
program!(
    /// `int 0x80`, then a system call.
    int80:
    "mov eax, 20"
    "int 0x80"
    "mov edi, eax"
    "mov eax, 1000"
    "syscall"
);
program!(
    /// A call of the vsyscall page's time(), then a system call.
    vsyscall:
    "xor edi, edi"
    "mov rax, 0xffffffffff600400"
    "call rax"
    "mov rdi, rax"
    "mov eax, 1000"
    "syscall"
);
program!(
    /// Reads the byte at rdi, then a system call with it.
    read_byte:
    "movzx eax, byte ptr [rdi]"
    "mov edi, eax"
    "mov eax, 1000"
    "syscall"
);
program!(
    /// Writes sil to the byte at rdi, then a system call.
    write_byte:
    "mov [rdi], sil"
    "mov eax, 1000"
    "syscall"
);
program!(
    /// Jumps to rdi.
    jump:
    "jmp rdi"
);
program!(
    /// Divides by rdi (zero).
    divide:
    "xor edx, edx"
    "div rdi"
    "mov eax, 1000"
    "syscall"
);
program!(
    /// `int3`, then a system call.
    breakpoint:
    "int3"
    "mov eax, 1000"
    "syscall"
);
program!(
    /// A privileged instruction.
    halt:
    "hlt"
);
program!(
    /// `nop`s.
    nops:
    "nop"
    "nop"
    "nop"
    "nop"
    "mov eax, 1000"
    "syscall"
    "nop"
    "nop"
);
program!(
    /// Counts in the word at rdi for ever.
    count_memory:
    "2: inc dword ptr [rdi]"
    "jmp 2b"
);
program!(
    /// Runs until the word at rdi is not zero, then a system call with it.
    await_memory:
    "2: pause"
    "mov eax, [rdi]"
    "test eax, eax"
    "jz 2b"
    "mov edi, eax"
    "mov eax, 1000"
    "syscall"
);
program!(
    /// Loads xmm3 from rdi, a system call, then stores xmm3 at rdi + 16, and a system call.
    sse:
    "movups xmm3, [rdi]"
    "mov eax, 1000"
    "syscall"
    "movups [rdi + 16], xmm3"
    "stmxcsr [rdi + 32]"
    "mov eax, 1001"
    "syscall"
);
