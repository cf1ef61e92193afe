//! [`Caller`]: on whose behalf an operation runs. [`Hooks`]: what the vfs needs of the kernel above it.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};

use crate::cred::Credentials;
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

    /// Thread group id in the caller's pid namespace; 0 for the sentry.
    fn tgid(&self) -> i32 {
        0
    }

    /// Whether a signal waits, so that a long loop should stop early.
    fn interrupted(&self) -> bool {
        false
    }

    /// The kernel's `CurrentTask` when a task calls: for job control of terminals and /proc/self.
    fn as_any(&self) -> &dyn Any;
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

    /// A caller that may do everything.
    #[must_use]
    pub fn root() -> KernelCaller {
        KernelCaller::new(Arc::new(Credentials::root()))
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
    fn as_any(&self) -> &dyn Any {
        self
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
