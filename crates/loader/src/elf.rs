//! ELF headers, read and checked.

use moat_abi::elf::{
    EI_CLASS, EI_DATA, ELF_MAX_PHDRS_BYTES, ELFCLASS64, ELFDATA2LSB, ELFMAG, EM_X86_64, ET_DYN, ET_EXEC, Elf64Ehdr,
    Elf64Phdr, PF_R, PF_W, PF_X, PT_GNU_STACK, PT_INTERP, PT_LOAD,
};
use moat_abi::mman::ProtFlags;
use moat_abi::{Errno, Result};
use moat_mm::{PAGE_SIZE, page_down, page_up};
use moat_platform::GUEST_TOP;
use moat_vfs::OpenFile;
use zerocopy::{FromZeros, IntoBytes};

/// The longest path of an interpreter, in the size of file offsets.
const PATH_MAX: u64 = moat_abi::fs::PATH_MAX as u64;

/// On whose behalf a file is read, which decides the errno for a bad one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The file that is executed: ENOEXEC.
    Program,
    /// The one that PT_INTERP names: ELIBBAD.
    Interpreter,
}

/// One PT_LOAD segment: its sums don't overflow and it lies in user space, before the load bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte in memory.
    pub vaddr: u64,
    /// First byte in the file; congruent to `vaddr` modulo the page size if there are any.
    pub offset: u64,
    /// Bytes from the file.
    pub filesz: u64,
    /// Bytes in memory, at least `filesz`.
    pub memsz: u64,
    /// Protection.
    pub prot: ProtFlags,
}

impl Segment {
    /// One past the last byte in memory.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.vaddr.saturating_add(self.memsz)
    }
}

/// Whether the load address is the file's or moat's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElfKind {
    /// ET_EXEC: fixed.
    Fixed,
    /// ET_DYN: anywhere.
    Relocatable,
}

/// What exec needs of an ELF file.
#[derive(Clone, Debug)]
pub struct ElfHeaders {
    /// ET_EXEC or ET_DYN.
    pub kind: ElfKind,
    /// The entry point, unbiased.
    pub entry: u64,
    /// What to map, at least one, in the file's order.
    pub segments: Vec<Segment>,
    /// The largest alignment that a segment asks for, a power of two.
    pub max_align: u64,
    /// Where the program headers are in memory, unbiased; None if no segment holds them.
    pub phdr_vaddr: Option<u64>,
    /// How many there are.
    pub phnum: u64,
    interpreter: Option<(u64, u64)>,
    stack_flags: Option<u32>,
}

impl ElfHeaders {
    /// Reads the headers of `file`.
    ///
    /// # Errors
    /// ENOEXEC or ELIBBAD, by `role`, for a file that is no program of this machine; EINVAL for segments that can't be mapped.
    pub fn read(file: &OpenFile, role: Role) -> Result<ElfHeaders> {
        let bad = if role == Role::Program { Errno::ENOEXEC } else { Errno::ELIBBAD };
        let mut header = Elf64Ehdr::new_zeroed();
        read_exact(file, header.as_mut_bytes(), 0, bad)?;
        let kind = check_header(&header).ok_or(bad)?;
        let count = usize::from(header.e_phnum);
        let bytes = count * size_of::<Elf64Phdr>();
        if usize::from(header.e_phentsize) != size_of::<Elf64Phdr>() || count == 0 || bytes > ELF_MAX_PHDRS_BYTES {
            return Err(bad);
        }
        let mut table: Vec<Elf64Phdr> = (0..count).map(|_| Elf64Phdr::new_zeroed()).collect();
        read_exact(file, table.as_mut_slice().as_mut_bytes(), header.e_phoff, bad)?;
        ElfHeaders::from_table(&header, kind, &table)
    }

    fn from_table(header: &Elf64Ehdr, kind: ElfKind, table: &[Elf64Phdr]) -> Result<ElfHeaders> {
        let mut headers = ElfHeaders {
            kind,
            entry: header.e_entry,
            segments: Vec::new(),
            max_align: PAGE_SIZE,
            phdr_vaddr: None,
            phnum: u64::from(header.e_phnum),
            interpreter: None,
            stack_flags: None,
        };
        for p in table {
            match p.p_type {
                PT_LOAD => headers.add_segment(p, header.e_phoff)?,
                // Of several the first counts.
                PT_INTERP if headers.interpreter.is_none() => headers.interpreter = Some((p.p_offset, p.p_filesz)),
                PT_GNU_STACK => headers.stack_flags = Some(p.p_flags),
                _ => {}
            }
        }
        if headers.segments.is_empty() {
            return Err(Errno::EINVAL);
        }
        Ok(headers)
    }

