//! send(2), recv(2) and their forms: sendto, sendmsg, sendmmsg, recvfrom, recvmsg, recvmmsg.

use std::time::Instant;

use moat_abi::fs::UIO_MAXIOV;
use moat_abi::socket::{Mmsghdr, MsgFlags, Msghdr, SOCKADDR_STORAGE_SIZE};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_host::clock::deadline_after;
use moat_kernel::{CurrentTask, SyscallError, SyscallResult};
use moat_mm::iovec::IoVec;
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::Fd;
use moat_vfs::socket::{Ancillary, Incoming};

use super::transfer::{self, SendCall};
use super::{Sock, address, control};

/// Offsets in `struct msghdr` of what recvmsg writes back.
const NAMELEN_AT: u64 = 8;
const CONTROLLEN_AT: u64 = 40;
const FLAGS_AT: u64 = 48;
/// Offset of `msg_len` in `struct mmsghdr`, and its size.
const MSG_LEN_AT: u64 = 56;
const MMSGHDR: u64 = 64;

/// Flags of a call; what the kernel uses inside is dropped.
fn flags_of(raw: u32) -> MsgFlags {
    MsgFlags::from_bits_retain(raw) - MsgFlags::CMSG_COMPAT
}

pub(super) async fn sys_sendto(
    t: &mut CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
    flags: u32,
    addr: UserAddr,
    addr_len: i32,
) -> SyscallResult {
    let iov = IoVec::single(buf, count)?;
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let to = if addr.is_null() { None } else { Some(address::read(t, addr, addr_len)?) };
    let call = SendCall { iov, to, flags: flags_of(flags), ancillary: Ancillary::default() };
    Ok(transfer::send(t, sock, call).await? as u64)
}

pub(super) async fn sys_recvfrom(
    t: &mut CurrentTask,
    fd: Fd,
    buf: UserAddr,
    count: usize,
    flags: u32,
    addr: UserAddr,
    addr_len: UserPtr<i32>,
) -> SyscallResult {
    let iov = IoVec::single(buf, count)?;
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let flags = flags_of(flags);
    let m = transfer::receive(t, sock, &iov, flags).await?;
    if !addr.is_null() {
        match &m.from {
            Some(from) => address::write(t, addr, addr_len, from)?,
            // A sender without a name leaves the buffer alone.
            None => t.mm().write(addr_len, &0)?,
        }
    }
    Ok(returned(&m, flags))
}

/// The result of a receiving call: with MSG_TRUNC that of the whole message.
fn returned(m: &Incoming, flags: MsgFlags) -> u64 {
    if flags.contains(MsgFlags::TRUNC) { m.full_len as u64 } else { m.len as u64 }
}

fn read_header(t: &CurrentTask, message: UserAddr) -> Result<Msghdr> {
    let header: Msghdr = t.mm().read(message.cast())?;
    if header.msg_name != 0 && header.msg_namelen < 0 {
        return Err(Errno::EINVAL);
    }
    Ok(header)
}

fn read_buffers(t: &CurrentTask, header: &Msghdr) -> Result<IoVec> {
    let count = usize::try_from(header.msg_iovlen).ok().filter(|n| *n <= UIO_MAXIOV).ok_or(Errno::EMSGSIZE)?;
    t.mm().read_iovecs(UserAddr::new(header.msg_iov), count)
}

async fn send_one(
    t: &mut CurrentTask,
    sock: Sock<'_>,
    message: UserAddr,
    flags: MsgFlags,
) -> Result<usize, SyscallError> {
    let header = read_header(t, message)?;
    // A length of zero is no address, whatever the pointer.
    let to = if header.msg_name == 0 || header.msg_namelen == 0 {
        None
    } else {
        // Linux cuts a length that is too large here, and refuses it in sendto(2).
        let len = header.msg_namelen.min(i32::try_from(SOCKADDR_STORAGE_SIZE).unwrap_or(i32::MAX));
        Some(address::read(t, UserAddr::new(header.msg_name), len)?)
    };
    let iov = read_buffers(t, &header)?;
    let ancillary = control::read(t, sock, &header)?;
    transfer::send(t, sock, SendCall { iov, to, flags, ancillary }).await
}

pub(super) async fn sys_sendmsg(t: &mut CurrentTask, fd: Fd, message: UserAddr, flags: u32) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    Ok(send_one(t, sock, message, flags_of(flags)).await? as u64)
}

