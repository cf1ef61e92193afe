//! The text of a guest process, as far as call sites in it are rewritten and put back.

use std::fs::File;
use std::os::unix::fs::FileExt;

use moat_abi::{Errno, Result};
use moat_host::memory::RemoteRange;
use moat_platform::PAGE_SIZE;
use moat_stub::layout::site;

use crate::padding::{self, Text};
use crate::sites::{Bytes, Change, Piece, SYSCALL, UNDEFINED, Undefined, word_at, word_of, word_of_short};
use crate::space::Space;

/// Pages that are asked for at once when a program's header is looked for.
const PAGES_AT_ONCE: usize = 256;

/// In place of the number of a site that is not rewritten yet.
const NUMBERLESS: u32 = 0;

/// How a site is to be rewritten.
struct Plan {
    /// What the stub is to find for it.
    word: u64,
    /// What becomes of its text; the piece that is executed first, the site itself, is the last.
    pieces: Vec<Piece>,
}

impl Space {
    fn read_exactly(&self, at: u64, bytes: &mut [u8]) -> bool {
        moat_host::memory::read(self.pid, at, bytes).is_ok_and(|read| read == bytes.len())
    }

    /// Whether what the list says of bytes is so.
    fn holds(&self, piece: &Piece, bytes: &[u8]) -> bool {
        let mut found = Bytes::default();
        let found = &mut found[..piece.len()];
        self.read_exactly(piece.at, found) && found == &bytes[..piece.len()]
    }

    fn text(&self) -> Result<File> {
        Ok(File::from(moat_host::procfs::open_memory(self.pid)?))
    }

    /// Rewrites the site that ends before `behind`, if it can be done and no thread of the process runs.
    pub fn rewrite(&self, behind: u64) {
        if !self.core.rewrites {
            return;
        }
        // What takes time is done while others may run.
        let Some(plan) = self.plan_long(behind).or_else(|| self.plan_short(behind)) else { return };
        // Nobody may be between two bytes of what changes, and nobody is while no thread runs.
        if !self.sites.begin_rewriting() {
            return;
        }
        // Whoever ran since then may have changed it.
        if plan.pieces.iter().all(|piece| self.holds(piece, piece.original())) {
            // What can't be written is as it was.
            let _ = self.write_site(plan);
        }
        self.sites.end_rewriting();
    }

    fn plan_long(&self, behind: u64) -> Option<Plan> {
        let at = behind.checked_sub(site::LEN).filter(|at| is_on_one_page(*at, behind))?;
        let mut original = Bytes::default();
        self.read_exactly(at, &mut original).then_some(())?;
        let word = word_of(&original, behind)?;
        Some(Plan { word, pieces: vec![Piece::new(at, NUMBERLESS, Change::Site, original)] })
    }

    fn plan_short(&self, behind: u64) -> Option<Plan> {
        let at = behind.checked_sub(site::SHORT_LEN).filter(|at| is_on_one_page(*at, behind))?;
        let word = word_of_short(behind)?;
        let mut original = Bytes::default();
        self.read_exactly(at, &mut original[..SYSCALL.len()]).then_some(())?;
        (original[..SYSCALL.len()] == SYSCALL).then_some(())?;
        let padding = padding::find(self, behind)?;
        let mut filling = Bytes::default();
        self.read_exactly(padding, &mut filling).then_some(())?;
        let pieces = vec![
            Piece::new(padding, NUMBERLESS, Change::Padding(at), filling),
            Piece::new(at, NUMBERLESS, Change::Short(padding), original),
        ];
        Some(Plan { word, pieces })
    }

    fn write_site(&self, plan: Plan) -> Result<()> {
        let Plan { word, pieces } = plan;
        let Some(site) = pieces.last() else { return Ok(()) };
        let number = self.sites.number(site.at, site.original())?;
        let text = self.text()?;
        let io = |_| Errno::EFAULT;
        text.write_all_at(&word.to_le_bytes(), word_at(number)).map_err(io)?;
        for mut piece in pieces {
            piece.number = number;
            // Listed before it is there: what is listed counts only if it is there.
            self.sites.insert(piece);
            text.write_all_at(&piece.patch()[..piece.len()], piece.at).map_err(io)?;
        }
        Ok(())
    }

