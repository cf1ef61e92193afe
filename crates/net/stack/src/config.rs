//! [`NetworkConfig`]: the interfaces of a network namespace as plain data.
//!
//! Whoever sets a sandbox up reads it by rtnetlink(7) in the container's namespace; the stack begins with it. Numbers that
//! have names in Linux's headers (`RT_SCOPE_*`, `RTPROT_*`, tables) are kept as they are, so that the guest sees them again.

use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

/// All that a stack is told when it is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// The links, with the loopback if there is one.
    pub links: Vec<LinkConfig>,
    /// Routes of every table but `local`, which follows from the addresses.
    pub routes: Vec<RouteConfig>,
    /// Neighbours that are known for good (`NUD_PERMANENT`, `NUD_NOARP`).
    pub neighbours: Vec<NeighbourConfig>,
}

/// What a link is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkKind {
    /// `lo`: served in memory, without a device.
    Loopback,
    /// Frames of Ethernet, with ARP and NDISC (veth, macvlan, tap, a network card).
    Ethernet,
    /// Frames of Ethernet whose neighbours are not asked for (`IFF_NOARP`: ipvlan in L3 mode, dummy).
    EthernetNoArp,
}

/// A link (`struct ifinfomsg`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkConfig {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its number, from 1.
    pub index: u32,
    /// What it is.
    pub kind: LinkKind,
    /// Its address on the link.
    pub mac: [u8; 6],
    /// Bytes of the largest IP packet.
    pub mtu: u32,
    /// `IFF_*`, as the host had them.
    pub flags: u32,
    /// `IFLA_TXQLEN`.
    pub queue_len: u32,
    /// `IFLA_LINK`, the other end's number in its own namespace, if it has one.
    pub peer_index: Option<u32>,
    /// `IFLA_INFO_KIND` ("veth"), if it has one.
    pub driver: Option<String>,
    /// Its IP addresses, in the host's order.
    pub addresses: Vec<AddressConfig>,
}

/// An address of a link (`struct ifaddrmsg`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressConfig {
    /// The address.
    pub ip: IpAddr,
    /// Bits of its network.
    pub prefix_len: u8,
    /// `IFA_BROADCAST`, if there is one.
    pub broadcast: Option<Ipv4Addr>,
    /// `RT_SCOPE_*`.
    pub scope: u8,
}

/// What a route does with packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RouteKind {
    /// `RTN_UNICAST`: leads to a gateway or a link.
    Unicast,
    /// `RTN_BLACKHOLE`: EINVAL to the sender, nothing else.
    Blackhole,
    /// `RTN_UNREACHABLE`: EHOSTUNREACH.
    Unreachable,
    /// `RTN_PROHIBIT`: EACCES.
    Prohibit,
}

/// A route (`struct rtmsg`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteConfig {
    /// The network that it leads to; the unspecified address of its family with length 0 for the default route.
    pub destination: IpAddr,
    /// Bits of that network.
    pub prefix_len: u8,
    /// The next hop; of either family for IPv4 (RTA_VIA), `None` for on-link destinations.
    pub gateway: Option<IpAddr>,
    /// The number of the link that it leads through.
    pub link: u32,
    /// `RTA_PREFSRC`.
    pub preferred_source: Option<IpAddr>,
    /// `RTA_PRIORITY`; lower ones are preferred.
    pub metric: u32,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `RTPROT_*`.
    pub protocol: u8,
    /// `RT_TABLE_*`.
    pub table: u32,
    /// What it does.
    pub kind: RouteKind,
    /// `RTNH_F_ONLINK`: the gateway is on the link, though no route says so.
    pub on_link: bool,
    /// `RTAX_MTU`, if it has one.
    pub mtu: Option<u32>,
}

/// A neighbour that is known for good (`struct ndmsg`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourConfig {
    /// The number of its link.
    pub link: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its address on the link.
    pub mac: [u8; 6],
}

impl NetworkConfig {
    /// The link of a number.
    #[must_use]
    pub fn link(&self, index: u32) -> Option<&LinkConfig> {
        self.links.iter().find(|l| l.index == index)
    }

    /// The links whose packets go through a device of the host.
    pub fn devices(&self) -> impl Iterator<Item = &LinkConfig> {
        self.links.iter().filter(|l| l.kind != LinkKind::Loopback)
    }
}
