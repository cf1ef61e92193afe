//! Memory that shows pages of an image: anonymous to the guest, or pages of its own of a file, and a private mapping of the image's file to
//! the host.
//!
//! The two differ where the host would show the image again (MADV_DONTNEED), or refuses what only anonymous memory can do
//! (MADV_WIPEONFORK). Such memory then becomes for the host what it is to the guest.

use moat_abi::mman::{MADV_DONTFORK, MADV_DONTNEED, MADV_DONTNEED_LOCKED, MADV_FREE, ProtFlags};
use moat_abi::{Errno, Result};
use moat_platform::{GuestThread, MapSource, Order};

use crate::copy::effective_prot;
use crate::manager::{Turn, When};
use crate::persist::Reader;
use crate::ranges::cut;
use crate::vma::{Backing, Vma, VmaFlags};
use crate::{MapFile, MemoryManager, Sharing, UserAddr};

/// Bytes that are copied at a time.
const PIECE: usize = 1 << 20;

/// What the host forgets of `vma` when it maps `start..end` anew.
fn reminders(vma: &Vma, start: u64, end: u64) -> impl Iterator<Item = Order> {
    let len = end.saturating_sub(start);
    let fork = vma.flags.contains(VmaFlags::DONTFORK);
    fork.then_some(Order::Madvise { addr: start, len, advice: MADV_DONTFORK }).into_iter()
}

impl MemoryManager {
    /// What the host maps for `len` bytes of `vma` from `addr` on: its file, or zeros.
    ///
    /// # Errors
    /// Those of the file.
    pub(crate) fn source_of(&self, vma: &Vma, addr: u64, len: u64) -> Result<MapSource> {
        let Backing::File { object, .. } = &vma.backing else { return Ok(vma.zeros()) };
        let sharing = if vma.flags.contains(VmaFlags::SHARED) { Sharing::Shared } else { Sharing::Private };
        let offset = vma.file_offset(addr);
        object.map_source(&MapFile { offset, len, prot: vma.prot, sharing, ids: self.ids() })
    }

    /// In place of pages of an image, what `vma` shows at `start..end` where nothing was written, with its protection.
    fn unwritten(&self, vma: &Vma, start: u64, end: u64) -> Result<Order> {
        let len = end.saturating_sub(start);
        let source = self.source_of(vma, start, len)?;
        Ok(Order::Mmap { addr: start, len, prot: effective_prot(vma.prot).bits(), source })
    }

    /// The orders that carry `advice` out for `vma`, a slice of an area; whether the host may refuse each.
    ///
    /// # Errors
    /// Those of a file that is to be shown again.
    pub(crate) fn orders_for(&self, vma: &Vma, advice: i32) -> Result<Vec<(Order, bool)>> {
        let whole = |start: u64, end: u64| Order::Madvise { addr: start, len: end.saturating_sub(start), advice };
        let drops = matches!(advice, MADV_DONTNEED | MADV_DONTNEED_LOCKED | MADV_FREE);
        let imaged = if drops { self.state().tree.imaged.within(vma.start, vma.end) } else { Vec::new() };
        if imaged.is_empty() {
            return Ok(vec![(whole(vma.start, vma.end), true)]);
        }
        let mut orders = Vec::new();
        for (start, end, from_image) in cut(vma.start, vma.end, &imaged) {
            if from_image {
                orders.push((self.unwritten(vma, start, end)?, false));
                orders.extend(reminders(vma, start, end).map(|order| (order, false)));
            } else {
                orders.push((whole(start, end), true));
            }
        }
        self.state().tree.imaged.remove(vma.start, vma.end);
        Ok(orders)
    }

    /// Has the host map at `places`, which have been moved away from there, what `vma` shows where nothing was written.
    pub(crate) async fn clear_imaged(
        &self,
        thread: &mut dyn GuestThread,
        turn: &Turn,
        vma: &Vma,
        places: &[(u64, u64)],
    ) -> Result<()> {
        for (start, end) in places {
            turn.carry_out(thread, self.unwritten(vma, *start, *end)?, When::Now).await?;
            self.state().tree.imaged.remove(*start, *end);
        }
        Ok(())
    }

    /// Makes what `vma`, a slice of an area, shows of an image anonymous for the host too, with the same contents.
    ///
    /// They are put together elsewhere and moved into place, so that no thread sees less than all of them.
    ///
    /// # Errors
    /// ENOMEM.
    pub(crate) async fn settle(&self, thread: &mut dyn GuestThread, turn: &Turn, vma: &Vma) -> Result<()> {
        let imaged = self.state().tree.imaged.within(vma.start, vma.end);
        for (start, end) in imaged {
            let len = end.saturating_sub(start);
            // At another place first: where it belongs the guest reads it from the image meanwhile.
            let elsewhere = self.state().find_place(len)?;
            let room = MapSource::AnonPrivate { noreserve: false };
            let prot = (ProtFlags::READ | ProtFlags::WRITE).bits();
            turn.carry_out(thread, Order::Mmap { addr: elsewhere, len, prot, source: room }, When::Now).await?;
            let mut reader = Reader::new(&**self.space());
            for (at, n) in moat_image::pieces(0, len, PIECE) {
                let mut bytes = vec![0; n];
                reader.read(start.saturating_add(at), &mut bytes).map_err(|_| Errno::ENOMEM)?;
                self.write_bytes(UserAddr::new(elsewhere.saturating_add(at)), &bytes)?;
            }
            let prot = effective_prot(vma.prot).bits();
            turn.carry_out(thread, Order::Mprotect { addr: elsewhere, len, prot }, When::Now).await?;
            let place =
                Order::Mremap { old_addr: elsewhere, old_len: len, new_addr: start, new_len: len, dont_unmap: false };
            turn.carry_out(thread, place, When::Now).await?;
            for order in reminders(vma, start, end) {
                turn.carry_out(thread, order, When::Now).await?;
            }
            self.state().tree.imaged.remove(start, end);
        }
        Ok(())
    }
}
