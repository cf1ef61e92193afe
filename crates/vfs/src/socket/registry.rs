//! Families by number, and what they give to others: texts for /proc/net, network devices and ioctls about them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use moat_abi::{Errno, Result};
use moat_sync::{LockClass, RwLock};

use super::{Socket, SocketKind};
use crate::caller::Caller;

/// Makes a socket; `protocol` of the kind is as the caller gave it.
///
/// # Errors
/// EPROTONOSUPPORT, ESOCKTNOSUPPORT, EPROTOTYPE, EPERM.
pub type NewSocket = fn(&dyn Caller, SocketKind) -> Result<Arc<dyn Socket>>;
/// Makes two connected sockets.
///
/// # Errors
/// As [`NewSocket`]; EOPNOTSUPP.
pub type NewPair = fn(&dyn Caller, SocketKind) -> Result<(Arc<dyn Socket>, Arc<dyn Socket>)>;
/// Makes the text of a file of /proc/net for a network namespace.
pub type NetText = fn(net_id: u64) -> Vec<u8>;
/// An ioctl about network devices, which sockets of all families take.
///
/// # Errors
/// ENOTTY for a command that is none of these; ENODEV and the like.
pub type DeviceIoctl = fn(&dyn Caller, cmd: u32, arg: u64) -> Result<u64>;

/// A network device, as sysfs shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name.
    pub name: String,
    /// Its number.
    pub index: u32,
    /// `IFF_*`.
    pub flags: u16,
    /// Bytes of the largest packet.
    pub mtu: u32,
    /// `ARPHRD_*`.
    pub hardware_type: u16,
    /// Its address on the link.
    pub address: [u8; 6],
}

/// Lists the network devices.
pub type NetDevices = fn() -> Vec<NetDevice>;

/// An address family.
#[derive(Clone, Copy)]
pub struct Family {
    /// socket(2).
    pub new_socket: NewSocket,
    /// socketpair(2), for a family that has it.
    pub new_pair: Option<NewPair>,
}

#[derive(Default)]
struct Tables {
    families: HashMap<u16, Family>,
    texts: BTreeMap<&'static str, NetText>,
    device_ioctl: Option<DeviceIoctl>,
    devices: Option<NetDevices>,
}

fn tables() -> &'static RwLock<Tables> {
    static TABLES: OnceLock<RwLock<Tables>> = OnceLock::new();
    TABLES.get_or_init(|| RwLock::new(LockClass::Table, Tables::default()))
}

/// Registers a family; one that is there already is replaced.
pub fn register_family(number: u16, family: Family) {
    tables().write().families.insert(number, family);
}

/// Registers a file of /proc/net.
pub fn register_net_text(name: &'static str, text: NetText) {
    tables().write().texts.insert(name, text);
}

/// Registers what answers ioctls about network devices.
pub fn register_device_ioctl(ioctl: DeviceIoctl) {
    tables().write().device_ioctl = Some(ioctl);
}

/// Registers who knows the network devices.
pub fn register_net_devices(list: NetDevices) {
    tables().write().devices = Some(list);
}

/// The network devices that there are at present.
#[must_use]
pub fn net_devices() -> Vec<NetDevice> {
    let list = tables().read().devices;
    list.map_or_else(Vec::new, |list| list())
}

/// The names of the files that families have registered for /proc/net.
#[must_use]
pub fn net_texts() -> Vec<&'static str> {
    tables().read().texts.keys().copied().collect()
}

/// A file of /proc/net: its name and what makes it.
#[must_use]
pub fn net_text(name: &[u8]) -> Option<(&'static str, NetText)> {
    let t = tables().read();
    t.texts.iter().find(|(n, _)| n.as_bytes() == name).map(|(n, text)| (*n, *text))
}

fn family(number: u16) -> Result<Family> {
    tables().read().families.get(&number).copied().ok_or(Errno::EAFNOSUPPORT)
}

/// Makes a socket.
///
/// # Errors
/// EAFNOSUPPORT; those of the family.
pub fn new_socket(caller: &dyn Caller, kind: SocketKind) -> Result<Arc<dyn Socket>> {
    (family(kind.family)?.new_socket)(caller, kind)
}

/// Makes two connected sockets.
///
/// # Errors
/// EAFNOSUPPORT, EOPNOTSUPP; those of the family.
pub fn new_pair(caller: &dyn Caller, kind: SocketKind) -> Result<(Arc<dyn Socket>, Arc<dyn Socket>)> {
    let family = family(kind.family)?;
    match family.new_pair {
        Some(make) => make(caller, kind),
        // The sockets are made first, so a bad type has its own error.
        None => (family.new_socket)(caller, kind).and(Err(Errno::EOPNOTSUPP)),
    }
}

pub(super) fn device_ioctl(caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
    let ioctl = tables().read().device_ioctl;
    ioctl.map_or(Err(Errno::ENOTTY), |f| f(caller, cmd, arg))
}
