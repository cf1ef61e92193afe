//! Packet sockets, packet(7): the frames of one network device, with their offloads.
//!
//! Each frame goes with a `struct virtio_net_hdr` ([`VNET_HEADER_BYTES`]), by which the kernel passes segments of up to 64 KiB
//! and leaves checksums to whoever needs them. A socket belongs to the network namespace that it was made in, whoever has
//! it: it is made by the creator of a sandbox and donated.

use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use moat_abi::socket::{SOL_SOCKET, SockaddrLl};
use moat_abi::{Errno, Result};
use rustix::net::{AddressFamily, SocketFlags, SocketType};
use zerocopy::IntoBytes;

use crate::net::{bind, set_option};
use crate::result::check;

/// Bytes of a `struct virtio_net_hdr` before each frame.
pub const VNET_HEADER_BYTES: usize = 10;

/// Frames that one call receives or sends at most.
pub const BATCH: usize = 16;

/// Bytes that may wait to be received; the kernel doubles it for its own overhead.
const RECEIVE_BUFFER_BYTES: u32 = 4 << 20;
/// Bytes that may wait to be sent.
const SEND_BUFFER_BYTES: u32 = 4 << 20;

const AF_PACKET: u16 = 17;
const ETH_P_ALL: u16 = 3;
const SOL_PACKET: u32 = 263;
const PACKET_ADD_MEMBERSHIP: u32 = 1;
const PACKET_MR_ALLMULTI: u16 = 2;
const PACKET_VNET_HDR: u32 = 15;
const PACKET_IGNORE_OUTGOING: u32 = 23;

/// Opens a packet socket on the device with number `index` in the network namespace of the calling thread. It does not
/// block, receives all multicast frames, and not the frames that leave by the device.
///
/// # Errors
/// EPERM without CAP_NET_RAW over the namespace; ENODEV.
pub fn open(index: u32) -> Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // Protocol 0 receives nothing until bind(2) names the device: no frame of another device slips in.
    let socket = rustix::net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let index = i32::try_from(index).map_err(|_| Errno::ENODEV)?;
    set_option(&socket, SOL_PACKET, PACKET_VNET_HDR, &1i32.to_ne_bytes())?;
    match set_option(&socket, SOL_PACKET, PACKET_IGNORE_OUTGOING, &1i32.to_ne_bytes()) {
        // Before Linux 4.20; the receiver looks at who sent a frame in any case.
        Ok(()) | Err(Errno::ENOPROTOOPT) => {}
        Err(error) => return Err(error),
    }
    // struct packet_mreq: index, kind, and no address.
    let mut membership = [0; 16];
    membership[..4].copy_from_slice(&index.to_ne_bytes());
    membership[4..6].copy_from_slice(&PACKET_MR_ALLMULTI.to_ne_bytes());
    set_option(&socket, SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership)?;
    for (name, forced, bytes) in [
        (libc::SO_RCVBUF, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER_BYTES),
        (libc::SO_SNDBUF, libc::SO_SNDBUFFORCE, SEND_BUFFER_BYTES),
    ] {
        // Without CAP_NET_ADMIN in the first user namespace as much as the host's administrator lets anybody have.
        set_option(&socket, SOL_SOCKET, forced.cast_unsigned(), &bytes.to_ne_bytes())
            .or_else(|_| set_option(&socket, SOL_SOCKET, name.cast_unsigned(), &bytes.to_ne_bytes()))?;
    }
    let address = SockaddrLl {
        sll_family: AF_PACKET,
        sll_protocol: ETH_P_ALL.to_be_bytes(),
        sll_ifindex: index,
        ..SockaddrLl::default()
    };
    bind(&socket, address.as_bytes())?;
    Ok(socket)
}

