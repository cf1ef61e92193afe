//! AF_NETLINK, netlink(7), in a network of the sandbox's own.
//!
//! - [`socket`]: the socket, its queue, dumps and groups; [`message`]: messages and attributes.
//! - [`route`]: NETLINK_ROUTE: what is shown and changed of links, addresses, routes, neighbours.
//! - [`diag`]: NETLINK_SOCK_DIAG: the sockets of a namespace.
//! - [`text`]: the file netlink of /proc/net.
//!
//! # Invariants
//! - A dump is made while it is read, a piece at a time: what waits in a socket is bounded whatever there is to list.
//! - Requests that change something take CAP_NET_ADMIN over the namespace; all others are for everybody.
#![forbid(unsafe_code)]

mod diag;
mod message;
mod route;
mod socket;
mod text;

use std::sync::Arc;

use moat_abi::netlink::{NETLINK_KOBJECT_UEVENT, NETLINK_ROUTE, NETLINK_SOCK_DIAG};
use moat_abi::socket::{AF_NETLINK, SOCK_DGRAM, SOCK_RAW};
use moat_abi::{Errno, Result};
use moat_image::ImageError;
use moat_vfs::Registry;
use moat_vfs::socket::{AddressFamily, RestoreSockets, RestoredSockets, Socket, SocketKind, SocketMaker};

pub use message::Attributes;
use socket::{NetlinkSocket, Protocol, Silent};

/// Registers AF_NETLINK.
pub fn register(registry: &mut Registry) {
    registry.address_family(AF_NETLINK, Arc::new(Netlink));
    registry.net_text("netlink", text::netlink);
}

struct Netlink;

impl AddressFamily for Netlink {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        if kind.socket_type != SOCK_RAW && kind.socket_type != SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        Ok(NetlinkSocket::new(maker, kind, protocol(kind.protocol).ok_or(Errno::EPROTONOSUPPORT)?))
    }

    fn restore<'a>(
        &self,
        request: &RestoreSockets<'a>,
    ) -> std::result::Result<Box<dyn RestoredSockets + 'a>, ImageError> {
        socket::persist::restore(request)
    }
}

/// The protocol of a number.
fn protocol(number: u32) -> Option<&'static dyn Protocol> {
    match number {
        NETLINK_ROUTE => Some(&route::Route),
        NETLINK_SOCK_DIAG => Some(&diag::SockDiag),
        // No device ever comes or goes that there would be an event of.
        NETLINK_KOBJECT_UEVENT => Some(&Silent),
        _ => None,
    }
}
