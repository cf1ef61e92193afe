//! Options of levels IP, IPV6, TCP and UDP: ip(7), ipv6(7), tcp(7), udp(7).
//!
//! They are checked as Linux does, kept and shown again; what steers packets is told to the stack ([`InetOptions::packet_options`],
//! [`InetOptions::tcp_settings`]).

mod persist;
mod tcp;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::cap::Cap;
use moat_abi::socket as abi;
use moat_abi::socket::{AF_INET6, In6Pktinfo, InPktinfo, SOL_IP, SOL_IPV6, SOL_RAW, SOL_SOCKET, SOL_TCP, SOL_UDP};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_net_stack::SendOptions;
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::ControlMessage;
use zerocopy::FromBytes;

use crate::groups::{check_device, device_named, v4_group, v6_group};

/// The largest segment that fits the loopback's MTU, with time stamps.
pub(crate) const MSS: u32 = 65483;

/// Which protocol's options there are besides those of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Raw,
}

/// What a socket is, as far as options depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no address.
    Free,
    /// It has one.
    Bound,
    /// It listens or has, or looks for, a peer; of TCP only.
    Busy,
}

/// An option that is a number: its starting value and the least and largest that is taken.
struct Number {
    level: u32,
    name: u32,
    default: i32,
    min: i32,
    max: i32,
}

const fn number(level: u32, name: u32, default: i32, min: i32, max: i32) -> Number {
    Number { level, name, default, min, max }
}

const fn any(level: u32, name: u32, default: i32) -> Number {
    number(level, name, default, i32::MIN, i32::MAX)
}

/// On or off: any value but 0 is shown as 1.
const fn flag(level: u32, name: u32, default: i32) -> Number {
    number(level, name, default, 0, 1)
}

const NUMBERS: &[Number] = &[
    any(SOL_IP, abi::IP_TOS, 0),
    number(SOL_IP, abi::IP_TTL, 64, -1, 255),
    flag(SOL_IP, abi::IP_RECVOPTS, 0),
    flag(SOL_IP, abi::IP_RETOPTS, 0),
    flag(SOL_IP, abi::IP_PKTINFO, 0),
    number(SOL_IP, abi::IP_MTU_DISCOVER, 1, 0, 5),
    flag(SOL_IP, abi::IP_RECVERR, 0),
    flag(SOL_IP, abi::IP_RECVTTL, 0),
    flag(SOL_IP, abi::IP_RECVTOS, 0),
    flag(SOL_IP, abi::IP_FREEBIND, 0),
    flag(SOL_IP, abi::IP_TRANSPARENT, 0),
    flag(SOL_IP, abi::IP_ORIGDSTADDR, 0),
    number(SOL_IP, abi::IP_MINTTL, 0, 0, 255),
    flag(SOL_IP, abi::IP_BIND_ADDRESS_NO_PORT, 0),
    number(SOL_IP, abi::IP_MULTICAST_TTL, 1, -1, 255),
    flag(SOL_IP, abi::IP_MULTICAST_LOOP, 1),
    flag(SOL_IP, abi::IP_MULTICAST_ALL, 1),
    number(SOL_IPV6, abi::IPV6_UNICAST_HOPS, 64, -1, 255),
    number(SOL_IPV6, abi::IPV6_MULTICAST_HOPS, 1, -1, 255),
    flag(SOL_IPV6, abi::IPV6_MULTICAST_LOOP, 1),
    number(SOL_IPV6, abi::IPV6_MTU_DISCOVER, 1, 0, 5),
    flag(SOL_IPV6, abi::IPV6_RECVERR, 0),
    flag(SOL_IPV6, abi::IPV6_V6ONLY, 0),
    flag(SOL_IPV6, abi::IPV6_RECVPKTINFO, 0),
    flag(SOL_IPV6, abi::IPV6_RECVHOPLIMIT, 0),
    flag(SOL_IPV6, abi::IPV6_RECVTCLASS, 0),
    number(SOL_IPV6, abi::IPV6_TCLASS, 0, -1, 255),
    flag(SOL_IPV6, abi::IPV6_TRANSPARENT, 0),
    flag(SOL_IPV6, abi::IPV6_FREEBIND, 0),
    flag(SOL_IPV6, abi::IPV6_RECVORIGDSTADDR, 0),
    flag(SOL_TCP, abi::TCP_NODELAY, 0),
    flag(SOL_TCP, abi::TCP_CORK, 0),
    number(SOL_TCP, abi::TCP_KEEPIDLE, 7200, 1, 32767),
    number(SOL_TCP, abi::TCP_KEEPINTVL, 75, 1, 32767),
    number(SOL_TCP, abi::TCP_KEEPCNT, 9, 1, 127),
    number(SOL_TCP, abi::TCP_SYNCNT, 6, 1, 127),
    any(SOL_TCP, abi::TCP_LINGER2, 60),
    any(SOL_TCP, abi::TCP_DEFER_ACCEPT, 0),
    any(SOL_TCP, abi::TCP_WINDOW_CLAMP, 0),
    any(SOL_TCP, abi::TCP_QUICKACK, 1),
    flag(SOL_TCP, abi::TCP_THIN_LINEAR_TIMEOUTS, 0),
    number(SOL_TCP, abi::TCP_USER_TIMEOUT, 0, 0, i32::MAX),
    any(SOL_TCP, abi::TCP_FASTOPEN, 0),
    flag(SOL_TCP, abi::TCP_FASTOPEN_CONNECT, 0),
    any(SOL_TCP, abi::TCP_TIMESTAMP, 0),
    any(SOL_TCP, abi::TCP_NOTSENT_LOWAT, 0),
    number(SOL_TCP, abi::TCP_SAVE_SYN, 0, 0, 2),
    number(SOL_TCP, abi::TCP_INQ, 0, 0, 1),
    flag(SOL_UDP, abi::UDP_CORK, 0),
    flag(SOL_UDP, abi::UDP_GRO, 0),
    number(SOL_UDP, abi::UDP_SEGMENT, 0, 0, 65535),
    // Of raw sockets alone, which check it themselves: `raw/checksum.rs`.
    number(SOL_RAW, abi::IPV6_CHECKSUM, -1, -1, i32::MAX),
];

