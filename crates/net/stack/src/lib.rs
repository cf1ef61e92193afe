//! A TCP/IP stack of moat's own, without host calls: what lies between a guest's sockets and the packets of its links.
//!
//! - [`config`]: links, addresses, routes and neighbours, as plain data that another process has read.
//! - [`device`]: the trait through which frames come and go.
#![forbid(unsafe_code)]

pub mod config;
pub mod device;

pub use config::{AddressConfig, LinkConfig, LinkKind, NeighbourConfig, NetworkConfig, RouteConfig, RouteKind};
pub use device::{Checksum, DeviceFeatures, Frame, LinkDevice, Offload, Segmentation, TransmitError};
