//! What the tests share: a namespace with one link.

use crate::config::{AddressConfig, LinkConfig, LinkKind, NetworkConfig, RouteConfig, RouteKind};

fn address(ip: &str, prefix_len: u8, scope: u8) -> AddressConfig {
    AddressConfig { ip: ip.parse().unwrap(), prefix_len, broadcast: None, scope }
}

fn route(destination: &str, prefix_len: u8, gateway: Option<&str>) -> RouteConfig {
    RouteConfig {
        destination: destination.parse().unwrap(),
        prefix_len,
        gateway: gateway.map(|g| g.parse().unwrap()),
        link: 2,
        preferred_source: None,
        metric: 0,
        scope: if gateway.is_some() { 0 } else { 253 },
        protocol: 2,
        table: 254,
        kind: RouteKind::Unicast,
        on_link: false,
        mtu: None,
    }
}

/// Host number `host` of 10.1.0.0/16, fd00::/64 and fe80::/64, with a gateway.
pub(crate) fn config(host: u8) -> NetworkConfig {
    let lo = LinkConfig {
        name: "lo".into(),
        index: 1,
        kind: LinkKind::Loopback,
        mac: [0; 6],
        mtu: 65536,
        flags: 0x49,
        queue_len: 1000,
        peer_index: None,
        driver: None,
        addresses: vec![address("127.0.0.1", 8, 254), address("::1", 128, 254)],
    };
    let eth0 = LinkConfig {
        name: "eth0".into(),
        index: 2,
        kind: LinkKind::Ethernet,
        mac: [2, 0, 0, 0, 0, host],
        mtu: 1500,
        addresses: vec![
            address(&format!("10.1.0.{host}"), 16, 0),
            address(&format!("fd00::{host}"), 64, 0),
            address(&format!("fe80::{host}"), 64, 253),
        ],
        ..lo.clone()
    };
    NetworkConfig {
        links: vec![lo, eth0],
        routes: vec![
            route("10.1.0.0", 16, None),
            route("0.0.0.0", 0, Some("10.1.0.254")),
            route("fd00::", 64, None),
            route("fe80::", 64, None),
        ],
        neighbours: Vec::new(),
    }
}
