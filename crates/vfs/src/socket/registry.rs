//! Families by number, and what they give to others: texts for /proc/net, device ioctls.

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
