//! ioctls about the devices of a namespace, netdevice(7), and its routes.

use std::net::{IpAddr, Ipv4Addr};

use moat_abi::cap::Cap;
use moat_abi::netlink as nl;
use moat_abi::socket as abi;
use moat_abi::socket::{AF_INET, IFF_LOOPBACK, IFF_UP, IFNAMSIZ, Ifconf, Ifreq, Rtentry, SockaddrIn};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_identity::net::NetDevice;
use moat_net_stack::configure::{IfPresent, RouteKey};
use moat_net_stack::{AddressConfig, RouteConfig, RouteKind};
use moat_vfs::Caller;
use zerocopy::{FromBytes, IntoBytes};

use crate::configuration;

/// The name of the loopback device.
pub(crate) const LO_NAME: &str = "lo";
/// Its number, which is the first in each namespace.
pub const LO_INDEX: u32 = 1;
const SIZE: usize = size_of::<Ifreq>();

fn named(name: &str) -> Ifreq {
    let mut r = Ifreq::default();
    // The last byte stays zero.
    for (to, from) in r.ifr_name.iter_mut().take(IFNAMSIZ - 1).zip(name.bytes()) {
        *to = from;
    }
    r
}

fn put(r: &mut Ifreq, bytes: &[u8]) {
    r.ifr_data[..bytes.len()].copy_from_slice(bytes);
}

fn put_address(r: &mut Ifreq, ip: Ipv4Addr) {
    put(r, SockaddrIn { sin_family: AF_INET, sin_addr: ip.octets(), ..SockaddrIn::default() }.as_bytes());
}

/// The first IPv4 address of a device with its prefix.
fn first_v4(device: &NetDevice) -> Option<(Ipv4Addr, u8)> {
    device.addresses.iter().find_map(|a| match a.ip {
        IpAddr::V4(ip) => Some((ip, a.prefix_len)),
        IpAddr::V6(_) => None,
    })
}

/// The broadcast address of a device's first IPv4 network; none of the loopback.
fn broadcast(device: &NetDevice) -> Ipv4Addr {
    match first_v4(device) {
        Some((ip, prefix_len)) if device.flags & IFF_LOOPBACK == 0 => {
            Ipv4Addr::from_bits(ip.to_bits() | !netmask(prefix_len).to_bits())
        }
        _ => Ipv4Addr::UNSPECIFIED,
    }
}

fn netmask(prefix_len: u8) -> Ipv4Addr {
    Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix_len.min(32))).unwrap_or(0))
}

