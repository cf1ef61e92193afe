//! The links that a namespace gets beside its loopback, with the stack that serves them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use moat_abi::netlink as nl;
use moat_abi::socket::{IFF_LOWER_UP, IFF_RUNNING, IFF_UP};
use moat_identity::NetNamespace;
use moat_identity::net::{InterfaceAddress, NetDevice, Route};
use moat_net_stack::{
    AddressConfig, Datagram, IpHeader, LinkConfig, LinkDevice, LinkKind, NetworkConfig, RouteKind, SendError,
};

use crate::device::{LO_INDEX, LO_NAME};
use crate::stack::{NetStack, Sockets};
use crate::{raw, udp};

/// Takes what comes over the links to UDP's, raw and ping sockets.
struct InetSockets;

impl Sockets for InetSockets {
    fn datagram(&self, namespace: &NetNamespace, datagram: &Datagram) -> bool {
        udp::receive(namespace, datagram)
    }

    fn packet(&self, namespace: &NetNamespace, link: u32, header: &IpHeader, packet: &[u8], payload_at: usize) {
        raw::receive(namespace, link, header, packet, payload_at);
    }

    fn error(&self, namespace: &NetNamespace, error: &SendError) {
        udp::receive_error(namespace, error);
        raw::receive_error(namespace, error);
    }
}

/// Gives a namespace its stack, and the links, addresses and routes that it was made with. Its loopback device is there already;
/// links that have no device lose what is sent over them.
pub fn add_links(
    namespace: &Arc<NetNamespace>,
    config: &NetworkConfig,
    devices: HashMap<u32, Arc<dyn LinkDevice>>,
) -> Arc<NetStack> {
    for link in config.links.iter().filter(|l| l.kind != LinkKind::Loopback) {
        // The links are configured and running from the start: a guest cannot bring them up.
        namespace.add_device(NetDevice {
            name: link.name.clone(),
            index: link.index,
            flags: link.flags | IFF_UP | IFF_RUNNING | IFF_LOWER_UP,
            mtu: link.mtu,
            queue_len: link.queue_len,
            hardware_type: nl::ARPHRD_ETHER,
            address: link.mac,
            addresses: link
                .addresses
                .iter()
                .map(|a| InterfaceAddress { ip: a.ip, prefix_len: a.prefix_len, scope: a.scope })
                .collect(),
        });
        for a in &link.addresses {
            // As the kernel adds one to the local table for each address.
            namespace.add_route(Route {
                destination: a.ip,
                prefix_len: if a.ip.is_ipv4() { 32 } else { 128 },
                table: nl::RT_TABLE_LOCAL,
                kind: nl::RTN_LOCAL,
                scope: nl::RT_SCOPE_HOST,
                protocol: nl::RTPROT_KERNEL,
                device: link.index,
                gateway: None,
                source: a.ip.is_ipv4().then_some(a.ip),
                metric: 0,
            });
        }
    }
    for r in &config.routes {
        namespace.add_route(Route {
            destination: r.destination,
            prefix_len: r.prefix_len,
            table: u8::try_from(r.table).unwrap_or(nl::RT_TABLE_MAIN),
            kind: match r.kind {
                RouteKind::Unicast => nl::RTN_UNICAST,
                RouteKind::Blackhole => nl::RTN_BLACKHOLE,
                RouteKind::Unreachable => nl::RTN_UNREACHABLE,
                RouteKind::Prohibit => nl::RTN_PROHIBIT,
            },
            scope: r.scope,
            protocol: r.protocol,
            device: r.link,
            gateway: r.gateway,
            source: r.preferred_source,
            metric: r.metric,
        });
    }
    let mut config = config.clone();
    // The configuration may leave the loopback out; the stack needs it for own addresses.
    if config.links.iter().all(|l| l.kind != LinkKind::Loopback) {
        config.links.insert(0, loopback());
    }
    NetStack::install(namespace, &config, devices, &InetSockets)
}

/// The loopback device as the stack knows it.
fn loopback() -> LinkConfig {
    let host = |ip: IpAddr, prefix_len| AddressConfig { ip, prefix_len, broadcast: None, scope: nl::RT_SCOPE_HOST };
    LinkConfig {
        name: LO_NAME.to_owned(),
        index: LO_INDEX,
        kind: LinkKind::Loopback,
        mac: [0; 6],
        mtu: 65536,
        flags: 0,
        queue_len: 1000,
        peer_index: None,
        driver: None,
        addresses: vec![host(Ipv4Addr::LOCALHOST.into(), 8), host(Ipv6Addr::LOCALHOST.into(), 128)],
    }
}

/// A namespace with nothing but the loopback, whose stack serves raw sockets and ping.
pub fn add_loopback_stack(namespace: &Arc<NetNamespace>) {
    let config = NetworkConfig { links: vec![loopback()], ..NetworkConfig::default() };
    NetStack::install(namespace, &config, HashMap::new(), &InetSockets);
}
