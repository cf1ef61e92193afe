//! Call sites in program text, which the platform may rewrite.

use moat_abi::mman::ProtFlags;

use crate::MemoryManager;
use crate::vma::{Backing, VmaFlags};

impl MemoryManager {
    /// Has the platform rewrite the call site that ends before `behind`, if it lies in private text of a file that is not
    /// writable there: what a program makes itself is left alone, and files that are shared even more so.
    pub fn rewrite_site(&self, behind: u64) {
        // Both are held to the end: what is mapped there is what is looked at, and nobody changes it meanwhile. Who does is not waited
        // for: the site will be met again.
        let Some(_turn) = self.try_turn() else { return };
        let state = self.state();
        let plain = state.tree.find(behind.saturating_sub(1)).is_some_and(|vma| {
            let executable = ProtFlags::READ | ProtFlags::EXEC;
            // The site may reach back into another area.
            let within = behind.checked_sub(SITE_BYTES).is_some_and(|start| vma.start <= start);
            within
                && matches!(vma.backing, Backing::File { .. })
                && vma.prot == executable
                && !vma.flags.contains(VmaFlags::SHARED)
        });
        if plain {
            self.space().rewrite(behind);
        }
    }
}

/// More than a site has.
const SITE_BYTES: u64 = 16;