const CONGESTION: &[&[u8]] = &[b"cubic", b"reno"];

#[derive(Clone, Default)]
pub(crate) struct Values {
    numbers: BTreeMap<(u32, u32), i32>,
    max_segment: i32,
    congestion: usize,
    /// The groups that were joined, each on a device.
    pub(crate) groups: Vec<(u32, IpAddr)>,
    pub(crate) multicast_if: [u8; 4],
    pub(crate) multicast_device: u32,
    /// The device of SO_BINDTODEVICE.
    device: Option<(u32, Vec<u8>)>,
}

/// The options of one socket.
pub struct InetOptions {
    family: u16,
    pub(crate) values: Mutex<Values>,
}

fn find(level: u32, name: u32) -> Result<&'static Number> {
    NUMBERS.iter().find(|n| n.level == level && n.name == name).ok_or(Errno::ENOPROTOOPT)
}

/// The number that is kept when `value` is set (`do_ip_setsockopt`, `do_tcp_setsockopt`).
///
/// # Errors
/// EINVAL.
fn kept(protocol: Protocol, option: (u32, u32), value: i32, standing: Standing) -> Result<i32> {
    Ok(match option {
        // One byte of the header. The lower bits, of ECN, are TCP's own business.
        (SOL_IP, abi::IP_TOS) if protocol == Protocol::Tcp => value & 0xfc,
        (SOL_IP, abi::IP_TOS) => value & 0xff,
        (SOL_IPV6, abi::IPV6_TCLASS) if protocol == Protocol::Tcp && value > 0 && value < 256 => value & 0xfc,
        // Off, the default, or at most TCP_FIN_TIMEOUT_MAX.
        (SOL_TCP, abi::TCP_LINGER2) if value < 0 => -1,
        (SOL_TCP, abi::TCP_LINGER2) if value == 0 => 60,
        (SOL_TCP, abi::TCP_LINGER2) => value.min(120),
        (SOL_TCP, abi::TCP_DEFER_ACCEPT) => tcp::whole_tries(value),
        (SOL_TCP, abi::TCP_WINDOW_CLAMP) if value == 0 && standing == Standing::Busy => return Err(Errno::EINVAL),
        // SOCK_MIN_RCVBUF / 2.
        (SOL_TCP, abi::TCP_WINDOW_CLAMP) if value != 0 => value.max(1152),
        _ => value,
    })
}

