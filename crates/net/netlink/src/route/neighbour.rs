//! Neighbours: RTM_NEWNEIGH, RTM_DELNEIGH.

use std::net::IpAddr;

use moat_abi::netlink as nl;
use moat_abi::netlink::Ndmsg;
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_net_inet::configuration;
use moat_net_inet::stack::stack_of;
use moat_net_stack::Neighbour;
use zerocopy::IntoBytes;

use super::{Head, device_number, family_byte, ip, octets};
use crate::message::{Message, parse};
use crate::socket::Request;

/// `NUD_PERMANENT` and `NUD_NOARP`: what stays.
const FOR_GOOD: u16 = 0x80 | 0x40;

fn wanted(body: &[u8]) -> Result<(Ndmsg, Option<IpAddr>, Option<[u8; 6]>)> {
    let (info, attributes) = parse::<Ndmsg>(body)?;
    let (mut address, mut mac) = (None, None);
    for (kind, value) in attributes {
        match kind {
            nl::NDA_DST => address = Some(ip(info.ndm_family, value)?),
            nl::NDA_LLADDR => mac = Some(value.try_into().map_err(|_| Errno::EINVAL)?),
            _ => {}
        }
    }
    Ok((info, address, mac))
}

/// RTM_NEWNEIGH: a neighbour that is known for good.
///
/// # Errors
/// ENODEV; EINVAL; ENOBUFS; EOPNOTSUPP for states that only the network brings about.
pub(super) fn add(request: &Request<'_>) -> Result<()> {
    let (info, address, mac) = wanted(request.body)?;
    let (address, mac) = (address.ok_or(Errno::EINVAL)?, mac.ok_or(Errno::EINVAL)?);
    if info.ndm_state & FOR_GOOD == 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let link = device_number(info.ndm_ifindex)?;
    configuration::change(request.net, |stack| stack.change(|s| s.add_neighbour(link, address, mac)))
}

/// RTM_DELNEIGH.
///
/// # Errors
/// ENODEV; EINVAL; ENOENT.
pub(super) fn delete(request: &Request<'_>) -> Result<()> {
    let (info, address, _) = wanted(request.body)?;
    let link = device_number(info.ndm_ifindex)?;
    let address = address.ok_or(Errno::EINVAL)?;
    configuration::change(request.net, |stack| stack.change(|s| s.remove_neighbour(link, address)))
}

/// The neighbours of a namespace.
pub(super) fn list(net: &NetNamespace) -> Vec<Neighbour> {
    stack_of(net).map(|s| s.change(|s| s.neighbours())).unwrap_or_default()
}

/// A neighbour.
pub(super) fn message((kind, flags, to): Head, n: &Neighbour) -> Vec<u8> {
    let info = Ndmsg {
        ndm_family: family_byte(n.address),
        ndm_ifindex: n.link.cast_signed(),
        ndm_state: n.state,
        ndm_type: nl::RTN_UNICAST,
        ..Ndmsg::default()
    };
    let mut m = Message::new(kind, flags, to).body(info.as_bytes()).attr(nl::NDA_DST, &octets(n.address));
    if let Some(mac) = n.mac {
        m = m.attr(nl::NDA_LLADDR, &mac);
    }
    m.finish()
}
