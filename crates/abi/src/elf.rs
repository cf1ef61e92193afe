//! ELF64 files and the auxiliary vector.
//!
//! Sources: elf(5), getauxval(3), `linux/{elf,auxvec}.h`, `asm/auxvec.h`.

guest_struct! {
    /// `Elf64_Ehdr`.
    Elf64Ehdr: 64 { e_ident: [u8; 16], e_type: u16, e_machine: u16, e_version: u32, e_entry: u64, e_phoff: u64,
        e_shoff: u64, e_flags: u32,
        e_ehsize: u16, e_phentsize: u16, e_phnum: u16, e_shentsize: u16, e_shnum: u16, e_shstrndx: u16 }
}
guest_struct! {
    /// `Elf64_Phdr`.
    Elf64Phdr: 56 { p_type: u32, p_flags: u32, p_offset: u64, p_vaddr: u64, p_paddr: u64, p_filesz: u64, p_memsz: u64,
        p_align: u64 }
}
guest_struct! {
    /// `Elf64_Shdr`.
    Elf64Shdr: 64 { sh_name: u32, sh_type: u32, sh_flags: u64, sh_addr: u64, sh_offset: u64, sh_size: u64,
        sh_link: u32, sh_info: u32,
        sh_addralign: u64, sh_entsize: u64 }
}
guest_struct! {
    /// `Elf64_Sym`.
    Elf64Sym: 24 { st_name: u32, st_info: u8, st_other: u8, st_shndx: u16, st_value: u64, st_size: u64 }
}
guest_struct! {
    /// `Elf64_Dyn`.
    Elf64Dyn: 16 { d_tag: i64, d_val: u64 }
}
guest_struct! {
    /// `Elf64_Nhdr`; name and contents follow, each padded to 4 bytes.
    Elf64Nhdr: 12 { n_namesz: u32, n_descsz: u32, n_type: u32 }
}

/// The first four bytes of an ELF file.
pub const ELFMAG: [u8; 4] = *b"\x7fELF";
consts! { "Indices into `e_ident`, elf(5).", usize; EI_CLASS = 4, EI_DATA = 5, EI_VERSION = 6, EI_OSABI = 7 }
consts! { "Values in `e_ident`, elf(5).", u8; ELFCLASS32 = 1, ELFCLASS64 = 2, ELFDATA2LSB = 1, EV_CURRENT = 1 }
consts! { "`e_type`, elf(5).", u16; ET_REL = 1, ET_EXEC = 2, ET_DYN = 3, ET_CORE = 4 }
consts! { "`e_machine`, elf(5).", u16; EM_386 = 3, EM_X86_64 = 62 }
consts! { "`p_type`, elf(5).", u32; PT_NULL = 0, PT_LOAD = 1, PT_DYNAMIC = 2, PT_INTERP = 3, PT_NOTE = 4,
PT_SHLIB = 5, PT_PHDR = 6, PT_TLS = 7,
PT_GNU_EH_FRAME = 0x6474_e550, PT_GNU_STACK = 0x6474_e551, PT_GNU_RELRO = 0x6474_e552,
PT_GNU_PROPERTY = 0x6474_e553 }
consts! { "`p_flags`, elf(5).", u32; PF_X = 1, PF_W = 2, PF_R = 4 }
consts! { "Note types of core files, elf(5).", u32; NT_PRSTATUS = 1, NT_PRFPREG = 2, NT_PRPSINFO = 3, NT_AUXV = 6,
NT_SIGINFO = 0x5349_4749,
NT_FILE = 0x4649_4c45, NT_X86_XSTATE = 0x202 }
/// Most bytes of program headers that exec reads (`load_elf_phdrs`: more is ENOEXEC).
pub const ELF_MAX_PHDRS_BYTES: usize = 65536;

consts! { "Tags of the auxiliary vector, getauxval(3).", u64; AT_NULL = 0, AT_IGNORE = 1, AT_EXECFD = 2, AT_PHDR = 3,
AT_PHENT = 4, AT_PHNUM = 5,
AT_PAGESZ = 6, AT_BASE = 7, AT_FLAGS = 8, AT_ENTRY = 9, AT_NOTELF = 10, AT_UID = 11, AT_EUID = 12, AT_GID = 13,
AT_EGID = 14, AT_PLATFORM = 15,
AT_HWCAP = 16, AT_CLKTCK = 17, AT_SECURE = 23, AT_BASE_PLATFORM = 24, AT_RANDOM = 25, AT_HWCAP2 = 26,
AT_RSEQ_FEATURE_SIZE = 27,
AT_RSEQ_ALIGN = 28, AT_HWCAP3 = 29, AT_HWCAP4 = 30, AT_EXECFN = 31, AT_SYSINFO_EHDR = 33, AT_MINSIGSTKSZ = 51 }
consts! { "AT_FLAGS bit, `linux/binfmts.h`.", u64; AT_FLAGS_PRESERVE_ARGV0 = 1 }

/// Most bytes of one argument or environment string with its NUL (`MAX_ARG_STRLEN`), execve(2).
pub const MAX_ARG_STRLEN: usize = 32 * 4096;
/// Bytes at the start of a file that exec looks at (`BINPRM_BUF_SIZE`): the longest `#!` line.
pub const BINPRM_BUF_SIZE: usize = 256;
