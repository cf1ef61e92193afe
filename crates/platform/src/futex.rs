//! [`HostFutex`]: a call of futex(2) that a guest thread has the host carry out.

use std::task::{Context, Poll};

use moat_abi::Result;

use crate::GuestThread;

/// A call of futex(2), or futex_waitv(2), about words that are the process's alone.
///
/// The host tells such words by address space and address. So no other process's waiters are meant, and none of the sentry's own: where
/// [`GuestThread::has_host_futexes`], it has none for such words.
#[derive(Clone, Copy, Debug)]
pub struct HostFutex {
    // What is shared with other processes never comes here: the caller has looked at the flags of all words.
    /// The number: 202 or 449.
    pub nr: u32,
    /// The arguments, the fourth of which is what `until` says if it is a time.
    pub args: [u64; 6],
    /// A point on the clock that the other arguments name: seconds and nanoseconds.
    pub until: Option<[u64; 2]>,
}

/// Has the host carry out `call` on `thread`.
///
/// # Errors
/// The call's own; EINTR if the thread was kicked, in which case nothing has come of it; ESRCH if it died.
pub async fn host_futex(thread: &mut dyn GuestThread, call: &HostFutex) -> Result<u64> {
    std::future::poll_fn(|cx: &mut Context<'_>| -> Poll<Result<u64>> { thread.poll_futex(cx, call) }).await
}
