//! [`Precopy`]: memory that is written to an image while its process runs.
//!
//! What has been written is protected first; what has changed since is written again, to the same place, until little is left. Only
//! that has to be read while nothing runs: the stop does not grow with the memory, but with how fast it is written to.
//!
//! Only anonymous memory that children inherit is copied so. All else is small, and saved as without it.

use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_host::procfs;
use moat_host::userfault::{Fate, WriteWatch};
use moat_image::pages::{Blocks, PagesWriter, Segment};
use moat_image::{ImageError, length, pieces};
use moat_platform::{AddressSpace, GuestThread, Order, execute};

use crate::persist::{PIECE, PrivateAreas, Reader, SavedMemory, io, join};
use crate::vma::{Backing, Vma, VmaFlags};
use crate::{MemoryManager, Present};

const PAGE: usize = 4096;

/// Most times that all which has changed is written again.
const ROUNDS: u32 = 12;

/// So much that has changed is kept in memory until the process runs again: to write it takes longer than to read it, and more changes
/// meanwhile. It is the container's memory.
const MOST_HELD: u64 = 64 << 20;

/// So little is read while everything stands still, in a few milliseconds.
const FEW_BYTES: u64 = 4 << 20;

/// So much may be, before another copy of the process is the quicker way.
const MOST_BYTES: u64 = 16 << 20;

/// An address space that is being written.
pub struct Precopy {
    mm: Arc<MemoryManager>,
    watch: WriteWatch,
    registered: Vec<(u64, u64)>,
    blocks: Blocks,
    /// What has been read and not written, the oldest first.
    held: Vec<Held>,
    /// Bytes that had changed when it was last looked at.
    changed: u64,
}

/// What becomes of pages that can't be read.
#[derive(Clone, Copy)]
enum Lacking {
    Fails,
    /// They have gone meanwhile: what takes their place will be new to the watch.
    Skipped,
}

/// Pages with their bytes, one after the other.
#[derive(Default)]
struct Held {
    runs: Vec<(u64, u64)>,
    bytes: Vec<u8>,
}

/// What has changed since, at the stop.
#[derive(Default)]
pub struct Changes {
    written: Vec<(u64, u64)>,
    absent: Vec<(u64, u64)>,
    /// What was written; nothing if a copy of the process has it.
    held: Option<Held>,
}

impl MemoryManager {
    /// Begins to see what is written to this memory from here on.
    ///
    /// # Errors
    /// Of a host that can't: ENOSYS, EPERM, EINVAL.
    pub async fn watch_writes(&self, thread: &mut dyn GuestThread) -> Result<WriteWatch> {
        let turn = self.turn().await;
        let number = execute(&mut *thread, Order::WatchWrites).await?;
        let number = u32::try_from(number).map_err(|_| Errno::EBADF)?;
        let watch = WriteWatch::take(self.space().host_pid(), number);
        // Whether it was taken or not: the guest's process keeps none.
        let closed = execute(thread, Order::EndWatch(number)).await;
        drop(turn);
        closed?;
        watch
    }
}

impl Precopy {
    /// Writes all of `mm` once, and what changes meanwhile a few times more.
    ///
    /// # Errors
    /// Of the host.
    pub fn begin(mm: Arc<MemoryManager>, watch: WriteWatch, pages: &mut PagesWriter) -> Result<Precopy, ImageError> {
        let blocks = Blocks::default();
        let mut copy = Precopy { mm, watch, registered: Vec::new(), blocks, held: Vec::new(), changed: 0 };
        copy.whole(pages)?;
        let (mut before, mut room) = (u64::MAX, MOST_HELD);
        for _ in 0..ROUNDS {
            let areas = copy.mm.private_areas();
            let Changes { written, .. } = copy.look(&areas)?;
            copy.changed = bytes_of(&written);
            // A program that writes as fast as this does will not be caught up with.
            if copy.changed <= FEW_BYTES || copy.changed > (before / 4).saturating_mul(3) {
                break;
            }
            before = copy.changed;
            // In memory as long as there is room, and then all at once, in the order in which it was read.
            if copy.changed <= room {
                room = room.saturating_sub(copy.changed);
                written.iter().for_each(|(start, end)| copy.protect(*start, *end));
                let held = copy.read(written, Lacking::Skipped)?;
                copy.held.push(held);
            } else {
                copy.write_held(pages)?;
                room = MOST_HELD;
                copy.protect_and_write(&written, pages)?;
            }
        }
        Ok(copy)
    }