/// Answers a device ioctl on any socket.
///
/// # Errors
/// ENOTTY for other commands; ENODEV for a device that is not there; EPERM or EOPNOTSUPP for changes; EFAULT.
pub fn ioctl(caller: &dyn Caller, net: &NetNamespace, cmd: u32, arg: u64) -> Result<u64> {
    match cmd {
        abi::SIOCGIFCONF => list(caller, net, arg),
        abi::SIOCADDRT | abi::SIOCDELRT => route(caller, net, cmd, arg),
        // SIOCGIFNAME to SIOCSIFMAP, and SIOCETHTOOL.
        // The range that netdevice(7) requests are in; commands not known below are refused there by privilege.
        0x8910..=0x8971 => {
            let mut bytes = [0; SIZE];
            caller.read_user(arg, &mut bytes)?;
            let mut r = Ifreq::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
            request(caller, net, cmd, &mut r)?;
            caller.write_user(arg, r.as_bytes())?;
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

fn request(caller: &dyn Caller, net: &NetNamespace, cmd: u32, r: &mut Ifreq) -> Result<()> {
    let devices = net.devices();
    if cmd == abi::SIOCGIFNAME {
        let index = r.ifr_data.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
        let device = devices.iter().find(|d| d.index == index).ok_or(Errno::ENODEV)?;
        r.ifr_name = named(&device.name).ifr_name;
        return Ok(());
    }
    // A name ends at its zero byte, or at an alias's colon.
    let name = r.ifr_name.split(|b| *b == 0 || *b == b':').next().unwrap_or_default();
    let device = devices.iter().find(|d| d.name.as_bytes() == name).ok_or(Errno::ENODEV)?;
    let v4 = first_v4(device);
    match cmd {
        abi::SIOCGIFFLAGS => {
            // The interface has 16 bits for them.
            let flags = u16::try_from(device.flags & u32::from(u16::MAX)).unwrap_or(0);
            put(r, &flags.to_ne_bytes());
        }
        abi::SIOCGIFADDR | abi::SIOCGIFDSTADDR => put_address(r, v4.ok_or(Errno::EADDRNOTAVAIL)?.0),
        abi::SIOCGIFBRDADDR => put_address(r, broadcast(device)),
        abi::SIOCGIFNETMASK => put_address(r, netmask(v4.ok_or(Errno::EADDRNOTAVAIL)?.1)),
        abi::SIOCGIFMETRIC => put(r, &0i32.to_ne_bytes()),
        abi::SIOCGIFMTU => put(r, &device.mtu.to_ne_bytes()),
        abi::SIOCGIFINDEX => put(r, &device.index.to_ne_bytes()),
        abi::SIOCGIFTXQLEN => put(r, &device.queue_len.to_ne_bytes()),
        abi::SIOCGIFMAP => r.ifr_data = [0; 24],
        abi::SIOCGIFHWADDR => {
            r.ifr_data = [0; 24];
            put(r, &device.hardware_type.to_ne_bytes());
            if let Some(to) = r.ifr_data.get_mut(2..8) {
                to.copy_from_slice(&device.address);
            }
        }
        abi::SIOCETHTOOL => return Err(Errno::EOPNOTSUPP),
        _ if !caller.creds().has_cap_in(&net.user_ns, Cap::NET_ADMIN) => return Err(Errno::EPERM),
        _ => return change(net, device, cmd, r),
    }
    Ok(())
}

/// The address of IPv4 that a request has.
fn given_v4(r: &Ifreq) -> Result<Ipv4Addr> {
    let (a, _) = SockaddrIn::read_from_prefix(&r.ifr_data).map_err(|_| Errno::EINVAL)?;
    if a.sin_family == AF_INET { Ok(a.sin_addr.into()) } else { Err(Errno::EINVAL) }
}

/// The prefix that an address has by its class (`inet_abc_len`).
fn class_prefix(ip: Ipv4Addr) -> u8 {
    match ip.octets()[0] {
        0 => 0,
        1..=127 => 8,
        128..=191 => 16,
        192..=223 => 24,
        _ => 32,
    }
}

/// What changes a device: SIOCSIFFLAGS, SIOCSIFADDR, SIOCSIFNETMASK, SIOCSIFBRDADDR, SIOCSIFMTU, SIOCSIFTXQLEN.
fn change(net: &NetNamespace, device: &NetDevice, cmd: u32, r: &Ifreq) -> Result<()> {
    let index = device.index;
    let number = r.ifr_data.first_chunk().map_or(0, |b| u32::from_ne_bytes(*b));
    let old = device.addresses.iter().find(|a| a.ip.is_ipv4()).copied();
    // The first address of IPv4 with something else than it had.
    let replace = |ip: Ipv4Addr, prefix_len: u8, broadcast: Option<Ipv4Addr>| {
        configuration::change(net, |stack| {
            stack.change(|s| {
                if let Some(old) = old {
                    s.remove_address(index, old.ip, Some(old.prefix_len))?;
                }
                if ip.is_unspecified() {
                    return Ok(());
                }
                let scope = if ip.is_loopback() { nl::RT_SCOPE_HOST } else { nl::RT_SCOPE_UNIVERSE };
                s.add_address(index, AddressConfig { ip: ip.into(), prefix_len, broadcast, scope })
            })
        })
    };
    match cmd {
        abi::SIOCSIFFLAGS => configuration::change(net, |stack| {
            stack.change(|s| if number & IFF_UP == 0 { s.set_link_down(index) } else { s.set_link_up(index) })
        }),
        abi::SIOCSIFADDR => {
            let ip = given_v4(r)?;
            let prefix_len = class_prefix(ip);
            replace(ip, prefix_len, None)?;
            // An address brings its device up (`devinet_ioctl`).
            configuration::change(net, |stack| stack.change(|s| s.set_link_up(index)))
        }
        abi::SIOCSIFNETMASK => {
            let mask = given_v4(r)?.to_bits();
            let prefix_len = u8::try_from(mask.leading_ones()).unwrap_or(0);
            if mask.count_ones() != mask.leading_ones() {
                return Err(Errno::EINVAL);
            }
            match old.map(|o| (o.ip, o.broadcast)) {
                Some((IpAddr::V4(ip), broadcast)) => replace(ip, prefix_len, broadcast),
                _ => Err(Errno::EADDRNOTAVAIL),
            }
        }
        abi::SIOCSIFBRDADDR => match old.map(|o| (o.ip, o.prefix_len)) {
            Some((IpAddr::V4(ip), prefix_len)) => replace(ip, prefix_len, Some(given_v4(r)?)),
            _ => Err(Errno::EADDRNOTAVAIL),
        },
        abi::SIOCSIFMTU => {
            let most = if device.hardware_type == nl::ARPHRD_ETHER { device.mtu } else { u32::MAX };
            if !(68..=most).contains(&number) {
                return Err(Errno::EINVAL);
            }
            configuration::change(net, |stack| stack.change(|s| s.change_link(index, |l| l.mtu = number)))
        }
        abi::SIOCSIFTXQLEN => {
            configuration::change(net, |stack| stack.change(|s| s.change_link(index, |l| l.queue_len = number)))
        }
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// SIOCADDRT, SIOCDELRT: a route of IPv4 (`rtentry_to_fib_config`).
fn route(caller: &dyn Caller, net: &NetNamespace, cmd: u32, arg: u64) -> Result<u64> {
    const GATEWAY: u16 = 2;
    const HOST: u16 = 4;
    const REJECT: u16 = 0x200;
    if !caller.creds().has_cap_in(&net.user_ns, Cap::NET_ADMIN) {
        return Err(Errno::EPERM);
    }
    let mut bytes = [0; size_of::<Rtentry>()];
    caller.read_user(arg, &mut bytes)?;
    let r = Rtentry::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
    let v4 = |a: &SockaddrIn| Ipv4Addr::from(a.sin_addr);
    if r.rt_dst.sin_family != AF_INET {
        return Err(Errno::EAFNOSUPPORT);
    }
    let mask = if r.rt_flags & HOST == 0 { v4(&r.rt_genmask).to_bits() } else { u32::MAX };
    if mask.count_ones() != mask.leading_ones() {
        return Err(Errno::EINVAL);
    }
    let mut name = [0; IFNAMSIZ];
    let device = if r.rt_dev == 0 {
        None
    } else {
        caller.read_user(r.rt_dev, &mut name)?;
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        Some(net.devices().iter().find(|d| d.name.as_bytes() == name).ok_or(Errno::ENODEV)?.index)
    };
    let gateway = (r.rt_flags & GATEWAY != 0).then(|| v4(&r.rt_gateway)).filter(|g| !g.is_unspecified());
    let destination = IpAddr::from(v4(&r.rt_dst));
    let prefix_len = u8::try_from(mask.leading_ones()).unwrap_or(32);
    // One more than it is, so that 0 stands for none.
    let metric = u32::try_from(r.rt_metric).unwrap_or(0);
    let kind = if r.rt_flags & REJECT == 0 { RouteKind::Unicast } else { RouteKind::Unreachable };
    configuration::change(net, |stack| {
        stack.change(|s| {
            if cmd == abi::SIOCDELRT {
                return s.remove_route(&RouteKey {
                    destination,
                    prefix_len,
                    table: nl::RT_TABLE_MAIN.into(),
                    gateway: gateway.map(IpAddr::from),
                    link: device,
                    metric: metric.checked_sub(1),
                    kind: None,
                });
            }
            let route = RouteConfig {
                destination,
                prefix_len,
                gateway: gateway.map(IpAddr::from),
                link: device.unwrap_or(0),
                preferred_source: None,
                metric: metric.saturating_sub(1),
                scope: if gateway.is_some() { nl::RT_SCOPE_UNIVERSE } else { nl::RT_SCOPE_LINK },
                protocol: nl::RTPROT_BOOT,
                table: nl::RT_TABLE_MAIN.into(),
                kind,
                on_link: false,
                mtu: None,
            };
            s.add_route(route, IfPresent::Refuse)
        })
    })?;
    Ok(0)
}

/// SIOCGIFCONF: the devices that have an IPv4 address, as many as there is room for.
fn list(caller: &dyn Caller, net: &NetNamespace, arg: u64) -> Result<u64> {
    let mut bytes = [0; size_of::<Ifconf>()];
    caller.read_user(arg, &mut bytes)?;
    let mut conf = Ifconf::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
    let all: Vec<Ifreq> = net
        .devices()
        .iter()
        .filter_map(|device| {
            let mut r = named(&device.name);
            put_address(&mut r, first_v4(device)?.0);
            Some(r)
        })
        .collect();
    // Only whole entries are written (SIOCGIFCONF, netdevice(7)).
    let room = usize::try_from(conf.ifc_len).unwrap_or(0) / SIZE;
    // Without a buffer the caller asks how long one has to be.
    let shown = if conf.ifc_buf == 0 { all.len() } else { all.len().min(room) };
    if conf.ifc_buf != 0 {
        let out: Vec<u8> = all.iter().take(shown).flat_map(|r| r.as_bytes().to_vec()).collect();
        caller.write_user(conf.ifc_buf, &out)?;
    }
    conf.ifc_len = i32::try_from(shown * SIZE).unwrap_or(i32::MAX);
    caller.write_user(arg, conf.as_bytes())?;
    Ok(0)
}
