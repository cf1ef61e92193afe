//! fork(2): a copy of an address space.

use std::sync::Arc;

use moat_abi::Result;
use moat_platform::{GuestThread, NewProcess};

use crate::MemoryManager;
use crate::manager::MmState;
use crate::vma::VmaFlags;

impl MemoryManager {
    /// Copies the address space (`dup_mm`): private memory copy-on-write by the host, shared mappings shared.
    ///
    /// Gives the child's address space, with one user, and its only thread, parked with the parent's registers.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM from the host.
    pub async fn fork(&self, thread: &mut dyn GuestThread) -> Result<(Arc<MemoryManager>, Box<dyn GuestThread>)> {
        let turn = self.turn().await;
        let process = std::future::poll_fn(|cx| thread.poll_fork(cx)).await?;
        let NewProcess { space, thread } = process;
        let state = self.state().for_child();
        drop(turn);
        Ok((Arc::new(MemoryManager::with_state(space, state, self.ids().clone())), thread))
    }
}

impl MmState {
    /// The child's state: without DONTFORK areas and locks. The host has left out and wiped the same areas.
    fn for_child(&self) -> MmState {
        let mut tree = self.tree.clone();
        let special = VmaFlags::DONTFORK | VmaFlags::LOCKED | VmaFlags::LOCK_ONFAULT;
        let changes: Vec<_> =
            tree.iter().filter(|v| v.flags.intersects(special)).map(|v| (v.start, v.end, v.flags)).collect();
        for (start, end, flags) in changes {
            if flags.contains(VmaFlags::DONTFORK) {
                tree.remove(start, end);
            } else {
                tree.update(start, end, |v| v.flags.remove(special));
            }
        }
        MmState {
            peak_mapped: tree.totals().mapped,
            tree,
            limits: self.limits,
            mmap_base: self.mmap_base,
            brk_start: self.brk_start,
            brk: self.brk,
            image: self.image.clone(),
            lock_future: VmaFlags::empty(),
        }
    }
}
