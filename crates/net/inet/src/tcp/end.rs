//! [`TcpEnd`]: one end of a connection, as the other one sees it.

mod cork;
mod persist;
mod stamps;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::socket::MsgFlags;
use moat_abi::{Errno, PollEvents, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::socket::{BufferSide, ByteQueue, CoreFlags, SocketCore, SocketMemory};

/// The peer has ended its writing half, or this side reads no more (`RCV_SHUTDOWN`).
pub(crate) const SHUT_READ: u8 = 1;
/// This side writes no more (`SEND_SHUTDOWN`).
pub(crate) const SHUT_WRITE: u8 = 2;

/// Bytes under way that a sender may have, unless SO_SNDBUF says otherwise: what Linux's autotuning gives on the loopback.
const AUTO_SNDBUF: usize = 2_626_560;
/// The starting sizes (`net.ipv4.tcp_{w,r}mem`).
const START_SNDBUF: usize = 16_384;
const START_RCVBUF: usize = 131_072;

/// How bytes are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pushed {
    Plain,
    /// The last byte is urgent (MSG_OOB).
    Urgent,
    /// Only whole segments go (TCP_CORK).
    Corked,
}

#[derive(Default)]
struct Inbox {
    bytes: ByteQueue,
    /// The last byte is the peer's urgent one.
    urgent: Option<u8>,
    /// The socket is closed: what comes is answered by a reset.
    closed: bool,
    /// The sender found no room and wants to be woken.
    starved: bool,
    /// The room that the sender had when it last looked.
    limit: usize,
    /// Where the bytes are counted: the sender's container.
    memory: Option<Arc<SocketMemory>>,
    charged: usize,
    cork: cork::Cork,
    stamps: stamps::Stamps,
}

impl Inbox {
    /// Counts `more` bytes that are about to be added.
    fn charge(&mut self, sender: &TcpEnd, more: usize) {
        let memory = self.memory.get_or_insert_with(|| sender.core.memory().clone());
        memory.charge(more);
        self.charged = self.charged.saturating_add(more);
    }

    /// Gives back what is counted beyond the bytes that are there.
    fn uncharge(&mut self) {
        let gone = self.charged.saturating_sub(self.bytes.len());
        if let Some(memory) = &self.memory {
            memory.release(gone);
        }
        self.charged = self.charged.saturating_sub(gone);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.bytes.clear();
        self.uncharge();
    }
}

/// One end of a connection.
pub(crate) struct TcpEnd {
    pub(crate) core: SocketCore,
    shutdown: AtomicU8,
    /// A reset came: the connection is gone.
    reset: AtomicBool,
    inbox: Mutex<Inbox>,
    /// Whom the first bytes are told, and whether they are awaited.
    first: OnceLock<Weak<TcpEnd>>,
    deferred: AtomicBool,
}

impl TcpEnd {
    pub(crate) fn new(core: SocketCore) -> Arc<TcpEnd> {
        Arc::new(TcpEnd {
            core,
            shutdown: AtomicU8::new(0),
            reset: AtomicBool::new(false),
            inbox: Mutex::new(LockClass::Stream, Inbox::default()),
            first: OnceLock::new(),
            deferred: AtomicBool::new(false),
        })
    }

    /// The options of a new socket.
    pub(crate) fn tuned(core: SocketCore) -> SocketCore {
        core.set_buffer(BufferSide::Send, START_SNDBUF);
        core.set_buffer(BufferSide::Receive, START_RCVBUF);
        core
    }

    /// Shows the buffer that autotuning has given, once there is a connection.
    pub(crate) fn show_tuned_buffer(&self) {
        if !self.core.has(CoreFlags::SNDBUF_SET) {
            self.core.set_buffer(BufferSide::Send, AUTO_SNDBUF);
        }
    }

    pub(crate) fn shutdown_bits(&self) -> u8 {
        self.shutdown.load(Ordering::Acquire)
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.reset.load(Ordering::Acquire)
    }

    pub(crate) fn add_shutdown(&self, bits: u8) {
        if bits & SHUT_READ != 0 {
            // The end of what is sent takes what a cork held along.
            self.inbox.lock().cork = cork::Cork::default();
        }
        self.shutdown.fetch_or(bits, Ordering::AcqRel);
        self.core.queue().wake_all();
        self.tell_first();
    }

    /// Takes a reset (`tcp_reset`): what has come can still be read, then the error.
    pub(crate) fn take_reset(&self) {
        // Only the first reset tells an error.
        if self.reset.swap(true, Ordering::AcqRel) {
            return;
        }
        // After an orderly end of the peer's it is a broken pipe (`tcp_reset`).
        let half_closed = self.shutdown_bits() & SHUT_READ != 0;
        self.core.set_error(if half_closed { Errno::EPIPE } else { Errno::ECONNRESET });
        self.add_shutdown(SHUT_READ | SHUT_WRITE);
    }

    /// Whether the connection is over on this side: reset, or ended both ways.
    pub(crate) fn is_over(&self) -> bool {
        self.is_reset() || self.shutdown_bits() == SHUT_READ | SHUT_WRITE
    }

    /// Bytes that `sender` may have lying here.
    fn limit(&self, sender: &TcpEnd) -> usize {
        let receive = self.core.buffer(BufferSide::Receive);
        // A size that the guest has set bounds what is under way; what the receiver has room for is added.
        if sender.core.has(CoreFlags::SNDBUF_SET) {
            return sender.core.buffer(BufferSide::Send) + receive;
        }
        if self.core.has(CoreFlags::RCVBUF_SET) {
            return receive + START_RCVBUF;
        }
        AUTO_SNDBUF
    }

