//! [`find()`]: bytes of a program's text that are never executed, near a call site that is too short for a jump of its own.
//!
//! Two kinds are known for certain. Go's linker puts `int3` between functions: a run of them is executed by nobody who goes
//! on. Elsewhere compilers and the assembler fill up with `nop`, which may well be executed; but not between two functions, as
//! the table of `.eh_frame_hdr` has them, the first of which ends with a jump, a return or a call that does not return. Nor is it behind
//! the first jump or return that follows the site itself, where nothing leads there ([`flow`]): what follows the site is code, whatever the
//! file says of it.
//!
//! All of it is the guest's memory and its word: whoever lies has only its own text changed.

mod flow;

/// Bytes of the jump that is put there.
pub const LEN: u64 = 7;

/// A page, which sites and their padding share.
const PAGE: u64 = moat_platform::PAGE_SIZE;
/// How far `jmp rel8` leads.
const BACK: u64 = 128;
const AHEAD: u64 = 127;
/// Pages of a program before its header is not looked for any more.
const MAX_PAGES: u64 = 2048;
/// Functions looked at around a site.
const MAX_FUNCTIONS: u32 = 64;
const PT_LOAD: u32 = 1;
const PT_GNU_EH_FRAME: u32 = 0x6474_e550;

/// Memory of the guest as it was before any rewriting.
pub trait Text {
    /// Fills the buffer; false if one byte is missing.
    fn read(&self, at: u64, buf: &mut [u8]) -> bool;
    /// The ELF header's magic at any of `pages`: the first of them that has it, and is readable up to there.
    fn first_header(&self, pages: &mut dyn Iterator<Item = u64>) -> Option<u64>;
    /// Whether another jump is there.
    fn is_taken(&self, start: u64, end: u64) -> bool;
}

/// Where the jump of the short site that ends before `behind` can be: [`LEN`] bytes on its page, that nobody executes.
pub fn find(text: &dyn Text, behind: u64) -> Option<u64> {
    let page = behind.wrapping_sub(2) & !(PAGE - 1);
    let first = behind.saturating_sub(BACK).max(page);
    let last = behind.checked_add(AHEAD)?.min(page.checked_add(PAGE - LEN)?);
    let mut bytes = vec![0; usize::try_from(last.checked_sub(first)?.checked_add(LEN)?).ok()?];
    if !text.read(first, &mut bytes) {
        return None;
    }
    let window = Window { first, bytes };
    // The first trap of a run stays: a call that does not return leaves its address on the stack, and unwinders look at it.
    let free = |at: &u64| (first..=last).contains(at) && !text.is_taken(*at, at.saturating_add(LEN));
    let any = |runs: Vec<(u64, u64)>| runs.into_iter().flat_map(|(start, end)| places(start, end)).find(free);
    let traps = window.traps().into_iter().map(|(start, end)| (start.saturating_add(1), end));
    any(traps.collect())
        .or_else(|| {
            let gaps = gaps(text, first, last.saturating_add(LEN))?;
            any(gaps.into_iter().filter(|(start, end)| window.is_dead(*start, *end)).collect())
        })
        .or_else(|| {
            let mut whole = vec![0; usize::try_from(PAGE).ok()?];
            text.read(page, &mut whole).then_some(())?;
            any(flow::dead_ends(page, &whole, behind))
        })
}

/// One jump after the other in a range.
fn places(start: u64, end: u64) -> impl Iterator<Item = u64> {
    (start..end).step_by(7).take_while(move |at| at.saturating_add(LEN) <= end)
}

/// The text around a site.
struct Window {
    first: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// Runs of `int3`, longer than a jump, in which no breakpoint of a debugger could be meant.
    fn traps(&self) -> Vec<(u64, u64)> {
        let mut runs = Vec::new();
        let mut start = 0;
        for run in self.bytes.chunk_by(|a, b| a == b) {
            let end = run.len().saturating_add(start);
            if run[0] == 0xcc && run.len() > 7 {
                runs.extend(u64::try_from(start).ok().zip(u64::try_from(end).ok()));
            }
            start = end;
        }
        runs.into_iter()
            .map(|(start, end)| (self.first.saturating_add(start), self.first.saturating_add(end)))
            .collect()
    }

    /// Whether a gap between functions is nothing but `nop` behind an instruction that does not go on there.
    fn is_dead(&self, start: u64, end: u64) -> bool {
        let offset = |at: u64| at.checked_sub(self.first).and_then(|n| usize::try_from(n).ok());
        let (Some(from), Some(to)) = (offset(start), offset(end)) else { return false };
        let (Some(before), Some(gap)) = (self.bytes.get(..from), self.bytes.get(from..to)) else { return false };
        ends_flow(before) && is_nops(gap)
    }
}

