//! [`DonatedFiles`]: the descriptors that came with a process, or with a message to it.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use moat_control::BootError;
use moat_control::spec::FdNumber;

/// Descriptors that a process was given, by number.
#[derive(Debug)]
pub struct DonatedFiles(BTreeMap<FdNumber, OwnedFd>);

impl DonatedFiles {
    /// `fds` under the numbers `first`, `first + 1`, ...
    #[must_use]
    pub fn new(first: FdNumber, fds: Vec<OwnedFd>) -> Self {
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
    ///
    /// # Errors
    /// NotFound if the number was not donated; those of dup(2).
    pub fn replace(&mut self, number: FdNumber, fd: &OwnedFd) -> std::io::Result<()> {
        let old = self.0.get_mut(&number).ok_or(std::io::ErrorKind::NotFound)?;
        Ok(rustix::io::dup3(fd, old, rustix::io::DupFlags::CLOEXEC)?)
    }

    /// Adds a descriptor under its own number, which it gives back.
    pub fn insert(&mut self, fd: OwnedFd) -> FdNumber {
        let number = fd.as_raw_fd();
        self.0.insert(number, fd);
        number
    }
}
