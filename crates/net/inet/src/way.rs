//! Where an address leads from a socket: to another one in memory, or over the stack's links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::{Errno, Result};

use crate::address::{Way, is_local};
use crate::device::LO_INDEX;
use crate::ports::Net;

impl Net {
    /// Whether an address is the namespace's own.
    #[must_use]
    pub fn owns(&self, ip: IpAddr) -> bool {
        (is_local(ip) && self.namespace.is_loopback_up())
            || self.stack().is_some_and(|s| s.change(|s| s.routes().is_local(ip)))
    }

    /// Whether a socket may be bound to an address.
    ///
    /// # Errors
    /// EADDRNOTAVAIL.
    pub fn check_bindable(&self, ip: IpAddr) -> Result<()> {
        // Not a source, but it may be received on.
        let broadcast = || {
            ip == IpAddr::V4(Ipv4Addr::BROADCAST)
                || ip == IpAddr::V4(Ipv4Addr::new(127, 255, 255, 255))
                || self.stack().is_some_and(|s| s.change(|s| s.routes().is_broadcast(ip)))
        };
        if ip.is_unspecified() || ip.is_multicast() || self.owns(ip) || broadcast() {
            Ok(())
        } else {
            Err(Errno::EADDRNOTAVAIL)
        }
    }

    /// Where an address leads. `device`: the only link that may be used. `own`: the address that the socket has.
    ///
    /// # Errors
    /// ENETUNREACH and the errors of routes; EAFNOSUPPORT from an IPv4 address to one of IPv6; EINVAL from a loopback address to another
    /// host.
    pub fn way(&self, to: IpAddr, v6_only: bool, device: Option<u32>, own: Option<IpAddr>) -> Result<Way> {
        // The any address says nothing about the source.
        let own = own.filter(|ip| !ip.is_unspecified());
        let (to, loopback): (IpAddr, IpAddr) = match to {
            // A socket of both families that has an address speaks the one of that alone.
            IpAddr::V4(_) if own.is_some_and(|ip| ip.is_ipv6()) => return Err(Errno::ENETUNREACH),
            IpAddr::V6(v6) if own.is_some_and(|ip| ip.is_ipv4()) => {
                if !v6.is_unspecified() {
                    return Err(Errno::EAFNOSUPPORT);
                }
                (Ipv4Addr::LOCALHOST.into(), Ipv4Addr::LOCALHOST.into())
            }
            // There is no such peer for a socket that speaks IPv6 alone.
            IpAddr::V4(_) if v6_only => return Err(Errno::ENETUNREACH),
            IpAddr::V4(v4) => {
                // The any address as a destination is this host (`ip_route_output_key_hash`).
                (if v4.is_unspecified() { Ipv4Addr::LOCALHOST } else { v4 }.into(), Ipv4Addr::LOCALHOST.into())
            }
            IpAddr::V6(v6) => {
                (if v6.is_unspecified() { Ipv6Addr::LOCALHOST } else { v6 }.into(), Ipv6Addr::LOCALHOST.into())
            }
        };
        if is_local(to) && self.namespace.is_loopback_up() {
            return Ok(Way { to, source: loopback, local: true });
        }
        let stack = self.stack().ok_or(Errno::ENETUNREACH)?;
        let path = stack.change(|s| s.path(to, device, own))?;
        let local = path.kind == moat_net_stack::route::Destination::Local;
        // A packet with a loopback source must not leave the host.
        if !local && path.link != LO_INDEX && path.source.is_loopback() {
            return Err(Errno::EINVAL);
        }
        Ok(Way { to, source: path.source, local })
    }
}
