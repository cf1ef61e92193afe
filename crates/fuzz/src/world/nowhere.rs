//! [`Nowhere`]: a platform whose processes are pages in this process and run no code.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_mm::fake;
use moat_platform::{Made, NewProcess, Platform, Stock, VdsoLayout};

/// The platform, and its one stock.
pub(super) struct Nowhere;

impl Platform for Nowhere {
    fn name(&self) -> &'static str {
        "nowhere"
    }

    fn stock(&self) -> Arc<dyn Stock> {
        Arc::new(Nowhere)
    }

    fn new_stock(&self) -> Made<'_, Arc<dyn Stock>> {
        Box::pin(async { Ok(self.stock()) })
    }

    fn vdso(&self) -> VdsoLayout {
        fake::vdso()
    }

    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn dispatch(&self) {}
}

impl Stock for Nowhere {
    fn new_process(&self) -> Made<'_, NewProcess> {
        Box::pin(async {
            let (space, _, thread) = fake::new_process();
            Ok(NewProcess { space, thread: Box::new(thread) })
        })
    }

    fn template(&self) -> Result<OwnedFd> {
        Err(Errno::ESRCH)
    }

    fn close(&self) {}
}

/// A program of one page, which is never run: a header and a segment that has them both.
pub(super) fn program() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEAD: [u8; 16] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let words16 = |words: &[u16]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    let words64 = |words: &[u64]| words.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<_>>();
    [
        HEAD.to_vec(),
        // ET_EXEC for x86-64, version 1.
        words16(&[2, 62, 1, 0]),
        // Entry, program headers behind this one, no sections.
        words64(&[BASE.saturating_add(120), 64, 0]),
        // No flags; sizes and numbers of headers.
        words16(&[0, 0, 64, 56, 1, 0, 0, 0]),
        // PT_LOAD, read and execute; offset, addresses, sizes, alignment.
        words16(&[1, 0, 5, 0]),
        words64(&[0, BASE, BASE, 120, 120, 4096]),
    ]
    .concat()
}
