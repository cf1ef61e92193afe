//! What follows from changes.

use super::*;
use crate::route::RT_TABLE_MAIN;
use crate::testing;
use crate::time::Time;

fn stack() -> Stack {
    Stack::new(&testing::config(1), |_| None, Time::default())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str, prefix_len: u8) -> AddressConfig {
    AddressConfig { ip: ip(text), prefix_len, broadcast: None, scope: 0 }
}

fn route(to: &str, prefix_len: u8, gateway: Option<&str>, link: u32) -> RouteConfig {
    RouteConfig {
        destination: ip(to),
        prefix_len,
        gateway: gateway.map(ip),
        link,
        preferred_source: None,
        metric: 0,
        scope: 0,
        protocol: 3,
        table: RT_TABLE_MAIN,
        kind: RouteKind::Unicast,
        on_link: false,
        mtu: None,
    }
}

#[test]
fn an_address_brings_its_network_and_takes_it_along() {
    let mut s = stack();
    let far = ip("192.0.2.9");
    assert_eq!(s.path(far, None, None).unwrap().next_hop, ip("10.1.0.254"));
    s.add_address(2, address("192.0.2.1", 24)).unwrap();
    assert_eq!(s.add_address(2, address("192.0.2.1", 24)), Err(Errno::EEXIST));
    let near = s.path(far, None, None).unwrap();
    assert_eq!((near.next_hop, near.source), (far, ip("192.0.2.1")));
    assert!(s.routes().is_local(ip("192.0.2.1")));
    s.add_address(2, address("192.0.2.2", 24)).unwrap();
    s.remove_address(2, ip("192.0.2.1"), Some(24)).unwrap();
    assert!(!s.routes().is_local(ip("192.0.2.2")), "a secondary address goes with its primary one");
    assert_eq!(s.path(far, None, None).unwrap().next_hop, ip("10.1.0.254"));
    assert_eq!(s.remove_address(2, ip("192.0.2.1"), None), Err(Errno::EADDRNOTAVAIL));
}

#[test]
fn a_gateway_must_be_on_a_link() {
    let mut s = stack();
    assert_eq!(
        s.add_route(route("198.51.100.0", 24, Some("203.0.113.1"), 0), IfPresent::Refuse),
        Err(Errno::ENETUNREACH)
    );
    assert_eq!(s.add_route(route("198.51.100.1", 24, None, 2), IfPresent::Refuse), Err(Errno::EINVAL));
    s.add_route(route("198.51.100.0", 24, Some("10.1.0.7"), 0), IfPresent::Refuse).unwrap();
    assert_eq!(s.path(ip("198.51.100.3"), None, None).unwrap().next_hop, ip("10.1.0.7"));
    let again = route("198.51.100.0", 24, Some("10.1.0.8"), 2);
    assert_eq!(s.add_route(again.clone(), IfPresent::Refuse), Err(Errno::EEXIST));
    s.add_route(again, IfPresent::Replace { create: false }).unwrap();
    assert_eq!(s.path(ip("198.51.100.3"), None, None).unwrap().next_hop, ip("10.1.0.8"));
    let key = RouteKey {
        destination: ip("198.51.100.0"),
        prefix_len: 24,
        table: RT_TABLE_MAIN,
        gateway: None,
        link: None,
        metric: None,
        kind: None,
    };
    assert_eq!((s.remove_route(&key), s.remove_route(&key)), (Ok(()), Err(Errno::ESRCH)));
}

#[test]
fn a_link_that_goes_down_takes_its_routes() {
    let mut s = stack();
    s.set_link_down(2).unwrap();
    assert_eq!(s.path(ip("10.1.0.9"), None, None), Err(Errno::ENETUNREACH));
    assert!(!s.routes().is_local(ip("10.1.0.1")) && !s.routes().is_local(ip("fd00::1")));
    assert_eq!(s.add_route(route("0.0.0.0", 0, None, 2), IfPresent::Refuse), Err(Errno::ENETDOWN));
    s.set_link_up(2).unwrap();
    assert_eq!(s.path(ip("10.1.0.9"), None, None).unwrap().source, ip("10.1.0.1"));
    assert!(s.routes().is_local(ip("fe80::ff:fe00:1")), "{:?}", s.routes().links());
    assert_eq!(s.path(ip("192.0.2.1"), None, None), Err(Errno::ENETUNREACH), "the default route does not come back");
}

#[test]
fn links_have_numbers_of_their_own() {
    let mut s = stack();
    let dummy = |name: &str| LinkConfig {
        name: name.into(),
        index: 0,
        kind: LinkKind::EthernetNoArp,
        mac: [2; 6],
        mtu: 1500,
        flags: 0,
        queue_len: 1000,
        peer_index: None,
        driver: Some("dummy".into()),
        addresses: Vec::new(),
    };
    let first = s.add_link(dummy("d0"), None).unwrap();
    assert_eq!(s.add_link(dummy("d0"), None), Err(Errno::EEXIST));
    s.remove_link(first).unwrap();
    let second = s.add_link(dummy("d0"), None).unwrap();
    assert_eq!((first, second), (3, 4), "no number comes twice");
    assert_eq!((s.remove_link(1), s.remove_link(first)), (Err(Errno::EOPNOTSUPP), Err(Errno::ENODEV)));
}

#[test]
fn the_same_route_is_not_appended_twice() {
    let mut s = stack();
    let (first, second) =
        (route("198.51.100.0", 24, Some("10.1.0.253"), 2), route("198.51.100.0", 24, Some("10.1.0.252"), 2));
    assert_eq!(s.add_route(first.clone(), IfPresent::Append), Ok(()));
    assert_eq!(s.add_route(second.clone(), IfPresent::Append), Ok(()));
    for again in [first, second] {
        assert_eq!(s.add_route(again, IfPresent::Append), Err(Errno::EEXIST));
    }
}

#[test]
fn routes_of_one_metric_stand_in_their_order() {
    let mut s = stack();
    let to = |gateway: &str, metric| RouteConfig { metric, ..route("198.51.100.0", 24, Some(gateway), 2) };
    s.add_route(to("10.1.0.3", 0), IfPresent::Refuse).unwrap();
    s.add_route(to("10.1.0.9", 5), IfPresent::Refuse).unwrap();
    s.add_route(to("10.1.0.4", 0), IfPresent::Append).unwrap();
    s.add_route(to("10.1.0.2", 0), IfPresent::Prepend).unwrap();
    let hop = |s: &Stack| s.path(ip("198.51.100.7"), None, None).unwrap().next_hop;
    assert_eq!(hop(&s), ip("10.1.0.2"));
    s.add_route(to("10.1.0.77", 0), IfPresent::Replace { create: false }).unwrap();
    assert_eq!(hop(&s), ip("10.1.0.77"));
    let order: Vec<_> = s.routes().routes().iter().filter(|r| r.prefix_len == 24).filter_map(|r| r.gateway).collect();
    assert_eq!(order, ["10.1.0.77", "10.1.0.3", "10.1.0.4", "10.1.0.9"].map(ip));
    assert_eq!(s.add_route(to("10.1.0.4", 0), IfPresent::Replace { create: false }), Err(Errno::EEXIST));
}
