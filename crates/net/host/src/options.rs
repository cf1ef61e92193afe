//! The socket options that reach the host.
//!
//! Everything else of SOL_SOCKET is the sentry's own ([`moat_vfs::socket::SocketCore`]), and of other levels ENOPROTOOPT.
//! No option here has an address, a descriptor or a program in its value. The seccomp filter is built from this table.

use moat_abi::netlink as nl;
use moat_abi::socket as abi;
use moat_abi::socket::{SOL_ICMPV6, SOL_IP, SOL_IPV6, SOL_NETLINK, SOL_RAW, SOL_SOCKET, SOL_TCP, SOL_UDP};
use moat_abi::{Errno, Result};

/// What may be done with an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Access {
    Get,
    Set,
    Both,
}

/// An option that the host is asked about.
#[derive(Clone, Copy, Debug)]
pub struct HostOption {
    /// `SOL_*`.
    pub level: u32,
    /// `SO_*` and so on.
    pub name: u32,
    /// What may be done with it.
    pub access: Access,
    /// Bytes of the longest value that is set; more are cut.
    pub size: usize,
}

impl HostOption {
    /// Whether getsockopt(2) may have it.
    #[must_use]
    pub fn can_get(&self) -> bool {
        self.access != Access::Set
    }

    /// Whether setsockopt(2) may have it.
    #[must_use]
    pub fn can_set(&self) -> bool {
        self.access != Access::Get
    }
}

/// An int that can be read and set.
const fn int(level: u32, name: u32) -> HostOption {
    HostOption { level, name, access: Access::Both, size: 4 }
}

/// An option that can only be read.
const fn get(level: u32, name: u32) -> HostOption {
    HostOption { level, name, access: Access::Get, size: 0 }
}

/// An option that can only be set.
const fn set(level: u32, name: u32, size: usize) -> HostOption {
    HostOption { level, name, access: Access::Set, size }
}

/// A value of this many bytes that can be read and set.
const fn value(level: u32, name: u32, size: usize) -> HostOption {
    HostOption { level, name, access: Access::Both, size }
}

/// `struct group_req` and `struct group_source_req`.
const GROUP_REQ: usize = 136;
const GROUP_SOURCE_REQ: usize = 264;

