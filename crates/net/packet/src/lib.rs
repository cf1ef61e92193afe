//! AF_PACKET, packet(7): the frames of a namespace's links, as tcpdump and DHCP clients see and send them.
//!
//! - [`socket`]: the socket; [`ring`]: the ring in memory that a program maps (TPACKET_V2); filters (SO_ATTACH_FILTER) are `moat_net_inet::filter`'s.
//! - [`text`]: the file packet of /proc/net.
//!
//! What goes between a namespace's own addresses is no frames: nothing is seen of it on `lo`.
//!
//! # Invariants
//! - A ring is shared with the program: a word of it is read once, and decides nothing but whether a frame is free.
#![forbid(unsafe_code)]

mod ring;
mod socket;
mod text;

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::socket::{AF_PACKET, SOCK_DGRAM, SOCK_RAW};
use moat_abi::{Errno, Result};
use moat_image::ImageError;
use moat_vfs::Registry;
use moat_vfs::socket::{AddressFamily, RestoreSockets, RestoredSockets, Socket, SocketKind, SocketMaker};

use socket::PacketSocket;

/// Registers AF_PACKET.
pub fn register(registry: &mut Registry) {
    registry.address_family(AF_PACKET, Arc::new(Packet));
    registry.net_text("packet", text::packet);
}

struct Packet;

impl AddressFamily for Packet {
    fn new_socket(&self, maker: &SocketMaker<'_>, kind: SocketKind) -> Result<Arc<dyn Socket>> {
        if !maker.caller.creds().has_cap_in(&maker.net.user_ns, Cap::NET_RAW) {
            return Err(Errno::EPERM);
        }
        if kind.socket_type != SOCK_RAW && kind.socket_type != SOCK_DGRAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        Ok(PacketSocket::new(maker, kind)?)
    }

    fn restore<'a>(
        &self,
        request: &RestoreSockets<'a>,
    ) -> std::result::Result<Box<dyn RestoredSockets + 'a>, ImageError> {
        socket::persist::restore(request)
    }
}
