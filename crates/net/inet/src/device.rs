//! The loopback device, and ioctls about the devices of a namespace: netdevice(7).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::cap::Cap;
use moat_abi::netlink as nl;
use moat_abi::socket as abi;
use moat_abi::socket::{AF_INET, IFF_LOOPBACK, IFF_LOWER_UP, IFF_RUNNING, IFF_UP, IFNAMSIZ, Ifconf, Ifreq, SockaddrIn};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_identity::net::{InterfaceAddress, NetDevice, Route};
use moat_vfs::Caller;
use zerocopy::{FromBytes, IntoBytes};

/// The name of the loopback device.
pub(crate) const LO_NAME: &str = "lo";
/// Its number, which is the first in each namespace.
pub(crate) const LO_INDEX: u32 = 1;
const SIZE: usize = size_of::<Ifreq>();

/// Gives a new namespace its loopback device, up, with its addresses and routes.
pub fn add_loopback(namespace: &NetNamespace) {
    let v4 = Ipv4Addr::LOCALHOST;
    let host = |ip, prefix_len| InterfaceAddress { ip, prefix_len, scope: nl::RT_SCOPE_HOST };
    namespace.add_device(NetDevice {
        name: LO_NAME.to_owned(),
        index: LO_INDEX,
        flags: IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP,
        mtu: 65536,
        queue_len: 1000,
        hardware_type: nl::ARPHRD_LOOPBACK,
        address: [0; 6],
        addresses: vec![host(v4.into(), 8), host(Ipv6Addr::LOCALHOST.into(), 128)],
    });
    let local = |destination: IpAddr, prefix_len, kind| Route {
        destination,
        prefix_len,
        table: nl::RT_TABLE_LOCAL,
        kind,
        scope: if kind == nl::RTN_LOCAL { nl::RT_SCOPE_HOST } else { nl::RT_SCOPE_LINK },
        protocol: nl::RTPROT_KERNEL,
        device: LO_INDEX,
        gateway: None,
        // IPv6's local routes have no preferred source.
        source: destination.is_ipv4().then_some(v4.into()),
        metric: 0,
    };
    namespace.add_route(local(Ipv4Addr::new(127, 0, 0, 0).into(), 8, nl::RTN_LOCAL));
    namespace.add_route(local(v4.into(), 32, nl::RTN_LOCAL));
    namespace.add_route(local(Ipv4Addr::new(127, 255, 255, 255).into(), 32, nl::RTN_BROADCAST));
    namespace.add_route(local(Ipv6Addr::LOCALHOST.into(), 128, nl::RTN_LOCAL));
}

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
        // What changes the device.
        abi::SIOCSIFFLAGS | abi::SIOCSIFADDR => {
            if !caller.creds().has_cap(Cap::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            // Bringing lo up, or giving it its own address, changes nothing.
            let up = cmd == abi::SIOCSIFADDR || r.ifr_data[0] & 1 != 0;
            return if up { Ok(()) } else { Err(Errno::EOPNOTSUPP) };
        }
        abi::SIOCETHTOOL => return Err(Errno::EOPNOTSUPP),
        _ if !caller.creds().has_cap(Cap::NET_ADMIN) => return Err(Errno::EPERM),
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(())
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
