//! Files about a process's memory: maps, smaps, cmdline, environ, auxv, mem.

use std::fmt::Write;
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::mman::ProtFlags;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_mm::report::VmaInfo;
use moat_mm::vma::VmaFlags;
use moat_mm::{MemoryManager, UserAddr};
use moat_vfs::OpenFile;
use moat_vfs::file::{Compare, File, SaveFiles, Seekable};
use moat_vfs::generated::Attributes;
use moat_vfs::inode::{Inode, Metadata, OpenContext};

use crate::mount::ProcMount;
use crate::who::{Who, owned};

/// Argument and environment strings shown at most; the loader admits no more.
const MAX_STRINGS_BYTES: u64 = 8 << 20;

fn strings(mm: &MemoryManager, range: std::ops::Range<u64>) -> Vec<u8> {
    let len = range.end.saturating_sub(range.start).min(MAX_STRINGS_BYTES);
    let mut buf = vec![0; usize::try_from(len).unwrap_or(0)];
    // What the process has unmapped is left out.
    let n = mm.read_partial(UserAddr::new(range.start), &mut buf).unwrap_or(0);
    buf.truncate(n);
    buf
}

pub(crate) fn cmdline(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let Some(mm) = who.mm()? else { return Ok(Vec::new()) };
    let image = mm.image();
    let mut text = strings(&mm, image.args.clone());
    // A process that overwrote the final zero (setproctitle) has gone on into its environment.
    if text.last().is_some_and(|b| *b != 0) {
        text.extend(strings(&mm, image.env));
        if let Some(end) = text.iter().position(|b| *b == 0) {
            text.truncate(end + 1);
        }
    }
    Ok(text)
}

pub(crate) fn environ(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    Ok(who.mm()?.map_or_else(Vec::new, |mm| strings(&mm, mm.image().env)))
}

pub(crate) fn auxv(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    Ok(who.mm()?.map_or_else(Vec::new, |mm| mm.image().auxv))
}

fn line(v: &VmaInfo) -> Vec<u8> {
    let bit = |p, c| if v.prot.contains(p) { c } else { '-' };
    let (dev, ino) = v.file.map_or((DeviceId::new(0, 0), 0), |f| (DeviceId::from_raw(f.dev), f.ino));
    let mut text = format!(
        "{:08x}-{:08x} {}{}{}{} {:08x} {:02x}:{:02x} {ino} ",
        v.start,
        v.end,
        bit(ProtFlags::READ, 'r'),
        bit(ProtFlags::WRITE, 'w'),
        bit(ProtFlags::EXEC, 'x'),
        if v.flags.contains(VmaFlags::SHARED) { 's' } else { 'p' },
        v.offset,
        dev.major,
        dev.minor,
    );
    if !v.name.is_empty() {
        // Names start at column 73, as seq_pad does.
        while text.len() < 73 {
            text.push(' ');
        }
    }
    let mut line = text.into_bytes();
    for &b in &v.name {
        if b == b'\n' { line.extend_from_slice(b"\\012") } else { line.push(b) }
    }
    line.push(b'\n');
    line
}

pub(crate) fn maps(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let Some(mm) = who.mm()? else { return Ok(Vec::new()) };
    Ok(mm.vmas_snapshot().iter().flat_map(line).collect())
}

/// The numbers of smaps that come from what moat knows; the rest are 0.
fn details(size: u64, rss: u64, anonymous: u64) -> String {
    let kb = |b: u64| b / 1024;
    let mut o = String::new();
    for (label, value) in [
        ("Size", kb(size)),
        ("KernelPageSize", 4),
        ("MMUPageSize", 4),
        ("Rss", kb(rss)),
        // Sharers are not known: all of it counts as the process's own.
        ("Pss", kb(rss)),
        ("Pss_Dirty", kb(anonymous)),
        ("Shared_Clean", 0),
        ("Shared_Dirty", 0),
        ("Private_Clean", kb(rss.saturating_sub(anonymous))),
        ("Private_Dirty", kb(anonymous)),
        ("Referenced", kb(rss)),
        ("Anonymous", kb(anonymous)),
        ("KSM", 0),
        ("LazyFree", 0),
        ("AnonHugePages", 0),
        ("ShmemPmdMapped", 0),
        ("FilePmdMapped", 0),
        ("Shared_Hugetlb", 0),
        ("Private_Hugetlb", 0),
        ("Swap", 0),
        ("SwapPss", 0),
        ("Locked", 0),
    ] {
        let _ = writeln!(o, "{:<16}{value:>8} kB", format!("{label}:"));
    }
    o
}

