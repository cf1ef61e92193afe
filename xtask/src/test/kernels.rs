//! The stock kernels that `cargo x test hosts` boots.

use anyhow::{Context, Result};

/// A stock kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Kernel {
    /// Major and minor version.
    pub version: &'static str,
    /// The Debian release that has it.
    pub suite: &'static str,
}

/// The kernels, the oldest that moat works on first.
pub const KERNELS: [Kernel; 3] = [
    Kernel { version: "5.10", suite: "bullseye" },
    Kernel { version: "6.1", suite: "bookworm" },
    Kernel { version: "6.12", suite: "trixie" },
];

impl Kernel {
    /// The kernel of a version.
    pub fn parse(version: &str) -> Result<Kernel> {
        let found = KERNELS.into_iter().find(|kernel| kernel.version == version);
        found.with_context(|| format!("no kernel {version}: {}", KERNELS.map(|kernel| kernel.version).join(", ")))
    }
}
