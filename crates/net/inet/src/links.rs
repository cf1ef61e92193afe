//! The links that a namespace begins with: its loopback, and those that were taken over for it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use moat_abi::Result;
use moat_abi::netlink as nl;
use moat_abi::socket::{IFF_LOOPBACK, IFF_UP};
use moat_identity::NetNamespace;
use moat_net_stack::configure::{IfPresent, RouteKey};
use moat_net_stack::{
    AddressConfig, Datagram, IpHeader, LinkConfig, LinkDevice, LinkKind, NetworkConfig, RouteConfig, SendError,
};

use crate::device::{LO_INDEX, LO_NAME};
use crate::stack::{NetStack, Sockets};
use crate::{configuration, raw, udp};

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

/// Whether a device is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum LinkState {
    Up,
    Down,
}

/// Gives a namespace its stack, and the links, addresses and routes that it was made with; links that have no device lose what is sent
/// over them.
pub fn add_links(
    namespace: &Arc<NetNamespace>,
    config: &NetworkConfig,
    devices: HashMap<u32, Arc<dyn LinkDevice>>,
) -> Arc<NetStack> {
    let mut config = config.clone();
    for link in &mut config.links {
        link.flags |= IFF_UP;
    }
    if config.links.iter().all(|l| l.kind != LinkKind::Loopback) {
        config.links.insert(0, loopback(LinkState::Up));
    }
    let stack = NetStack::install(namespace, &config, devices, &InetSockets);
    // Those out of an image are there before the links are.
    crate::tcp::restore::listen_on_links(namespace);
    configuration::show(namespace, &stack);
    stack
}

/// Adds a link to a namespace that runs already, with its addresses and routes as they are.
///
/// # Errors
/// EEXIST for a name that is taken; ENOBUFS for too many.
pub fn add_link(
    namespace: &Arc<NetNamespace>,
    config: &NetworkConfig,
    device: Option<Arc<dyn LinkDevice>>,
) -> Result<u32> {
    let Some(link) = config.devices().next().cloned() else { return Err(moat_abi::Errno::EINVAL) };
    configuration::change(namespace, |stack| {
        let index = stack.add_link(LinkConfig { flags: link.flags | IFF_UP, ..link }, device)?;
        stack.change(|s| {
            for route in &config.routes {
                let route = RouteConfig { link: index, ..route.clone() };
                // The connected ones are there already; others that lead nowhere here are nobody's loss.
                let _ = s.add_route(route, IfPresent::Append);
            }
        });
        Ok(index)
    })
}

/// Adds and removes routes as whoever made the namespace's links does; what is there already, or gone, is no error.
///
/// # Errors
/// EOPNOTSUPP in a namespace whose network is not the sandbox's own.
pub fn change_routes(namespace: &NetNamespace, added: Vec<RouteConfig>, removed: &[RouteConfig]) -> Result<()> {
    configuration::change(namespace, |stack| {
        stack.change(|s| {
            for route in removed {
                let _ = s.remove_route(&RouteKey {
                    destination: route.destination,
                    prefix_len: route.prefix_len,
                    table: route.table,
                    gateway: route.gateway,
                    link: Some(route.link),
                    metric: Some(route.metric),
                    kind: Some(route.kind),
                });
            }
            for route in added {
                let _ = s.add_route(route, IfPresent::Append);
            }
        });
        Ok(())
    })
}

/// Takes a link with a device away from a namespace.
///
/// # Errors
/// ENODEV.
pub fn remove_link(namespace: &Arc<NetNamespace>, index: u32) -> Result<()> {
    configuration::change(namespace, |stack| {
        if !stack.has_device(index) {
            return Err(moat_abi::Errno::ENODEV);
        }
        stack.remove_link(index)
    })
}

/// Gives a new namespace its loopback device and its stack.
pub fn add_loopback(namespace: &Arc<NetNamespace>, state: LinkState) {
    let config = NetworkConfig { links: vec![loopback(state)], ..NetworkConfig::default() };
    let stack = NetStack::install(namespace, &config, HashMap::new(), &InetSockets);
    configuration::show(namespace, &stack);
}

/// The loopback device as the stack knows it.
fn loopback(state: LinkState) -> LinkConfig {
    let host = |ip: IpAddr, prefix_len| AddressConfig { ip, prefix_len, broadcast: None, scope: nl::RT_SCOPE_HOST };
    // It gets its addresses when it comes up.
    let (flags, addresses) = match state {
        LinkState::Up => (IFF_UP, vec![host(Ipv4Addr::LOCALHOST.into(), 8), host(Ipv6Addr::LOCALHOST.into(), 128)]),
        LinkState::Down => (0, Vec::new()),
    };
    LinkConfig {
        name: LO_NAME.to_owned(),
        index: LO_INDEX,
        kind: LinkKind::Loopback,
        mac: [0; 6],
        mtu: 65536,
        flags: IFF_LOOPBACK | flags,
        queue_len: 1000,
        peer_index: None,
        driver: None,
        addresses,
    }
}