    /// Has the end's first bytes told to `listener` (TCP_DEFER_ACCEPT).
    pub(crate) fn defer(&self, listener: &Arc<TcpEnd>) {
        let _ = self.first.set(Arc::downgrade(listener));
        self.deferred.store(true, Ordering::Release);
    }

    fn tell_first(&self) {
        // Most ends await nothing.
        if self.deferred.load(Ordering::Acquire)
            && self.deferred.swap(false, Ordering::AcqRel)
            && let Some(listener) = self.first.get().and_then(Weak::upgrade)
        {
            listener.core.queue().wake(PollEvents::READ_READY);
        }
    }

    /// Takes bytes from `sender`; gives how many.
    ///
    /// # Errors
    /// EAGAIN; ECONNRESET if the socket is closed, which resets the sender.
    pub(crate) fn push(self: &Arc<Self>, sender: &TcpEnd, data: &[u8], how: Pushed) -> Result<usize> {
        let limit = self.limit(sender);
        let urgent = how == Pushed::Urgent;
        let n = {
            let mut inbox = self.inbox.lock();
            if inbox.closed {
                return Err(Errno::ECONNRESET);
            }
            let held = inbox.bytes.len();
            let room = limit.saturating_sub(held).min(sender.core.memory().room(held));
            let n = room.min(data.len());
            if n == 0 && !data.is_empty() {
                // Noted with the queue locked: a reader that makes room after this look sees it.
                inbox.starved = true;
                // Where the container's limit is met, the room is what is held already.
                inbox.limit = limit.min(held);
                return Err(Errno::EAGAIN);
            }
            inbox.charge(sender, n);
            match data.split_last() {
                // The urgent byte stands apart from the stream, as without SO_OOBINLINE.
                Some((last, before)) if urgent && n == data.len() => {
                    inbox.bytes.push(before);
                    inbox.urgent = Some(*last);
                }
                _ => inbox.bytes.push(data.get(..n).unwrap_or_default()),
            }
            inbox.note(self, held);
            if self.hold(&mut inbox, n, how) {
                return Ok(n);
            }
            n
        };
        let events = if urgent { PollEvents::READ_READY | PollEvents::PRI } else { PollEvents::READ_READY };
        self.core.queue().wake(events);
        self.tell_first();
        Ok(n)
    }

    /// Whether poll(2) says that `sender` can write: a third of the room is free. If not, it will be woken.
    pub(crate) fn has_room(&self, sender: &TcpEnd) -> bool {
        let mut inbox = self.inbox.lock();
        let held = inbox.bytes.len();
        // Where the container's limit is met, the room is what is held already.
        let limit = self.limit(sender).min(held.saturating_add(sender.core.memory().room(held)));
        if inbox.closed || writable(inbox.bytes.len(), limit) {
            return true;
        }
        // As in `push`: who reads next wakes the sender.
        inbox.starved = true;
        inbox.limit = limit;
        false
    }

    /// Takes bytes that have come; `None` if there are none. `sender` is woken where it waits for room.
    pub(crate) fn take(&self, sender: Option<&TcpEnd>, buf: &mut [u8], flags: MsgFlags) -> Option<usize> {
        let (n, wake) = {
            let mut inbox = self.inbox.lock();
            let visible = inbox.visible();
            if visible == 0 {
                return None;
            }
            let fits = visible.min(buf.len());
            let buf = buf.get_mut(..fits).unwrap_or_default();
            if flags.contains(MsgFlags::PEEK) {
                // With MSG_TRUNC they are only counted.
                return Some(match flags.contains(MsgFlags::TRUNC) {
                    true => buf.len().min(inbox.bytes.len()),
                    false => inbox.bytes.peek(buf, 0),
                });
            }
            // MSG_TRUNC throws bytes away without a copy (tcp(7)).
            let n = if flags.contains(MsgFlags::TRUNC) {
                let n = buf.len().min(inbox.bytes.len());
                inbox.bytes.discard(n);
                n
            } else {
                inbox.bytes.take(buf)
            };
            inbox.uncharge();
            // Not at each read: as on Linux a third of the room has to be
            // free, so that writers do not wake for a byte.
            let wake = inbox.starved && writable(inbox.bytes.len(), inbox.limit);
            inbox.starved &= !wake;
            (n, wake)
        };
        if wake && let Some(sender) = sender {
            sender.core.queue().wake(PollEvents::WRITE_READY);
        }
        Some(n)
    }

    /// Takes the urgent byte.
    pub(crate) fn take_urgent(&self, flags: MsgFlags) -> Option<u8> {
        let mut inbox = self.inbox.lock();
        if flags.contains(MsgFlags::PEEK) { inbox.urgent } else { inbox.urgent.take() }
    }

    pub(crate) fn has_urgent(&self) -> bool {
        self.inbox.lock().urgent.is_some()
    }

    /// Bytes that wait to be read.
    pub(crate) fn available(&self) -> usize {
        self.inbox.lock().visible()
    }

    /// Makes the end fit for another connection. The old peer has been reset and sends no more.
    pub(crate) fn reopen(&self) {
        *self.inbox.lock() = Inbox::default();
        self.reset.store(false, Ordering::Release);
        self.shutdown.store(0, Ordering::Release);
    }

    /// Closes the socket; gives whether unread bytes were dropped.
    pub(crate) fn close(&self) -> bool {
        let mut inbox = self.inbox.lock();
        inbox.closed = true;
        let unread = !inbox.bytes.is_empty();
        inbox.bytes.clear();
        inbox.uncharge();
        unread
    }
}

fn writable(used: usize, limit: usize) -> bool {
    used <= limit / 3 * 2
}