    /// Puts the application's text back where it is rewritten in a range, while other threads may run.
    ///
    /// If any does, jumps in padding stay: their sites do not lead there any more, but that thread may be there. Those that are parked
    /// never are ([`Space::shown`]).
    pub fn restore(&self, start: u64, end: u64) {
        let pieces = self.sites.within(start, end);
        if pieces.is_empty() {
            return;
        }
        let nobody_runs = self.sites.begin_rewriting();
        if !nobody_runs {
            self.sites.begin_restoring();
        }
        if let Ok(text) = self.text() {
            for piece in pieces {
                let (site, padding) = match piece.change {
                    Change::Site => (Some(piece), None),
                    Change::Short(padding) => (Some(piece), self.sites.at(padding)),
                    Change::Padding(site) => (self.sites.at(site), Some(piece)),
                };
                for piece in site.into_iter().chain(padding.filter(|_| nobody_runs)) {
                    self.put_back(&text, &piece);
                }
            }
        }
        if nobody_runs {
            self.sites.end_rewriting();
        } else {
            self.sites.end_restoring();
        }
    }

    fn put_back(&self, text: &File, piece: &Piece) {
        if self.holds(piece, &piece.patch()) {
            // Who comes by meanwhile meets an undefined instruction, and tries again.
            let _ = text.write_all_at(&[UNDEFINED], piece.at);
            let _ = text.write_all_at(&piece.original()[1..], piece.at.wrapping_add(1));
            let _ = text.write_all_at(&piece.original()[..1], piece.at);
        }
    }

    /// Undoes all rewriting for good.
    pub fn keep_text(&self) {
        self.sites.keep();
        self.restore(0, u64::MAX);
    }

    /// Puts into what was read from `addr` on the bytes that were there before rewriting.
    pub fn show_original(&self, addr: u64, buf: &mut [u8]) {
        for piece in self.sites.within(addr, addr.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX))) {
            let patch = piece.patch();
            // What was read, where all of the piece was.
            let within =
                piece.at.checked_sub(addr).and_then(|i| buf.get(usize::try_from(i).ok()?..)?.get(..piece.len()));
            let rewritten = match within {
                Some(bytes) => *bytes == patch[..piece.len()],
                None => self.holds(&piece, &patch),
            };
            if !rewritten {
                continue;
            }
            for (byte, shown) in (piece.at..).zip(piece.original()) {
                let place = byte.checked_sub(addr).and_then(|i| buf.get_mut(usize::try_from(i).ok()?));
                if let Some(place) = place {
                    *place = *shown;
                }
            }
        }
    }

    /// What an undefined instruction at `rip` is.
    pub fn undefined(&self, rip: u64) -> Undefined {
        for piece in self.sites.within(rip, rip.saturating_add(1)) {
            let call = piece.end().wrapping_sub(site::SHORT_LEN);
            if piece.change == Change::Site && rip == call && self.holds(&piece, &piece.patch()) {
                return Undefined::Call(piece.end());
            }
            if (rip == piece.at || rip == call) && self.holds(&piece, piece.original()) {
                return Undefined::Again;
            }
        }
        Undefined::Fault
    }

    /// Where the application is that has been interrupted at `rip`: in padding it is at the site that led there.
    pub fn shown(&self, rip: u64) -> u64 {
        match self.sites.at(rip) {
            Some(piece) => match piece.change {
                Change::Padding(site) if self.holds(&piece, &piece.patch()) => site,
                _ => rip,
            },
            None => rip,
        }
    }
}

/// Whether what lies in a range can be written as a whole or not at all.
fn is_on_one_page(start: u64, end: u64) -> bool {
    start / PAGE_SIZE == end.wrapping_sub(1) / PAGE_SIZE
}

impl Text for Space {
    fn read(&self, at: u64, buf: &mut [u8]) -> bool {
        let read = self.read_exactly(at, buf);
        if read {
            self.show_original(at, buf);
        }
        read
    }

    fn first_header(&self, pages: &mut dyn Iterator<Item = u64>) -> Option<u64> {
        const MAGIC: [u8; 4] = *b"\x7fELF";
        loop {
            let pages: Vec<u64> = pages.take(PAGES_AT_ONCE).collect();
            let ranges: Vec<_> = pages.iter().map(|page| RemoteRange { addr: *page, len: MAGIC.len() }).collect();
            let mut found = vec![0; pages.len().checked_mul(MAGIC.len())?];
            let read = moat_host::memory::read_ranges(self.pid, &ranges, &mut found).unwrap_or(0);
            let header = found.get(..read)?.chunks_exact(MAGIC.len()).position(|found| *found == MAGIC);
            if let Some(header) = header {
                return pages.get(header).copied();
            }
            if pages.is_empty() || read < found.len() {
                return None;
            }
        }
    }

    fn is_taken(&self, start: u64, end: u64) -> bool {
        self.sites.within(start, end).iter().any(|piece| self.holds(piece, &piece.patch()))
    }
}
