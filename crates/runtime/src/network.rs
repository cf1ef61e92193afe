//! Network mode `sandbox`: the interfaces of the sandbox's network namespace become those of the stack in the sentry.
//!
//! [`take_over`] reads what a container's engine has put into the namespace ([`links`], by [`netlink`]), opens a packet
//! socket on each interface for the sandbox, and takes the addresses off: else the host's kernel
//! would answer in the sandbox's name, with resets for connections that it knows nothing of. The routes are put back ([`ways`]).

mod links;
mod masquerade;
mod nameservers;
mod netlink;
pub mod uplink;
pub mod watcher;
mod ways;

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use moat_net_stack::config::NetworkConfig;
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::{Context, Error, Result};
use links::Found;
use netlink::Netlink;
use uplink::Uplink;

/// Where Docker's resolver of a user-defined network is: in the container's network namespace, on its loopback device.
const DOCKER_RESOLVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)), 53);

/// What a sandbox is to have of its network namespace.
#[derive(Debug)]
pub(crate) struct Taken {
    /// The interfaces with their addresses and routes.
    pub(crate) config: NetworkConfig,
    /// A packet socket for each of them, in order.
    pub(crate) sockets: Vec<OwnedFd>,
    /// A socket that is connected to a resolver, and the address of the loopback device at which the guest asks it, if there is one.
    pub(crate) resolver: Option<(IpAddr, OwnedFd)>,
    /// The host's own nameservers, for what that resolver can't answer once the addresses are gone; none without it.
    pub(crate) nameservers: Vec<IpAddr>,
    /// The namespace has kept its routes.
    pub(crate) ways: bool,
}

/// Takes over the network namespace of the process `pid`. By an uplink the guest comes to ask the resolver of the host that the caller's
/// resolv.conf names on the loopback device.
///
/// # Errors
/// No right over the namespace; an interface that carries no Ethernet frames.
pub(crate) fn take_over(pid: i32, uplink: Option<&Uplink>) -> Result<Taken> {
    let mut taken = within(pid, take)?;
    if let (Some(uplink), None) = (uplink, &taken.resolver) {
        taken.resolver = uplink.resolver();
        taken.nameservers = nameservers::read();
    }
    Ok(taken)
}

/// What `f` gives in the network namespace of the process `pid`.
fn within<T: Send>(pid: i32, f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).context(|| format!("opening {path}"))?;
    let there = || {
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .context(|| "entering the sandbox's network namespace".into())?;
        f()
    };
    // Only this thread goes there, and it ends.
    let done = thread::scope(|scope| scope.spawn(there).join());
    done.unwrap_or_else(|_| Err(Error::Invalid("setting up the network: the thread panicked".into())))
}

/// Takes over the network namespace of the calling thread.
fn take() -> Result<Taken> {
    let doing = |what: &'static str| move || format!("setting up the network: {what}");
    let mut netlink = Netlink::open().context(doing("opening a netlink socket"))?;
    let Found { config, addresses, unserved, .. } =
        links::read(&mut netlink).context(doing("reading interfaces, addresses and routes"))?;
    // Before anything is changed: the namespace stays usable in another mode.
    if let Some(name) = unserved.first() {
        return Err(Error::unsupported(
            format!("network interface {name}"),
            "it carries no Ethernet frames, and only such interfaces can be taken over; use --network=host or none",
        ));
    }
    // Open before the addresses go, so that no frame comes in between and finds nobody.
    let sockets = config.links.iter().map(|link| {
        moat_host::packet::open(link.index)
            .map_err(|errno| io::Error::from_raw_os_error(errno.raw()))
            .context(|| format!("setting up the network: opening a packet socket on {}", link.name))
    });
    let sockets = sockets.collect::<Result<Vec<_>>>()?;
    let resolver = resolver().context(doing("looking for a resolver"))?;
    detach(&mut netlink, addresses.into_iter()).context(doing("taking an address off"))?;
    let nameservers = if resolver.is_some() { nameservers::read() } else { Vec::new() };
    let resolver = resolver.map(|socket| (DOCKER_RESOLVER.ip(), socket));
    let ways = ways::stop_forwarding().is_ok();
    if ways {
        ways::keep(&mut netlink, &config.routes, &config.routes);
    }
    Ok(Taken { config, sockets, resolver, nameservers, ways })
}

/// Takes addresses off, with which their routes go.
fn detach(netlink: &mut Netlink, addresses: impl Iterator<Item = AddressMessage>) -> io::Result<()> {
    for address in addresses {
        match netlink.change(RouteNetlinkMessage::DelAddress(address), 0) {
            // It went with another one: a secondary address with its primary one.
            Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => {}
            other => other?,
        }
    }
    Ok(())
}

