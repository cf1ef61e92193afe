//! Addresses: RTM_NEWADDR, RTM_DELADDR.

use std::net::{IpAddr, Ipv4Addr};

use moat_abi::netlink as nl;
use moat_abi::netlink::{Ifaddrmsg, NLM_F_REPLACE};
use moat_abi::{Errno, Result};
use moat_identity::net::{InterfaceAddress, NetDevice};
use moat_net_inet::configuration;
use moat_net_stack::AddressConfig;
use zerocopy::IntoBytes;

use super::{Head, family_byte, ip, octets};
use crate::message::{Message, parse};
use crate::socket::Request;

/// The parts of a request: the address of its own, that of the peer, and that of all.
struct Wanted {
    info: Ifaddrmsg,
    local: Option<IpAddr>,
    broadcast: Option<Ipv4Addr>,
}

fn wanted(body: &[u8]) -> Result<Wanted> {
    let (info, attributes) = parse::<Ifaddrmsg>(body)?;
    let (mut local, mut address, mut broadcast) = (None, None, None);
    for (kind, value) in attributes {
        match kind {
            nl::IFA_LOCAL => local = Some(ip(info.ifa_family, value)?),
            nl::IFA_ADDRESS => address = Some(ip(info.ifa_family, value)?),
            nl::IFA_BROADCAST => broadcast = <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from),
            _ => {}
        }
    }
    if local.is_some_and(|l| address.is_some_and(|a| a != l)) {
        // A peer's address: no link has only one other end.
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(Wanted { info, local: local.or(address), broadcast })
}

/// RTM_NEWADDR.
///
/// # Errors
/// ENODEV; EEXIST; EINVAL; EOPNOTSUPP for the address of a peer.
pub(super) fn add(request: &Request<'_>) -> Result<()> {
    let Wanted { info, local, broadcast } = wanted(request.body)?;
    let ip = local.ok_or(Errno::EINVAL)?;
    let address = AddressConfig { ip, prefix_len: info.ifa_prefixlen, broadcast, scope: info.ifa_scope };
    let replace = request.header.nlmsg_flags & NLM_F_REPLACE != 0;
    configuration::change(request.net, |stack| {
        stack.change(|s| match s.add_address(info.ifa_index, address) {
            // What could be replaced are lifetimes, which no address has.
            Err(Errno::EEXIST) if replace => Ok(()),
            other => other,
        })
    })
}

/// RTM_DELADDR.
///
/// # Errors
/// ENODEV; EADDRNOTAVAIL.
pub(super) fn delete(request: &Request<'_>) -> Result<()> {
    let Wanted { info, local, .. } = wanted(request.body)?;
    configuration::change(request.net, |stack| {
        stack.change(|s| {
            let ip = local.ok_or(Errno::EADDRNOTAVAIL)?;
            s.remove_address(info.ifa_index, ip, Some(info.ifa_prefixlen))
        })
    })
}

/// An address.
pub(super) fn message((kind, flags, to): Head, device: &NetDevice, a: &InterfaceAddress) -> Vec<u8> {
    let secondary = if a.secondary { nl::IFA_F_SECONDARY } else { 0 };
    let all_flags = nl::IFA_F_PERMANENT | secondary;
    let info = Ifaddrmsg {
        ifa_family: family_byte(a.ip),
        ifa_prefixlen: a.prefix_len,
        ifa_flags: u8::try_from(all_flags).unwrap_or(0),
        ifa_scope: a.scope,
        ifa_index: device.index,
    };
    let bytes = octets(a.ip);
    let mut m = Message::new(kind, flags, to).body(info.as_bytes()).attr(nl::IFA_ADDRESS, &bytes);
    // IPv6 has no local address of its own, and no label.
    if a.ip.is_ipv4() {
        m = m.attr(nl::IFA_LOCAL, &bytes);
        if let Some(all) = a.broadcast {
            m = m.attr(nl::IFA_BROADCAST, &all.octets());
        }
        m = m.attr_text(nl::IFA_LABEL, &device.name);
    }
    // Lifetimes without end; when it was made and changed.
    let forever = [[0xff; 4], [0xff; 4], [0; 4], [0; 4]].concat();
    m.attr_u32(nl::IFA_FLAGS, all_flags).attr(nl::IFA_CACHEINFO, &forever).finish()
}
