//! What a core file holds: an ELF file of notes (threads, process, mappings) and of the memory that is the process's own.
//!
//! Source: `elf_core_dump` in `fs/binfmt_elf.c`, `vma_dump_size` in `fs/coredump.c`, `linux/elfcore.h`.

use std::sync::atomic::Ordering;

use moat_abi::elf::{
    EI_CLASS, EI_DATA, EI_VERSION, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_CORE, EV_CURRENT, Elf64Ehdr,
    Elf64Nhdr, Elf64Phdr, NT_AUXV, NT_FILE, NT_PRFPREG, NT_PRPSINFO, NT_PRSTATUS, NT_SIGINFO, NT_X86_XSTATE, PF_R,
    PF_W, PF_X, PT_LOAD, PT_NOTE,
};
use moat_abi::mman::ProtFlags;
use moat_abi::siginfo::SigInfo;
use moat_abi::{Errno, Result};
use moat_mm::report::VmaInfo;
use moat_mm::vma::VmaFlags;
use moat_mm::{PAGE_SIZE, UserAddr};
use moat_vfs::OpenFile;
use zerocopy::IntoBytes;

use crate::signal::state::ThreadImage;
use crate::task::CurrentTask;

/// Bits of `/proc/PID/coredump_filter`.
const ANONYMOUS_PRIVATE: u32 = 1;
const ANONYMOUS_SHARED: u32 = 2;
const FILE_PRIVATE: u32 = 4;
const FILE_SHARED: u32 = 8;
const ELF_HEADERS: u32 = 16;

/// Bytes copied at a time.
const CHUNK: usize = 256 * 1024;

/// The file being written: no further than RLIMIT_CORE.
struct Output<'a> {
    file: &'a OpenFile,
    at: u64,
    limit: u64,
}

impl Output<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        let end = self.at.saturating_add(wide(bytes.len()));
        if end > self.limit {
            return Err(Errno::EFBIG);
        }
        while !bytes.is_empty() {
            let n = self.file.write_at(bytes, self.at)?;
            bytes = bytes.get(n..).filter(|_| n > 0).ok_or(Errno::ENOSPC)?;
            self.at = self.at.saturating_add(wide(n));
        }
        Ok(())
    }

    /// Goes on at `at`, leaving a hole.
    fn skip_to(&mut self, at: u64) -> Result<()> {
        if at > self.limit {
            return Err(Errno::EFBIG);
        }
        self.at = self.at.max(at);
        Ok(())
    }
}

/// Bytes of an area that go into the file.
fn dumped(vma: &VmaInfo, filter: u32) -> u64 {
    let has = |bit| filter & bit != 0;
    let len = vma.end.saturating_sub(vma.start);
    let (shared, file) = (vma.flags.contains(VmaFlags::SHARED), vma.file.is_some());
    match vma.name.as_slice() {
        // Debuggers unwind through its code, which no file on disk has.
        b"[vdso]" => return len,
        // The clock's data, of no use to a debugger.
        b"[vvar]" => return 0,
        _ => {}
    }
    let whole = match (file, shared) {
        (false, false) => has(ANONYMOUS_PRIVATE),
        (false, true) => has(ANONYMOUS_SHARED),
        (true, false) => has(FILE_PRIVATE) || has(ANONYMOUS_PRIVATE) && may_be_changed(vma),
        (true, true) => has(FILE_SHARED),
    };
    if whole {
        len
    } else if has(ELF_HEADERS) && file && !shared && vma.offset == 0 && vma.prot.contains(ProtFlags::READ) {
        // Debuggers know a library by its build id, which is in the first page.
        PAGE_SIZE.min(len)
    } else {
        0
    }
}

/// Whether a process may have changed what it has of a private file, which makes it its own. Areas keep no record of that, and
/// relocated data is read-only by the time a program runs: all but code and what begins a file counts.
fn may_be_changed(vma: &VmaInfo) -> bool {
    vma.prot.contains(ProtFlags::WRITE) || (vma.offset != 0 && !vma.prot.contains(ProtFlags::EXEC))
}

/// A number of bytes, as the file has it.
fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

fn segment_flags(prot: ProtFlags) -> u32 {
    let bit = |has, flag| if prot.contains(has) { flag } else { 0 };
    bit(ProtFlags::READ, PF_R) | bit(ProtFlags::WRITE, PF_W) | bit(ProtFlags::EXEC, PF_X)
}

