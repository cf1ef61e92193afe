//! [`Caller`]: on whose behalf an operation runs; [`CallingTask`]: the task that it is, if it is one.

use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_identity::session::JobMember;
use moat_identity::{Credentials, Limits, Namespaces, Pid, UserNamespace};

use crate::device_rules::DeviceRules;
use crate::fd::{Fd, OnExec};
use crate::open_file::OpenFile;
use crate::path::Path;
use crate::tables::Tables;

/// The task (or the sentry itself) that an operation is done for.
///
/// Only synchronous code holds one; no lock may be held while calling the `*_user` methods.
pub trait Caller {
    /// The credentials.
    fn creds(&self) -> &Arc<Credentials>;

    /// Copies from the caller's memory.
    ///
    /// # Errors
    /// EFAULT, with nothing known of how much was copied.
    fn read_user(&self, addr: u64, buf: &mut [u8]) -> Result<()>;

    /// Copies to the caller's memory.
    ///
    /// # Errors
    /// EFAULT, with nothing known of how much was copied.
    fn write_user(&self, addr: u64, bytes: &[u8]) -> Result<()>;

    /// Whether a signal waits, so that a long loop should stop early.
    fn interrupted(&self) -> bool {
        false
    }

    /// The task that calls; `None` for the sentry itself.
    fn task(&self) -> Option<&dyn CallingTask> {
        None
    }
}

/// What may be known of a task that calls: who it is and what it sees.
pub trait CallingTask: JobMember {
    /// The pid of the thread.
    fn thread_pid(&self) -> Arc<Pid>;

    /// Its namespaces but for those of users and mounts.
    fn namespaces(&self) -> Arc<Namespaces>;

    /// The limits of its process.
    fn limits(&self) -> &Limits;

    /// Which devices its container may use; without rules, all.
    fn device_rules(&self) -> Option<&DeviceRules>;

    /// Gives it a descriptor of `file`.
    ///
    /// # Errors
    /// EMFILE.
    fn install(&self, file: Arc<OpenFile>, on_exec: OnExec) -> Result<Fd>;

    /// Where its paths begin.
    fn start_of_paths(&self) -> PathStart;
}

impl Tables {
    /// The sentry as a caller that may do everything.
    #[must_use]
    pub fn kernel_caller(&self) -> KernelCaller {
        KernelCaller::root(self.root_user_ns.clone())
    }
}

/// Where a task's paths begin, and what new files of it don't get.
pub struct PathStart {
    /// What `/` means.
    pub root: Path,
    /// Working directory.
    pub cwd: Path,
    /// Permission bits that new files do not get.
    pub umask: u32,
}

/// The sentry as a caller: has credentials, but no memory.
pub struct KernelCaller {
    creds: Arc<Credentials>,
}

impl KernelCaller {
    /// A caller with these credentials.
    #[must_use]
    pub fn new(creds: Arc<Credentials>) -> KernelCaller {
        KernelCaller { creds }
    }

    /// A caller that may do everything below `user_ns`.
    #[must_use]
    pub fn root(user_ns: Arc<UserNamespace>) -> KernelCaller {
        KernelCaller::new(Arc::new(Credentials::root(user_ns)))
    }
}

impl Caller for KernelCaller {
    fn creds(&self) -> &Arc<Credentials> {
        &self.creds
    }
    fn read_user(&self, _addr: u64, _buf: &mut [u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
    fn write_user(&self, _addr: u64, _bytes: &[u8]) -> Result<()> {
        Err(Errno::EFAULT)
    }
}
