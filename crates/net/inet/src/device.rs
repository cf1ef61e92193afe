//! ioctls about network devices: netdevice(7), for `lo`.

use moat_abi::cap::Cap;
use moat_abi::socket as abi;
use moat_abi::socket::{AF_INET, IFF_LOOPBACK, IFF_RUNNING, IFF_UP, IFNAMSIZ, Ifconf, Ifreq, SockaddrIn};
use moat_abi::{Errno, Result};
use moat_vfs::Caller;
use moat_vfs::socket::registry::NetDevice;
use zerocopy::{FromBytes, IntoBytes};

/// The only device's number.
pub(crate) const LO_INDEX: i32 = 1;
pub(crate) const LO_NAME: &[u8] = b"lo";
pub(crate) const LO_MTU: u32 = 65536;
pub(crate) const LO_QUEUE_LEN: u32 = 1000;
const SIZE: usize = size_of::<Ifreq>();

fn lo_request() -> Ifreq {
    let mut r = Ifreq::default();
    r.ifr_name[..LO_NAME.len()].copy_from_slice(LO_NAME);
    r
}

fn put(r: &mut Ifreq, bytes: &[u8]) {
    r.ifr_data[..bytes.len()].copy_from_slice(bytes);
}

fn put_address(r: &mut Ifreq, ip: [u8; 4]) {
    put(r, SockaddrIn { sin_family: AF_INET, sin_addr: ip, ..SockaddrIn::default() }.as_bytes());
}

/// The devices, for sysfs.
pub(crate) fn list_all() -> Vec<NetDevice> {
    vec![NetDevice {
        name: String::from_utf8_lossy(LO_NAME).into_owned(),
        index: LO_INDEX.cast_unsigned(),
        flags: u16::try_from(IFF_UP | IFF_LOOPBACK | IFF_RUNNING).unwrap_or(0),
        mtu: LO_MTU,
        hardware_type: moat_abi::netlink::ARPHRD_LOOPBACK,
        address: [0; 6],
    }]
}

/// Answers a device ioctl on any socket.
///
/// # Errors
/// ENOTTY for other commands; ENODEV for a device that is not there; EPERM or EOPNOTSUPP for changes; EFAULT.
pub fn ioctl(caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
    match cmd {
        abi::SIOCGIFCONF => list(caller, arg),
        // SIOCGIFNAME to SIOCSIFMAP, and SIOCETHTOOL.
        0x8910..=0x8971 => {
            let mut bytes = [0; SIZE];
            caller.read_user(arg, &mut bytes)?;
            let mut r = Ifreq::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
            request(caller, cmd, &mut r)?;
            caller.write_user(arg, r.as_bytes())?;
            Ok(0)
        }
        _ => Err(Errno::ENOTTY),
    }
}

fn request(caller: &dyn Caller, cmd: u32, r: &mut Ifreq) -> Result<()> {
    if cmd == abi::SIOCGIFNAME {
        let index = r.ifr_data.first_chunk().map_or(0, |b| i32::from_ne_bytes(*b));
        if index != LO_INDEX {
            return Err(Errno::ENODEV);
        }
        r.ifr_name = lo_request().ifr_name;
        return Ok(());
    }
    // A name ends at its zero byte, or at an alias's colon.
    let name = r.ifr_name.split(|b| *b == 0 || *b == b':').next().unwrap_or_default();
    if name != LO_NAME || name.len() >= IFNAMSIZ {
        return Err(Errno::ENODEV);
    }
    match cmd {
        abi::SIOCGIFFLAGS => {
            let flags = u16::try_from(IFF_UP | IFF_LOOPBACK | IFF_RUNNING).unwrap_or(0);
            put(r, &flags.to_ne_bytes());
        }
        abi::SIOCGIFADDR | abi::SIOCGIFDSTADDR => put_address(r, [127, 0, 0, 1]),
        abi::SIOCGIFBRDADDR => put_address(r, [0; 4]),
        abi::SIOCGIFNETMASK => put_address(r, [255, 0, 0, 0]),
        abi::SIOCGIFMETRIC => put(r, &0i32.to_ne_bytes()),
        abi::SIOCGIFMTU => put(r, &LO_MTU.to_ne_bytes()),
        abi::SIOCGIFINDEX => put(r, &LO_INDEX.to_ne_bytes()),
        abi::SIOCGIFTXQLEN => put(r, &LO_QUEUE_LEN.to_ne_bytes()),
        abi::SIOCGIFMAP => r.ifr_data = [0; 24],
        abi::SIOCGIFHWADDR => {
            r.ifr_data = [0; 24];
            put(r, &moat_abi::netlink::ARPHRD_LOOPBACK.to_ne_bytes());
        }
        // What changes the device.
        abi::SIOCSIFFLAGS | abi::SIOCSIFADDR => {
            if !caller.creds().has_cap(Cap::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
            // Bringing lo up, or giving it its own address, changes nothing.
            let up = cmd == abi::SIOCSIFADDR || r.ifr_data[0] & 1 != 0;
            return if up { Ok(()) } else { Err(Errno::EOPNOTSUPP) };
        }
        abi::SIOCETHTOOL => return Err(Errno::EOPNOTSUPP),
        _ if !caller.creds().has_cap(Cap::NET_ADMIN) => return Err(Errno::EPERM),
        _ => return Err(Errno::EOPNOTSUPP),
    }
    Ok(())
}

fn list(caller: &dyn Caller, arg: u64) -> Result<u64> {
    let mut bytes = [0; size_of::<Ifconf>()];
    caller.read_user(arg, &mut bytes)?;
    let mut conf = Ifconf::read_from_bytes(&bytes).map_err(|_| Errno::EFAULT)?;
    let size = i32::try_from(SIZE).unwrap_or(i32::MAX);
    if conf.ifc_buf == 0 {
        conf.ifc_len = size;
    } else if conf.ifc_len < size {
        conf.ifc_len = 0;
    } else {
        let mut r = lo_request();
        put_address(&mut r, [127, 0, 0, 1]);
        caller.write_user(conf.ifc_buf, r.as_bytes())?;
        conf.ifc_len = size;
    }
    caller.write_user(arg, conf.as_bytes())?;
    Ok(0)
}
