//! [`Uplink`]: a way to the outside for a sandbox that no engine has made a network for.
//!
//! A veth pair, one end of which is in the sandbox's network namespace and goes with that, the other in the caller's; a network of four
//! addresses between them that nothing else of the caller's has; forwarding, and rules by which packets leave under the caller's own
//! address. It is what `docker run` has from its engine and `moat do` makes itself.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::OwnedFd;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::masquerade::Masquerade;
use super::netlink::Netlink;
use super::{nameservers, within};
use crate::error::{Context, Error, Result};

/// Its device in the sandbox.
const INSIDE: &str = "eth0";
/// The networks that are tried are parts of this one, 172.29.0.0/16: private, and not among those that engines begin with.
const NETWORKS: [u8; 2] = [172, 29];
/// Bits of the prefix of each: a network, two hosts, a broadcast.
const PREFIX: u8 = 30;
/// How many there are.
const COUNT: u32 = 1 << (PREFIX - 16);
/// Whether this host's kernel hands on packets that are for others.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";

/// A way out. What it has put into the caller's network namespace goes when it is dropped; the devices go with the sandbox.
#[derive(Debug)]
pub struct Uplink {
    _rules: Masquerade,
}

/// The two addresses of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Addresses {
    network: Ipv4Addr,
    outside: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Addresses {
    fn of(number: u32) -> Addresses {
        let [a, b] = NETWORKS;
        let base = u32::from(Ipv4Addr::new(a, b, 0, 0)) | (number % COUNT) << (32 - PREFIX);
        let at = |host: u32| Ipv4Addr::from(base | host);
        Addresses { network: at(0), outside: at(1), inside: at(2) }
    }
}

impl Uplink {
    /// Makes one for the sandbox process `pid`, from the network namespace of the calling thread.
    ///
    /// # Errors
    /// No right over one of the namespaces; no veth devices; no program that sets rules.
    pub(crate) fn make(pid: i32) -> Result<Uplink> {
        if !rustix::process::geteuid().is_root() {
            let why = "a network for it is made by root only; --network=host is there for all, and Podman for users makes one, too";
            return Err(Error::unsupported("--network=sandbox of moat do".to_owned(), why));
        }
        let doing = |what: &'static str| move || format!("making a network for the sandbox: {what}");
        let mut netlink = Netlink::open().context(doing("opening a netlink socket"))?;
        let number = u32::try_from(pid).unwrap_or(0);
        Masquerade::sweep(&names(&mut netlink).context(doing("reading devices"))?);
        let used = used(&mut netlink).context(doing("reading routes"))?;
        let addresses = free(number, &used).ok_or_else(|| Error::State("no network is free for the sandbox".into()))?;
        let name = format!("moat{pid}");
        make_pair(&mut netlink, &name, number).context(doing("making a pair of veth devices"))?;
        let index = index_of(&mut netlink, &name).context(doing("finding the device"))?;
        set_up(&mut netlink, index, addresses.outside).context(doing("setting the device up"))?;
        within(pid, || set_up_inside(addresses).context(doing("in the sandbox")))?;
        forward().context(doing("having packets forwarded"))?;
        let rules = Masquerade::set(&format!("{}/{PREFIX}", addresses.network), &name)?;
        Ok(Uplink { _rules: rules })
    }
}

impl Uplink {
    /// A socket to the resolver on this host's loopback device that its resolv.conf names, with the address at which it is asked: the
    /// guest, which reads the same file, has a loopback device of its own. None if the file names none.
    pub(super) fn resolver(&self) -> Option<(IpAddr, OwnedFd)> {
        let ip = nameservers::on_loopback()?;
        let any = if ip.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let socket = UdpSocket::bind((any, 0)).ok()?;
        socket.connect((ip, 53)).ok()?;
        socket.set_nonblocking(true).ok()?;
        Some((ip, socket.into()))
    }
}

/// The networks that the caller's namespace knows a way to, but for the default one.
fn used(netlink: &mut Netlink) -> io::Result<Vec<(u32, u8)>> {
    let mut used = Vec::new();
    for message in netlink.dump(RouteNetlinkMessage::GetRoute(RouteMessage::default()))? {
        let RouteNetlinkMessage::NewRoute(route) = message else { continue };
        let to = route.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(to)) => Some(u32::from(*to)),
            _ => None,
        });
        used.extend(to.map(|to| (to, route.header.destination_prefix_length)));
    }
    Ok(used)
}

