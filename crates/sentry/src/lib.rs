//! The sandbox process: it isolates itself ([`boot`]), then runs the guest's kernel ([`kernel_main`]).

#![forbid(unsafe_code)]

pub mod boot;

pub use boot::BootArgs;
use moat_control::{BootError, ExitStatus};

/// Builds the guest's kernel, starts its init and serves it until that ends.
///
/// Says [`BootArgs::start_sync`]`.booted()` when the init is about to run, and installs [`boot::seccomp`] when the
/// platform has made its first process.
///
/// # Errors
/// Why the guest could not be started; it is passed on to the user.
pub fn kernel_main(args: BootArgs) -> Result<ExitStatus, BootError> {
    drop(args);
    Err(BootError::new("kernel not linked"))
}
