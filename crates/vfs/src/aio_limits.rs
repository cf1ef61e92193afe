//! [`AioLimits`]: how many requests of asynchronous I/O there may be in the system.

use std::sync::atomic::AtomicU64;

use moat_identity::Setting;

/// What contexts of io_setup(2) are counted against.
pub struct AioLimits {
    /// `fs.aio-nr`.
    pub used: AtomicU64,
    /// `fs.aio-max-nr`.
    pub most: Setting,
}

impl Default for AioLimits {
    fn default() -> AioLimits {
        AioLimits { used: AtomicU64::new(0), most: Setting::new(65536, 0, u64::MAX) }
    }
}
