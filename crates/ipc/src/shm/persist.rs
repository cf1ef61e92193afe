//! Shared memory segments in an image, and out of it.

use std::sync::Arc;

use moat_abi::ipc::{SHMMAX, SHMMIN};
use moat_image::pages::{Pages, PagesWriter};
use moat_image::state::{RegistryState, ShmState};
use moat_image::{ImageError, Refusal};
use moat_mm::{FileIdentity, HostMemory, page_up};
use moat_vfs::persist::{restore_memory, save_memory};

use super::{Hold, Segment, SegmentMemory, Segments, Table};

impl Segments {
    /// All segments, and the memory of each, by which its mappings are known. Without `pages` the contents are left out.
    ///
    /// # Errors
    /// Memory that the host does not let be read.
    pub fn save(
        &self,
        mut pages: Option<&mut PagesWriter>,
    ) -> Result<(RegistryState<ShmState>, Vec<Arc<SegmentMemory>>), Refusal> {
        let mut memories = Vec::new();
        let mut state = self.table().registry.save(|s| {
            memories.push(s.memory().ok()?);
            Some(ShmState {
                size: s.size,
                atime: s.atime,
                dtime: s.dtime,
                ctime: s.ctime,
                cpid: s.cpid,
                lpid: s.lpid,
                removed: matches!(s.memory, Hold::Dying(_)),
                segments: Vec::new(),
            })
        });
        // Read with the table unlocked: the host is asked.
        for (saved, memory) in state.objects.iter_mut().zip(&memories) {
            let len = page_up(memory.size).unwrap_or(memory.size);
            saved.object.segments = save_memory(memory.memory.fd(), len, pages.as_deref_mut())
                .map_err(|refusal| refusal.at(format!("System V segment {}", saved.id)))?;
        }
        Ok((state, memories))
    }

    /// Makes the segments of an image, of which there are none yet; gives their memory in the image's order. One that was removed is
    /// there as long as this or a mapping is.
    ///
    /// # Errors
    /// What is wrong with one.
    pub fn restore(
        &self,
        saved: &RegistryState<ShmState>,
        pages: &Pages,
    ) -> Result<Vec<Arc<SegmentMemory>>, ImageError> {
        let mut memories = Vec::new();
        for (saved, serial) in saved.objects.iter().zip(1..) {
            let wrong = || ImageError::state(format!("the size of System V segment {}", saved.id));
            let size = saved.object.size;
            let len = page_up(size).filter(|_| (SHMMIN..=SHMMAX).contains(&size)).ok_or_else(wrong)?;
            let failed = |errno| ImageError::Unfit(format!("System V segment {}: {errno}", saved.id));
            let memory = HostMemory::new("sysv", len).map_err(failed)?;
            restore_memory(memory.fd(), len, &saved.object.segments, pages)?;
            let identity = FileIdentity { dev: self.dev, ino: serial };
            memories.push(Arc::new(SegmentMemory { memory, size, key: saved.key, id: saved.id, identity }));
        }
        let mut table = self.table();
        let Table { registry, next_serial, dying } = &mut *table;
        let mut next = memories.iter();
        registry.restore(saved, |saved| {
            // One for each object, in the same order.
            let memory = next.next().ok_or_else(|| ImageError::state("a System V segment"))?;
            *next_serial = next_serial.saturating_add(1);
            if saved.object.removed {
                dying.push(saved.id);
            }
            let hold =
                if saved.object.removed { Hold::Dying(Arc::downgrade(memory)) } else { Hold::Own(memory.clone()) };
            let ShmState { size, atime, dtime, ctime, cpid, lpid, .. } = saved.object;
            let segment = Segment { memory: hold, size, identity: memory.identity, atime, dtime, ctime, cpid, lpid };
            let pages = usize::try_from(segment.pages()).unwrap_or(usize::MAX);
            Ok((segment, pages))
        })?;
        Ok(memories)
    }
}
