//! [`KernelAio`]: what io_setup(2) keeps with an address space, as its image has it.

use std::any::Any;

use moat_image::Refusal;
use moat_image::state::AioState;

/// The contexts of an address space; a copy of it has none.
pub trait KernelAio: Any + Send + Sync {
    /// The contexts as data, once the requests that end by themselves have ended.
    ///
    /// # Errors
    /// One that waits for something.
    fn save(&self) -> Result<AioState, Refusal>;
}
