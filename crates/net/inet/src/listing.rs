//! The sockets of a namespace that are shown: for /proc/net and sock_diag(7).

use std::sync::{Arc, Weak};

use moat_abi::socket::{IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP};
use moat_identity::NetNamespace;

use crate::inspect::{Inspect, SocketInfo};
use crate::ports::PortTables;
use crate::raw::RawTable;

fn weak<T: Inspect + 'static>(sockets: Vec<Arc<T>>) -> Vec<Weak<dyn Inspect>> {
    sockets.iter().map(|s| Arc::downgrade(s) as Weak<dyn Inspect>).collect()
}

/// The sockets of a protocol (`IPPROTO_TCP`, `IPPROTO_UDP`; `IPPROTO_RAW` for raw sockets of all protocols) that have an address.
#[must_use]
pub fn sockets(net: &NetNamespace, protocol: u32) -> Vec<Weak<dyn Inspect>> {
    match protocol {
        IPPROTO_TCP => weak(PortTables::of(net).tcp.lock().sockets()),
        IPPROTO_UDP => weak(PortTables::of(net).udp.lock().sockets()),
        IPPROTO_RAW => weak(RawTable::sockets(net).into_iter().filter(|s| !s.is_ping()).collect()),
        _ => Vec::new(),
    }
}

/// All of them at this moment, in the order of their making.
#[must_use]
pub fn list(net: &NetNamespace, protocol: u32) -> Vec<SocketInfo> {
    let mut all: Vec<SocketInfo> =
        sockets(net, protocol).iter().filter_map(Weak::upgrade).map(|s| s.inspect()).collect();
    all.sort_by_key(|s| s.ino);
    all
}
