//! Addresses: `sockaddr_in` and `sockaddr_in6` from and to [`SocketAddr`].
//!
//! Inside, an IPv4 address is always [`IpAddr::V4`]; a socket of AF_INET6 shows it as `::ffff:a.b.c.d`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use moat_abi::socket::{AF_INET, AF_INET6, AF_UNSPEC, SIN6_LEN_RFC2133, SockaddrIn, SockaddrIn6};
use moat_abi::{Errno, Result};
use moat_vfs::socket::{SockAddr, family_of};
use zerocopy::{FromBytes, IntoBytes};

/// Decodes an address given to a socket of `family`.
///
/// # Errors
/// EINVAL for one that is too short; EAFNOSUPPORT for another family.
pub fn parse(family: u16, addr: &[u8]) -> Result<SocketAddr> {
    let given = family_of(addr).ok_or(Errno::EINVAL)?;
    // Length, then family: the order of the checks decides between EINVAL and EAFNOSUPPORT.
    match family {
        AF_INET => {
            let (a, _) = SockaddrIn::read_from_prefix(addr).map_err(|_| Errno::EINVAL)?;
            if given != AF_INET {
                return Err(Errno::EAFNOSUPPORT);
            }
            Ok(SocketAddr::new(Ipv4Addr::from(a.sin_addr).into(), a.port()))
        }
        _ => {
            if addr.len() < SIN6_LEN_RFC2133 {
                return Err(Errno::EINVAL);
            }
            if given != AF_INET6 {
                return Err(Errno::EAFNOSUPPORT);
            }
            // Callers of the time before RFC 2553 have no scope id; it is zero then.
            let mut bytes = [0; size_of::<SockaddrIn6>()];
            let n = addr.len().min(bytes.len());
            bytes[..n].copy_from_slice(&addr[..n]);
            let a = SockaddrIn6::read_from_bytes(&bytes).map_err(|_| Errno::EINVAL)?;
            Ok(SocketAddr::new(Ipv6Addr::from(a.sin6_addr).to_canonical(), a.port()))
        }
    }
}

/// Decodes an address given to a datagram socket of `family`: one of AF_INET6 takes those of AF_INET as well.
///
/// # Errors
/// As [`parse`].
pub fn parse_for_datagram(family: u16, addr: &[u8]) -> Result<SocketAddr> {
    parse(if family_of(addr) == Some(AF_INET) { AF_INET } else { family }, addr)
}

/// Decodes an address for bind(2), where AF_UNSPEC with the any address passes for AF_INET.
///
/// # Errors
/// As [`parse`].
pub fn parse_for_bind(family: u16, addr: &[u8]) -> Result<SocketAddr> {
    // Old programs leave the family out (`__inet_bind`).
    if family == AF_INET
        && family_of(addr) == Some(AF_UNSPEC)
        && let Ok((a, _)) = SockaddrIn::read_from_prefix(addr)
        && a.sin_addr == [0; 4]
    {
        return Ok(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), a.port()));
    }
    parse(family, addr)
}

/// Encodes an address for a socket of `family`.
#[must_use]
pub fn format(family: u16, addr: SocketAddr) -> SockAddr {
    let port = addr.port().to_be_bytes();
    match (family, addr.ip()) {
        (AF_INET, IpAddr::V4(ip)) => SockAddr::new(
            SockaddrIn { sin_family: AF_INET, sin_port: port, sin_addr: ip.octets(), sin_zero: [0; 8] }.as_bytes(),
        ),
        // An IPv6 address has no form in this family.
        (AF_INET, IpAddr::V6(_)) => SockAddr::unnamed(AF_INET),
        (_, ip) => {
            let ip = match ip {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let a = SockaddrIn6 {
                sin6_family: AF_INET6,
                sin6_port: port,
                sin6_addr: ip.octets(),
                ..SockaddrIn6::default()
            };
            SockAddr::new(a.as_bytes())
        }
    }
}

/// The any address of a family.
#[must_use]
pub fn any(family: u16) -> IpAddr {
    if family == AF_INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Whether an address is one of `lo`'s.
#[must_use]
pub fn is_local(ip: IpAddr) -> bool {
    match ip {
        // 127.255.255.255 is the net's broadcast address.
        IpAddr::V4(v4) => v4.is_loopback() && v4 != Ipv4Addr::new(127, 255, 255, 255),
        IpAddr::V6(v6) => v6 == Ipv6Addr::LOCALHOST,
    }
}

/// How a socket reaches an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The address: the loopback's in place of the any address.
    pub to: IpAddr,
    /// The address that packets come from, unless the socket has one.
    pub source: IpAddr,
    /// It is one of the namespace's own: what is sent stays in memory.
    pub local: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mapped_address_is_ipv4_inside() {
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), 80);
        let shown = format(AF_INET6, mapped);
        let back = parse(AF_INET6, shown.as_bytes()).unwrap();
        assert_eq!(back, "127.0.0.1:80".parse().unwrap());
        assert_eq!(format(AF_INET6, back).as_bytes(), shown.as_bytes());
        assert_eq!((format(AF_INET, back).as_bytes().len(), shown.as_bytes().len()), (16, 28));
    }
}
