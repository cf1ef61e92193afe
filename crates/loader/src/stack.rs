//! The initial stack: arguments, environment and the auxiliary vector (`create_elf_tables`).
//!
//! From the top down: eight zero bytes, the file name, the environment strings, the argument strings, a random distance, the
//! platform's name, 16 random bytes, and 16-byte aligned below them: argc, argv, envp and the auxiliary vector.

use std::ops::Range;

use moat_abi::elf::{
    AT_BASE, AT_CLKTCK, AT_EGID, AT_ENTRY, AT_EUID, AT_EXECFN, AT_FLAGS, AT_GID, AT_HWCAP, AT_HWCAP2, AT_MINSIGSTKSZ,
    AT_NULL, AT_PAGESZ, AT_PHDR, AT_PHENT, AT_PHNUM, AT_PLATFORM, AT_RANDOM, AT_RSEQ_ALIGN, AT_RSEQ_FEATURE_SIZE,
    AT_SECURE, AT_SYSINFO_EHDR, AT_UID, Elf64Phdr, MAX_ARG_STRLEN,
};
use moat_abi::futex::{RSEQ_ALIGN, RSEQ_FEATURE_SIZE};
use moat_abi::mman::{MapFlags, ProtFlags};
use moat_abi::time::USER_HZ;
use moat_abi::{Errno, Result};
use moat_mm::{MapBacking, MemoryManager, MmapRequest, PAGE_SIZE, page_down, page_up};
use moat_platform::{GUEST_BOTTOM, GUEST_TOP, GuestThread};

use crate::aslr::{Aslr, MMAP_RANDOM_BITS};
use crate::image::MappedImage;

/// Arguments may always take this much (`ARG_MAX`).
const ARG_MIN: u64 = 128 << 10;
/// And never more than this (three quarters of `_STK_LIM`).
const ARG_CAP: u64 = 6 << 20;
/// Room for everything on the stack that is neither string nor pointer to one, and the random distance.
const EXTRA: u64 = 4 * PAGE_SIZE;
/// The random distance below the strings is less than this (`arch_align_stack`).
const RANDOM_DISTANCE: u64 = 8192;
/// Bits of randomness, in pages, of the stack (`STACK_RND_MASK`).
const STACK_RANDOM_BITS: u32 = 22;
/// The least distance of the mapping base from the stack's top (`mmap_base`).
const MIN_STACK_GAP: u64 = 128 << 20;
/// The most of the stack that is mapped from the start; a fault grows it further.
const MAX_INITIAL_STACK: u64 = 64 << 20;
/// Room below the arguments that every stack has from the start, whatever RLIMIT_STACK.
const MIN_STACK_ROOM: u64 = 128 << 10;
/// The size of a transparent huge page.
const HUGE_PAGE: u64 = 2 << 20;
/// The least part of a huge page that the stack's top lies above a huge-page border.
const OFF_HUGE_BORDER: u64 = 512 << 10;
const PLATFORM: &[u8] = b"x86_64\0";

/// Who the program runs as, for the auxiliary vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Identity {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    pub secure: SecureMode,
}

/// AT_SECURE: whether the program gained privileges by exec, so that libraries mistrust the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum SecureMode {
    Ordinary,
    Secure,
}

/// The strings of a program.
pub struct Strings<'a> {
    /// AT_EXECFN.
    pub filename: &'a [u8],
    /// Arguments.
    pub argv: &'a [Vec<u8>],
    /// Environment.
    pub envp: &'a [Vec<u8>],
}

/// What the auxiliary vector tells of the image.
pub struct AuxInfo<'a> {
    /// The program.
    pub program: &'a MappedImage,
    /// AT_BASE.
    pub interpreter_base: u64,
    /// AT_SYSINFO_EHDR; 0 if there is no vDSO.
    pub vdso: u64,
    /// Ids.
    pub identity: &'a Identity,
}

/// A stack ready to be copied to guest memory.
pub struct BuiltStack {
    /// `rsp`, where the bytes begin; they end at the top of the stack.
    pub stack_pointer: u64,
    /// The contents.
    pub bytes: Vec<u8>,
    /// Where the argument strings are.
    pub args: Range<u64>,
    /// Where the environment strings are.
    pub env: Range<u64>,
    /// The auxiliary vector.
    pub auxv: Vec<u8>,
}

