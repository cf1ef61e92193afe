//! [`KernelAio`]: what io_setup(2) keeps with an address space, as its image has it.

use std::any::Any;
use std::sync::Arc;

use moat_image::Refusal;
use moat_image::state::AioState;

/// The contexts of an address space; a copy of it has none.
pub trait KernelAio: Any + Send + Sync {
    /// The contexts as data, once the requests that end by themselves have ended, and those that wait.
    ///
    /// # Errors
    /// One that does not end.
    fn save(&self) -> Result<(AioState, Vec<KernelPoll>), Refusal>;
}

/// A request that waits for a file. Files are known to others.
pub struct KernelPoll {
    /// The place of its context among the others.
    pub context: usize,
    /// The open file.
    pub file: Arc<dyn Any + Send + Sync>,
    /// What it waits for, as poll(2) has it.
    pub events: i16,
    /// `aio_data`.
    pub data: u64,
    /// The address of the request.
    pub object: u64,
    /// The open file of the counter that it raises.
    pub counter: Option<Arc<dyn Any + Send + Sync>>,
}
