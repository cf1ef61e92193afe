//! [`MmIds`]: what address spaces and their shared memory are named by.

use moat_identity::Counter;

/// Where the ids of address spaces and of their shared memory come from: one for all address spaces of a kernel.
#[derive(Debug)]
pub struct MmIds {
    /// See [`crate::MemoryManager::id`].
    pub(crate) managers: Counter,
    /// Inode numbers of [`crate::mappable::SharedAnon`].
    pub(crate) shared_anon: Counter,
}

impl Default for MmIds {
    fn default() -> MmIds {
        MmIds { managers: Counter::starting_at(1), shared_anon: Counter::starting_at(1) }
    }
}
