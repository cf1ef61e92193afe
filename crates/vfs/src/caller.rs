//! [`Caller`]: on whose behalf an operation runs; [`CallingTask`]: the task that it is, if it is one. [`Hooks`]: what the vfs needs of the kernel above it.

use std::sync::{Arc, OnceLock};

use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_identity::session::JobMember;
use moat_identity::{Credentials, Limits, Namespaces, Pid, UserNamespace};
use moat_sync::Mutex;

use crate::fd_table::FdTable;
use crate::fs_context::FsContext;
use crate::open_file::Owner;

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

    /// Its descriptors.
    fn fds(&self) -> &Arc<FdTable>;

    /// Root, working directory and umask.
    fn fs(&self) -> &Arc<Mutex<FsContext>>;
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

/// What the kernel does for the vfs; set once at boot.
pub trait Hooks: Send + Sync {
    /// The real-time clock, for time stamps.
    fn now(&self) -> Timespec;
    /// Bytes of memory that the guest's machine has.
    fn total_memory(&self) -> u64;
    /// Sends `signal` (SIGIO if 0) to the owner of a file that became ready: `fd`, `band` as in `F_SETSIG` of fcntl(2).
    /// Must not block; called with locks of the file possibly held.
    fn send_io_signal(&self, owner: &Owner, signal: u32, fd: i32, band: u32);
}

static HOOKS: OnceLock<Box<dyn Hooks>> = OnceLock::new();

/// Gives the vfs its hooks; a second call changes nothing.
pub fn set_hooks(hooks: Box<dyn Hooks>) {
    // Ignored on purpose: tests may boot twice in a process, and the hooks hold no state of their own.
    let _ = HOOKS.set(hooks);
}

/// The hooks, once the kernel has set them.
pub(crate) fn hooks() -> Option<&'static dyn Hooks> {
    HOOKS.get().map(AsRef::as_ref)
}

/// Bytes of memory that the guest's machine has, once there is a guest.
#[must_use]
pub fn total_memory() -> Option<u64> {
    HOOKS.get().map(|hooks| hooks.total_memory())
}

/// The time for a time stamp.
#[must_use]
pub fn now() -> Timespec {
    match HOOKS.get() {
        Some(h) => h.now(),
        None => {
            let d = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            Timespec::from_duration(d)
        }
    }
}