fn vm_flags(v: &VmaInfo) -> String {
    let mut o = String::from("VmFlags:");
    for (prot, have, may) in
        [(ProtFlags::READ, "rd", "mr"), (ProtFlags::WRITE, "wr", "mw"), (ProtFlags::EXEC, "ex", "me")]
    {
        if v.prot.contains(prot) {
            let _ = write!(o, " {have}");
        }
        // What mprotect(2) may still give.
        if v.max_prot.contains(prot) {
            let _ = write!(o, " {may}");
        }
    }
    if v.flags.contains(VmaFlags::SHARED) {
        o.push_str(" sh");
    }
    o.push('\n');
    o
}

fn anonymous(v: &VmaInfo) -> u64 {
    // Private copies of a file's pages are not told apart from the file.
    if v.file.is_none() { v.rss_estimate } else { 0 }
}

pub(crate) fn smaps(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let Some(mm) = who.mm()? else { return Ok(Vec::new()) };
    let mut out = Vec::new();
    for v in mm.vmas_snapshot() {
        out.extend(line(&v));
        out.extend(details(v.end - v.start, v.rss_estimate, anonymous(&v)).into_bytes());
        out.extend_from_slice(b"THPeligible:           0\n");
        out.extend(vm_flags(&v).into_bytes());
    }
    Ok(out)
}

pub(crate) fn smaps_rollup(_core: &ProcMount, who: &Who) -> Result<Vec<u8>> {
    let Some(mm) = who.mm()? else { return Ok(Vec::new()) };
    let all = mm.vmas_snapshot();
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return Ok(Vec::new()) };
    let mut out =
        format!("{:08x}-{:08x} ---p 00000000 00:00 0                          [rollup]\n", first.start, last.end);
    let rss = all.iter().map(|v| v.rss_estimate).sum();
    let body = details(0, rss, all.iter().map(anonymous).sum());
    // Without the sizes of the area and of pages.
    out.extend(body.lines().skip(3).flat_map(|l| [l, "\n"]));
    Ok(out.into_bytes())
}

/// /proc/PID/mem.
pub(crate) fn mem_file(proc: &ProcMount, who: &Who) -> Arc<dyn Inode> {
    Arc::new(MemInode { attributes: owned(proc, who, "mem", 0o600), who: who.clone() })
}

struct MemInode {
    attributes: Attributes,
    who: Who,
}

impl Inode for MemInode {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.attributes.metadata(FileType::Regular))
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn fleeting_key(&self) -> Option<moat_vfs::inode::InodeKey> {
        Some(self.attributes.key())
    }

    fn set_attr(&self, change: &moat_vfs::inode::SetAttr) -> Result<()> {
        // O_TRUNC is allowed and does nothing.
        if change.size.is_some() { Ok(()) } else { Err(Errno::EPERM) }
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        self.who.may_inspect(ctx.caller)?;
        Ok(Arc::new(MemFile { mm: self.who.mm()?, who: self.who.clone() }))
    }
}

/// An open /proc/PID/mem: stays with the address space that it was opened for.
struct MemFile {
    mm: Option<Arc<MemoryManager>>,
    /// Whose it was.
    who: Who,
}

impl File for MemFile {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        let same = match (&self.mm, self.who.mm()) {
            (Some(own), Ok(Some(now))) => Arc::ptr_eq(own, &now),
            (own, now) => own.is_none() && matches!(now, Ok(None)),
        };
        // What a path leads to is the program of today.
        if !same {
            return Err(Refusal::new("memory of a program that has been replaced or has ended"));
        }
        saver.by_path(f, Compare::Type)
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        // As on Linux, memory that is gone reads as empty.
        let Some(mm) = &self.mm else { return Ok(0) };
        if buf.is_empty() {
            return Ok(0);
        }
        // What can be read of a range is given; EIO if there is nothing (`mem_rw`).
        mm.read_partial(UserAddr::new(pos), buf).map_err(|_| Errno::EIO)
    }

    fn write(&self, _f: &OpenFile, buf: &[u8], pos: u64) -> Result<usize> {
        let Some(mm) = &self.mm else { return Ok(0) };
        // Also where the process may not write: debuggers set breakpoints so.
        mm.space().write_forced(pos, buf).map_err(|_| Errno::EIO)
    }

    fn seekable(&self) -> Seekable {
        Seekable::NoEnd
    }
}
