//! Datagrams that are sent together (UDP_SEGMENT) and read together (UDP_GRO), and filters of those that come.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use moat_abi::ptrace::SockFilter;
use moat_abi::socket as abi;
use moat_abi::socket::SOL_UDP;
use moat_abi::{Errno, Result};
use moat_bpf::{Loads, Program};
use moat_image::ImageError;
use moat_net_stack::{IpHeader, internet_checksum};
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::{CoreFlags, Outgoing};

use super::arrive::refusal;
use super::{LOOPBACK_BROADCAST, UDP_HEADER, UdpSocket};
use crate::ancillary::Arrived;
use crate::filter::{self, Subject};
use crate::inbox::Datagram;
use crate::raw::{self, RawTable};

/// Datagrams that one call sends at most (`UDP_MAX_SEGMENTS`).
const MOST_SEGMENTS: usize = 128;
/// What the loopback carries in one packet.
const LOOPBACK_MTU: usize = 65_536;
/// The protocols of IP by their numbers of Ethernet.
const ETH_P_IP: u16 = 0x0800;
const ETH_P_IPV6: u16 = 0x86dd;

/// The filter of a socket (SO_ATTACH_FILTER).
#[derive(Default)]
pub(super) struct Filter {
    pub(super) program: Option<Arc<Program>>,
    pub(super) locked: bool,
}

impl Filter {
    pub(super) fn new() -> Mutex<Filter> {
        Mutex::new(LockClass::Leaf, Filter::default())
    }

    /// Its instructions, for an image.
    pub(super) fn save(&self) -> Option<Vec<(u16, u8, u8, u32)>> {
        let program = self.program.as_ref()?;
        Some(program.instructions().iter().map(|i| (i.code, i.jt, i.jf, i.k)).collect())
    }

    /// One out of an image.
    ///
    /// # Errors
    /// What SO_ATTACH_FILTER would not have taken.
    pub(super) fn restore(
        saved: Option<&[(u16, u8, u8, u32)]>,
        locked: bool,
    ) -> std::result::Result<Mutex<Filter>, ImageError> {
        let program = |saved: &[(u16, u8, u8, u32)]| {
            let code = saved.iter().map(|&(code, jt, jf, k)| SockFilter { code, jt, jf, k });
            Program::new(code.collect(), Loads::Packet).map(Arc::new)
        };
        let program = saved.map(program).transpose().map_err(|_| ImageError::state("the filter of a UDP socket"))?;
        Ok(Mutex::new(LockClass::Leaf, Filter { program, locked }))
    }
}

/// The datagrams of so many bytes each that `data` is cut into; one of all without a size.
pub(super) fn parts(data: &[u8], segment: u16) -> Vec<&[u8]> {
    // Nothing is a datagram too.
    if segment == 0 || data.is_empty() { vec![data] } else { data.chunks(usize::from(segment)).collect() }
}

impl UdpSocket {
    /// The size of each datagram that a message is cut into (UDP_SEGMENT, as a control message or an option); 0 for none.
    ///
    /// # Errors
    /// EINVAL for a size that no packet has room for, too many datagrams, or none with checksums.
    pub(super) fn segment_size(&self, message: &Outgoing<'_>, to: SocketAddr, local: bool) -> Result<u16> {
        // The message's own size goes before the socket's.
        let said = message.ancillary.other.iter().find(|c| (c.level, c.kind) == (SOL_UDP, abi::UDP_SEGMENT));
        let size = match said {
            Some(c) if c.data.len() != 2 => return Err(Errno::EINVAL),
            Some(c) => c.data.first_chunk().map_or(0, |b| u16::from_ne_bytes(*b)),
            None => u16::try_from(self.options.number(SOL_UDP, abi::UDP_SEGMENT)).unwrap_or(0),
        };
        let len = message.data.len();
        if size == 0 {
            return Ok(0);
        }
        // No segment is cut again: it has to fit the link.
        let mtu = if local {
            LOOPBACK_MTU
        } else {
            let stack = self.net.stack().ok_or(Errno::ENETUNREACH)?;
            let path = stack.change(|s| s.path(to.ip(), self.options.device(), None))?;
            usize::try_from(path.mtu).unwrap_or(usize::MAX)
        };
        let headers = if to.is_ipv4() { 20usize } else { 40 }.saturating_add(UDP_HEADER);
        let too_many = len > usize::from(size).saturating_mul(MOST_SEGMENTS);
        if headers.saturating_add(usize::from(size)) > mtu || too_many || self.core.has(CoreFlags::NO_CHECK) {
            return Err(Errno::EINVAL);
        }
        Ok(size)
    }

    /// Gives datagrams to who has an own address.
    pub(super) fn send_local(
        &self,
        (from, to, connected): (SocketAddr, SocketAddr, bool),
        arrived: Arrived,
        data: &[u8],
        parts: &[&[u8]],
    ) {
        for part in parts {
            self.show_raw(from, to, arrived, part);
        }
        let give = |r: &UdpSocket| {
            // One that is alone has no size to tell.
            let together = parts.len() > 1 && r.options.number(SOL_UDP, abi::UDP_GRO) != 0;
            if together {
                let segment = parts.first().and_then(|p| u16::try_from(p.len()).ok()).unwrap_or(0);
                let arrived = Arrived { segment, ..arrived };
                r.deliver(to.port(), Datagram { data: data.into(), from, arrived });
            } else {
                parts.iter().for_each(|part| r.deliver(to.port(), Datagram { data: (*part).into(), from, arrived }));
            }
        };
        if to.ip() == LOOPBACK_BROADCAST {
            // Nobody is told that it found nobody.
            let receivers = self.net.udp.lock().receivers(from, to);
            receivers.iter().for_each(|r| give(r));
            return;
        }
        let receiver = self.net.udp.lock().receiver(from, to);
        match receiver {
            Some(r) => give(&r),
            None => self.unreachable(connected, &refusal(from, to, parts.first().copied().unwrap_or_default())),
        }
    }