impl InetOptions {
    /// The options of a new socket.
    #[must_use]
    pub fn new(family: u16) -> InetOptions {
        InetOptions { family, values: Mutex::new(LockClass::Leaf, Values::default()) }
    }

    /// Those of a connection that this listening socket takes.
    #[must_use]
    pub fn inherit(&self) -> InetOptions {
        // A connection gets its listener's options, but memberships stay with the socket that joined.
        let values = Values { groups: Vec::new(), ..self.values.lock().clone() };
        InetOptions { family: self.family, values: Mutex::new(LockClass::Leaf, values) }
    }

    /// The value of an option that is a number.
    #[must_use]
    pub fn number(&self, level: u32, name: u32) -> i32 {
        self.chosen(level, name).or_else(|| find(level, name).ok().map(|n| n.default)).unwrap_or(0)
    }

    /// The same if it was set.
    pub(crate) fn chosen(&self, level: u32, name: u32) -> Option<i32> {
        self.values.lock().numbers.get(&(level, name)).copied()
    }

    /// Keeps the value of an option that a socket has checked itself.
    pub(crate) fn choose(&self, level: u32, name: u32, value: i32) {
        self.values.lock().numbers.insert((level, name), value);
    }

    /// The only device that the socket uses (SO_BINDTODEVICE).
    #[must_use]
    pub fn device(&self) -> Option<u32> {
        self.values.lock().device.as_ref().map(|(index, _)| *index)
    }

    /// Whether errors of packets to an address are told to a socket without a peer (IP_RECVERR, IPV6_RECVERR).
    #[must_use]
    pub fn wants_errors(&self, to: IpAddr) -> bool {
        // Each family's packets go by its own option, whatever the socket's family is.
        let option = if to.is_ipv4() { (SOL_IP, abi::IP_RECVERR) } else { (SOL_IPV6, abi::IPV6_RECVERR) };
        self.number(option.0, option.1) != 0
    }

    /// Sets how packets to an address are sent, as far as `options` does not say it yet.
    pub fn packet_options(&self, to: IpAddr, options: &mut SendOptions) {
        let (ttl, group_ttl, tos, discover) = if to.is_ipv4() {
            let level = SOL_IP;
            (
                self.number(level, abi::IP_TTL),
                self.number(level, abi::IP_MULTICAST_TTL),
                self.number(level, abi::IP_TOS),
                self.number(level, abi::IP_MTU_DISCOVER),
            )
        } else {
            let level = SOL_IPV6;
            (
                self.number(level, abi::IPV6_UNICAST_HOPS),
                self.number(level, abi::IPV6_MULTICAST_HOPS),
                self.number(level, abi::IPV6_TCLASS),
                self.number(level, abi::IPV6_MTU_DISCOVER),
            )
        };
        // Groups have a TTL of their own, 1 by default: their packets stay on the link.
        let ttl = if to.is_multicast() { group_ttl } else { ttl };
        // -1 is the system's default. A control message of the packet has been taken before and wins.
        options.ttl = options.ttl.or(u8::try_from(ttl).ok().filter(|t| *t > 0));
        if options.tos == 0 {
            options.tos = u8::try_from(tos & 0xff).unwrap_or(0);
        }
        // IP_PMTUDISC_DO and IP_PMTUDISC_PROBE.
        options.keep_whole |= discover == 2 || discover == 3;
        if to.is_multicast() && options.device.is_none() {
            // IP_MULTICAST_IF gives the link unless the packet or the socket names one.
            options.device = Some(self.values.lock().multicast_device).filter(|d| *d != 0);
        }
    }

