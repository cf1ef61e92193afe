//! Sockets of the host that guests use, with addresses, options and control messages as bytes, in the kernel's own layout.
//!
//! A guest's socket that is a host socket hands them through as they are; the kernel checks every length. What rustix has
//! in typed form (socket, listen, shutdown) is used through rustix.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use moat_abi::socket::{
    IFF_RUNNING, IFF_UP, Ifconf, Ifreq, SIOCATMARK, SIOCGIFADDR, SIOCGIFBRDADDR, SIOCGIFCONF, SIOCGIFDSTADDR,
    SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFMAP, SIOCGIFMETRIC, SIOCGIFMTU, SIOCGIFNAME, SIOCGIFNETMASK,
    SIOCGIFTXQLEN, SIOCSIFFLAGS, SOCKADDR_STORAGE_SIZE,
};
use moat_abi::{Errno, Result};

use crate::result::check;

/// Room for any socket address.
pub type AddressBuffer = [u8; SOCKADDR_STORAGE_SIZE];

/// The ioctls about a network device that only read, all of which take a `struct ifreq`.
pub const DEVICE_QUERIES: &[u32] = &[
    SIOCGIFNAME,
    SIOCGIFFLAGS,
    SIOCGIFADDR,
    SIOCGIFDSTADDR,
    SIOCGIFBRDADDR,
    SIOCGIFNETMASK,
    SIOCGIFMETRIC,
    SIOCGIFMTU,
    SIOCGIFHWADDR,
    SIOCGIFINDEX,
    SIOCGIFTXQLEN,
    SIOCGIFMAP,
];

/// A length for the kernel; longer than any buffer here can't be.
fn socklen(len: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(len).unwrap_or(libc::socklen_t::MAX)
}

/// The length that the kernel has given, no more than there is room for.
fn given(buffer: &AddressBuffer, len: libc::socklen_t) -> usize {
    buffer.len().min(len as usize)
}

fn number(fd: &impl AsFd) -> libc::c_int {
    fd.as_fd().as_raw_fd()
}

/// bind(2).
///
/// # Errors
/// The host's.
pub fn bind(fd: impl AsFd, address: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes of the slice.
    check(i64::from(unsafe { libc::bind(number(&fd), address.as_ptr().cast(), socklen(address.len())) })).map(drop)
}

/// connect(2).
///
/// # Errors
/// The host's; EINPROGRESS and EALREADY for a socket that does not block.
pub fn connect(fd: impl AsFd, address: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes of the slice.
    check(i64::from(unsafe { libc::connect(number(&fd), address.as_ptr().cast(), socklen(address.len())) })).map(drop)
}

/// accept4(2): the new socket does not block and is closed by exec.
///
/// # Errors
/// The host's; EAGAIN if there is none.
pub fn accept(fd: impl AsFd) -> Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: null pointers ask for no address.
    let new = check(i64::from(unsafe { libc::accept4(number(&fd), ptr::null_mut(), ptr::null_mut(), flags) }))?;
    // SAFETY: accept4 succeeded, so this is a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(new).map_err(|_| Errno::EBADF)?) })
}

/// As [`accept`]; gives also the length of the other side's address.
///
/// # Errors
/// The same.
pub fn accept_from(fd: impl AsFd, buffer: &mut AddressBuffer) -> Result<(OwnedFd, usize)> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let mut len = socklen(buffer.len());
    // SAFETY: the kernel writes at most `len` bytes, which the buffer has, and the new length.
    let new = unsafe { libc::accept4(number(&fd), buffer.as_mut_ptr().cast(), &raw mut len, flags) };
    let new = check(i64::from(new))?;
    // SAFETY: accept4 succeeded, so this is a new descriptor that nobody else owns.
    let new = unsafe { OwnedFd::from_raw_fd(i32::try_from(new).map_err(|_| Errno::EBADF)?) };
    Ok((new, given(buffer, len)))
}

/// getsockname(2); gives the length.
///
/// # Errors
/// The host's.
pub fn local_address(fd: impl AsFd, buffer: &mut AddressBuffer) -> Result<usize> {
    let mut len = socklen(buffer.len());
    // SAFETY: the kernel writes at most `len` bytes, which the buffer has, and the new length.
    check(i64::from(unsafe { libc::getsockname(number(&fd), buffer.as_mut_ptr().cast(), &raw mut len) }))?;
    Ok(given(buffer, len))
}

