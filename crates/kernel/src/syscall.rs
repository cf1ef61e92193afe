//! What the kernel needs of the table of system calls, which is a crate above it: [`SyscallTable`]. Each task carries a
//! reference to it, and makes its calls by it.

use std::future::Future;
use std::pin::Pin;

use crate::error::SyscallResult;
use crate::task::CurrentTask;

/// A call under way.
pub enum Dispatch<'a> {
    /// It has run to its end.
    Done(SyscallResult),
    /// It may wait.
    Waiting(Pin<Box<dyn Future<Output = SyscallResult> + Send + 'a>>),
}

impl Dispatch<'_> {
    /// Its result, once there is one.
    pub(crate) async fn result(self) -> SyscallResult {
        match self {
            Dispatch::Done(result) => result,
            Dispatch::Waiting(future) => future.await,
        }
    }
}

/// The system calls.
pub trait SyscallTable: Send + Sync {
    /// Starts call `nr`; ENOSYS for a number that the table does not have.
    fn dispatch<'a>(&self, t: &'a mut CurrentTask, nr: u64, args: [u64; 6]) -> Dispatch<'a>;

    /// The call as strace(1) prints it: `read(3, 0x7ffe0010, 512)`.
    fn format(&self, t: &CurrentTask, nr: u64, args: &[u64; 6]) -> String;
}
