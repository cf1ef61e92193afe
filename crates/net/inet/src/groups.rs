//! Multicast groups of a socket: who joins and leaves them, and over which device.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::socket as abi;
use moat_abi::socket::{IpMreq, IpMreqn, Ipv6Mreq, SOL_IP};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use zerocopy::FromBytes;

use crate::address::is_local;
use crate::device::LO_INDEX;
use crate::options::InetOptions;
use crate::stack::stack_of;

/// Groups that one socket may join (`net.ipv4.igmp_max_memberships`).
const MOST_GROUPS: usize = 20;

impl InetOptions {
    /// Whether the socket takes what comes to a group over a device.
    #[must_use]
    pub fn takes_group(&self, device: u32, group: IpAddr) -> bool {
        let all = group.is_ipv4() && self.number(SOL_IP, abi::IP_MULTICAST_ALL) != 0;
        all || self.values.lock().groups.contains(&(device, group))
    }

    /// The link and the address that a datagram to a group is sent with where the socket names none (IP_MULTICAST_IF).
    #[must_use]
    pub fn group_way(&self, to: IpAddr) -> (Option<u32>, Option<IpAddr>) {
        if !to.is_multicast() {
            return (None, None);
        }
        let values = self.values.lock();
        let address = Ipv4Addr::from(values.multicast_if);
        let source = (to.is_ipv4() && !address.is_unspecified()).then_some(address.into());
        (Some(values.multicast_device).filter(|d| *d != 0), source)
    }

    /// Leaves all groups: the socket is closed.
    pub fn leave_groups(&self, net: &NetNamespace) {
        // Taken out first, since the stack's lock may not be taken with the options locked.
        let groups = std::mem::take(&mut self.values.lock().groups);
        if let Some(stack) = stack_of(net).filter(|_| !groups.is_empty()) {
            stack.with(|s| groups.iter().for_each(|(device, group)| s.leave_group(*device, *group)));
        }
    }

    /// Joins or leaves a group.
    ///
    /// # Errors
    /// EADDRINUSE, EADDRNOTAVAIL, ENOBUFS.
    pub(crate) fn change_group(&self, net: &NetNamespace, join: bool, group: (u32, IpAddr)) -> Result<()> {
        // The table decides on its own: two threads that join one group must not both succeed.
        {
            let groups = &mut self.values.lock().groups;
            let at = groups.iter().position(|g| *g == group);
            match (join, at) {
                (true, Some(_)) => return Err(Errno::EADDRINUSE),
                (true, None) if groups.len() >= MOST_GROUPS => return Err(Errno::ENOBUFS),
                (true, None) => groups.push(group),
                (false, None) => return Err(Errno::EADDRNOTAVAIL),
                (false, Some(at)) => {
                    groups.remove(at);
                }
            }
        }
        let Some(stack) = stack_of(net) else { return Ok(()) };
        // The lock of the options is given up: `with` may call sockets.
        if !join {
            stack.with(|s| s.leave_group(group.0, group.1));
        } else if !stack.with(|s| s.join_group(group.0, group.1)) {
            // The stack has no room for another group: the entry goes again.
            self.values.lock().groups.retain(|g| *g != group);
            return Err(Errno::ENOBUFS);
        }
        Ok(())
    }

    /// IP_MULTICAST_IF.
    ///
    /// # Errors
    /// EINVAL, EADDRNOTAVAIL.
    pub(crate) fn set_multicast_if(&self, net: &NetNamespace, value: &[u8]) -> Result<()> {
        // By length: the three structs that IP_MULTICAST_IF takes begin differently.
        let (address, index) = if let Ok((m, _)) = IpMreqn::read_from_prefix(value) {
            (m.imr_address, m.imr_ifindex)
        } else if let Ok((m, _)) = IpMreq::read_from_prefix(value) {
            (m.imr_interface, 0)
        } else {
            (*value.first_chunk().ok_or(Errno::EINVAL)?, 0)
        };
        let index = u32::try_from(index).map_err(|_| Errno::EADDRNOTAVAIL)?;
        check_device(net, index)?;
        // The number wins over the address (`do_ip_setsockopt`).
        let device = match (index, address) {
            (0, [0, 0, 0, 0]) => 0,
            (0, address) => owner(net, Ipv4Addr::from(address).into()).ok_or(Errno::EADDRNOTAVAIL)?,
            (index, _) => index,
        };
        let mut values = self.values.lock();
        values.multicast_if = address;
        values.multicast_device = device;
        Ok(())
    }
}

/// The number of a device by its name.
pub(crate) fn device_named(net: &NetNamespace, name: &[u8]) -> Option<u32> {
    net.devices().iter().find(|d| d.name.as_bytes() == name).map(|d| d.index)
}

/// Whether there is a device of a number; 0 stands for any.
pub(crate) fn check_device(net: &NetNamespace, index: u32) -> Result<()> {
    let known = index == 0 || net.device(index).is_some();
    if known { Ok(()) } else { Err(Errno::EADDRNOTAVAIL) }
}

/// The device that has an address.
fn owner(net: &NetNamespace, ip: IpAddr) -> Option<u32> {
    if is_local(ip) {
        return Some(LO_INDEX);
    }
    net.devices().iter().find(|d| d.addresses.iter().any(|a| a.ip == ip)).map(|d| d.index)
}

/// The device over which a group is joined that no device was named for: that of the route there.
fn route_to(net: &NetNamespace, group: IpAddr) -> Result<u32> {
    let path = stack_of(net).and_then(|s| s.change(|s| s.path(group, None, None)).ok());
    path.map(|p| p.link).ok_or(Errno::ENODEV)
}

/// The group of an `ip_mreq` or `ip_mreqn`, with its device.
pub(crate) fn v4_group(net: &NetNamespace, value: &[u8]) -> Result<(u32, IpAddr)> {
    let (group, address, index) = if let Ok((m, _)) = IpMreqn::read_from_prefix(value) {
        (m.imr_multiaddr, m.imr_address, m.imr_ifindex)
    } else {
        let (m, _) = IpMreq::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
        (m.imr_multiaddr, m.imr_interface, 0)
    };
    let group = Ipv4Addr::from(group);
    if !group.is_multicast() {
        return Err(Errno::EINVAL);
    }
    let index = u32::try_from(index).map_err(|_| Errno::ENODEV)?;
    // Membership of an unknown device is ENODEV, where IP_MULTICAST_IF has EADDRNOTAVAIL.
    check_device(net, index).map_err(|_| Errno::ENODEV)?;
    let device = match (index, address) {
        (0, [0, 0, 0, 0]) => route_to(net, group.into())?,
        (0, address) => owner(net, Ipv4Addr::from(address).into()).ok_or(Errno::ENODEV)?,
        (index, _) => index,
    };
    Ok((device, group.into()))
}

/// The group of an `ipv6_mreq`, with its device.
pub(crate) fn v6_group(net: &NetNamespace, value: &[u8]) -> Result<(u32, IpAddr)> {
    let (m, _) = Ipv6Mreq::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    let group = Ipv6Addr::from(m.ipv6mr_multiaddr);
    if !group.is_multicast() {
        return Err(Errno::EINVAL);
    }
    let index = u32::try_from(m.ipv6mr_ifindex).map_err(|_| Errno::ENODEV)?;
    check_device(net, index).map_err(|_| Errno::ENODEV)?;
    let device = if index == 0 { route_to(net, group.into())? } else { index };
    Ok((device, group.into()))
}