/// getpeername(2); gives the length.
///
/// # Errors
/// The host's; ENOTCONN.
pub fn peer_address(fd: impl AsFd, buffer: &mut AddressBuffer) -> Result<usize> {
    let mut len = socklen(buffer.len());
    // SAFETY: the kernel writes at most `len` bytes, which the buffer has, and the new length.
    check(i64::from(unsafe { libc::getpeername(number(&fd), buffer.as_mut_ptr().cast(), &raw mut len) }))?;
    Ok(given(buffer, len))
}

/// getsockopt(2); gives the length of the value.
///
/// The option must be one whose value holds no address and no descriptor.
///
/// # Errors
/// The host's.
pub fn get_option(fd: impl AsFd, level: u32, name: u32, value: &mut [u8]) -> Result<usize> {
    let mut len = socklen(value.len());
    let (level, name) = (level.cast_signed(), name.cast_signed());
    // SAFETY: the kernel writes at most `len` bytes, which the slice has, and the new length.
    check(i64::from(unsafe { libc::getsockopt(number(&fd), level, name, value.as_mut_ptr().cast(), &raw mut len) }))?;
    Ok(value.len().min(len as usize))
}

/// setsockopt(2).
///
/// The option must be one whose value holds no address and no descriptor.
///
/// # Errors
/// The host's.
pub fn set_option(fd: impl AsFd, level: u32, name: u32, value: &[u8]) -> Result<()> {
    let (level, name) = (level.cast_signed(), name.cast_signed());
    // SAFETY: the kernel reads `len` bytes of the slice.
    check(i64::from(unsafe { libc::setsockopt(number(&fd), level, name, value.as_ptr().cast(), socklen(value.len())) }))
        .map(drop)
}

/// sendto(2), or sendmsg(2) if there are control messages. Never blocks, never raises SIGPIPE.
///
/// `control` is laid out as in cmsg(3).
///
/// # Errors
/// The host's; EAGAIN.
pub fn send(fd: impl AsFd, data: &[u8], to: Option<&[u8]>, control: &[u8], flags: u32) -> Result<usize> {
    let flags = flags.cast_signed() | libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    let (name, name_len) = to.map_or((ptr::null(), 0), |a| (a.as_ptr(), socklen(a.len())));
    let sent = if control.is_empty() {
        // SAFETY: the kernel reads the two slices with their lengths.
        unsafe { libc::sendto(number(&fd), data.as_ptr().cast(), data.len(), flags, name.cast(), name_len) }
    } else {
        let mut iov = libc::iovec { iov_base: data.as_ptr().cast_mut().cast(), iov_len: data.len() };
        // SAFETY: msghdr is plain integers and pointers, for which zero is valid.
        let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
        header.msg_name = name.cast_mut().cast();
        header.msg_namelen = name_len;
        header.msg_iov = &raw mut iov;
        header.msg_iovlen = 1;
        header.msg_control = control.as_ptr().cast_mut().cast();
        header.msg_controllen = control.len();
        // SAFETY: sendmsg only reads what the header points to, all of which outlives the call.
        unsafe { libc::sendmsg(number(&fd), &raw const header, flags) }
    };
    Ok(usize::try_from(check(sent as i64)?).unwrap_or(0))
}

/// What [`receive`] got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// The call's result: with MSG_TRUNC more than fits, if the message was longer.
    pub len: usize,
    /// Bytes of the sender's address.
    pub name_len: usize,
    /// Bytes of control messages.
    pub control_len: usize,
    /// `msg_flags`.
    pub flags: u32,
}

/// recvmsg(2). Never blocks; control messages carry no descriptors on the families that this is for.
///
/// # Errors
/// The host's; EAGAIN.
pub fn receive(
    fd: impl AsFd,
    data: &mut [u8],
    name: &mut AddressBuffer,
    control: &mut [u8],
    flags: u32,
) -> Result<Received> {
    let flags = flags.cast_signed() | libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
    let mut iov = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
    // SAFETY: msghdr is plain integers and pointers, for which zero is valid.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_name = name.as_mut_ptr().cast();
    header.msg_namelen = socklen(name.len());
    header.msg_iov = &raw mut iov;
    header.msg_iovlen = 1;
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = control.len();
    // SAFETY: the header points to three buffers with their own lengths, which outlive the call.
    let len = check(unsafe { libc::recvmsg(number(&fd), &raw mut header, flags) } as i64)?;
    Ok(Received {
        len: usize::try_from(len).unwrap_or(0),
        name_len: name.len().min(header.msg_namelen as usize),
        control_len: control.len().min(header.msg_controllen),
        flags: header.msg_flags.cast_unsigned(),
    })
}