    /// Takes a control message about one packet that is sent; gives the address that it is to come from, if it says one.
    ///
    /// # Errors
    /// EINVAL for one that is malformed.
    pub fn steer(&self, control: &ControlMessage, options: &mut SendOptions) -> Result<Option<IpAddr>> {
        let number = || control.data.first_chunk().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL);
        let byte = |n: i32| u8::try_from(n).map_err(|_| Errno::EINVAL);
        match (control.level, control.kind) {
            (SOL_IP, abi::IP_PKTINFO) => {
                let (info, _) = InPktinfo::read_from_prefix(&control.data).map_err(|_| Errno::EINVAL)?;
                // The number 0 leaves the choice to the routes.
                options.device = u32::try_from(info.ipi_ifindex).ok().filter(|i| *i != 0).or(options.device);
                let source = Ipv4Addr::from(info.ipi_spec_dst);
                return Ok((!source.is_unspecified()).then_some(source.into()));
            }
            (SOL_IPV6, abi::IPV6_PKTINFO) => {
                let (info, _) = In6Pktinfo::read_from_prefix(&control.data).map_err(|_| Errno::EINVAL)?;
                options.device = u32::try_from(info.ipi6_ifindex).ok().filter(|i| *i != 0).or(options.device);
                // A mapped address is one of IPv4 inside.
                let source = Ipv6Addr::from(info.ipi6_addr).to_canonical();
                return Ok((!source.is_unspecified()).then_some(source));
            }
            (SOL_IP, abi::IP_TTL) | (SOL_IPV6, abi::IPV6_HOPLIMIT) => options.ttl = Some(byte(number()?)?),
            (SOL_IP, abi::IP_TOS) => options.tos = *control.data.first().ok_or(Errno::EINVAL)?,
            (SOL_IPV6, abi::IPV6_TCLASS) => options.tos = byte(number()?)?,
            _ => {}
        }
        Ok(None)
    }

    /// SO_BINDTODEVICE.
    ///
    /// # Errors
    /// ENODEV.
    fn bind_to_device(&self, net: &NetNamespace, value: &[u8]) -> Result<()> {
        let name = value.split(|b| *b == 0).next().unwrap_or_default();
        let device =
            if name.is_empty() { None } else { Some((device_named(net, name).ok_or(Errno::ENODEV)?, name.to_vec())) };
        self.values.lock().device = device;
        Ok(())
    }

    /// IPV6_V6ONLY; an AF_INET socket has nothing to do with it.
    #[must_use]
    pub fn v6_only(&self) -> bool {
        self.family == AF_INET6 && self.number(SOL_IPV6, abi::IPV6_V6ONLY) != 0
    }

    /// IP_FREEBIND, IP_TRANSPARENT: addresses that are nowhere can be bound.
    #[must_use]
    pub fn may_bind_anything(&self) -> bool {
        self.number(SOL_IP, abi::IP_FREEBIND) != 0
            || self.number(SOL_IP, abi::IP_TRANSPARENT) != 0
            || self.number(SOL_IPV6, abi::IPV6_FREEBIND) != 0
    }

    fn check_level(&self, protocol: Protocol, level: u32) -> Result<()> {
        let fine = match level {
            SOL_IP => true,
            SOL_IPV6 => self.family == AF_INET6,
            SOL_TCP => protocol == Protocol::Tcp,
            SOL_UDP => protocol == Protocol::Udp,
            _ => false,
        };
        if fine { Ok(()) } else { Err(Errno::ENOPROTOOPT) }
    }

    /// getsockopt(2).
    ///
    /// # Errors
    /// ENOPROTOOPT; ENOTCONN for what only a connection has.
    pub fn get(&self, protocol: Protocol, level: u32, name: u32, room: usize, connected: bool) -> Result<Vec<u8>> {
        if (level, name) == (SOL_SOCKET, abi::SO_BINDTODEVICE) {
            let device = self.values.lock().device.clone();
            return Ok(device.map_or_else(Vec::new, |(_, name)| [name.as_slice(), &[0]].concat()));
        }
        // A level that is none of an AF_INET socket is another error here than in setsockopt(2) (`do_ip_getsockopt`).
        let foreign = self.family != AF_INET6 && level != SOL_SOCKET;
        self.check_level(protocol, level).map_err(|e| if foreign { Errno::EOPNOTSUPP } else { e })?;
        let value = match (level, name) {
            (SOL_IP, abi::IP_MTU) | (SOL_IPV6, abi::IPV6_MTU) => {
                if !connected {
                    return Err(Errno::ENOTCONN);
                }
                65536
            }
            (SOL_IP, abi::IP_OPTIONS) => return Ok(Vec::new()),
            (SOL_IP, abi::IP_MULTICAST_IF) => return Ok(self.values.lock().multicast_if.to_vec()),
            (SOL_IPV6, abi::IPV6_MULTICAST_IF) => self.values.lock().multicast_device.cast_signed(),
            (SOL_TCP, abi::TCP_MAXSEG) => match self.values.lock().max_segment {
                // What is left of the MTU is only known with a peer; before
                // that the number that was asked for, or RFC 879's.
                _ if connected => MSS.cast_signed(),
                0 => 536,
                n => n,
            },
            (SOL_TCP, abi::TCP_CONGESTION) => {
                let mut text = CONGESTION.get(self.values.lock().congestion).map_or_else(Vec::new, |c| c.to_vec());
                // TCP_CA_NAME_MAX: the name comes in a field of 16 bytes.
                text.resize(16, 0);
                return Ok(text);
            }
            (SOL_TCP, abi::TCP_ULP) => return Ok(Vec::new()),
            _ => self.shown(level, name)?,
        };
        // A small non-negative value fits the one byte that old callers of IP have.
        if level == SOL_IP
            && room > 0
            && room < 4
            && let Ok(byte) = u8::try_from(value)
        {
            return Ok(vec![byte]);
        }
        Ok(value.to_ne_bytes().to_vec())
    }

    fn shown(&self, level: u32, name: u32) -> Result<i32> {
        let spec = find(level, name)?;
        let value = self.number(level, name);
        // -1 was set: the default is back, and is shown as a number.
        Ok(if value == -1 && spec.min == -1 { spec.default } else { value })
    }

    /// setsockopt(2).
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL, EPERM; ENODEV, EADDRINUSE, EADDRNOTAVAIL, ENOBUFS for multicast groups.
    pub fn set(
        &self,
        protocol: Protocol,
        caller: &dyn Caller,
        net: &NetNamespace,
        (level, name): (u32, u32),
        value: &[u8],
        standing: Standing,
    ) -> Result<()> {
        if (level, name) == (SOL_SOCKET, abi::SO_BINDTODEVICE) {
            return self.bind_to_device(net, value);
        }
        self.check_level(protocol, level)?;
        match (level, name) {
            (SOL_IP, abi::IP_ADD_MEMBERSHIP | abi::IP_DROP_MEMBERSHIP) => {
                return self.change_group(net, name == abi::IP_ADD_MEMBERSHIP, v4_group(net, value)?);
            }
            (SOL_IPV6, abi::IPV6_ADD_MEMBERSHIP | abi::IPV6_DROP_MEMBERSHIP) => {
                return self.change_group(net, name == abi::IPV6_ADD_MEMBERSHIP, v6_group(net, value)?);
            }
            (SOL_IP, abi::IP_MULTICAST_IF) => return self.set_multicast_if(net, value),
            (SOL_IPV6, abi::IPV6_MULTICAST_IF) => {
                let index = value.first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
                check_device(net, index).map_err(|_| Errno::ENODEV)?;
                self.values.lock().multicast_device = index;
                return Ok(());
            }
            (SOL_TCP, abi::TCP_CONGESTION) => {
                let text = value.split(|b| *b == 0).next().unwrap_or_default();
                let at = CONGESTION.iter().position(|c| *c == text).ok_or(Errno::ENOENT)?;
                self.values.lock().congestion = at;
                return Ok(());
            }
            // No protocol (such as TLS) can be put upon TCP here: as with a module that is missing.
            (SOL_TCP, abi::TCP_ULP) => return Err(Errno::ENOENT),
            // Moving a live connection takes CAP_NET_ADMIN; nobody may do it here.
            (SOL_TCP, abi::TCP_REPAIR) => return Err(Errno::EPERM),
            _ => {}
        }
        // Options of IP may be given as a byte (ip(7)); others take a whole int.
        let number = match value {
            // Without a value it is none (`do_ip_setsockopt`).
            [] if (level, name) == (SOL_IP, abi::IP_TOS) => 0,
            [byte] | [byte, _] | [byte, _, _] if level == SOL_IP => i32::from(*byte),
            _ => value.first_chunk().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?,
        };
        if level == SOL_TCP && name == abi::TCP_MAXSEG {
            // TCP_MIN_MSS and MAX_TCP_WINDOW of Linux.
            if number != 0 && !(88..=32767).contains(&number) {
                return Err(Errno::EINVAL);
            }
            self.values.lock().max_segment = number;
            return Ok(());
        }
        // The port table already has the socket as one of both families, or not.
        if name == abi::IPV6_V6ONLY && level == SOL_IPV6 && standing != Standing::Free {
            return Err(Errno::EINVAL);
        }
        if matches!((level, name), (SOL_IP, abi::IP_TRANSPARENT) | (SOL_IPV6, abi::IPV6_TRANSPARENT))
            && number != 0
            && !caller.creds().has_cap_in(&net.user_ns, Cap::NET_ADMIN)
            && !caller.creds().has_cap_in(&net.user_ns, Cap::NET_RAW)
        {
            return Err(Errno::EPERM);
        }
        self.set_number(level, name, kept(protocol, (level, name), number, standing)?)
    }

    fn set_number(&self, level: u32, name: u32, value: i32) -> Result<()> {
        let spec = find(level, name)?;
        // A flag is shown as 0 or 1 whatever was set. TCP_INQ refuses other numbers.
        let value = if (spec.min, spec.max) == (0, 1) && name != abi::TCP_INQ { i32::from(value != 0) } else { value };
        // No packet could leave with it; the least that may be set is 1, and -1 for the default.
        let zero_ttl = (level, name) == (SOL_IP, abi::IP_TTL) && value == 0;
        if value < spec.min || value > spec.max || zero_ttl {
            return Err(Errno::EINVAL);
        }
        self.values.lock().numbers.insert((level, name), value);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::socket::AF_INET;
    use moat_vfs::KernelCaller;

    #[test]
    fn numbers_are_checked_and_shown() {
        let o = InetOptions::new(AF_INET);
        let root = KernelCaller::root(moat_identity::UserNamespace::root());
        let namespace = moat_identity::NetNamespace::new(1, moat_identity::UserNamespace::root());
        let set = |level, name, value: i32| {
            o.set(Protocol::Tcp, &root, &namespace, (level, name), &value.to_ne_bytes(), Standing::Free)
        };
        let get = |level, name| o.get(Protocol::Tcp, level, name, 4, false);
        assert_eq!(set(SOL_TCP, abi::TCP_NODELAY, 7), Ok(()));
        assert_eq!(get(SOL_TCP, abi::TCP_NODELAY), Ok(1i32.to_ne_bytes().to_vec()));
        assert_eq!(set(SOL_TCP, abi::TCP_KEEPCNT, 128), Err(Errno::EINVAL));
        assert_eq!(
            (set(SOL_IP, abi::IP_TTL, -1), get(SOL_IP, abi::IP_TTL)),
            (Ok(()), Ok(64i32.to_ne_bytes().to_vec()))
        );
        assert_eq!(set(SOL_IP, abi::IP_TTL, 0), Err(Errno::EINVAL));
        assert_eq!(get(SOL_UDP, abi::UDP_CORK), Err(Errno::EOPNOTSUPP));
        assert_eq!(set(SOL_IPV6, abi::IPV6_V6ONLY, 1), Err(Errno::ENOPROTOOPT));
        assert_eq!(o.get(Protocol::Tcp, SOL_IP, abi::IP_TTL, 1, false), Ok(vec![64]));
    }
}
