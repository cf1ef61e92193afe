//! [`BootArgs`]: what the guest's kernel is built from.

use moat_control::{Connection, Listener, SandboxSpec, StartSync};
use moat_jail::DonatedFiles;

/// What [`crate::kernel_main`] gets.
#[derive(Debug)]
pub struct BootArgs {
    /// The sandbox to build. Descriptor numbers in it are keys of `files`.
    pub spec: SandboxSpec,
    /// The donated descriptors that are not taken yet: stdio and host trees.
    pub files: DonatedFiles,
    /// The connection with the command that created the sandbox.
    pub control: Connection,
    /// Where others connect.
    pub listener: Option<Listener>,
    /// Where to say that the sandbox is up.
    pub start_sync: StartSync,
}
