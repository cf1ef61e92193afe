//! [`PacketLink`]: a link of the stack whose frames go over a packet socket of the host.
//!
//! The socket was opened by the sandbox's creator in the sandbox's network namespace ([`moat_host::packet::open`]) and
//! donated; the sentry can do no more with it than receive and send frames.
#![forbid(unsafe_code)]

pub mod header;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use moat_abi::Errno;
use moat_host::packet::{self, BATCH, VNET_HEADER_BYTES};
use moat_net_stack::{DeviceFeatures, Frame, LinkDevice, Offload, TransmitError};
use moat_sync::{LockClass, Mutex, WaitQueue};

/// Bytes of the largest frame with its header: an IP packet of 64 KiB, with the header of Ethernet and two VLAN tags.
const FRAME_BYTES: usize = VNET_HEADER_BYTES + 22 + (64 << 10);

/// Bytes of an IP packet whose segments the host cuts. With the headers it stays below 64 KiB.
const SEGMENTS_BYTES: u32 = (64 << 10) - 1;

/// A link over a packet socket.
pub struct PacketLink {
    socket: Arc<OwnedFd>,
    /// Made when the first frame comes; memory that no frame has reached is not resident.
    buffers: Mutex<Vec<Vec<u8>>>,
    /// Woken when there are frames, or never will be any more.
    queue: Arc<WaitQueue>,
    removed: AtomicBool,
}

impl PacketLink {
    /// A link over a donated packet socket.
    #[must_use]
    pub fn new(socket: Arc<OwnedFd>) -> Self {
        PacketLink {
            socket,
            buffers: Mutex::new(LockClass::Link, Vec::new()),
            queue: Arc::new(WaitQueue::new()),
            removed: AtomicBool::new(false),
        }
    }

    /// Who waits for frames.
    #[must_use]
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// Whether the stack has given it up.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Acquire)
    }

    /// The socket, to be watched for frames.
    #[must_use]
    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }
}

impl LinkDevice for PacketLink {
    fn features(&self) -> DeviceFeatures {
        DeviceFeatures { checksum: true, tcp_segments: SEGMENTS_BYTES }
    }

    fn removed(&self) {
        self.removed.store(true, Ordering::Release);
        self.queue.wake_all();
    }

    fn transmit(&self, frames: &[Frame<'_>]) -> Result<usize, TransmitError> {
        let mut headers = [[0; VNET_HEADER_BYTES]; BATCH];
        let mut batch = Vec::with_capacity(frames.len().min(BATCH));
        for (header, frame) in headers.iter_mut().zip(frames) {
            *header = header::encode(frame.offload);
            batch.push((&*header, frame.parts));
        }
        match packet::send(self.socket.as_fd(), &batch) {
            Ok(sent) => Ok(sent),
            Err(Errno::EAGAIN | Errno::ENOBUFS | Errno::ENOMEM) => Err(TransmitError::Full),
            Err(Errno::ENETDOWN | Errno::ENXIO | Errno::ENODEV) => Err(TransmitError::Down),
            Err(_) => Err(TransmitError::Refused),
        }
    }

    fn receive(&self, budget: usize, take: &mut dyn FnMut(&[u8], Offload)) -> usize {
        let mut buffers = self.buffers.lock();
        if buffers.is_empty() {
            buffers.resize_with(BATCH, || vec![0; FRAME_BYTES]);
        }
        let mut lengths = [0; BATCH];
        let mut taken = 0;
        while taken < budget {
            let room = BATCH.min(budget - taken);
            // A link that is down says so once, and has no frames until it is up.
            let Ok(got) = packet::receive(self.socket.as_fd(), &mut buffers[..room], &mut lengths) else { break };
            for (buffer, length) in buffers.iter().zip(lengths).take(got) {
                // One that was cut is longer than its buffer.
                let Some((header, frame)) = buffer.get(..length).and_then(|b| b.split_first_chunk()) else { continue };
                take(frame, header::decode(header));
            }
            taken += got;
            if got < room {
                break;
            }
        }
        taken
    }
}