    fn add_segment(&mut self, p: &Elf64Phdr, phoff: u64) -> Result<()> {
        if p.p_memsz == 0 && p.p_filesz == 0 {
            return Ok(());
        }
        let fits = p.p_filesz <= p.p_memsz && p.p_vaddr < GUEST_TOP && p.p_memsz <= GUEST_TOP.saturating_sub(p.p_vaddr);
        let file_end = p.p_offset.checked_add(p.p_filesz).is_some_and(|end| i64::try_from(end).is_ok());
        // mmap would refuse an offset off the page grid.
        let congruent = p.p_filesz == 0 || p.p_offset % PAGE_SIZE == p.p_vaddr % PAGE_SIZE;
        if !fits || !file_end || !congruent {
            return Err(Errno::EINVAL);
        }
        // Other alignments are ignored, as on Linux.
        if p.p_align.is_power_of_two() && p.p_align <= GUEST_TOP / 4 {
            self.max_align = self.max_align.max(p.p_align);
        }
        // The headers are in memory where a segment holds their part of the file.
        if phoff >= p.p_offset && phoff.saturating_sub(p.p_offset) < p.p_filesz {
            self.phdr_vaddr = Some(p.p_vaddr.saturating_add(phoff.saturating_sub(p.p_offset)));
        }
        let mut prot = ProtFlags::empty();
        prot.set(ProtFlags::READ, p.p_flags & PF_R != 0);
        prot.set(ProtFlags::WRITE, p.p_flags & PF_W != 0);
        prot.set(ProtFlags::EXEC, p.p_flags & PF_X != 0);
        self.segments.push(Segment {
            vaddr: p.p_vaddr,
            offset: p.p_offset,
            filesz: p.p_filesz,
            memsz: p.p_memsz,
            prot,
        });
        Ok(())
    }

    /// The whole pages that all segments lie in, unbiased.
    #[must_use]
    pub fn span(&self) -> std::ops::Range<u64> {
        let start = self.segments.iter().map(|s| page_down(s.vaddr)).min().unwrap_or(0);
        let end = self.segments.iter().map(|s| page_up(s.end()).unwrap_or(GUEST_TOP)).max().unwrap_or(0);
        start..end
    }

    /// Whether the stack is to be executable; without PT_GNU_STACK it is not, on x86-64.
    #[must_use]
    pub fn exec_stack(&self) -> bool {
        self.stack_flags.is_some_and(|f| f & PF_X != 0)
    }

    /// The path of the interpreter, if one is named.
    ///
    /// # Errors
    /// ENOEXEC for a path that is too long or not terminated; EIO where the file ends before.
    pub fn interpreter_path(&self, file: &OpenFile) -> Result<Option<Vec<u8>>> {
        let Some((offset, len)) = self.interpreter else { return Ok(None) };
        if !(2..=PATH_MAX).contains(&len) {
            return Err(Errno::ENOEXEC);
        }
        let mut path = vec![0; usize::try_from(len).map_err(|_| Errno::ENOEXEC)?];
        read_exact(file, &mut path, offset, Errno::EIO)?;
        if path.pop() != Some(0) {
            return Err(Errno::ENOEXEC);
        }
        let end = path.iter().position(|&b| b == 0).unwrap_or(path.len());
        path.truncate(end);
        Ok(Some(path))
    }
}

/// Checks what the ELF header says of the machine.
fn check_header(h: &Elf64Ehdr) -> Option<ElfKind> {
    let ours = h.e_ident.starts_with(&ELFMAG)
        && h.e_ident[EI_CLASS] == ELFCLASS64
        && h.e_ident[EI_DATA] == ELFDATA2LSB
        && h.e_machine == EM_X86_64;
    match h.e_type {
        ET_EXEC if ours => Some(ElfKind::Fixed),
        ET_DYN if ours => Some(ElfKind::Relocatable),
        _ => None,
    }
}

/// Fills `buf` from `offset`; `short` if the file ends before.
fn read_exact(file: &OpenFile, buf: &mut [u8], offset: u64, short: Errno) -> Result<()> {
    let mut done = 0;
    while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
        let at = offset.checked_add(done as u64).filter(|&at| i64::try_from(at).is_ok()).ok_or(short)?;
        match file.read_at(rest, at)? {
            0 => return Err(short),
            n => done += n,
        }
    }
    Ok(())
}
