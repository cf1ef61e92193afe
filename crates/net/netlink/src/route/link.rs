//! Links: RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK, RTM_SETLINK, RTM_GETQDISC.

use moat_abi::netlink as nl;
use moat_abi::netlink::{Ifinfomsg, NLM_F_CREATE, NLM_F_EXCL, Tcmsg};
use moat_abi::socket::{IFF_BROADCAST, IFF_LOOPBACK, IFF_NOARP, IFF_RUNNING, IFF_UP, IFNAMSIZ};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_identity::net::NetDevice;
use moat_net_inet::configuration;
use moat_net_inet::stack::{NetStack, stack_of};
use moat_net_stack::{LinkConfig, LinkKind};
use zerocopy::IntoBytes;

use super::{Head, device_number};
use crate::message::{Attributes, Message, number, parse, text};
use crate::socket::Request;

/// The smallest and largest MTU of devices without a link (`ETH_MIN_MTU`, `ETH_MAX_MTU`).
const MTU: std::ops::RangeInclusive<u32> = 68..=65535;

/// What a request says of a link.
#[derive(Default)]
struct Wanted<'a> {
    info: Ifinfomsg,
    name: Option<String>,
    mtu: Option<u32>,
    queue_len: Option<u32>,
    address: Option<[u8; 6]>,
    kind: Option<&'a [u8]>,
    /// An attribute that asks for what there is not: a master, another namespace.
    unsupported: bool,
}

/// A name that a device may have (`dev_valid_name`).
fn valid_name(name: &[u8]) -> Result<String> {
    let fine = !name.is_empty()
        && name.len() < IFNAMSIZ
        && name != b"."
        && name != b".."
        && !name.iter().any(|b| *b == b'/' || *b == b':' || b.is_ascii_whitespace());
    let text = std::str::from_utf8(name).ok().filter(|_| fine);
    text.map(str::to_owned).ok_or(Errno::EINVAL)
}

