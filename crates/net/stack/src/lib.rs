//! A TCP/IP stack of moat's own, without host calls: what lies between a guest's sockets and the packets of its links.
//!
//! - [`config`]: links, addresses, routes and neighbours, as plain data that another process has read; [`configure`]: their changes.
//! - [`device`]: the trait through which frames come and go.
//! - [`stack`]: the whole, which owns all tables. Its parts: [`receive`] (frames that come), [`resolve`] (ARP and NDISC) with
//!   [`neighbour`], [`route`], [`reassembly`], [`icmp`], [`groups`] (IGMP and MLD), [`send`] (datagrams), [`connections`],
//!   [`segments`] and [`cookies`] (TCP).
//! - [`tcp`]: one connection, as a machine of its own.
//!
//! Formats are those of `smoltcp::wire`; a device's offloads are those of virtio-net. Time is told by whoever drives the stack, so that
//! tests need none of the host's.
#![forbid(unsafe_code)]

pub mod config;
pub mod configure;
mod connections;
mod cookies;
pub mod counters;
pub mod device;
mod groups;
mod icmp;
mod neighbour;
mod num;
mod packet;
mod reassembly;
mod receive;
mod resolve;
pub mod route;
mod segments;
mod send;
pub mod stack;
pub mod tcp;
#[cfg(test)]
mod testing;
pub mod time;

pub use config::{AddressConfig, LinkConfig, LinkKind, NeighbourConfig, NetworkConfig, RouteConfig, RouteKind};
pub use connections::{Accepted, ConnectionId, Listed, ListenOn, ListenerId, TcpOptions};
pub use device::{Checksum, DeviceFeatures, Frame, LinkDevice, Offload, Segmentation, TransmitError};
pub use neighbour::Neighbour;
pub use packet::{IpHeader, Packet, checksum_holds, plain_checksum as internet_checksum};
pub use resolve::group_mac;
pub use send::SendOptions;
pub use stack::{Datagram, Delivery, LinkCounters, Notice, Observer, SendError, Stack};
pub use time::Time;
