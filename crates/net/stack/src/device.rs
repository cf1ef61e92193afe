//! [`LinkDevice`]: the frames of one link.
//!
//! Implemented over AF_PACKET or TAP outside, over queues in tests. A frame is one of Ethernet, without its check sequence, beside
//! the metadata that `struct virtio_net_hdr` carries: a checksum that is still to be made, segments that are still to be cut.

use std::io::IoSlice;

use thiserror::Error;

/// A checksum that is still to be made (`VIRTIO_NET_HDR_F_NEEDS_CSUM`): the sum over the pseudo-header is in its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// Where the sum begins, from the start of the frame (`csum_start`).
    pub start: u16,
    /// The field that takes it, from `start` (`csum_offset`).
    pub offset: u16,
}

/// Whose segments a frame has together (`VIRTIO_NET_HDR_GSO_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segmentation {
    /// TCP over IPv4.
    Tcp4,
    /// TCP over IPv6.
    Tcp6,
    /// Datagrams of UDP of one size, but for the last (`VIRTIO_NET_HDR_GSO_UDP_L4`).
    Udp,
}

/// What is beside a frame (`struct virtio_net_hdr`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The checksum to be made. Of a received frame: it never crossed a wire and is trusted.
    pub checksum: Option<Checksum>,
    /// The receiver of the frame has verified its checksum (`VIRTIO_NET_HDR_F_DATA_VALID`).
    pub verified: bool,
    /// What is to be cut, with the bytes of payload in each segment (`gso_size`).
    pub segments: Option<(Segmentation, u16)>,
    /// Bytes of all headers, which each segment has (`hdr_len`); counts where `segments` is set.
    pub header_len: u16,
}

/// A frame to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its bytes, in parts that follow each other; the first part has all headers.
    pub parts: &'a [IoSlice<'a>],
    /// What is beside it.
    pub offload: Offload,
}

/// Why frames were not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum TransmitError {
    /// The queue is full: the stack tries again when it is told that the device is writable, or after a short time.
    #[error("the transmit queue is full")]
    Full,
    /// The link is down or gone: frames are lost until it is back.
    #[error("the link is down")]
    Down,
    /// The device refuses this frame, which is then lost (EINVAL, EMSGSIZE); others may pass.
    #[error("the frame was refused")]
    Refused,
}

/// What a device can do; by default neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceFeatures {
    /// Sent frames may lack their checksum ([`Offload::checksum`]).
    pub checksum: bool,
    /// Sent frames of TCP may be larger than the MTU ([`Offload::segments`]), up to this many bytes of IP packet; 0 if not.
    pub tcp_segments: u32,
}

/// The frames of one link. No call blocks.
pub trait LinkDevice: Send + Sync {
    /// What it can do; never changes.
    fn features(&self) -> DeviceFeatures;

    /// The link is gone: nothing is sent or received any more.
    fn removed(&self) {}

    /// Sends frames in their order; gives how many were taken, which is 0 only for no frames.
    ///
    /// # Errors
    /// [`TransmitError`], about the first of them.
    fn transmit(&self, frames: &[Frame<'_>]) -> Result<usize, TransmitError>;

    /// Gives at most `budget` frames that have come to `take`; gives how many. Fewer than `budget` means that there are no more, and
    /// that the poller is to say when there are. A frame is gone when `take` returns; `take` makes no call of the device.
    fn receive(&self, budget: usize, take: &mut dyn FnMut(&[u8], Offload)) -> usize;
}
