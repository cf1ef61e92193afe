//! Sockets of the sentry's own.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// SO_PEERCRED: pid, uid and gid of who connected, or made the pair. The pid is 0 for a process outside of the caller's
/// pid namespace, which is why rustix's type for it will not do.
///
/// # Errors
/// ENOTSOCK, EOPNOTSUPP.
pub fn peer_credentials(socket: impl AsFd) -> io::Result<(i32, u32, u32)> {
    let mut peer = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of::<libc::ucred>()).unwrap_or(0);
    // SAFETY: the descriptor is open for the time of the call; `peer` and `length` are writable and `length` bytes fit.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut peer).cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok((peer.pid, peer.uid, peer.gid)) } else { Err(io::Error::last_os_error()) }
}
