//! Contents of a file into an image, and out of it.

use moat_abi::Errno;
use moat_abi::fs::SealFlags;
use moat_image::pages::{Pages, PagesWriter};
use moat_image::state::{BytesState, ContentState};
use moat_image::{ImageError, Refusal};
use moat_vfs::persist::{restore_memory, save_memory};

use super::{Data, MEDIUM, Store, length, seal_host};
use crate::shared::{BLOCK, Shared};

impl Data {
    /// The contents as data. Without `pages` it only tells whether they can be saved.
    pub(crate) fn save(&self, pages: Option<&mut PagesWriter>) -> Result<ContentState, Refusal> {
        let bytes = match &self.store {
            Store::Small(v) => BytesState::Here(v.clone()),
            Store::Host(memory) => BytesState::Pages(save_memory(memory.fd(), self.size, pages)?),
        };
        let held = self.held.within(0, u64::MAX).collect();
        Ok(ContentState::File { size: self.size, seals: self.seals.bits(), held, bytes })
    }

    /// Contents out of an image.
    ///
    /// # Errors
    /// What is wrong with them; a file system that has no room for them.
    pub(crate) fn restore(shared: &Shared, saved: &ContentState, pages: &Pages) -> Result<Data, ImageError> {
        let ContentState::File { size, seals, held, bytes } = saved else {
            return Err(ImageError::state("a regular file that is something else"));
        };
        if *size > i64::MAX.cast_unsigned() {
            return Err(ImageError::state(format!("a file of {size} bytes")));
        }
        let seals = SealFlags::from_bits(*seals).ok_or_else(|| ImageError::state(format!("the seals {seals:#x}")))?;
        let failed = |errno: Errno| ImageError::Unfit(format!("contents of a file: {errno}"));
        // Seals come last: those of the image would refuse that it is filled.
        let mut data = Data::new(SealFlags::empty());
        data.size = *size;
        match bytes {
            BytesState::Here(bytes) => {
                if length(bytes) > MEDIUM.min(*size) {
                    return Err(ImageError::state(format!("{} bytes in a file of {size}", bytes.len())));
                }
                data.charge(shared, 0, length(bytes)).map_err(failed)?;
                data.store = Store::Small(bytes.clone());
            }
            BytesState::Pages(segments) => {
                let memory = data.host_memory(shared).map_err(failed)?;
                // Counted like the guest's own writes, so that an image can't have more than its mount's size.
                for (first, last) in held {
                    let end = last.checked_mul(BLOCK).filter(|end| *end <= 1 << 63 && first < last);
                    let end = end.ok_or_else(|| ImageError::state(format!("the pages {first} to {last} of a file")))?;
                    data.charge(shared, first.saturating_mul(BLOCK), end).map_err(failed)?;
                }
                restore_memory(memory.fd(), *size, segments, pages)?;
                seal_host(&memory, seals).map_err(failed)?;
            }
        }
        data.seals = seals;
        Ok(data)
    }
}
