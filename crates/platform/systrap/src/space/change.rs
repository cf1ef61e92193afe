//! How text is written: alone, while no thread of the process runs, or beside others that may be executing it.
//!
//! Beside others it takes three steps, as with breakpoints: the first byte becomes an undefined instruction, at which whoever comes by
//! tries again; then the rest is written; then the first byte. Between two steps every CPU that runs a guest passes a barrier,
//! so that no CPU still has bytes of before the last step. It is done for many pieces at a time: a barrier costs as much as
//! several calls.

use std::fs::File;
use std::os::unix::fs::FileExt;

use moat_abi::{Errno, Result};
use rustix::thread::{MembarrierCommand, membarrier};

use crate::sites::{Bytes, Change, Piece, UNDEFINED, word_at};
use crate::space::Space;
use crate::space::text::Plan;

/// Who may be executing what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Others {
    Parked,
    Running,
}

impl Space {
    fn text(&self) -> Result<File> {
        Ok(File::from(moat_host::procfs::open_memory(self.pid)?))
    }

    /// Has every CPU that runs a guest process pass a barrier.
    ///
    /// # Errors
    /// ENOSYS if guest processes do not take part.
    pub(super) fn pass_barrier(&self) -> Result<()> {
        if !self.core.barriers {
            return Err(Errno::ENOSYS);
        }
        Ok(membarrier(MembarrierCommand::GlobalExpedited)?)
    }

    /// Has others see what has been written. A host without barriers takes its time for that anyway, and is only asked to put back;
    /// one that has them, which was tried, does not fail.
    fn pass_step(&self) {
        let _ = self.pass_barrier();
    }

    /// Whether [`Space::carry_out`] would find nobody in its way at this moment, or never can.
    pub(super) fn can_write(&self) -> bool {
        self.sites.is_quiet() || !self.core.barriers
    }

    /// Rewrites a site, unless others run and it can't be done beside them.
    pub(super) fn carry_out(&self, plan: &Plan) {
        if self.sites.begin_alone() {
            self.rewrite_among(Others::Parked, plan);
            self.sites.end_alone();
        } else if self.core.barriers && self.sites.begin_beside() {
            self.rewrite_among(Others::Running, plan);
            self.sites.end_beside();
        }
    }

    fn rewrite_among(&self, others: Others, plan: &Plan) {
        // Whoever ran since it was made may have changed it.
        if plan.pieces.iter().all(|piece| self.holds(piece, piece.original())) {
            // What can't be written is as it was.
            let _ = self.write_site(others, plan);
        }
    }

    fn write_site(&self, others: Others, plan: &Plan) -> Result<()> {
        let Some(site) = plan.pieces.last() else { return Ok(()) };
        let number = self.sites.number(site.at, site.original(), plan.word)?;
        let text = self.text()?;
        text.write_all_at(&plan.word.to_le_bytes(), word_at(number)).map_err(|_| Errno::EFAULT)?;
        for mut piece in plan.pieces.iter().copied() {
            piece.number = number;
            // Listed before it is there: what is listed counts only if it is there.
            self.sites.insert(piece);
            self.write_all(others, &text, &[piece], Piece::before, Piece::patch)?;
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
        let others = if self.sites.begin_alone() { Others::Parked } else { Others::Running };
        if others == Others::Running {
            self.sites.begin_writing();
        }
        let mut written = Vec::new();
        for piece in pieces {
            let (site, padding) = match piece.change {
                Change::Site => (Some(piece), None),
                Change::Short(padding) => (Some(piece), self.sites.at(padding)),
                Change::Padding(site) => (self.sites.at(site), Some(piece)),
            };
            let padding = padding.filter(|_| others == Others::Parked);
            written.extend(site.into_iter().chain(padding).filter(|piece| self.holds(piece, &piece.patch())));
        }
        self.put_back(others, &written);
        match others {
            Others::Parked => self.sites.end_alone(),
            Others::Running => self.sites.end_writing(),
        }
    }

    fn put_back(&self, others: Others, pieces: &[Piece]) {
        if let Ok(text) = self.text() {
            // What can't be written is not there any more.
            let _ = self.write_all(others, &text, pieces, Piece::patch, Piece::before);
        }
    }

    /// A piece was found half written: waits for who is writing it; a copy of another process's text becomes what it was there.
    pub(super) fn mend(&self, piece: &Piece) {
        self.sites.begin_writing();
        if self.is_torn(piece) {
            self.put_back(Others::Running, &[*piece]);
        }
        self.sites.end_writing();
    }

    /// Writes what pieces are to be, the first byte of each last.
    fn write_all(
        &self,
        others: Others,
        text: &File,
        pieces: &[Piece],
        from: fn(&Piece) -> Bytes,
        to: fn(&Piece) -> Bytes,
    ) -> Result<()> {
        let write = |bytes: &[u8], at| text.write_all_at(bytes, at).map_err(|_| Errno::EFAULT);
        if others == Others::Parked {
            return pieces.iter().try_for_each(|piece| write(&to(piece)[..piece.len()], piece.at));
        }
        let mut begun = Vec::new();
        for piece in pieces {
            write(&[UNDEFINED], piece.at)?;
            // From here on the page is the process's own. It may have been the file's before, which somebody has written to.
            if self.is_torn(piece) {
                begun.push(piece);
            } else {
                write(&from(piece)[..1], piece.at)?;
            }
        }
        self.pass_step();
        for piece in &begun {
            write(&to(piece)[1..piece.len()], piece.at.wrapping_add(1))?;
        }
        self.pass_step();
        begun.iter().try_for_each(|piece| write(&to(piece)[..1], piece.at))?;
        if begun.len() == pieces.len() { Ok(()) } else { Err(Errno::EBUSY) }
    }

    /// Undoes all rewriting for good.
    pub fn keep_text(&self) {
        self.sites.keep();
        self.restore(0, u64::MAX);
    }
}