/// Whether bytes end with an instruction behind which nothing is executed.
fn ends_flow(bytes: &[u8]) -> bool {
    let from_end = |n: usize| bytes.len().checked_sub(n).and_then(|at| bytes.get(at)).copied();
    let ret = from_end(1) == Some(0xc3);
    let halt = from_end(1) == Some(0xf4);
    let undefined = bytes.ends_with(&[0x0f, 0x0b]);
    let near = matches!(from_end(5), Some(0xe9 | 0xe8));
    let short = from_end(2) == Some(0xeb);
    // jmp by a register.
    let indirect = from_end(2) == Some(0xff) && from_end(1).is_some_and(|modrm| modrm & 0xf8 == 0xe0);
    ret || halt || undefined || near || short || indirect
}

/// Whether bytes are `nop` instructions of any length, and `int3`.
fn is_nops(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let prefixes = bytes.iter().take_while(|byte| matches!(byte, 0x66 | 0x2e)).count();
        let len = match bytes.get(prefixes..) {
            Some([0x90 | 0xcc, ..]) => 1,
            // nop r/m: with or without a byte for the index, and a displacement of none, one or four.
            Some([0x0f, 0x1f, modrm, ..]) if modrm & 0x38 == 0 => {
                let index = usize::from(modrm & 7 == 4);
                match modrm >> 6 {
                    0 if modrm & 7 != 5 => index.saturating_add(3),
                    1 => index.saturating_add(4),
                    2 => index.saturating_add(7),
                    _ => return false,
                }
            }
            _ => return false,
        };
        match bytes.get(prefixes.saturating_add(len)..) {
            Some(rest) => bytes = rest,
            None => return false,
        }
    }
    true
}

/// The gaps between functions in a range, by the table of the ELF file that is mapped there.
fn gaps(text: &dyn Text, first: u64, end: u64) -> Option<Vec<(u64, u64)>> {
    let table = Table::find(text, first)?;
    let mut index = table.last_at_most(text, first)?;
    let (mut gaps, mut behind) = (Vec::new(), None::<u64>);
    // From the function that the range begins in to the first behind it. Functions may lie in each other (parts that are cold).
    for _ in 0..MAX_FUNCTIONS {
        let Some((start, stop)) = table.function(text, index) else { break };
        if let Some(behind) = behind.filter(|behind| *behind < start) {
            gaps.push((behind, start));
        }
        behind = behind.max(Some(stop));
        if start >= end {
            break;
        }
        index = index.checked_add(1)?;
    }
    Some(gaps)
}

/// The sorted table of `.eh_frame_hdr`: where functions begin, and what describes them.
struct Table {
    header: u64,
    entries: u32,
}

impl Table {
    fn find(text: &dyn Text, near: u64) -> Option<Table> {
        let page = near & !(PAGE - 1);
        let base = text.first_header(&mut (0..MAX_PAGES).map_while(|n| page.checked_sub(n.checked_mul(PAGE)?)))?;
        let mut elf = [0; 64];
        text.read(base, &mut elf).then_some(())?;
        let (at, size, count) = (word(&elf, 32)?, half(&elf, 54)? & 0xffff, half(&elf, 56)? & 0xffff);
        // The header is at the start of the file, so what is loaded from there says where addresses of the file are.
        let (mut bias, mut table) = (None, None);
        for i in 0..u64::from(count.min(64)) {
            let mut program = [0; 56];
            let offset = at.checked_add(i.checked_mul(size.into())?)?;
            text.read(base.checked_add(offset)?, &mut program).then_some(())?;
            match half(&program, 0)? {
                PT_LOAD if word(&program, 8)? == 0 => bias = Some(base.wrapping_sub(word(&program, 16)?)),
                PT_GNU_EH_FRAME => table = Some(word(&program, 16)?),
                _ => {}
            }
        }
        let header = bias?.wrapping_add(table?);
        let mut words = [0; 12];
        text.read(header, &mut words).then_some(())?;
        // Version 1; pointers of four bytes relative to themselves; a count; a table of words relative to the header.
        let usual = words[..4] == [1, 0x1b, 0x03, 0x3b];
        usual.then_some(Table { header, entries: half(&words, 8)? })
    }

    /// Where a function begins, and where its description is.
    fn entry(&self, text: &dyn Text, index: u32) -> Option<(u64, u64)> {
        (index < self.entries).then_some(())?;
        let at = self.header.checked_add(12)?.checked_add(u64::from(index).checked_mul(8)?)?;
        let mut words = [0; 8];
        text.read(at, &mut words).then_some(())?;
        Some((relative(self.header, half(&words, 0)?), relative(self.header, half(&words, 4)?)))
    }

    /// The last function that begins at or before an address.
    fn last_at_most(&self, text: &dyn Text, address: u64) -> Option<u32> {
        let (mut low, mut high) = (0, self.entries);
        while low < high {
            let middle = low.midpoint(high);
            if self.entry(text, middle)?.0 <= address {
                low = middle.checked_add(1)?;
            } else {
                high = middle;
            }
        }
        low.checked_sub(1)
    }

