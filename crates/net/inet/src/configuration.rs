//! Changes of a namespace's links, addresses, routes and neighbours, one at a time (Linux: `rtnl_mutex`), and who is told of them.
//!
//! The stack has the configuration; what the namespace shows of it is made anew after each change, and the difference is what
//! observers are told.

use std::net::IpAddr;
use std::sync::Weak;

use moat_abi::netlink as nl;
use moat_abi::socket::{IFF_LOWER_UP, IFF_RUNNING, IFF_UP};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_identity::net::{InterfaceAddress, NetDevice, NetView, Route};
use moat_net_stack::route::{broadcast_of, network_of};
use moat_net_stack::{LinkConfig, LinkKind, RouteConfig, RouteKind};
use moat_sync::{LockClass, Mutex, WeakList};

use crate::stack::{NetStack, stack_of};

/// One difference between two configurations.
#[derive(Clone, Debug)]
#[allow(missing_docs)]
pub enum Change {
    Link(NetDevice),
    LinkGone(NetDevice),
    Address(NetDevice, InterfaceAddress),
    AddressGone(NetDevice, InterfaceAddress),
    Route(Route),
    RouteGone(Route),
}

/// Who wants to know of changes.
pub trait Observer: Send + Sync {
    /// The configuration of its namespace has changed. Called with no lock of the network.
    fn changed(&self, net: &NetNamespace, changes: &[Change]);
}

/// What a namespace keeps about its configuration.
struct Configuration {
    changing: Mutex<()>,
    observers: WeakList<dyn Observer>,
}

impl Default for Configuration {
    fn default() -> Configuration {
        Configuration { changing: Mutex::new(LockClass::NetConfiguration, ()), observers: WeakList::default() }
    }
}

/// Tells `observer` of changes of a namespace, for as long as it lives.
pub fn observe(net: &NetNamespace, observer: Weak<dyn Observer>) {
    net.extensions.get_or_init(Configuration::default).observers.add(observer);
}

/// Changes the configuration of a namespace. Not with a socket's state locked.
///
/// # Errors
/// Those of `f`; EOPNOTSUPP in a namespace whose network is not the sandbox's own.
pub fn change<R>(net: &NetNamespace, f: impl FnOnce(&NetStack) -> Result<R>) -> Result<R> {
    let stack = stack_of(net).ok_or(Errno::EOPNOTSUPP)?;
    let configuration = net.extensions.get_or_init(Configuration::default);
    let (result, changes) = {
        // One change at a time, with what is shown after it: observers are told in the order in which things happened.
        let _one = configuration.changing.lock();
        let result = f(&stack);
        (result, show(net, &stack))
    };
    stack.settle();
    if !changes.is_empty() {
        // With nothing locked: they look at the namespace.
        configuration.observers.alive().iter().for_each(|o| o.changed(net, &changes));
    }
    result
}

/// Shows what the stack has; gives the differences to what was shown before.
pub(crate) fn show(net: &NetNamespace, stack: &NetStack) -> Vec<Change> {
    let (view, loopback_up) = stack.change(|s| {
        let links = s.routes().links();
        let devices: Vec<NetDevice> = links.iter().map(device).collect();
        let local = links.iter().filter(|l| l.flags & IFF_UP != 0).flat_map(local_routes);
        let routes = local.chain(s.routes().routes().iter().map(route)).collect();
        let up = links.iter().any(|l| l.kind == LinkKind::Loopback && l.flags & IFF_UP != 0);
        (NetView { devices, routes }, up)
    });
    let old = net.show(view.clone(), loopback_up);
    differences(&old, &view)
}

fn device(link: &LinkConfig) -> NetDevice {
    let up = if link.flags & IFF_UP == 0 { 0 } else { IFF_UP | IFF_RUNNING | IFF_LOWER_UP };
    NetDevice {
        name: link.name.clone(),
        index: link.index,
        flags: (link.flags & !(IFF_UP | IFF_RUNNING | IFF_LOWER_UP)) | up,
        mtu: link.mtu,
        queue_len: link.queue_len,
        hardware_type: if link.kind == LinkKind::Loopback { nl::ARPHRD_LOOPBACK } else { nl::ARPHRD_ETHER },
        address: link.mac,
        driver: link.driver.clone(),
        peer: link.peer_index,
        addresses: addresses(link),
    }
}