/// The options.
pub const HOST_OPTIONS: &[HostOption] = &[
    int(SOL_SOCKET, abi::SO_REUSEADDR),
    get(SOL_SOCKET, abi::SO_ERROR),
    int(SOL_SOCKET, abi::SO_DONTROUTE),
    int(SOL_SOCKET, abi::SO_BROADCAST),
    int(SOL_SOCKET, abi::SO_SNDBUF),
    int(SOL_SOCKET, abi::SO_RCVBUF),
    int(SOL_SOCKET, abi::SO_KEEPALIVE),
    int(SOL_SOCKET, abi::SO_OOBINLINE),
    int(SOL_SOCKET, abi::SO_NO_CHECK),
    int(SOL_SOCKET, abi::SO_PRIORITY),
    // Only for the reset at close: `HostSocket::set_linger`.
    set(SOL_SOCKET, abi::SO_LINGER, 8),
    int(SOL_SOCKET, abi::SO_REUSEPORT),
    int(SOL_SOCKET, abi::SO_RCVLOWAT),
    // The host takes it from anybody for a socket that is bound to no device yet.
    value(SOL_SOCKET, abi::SO_BINDTODEVICE, abi::IFNAMSIZ),
    int(SOL_SOCKET, abi::SO_TIMESTAMP),
    get(SOL_SOCKET, abi::SO_ACCEPTCONN),
    int(SOL_SOCKET, abi::SO_TIMESTAMPNS),
    int(SOL_SOCKET, abi::SO_RXQ_OVFL),
    int(SOL_SOCKET, abi::SO_SELECT_ERR_QUEUE),
    value(SOL_SOCKET, abi::SO_MAX_PACING_RATE, 8),
    get(SOL_SOCKET, abi::SO_INCOMING_CPU),
    get(SOL_SOCKET, abi::SO_MEMINFO),
    get(SOL_SOCKET, abi::SO_INCOMING_NAPI_ID),
    int(SOL_SOCKET, abi::SO_BINDTOIFINDEX),
    int(SOL_SOCKET, abi::SO_TIMESTAMP_NEW),
    int(SOL_SOCKET, abi::SO_TIMESTAMPNS_NEW),
    int(SOL_IP, abi::IP_TOS),
    int(SOL_IP, abi::IP_TTL),
    int(SOL_IP, abi::IP_HDRINCL),
    // Setting them is source routing.
    get(SOL_IP, abi::IP_OPTIONS),
    int(SOL_IP, abi::IP_RECVOPTS),
    int(SOL_IP, abi::IP_RETOPTS),
    int(SOL_IP, abi::IP_PKTINFO),
    int(SOL_IP, abi::IP_MTU_DISCOVER),
    int(SOL_IP, abi::IP_RECVERR),
    int(SOL_IP, abi::IP_RECVTTL),
    int(SOL_IP, abi::IP_RECVTOS),
    get(SOL_IP, abi::IP_MTU),
    int(SOL_IP, abi::IP_FREEBIND),
    get(SOL_IP, abi::IP_TRANSPARENT),
    int(SOL_IP, abi::IP_ORIGDSTADDR),
    int(SOL_IP, abi::IP_MINTTL),
    int(SOL_IP, abi::IP_BIND_ADDRESS_NO_PORT),
    int(SOL_IP, abi::IP_RECVFRAGSIZE),
    int(SOL_IP, abi::IP_RECVERR_RFC4884),
    value(SOL_IP, abi::IP_MULTICAST_IF, 12),
    int(SOL_IP, abi::IP_MULTICAST_TTL),
    int(SOL_IP, abi::IP_MULTICAST_LOOP),
    set(SOL_IP, abi::IP_ADD_MEMBERSHIP, 12),
    set(SOL_IP, abi::IP_DROP_MEMBERSHIP, 12),
    set(SOL_IP, abi::IP_UNBLOCK_SOURCE, 12),
    set(SOL_IP, abi::IP_BLOCK_SOURCE, 12),
    set(SOL_IP, abi::IP_ADD_SOURCE_MEMBERSHIP, 12),
    set(SOL_IP, abi::IP_DROP_SOURCE_MEMBERSHIP, 12),
    set(SOL_IP, abi::MCAST_JOIN_GROUP, GROUP_REQ),
    set(SOL_IP, abi::MCAST_BLOCK_SOURCE, GROUP_SOURCE_REQ),
    set(SOL_IP, abi::MCAST_UNBLOCK_SOURCE, GROUP_SOURCE_REQ),
    set(SOL_IP, abi::MCAST_LEAVE_GROUP, GROUP_REQ),
    set(SOL_IP, abi::MCAST_JOIN_SOURCE_GROUP, GROUP_SOURCE_REQ),
    set(SOL_IP, abi::MCAST_LEAVE_SOURCE_GROUP, GROUP_SOURCE_REQ),
    int(SOL_IP, abi::IP_MULTICAST_ALL),
    int(SOL_IP, abi::IP_UNICAST_IF),
    int(SOL_IP, abi::IP_LOCAL_PORT_RANGE),
    get(SOL_IP, abi::IP_PROTOCOL),
    int(SOL_TCP, abi::TCP_NODELAY),
    int(SOL_TCP, abi::TCP_MAXSEG),
    int(SOL_TCP, abi::TCP_CORK),
    int(SOL_TCP, abi::TCP_KEEPIDLE),
    int(SOL_TCP, abi::TCP_KEEPINTVL),
    int(SOL_TCP, abi::TCP_KEEPCNT),
    int(SOL_TCP, abi::TCP_SYNCNT),
    int(SOL_TCP, abi::TCP_LINGER2),
    int(SOL_TCP, abi::TCP_DEFER_ACCEPT),
    int(SOL_TCP, abi::TCP_WINDOW_CLAMP),
    get(SOL_TCP, abi::TCP_INFO),
    int(SOL_TCP, abi::TCP_QUICKACK),
    // The host gives an unprivileged process the algorithms of `net.ipv4.tcp_allowed_congestion_control`.
    value(SOL_TCP, abi::TCP_CONGESTION, 16),
    int(SOL_TCP, abi::TCP_THIN_LINEAR_TIMEOUTS),
    int(SOL_TCP, abi::TCP_USER_TIMEOUT),
    int(SOL_TCP, abi::TCP_FASTOPEN),
    int(SOL_TCP, abi::TCP_TIMESTAMP),
    int(SOL_TCP, abi::TCP_NOTSENT_LOWAT),
    get(SOL_TCP, abi::TCP_CC_INFO),
    int(SOL_TCP, abi::TCP_SAVE_SYN),
    get(SOL_TCP, abi::TCP_SAVED_SYN),
    get(SOL_TCP, abi::TCP_ULP),
    int(SOL_TCP, abi::TCP_INQ),
    int(SOL_UDP, abi::UDP_CORK),
    int(SOL_UDP, abi::UDP_SEGMENT),
    int(SOL_UDP, abi::UDP_GRO),
    int(SOL_IPV6, abi::IPV6_CHECKSUM),
    int(SOL_IPV6, abi::IPV6_UNICAST_HOPS),
    int(SOL_IPV6, abi::IPV6_MULTICAST_IF),
    int(SOL_IPV6, abi::IPV6_MULTICAST_HOPS),
    int(SOL_IPV6, abi::IPV6_MULTICAST_LOOP),
    set(SOL_IPV6, abi::IPV6_ADD_MEMBERSHIP, 20),
    set(SOL_IPV6, abi::IPV6_DROP_MEMBERSHIP, 20),
    int(SOL_IPV6, abi::IPV6_MTU_DISCOVER),
    int(SOL_IPV6, abi::IPV6_MTU),
    int(SOL_IPV6, abi::IPV6_RECVERR),
    int(SOL_IPV6, abi::IPV6_V6ONLY),
    int(SOL_IPV6, abi::IPV6_MULTICAST_ALL),
    int(SOL_IPV6, abi::IPV6_RECVERR_RFC4884),
    set(SOL_IPV6, abi::MCAST_JOIN_GROUP, GROUP_REQ),
    set(SOL_IPV6, abi::MCAST_BLOCK_SOURCE, GROUP_SOURCE_REQ),
    set(SOL_IPV6, abi::MCAST_UNBLOCK_SOURCE, GROUP_SOURCE_REQ),
    set(SOL_IPV6, abi::MCAST_LEAVE_GROUP, GROUP_REQ),
    set(SOL_IPV6, abi::MCAST_JOIN_SOURCE_GROUP, GROUP_SOURCE_REQ),
    set(SOL_IPV6, abi::MCAST_LEAVE_SOURCE_GROUP, GROUP_SOURCE_REQ),
    int(SOL_IPV6, abi::IPV6_RECVPKTINFO),
    value(SOL_IPV6, abi::IPV6_PKTINFO, 20),
    int(SOL_IPV6, abi::IPV6_RECVHOPLIMIT),
    int(SOL_IPV6, abi::IPV6_RECVPATHMTU),
    int(SOL_IPV6, abi::IPV6_DONTFRAG),
    int(SOL_IPV6, abi::IPV6_RECVTCLASS),
    int(SOL_IPV6, abi::IPV6_TCLASS),
    int(SOL_IPV6, abi::IPV6_AUTOFLOWLABEL),
    int(SOL_IPV6, abi::IPV6_ADDR_PREFERENCES),
    int(SOL_IPV6, abi::IPV6_MINHOPCOUNT),
    int(SOL_IPV6, abi::IPV6_RECVORIGDSTADDR),
    get(SOL_IPV6, abi::IPV6_TRANSPARENT),
    int(SOL_IPV6, abi::IPV6_UNICAST_IF),
    int(SOL_IPV6, abi::IPV6_FREEBIND),
    // Which ICMP messages a raw socket receives: a mask of types.
    value(SOL_RAW, abi::ICMP_FILTER, 4),
    value(SOL_ICMPV6, abi::ICMPV6_FILTER, 32),
    set(SOL_NETLINK, nl::NETLINK_ADD_MEMBERSHIP, 4),
    set(SOL_NETLINK, nl::NETLINK_DROP_MEMBERSHIP, 4),
    int(SOL_NETLINK, nl::NETLINK_PKTINFO),
    int(SOL_NETLINK, nl::NETLINK_BROADCAST_ERROR),
    int(SOL_NETLINK, nl::NETLINK_NO_ENOBUFS),
    get(SOL_NETLINK, nl::NETLINK_LIST_MEMBERSHIPS),
    int(SOL_NETLINK, nl::NETLINK_CAP_ACK),
    int(SOL_NETLINK, nl::NETLINK_EXT_ACK),
    int(SOL_NETLINK, nl::NETLINK_GET_STRICT_CHK),
];