    /// Raw sockets of UDP get copies, with the headers that there would be.
    fn show_raw(&self, from: SocketAddr, to: SocketAddr, arrived: Arrived, data: &[u8]) {
        let net = &self.net.namespace;
        // Nearly always: the packet is only made for who looks.
        if RawTable::sockets(net).is_empty() {
            return;
        }
        let packet = packet(&Datagram { data: data.into(), from, arrived }, to.port());
        let (ttl, tos) = (arrived.ttl, arrived.tos);
        let header = IpHeader { source: from.ip(), destination: to.ip(), protocol: 17, ttl, tos };
        let payload_at = packet.len().saturating_sub(data.len()).saturating_sub(UDP_HEADER);
        raw::receive(net, arrived.device, &header, &packet, payload_at);
    }

    /// A datagram as the socket's filter leaves it: whole, cut, or not at all (`sk_filter_trim_cap`).
    pub(super) fn filtered(&self, to_port: u16, d: Datagram) -> Option<Datagram> {
        // Copied: the program runs without the lock.
        let program = self.filter.lock().program.clone();
        let Some(program) = program else { return Some(d) };
        // Offsets count from UDP's header, and programs may ask for that of IP before it.
        let packet = packet(&d, to_port);
        let v4 = d.arrived.to.is_ipv4();
        let data_at = packet.len().saturating_sub(d.data.len()).saturating_sub(UDP_HEADER);
        let protocol = if v4 { ETH_P_IP } else { ETH_P_IPV6 };
        let subject = Subject { bytes: &packet, data_at, network_at: 0, protocol, kind: 0, device: d.arrived.device };
        let wanted = usize::try_from(program.run(&subject).unwrap_or(0)).unwrap_or(usize::MAX);
        if wanted == 0 {
            return None;
        }
        // Never less than its header.
        let kept = wanted.saturating_sub(UDP_HEADER).min(d.data.len());
        let data = d.data.get(..kept).unwrap_or_default().into();
        Some(if kept < d.data.len() { Datagram { data, ..d } } else { d })
    }

    /// SO_ATTACH_FILTER and its like; `None` for other options.
    pub(super) fn set_filter(&self, caller: &dyn Caller, name: u32, value: &[u8]) -> Option<Result<()>> {
        let done = match name {
            abi::SO_ATTACH_FILTER => filter::read(caller, value).and_then(|program| self.replace_filter(Some(program))),
            abi::SO_DETACH_FILTER => self.replace_filter(None),
            abi::SO_LOCK_FILTER => {
                let lock = value.first_chunk().map(|b| i32::from_ne_bytes(*b) != 0);
                let mut f = self.filter.lock();
                match lock {
                    None => Err(Errno::EINVAL),
                    // For good: who gives the socket away can rely on the filter.
                    Some(false) if f.locked => Err(Errno::EPERM),
                    Some(lock) => {
                        f.locked = lock;
                        Ok(())
                    }
                }
            }
            _ => return None,
        };
        Some(done)
    }

    fn replace_filter(&self, program: Option<Program>) -> Result<()> {
        let mut f = self.filter.lock();
        if f.locked {
            return Err(Errno::EPERM);
        }
        // There is nothing to take off.
        if program.is_none() && f.program.is_none() {
            return Err(Errno::ENOENT);
        }
        f.program = program.map(Arc::new);
        Ok(())
    }
}

/// A datagram with the headers that it had.
fn packet(d: &Datagram, to_port: u16) -> Vec<u8> {
    let len = u16::try_from(d.data.len().saturating_add(UDP_HEADER)).unwrap_or(u16::MAX);
    let mut out = Vec::with_capacity(d.data.len().saturating_add(48));
    match (d.from.ip(), d.arrived.to) {
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let tos = d.arrived.tos;
            out.extend_from_slice(&[0x60 | tos >> 4, tos << 4, 0, 0]);
            out.extend_from_slice(&len.to_be_bytes());
            out.extend_from_slice(&[17, d.arrived.ttl]);
            out.extend_from_slice(&from.octets());
            out.extend_from_slice(&to.octets());
        }
        (from, to) => {
            // Without options and never cut.
            let total = len.saturating_add(20).to_be_bytes();
            let octets = |ip: IpAddr| match ip.to_canonical() {
                IpAddr::V4(v4) => v4.octets(),
                IpAddr::V6(_) => [0; 4],
            };
            out.extend_from_slice(&[0x45, d.arrived.tos, total[0], total[1], 0, 0, 0, 0, d.arrived.ttl, 17, 0, 0]);
            out.extend_from_slice(&octets(from));
            out.extend_from_slice(&octets(to));
            let sum = internet_checksum(&out).to_be_bytes();
            out.splice(10..12, sum);
        }
    }
    for number in [d.from.port(), to_port, len, 0] {
        out.extend_from_slice(&number.to_be_bytes());
    }
    out.extend_from_slice(&d.data);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_cut_into_datagrams_the_last_of_which_may_be_short() {
        let data = [1; 1000];
        let lens = |segment| parts(&data, segment).iter().map(|p| p.len()).collect::<Vec<_>>();
        assert_eq!(
            (lens(400), lens(0), lens(1000), lens(2000)),
            (vec![400, 400, 200], vec![1000], vec![1000], vec![1000])
        );
        assert_eq!(parts(&[], 5), [&[] as &[u8]]);
    }
}
