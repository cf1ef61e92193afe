//! NETLINK_SOCK_DIAG, sock_diag(7): the sockets of a namespace, as `ss` lists them.

mod inet;
mod unix;

use moat_abi::netlink as nl;
use moat_abi::socket::{AF_INET, AF_INET6, AF_UNIX};
use moat_abi::{Errno, Result};

use crate::socket::{Protocol, Reply, Request};

/// NETLINK_SOCK_DIAG.
pub(crate) struct SockDiag;

impl Protocol for SockDiag {
    fn answer(&self, request: &Request<'_>) -> Result<Reply> {
        match request.header.nlmsg_type {
            nl::SOCK_DIAG_BY_FAMILY => {}
            nl::SOCK_DESTROY => {
                request.check_admin()?;
                return Err(Errno::EOPNOTSUPP);
            }
            _ => return Err(Errno::EINVAL),
        }
        let family = request.body.first().copied().ok_or(Errno::EINVAL)?;
        match u16::from(family) {
            AF_INET | AF_INET6 => inet::answer(request),
            AF_UNIX => unix::answer(request),
            // The numbers end before `AF_MAX`.
            46.. => Err(Errno::EINVAL),
            _ => Err(Errno::ENOENT),
        }
    }
}

/// An inode number as messages have it, and the cookie that is made of it.
fn identity(ino: u64) -> (u32, [u32; 2]) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(0);
    (half(ino), [half(ino), half(ino >> 32)])
}

/// Whether a state is among those that are asked for.
fn wants_state(states: u32, state: u8) -> bool {
    states & 1u32.checked_shl(u32::from(state)).unwrap_or(0) != 0
}