/// E2BIG for arguments beyond Linux's limits (`bprm_stack_limits`, MAX_ARG_STRLEN).
///
/// # Errors
/// E2BIG.
pub fn check_arguments(filename: &[u8], argv: &[Vec<u8>], envp: &[Vec<u8>], stack_limit: u64) -> Result<()> {
    if argv.iter().chain(envp).any(|s| s.len() >= MAX_ARG_STRLEN) {
        return Err(Errno::E2BIG);
    }
    let limit = (stack_limit / 4).clamp(ARG_MIN, ARG_CAP);
    if string_bytes(filename, argv, envp) + pointer_bytes(argv, envp) > limit { Err(Errno::E2BIG) } else { Ok(()) }
}

/// Bytes of stack that the arguments and the vectors take at most.
#[must_use]
pub fn size_needed(filename: &[u8], argv: &[Vec<u8>], envp: &[Vec<u8>]) -> u64 {
    string_bytes(filename, argv, envp) + pointer_bytes(argv, envp) + EXTRA
}

fn string_bytes(filename: &[u8], argv: &[Vec<u8>], envp: &[Vec<u8>]) -> u64 {
    let strings = argv.iter().chain(envp).map(|s| s.len() as u64 + 1);
    strings.sum::<u64>() + filename.len() as u64 + 1
}

fn pointer_bytes(argv: &[Vec<u8>], envp: &[Vec<u8>]) -> u64 {
    (argv.len() + envp.len()) as u64 * 8
}

/// Chooses the pages of the initial stack and sets the mapping base of `mm` below it.
///
/// # Errors
/// ENOMEM where no room is.
pub fn place(mm: &MemoryManager, limit: u64, needed: u64, aslr: Aslr) -> Result<Range<u64>> {
    let room = page_up(needed).and_then(|n| n.checked_add(MIN_STACK_ROOM)).ok_or(Errno::ENOMEM)?;
    let len = page_down(limit.min(MAX_INITIAL_STACK)).max(room);
    let gap = limit.clamp(MIN_STACK_GAP, GUEST_TOP / 6 * 5).max(len);
    let mut top = GUEST_TOP - PAGE_SIZE - aslr.random_pages(STACK_RANDOM_BITS);
    // The vDSO is the only thing mapped: the stack with all its room to grow goes below it if they would meet.
    for vma in mm.vmas_snapshot().iter().rev() {
        if vma.start < top + PAGE_SIZE && vma.end + gap > top {
            top = vma.start.saturating_sub(PAGE_SIZE);
        }
    }
    // The first pages must not be backed by a huge page: most stacks stay small, and a huge one costs 2 MiB of
    // zeroing. The part of the area above the last border can't be huge, so the top goes well above one.
    if top % HUGE_PAGE < OFF_HUGE_BORDER {
        top = top - top % HUGE_PAGE - HUGE_PAGE / 4;
    }
    let start = top.checked_sub(len).filter(|&s| s > GUEST_BOTTOM).ok_or(Errno::ENOMEM)?;
    // The base stays clear of the stack at its largest (`mmap_base`).
    let guard = (1 << 20) + aslr.random_pages(MMAP_RANDOM_BITS);
    let base = top.checked_sub(gap).and_then(|b| b.checked_sub(guard)).ok_or(Errno::ENOMEM)?;
    mm.set_mmap_base(page_down(base));
    Ok(start..top)
}

/// Maps the stack.
///
/// # Errors
/// ENOMEM.
pub async fn map(mm: &MemoryManager, thread: &mut dyn GuestThread, stack: &Range<u64>, executable: bool) -> Result<()> {
    let mut prot = ProtFlags::READ | ProtFlags::WRITE;
    prot.set(ProtFlags::EXEC, executable);
    let flags =
        MapFlags::PRIVATE | MapFlags::ANONYMOUS | MapFlags::FIXED_NOREPLACE | MapFlags::GROWSDOWN | MapFlags::STACK;
    let len = stack.end - stack.start;
    mm.mmap(thread, MmapRequest { addr: stack.start, len, prot, flags, backing: MapBacking::Anonymous }).await?;
    Ok(())
}