/// A socket to [`DOCKER_RESOLVER`], if there is one. Whether somebody serves the address shows in what Docker's rules
/// for it do to a packet: without them it is refused at once.
fn resolver() -> io::Result<Option<OwnedFd>> {
    let socket = match UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)) {
        Ok(socket) => socket,
        // The loopback device is down.
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => return Ok(None),
        Err(error) => return Err(error),
    };
    if socket.connect(DOCKER_RESOLVER).is_err() {
        return Ok(None);
    }
    // An empty datagram is no question; nobody answers it but the kernel, which refuses it at once on this device.
    let refused = socket.send(&[]).and_then(|_| socket.send(&[])).is_err();
    socket.set_nonblocking(true)?;
    Ok((!refused).then(|| socket.into()))
}

#[cfg(test)]
mod tests {
    use moat_net_stack::config::{LinkKind, RouteKind};
    use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
    use netlink_packet_route::AddressFamily;
    use netlink_packet_route::address::AddressAttribute;
    use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};

    use super::*;

    /// A new network namespace for the calling thread, with a veth pair whose ends have the numbers 7 and 8.
    fn enter_namespace_with_veth() -> Netlink {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let mut netlink = Netlink::open().unwrap();
        let link = |name: &str, index| {
            let mut message = LinkMessage::default();
            message.header.index = index;
            message.attributes.push(LinkAttribute::IfName(name.into()));
            message
        };
        let mut pair = link("eth0", 7);
        let peer = InfoData::Veth(InfoVeth::Peer(link("peer", 8)));
        pair.attributes.push(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(peer)]));
        netlink.change(RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL).unwrap();
        for (name, index) in [("eth0", 7), ("peer", 8)] {
            let mut up = link(name, index);
            up.header.flags = LinkFlags::Up;
            up.header.change_mask = LinkFlags::Up;
            netlink.change(RouteNetlinkMessage::SetLink(up), 0).unwrap();
        }
        netlink
    }

    fn set_addresses_and_routes(netlink: &mut Netlink) {
        for (ip, prefix_len) in [("10.1.2.3", 24), ("fd00::3", 64)] {
            let ip: IpAddr = ip.parse().unwrap();
            let mut message = AddressMessage::default();
            message.header.family = if ip.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
            message.header.prefix_len = prefix_len;
            message.header.index = 7;
            message.attributes.push(AddressAttribute::Address(ip));
            message.attributes.push(AddressAttribute::Local(ip));
            netlink.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE).unwrap();
        }
        uplink::add_default_route(netlink, Ipv4Addr::new(10, 1, 2, 1), 7).unwrap();
    }

    #[test]
    fn what_an_engine_has_put_into_a_namespace_is_taken_over() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a network namespace takes root");
            return;
        }
        let test = thread::spawn(|| {
            let mut netlink = enter_namespace_with_veth();
            set_addresses_and_routes(&mut netlink);
            std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
            let taken = take().unwrap();
            let forwarding = std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
            (taken, links::read(&mut netlink).unwrap(), forwarding)
        });
        let (taken, left, forwarding) = test.join().unwrap();

        assert_eq!(taken.sockets.len(), 2, "both ends are in the namespace");
        assert!(taken.resolver.is_none());
        let link = taken.config.link(7).unwrap();
        assert_eq!((link.name.as_str(), link.kind, link.mtu), ("eth0", LinkKind::Ethernet, 1500));
        assert_eq!(link.driver.as_deref(), Some("veth"));
        let has = |ip: &str, prefix_len| {
            link.addresses.iter().any(|a| a.ip == ip.parse::<IpAddr>().unwrap() && a.prefix_len == prefix_len)
        };
        assert!(has("10.1.2.3", 24) && has("fd00::3", 64), "{:?}", link.addresses);
        let gateway =
            taken.config.routes.iter().find(|route| route.prefix_len == 0 && route.gateway.is_some()).unwrap();
        assert_eq!(gateway.gateway, Some("10.1.2.1".parse().unwrap()));
        assert_eq!((gateway.link, gateway.kind), (7, RouteKind::Unicast));
        assert!(taken.config.routes.iter().any(|route| route.destination == IpAddr::from([10, 1, 2, 0])));

        let addresses: usize = left.config.links.iter().map(|link| link.addresses.len()).sum();
        assert_eq!((left.config.links.len(), addresses), (2, 0), "the links stay, without addresses");
        // The engine finds its routes where it has put them, and may change them.
        let way = left.config.routes.iter().find(|route| route.prefix_len == 0 && route.destination.is_ipv4());
        assert_eq!(way.and_then(|route| route.gateway), gateway.gateway);
        let direct =
            |ip: &str| left.config.routes.iter().any(|route| route.destination == ip.parse::<IpAddr>().unwrap());
        assert!(direct("10.1.2.0") && direct("fd00::"), "{:?}", left.config.routes);
        assert_eq!((forwarding.as_str(), taken.ways), ("0\n", true));
    }
}