fn find(level: u32, name: u32) -> Result<&'static HostOption> {
    HOST_OPTIONS.iter().find(|o| o.level == level && o.name == name).ok_or(Errno::ENOPROTOOPT)
}

/// Whether an option can be read from the host.
///
/// # Errors
/// ENOPROTOOPT.
pub(crate) fn check_get(level: u32, name: u32) -> Result<()> {
    find(level, name).ok().filter(|o| o.can_get()).map(|_| ()).ok_or(Errno::ENOPROTOOPT)
}

/// Whether an option can be set on the host, and how much of the value counts; `None` if the host need not be told.
///
/// # Errors
/// ENOPROTOOPT; EPERM for what takes a privilege that a sandbox never has.
pub(crate) fn check_set(level: u32, name: u32, value: &[u8]) -> Result<Option<usize>> {
    match (level, name) {
        (SOL_IP, abi::IP_TRANSPARENT) | (SOL_IPV6, abi::IPV6_TRANSPARENT) => {
            let off = value.iter().all(|b| *b == 0) && !value.is_empty();
            return if off { Ok(None) } else { Err(Errno::EPERM) };
        }
        (SOL_TCP, abi::TCP_REPAIR) => return Err(Errno::EPERM),
        _ => {}
    }
    find(level, name).ok().filter(|o| o.can_set()).map(|o| Some(o.size)).ok_or(Errno::ENOPROTOOPT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_option_is_listed_twice() {
        for (i, a) in HOST_OPTIONS.iter().enumerate() {
            assert!(!HOST_OPTIONS[..i].iter().any(|b| (a.level, a.name) == (b.level, b.name)), "{a:?}");
            assert_eq!(a.can_set(), a.size > 0, "{a:?}");
        }
    }

    #[test]
    fn programs_and_privileges_are_not_listed() {
        for name in [
            abi::SO_ATTACH_FILTER,
            abi::SO_ATTACH_BPF,
            abi::SO_ATTACH_REUSEPORT_CBPF,
            abi::SO_ATTACH_REUSEPORT_EBPF,
            abi::SO_MARK,
            abi::SO_SNDBUFFORCE,
            abi::SO_ZEROCOPY,
        ] {
            assert_eq!(check_set(SOL_SOCKET, name, &[1, 0, 0, 0]), Err(Errno::ENOPROTOOPT), "{name}");
        }
        assert_eq!(check_set(SOL_IP, abi::IP_TRANSPARENT, &[1, 0, 0, 0]), Err(Errno::EPERM));
        assert_eq!(check_set(SOL_TCP, abi::TCP_MD5SIG, &[0; 216]), Err(Errno::ENOPROTOOPT));
        assert_eq!(check_set(SOL_TCP, abi::TCP_NODELAY, &[1, 0, 0, 0]), Ok(Some(4)));
        assert_eq!(check_get(SOL_IP, abi::IP_ADD_MEMBERSHIP), Err(Errno::ENOPROTOOPT));
    }
}
