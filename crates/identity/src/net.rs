//! [`NetNamespace`]: network devices with their addresses, routes and settings. Source: network_namespaces(7).
//!
//! What a protocol keeps (ports, abstract names, lists for /proc/net) is in [`NetNamespace::extensions`].

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_sync::{LockClass, RwLock};

use crate::extensions::Extensions;
use crate::quota::{Charge, NamespaceId};
use crate::setting::Setting;
use crate::tcp::TcpSettings;
use crate::user_ns::UserNamespace;

/// A network namespace.
pub struct NetNamespace {
    /// The inode number of `/proc/PID/ns/net`.
    pub id: u64,
    /// The user namespace whose capabilities rule here.
    pub user_ns: Arc<UserNamespace>,
    /// Its settings in /proc/sys/net.
    pub settings: NetSettings,
    /// What the protocols keep with it.
    pub extensions: Extensions,
    view: RwLock<NetView>,
    loopback_up: AtomicBool,
    /// What it counts as.
    _charge: Option<Charge>,
}

/// What is shown of a namespace's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetView {
    /// The devices, in the order of their making.
    pub devices: Vec<NetDevice>,
    /// The routes of all tables, in the order of their making.
    pub routes: Vec<Route>,
}

/// A network device (`struct net_device`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Its number, from 1.
    pub index: u32,
    /// `IFF_*`.
    pub flags: u32,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// Packets that wait to be sent, at most.
    pub queue_len: u32,
    /// `ARPHRD_*`.
    pub hardware_type: u16,
    /// Its address on the link.
    pub address: [u8; 6],
    /// `IFLA_INFO_KIND` ("veth", "dummy"), if it has one.
    pub driver: Option<String>,
    /// The number of its other end, or of the device below, if it has one (`IFLA_LINK`).
    pub peer: Option<u32>,
    /// Its IP addresses.
    pub addresses: Vec<InterfaceAddress>,
}

/// An IP address of a device (`struct in_ifaddr`, `struct inet6_ifaddr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub ip: IpAddr,
    /// Bits of its network.
    pub prefix_len: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// The address of all hosts of its network, if it has one.
    pub broadcast: Option<Ipv4Addr>,
    /// Another address of the same network came first (`IFA_F_SECONDARY`).
    pub secondary: bool,
}

/// An entry of a routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// The network that it leads to.
    pub destination: IpAddr,
    /// Bits of that network.
    pub prefix_len: u8,
    /// `RT_TABLE_*`.
    pub table: u32,
    /// `RTN_*`.
    pub kind: u8,
    /// `RT_SCOPE_*`.
    pub scope: u8,
    /// `RTPROT_*`.
    pub protocol: u8,
    /// The number of the device that it leads through.
    pub device: u32,
    /// The next hop, if it is not the destination itself.
    pub gateway: Option<IpAddr>,
    /// The address that packets are sent from.
    pub source: Option<IpAddr>,
    /// Lower ones are preferred.
    pub metric: u32,
}

/// Settings of /proc/sys/net that have an effect.
pub struct NetSettings {
    /// Ports below take CAP_NET_BIND_SERVICE (`net.ipv4.ip_unprivileged_port_start`).
    pub first_unprivileged_port: Setting,
    /// The first port of those that bind(2) chooses (`net.ipv4.ip_local_port_range`).
    pub first_local_port: Setting,
    /// The last of them.
    pub last_local_port: Setting,
    /// The first group whose members may make sockets of ping (`net.ipv4.ping_group_range`).
    pub first_ping_group: Setting,
    /// The last of them; below the first, nobody may.
    pub last_ping_group: Setting,
    /// Greatest length of a queue of connections that wait to be accepted (`net.core.somaxconn`).
    pub max_backlog: Setting,
    /// Those of TCP.
    pub tcp: TcpSettings,
}

/// The largest value of most settings.
const MOST: u64 = 0x7fff_ffff;

impl Default for NetSettings {
    fn default() -> NetSettings {
        NetSettings {
            first_unprivileged_port: Setting::new(1024, 0, 65535),
            first_local_port: Setting::new(32768, 1, 65535),
            last_local_port: Setting::new(60999, 1, 65535),
            // The first above the last: nobody may.
            first_ping_group: Setting::new(1, 0, MOST),
            last_ping_group: Setting::new(0, 0, MOST),
            max_backlog: Setting::new(4096, 0, MOST),
            tcp: TcpSettings::default(),
        }
    }
}

impl NetNamespace {
    /// A namespace without devices.
    #[must_use]
    pub fn new(id: impl Into<NamespaceId>, user_ns: Arc<UserNamespace>) -> Arc<NetNamespace> {
        let NamespaceId { number: id, charge } = id.into();
        Arc::new(NetNamespace {
            id,
            user_ns,
            settings: NetSettings::default(),
            extensions: Extensions::default(),
            view: RwLock::new(LockClass::Table, NetView::default()),
            loopback_up: AtomicBool::new(false),
            _charge: charge,
        })
    }

    /// Shows another configuration from here on; gives the old one. `loopback_up`: whether the loopback device is up.
    pub fn show(&self, view: NetView, loopback_up: bool) -> NetView {
        let old = std::mem::replace(&mut *self.view.write(), view);
        self.loopback_up.store(loopback_up, Ordering::Release);
        old
    }

    /// Whether the loopback device is up: else its addresses are nobody's.
    #[must_use]
    pub fn is_loopback_up(&self) -> bool {
        self.loopback_up.load(Ordering::Acquire)
    }

    /// The devices, in the order of their making.
    #[must_use]
    pub fn devices(&self) -> Vec<NetDevice> {
        self.view.read().devices.clone()
    }

    /// The device of a number.
    #[must_use]
    pub fn device(&self, index: u32) -> Option<NetDevice> {
        self.view.read().devices.iter().find(|d| d.index == index).cloned()
    }

    /// The routes, in the order of their making.
    #[must_use]
    pub fn routes(&self) -> Vec<Route> {
        self.view.read().routes.clone()
    }
}