/// The first network from `number` on that has no address in common with those that are used.
fn free(number: u32, used: &[(u32, u8)]) -> Option<Addresses> {
    let overlaps = |of: &Addresses, (to, prefix): &(u32, u8)| {
        let shift = 32_u32.saturating_sub(u32::from((*prefix).min(PREFIX)));
        let part = |ip: u32| ip.checked_shr(shift).unwrap_or(0);
        part(u32::from(of.network)) == part(*to)
    };
    let mut networks = (0..COUNT).map(|i| Addresses::of(number.wrapping_add(i)));
    networks.find(|of| !used.iter().any(|network| overlaps(of, network)))
}

fn make_pair(netlink: &mut Netlink, name: &str, pid: u32) -> io::Result<()> {
    let mut peer = LinkMessage::default();
    peer.attributes.extend([LinkAttribute::IfName(INSIDE.into()), LinkAttribute::NetNsPid(pid)]);
    let mut pair = LinkMessage::default();
    let info = vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer)))];
    pair.attributes.extend([LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(info)]);
    netlink.change(RouteNetlinkMessage::NewLink(pair), NLM_F_CREATE | NLM_F_EXCL)
}

fn index_of(netlink: &mut Netlink, name: &str) -> io::Result<u32> {
    let links = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let index = links.iter().find_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => {
            let is_it = |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(found) if found == name);
            link.attributes.iter().any(is_it).then_some(link.header.index)
        }
        _ => None,
    });
    index.ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
}

/// The names of all devices.
fn names(netlink: &mut Netlink) -> io::Result<Vec<String>> {
    let links = netlink.dump(RouteNetlinkMessage::GetLink(LinkMessage::default()))?;
    let names = links.into_iter().filter_map(|message| match message {
        RouteNetlinkMessage::NewLink(link) => link.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        }),
        _ => None,
    });
    Ok(names.collect())
}

/// Gives a device its address, and sets it up.
fn set_up(netlink: &mut Netlink, index: u32, ip: Ipv4Addr) -> io::Result<()> {
    let mut address = AddressMessage::default();
    (address.header.family, address.header.prefix_len, address.header.index) = (AddressFamily::Inet, PREFIX, index);
    let ip = IpAddr::V4(ip);
    address.attributes.extend([AddressAttribute::Address(ip), AddressAttribute::Local(ip)]);
    netlink.change(RouteNetlinkMessage::NewAddress(address), NLM_F_CREATE | NLM_F_EXCL)?;
    let mut up = LinkMessage::default();
    (up.header.index, up.header.flags, up.header.change_mask) = (index, LinkFlags::Up, LinkFlags::Up);
    netlink.change(RouteNetlinkMessage::SetLink(up), 0)
}

/// The end in the sandbox, whose first gateway is the other one.
fn set_up_inside(addresses: Addresses) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    let index = index_of(&mut netlink, INSIDE)?;
    set_up(&mut netlink, index, addresses.inside)?;
    add_default_route(&mut netlink, addresses.outside, index)
}

/// Has all that no other route is for go to `gateway`, by the device `index`.
pub(super) fn add_default_route(netlink: &mut Netlink, gateway: Ipv4Addr, index: u32) -> io::Result<()> {
    let mut route = RouteMessage::default();
    route.header.address_family = AddressFamily::Inet;
    route.header.table = libc::RT_TABLE_MAIN;
    route.header.protocol = RouteProtocol::Boot;
    route.header.scope = RouteScope::Universe;
    route.header.kind = RouteType::Unicast;
    let gateway = RouteAddress::Inet(gateway);
    route.attributes.extend([RouteAttribute::Gateway(gateway), RouteAttribute::Oif(index)]);
    netlink.change(RouteNetlinkMessage::NewRoute(route), NLM_F_CREATE)
}

