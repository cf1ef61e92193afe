//! [`BootArgs`]: what the guest's kernel is built from.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use moat_control::spec::FdNumber;
use moat_control::{BootError, Connection, SandboxSpec, StartSync};

/// What [`crate::kernel_main`] gets.
#[derive(Debug)]
pub struct BootArgs {
    /// The sandbox to build. Descriptor numbers in it are keys of `files`.
    pub spec: SandboxSpec,
    /// The donated descriptors that are not taken yet: stdio and host trees.
    pub files: DonatedFiles,
    /// The connection with the command that created the sandbox.
    pub control: Connection,
    /// Where to say that the sandbox is up.
    pub start_sync: StartSync,
    /// A procfs of the sandbox's own pid namespace, with nothing but /proc/PID in it, if the host allows one. It is
    /// mounted on /proc too; under the seccomp filter only this descriptor leads to it.
    pub proc_dir: Option<OwnedFd>,
}

/// Descriptors that the sandbox process was given, by number.
#[derive(Debug)]
pub struct DonatedFiles(BTreeMap<FdNumber, OwnedFd>);

impl DonatedFiles {
    /// `fds` under the numbers `first`, `first + 1`, ...
    pub(super) fn new(first: FdNumber, fds: Vec<OwnedFd>) -> Self {
        DonatedFiles((first..).zip(fds).collect())
    }

    /// Takes a descriptor out.
    ///
    /// # Errors
    /// The number was not donated, or is taken already.
    pub fn take(&mut self, number: FdNumber) -> Result<OwnedFd, BootError> {
        self.0.remove(&number).ok_or_else(|| BootError::new(format!("descriptor {number} was not donated")))
    }

    /// A descriptor that stays in the table.
    ///
    /// # Errors
    /// As [`DonatedFiles::take`].
    pub fn get(&self, number: FdNumber) -> Result<&OwnedFd, BootError> {
        self.0.get(&number).ok_or_else(|| BootError::new(format!("descriptor {number} was not donated")))
    }

    /// Puts what `fd` refers to in the place of descriptor `number`, under the same number.
    pub(super) fn replace(&mut self, number: FdNumber, fd: &OwnedFd) -> std::io::Result<()> {
        let old = self.0.get_mut(&number).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(rustix::io::dup3(fd, old, rustix::io::DupFlags::CLOEXEC)?)
    }

    /// Adds a descriptor under its own number, which it gives back.
    pub(super) fn insert(&mut self, fd: OwnedFd) -> FdNumber {
        let number = fd.as_raw_fd();
        self.0.insert(number, fd);
        number
    }
}