/// Asks about a network device: one of [`DEVICE_QUERIES`].
///
/// # Errors
/// EINVAL for another request; ENODEV and the like from the host.
pub fn query_device(fd: impl AsFd, request: u32, device: &mut Ifreq) -> Result<()> {
    if !DEVICE_QUERIES.contains(&request) {
        return Err(Errno::EINVAL);
    }
    // SAFETY: all of the listed requests read and write a struct ifreq and follow no pointer in it.
    check(i64::from(unsafe { libc::ioctl(number(&fd), u64::from(request), ptr::from_mut(device)) })).map(drop)
}

/// The network devices with an IPv4 address, up to `most` of them (SIOCGIFCONF).
///
/// # Errors
/// The host's.
pub fn list_devices(fd: impl AsFd, most: usize) -> Result<Vec<Ifreq>> {
    let mut devices = vec![Ifreq::default(); most];
    let bytes = i32::try_from(size_of_val(&devices[..])).map_err(|_| Errno::EINVAL)?;
    let mut conf = Ifconf { ifc_len: bytes, ifc_buf: devices.as_mut_ptr() as u64, ..Ifconf::default() };
    // SAFETY: the kernel writes at most `ifc_len` bytes at `ifc_buf`, which is the vector's memory.
    check(i64::from(unsafe { libc::ioctl(number(&fd), u64::from(SIOCGIFCONF), &raw mut conf) }))?;
    devices.truncate(usize::try_from(conf.ifc_len).unwrap_or(0) / size_of::<Ifreq>());
    Ok(devices)
}

/// Brings the loopback device of a new network namespace up, with its addresses.
///
/// # Errors
/// EPERM without CAP_NET_ADMIN over the namespace.
pub fn bring_loopback_up() -> Result<()> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    let mut device = Ifreq::default();
    device.ifr_name[..2].copy_from_slice(b"lo");
    let flags = u16::try_from(IFF_UP | IFF_RUNNING).unwrap_or(0);
    device.ifr_data[..2].copy_from_slice(&flags.to_ne_bytes());
    // SAFETY: SIOCSIFFLAGS reads a struct ifreq and follows no pointer in it.
    check(i64::from(unsafe { libc::ioctl(number(&socket), u64::from(SIOCSIFFLAGS), &raw mut device) })).map(drop)
}

/// Whether the next byte to read is the urgent one (SIOCATMARK).
///
/// # Errors
/// The host's.
pub fn at_mark(fd: impl AsFd) -> Result<bool> {
    let mut answer = 0i32;
    // SAFETY: SIOCATMARK writes an int.
    check(i64::from(unsafe { libc::ioctl(number(&fd), u64::from(SIOCATMARK), &raw mut answer) }))?;
    Ok(answer != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::socket::{AF_INET, SO_TYPE, SOCK_DGRAM, SOL_SOCKET, SockaddrIn};
    use rustix::net::{AddressFamily, SocketType};
    use zerocopy::IntoBytes;

    #[test]
    fn a_datagram_goes_through_and_tells_its_length() {
        let new = || rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap();
        let (a, b) = (new(), new());
        let any = SockaddrIn { sin_family: AF_INET, sin_addr: [127, 0, 0, 1], ..SockaddrIn::default() };
        bind(&a, any.as_bytes()).unwrap();
        let mut name = [0; SOCKADDR_STORAGE_SIZE];
        let len = local_address(&a, &mut name).unwrap();
        assert_eq!(len, 16);
        assert_eq!(send(&b, b"hello", Some(&name[..len]), &[], 0), Ok(5));
        let (mut data, mut control) = ([0; 3], [0; 64]);
        let got = receive(&a, &mut data, &mut name, &mut control, libc::MSG_TRUNC as u32).unwrap();
        assert_eq!((got.len, &data, got.name_len, got.control_len), (5, b"hel", 16, 0));
        assert_eq!(receive(&a, &mut data, &mut name, &mut control, 0), Err(Errno::EAGAIN));
        assert_eq!(peer_address(&a, &mut name), Err(Errno::ENOTCONN));
        let mut value = [0; 4];
        assert_eq!(get_option(&a, SOL_SOCKET, SO_TYPE, &mut value), Ok(4));
        assert_eq!(u32::from_ne_bytes(value), SOCK_DGRAM);
        assert_eq!(query_device(&a, SIOCGIFCONF, &mut Ifreq::default()), Err(Errno::EINVAL));
    }
}