/// Lays the stack out.
///
/// # Errors
/// E2BIG if it does not fit into `stack`.
pub fn build(stack: &Range<u64>, strings: &Strings<'_>, info: &AuxInfo<'_>, aslr: Aslr) -> Result<BuiltStack> {
    // From the top down: an empty word, the strings, a random distance, the name of the platform, 16 random bytes, the tables.
    let fits = |at: Option<u64>| at.filter(|&a| a > stack.start).ok_or(Errno::E2BIG);
    let strings_len = string_bytes(strings.filename, strings.argv, strings.envp);
    let strings_at = fits((stack.end - 8).checked_sub(strings_len))?;
    let distance = aslr.random() % RANDOM_DISTANCE;
    let platform_at =
        fits(strings_at.checked_sub(distance).map(|a| a & !15).and_then(|a| a.checked_sub(PLATFORM.len() as u64)))?;
    let random_at = fits(platform_at.checked_sub(16))?;

    // Argument and environment strings follow one another: /proc/PID/cmdline and environ are these two ranges.
    let mut args = Words::default();
    let mut texts = Vec::with_capacity(usize::try_from(strings_len).map_err(|_| Errno::E2BIG)?);
    let mut push_text = |s: &[u8]| {
        let at = strings_at + texts.len() as u64;
        texts.extend_from_slice(s);
        texts.push(0);
        at
    };
    args.push(strings.argv.len() as u64);
    strings.argv.iter().for_each(|s| args.push(push_text(s)));
    args.push(0);
    let args_len: u64 = strings.argv.iter().map(|s| s.len() as u64 + 1).sum();
    strings.envp.iter().for_each(|s| args.push(push_text(s)));
    args.push(0);
    let env_len: u64 = strings.envp.iter().map(|s| s.len() as u64 + 1).sum();
    let execfn = push_text(strings.filename);

    let auxv = auxiliary_vector(info, random_at, platform_at, execfn).0;
    let tables_len = (args.0.len() + auxv.len()) as u64;
    let stack_pointer = fits(random_at.checked_sub(tables_len).map(|a| a & !15))?;
    let mut bytes = vec![0; usize::try_from(stack.end - stack_pointer).map_err(|_| Errno::E2BIG)?];
    let mut put = |at: u64, what: &[u8]| {
        let from = usize::try_from(at - stack_pointer).map_err(|_| Errno::E2BIG)?;
        let to = from.checked_add(what.len()).ok_or(Errno::E2BIG)?;
        bytes.get_mut(from..to).ok_or(Errno::E2BIG)?.copy_from_slice(what);
        Ok::<(), Errno>(())
    };
    let mut random = [0; 16];
    moat_host::random::fill(&mut random);
    put(stack_pointer, &args.0)?;
    put(stack_pointer + args.0.len() as u64, &auxv)?;
    put(random_at, &random)?;
    put(platform_at, PLATFORM)?;
    put(strings_at, &texts)?;
    let args = strings_at..strings_at + args_len;
    let env = args.end..args.end + env_len;
    Ok(BuiltStack { stack_pointer, bytes, args, env, auxv })
}

/// Machine words, little-endian.
#[derive(Default)]
struct Words(Vec<u8>);

impl Words {
    fn push(&mut self, word: u64) {
        self.0.extend_from_slice(&word.to_le_bytes());
    }

    fn pair(&mut self, tag: u64, value: u64) {
        self.push(tag);
        self.push(value);
    }
}

/// The auxiliary vector, in Linux's order.
fn auxiliary_vector(info: &AuxInfo<'_>, random: u64, platform: u64, execfn: u64) -> Words {
    // The guest's processor is the host's.
    use moat_host::cpu::auxv;
    let mut v = Words::default();
    if info.vdso != 0 {
        v.pair(AT_SYSINFO_EHDR, info.vdso);
    }
    // Hosts before Linux 5.14 do not say it; the C library has an answer of its own then.
    match auxv(AT_MINSIGSTKSZ) {
        0 => {}
        bytes => v.pair(AT_MINSIGSTKSZ, bytes),
    }
    v.pair(AT_HWCAP, auxv(AT_HWCAP));
    v.pair(AT_PAGESZ, PAGE_SIZE);
    v.pair(AT_CLKTCK, USER_HZ);
    v.pair(AT_PHDR, info.program.phdr);
    v.pair(AT_PHENT, size_of::<Elf64Phdr>() as u64);
    v.pair(AT_PHNUM, info.program.phnum);
    v.pair(AT_BASE, info.interpreter_base);
    v.pair(AT_FLAGS, 0);
    v.pair(AT_ENTRY, info.program.entry);
    v.pair(AT_UID, u64::from(info.identity.uid));
    v.pair(AT_EUID, u64::from(info.identity.euid));
    v.pair(AT_GID, u64::from(info.identity.gid));
    v.pair(AT_EGID, u64::from(info.identity.egid));
    v.pair(AT_SECURE, u64::from(info.identity.secure == SecureMode::Secure));
    v.pair(AT_RANDOM, random);
    v.pair(AT_HWCAP2, auxv(AT_HWCAP2));
    v.pair(AT_EXECFN, execfn);
    v.pair(AT_PLATFORM, platform);
    v.pair(AT_RSEQ_FEATURE_SIZE, u64::from(RSEQ_FEATURE_SIZE));
    v.pair(AT_RSEQ_ALIGN, u64::from(RSEQ_ALIGN));
    v.pair(AT_NULL, 0);
    v
}