/// Writes the file.
///
/// # Errors
/// EFBIG beyond RLIMIT_CORE; those of the file.
pub(super) fn write(
    t: &CurrentTask,
    file: &OpenFile,
    info: &SigInfo,
    own: &ThreadImage,
    others: &[ThreadImage],
    limit: u64,
) -> Result<()> {
    let filter = t.group.coredump_filter.load(Ordering::Relaxed);
    let vmas = t.mm().vmas_snapshot();
    let notes = notes(t, info, own, others, &vmas);
    // One header more than areas: that of the notes.
    let count = vmas.len().saturating_add(1);
    let header_bytes = size_of::<Elf64Ehdr>().saturating_add(count.saturating_mul(size_of::<Elf64Phdr>()));
    let mut out = Output { file, at: 0, limit };
    // More headers than the field counts would need another form of file.
    out.put(header(u16::try_from(count).map_err(|_| Errno::EFBIG)?).as_bytes())?;
    let notes_len = wide(notes.len());
    let notes_at = wide(header_bytes);
    let note_header = Elf64Phdr { p_type: PT_NOTE, p_offset: notes_at, p_filesz: notes_len, ..Elf64Phdr::default() };
    out.put(note_header.as_bytes())?;
    // Memory starts at a page boundary, so that a debugger can map it.
    let first = notes_at.saturating_add(notes_len).next_multiple_of(PAGE_SIZE);
    let mut at = first;
    for vma in &vmas {
        let filesz = dumped(vma, filter);
        let memsz = vma.end.saturating_sub(vma.start);
        let p = Elf64Phdr {
            p_type: PT_LOAD,
            p_flags: segment_flags(vma.prot),
            p_offset: at,
            p_vaddr: vma.start,
            p_paddr: 0,
            p_filesz: filesz,
            p_memsz: memsz,
            p_align: PAGE_SIZE,
        };
        out.put(p.as_bytes())?;
        at = at.saturating_add(filesz);
    }
    out.put(&notes)?;
    out.skip_to(first)?;
    let mut buf = vec![0; CHUNK];
    for vma in &vmas {
        put_memory(t, &mut out, vma.start, dumped(vma, filter), &mut buf)?;
    }
    // Holes at the end belong to the file as well.
    if file.metadata()?.size < at {
        file.file().truncate(file, at)?;
    }
    Ok(())
}

/// Writes `len` bytes of memory; pages that can't be read, or hold zeros only, are holes.
fn put_memory(t: &CurrentTask, out: &mut Output<'_>, start: u64, len: u64, buf: &mut [u8]) -> Result<()> {
    let base = out.at;
    let mut done: u64 = 0;
    while done < len {
        let want = usize::try_from(len.saturating_sub(done)).unwrap_or(usize::MAX).min(buf.len());
        let part = buf.get_mut(..want).unwrap_or_default();
        let got = t.mm().read_partial(UserAddr::new(start.saturating_add(done)), part).unwrap_or(0);
        let page = usize::try_from(PAGE_SIZE).unwrap_or(4096);
        for (n, chunk) in part.get(..got).unwrap_or_default().chunks(page).enumerate() {
            if chunk.iter().any(|b| *b != 0) {
                let offset = done.saturating_add(wide(n.saturating_mul(page)));
                out.skip_to(base.saturating_add(offset))?;
                out.put(chunk)?;
            }
        }
        // A page that can't be read is passed over.
        let step = if got == 0 { PAGE_SIZE } else { wide(got).next_multiple_of(PAGE_SIZE) };
        done = done.saturating_add(step).min(len);
    }
    out.skip_to(base.saturating_add(len))
}

fn header(phnum: u16) -> Elf64Ehdr {
    let mut ident = [0; 16];
    ident[..4].copy_from_slice(&ELFMAG);
    ident[EI_CLASS] = ELFCLASS64;
    ident[EI_DATA] = ELFDATA2LSB;
    ident[EI_VERSION] = EV_CURRENT;
    Elf64Ehdr {
        e_ident: ident,
        e_type: ET_CORE,
        e_machine: EM_X86_64,
        e_version: EV_CURRENT.into(),
        e_phoff: wide(size_of::<Elf64Ehdr>()),
        e_ehsize: 64,
        e_phentsize: 56,
        e_phnum: phnum,
        ..Elf64Ehdr::default()
    }
}

/// Appends a note.
fn note(out: &mut Vec<u8>, owner: &[u8], kind: u32, desc: &[u8]) {
    let head = Elf64Nhdr {
        n_namesz: u32::try_from(owner.len()).unwrap_or(0),
        n_descsz: u32::try_from(desc.len()).unwrap_or(0),
        n_type: kind,
    };
    out.extend_from_slice(head.as_bytes());
    for part in [owner, desc] {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(4), 0);
    }
}

const CORE: &[u8] = b"CORE\0";
const LINUX: &[u8] = b"LINUX\0";

fn notes(t: &CurrentTask, info: &SigInfo, own: &ThreadImage, others: &[ThreadImage], vmas: &[VmaInfo]) -> Vec<u8> {
    let ids = Ids::of(t);
    let signal = info.si_signo;
    let mut out = Vec::new();
    // The thread that the signal killed comes first: debuggers take the first for the current one.
    note(&mut out, CORE, NT_PRSTATUS, &status(own, &ids, signal));
    note(&mut out, CORE, NT_PRPSINFO, &process(t, &ids));
    note(&mut out, CORE, NT_SIGINFO, info.as_bytes());
    note(&mut out, CORE, NT_AUXV, &t.mm().image().auxv);
    note(&mut out, CORE, NT_FILE, &files(vmas));
    floats(&mut out, own);
    for thread in others {
        note(&mut out, CORE, NT_PRSTATUS, &status(thread, &ids, signal));
        floats(&mut out, thread);
    }
    out
}

