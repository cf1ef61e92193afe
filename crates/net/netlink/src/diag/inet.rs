//! Sockets of TCP, UDP and raw ones (`struct inet_diag_msg`).

use std::net::IpAddr;
use std::sync::Weak;

use moat_abi::netlink as nl;
use moat_abi::netlink::{InetDiagMsg, InetDiagReqV2, InetDiagSockid};
use moat_abi::socket::{IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP};
use moat_abi::{Errno, Result};
use moat_net_inet::inspect::{Inspect, SocketInfo};
use moat_net_inet::listing::sockets;
use zerocopy::IntoBytes;

use super::{identity, wants_state};
use crate::message::{Answering, Message, parse};
use crate::socket::{Reply, Request};

/// An address in 16 bytes, IPv4's in the first four.
fn octets(family: u16, ip: IpAddr) -> [u8; 16] {
    let mut out = [0; 16];
    match ip {
        IpAddr::V4(v4) if u32::from(family) == u32::from(moat_abi::socket::AF_INET) => {
            out[..4].copy_from_slice(&v4.octets());
        }
        IpAddr::V4(v4) => out = v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => out = v6.octets(),
    }
    out
}

/// Which socket it is. The cookie is its inode number.
fn id(s: &SocketInfo) -> InetDiagSockid {
    InetDiagSockid {
        idiag_sport: s.local.port().to_be_bytes(),
        idiag_dport: s.peer.port().to_be_bytes(),
        idiag_src: octets(s.family, s.local.ip()),
        idiag_dst: octets(s.family, s.peer.ip()),
        idiag_if: s.device,
        idiag_cookie: identity(s.ino).1,
    }
}

/// Answers a request about sockets of AF_INET or AF_INET6.
///
/// # Errors
/// EINVAL; ENOENT for a protocol that is not there, or a socket.
pub(super) fn answer(request: &Request<'_>) -> Result<Reply> {
    let (wanted, _) = parse::<InetDiagReqV2>(request.body)?;
    let protocol = u32::from(wanted.sdiag_protocol);
    if ![IPPROTO_TCP, IPPROTO_UDP, IPPROTO_RAW].contains(&protocol) {
        return Err(Errno::ENOENT);
    }
    let mut all: Vec<Weak<dyn Inspect>> = sockets(request.net, protocol);
    let family = u16::from(wanted.sdiag_family);
    let to = request.to;
    if request.is_dump() {
        // One at a time, as the dump is read: sockets that go meanwhile are left out, and none is kept for it.
        let show = move |socket: Weak<dyn Inspect>| {
            let socket = socket.upgrade()?;
            let s = socket.inspect();
            let fits = s.family == family
                && wants_state(wanted.idiag_states, s.state)
                && (wanted.id.idiag_sport == [0; 2] || wanted.id.idiag_sport == s.local.port().to_be_bytes())
                && (wanted.id.idiag_dport == [0; 2] || wanted.id.idiag_dport == s.peer.port().to_be_bytes());
            fits.then(|| message((nl::NLM_F_MULTI, to), &*socket, &s, wanted.idiag_ext))
        };
        return Ok(Reply::Dump(Box::new(all.into_iter().filter_map(show))));
    }
    // One socket is asked for by all of its addresses; the cookie tells it from a later one with the same, if it is
    // given.
    let same = |s: &SocketInfo| {
        let own = id(s);
        let cookie = wanted.id.idiag_cookie;
        s.family == family
            && (own.idiag_sport, own.idiag_dport, own.idiag_src, own.idiag_dst)
                == (wanted.id.idiag_sport, wanted.id.idiag_dport, wanted.id.idiag_src, wanted.id.idiag_dst)
            && (cookie == [u32::MAX; 2] || cookie == own.idiag_cookie)
    };
    let found = all.drain(..).find_map(|socket| {
        let socket = socket.upgrade()?;
        let s = socket.inspect();
        same(&s).then(|| message((0, to), &*socket, &s, wanted.idiag_ext))
    });
    Ok(Reply::Messages(vec![found.ok_or(Errno::ENOENT)?]))
}

fn message((flags, to): (u16, Answering), socket: &dyn Inspect, s: &SocketInfo, ext: u8) -> Vec<u8> {
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let body = InetDiagMsg {
        idiag_family: u8::try_from(s.family).unwrap_or(0),
        idiag_state: s.state,
        id: id(s),
        idiag_rqueue: size(s.receive_queue),
        idiag_wqueue: size(s.send_queue),
        idiag_uid: s.uid,
        idiag_inode: identity(s.ino).0,
        ..InetDiagMsg::default()
    };
    // Bit n - 1 asks for attribute n (`INET_DIAG_*`).
    let wants = |attribute: u16| ext & 1u8.checked_shl(u32::from(attribute).saturating_sub(1)).unwrap_or(0) != 0;
    let mut m = Message::new(nl::SOCK_DIAG_BY_FAMILY, flags, to).body(body.as_bytes());
    if wants(nl::INET_DIAG_SKMEMINFO) {
        // What is used and allowed for receiving and sending; forward, queued, options, backlog, drops.
        let (receive, send) = socket.buffers();
        let words = [size(s.receive_queue), size(receive), size(s.send_queue), size(send), 0, 0, 0, 0, s.lost];
        m = m.attr(nl::INET_DIAG_SKMEMINFO, words.as_bytes());
    }
    if let Some(info) = socket.tcp_info() {
        if wants(nl::INET_DIAG_INFO) {
            m = m.attr(nl::INET_DIAG_INFO, &info);
        }
        if wants(nl::INET_DIAG_CONG) {
            m = m.attr_text(nl::INET_DIAG_CONG, "cubic");
        }
    }
    m.attr(nl::INET_DIAG_SHUTDOWN, &[s.shutdown]).finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::socket::{AF_INET, AF_INET6};

    #[test]
    fn a_mapped_address_is_shown_as_one() {
        let v4: IpAddr = "10.0.0.1".parse().unwrap();
        assert_eq!(octets(AF_INET, v4)[..5], [10, 0, 0, 1, 0]);
        assert_eq!(octets(AF_INET6, v4)[8..], [0, 0, 0xff, 0xff, 10, 0, 0, 1]);
    }
}