    /// From where to where a function goes.
    fn function(&self, text: &dyn Text, index: u32) -> Option<(u64, u64)> {
        let (start, described) = self.entry(text, index)?;
        let mut words = [0; 16];
        text.read(described, &mut words).then_some(())?;
        // That its start is where the table has it shows that addresses here are of the usual kind.
        (relative(described.checked_add(8)?, half(&words, 8)?) == start).then_some(())?;
        Some((start, start.checked_add(half(&words, 12)?.into())?))
    }
}

fn relative(to: u64, by: u32) -> u64 {
    to.wrapping_add_signed(by.cast_signed().into())
}

fn half(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This process, read as the host gives it.
    struct Own;

    impl Text for Own {
        fn read(&self, at: u64, buf: &mut [u8]) -> bool {
            let pid = std::process::id().cast_signed();
            moat_host::memory::read(pid, at, buf).is_ok_and(|read| read == buf.len())
        }

        fn first_header(&self, pages: &mut dyn Iterator<Item = u64>) -> Option<u64> {
            let mut magic = [0; 4];
            pages.take_while(|page| self.read(*page, &mut [0; 4])).find(|page| {
                self.read(*page, &mut magic);
                magic == *b"\x7fELF"
            })
        }

        fn is_taken(&self, _: u64, _: u64) -> bool {
            false
        }
    }

    /// Text that is given, at an address.
    struct Given(u64, Vec<u8>);

    impl Text for Given {
        fn read(&self, at: u64, buf: &mut [u8]) -> bool {
            let from = at.checked_sub(self.0).and_then(|n| usize::try_from(n).ok());
            let found = from.and_then(|from| self.1.get(from..from.checked_add(buf.len())?));
            found.map(|found| buf.copy_from_slice(found)).is_some()
        }

        fn first_header(&self, _: &mut dyn Iterator<Item = u64>) -> Option<u64> {
            None
        }

        fn is_taken(&self, start: u64, _: u64) -> bool {
            start == self.0 + 0xf1
        }
    }

    #[test]
    fn traps_between_functions_are_padding() {
        let mut page = vec![0x90; 4096];
        page[0x80..0x82].copy_from_slice(&[0x0f, 0x05]);
        assert_eq!(find(&Given(0x1000, page.clone()), 0x1082), None, "nops alone prove nothing");
        page[0xf0..0xf7].fill(0xcc);
        assert_eq!(find(&Given(0x1000, page.clone()), 0x1082), None, "one byte too few");
        page[0xf0..0x100].fill(0xcc);
        assert_eq!(find(&Given(0x1000, page.clone()), 0x1082), Some(0x10f8), "the first place is taken");
        page[0xf0..0x100].fill(0x90);
        page[0x10..0x20].fill(0xcc);
        assert_eq!(find(&Given(0x1000, page.clone()), 0x1082), Some(0x1011));
        assert_eq!(find(&Given(0x1000, page), 0x10a2), None, "out of reach");
    }

    #[test]
    fn nops_are_told_from_code() {
        for nops in [
            &[0x90][..],
            &[0x66, 0x90, 0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0],
            &[0x0f, 0x1f, 0x00, 0x0f, 0x1f, 0x40, 0x00, 0x0f, 0x1f, 0x44, 0, 0],
            &[0x0f, 0x1f, 0x80, 0, 0, 0, 0, 0xcc],
        ] {
            assert!(is_nops(nops), "{nops:x?}");
        }
        for code in
            [&[0x66][..], &[0x0f, 0x1f], &[0x0f, 0x1f, 0x84, 0], &[0x90, 0xc3], &[0x0f, 0x0b], &[0x0f, 0x1f, 0xc0]]
        {
            assert!(!is_nops(code), "{code:x?}");
        }
    }

    #[test]
    fn the_read_of_the_c_library_has_padding() {
        let read = libc::read as *const () as u64;
        let mut code = [0; 64];
        assert!(Own.read(read, &mut code));
        let Some(site) = code.windows(2).position(|pair| pair == [0x0f, 0x05]) else { return };
        let behind = read + u64::try_from(site).expect("small") + 2;
        let padding = find(&Own, behind).expect("padding");
        assert!((behind - BACK..=behind + AHEAD).contains(&padding), "{padding:#x} for {behind:#x}");
        let gaps = gaps(&Own, behind - 128, behind + 134).expect("a table");
        let gap =
            gaps.iter().find(|(start, end)| *start <= padding && padding + LEN <= *end).expect("between functions");
        assert!(!gaps.iter().any(|(start, end)| (*start..*end).contains(&behind)), "{gap:x?}");
    }
}