fn addresses(link: &LinkConfig) -> Vec<InterfaceAddress> {
    let mut out: Vec<InterfaceAddress> = Vec::new();
    for a in &link.addresses {
        let network = network_of(a.ip, a.prefix_len);
        let same = |o: &InterfaceAddress| o.prefix_len == a.prefix_len && network_of(o.ip, o.prefix_len) == network;
        out.push(InterfaceAddress {
            ip: a.ip,
            prefix_len: a.prefix_len,
            scope: a.scope,
            broadcast: a.broadcast,
            // The first address of a network is its primary one, and takes the others along when it goes (`ifa_list`).
            secondary: a.ip.is_ipv4() && out.iter().any(same),
        });
    }
    out
}

/// The entries of the table `local` that follow from a link's addresses.
fn local_routes(link: &LinkConfig) -> Vec<Route> {
    let mut out = Vec::new();
    let entry = |destination: IpAddr, prefix_len, kind, source| Route {
        destination,
        prefix_len,
        table: u32::from(nl::RT_TABLE_LOCAL),
        kind,
        scope: match (destination, kind) {
            (IpAddr::V6(_), _) => nl::RT_SCOPE_UNIVERSE,
            (_, nl::RTN_LOCAL) => nl::RT_SCOPE_HOST,
            _ => nl::RT_SCOPE_LINK,
        },
        protocol: nl::RTPROT_KERNEL,
        device: link.index,
        gateway: None,
        source,
        metric: 0,
    };
    for a in &link.addresses {
        if a.ip.is_ipv6() {
            out.push(entry(a.ip, 128, nl::RTN_LOCAL, None));
            continue;
        }
        // All of 127.0.0.0/8 is this machine, not only the address that was given (`fib_add_ifaddr`).
        if link.kind == LinkKind::Loopback && a.prefix_len < 32 {
            out.push(entry(network_of(a.ip, a.prefix_len), a.prefix_len, nl::RTN_LOCAL, Some(a.ip)));
        }
        out.push(entry(a.ip, 32, nl::RTN_LOCAL, Some(a.ip)));
        if let Some(all) = a.broadcast.or_else(|| broadcast_of(a.ip, a.prefix_len)) {
            out.push(entry(all.into(), 32, nl::RTN_BROADCAST, Some(a.ip)));
        }
    }
    out
}

fn route(r: &RouteConfig) -> Route {
    Route {
        destination: r.destination,
        prefix_len: r.prefix_len,
        table: r.table,
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
    }
}

fn differences(old: &NetView, new: &NetView) -> Vec<Change> {
    let mut out = Vec::new();
    // In the order of causes: what goes is told from routes to links, what comes from links to routes.
    for r in old.routes.iter().filter(|r| !new.routes.contains(r)) {
        out.push(Change::RouteGone(*r));
    }
    for before in &old.devices {
        let after = new.devices.iter().find(|d| d.index == before.index);
        let left = after.map(|d| &d.addresses[..]).unwrap_or_default();
        for a in before.addresses.iter().filter(|a| !left.iter().any(|l| (l.ip, l.prefix_len) == (a.ip, a.prefix_len)))
        {
            out.push(Change::AddressGone(before.clone(), *a));
        }
        if after.is_none() {
            out.push(Change::LinkGone(before.clone()));
        }
    }
    for after in &new.devices {
        let before = old.devices.iter().find(|d| d.index == after.index);
        // Addresses are told of by themselves.
        let bare = |d: &NetDevice| NetDevice { addresses: Vec::new(), ..d.clone() };
        if before.is_none_or(|b| bare(b) != bare(after)) {
            out.push(Change::Link(after.clone()));
        }
        let had = before.map(|d| &d.addresses[..]).unwrap_or_default();
        for a in after.addresses.iter().filter(|a| !had.contains(a)) {
            out.push(Change::Address(after.clone(), *a));
        }
    }
    for r in new.routes.iter().filter(|r| !old.routes.contains(r)) {
        out.push(Change::Route(*r));
    }
    out
}
