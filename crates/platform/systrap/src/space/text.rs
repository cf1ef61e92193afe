//! The text of a guest process, as far as call sites in it are rewritten: which, how, and what others are shown of it.

use moat_host::memory::RemoteRange;
use moat_platform::PAGE_SIZE;
use moat_stub::layout::site;

use crate::padding::{self, Text};
use crate::sites::{Bytes, Change, Piece, SYSCALL, Undefined, word_of, word_of_short};
use crate::space::Space;

/// Pages that are asked for at once when a program's header is looked for.
const PAGES_AT_ONCE: usize = 256;

/// In place of the number of a site that is not rewritten yet.
const NUMBERLESS: u32 = 0;

/// How a site is to be rewritten.
pub(super) struct Plan {
    /// What the stub is to find for it.
    pub word: u64,
    /// What becomes of its text; the piece that is executed first, the site itself, is the last.
    pub pieces: Vec<Piece>,
}

impl Space {
    fn read_exactly(&self, at: u64, bytes: &mut [u8]) -> bool {
        moat_host::memory::read(self.pid, at, bytes).is_ok_and(|read| read == bytes.len())
    }

    /// What is where a piece is listed, if that can be read.
    fn found<'a>(&self, piece: &Piece, bytes: &'a mut Bytes) -> Option<&'a [u8]> {
        let bytes = &mut bytes[..piece.len()];
        self.read_exactly(piece.at, bytes).then_some(bytes)
    }

    /// Whether what the list says of bytes is so.
    pub(super) fn holds(&self, piece: &Piece, bytes: &[u8]) -> bool {
        self.found(piece, &mut Bytes::default()).is_some_and(|found| found == &bytes[..piece.len()])
    }

    /// Whether a piece is half written.
    pub(super) fn is_torn(&self, piece: &Piece) -> bool {
        self.found(piece, &mut Bytes::default()).is_some_and(|found| piece.is_torn(found))
    }

    /// Rewrites the site that ends before `behind`, if it can be done.
    pub fn rewrite(&self, behind: u64) {
        if !self.core.rewrites {
            return;
        }
        // It costs nothing to look, and the others may just be in the middle of something each time that this call is made.
        if !self.can_write() {
            self.traps.count_again(behind);
            return;
        }
        // What takes time is done while others may run.
        let Some(plan) = self.plan_long(behind).or_else(|| self.plan_short(behind)) else { return };
        self.carry_out(&plan);
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

    /// Puts into what was read from `addr` on the bytes that were there before rewriting.
    pub fn show_original(&self, addr: u64, buf: &mut [u8]) {
        for piece in self.sites.within(addr, addr.saturating_add(u64::try_from(buf.len()).unwrap_or(u64::MAX))) {
            let patch = piece.patch();
            // What was read, where all of the piece was.
            let within =
                piece.at.checked_sub(addr).and_then(|i| buf.get(usize::try_from(i).ok()?..)?.get(..piece.len()));
            let rewritten = match within {
                Some(bytes) => *bytes == patch[..piece.len()] || piece.is_torn(bytes),
                None => self.holds(&piece, &patch) || self.is_torn(&piece),
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
            let mut bytes = Bytes::default();
            let Some(found) = self.found(&piece, &mut bytes) else { continue };
            let (original, rewritten) = (found == piece.original(), *found == piece.patch()[..piece.len()]);
            let torn = piece.is_torn(found);
            if piece.change == Change::Site && rip == call && (torn || rewritten) {
                return Undefined::Call(piece.end());
            }
            if torn && rip == piece.at {
                self.mend(&piece);
                return Undefined::Again;
            }
            // Neither what was there nor what is there instead is undefined where it begins.
            if rip == piece.at && (original || rewritten) || rip == call && original {
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