impl<'a> Wanted<'a> {
    fn parse(body: &'a [u8]) -> Result<Wanted<'a>> {
        let (info, attributes) = parse::<Ifinfomsg>(body)?;
        let mut w = Wanted { info, ..Wanted::default() };
        for (kind, value) in attributes {
            match kind {
                nl::IFLA_IFNAME => w.name = Some(valid_name(text(value))?),
                nl::IFLA_MTU => w.mtu = Some(number(value)?),
                nl::IFLA_TXQLEN => w.queue_len = Some(number(value)?),
                nl::IFLA_ADDRESS => w.address = Some(value.try_into().map_err(|_| Errno::EINVAL)?),
                nl::IFLA_LINKINFO => {
                    w.kind = Attributes(value).find(|(k, _)| *k == nl::IFLA_INFO_KIND).map(|(_, v)| text(v));
                }
                nl::IFLA_MASTER => w.unsupported |= number(value)? != 0,
                nl::IFLA_NET_NS_PID | nl::IFLA_NET_NS_FD => w.unsupported = true,
                _ => {}
            }
        }
        Ok(w)
    }

    /// The device that is meant, by number or else by name.
    fn device(&self, devices: &[NetDevice]) -> Option<NetDevice> {
        let found = match self.info.ifi_index {
            0 => devices.iter().find(|d| self.name.as_deref() == Some(&d.name)),
            index => devices.iter().find(|d| d.index.cast_signed() == index),
        };
        found.cloned()
    }
}

/// RTM_GETLINK of one link.
pub(super) fn get(request: &Request<'_>) -> Result<Vec<u8>> {
    let wanted = Wanted::parse(request.body)?;
    let device = wanted.device(&request.net.devices()).ok_or(Errno::ENODEV)?;
    Ok(message(request.net, (nl::RTM_NEWLINK, 0, request.to), &device))
}

/// RTM_NEWLINK, RTM_SETLINK.
///
/// # Errors
/// ENODEV; EEXIST; EINVAL; EBUSY; EOPNOTSUPP for kinds and attributes that there are not.
pub(super) fn set(request: &Request<'_>) -> Result<()> {
    let wanted = Wanted::parse(request.body)?;
    if wanted.unsupported {
        return Err(Errno::EOPNOTSUPP);
    }
    let flags = request.header.nlmsg_flags;
    configuration::change(request.net, |stack| match wanted.device(&request.net.devices()) {
        Some(_) if flags & (NLM_F_CREATE | NLM_F_EXCL) == NLM_F_CREATE | NLM_F_EXCL => Err(Errno::EEXIST),
        Some(device) => change(stack, &device, &wanted),
        None if request.header.nlmsg_type == nl::RTM_NEWLINK && flags & NLM_F_CREATE != 0 => create(stack, &wanted),
        None => Err(Errno::ENODEV),
    })
}

fn change(stack: &NetStack, device: &NetDevice, wanted: &Wanted<'_>) -> Result<()> {
    let loopback = device.flags & IFF_LOOPBACK != 0;
    if let Some(mtu) = wanted.mtu {
        // What is beyond the MTU of a link's device would be lost there.
        let most = if stack.has_device(device.index) { device.mtu } else { *MTU.end() };
        if !loopback && !(*MTU.start()..=most).contains(&mtu) {
            return Err(Errno::EINVAL);
        }
    }
    if wanted.address.is_some_and(|a| a != device.address) && (loopback || stack.has_device(device.index)) {
        return Err(Errno::EOPNOTSUPP);
    }
    let renamed = wanted.name.as_ref().is_some_and(|n| *n != device.name);
    if renamed && device.flags & IFF_UP != 0 {
        return Err(Errno::EBUSY);
    }
    stack.change(|s| {
        s.change_link(device.index, |link| {
            if let Some(name) = &wanted.name {
                link.name.clone_from(name);
            }
            link.mtu = wanted.mtu.unwrap_or(link.mtu);
            link.queue_len = wanted.queue_len.unwrap_or(link.queue_len);
            link.mac = wanted.address.unwrap_or(link.mac);
        })?;
        // Without a mask all flags are meant (`rtnl_dev_combine_flags`).
        let mask = if wanted.info.ifi_change == 0 { u32::MAX } else { wanted.info.ifi_change };
        let asked = wanted.info.ifi_flags != 0 || wanted.info.ifi_change != 0;
        match (asked && mask & IFF_UP != 0, wanted.info.ifi_flags & IFF_UP) {
            (true, 0) => s.set_link_down(device.index),
            (true, _) => s.set_link_up(device.index),
            _ => Ok(()),
        }
    })
}

/// Makes a dummy device, the only kind that there is.
fn create(stack: &NetStack, wanted: &Wanted<'_>) -> Result<()> {
    // The only kind that needs nothing of the host.
    if wanted.kind != Some(b"dummy") {
        return Err(Errno::EOPNOTSUPP);
    }
    let mtu = wanted.mtu.unwrap_or(1500);
    if !MTU.contains(&mtu) {
        return Err(Errno::EINVAL);
    }
    let index = device_number(wanted.info.ifi_index)?;
    let name = match &wanted.name {
        Some(name) => name.clone(),
        None => free_name(stack, "dummy"),
    };
    let link = LinkConfig {
        name,
        index,
        kind: LinkKind::EthernetNoArp,
        mac: wanted.address.unwrap_or_else(|| stack.change(|s| s.random_mac())),
        mtu,
        flags: IFF_BROADCAST | IFF_NOARP | (wanted.info.ifi_flags & IFF_UP),
        queue_len: wanted.queue_len.unwrap_or(1000),
        peer_index: None,
        driver: Some("dummy".to_owned()),
        addresses: Vec::new(),
    };
    stack.add_link(link, None).map(|_| ())
}

/// The first name of a kind that is free (`dev_alloc_name`).
fn free_name(stack: &NetStack, kind: &str) -> String {
    let taken: Vec<String> = stack.change(|s| s.routes().links().iter().map(|l| l.name.clone()).collect());
    let mut names = (0u32..).map(|n| format!("{kind}{n}"));
    names.find(|n| !taken.contains(n)).unwrap_or_default()
}

/// RTM_DELLINK.
///
/// # Errors
/// ENODEV; EOPNOTSUPP for the loopback.
pub(super) fn delete(request: &Request<'_>) -> Result<()> {
    let wanted = Wanted::parse(request.body)?;
    configuration::change(request.net, |stack| {
        let device = wanted.device(&request.net.devices()).ok_or(Errno::ENODEV)?;
        stack.remove_link(device.index)
    })
}

/// A link.
pub(super) fn message(net: &NetNamespace, (kind, flags, to): Head, device: &NetDevice) -> Vec<u8> {
    let counters = stack_of(net).map(|s| s.change(|s| s.counters(device.index))).unwrap_or_default();
    let all = [
        counters.received_packets,
        counters.sent_packets,
        counters.received_bytes,
        counters.sent_bytes,
        0,
        0,
        counters.received_dropped,
        counters.sent_dropped,
        counters.multicast,
    ];
    let mut long = [0; 192];
    let mut short = [0; 96];
    for (to, n) in long.chunks_exact_mut(8).zip(all) {
        to.copy_from_slice(&n.to_ne_bytes());
    }
    for (to, n) in short.chunks_exact_mut(4).zip(all) {
        let [a, b, c, d, ..] = n.to_ne_bytes();
        to.copy_from_slice(&[a, b, c, d]);
    }
    // The broadcast address of the link.
    let everybody = if device.flags & IFF_LOOPBACK != 0 { [0; 6] } else { [0xff; 6] };
    let info = Ifinfomsg {
        ifi_type: device.hardware_type,
        ifi_index: device.index.cast_signed(),
        ifi_flags: device.flags,
        ..Ifinfomsg::default()
    };
    let state = match device.flags & IFF_RUNNING {
        0 => nl::IF_OPER_DOWN,
        // Devices without a carrier of their own don't know.
        _ if device.flags & (IFF_LOOPBACK | IFF_NOARP) != 0 => nl::IF_OPER_UNKNOWN,
        _ => nl::IF_OPER_UP,
    };
    let mut m = Message::new(kind, flags, to)
        .body(info.as_bytes())
        .attr_text(nl::IFLA_IFNAME, &device.name)
        .attr_u32(nl::IFLA_TXQLEN, device.queue_len)
        .attr(nl::IFLA_OPERSTATE, &[state])
        .attr(nl::IFLA_LINKMODE, &[0])
        .attr_u32(nl::IFLA_MTU, device.mtu)
        .attr_u32(nl::IFLA_GROUP, 0)
        .attr_u32(nl::IFLA_NUM_TX_QUEUES, 1)
        .attr_u32(nl::IFLA_NUM_RX_QUEUES, 1)
        .attr(nl::IFLA_CARRIER, &[1])
        .attr_text(nl::IFLA_QDISC, "noqueue")
        .attr(nl::IFLA_ADDRESS, &device.address)
        .attr(nl::IFLA_BROADCAST, &everybody);
    if let Some(peer) = device.peer {
        m = m.attr_u32(nl::IFLA_LINK, peer);
    }
    if let Some(driver) = &device.driver {
        m = m.attr_nested_text(nl::IFLA_LINKINFO, nl::IFLA_INFO_KIND, driver);
    }
    m.attr(nl::IFLA_STATS64, &long).attr(nl::IFLA_STATS, &short).finish()
}

/// The queueing discipline of a device: none.
pub(super) fn discipline((kind, flags, to): Head, device: &NetDevice) -> Vec<u8> {
    let info = Tcmsg {
        tcm_ifindex: device.index.cast_signed(),
        tcm_parent: nl::TC_H_ROOT,
        // References to it.
        tcm_info: 2,
        ..Tcmsg::default()
    };
    Message::new(kind, flags, to).body(info.as_bytes()).attr_text(nl::TCA_KIND, "noqueue").finish()
}