/// As every engine does it, and for good: others may count on it by the time that this sandbox ends.
fn forward() -> io::Result<()> {
    if fs::read_to_string(FORWARDING)?.trim() == "0" {
        fs::write(FORWARDING, "1")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::{Child, Command};
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_network_is_taken_that_nothing_leads_to() {
        let network = |ip: [u8; 4], prefix| (u32::from(Ipv4Addr::from(ip)), prefix);
        let first = free(5, &[]).unwrap();
        assert_eq!(first, Addresses::of(5));
        assert_eq!((first.network, first.inside), ([172, 29, 0, 20].into(), [172, 29, 0, 22].into()));
        // Its own, one that holds it, one within it.
        for used in [network([172, 29, 0, 20], 30), network([172, 29, 0, 16], 28), network([172, 29, 0, 21], 32)] {
            let next = free(5, &[used, network([10, 0, 0, 0], 8)]).unwrap();
            assert!(next.network > first.network && next.network <= Ipv4Addr::from([172, 29, 0, 32]), "{next:?}");
        }
        assert_eq!(free(5, &[network([172, 16, 0, 0], 12)]), None);
        assert_eq!(free(COUNT - 1, &[network([172, 29, 255, 252], 30)]), Some(Addresses::of(0)));
        assert_eq!(free(1, &[network([0, 0, 0, 0], 0)]), None, "a way to everywhere that is none by default");
    }

    /// A process in a network namespace of its own.
    struct Apart(Child);

    impl Apart {
        fn new() -> Apart {
            let child = Apart(Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap());
            let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
            while of(&child.pid().to_string()) == of("thread-self") {
                thread::sleep(Duration::from_millis(1));
            }
            child
        }

        fn pid(&self) -> i32 {
            i32::try_from(self.0.id()).unwrap()
        }

        /// What `f` gives there.
        fn within<T: Send>(&self, f: impl FnOnce() -> T + Send) -> T {
            super::within(self.pid(), || Ok(f())).unwrap()
        }
    }

    impl Drop for Apart {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// Between namespaces of the test's own: `near` is the host, `far` a server beyond it, `sandbox` the sandbox.
    #[test]
    fn a_sandbox_reaches_what_its_host_does_under_the_hosts_address() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: a network namespace takes root");
            return;
        }
        if !Masquerade::is_possible() {
            eprintln!("skipped: neither iptables nor nft is installed");
            return;
        }
        let (near, far, sandbox) = (Apart::new(), Apart::new(), Apart::new());
        let (near_ip, far_ip) = (Ipv4Addr::new(10, 9, 8, 1), Ipv4Addr::new(10, 9, 8, 2));
        near.within(|| {
            let mut netlink = Netlink::open().unwrap();
            make_pair(&mut netlink, "link", u32::try_from(far.pid()).unwrap()).unwrap();
            let index = index_of(&mut netlink, "link").unwrap();
            set_up(&mut netlink, index, near_ip).unwrap();
        });
        far.within(|| {
            let mut netlink = Netlink::open().unwrap();
            let index = index_of(&mut netlink, INSIDE).unwrap();
            set_up(&mut netlink, index, far_ip).unwrap();
        });
        let listener = far.within(|| TcpListener::bind((far_ip, 7)).unwrap());
        let uplink = near.within(|| Uplink::make(sandbox.pid()).unwrap());
        let mut client = sandbox.within(|| TcpStream::connect((far_ip, 7)).unwrap());
        let (mut server, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), IpAddr::V4(near_ip), "it comes by the host's address");
        client.write_all(b"there").unwrap();
        let mut word = [0; 5];
        server.read_exact(&mut word).unwrap();
        server.write_all(&word).unwrap();
        client.read_exact(&mut word).unwrap();
        assert_eq!(&word, b"there");
        // To the end, while there are rules: a socket that waits for its last answer holds its namespace.
        drop(client);
        assert_eq!(server.read(&mut word).unwrap(), 0);
        drop(server);

        let rules = near.within(Masquerade::rules);
        assert!(rules.contains("moat"));
        near.within(|| Masquerade::sweep(&[format!("moat{}", sandbox.pid())]));
        assert_eq!(
            near.within(Masquerade::rules).matches("moat").count(),
            rules.matches("moat").count(),
            "it has its device"
        );
        near.within(|| drop(uplink));
        assert!(!near.within(Masquerade::rules).contains("moat"), "{}", near.within(Masquerade::rules));
        // The devices go with the sandbox; the host takes its time for that.
        let device = format!("moat{}", sandbox.pid());
        let is_there = || near.within(|| index_of(&mut Netlink::open().unwrap(), &device).is_ok());
        assert!(is_there());
        drop(sandbox);
        let waited = (0..5000).take_while(|_| is_there()).map(|_| thread::sleep(Duration::from_millis(1))).count();
        assert!(waited < 5000, "the device stays");

        // One that was killed has left its rules; the next one takes them away.
        let second = Apart::new();
        std::mem::forget(near.within(|| Uplink::make(second.pid()).unwrap()));
        let name = format!("moat{}", second.pid());
        assert!(near.within(Masquerade::rules).contains(&name));
        near.within(|| Masquerade::sweep(&[]));
        assert!(!near.within(Masquerade::rules).contains("moat"), "{}", near.within(Masquerade::rules));
    }
}