    /// The address space.
    #[must_use]
    pub fn memory(&self) -> &Arc<MemoryManager> {
        &self.mm
    }

    /// Whether what changes in a moment can be read while everything stands still.
    #[must_use]
    pub fn has_caught_up(&self) -> bool {
        self.changed <= MOST_BYTES
    }

    fn whole(&mut self, pages: &mut PagesWriter) -> Result<(), ImageError> {
        let areas = self.mm.private_areas();
        for vma in areas.vmas.iter().filter(|vma| is_watched(vma)) {
            // An area that has gone meanwhile, or whose host has no such thing: its pages count as written to.
            if self.watch.register(vma.start, vma.end).is_ok() {
                self.registered.push((vma.start, vma.end));
            }
        }
        // Looked for before they are protected: pages that come later are not among them, and count as written to.
        let present = areas.present(self.mm.space().host_pid(), is_watched)?;
        self.protect_and_write(&present.0, pages)
    }

    fn protect(&self, start: u64, end: u64) {
        // Where that fails they stay unprotected, and are found to be written to.
        let _ = self.watch.protect(start, end);
    }

    /// The bytes of pages.
    fn read(&self, runs: Vec<(u64, u64)>, lacking: Lacking) -> Result<Held, ImageError> {
        let mut reader = Reader::new(&**self.mm.space());
        let mut bytes = vec![0; usize::try_from(bytes_of(&runs)).unwrap_or_default()];
        let mut rest = &mut bytes[..];
        for (start, end) in &runs {
            let len = usize::try_from(end.saturating_sub(*start)).unwrap_or_default();
            let (now, later) = rest.split_at_mut(len.min(rest.len()));
            match (reader.read(*start, now), lacking) {
                (Ok(()), _) => {}
                (Err(error), Lacking::Fails) => return Err(error),
                (Err(_), Lacking::Skipped) => {
                    for (at, page) in (*start..*end).step_by(PAGE).zip(now.chunks_mut(PAGE)) {
                        let _ = reader.read(at, page);
                    }
                }
            }
            rest = later;
        }
        Ok(Held { runs, bytes })
    }

    fn write_held(&mut self, pages: &mut PagesWriter) -> Result<(), ImageError> {
        for Held { runs, bytes } in std::mem::take(&mut self.held) {
            let mut rest = &bytes[..];
            for (start, end) in runs {
                let len = usize::try_from(end.saturating_sub(start)).unwrap_or_default();
                let (now, later) = rest.split_at(len.min(rest.len()));
                self.blocks.write(pages, start, now)?;
                rest = later;
            }
        }
        Ok(())
    }

    /// Writes pages as they are after they have been protected.
    fn protect_and_write(&mut self, runs: &[(u64, u64)], pages: &mut PagesWriter) -> Result<(), ImageError> {
        let space = self.mm.space().clone();
        let mut reader = Reader::new(&*space);
        let mut buffer = Vec::new();
        for (start, end) in runs {
            for (at, n) in pieces(*start, *end, PIECE) {
                self.protect(at, at.saturating_add(length(n)));
                buffer.resize(n, 0);
                if reader.read(at, &mut buffer).is_ok() {
                    self.blocks.write(pages, at, &buffer)?;
                } else {
                    self.write_by_page(&mut reader, at, length(n), pages)?;
                }
            }
        }
        Ok(())
    }

    /// Some of it is no longer there: what takes its place will be new to the watch.
    fn write_by_page(
        &mut self,
        reader: &mut Reader<'_>,
        start: u64,
        len: u64,
        pages: &mut PagesWriter,
    ) -> Result<(), ImageError> {
        let mut page = [0; PAGE];
        for (at, _) in pieces(start, start.saturating_add(len), page.len()) {
            if reader.read(at, &mut page).is_ok() {
                self.blocks.write(pages, at, &page)?;
            }
        }
        Ok(())
    }

