//! [`ErrorQueue`]: what the network has said of packets that a socket sent, for recvmsg(2) with MSG_ERRQUEUE (IP_RECVERR, ip(7)).

use std::collections::VecDeque;
use std::net::SocketAddr;

use moat_abi::socket as abi;
use moat_abi::socket::{AF_INET, MsgFlags, SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6, SOL_IP, SOL_IPV6, SockExtendedErr};
use moat_abi::{Errno, Result};
use moat_image::ImageError;
use moat_image::state::NetworkErrorState;
use moat_net_stack::SendError;
use moat_sync::{LockClass, Mutex};
use moat_vfs::socket::{ControlMessage, Incoming, SocketCore};
use zerocopy::IntoBytes;

use crate::address;

/// Errors that wait; more are lost, as on Linux where the receive buffer is full.
const MOST: usize = 64;

struct Entry {
    /// What ICMP had of the packet, after the headers that the kernel made.
    data: Box<[u8]>,
    /// Where the packet was going.
    to: SocketAddr,
    error: SockExtendedErr,
    offender: SocketAddr,
}

/// The errors of one socket.
pub(crate) struct ErrorQueue(Mutex<VecDeque<Entry>>);

impl ErrorQueue {
    pub(crate) fn new() -> ErrorQueue {
        ErrorQueue(Mutex::new(LockClass::Stream, VecDeque::new()))
    }

    /// Takes an error of the network. `data`: what it has of the packet, as far as the sender made it.
    pub(crate) fn push(&self, error: &SendError, data: &[u8]) {
        let v4 = error.offender.is_ipv4();
        let mut queue = self.0.lock();
        if queue.len() >= MOST {
            return;
        }
        queue.push_back(Entry {
            data: data.into(),
            to: SocketAddr::new(error.header.destination, error.destination_port),
            error: SockExtendedErr {
                ee_errno: error.errno.raw().cast_unsigned(),
                ee_origin: if v4 { SO_EE_ORIGIN_ICMP } else { SO_EE_ORIGIN_ICMP6 },
                ee_type: error.kind,
                ee_code: error.code,
                ee_info: if error.errno == Errno::EMSGSIZE { error.info } else { 0 },
                ..SockExtendedErr::default()
            },
            offender: SocketAddr::new(error.offender, 0),
        });
    }

    /// All that wait, the first first.
    pub(crate) fn save(&self) -> Vec<NetworkErrorState> {
        let state = |e: &Entry| NetworkErrorState {
            data: e.data.to_vec(),
            to: e.to,
            offender: e.offender,
            error: (e.error.ee_errno, e.error.ee_info),
            kind: (e.error.ee_origin, e.error.ee_type, e.error.ee_code),
        };
        self.0.lock().iter().map(state).collect()
    }

    /// Those of an image.
    ///
    /// # Errors
    /// More than there can be.
    pub(crate) fn restore(saved: &[NetworkErrorState]) -> std::result::Result<ErrorQueue, ImageError> {
        let queue = ErrorQueue::new();
        // No packet is longer, and no more of them wait.
        if saved.len() > MOST || saved.iter().any(|e| e.data.len() > usize::from(u16::MAX)) {
            return Err(ImageError::state("errors of the network that a socket can't have"));
        }
        let entries = saved.iter().map(|saved| {
            let ((ee_errno, ee_info), (ee_origin, ee_type, ee_code)) = (saved.error, saved.kind);
            let error = SockExtendedErr { ee_errno, ee_info, ee_origin, ee_type, ee_code, ..Default::default() };
            Entry { data: saved.data.clone().into(), to: saved.to, error, offender: saved.offender }
        });
        queue.0.lock().extend(entries);
        Ok(queue)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// The first error as a socket of `family` gets it. That of the next one becomes the socket's pending error
    /// (`sock_dequeue_err_skb`).
    ///
    /// # Errors
    /// EAGAIN if there is none.
    pub(crate) fn receive(&self, core: &SocketCore, buf: &mut [u8], family: u16) -> Result<Incoming> {
        let (entry, next) = {
            let mut queue = self.0.lock();
            let entry = queue.pop_front().ok_or(Errno::EAGAIN)?;
            (entry, queue.front().map(|e| Errno::from_raw(e.error.ee_errno.cast_signed())))
        };
        let len = entry.data.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), entry.data.get(..len)) {
            to.copy_from_slice(from);
        }
        let from = Some(address::format(family, entry.to));
        let mut message = Incoming { len, full_len: entry.data.len(), from, ..Incoming::default() };
        message.flags |= MsgFlags::ERRQUEUE;
        if len < message.full_len {
            message.flags |= MsgFlags::TRUNC;
        }
        let (level, kind) = if family == AF_INET { (SOL_IP, abi::IP_RECVERR) } else { (SOL_IPV6, abi::IPV6_RECVERR) };
        let offender = address::format(family, entry.offender);
        let data = [entry.error.as_bytes(), offender.as_bytes()].concat();
        message.ancillary.other.push(ControlMessage { level, kind, data });
        let _ = core.take_error();
        next.into_iter().for_each(|errno| core.set_error(errno));
        Ok(message)
    }
}
