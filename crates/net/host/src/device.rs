//! ioctls about network devices, netdevice(7): questions go to the host, changes are refused.

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use moat_abi::socket::{
    AF_INET, IFNAMSIZ, IPPROTO_UDP, Ifconf, Ifreq, SIOCETHTOOL, SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX,
    SIOCGIFMTU, SIOCGIFTXQLEN, SOCK_DGRAM,
};
use moat_abi::{Errno, Result};
use moat_host::net::{DEVICE_QUERIES, list_devices, query_device};
use moat_identity::NetNamespace;
use moat_identity::net::NetDevice;
use moat_vfs::Caller;
use moat_vfs::socket::SocketKind;
use zerocopy::{FromBytes, IntoBytes};

/// Devices that are listed at most.
const MOST: usize = 1024;
const SIZE: usize = size_of::<Ifreq>();

/// The socket that the host is asked through, whatever the guest's is.
fn asker() -> Result<&'static OwnedFd> {
    static ASKER: OnceLock<OwnedFd> = OnceLock::new();
    if let Some(fd) = ASKER.get() {
        return Ok(fd);
    }
    let fd = crate::socket::open(SocketKind { family: AF_INET, socket_type: SOCK_DGRAM, protocol: IPPROTO_UDP })?;
    // Of two that are made at once, one is closed again.
    Ok(ASKER.get_or_init(|| fd))
}

/// Answers a device ioctl on any socket.
///
/// # Errors
/// ENOTTY for other commands; EPERM for changes, EOPNOTSUPP for ethtool; EFAULT; the host's.
pub fn ioctl(caller: &dyn Caller, _net: &NetNamespace, cmd: u32, arg: u64) -> Result<u64> {
    match cmd {
        SIOCGIFCONF => list(caller, arg),
        cmd if DEVICE_QUERIES.contains(&cmd) => {
            let mut bytes = [0; SIZE];
            caller.read_user(arg, &mut bytes)?;
            let mut device = Ifreq::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
            query_device(asker()?, cmd, &mut device)?;
            caller.write_user(arg, device.as_bytes())?;
            Ok(0)
        }
        SIOCETHTOOL => Err(Errno::EOPNOTSUPP),
        // SIOCGIFNAME to SIOCSIFMAP.
        0x8910..=0x8971 => Err(Errno::EPERM),
        _ => Err(Errno::ENOTTY),
    }
}

/// The devices of the host's network namespace, for sysfs; a name that would not do for a file is left out.
#[must_use]
pub fn list_all() -> Vec<NetDevice> {
    let Ok(asker) = asker() else { return Vec::new() };
    let text = moat_host::procfs::net_file("dev").unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // Two lines of headings; a device's name ends at the last colon that something follows.
    let names = text.lines().skip(2).filter_map(|line| line.rsplit_once(':')).map(|(name, _)| name.trim());
    names.filter(|name| !name.contains('/')).take(MOST).filter_map(|name| describe(asker, name)).collect()
}

/// `None` if the device has gone meanwhile.
fn describe(asker: &OwnedFd, name: &str) -> Option<NetDevice> {
    let ask = |request| {
        let mut device = Ifreq::default();
        // No device has a name that long.
        device.ifr_name.get_mut(..name.len()).filter(|n| n.len() < IFNAMSIZ)?.copy_from_slice(name.as_bytes());
        query_device(asker, request, &mut device).ok().map(|()| device.ifr_data)
    };
    let number = |request| ask(request)?.first_chunk().map(|b| u32::from_ne_bytes(*b));
    let short = |data: [u8; 24]| data.first_chunk().map(|b| u16::from_ne_bytes(*b));
    let hardware = ask(SIOCGIFHWADDR)?;
    Some(NetDevice {
        name: name.to_owned(),
        index: number(SIOCGIFINDEX)?,
        flags: short(ask(SIOCGIFFLAGS)?)?.into(),
        mtu: number(SIOCGIFMTU)?,
        queue_len: number(SIOCGIFTXQLEN).unwrap_or(0),
        hardware_type: short(hardware)?,
        address: *hardware.get(2..)?.first_chunk()?,
        driver: None,
        peer: None,
        // Asked of the host by rtnetlink(7) whenever somebody wants to know.
        addresses: Vec::new(),
    })
}

fn list(caller: &dyn Caller, arg: u64) -> Result<u64> {
    let mut bytes = [0; size_of::<Ifconf>()];
    caller.read_user(arg, &mut bytes)?;
    let mut conf = Ifconf::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
    let devices = list_devices(asker()?, MOST)?;
    let mut count = devices.len();
    // Without a buffer the call asks for the length.
    if conf.ifc_buf != 0 {
        count = count.min(usize::try_from(conf.ifc_len).unwrap_or(0) / SIZE);
        caller.write_user(conf.ifc_buf, devices.get(..count).unwrap_or_default().as_bytes())?;
    }
    conf.ifc_len = i32::try_from(count * SIZE).unwrap_or(i32::MAX);
    caller.write_user(arg, conf.as_bytes())?;
    Ok(0)
}
