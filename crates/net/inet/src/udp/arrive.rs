//! Datagrams and errors on their way to the socket whose they are.

use std::net::SocketAddr;
use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::socket::IPPROTO_UDP;
use moat_identity::NetNamespace;
use moat_net_stack::{IpHeader, SendError};

use super::{UDP_HEADER, UdpSocket};
use crate::address::is_local;
use crate::ancillary::Arrived;
use crate::inbox::Datagram;
use crate::ports::PortTables;
use crate::stack::stack_of;

/// Takes a datagram that came over a link; gives whether anybody has its port.
pub(crate) fn receive(namespace: &NetNamespace, d: &moat_net_stack::Datagram) -> bool {
    let from = SocketAddr::new(d.header.source, d.source_port);
    let to = SocketAddr::new(d.header.destination, d.destination_port);
    let tables = PortTables::of(namespace);
    let deliver = |socket: &UdpSocket| {
        // A socket that is bound to another link gets nothing, and the sender no error.
        if socket.options.device().is_none_or(|device| device == d.link) {
            let data = d.payload.as_slice().into();
            let (ttl, tos, at) = (d.header.ttl, d.header.tos, moat_vfs::clock::now());
            let arrived = Arrived { to: to.ip(), device: d.link, ttl, tos, segment: 0, at, lost: 0 };
            socket.deliver(to.port(), Datagram { data, from, arrived });
        }
    };
    // A unicast has one receiver; a group or a broadcast all that want it.
    let unicast = is_local(to.ip()) || stack_of(namespace).is_some_and(|s| s.change(|s| s.routes().is_local(to.ip())));
    if unicast {
        let receiver = tables.udp.lock().receiver(from, to);
        receiver.iter().for_each(|socket| deliver(socket));
        return receiver.is_some();
    }
    let receivers = tables.udp.lock().receivers(from, to);
    let wants = |s: &&Arc<UdpSocket>| !to.ip().is_multicast() || s.options.takes_group(d.link, to.ip());
    receivers.iter().filter(wants).for_each(|socket| deliver(socket));
    // Nobody is told that what goes to many found nobody.
    true
}

/// What ICMP would say of a datagram for a port of this namespace that nobody has.
pub(super) fn refusal(from: SocketAddr, to: SocketAddr, data: &[u8]) -> SendError {
    /// Bytes of a datagram that an error of ICMP and of ICMPv6 quotes.
    const QUOTED: usize = 520;
    const QUOTED_V6: usize = 1184;
    let v4 = to.is_ipv4();
    let quoted = data.get(..if v4 { QUOTED } else { QUOTED_V6 }).unwrap_or(data);
    SendError {
        header: IpHeader { source: from.ip(), destination: to.ip(), protocol: 17, ttl: 64, tos: 0 },
        source_port: from.port(),
        destination_port: to.port(),
        errno: Errno::ECONNREFUSED,
        fatal: true,
        offender: to.ip(),
        // Port unreachable.
        kind: if v4 { 3 } else { 1 },
        code: if v4 { 3 } else { 4 },
        info: 0,
        payload: [&[0; UDP_HEADER], quoted].concat(),
        headers: Vec::new(),
    }
}

/// Takes what ICMP says of a datagram that was sent.
pub(crate) fn receive_error(namespace: &NetNamespace, error: &SendError) {
    if u32::from(error.header.protocol) != IPPROTO_UDP {
        return;
    }
    let local = SocketAddr::new(error.header.source, error.source_port);
    let remote = SocketAddr::new(error.header.destination, error.destination_port);
    // The packet is one of our own: what it says of sender and receiver is turned around here.
    let socket = PortTables::of(namespace).udp.lock().receiver(remote, local);
    let Some(socket) = socket else { return };
    let connected = socket.state.lock().peer == Some(remote);
    // An unconnected socket is told of nothing unless it asked (ip(7), IP_RECVERR).
    if error.fatal || error.errno == Errno::EMSGSIZE || socket.options.wants_errors(remote.ip()) {
        socket.unreachable(connected, error);
    }
}
