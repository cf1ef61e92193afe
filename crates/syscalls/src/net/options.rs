//! getsockopt(2), setsockopt(2): SOL_SOCKET here as far as it is the same for all sockets, the rest by the family.

use std::time::Duration;

use moat_abi::socket::SOL_NETLINK;
use moat_abi::socket::{
    SO_ACCEPTCONN, SO_BINDTODEVICE, SO_DOMAIN, SO_PEERCRED, SO_PEERNAME, SO_PROTOCOL, SO_RCVTIMEO, SO_RCVTIMEO_NEW,
    SO_SNDTIMEO, SO_SNDTIMEO_NEW, SO_TYPE, SOL_PACKET, SOL_SOCKET, Ucred,
};
use moat_abi::time::Timeval;
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::Fd;
use moat_vfs::socket::{BufferSide, Socket};
use zerocopy::{FromBytes, IntoBytes};

use super::{Sock, control};

/// Longest value of an option.
const LONGEST: usize = 64 * 1024;

pub(super) fn sys_setsockopt(
    t: &mut CurrentTask,
    fd: Fd,
    level: u32,
    name: u32,
    value: UserAddr,
    len: i32,
) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    // More than any option has: no memory is taken for it.
    if len > LONGEST {
        return Err(Errno::ENOMEM.into());
    }
    // Whatever the option is (`sk_setsockopt`).
    if level == SOL_SOCKET && name != SO_BINDTODEVICE && len < size_of::<i32>() {
        return Err(Errno::EINVAL.into());
    }
    let mut bytes = vec![0; len];
    t.mm().read_bytes(value, &mut bytes)?;
    let socket = sock.socket();
    if level == SOL_SOCKET {
        set_common(t, &**socket, name, &bytes)?;
    } else {
        socket.set_option(t, level, name, &bytes)?;
    }
    Ok(0)
}

fn set_common(t: &CurrentTask, socket: &dyn Socket, name: u32, value: &[u8]) -> Result<()> {
    match name {
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => return set_timeout(socket, BufferSide::Receive, value),
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => return set_timeout(socket, BufferSide::Send, value),
        _ => {}
    }
    // The family may know more of an option than what is common.
    match socket.set_option(t, SOL_SOCKET, name, value) {
        Err(Errno::ENOPROTOOPT) => socket.core().set_option(t, name, value),
        done => done,
    }
}

/// As many seconds as these are for ever (`sock_set_timeout`: `MAX_SCHEDULE_TIMEOUT / HZ - 1`, with 250 ticks a second).
const MOST_TIMEOUT_SECONDS: i64 = i64::MAX / 250 - 1;

fn set_timeout(socket: &dyn Socket, side: BufferSide, value: &[u8]) -> Result<()> {
    let (time, _) = Timeval::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    if !(0..1_000_000).contains(&time.tv_usec) {
        return Err(Errno::EDOM);
    }
    let timeout = match (time.tv_sec, time.tv_usec) {
        (0, 0) => None,
        // A negative time has passed at once.
        (s, _) if s < 0 => Some(Duration::from_nanos(1)),
        (s, _) if s >= MOST_TIMEOUT_SECONDS => None,
        // So is more than 64 bits of nanoseconds.
        (s, us) => Some(Duration::new(s.unsigned_abs(), 0).saturating_add(Duration::from_micros(us.unsigned_abs())))
            .filter(|span| u64::try_from(span.as_nanos()).is_ok()),
    };
    socket.core().set_timeout(side, timeout);
    Ok(())
}

pub(super) fn sys_getsockopt(
    t: &mut CurrentTask,
    fd: Fd,
    level: u32,
    name: u32,
    value: UserAddr,
    len: UserPtr<i32>,
) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let room = usize::try_from(t.mm().read(len)?).map_err(|_| Errno::EINVAL)?;
    let socket = sock.socket();
    let answer = if level == SOL_SOCKET {
        get_common(t, &**socket, name, room)?
    } else {
        // A few options are asked by what is in the buffer: a number.
        let mut question = [0; 4];
        let asked = level == SOL_PACKET && t.mm().read_bytes(value, &mut question).is_ok();
        match socket.ask_option(level, name, &question).filter(|_| asked) {
            Some(answer) => answer?,
            None => socket.get_option(t, level, name, room)?,
        }
    };
    // Cut without a word (getsockopt(2)); of memberships it is told how many bytes they take (netlink(7)).
    let whole = answer.len();
    let answer = answer.get(..room).unwrap_or(&answer);
    let told =
        if (level, name) == (SOL_NETLINK, moat_abi::netlink::NETLINK_LIST_MEMBERSHIPS) { whole } else { answer.len() };
    t.mm().write_bytes(value, answer)?;
    t.mm().write(len, &i32::try_from(told).unwrap_or(i32::MAX))?;
    Ok(0)
}

fn get_common(t: &CurrentTask, socket: &dyn Socket, name: u32, room: usize) -> Result<Vec<u8>> {
    let kind = socket.kind();
    let number = match name {
        SO_TYPE => kind.socket_type,
        SO_DOMAIN => u32::from(kind.family),
        SO_PROTOCOL => kind.protocol,
        SO_ACCEPTCONN => u32::from(socket.is_listening()),
        SO_RCVTIMEO | SO_RCVTIMEO_NEW => return Ok(show_timeout(socket, BufferSide::Receive)),
        SO_SNDTIMEO | SO_SNDTIMEO_NEW => return Ok(show_timeout(socket, BufferSide::Send)),
        SO_PEERCRED => {
            // Without a peer: pid 0, and ids of nobody.
            let creds = socket
                .peer_creds()
                .map_or(Ucred { pid: 0, uid: u32::MAX, gid: u32::MAX }, |c| control::show_creds(t, &c));
            return Ok(creds.as_bytes().to_vec());
        }
        SO_PEERNAME => {
            let peer = socket.peer_address()?;
            // The name has to fill the buffer, which is how Linux has it.
            if peer.as_bytes().len() < room {
                return Err(Errno::EINVAL);
            }
            return Ok(peer.as_bytes().to_vec());
        }
        _ => {
            return match socket.get_option(t, SOL_SOCKET, name, room) {
                Err(Errno::ENOPROTOOPT) => socket.core().get_option(name),
                done => done,
            };
        }
    };
    Ok(number.to_ne_bytes().to_vec())
}

fn show_timeout(socket: &dyn Socket, side: BufferSide) -> Vec<u8> {
    let d = socket.core().timeout(side).unwrap_or_default();
    let time =
        Timeval { tv_sec: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), tv_usec: i64::from(d.subsec_micros()) };
    time.as_bytes().to_vec()
}
