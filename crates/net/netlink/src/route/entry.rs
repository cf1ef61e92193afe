//! Routes: RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use moat_abi::netlink as nl;
use moat_abi::netlink::{NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Rtmsg};
use moat_abi::socket::AF_INET;
use moat_abi::{Errno, Result};
use moat_identity::net::Route;
use moat_net_inet::configuration;
use moat_net_inet::stack::stack_of;
use moat_net_stack::configure::{IfPresent, RouteKey};
use moat_net_stack::route::Destination;
use moat_net_stack::{RouteConfig, RouteKind};
use zerocopy::IntoBytes;

use super::{Head, family_byte, ip, octets};
use crate::message::{Message, number, parse};
use crate::socket::Request;

/// `IP6_RT_PRIO_USER`: the metric of IPv6's routes that say none.
const METRIC_USER: u32 = 1024;

/// What a request says of a route.
struct Wanted {
    info: Rtmsg,
    destination: IpAddr,
    gateway: Option<IpAddr>,
    link: Option<u32>,
    source: Option<IpAddr>,
    metric: Option<u32>,
    table: u32,
}

fn wanted(body: &[u8]) -> Result<Wanted> {
    let (info, attributes) = parse::<Rtmsg>(body)?;
    let any: IpAddr =
        if u16::from(info.rtm_family) == AF_INET { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let mut w = Wanted {
        info,
        destination: any,
        gateway: None,
        link: None,
        source: None,
        metric: None,
        table: u32::from(if info.rtm_table == nl::RT_TABLE_UNSPEC { nl::RT_TABLE_MAIN } else { info.rtm_table }),
    };
    for (kind, value) in attributes {
        match kind {
            nl::RTA_DST => w.destination = ip(info.rtm_family, value)?,
            nl::RTA_GATEWAY => w.gateway = Some(ip(info.rtm_family, value)?),
            nl::RTA_OIF => w.link = Some(number(value)?),
            nl::RTA_PREFSRC => w.source = Some(ip(info.rtm_family, value)?),
            nl::RTA_PRIORITY => w.metric = Some(number(value)?),
            nl::RTA_TABLE => w.table = number(value)?,
            // Several next hops, and encapsulations.
            nl::RTA_MULTIPATH | nl::RTA_VIA | nl::RTA_ENCAP => return Err(Errno::EOPNOTSUPP),
            _ => {}
        }
    }
    Ok(w)
}

fn kind_of(kind: u8) -> Result<RouteKind> {
    match kind {
        nl::RTN_UNSPEC | nl::RTN_UNICAST => Ok(RouteKind::Unicast),
        nl::RTN_BLACKHOLE => Ok(RouteKind::Blackhole),
        nl::RTN_UNREACHABLE => Ok(RouteKind::Unreachable),
        nl::RTN_PROHIBIT => Ok(RouteKind::Prohibit),
        // The table `local` follows from the addresses.
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// RTM_NEWROUTE.
///
/// # Errors
/// Those of [`moat_net_stack::Stack::add_route`]; EOPNOTSUPP.
pub(super) fn add(request: &Request<'_>) -> Result<()> {
    let w = wanted(request.body)?;
    let kind = kind_of(w.info.rtm_type)?;
    let v4 = w.destination.is_ipv4();
    // Nowhere to send to. The other kinds send nothing.
    if kind == RouteKind::Unicast && w.gateway.is_none() && w.link.is_none() {
        return Err(Errno::ENODEV);
    }
    let flags = request.header.nlmsg_flags;
    let has = |flag| flags & flag != 0;
    let present = match () {
        () if has(NLM_F_REPLACE) && !has(NLM_F_EXCL) => IfPresent::Replace { create: has(NLM_F_CREATE) },
        // IPv6 only warns of such a request.
        () if v4 && !has(NLM_F_CREATE) => IfPresent::Nothing,
        () if has(NLM_F_EXCL) => IfPresent::Refuse,
        () if has(NLM_F_APPEND) => IfPresent::Append,
        () => IfPresent::Prepend,
    };
    let route = RouteConfig {
        destination: w.destination,
        prefix_len: w.info.rtm_dst_len,
        gateway: w.gateway,
        link: w.link.unwrap_or(0),
        preferred_source: w.source,
        // IPv6 takes 0 for "unset" and has a default (`IP6_RT_PRIO_USER`); for IPv4 it is a metric like others.
        metric: w.metric.filter(|m| v4 || *m != 0).unwrap_or(if v4 { 0 } else { METRIC_USER }),
        scope: w.info.rtm_scope,
        protocol: w.info.rtm_protocol,
        table: w.table,
        kind,
        on_link: w.info.rtm_flags & nl::RTNH_F_ONLINK != 0,
        mtu: None,
    };
    configuration::change(request.net, |stack| stack.change(|s| s.add_route(route, present)))
}

/// RTM_DELROUTE.
///
/// # Errors
/// ESRCH.
pub(super) fn delete(request: &Request<'_>) -> Result<()> {
    let w = wanted(request.body)?;
    let key = RouteKey {
        destination: w.destination,
        prefix_len: w.info.rtm_dst_len,
        table: w.table,
        gateway: w.gateway,
        link: w.link,
        metric: w.metric,
        kind: if w.info.rtm_type == nl::RTN_UNSPEC { None } else { Some(kind_of(w.info.rtm_type)?) },
    };
    configuration::change(request.net, |stack| stack.change(|s| s.remove_route(&key)))
}

/// The way to one destination, as `ip route get` asks for it.
///
/// # Errors
/// EINVAL for a request without a destination; ENETUNREACH and the errors of routes.
pub(super) fn get(request: &Request<'_>) -> Result<Vec<u8>> {
    let w = wanted(request.body)?;
    let to = w.destination;
    if w.info.rtm_dst_len == 0 && to.is_unspecified() {
        return Err(Errno::EINVAL);
    }
    let stack = stack_of(request.net).ok_or(Errno::ENETUNREACH)?;
    let path = stack.change(|s| s.path(to, w.link, None))?;
    let table = u32::from(if path.kind == Destination::Unicast { nl::RT_TABLE_MAIN } else { nl::RT_TABLE_LOCAL });
    let answer = Rtmsg {
        rtm_family: family_byte(to),
        rtm_dst_len: if to.is_ipv4() { 32 } else { 128 },
        rtm_table: u8::try_from(table).unwrap_or(0),
        rtm_type: match path.kind {
            Destination::Local => nl::RTN_LOCAL,
            Destination::Unicast => nl::RTN_UNICAST,
            Destination::Multicast => nl::RTN_MULTICAST,
            Destination::Broadcast => nl::RTN_BROADCAST,
        },
        // An answer about one destination, not an entry of the table.
        rtm_flags: nl::RTM_F_CLONED,
        ..Rtmsg::default()
    };
    let mut m = Message::new(nl::RTM_NEWROUTE, 0, request.to)
        .body(answer.as_bytes())
        .attr_u32(nl::RTA_TABLE, table)
        .attr(nl::RTA_DST, &octets(to))
        .attr_u32(nl::RTA_OIF, path.link)
        .attr(nl::RTA_PREFSRC, &octets(path.source));
    if path.next_hop != to {
        m = m.attr(nl::RTA_GATEWAY, &octets(path.next_hop));
    }
    Ok(m.finish())
}

/// A route.
pub(super) fn message((kind, flags, to): Head, r: &Route) -> Vec<u8> {
    let info = Rtmsg {
        rtm_family: family_byte(r.destination),
        rtm_dst_len: r.prefix_len,
        // Larger numbers stand in the attribute alone.
        rtm_table: u8::try_from(r.table).unwrap_or(nl::RT_TABLE_COMPAT),
        rtm_protocol: r.protocol,
        rtm_scope: r.scope,
        rtm_type: r.kind,
        ..Rtmsg::default()
    };
    let mut m = Message::new(kind, flags, to).body(info.as_bytes()).attr_u32(nl::RTA_TABLE, r.table);
    if r.prefix_len > 0 {
        m = m.attr(nl::RTA_DST, &octets(r.destination));
    }
    if let Some(gateway) = r.gateway {
        m = m.attr(nl::RTA_GATEWAY, &octets(gateway));
    }
    if let Some(source) = r.source {
        m = m.attr(nl::RTA_PREFSRC, &octets(source));
    }
    if r.metric > 0 {
        m = m.attr_u32(nl::RTA_PRIORITY, r.metric);
    }
    if r.device != 0 {
        m = m.attr_u32(nl::RTA_OIF, r.device);
    }
    m.finish()
}
