//! NETLINK_ROUTE, rtnetlink(7): links, addresses, routes, neighbours.

mod address;
mod entry;
mod link;
mod neighbour;
mod rule;

use std::net::IpAddr;

use moat_abi::netlink as nl;
use moat_abi::socket::{AF_INET, AF_INET6, AF_UNSPEC};
use moat_abi::{Errno, Result};
use moat_identity::NetNamespace;
use moat_net_inet::configuration::Change;

use crate::message::Answering;
use crate::socket::{Dump, Protocol, Reply, Request};

/// NETLINK_ROUTE.
pub(crate) struct Route;

impl Protocol for Route {
    fn answer(&self, request: &Request<'_>) -> Result<Reply> {
        let done = |()| Reply::Messages(Vec::new());
        // What has not even a family is passed over.
        let Some(&family) = request.body.first() else { return Ok(Reply::Messages(Vec::new())) };
        if request.is_dump() && is_question(request.header.nlmsg_type) {
            return dump(request, family).map(Reply::Dump);
        }
        match request.header.nlmsg_type {
            nl::RTM_GETLINK => link::get(request).map(|m| Reply::Messages(vec![m])),
            nl::RTM_GETROUTE => entry::get(request).map(|m| Reply::Messages(vec![m])),
            nl::RTM_GETADDR | nl::RTM_GETNEIGH | nl::RTM_GETRULE | nl::RTM_GETQDISC | nl::RTM_GETSTATS => {
                Err(Errno::EOPNOTSUPP)
            }
            kind => {
                request.check_admin()?;
                // A link has no family; everything else is of one, and others than IP there are none.
                let of_link = matches!(kind, nl::RTM_NEWLINK | nl::RTM_SETLINK | nl::RTM_DELLINK);
                if !of_link && ![AF_INET, AF_INET6].contains(&family.into()) {
                    return Err(Errno::EOPNOTSUPP);
                }
                match kind {
                    nl::RTM_NEWLINK | nl::RTM_SETLINK => link::set(request).map(done),
                    nl::RTM_DELLINK => link::delete(request).map(done),
                    nl::RTM_NEWADDR => address::add(request).map(done),
                    nl::RTM_DELADDR => address::delete(request).map(done),
                    nl::RTM_NEWROUTE => entry::add(request).map(done),
                    nl::RTM_DELROUTE => entry::delete(request).map(done),
                    nl::RTM_NEWNEIGH => neighbour::add(request).map(done),
                    nl::RTM_DELNEIGH => neighbour::delete(request).map(done),
                    _ => Err(Errno::EOPNOTSUPP),
                }
            }
        }
    }

    fn tell(&self, net: &NetNamespace, group: u32, change: &Change) -> Option<Vec<u8>> {
        let to = Answering::default();
        let group_of = |ip: IpAddr, v4, v6| if ip.is_ipv4() { v4 } else { v6 };
        let concerns = match change {
            Change::Link(_) | Change::LinkGone(_) => nl::RTNLGRP_LINK,
            Change::Address(_, a) | Change::AddressGone(_, a) => {
                group_of(a.ip, nl::RTNLGRP_IPV4_IFADDR, nl::RTNLGRP_IPV6_IFADDR)
            }
            Change::Route(r) | Change::RouteGone(r) => {
                group_of(r.destination, nl::RTNLGRP_IPV4_ROUTE, nl::RTNLGRP_IPV6_ROUTE)
            }
        };
        // Told as if somebody had asked for the one object: with sequence number and port 0.
        (group == concerns).then(|| match change {
            Change::Link(d) => link::message(net, (nl::RTM_NEWLINK, 0, to), d),
            Change::LinkGone(d) => link::message(net, (nl::RTM_DELLINK, 0, to), d),
            Change::Address(d, a) => address::message((nl::RTM_NEWADDR, 0, to), d, a),
            Change::AddressGone(d, a) => address::message((nl::RTM_DELADDR, 0, to), d, a),
            Change::Route(r) => entry::message((nl::RTM_NEWROUTE, 0, to), r),
            Change::RouteGone(r) => entry::message((nl::RTM_DELROUTE, 0, to), r),
        })
    }
}

/// How a message begins: type, flags, and whom it answers.
type Head = (u16, u16, Answering);

/// Whether a type asks, by its last two bits (`rtnl_msgtype`).
fn is_question(kind: u16) -> bool {
    kind & 3 == 2
}

fn dump(request: &Request<'_>, family: u8) -> Result<Dump> {
    let (net, to) = (request.net.clone(), request.to);
    let head = move |kind| (kind, nl::NLM_F_MULTI, to);
    let wanted = families(family);
    Ok(match request.header.nlmsg_type {
        nl::RTM_GETLINK => {
            let devices = net.devices();
            Box::new(devices.into_iter().map(move |d| link::message(&net, head(nl::RTM_NEWLINK), &d)))
        }
        nl::RTM_GETADDR => {
            let devices = net.devices();
            let mut all = Vec::new();
            for family in wanted {
                for d in &devices {
                    let fitting = d.addresses.iter().filter(|a| family_of(a.ip) == family);
                    all.extend(fitting.map(|a| (d.clone(), *a)));
                }
            }
            Box::new(all.into_iter().map(move |(d, a)| address::message(head(nl::RTM_NEWADDR), &d, &a)))
        }
        nl::RTM_GETROUTE => {
            let mut routes = net.routes();
            routes.retain(|r| wanted.contains(&family_of(r.destination)));
            // Those of IPv4 first, as Linux goes through families by number.
            routes.sort_by_key(|r| !r.destination.is_ipv4());
            Box::new(routes.into_iter().map(move |r| entry::message(head(nl::RTM_NEWROUTE), &r)))
        }
        nl::RTM_GETNEIGH => {
            let mut all = neighbour::list(&net);
            all.retain(|n| wanted.contains(&family_of(n.address)));
            Box::new(all.into_iter().map(move |n| neighbour::message(head(nl::RTM_NEWNEIGH), &n)))
        }
        nl::RTM_GETRULE => Box::new(rule::all(&wanted, head(nl::RTM_NEWRULE)).into_iter()),
        nl::RTM_GETQDISC => {
            let devices = net.devices();
            Box::new(devices.into_iter().map(move |d| link::discipline(head(nl::RTM_NEWQDISC), &d)))
        }
        _ => return Err(Errno::EOPNOTSUPP),
    })
}

/// The families that a dump for `family` shows.
fn families(family: u8) -> Vec<u16> {
    match u16::from(family) {
        AF_UNSPEC => vec![AF_INET, AF_INET6],
        f @ (AF_INET | AF_INET6) => vec![f],
        _ => Vec::new(),
    }
}

fn family_of(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn family_byte(ip: IpAddr) -> u8 {
    u8::try_from(family_of(ip)).unwrap_or(0)
}

fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// An address of `family` in an attribute.
///
/// # Errors
/// EINVAL for a wrong length; EOPNOTSUPP for other families.
fn ip(family: u8, value: &[u8]) -> Result<IpAddr> {
    match u16::from(family) {
        AF_INET => <[u8; 4]>::try_from(value).map(IpAddr::from).map_err(|_| Errno::EINVAL),
        AF_INET6 => <[u8; 16]>::try_from(value).map(IpAddr::from).map_err(|_| Errno::EINVAL),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// The number of a device in a message.
///
/// # Errors
/// ENODEV.
fn device_number(index: i32) -> Result<u32> {
    u32::try_from(index).map_err(|_| Errno::ENODEV)
}