/// Receives up to [`BATCH`] frames, each with its header into one of `buffers`; gives how many bytes each has.
///
/// A frame that is longer than its buffer is cut, which its length shows: it is that of the whole frame.
///
/// # Errors
/// EAGAIN if there is none; ENETDOWN once after the device went down.
pub fn receive(socket: BorrowedFd<'_>, buffers: &mut [Vec<u8>], lengths: &mut [usize; BATCH]) -> Result<usize> {
    let count = buffers.len().min(BATCH);
    // SAFETY: mmsghdr and iovec are plain integers and pointers, for which zero is valid.
    let (mut headers, mut vectors): ([libc::mmsghdr; BATCH], [libc::iovec; BATCH]) = unsafe { std::mem::zeroed() };
    for ((header, vector), buffer) in headers.iter_mut().zip(&mut vectors).zip(buffers.iter_mut()) {
        *vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        header.msg_hdr.msg_iov = ptr::from_mut(vector);
        header.msg_hdr.msg_iovlen = 1;
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    // SAFETY: each of the first `count` headers points to one vector, that to a buffer of its length; all outlive the call.
    let got = check(i64::from(unsafe {
        libc::recvmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), messages(count), flags, ptr::null_mut())
    }))?;
    let got = usize::try_from(got).unwrap_or(0).min(count);
    for (length, header) in lengths.iter_mut().zip(&headers).take(got) {
        *length = usize::try_from(header.msg_len).unwrap_or(usize::MAX);
    }
    Ok(got)
}

/// A frame to send: its header, and its bytes in parts.
pub type Outgoing<'a> = (&'a [u8; VNET_HEADER_BYTES], &'a [IoSlice<'a>]);

/// Sends frames in their order, at most [`BATCH`] of them; gives how many went.
///
/// # Errors
/// EAGAIN or ENOBUFS if the device takes none now; ENETDOWN, ENXIO, EMSGSIZE, EINVAL for the first frame.
pub fn send(socket: BorrowedFd<'_>, frames: &[Outgoing<'_>]) -> Result<usize> {
    let count = frames.len().min(BATCH);
    let mut vectors: Vec<libc::iovec> =
        Vec::with_capacity(frames.iter().take(count).map(|f| f.1.len().saturating_add(1)).sum());
    let mut ends = [0; BATCH];
    for (end, (header, parts)) in ends.iter_mut().zip(frames) {
        let parts = std::iter::once(&header[..]).chain(parts.iter().map(|part| &part[..]));
        vectors.extend(parts.map(|p| libc::iovec { iov_base: p.as_ptr().cast_mut().cast(), iov_len: p.len() }));
        *end = vectors.len();
    }
    // SAFETY: mmsghdr is plain integers and pointers, for which zero is valid.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
    let mut rest = &mut vectors[..];
    let mut start = 0;
    for (header, end) in headers.iter_mut().zip(ends).take(count) {
        let (own, others) = rest.split_at_mut(end.saturating_sub(start));
        header.msg_hdr.msg_iov = own.as_mut_ptr();
        header.msg_hdr.msg_iovlen = own.len();
        (rest, start) = (others, end);
    }
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: sendmmsg only reads what the first `count` headers point to, all of which outlives the call.
    let sent =
        check(i64::from(unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), messages(count), flags) }))?;
    Ok(usize::try_from(sent).unwrap_or(0).min(count))
}

/// A number of messages for the kernel.
fn messages(count: usize) -> libc::c_uint {
    libc::c_uint::try_from(count).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn frames_cross_the_loopback_device_with_their_headers() {
        let Ok(socket) = open(1) else {
            // An ordinary user has no packet sockets.
            assert!(!rustix::process::geteuid().is_root(), "root must get a packet socket");
            return;
        };
        // Broadcast of an unassigned protocol, from and to nobody.
        let mut frame = vec![0xff; 6];
        frame.extend([2, 0, 0, 0, 0, 7, 0x88, 0xb5]);
        frame.extend(*b"moat test frame");
        let header = [0u8; VNET_HEADER_BYTES];
        let parts = [IoSlice::new(&frame[..14]), IoSlice::new(&frame[14..])];
        assert_eq!(send(socket.as_fd(), &[(&header, &parts)]), Ok(1));
        let mut buffers = vec![vec![0u8; 2048]; 4];
        let mut lengths = [0; BATCH];
        // Other traffic of the machine may come first.
        for _ in 0..1000 {
            let got = receive(socket.as_fd(), &mut buffers, &mut lengths).unwrap_or(0);
            for (buffer, length) in buffers.iter().zip(lengths).take(got) {
                if buffer.get(VNET_HEADER_BYTES..length) == Some(&frame[..]) {
                    return;
                }
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("the frame did not come back");
    }
}