    /// What has changed of `areas`.
    fn look(&self, areas: &PrivateAreas) -> Result<Changes, ImageError> {
        let mut changes = Changes::default();
        for vma in areas.vmas.iter().filter(|vma| is_watched(vma)) {
            for (start, end, imaged) in areas.cut(vma) {
                let mut tell = |from: u64, to: u64, fate: Fate| match fate {
                    Fate::Written => changes.written.push((from, to)),
                    // To the host that is a file, which shows what is not there.
                    Fate::Absent if imaged => changes.written.push((from, to)),
                    Fate::Absent => changes.absent.push((from, to)),
                };
                let told = self.watch.scan(start, end, &mut tell);
                told.map_err(|e| ImageError::host("looking for pages that have changed", io(e)))?;
            }
        }
        changes.written = join(&changes.written, 0);
        Ok(changes)
    }

    /// What has changed, while nothing runs: with its bytes, unless `copied` is a process that has them.
    ///
    /// # Errors
    /// Of the host.
    pub fn stop(&self, memory: &SavedMemory, copied: bool) -> Result<Changes, ImageError> {
        let mut changes = self.look(&memory.private)?;
        if !copied {
            changes.held = Some(self.read(std::mem::take(&mut changes.written), Lacking::Fails)?);
        }
        Ok(changes)
    }

    /// Looks no longer at what is written: the process runs as before.
    pub fn end_watch(&mut self) {
        for (start, end) in std::mem::take(&mut self.registered) {
            // What has gone since needs nothing.
            let _ = self.watch.unregister(start, end);
        }
    }

    /// Writes what has changed, from `copy` if it is not among the changes, and gives where the pages of `memory` are.
    ///
    /// # Errors
    /// Of the host.
    pub fn finish(
        mut self,
        changes: Changes,
        copy: Option<&dyn AddressSpace>,
        memory: &SavedMemory,
        pages: &mut PagesWriter,
    ) -> Result<Vec<Segment>, ImageError> {
        self.end_watch();
        // The newest last: it replaces what came before.
        self.held.extend(changes.held);
        self.write_held(pages)?;
        if let Some(copy) = copy {
            let mut reader = Reader::new(copy);
            let mut buffer = Vec::new();
            for (at, n) in changes.written.iter().flat_map(|(start, end)| pieces(*start, *end, PIECE)) {
                buffer.resize(n, 0);
                reader.read(at, &mut buffer)?;
                self.blocks.write(pages, at, &buffer)?;
            }
        }
        for (start, end) in changes.absent {
            self.blocks.clear(pages, start, end)?;
        }
        let mut segments = Vec::new();
        for vma in memory.private.vmas.iter().filter(|vma| is_watched(vma)) {
            segments.extend(self.blocks.segments(pages, vma.start, vma.end)?);
        }
        Ok(segments)
    }
}

impl SavedMemory {
    /// As [`SavedMemory::present`], without what a [`Precopy`] writes.
    ///
    /// # Errors
    /// Of the host.
    pub fn present_besides(&self, host_pid: i32) -> Result<Present, ImageError> {
        self.private.present(host_pid, |vma| !is_watched(vma))
    }
}

/// Whether a process has so much memory that it is worth it.
#[must_use]
pub fn is_worth_watching(host_pid: i32) -> bool {
    /// A copy of the process takes a few milliseconds below.
    const LEAST: u64 = 64 << 20;
    procfs::resident_bytes(host_pid).is_some_and(|(resident, files)| resident.saturating_sub(files) >= LEAST)
}

fn is_watched(vma: &Vma) -> bool {
    matches!(vma.backing, Backing::Anonymous) && !vma.flags.intersects(VmaFlags::DONTFORK | VmaFlags::WIPEONFORK)
}

fn bytes_of(runs: &[(u64, u64)]) -> u64 {
    runs.iter().map(|(start, end)| end.saturating_sub(*start)).fold(0, u64::saturating_add)
}