pub(super) async fn sys_sendmmsg(
    t: &mut CurrentTask,
    fd: Fd,
    messages: UserAddr,
    count: u32,
    flags: u32,
) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    let count = u64::from(count).min(UIO_MAXIOV as u64);
    let mut sent = 0;
    while sent < count {
        let one = async {
            let at = messages.add(sent * MMSGHDR)?;
            let n = send_one(t, sock, at, flags_of(flags)).await?;
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            t.mm().write(at.add(MSG_LEN_AT)?.cast(), &n)?;
            Ok::<(), SyscallError>(())
        };
        // What was sent counts; the error comes back at the next call.
        match one.await {
            Ok(()) => sent += 1,
            Err(e) if sent == 0 => return Err(e),
            Err(_) => break,
        }
        if t.is_interrupted() {
            break;
        }
    }
    Ok(sent)
}

async fn receive_one(
    t: &mut CurrentTask,
    sock: Sock<'_>,
    message: UserAddr,
    flags: MsgFlags,
) -> Result<u64, SyscallError> {
    let header = read_header(t, message)?;
    let iov = read_buffers(t, &header)?;
    // Everything that is written back follows the message: with a bad pointer it is lost, as on Linux.
    let mut m = transfer::receive(t, sock, &iov, flags).await?;
    let result = returned(&m, flags);
    let ancillary = std::mem::take(&mut m.ancillary);
    let written = control::write(t, &header, ancillary, flags)?;
    if header.msg_name != 0 {
        let bytes = m.from.as_ref().map_or(&[][..], |a| a.as_bytes());
        let room = usize::try_from(header.msg_namelen).unwrap_or(0);
        t.mm().write_bytes(UserAddr::new(header.msg_name), bytes.get(..room).unwrap_or(bytes))?;
        t.mm().write(message.add(NAMELEN_AT)?.cast(), &i32::try_from(bytes.len()).unwrap_or(0))?;
    }
    let out = m.flags | written.flags | (flags & MsgFlags::CMSG_CLOEXEC);
    t.mm().write(message.add(FLAGS_AT)?.cast(), &out.bits())?;
    t.mm().write(message.add(CONTROLLEN_AT)?.cast(), &written.len)?;
    Ok(result)
}

pub(super) async fn sys_recvmsg(t: &mut CurrentTask, fd: Fd, message: UserAddr, flags: u32) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    receive_one(t, sock, message, flags_of(flags)).await
}

pub(super) async fn sys_recvmmsg(
    t: &mut CurrentTask,
    fd: Fd,
    messages: UserAddr,
    count: u32,
    flags: u32,
    timeout: UserAddr,
) -> SyscallResult {
    let deadline = if timeout.is_null() {
        None
    } else {
        let time: Timespec = t.mm().read(timeout.cast())?;
        Some(deadline_after(time.to_nanos()?))
    };
    let result = receive_many(t, fd, messages, count, flags_of(flags), deadline).await?;
    // The rest is written back, also where messages came (recvmmsg(2)).
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        t.mm().write(timeout.cast(), &Timespec::from_duration(left))?;
    }
    Ok(result)
}

async fn receive_many(
    t: &mut CurrentTask,
    fd: Fd,
    messages: UserAddr,
    count: u32,
    mut flags: MsgFlags,
    deadline: Option<Instant>,
) -> SyscallResult {
    let file = t.fds().get(fd)?;
    let sock = Sock::expect(&file)?;
    // An error that an earlier call has left is told before anything is received.
    sock.socket().core().take_error()?;
    let count = u64::from(count).min(UIO_MAXIOV as u64);
    let mut received = 0;
    while received < count {
        let at = messages.add(received * MMSGHDR)?;
        let one = receive_one(t, sock, at, flags - MsgFlags::WAITFORONE).await;
        let written = match one {
            Ok(n) => t
                .mm()
                .write(at.add(MSG_LEN_AT)?.cast(), &u32::try_from(n).unwrap_or(u32::MAX))
                .map_err(SyscallError::from),
            Err(e) => Err(e),
        };
        match written {
            Ok(()) => received += 1,
            Err(e) if received == 0 => return Err(e),
            Err(SyscallError::Errno(e)) if e != Errno::EAGAIN => {
                // The messages that came count; the error is for the next call.
                sock.socket().core().set_error(e);
                break;
            }
            Err(_) => break,
        }
        // After the first message nothing more is waited for.
        if flags.contains(MsgFlags::WAITFORONE) {
            flags |= MsgFlags::DONTWAIT;
        }
        // As on Linux the timeout is looked at after each message only.
        if deadline.is_some_and(|d| Instant::now() >= d) {
            break;
        }
    }
    Ok(received)
}

const _: () = assert!(size_of::<Mmsghdr>() as u64 == MMSGHDR);