fn floats(out: &mut Vec<u8>, thread: &ThreadImage) {
    // The legacy FXSAVE area is the first 512 bytes of the image.
    note(out, CORE, NT_PRFPREG, thread.xstate.get(..512).unwrap_or_default());
    note(out, LINUX, NT_X86_XSTATE, &thread.xstate);
}

/// Numbers of a process as it knows them itself.
struct Ids {
    pid: i32,
    parent: i32,
    group: i32,
    session: i32,
}

impl Ids {
    fn of(t: &CurrentTask) -> Ids {
        let ns = t.pid_ns();
        Ids {
            pid: t.tgid(),
            parent: t.group.parent().map_or(0, |p| p.pid().number_in(&ns)),
            group: t.group.process_group().map_or(0, |p| p.pid().number_in(&ns)),
            session: t.group.session().map_or(0, |s| s.pid().number_in(&ns)),
        }
    }

    fn put(&self, out: &mut Vec<u8>, pid: i32) {
        [pid, self.parent, self.group, self.session].iter().for_each(|n| out.extend(n.to_ne_bytes()));
    }
}

/// `struct elf_prstatus`.
fn status(thread: &ThreadImage, ids: &Ids, signal: i32) -> Vec<u8> {
    let mut out = Vec::with_capacity(336);
    // `pr_info`: signal, code and errno, of which Linux sets the first only.
    [signal, 0, 0].iter().for_each(|n: &i32| out.extend(n.to_ne_bytes()));
    // `pr_cursig` is a short; its padding makes it a word.
    out.extend(signal.to_ne_bytes());
    out.extend(thread.pending.0.to_ne_bytes());
    out.extend(thread.blocked.0.to_ne_bytes());
    ids.put(&mut out, thread.tid);
    // `pr_utime`, `pr_stime`, `pr_cutime`, `pr_cstime` as timevals; the children's are left zero.
    for ns in [thread.user_ns, thread.system_ns, 0, 0] {
        out.extend((ns / 1_000_000_000).to_ne_bytes());
        out.extend((ns % 1_000_000_000 / 1000).to_ne_bytes());
    }
    out.extend_from_slice(thread.regs.as_bytes());
    // pr_fpvalid and padding.
    out.extend([1u32, 0].map(u32::to_ne_bytes).concat());
    out
}

/// `struct elf_prpsinfo`.
fn process(t: &CurrentTask, ids: &Ids) -> Vec<u8> {
    let creds = t.creds();
    // `pr_state`, `pr_sname`, `pr_zomb`, `pr_nice`, padding, and `pr_flag` below.
    let mut out = vec![0, b'R', 0, 0, 0, 0, 0, 0];
    out.extend(0u64.to_ne_bytes());
    out.extend(creds.user_ns.show_uid(creds.uid).to_ne_bytes());
    out.extend(creds.user_ns.show_gid(creds.gid).to_ne_bytes());
    ids.put(&mut out, ids.pid);
    let fixed = |text: &[u8], len: usize| {
        let mut field = text.get(..text.len().min(len.saturating_sub(1))).unwrap_or_default().to_vec();
        field.resize(len, 0);
        field
    };
    out.extend(fixed(&t.comm(), 16));
    let args = t.mm().image().args;
    let mut text = vec![0; usize::try_from(args.end.saturating_sub(args.start)).unwrap_or(0).min(79)];
    let got = t.mm().read_partial(UserAddr::new(args.start), &mut text).unwrap_or(0);
    text.truncate(got);
    // Arguments are shown separated by spaces, as ps(1) does.
    text.iter_mut().filter(|b| **b == 0).for_each(|b| *b = b' ');
    out.extend(fixed(&text, 80));
    out
}

/// NT_FILE: which files are mapped where.
fn files(vmas: &[VmaInfo]) -> Vec<u8> {
    let mapped: Vec<_> = vmas.iter().filter(|v| v.file.is_some()).collect();
    let (mut out, mut names) = (Vec::new(), Vec::new());
    out.extend(wide(mapped.len()).to_ne_bytes());
    out.extend(PAGE_SIZE.to_ne_bytes());
    // First all ranges, offsets in pages; then all names in the same order.
    for v in mapped {
        [v.start, v.end, v.offset / PAGE_SIZE].iter().for_each(|n| out.extend(n.to_ne_bytes()));
        names.extend_from_slice(&v.name);
        names.push(0);
    }
    out.extend(names);
    out
}
