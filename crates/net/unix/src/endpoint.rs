//! [`Endpoint`]: what the peers of a socket know of it.

pub(crate) mod persist;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::socket::MsgFlags;
use moat_abi::{Errno, PollEvents, Result};
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::socket::{BufferSide, ByteQueue, Incoming, SocketCore, SocketCreds};

use crate::name::Name;
use crate::rights::Rights;
use crate::waiting::{note_waiting, wake};

/// The reading half is closed (`RCV_SHUTDOWN`).
pub(crate) const SHUT_READ: u8 = 1;
/// The writing half is closed (`SEND_SHUTDOWN`).
pub(crate) const SHUT_WRITE: u8 = 2;

/// Messages that a datagram socket holds from others than its peer (`net.unix.max_dgram_qlen`).
const MAX_DGRAM_QLEN: usize = 10;

/// Who a piece of data is from, and what goes with it.
#[derive(Default)]
pub(crate) struct Attached {
    pub(crate) creds: Option<SocketCreds>,
    pub(crate) rights: Option<Rights>,
}

/// Bytes of a stream that belong together.
struct Segment {
    len: usize,
    attached: Attached,
}

/// A message with borders.
struct Packet {
    data: Box<[u8]>,
    from: Option<Arc<Name>>,
    attached: Attached,
    charge: Charge,
}

/// Bytes charged to their sender while they lie in a queue.
struct Charge {
    sender: Arc<Endpoint>,
    bytes: usize,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.sender.give_back(self.bytes);
    }
}

/// What a message of `len` bytes counts for, with the overhead that Linux's buffers have.
fn cost(len: usize) -> usize {
    (len + 320).next_multiple_of(512) + 256
}

#[derive(Default)]
struct Inbox {
    bytes: ByteQueue,
    segments: VecDeque<Segment>,
    packets: VecDeque<Packet>,
    /// The owner is gone: nothing is taken any more.
    dead: bool,
    /// Senders that found the queue full.
    waiting: Vec<Weak<WaitQueue>>,
}

/// A socket, as its peers see it.
pub(crate) struct Endpoint {
    pub(crate) core: SocketCore,
    shutdown: AtomicU8,
    pub(crate) name: Mutex<Option<Arc<Name>>>,
    /// Identity of the only endpoint that a connected datagram socket takes messages of; 0 for all.
    pub(crate) only_from: AtomicU64,
    inbox: Mutex<Inbox>,
    /// Bytes sent and not yet received; counted for the container too.
    sent: AtomicUsize,
    /// A sender found no room, or poll said so: it wants to be woken.
    starved: AtomicBool,
}

impl Endpoint {
    pub(crate) fn new(core: SocketCore) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            core,
            shutdown: AtomicU8::new(0),
            name: Mutex::new(LockClass::Table, None),
            only_from: AtomicU64::new(0),
            inbox: Mutex::new(LockClass::Stream, Inbox::default()),
            sent: AtomicUsize::new(0),
            starved: AtomicBool::new(false),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.core.ino()
    }

    pub(crate) fn name(&self) -> Option<Arc<Name>> {
        self.name.lock().clone()
    }

    pub(crate) fn shutdown_bits(&self) -> u8 {
        self.shutdown.load(Ordering::Acquire)
    }

    /// Closes halves and tells whoever waits.
    pub(crate) fn close_halves(&self, bits: u8) {
        self.shutdown.fetch_or(bits, Ordering::AcqRel);
        self.core.queue().wake_all();
    }

    // Sending

    fn sndbuf(&self) -> usize {
        self.core.buffer(BufferSide::Send)
    }

    /// Bytes sent that nobody has received yet.
    pub(crate) fn unreceived(&self) -> usize {
        self.sent.load(Ordering::Relaxed)
    }

    /// Counts bytes that it has sent.
    fn take_up(&self, bytes: usize) {
        self.core.memory().charge(bytes);
        self.sent.fetch_add(bytes, Ordering::SeqCst);
    }

    fn give_back(&self, bytes: usize) {
        self.core.memory().release(bytes);
        let before = self.sent.fetch_sub(bytes, Ordering::SeqCst);
        let left = before.saturating_sub(bytes);
        // A quarter in use is what `writable` asks for: woken earlier, poll(2) would find nothing.
        if left.saturating_mul(4) <= self.sndbuf() && self.starved.swap(false, Ordering::SeqCst) {
            self.core.queue().wake(PollEvents::WRITE_READY);
        }
    }

    /// Bytes that may be sent; with none left the sender will be woken.
    fn room(&self) -> usize {
        let free = || {
            let sent = self.sent.load(Ordering::SeqCst);
            self.sndbuf().saturating_sub(sent).min(self.core.memory().room(sent))
        };
        match free() {
            0 => {
                // Once more after the flag is up: a receiver that did not see it has made room before.
                self.starved.store(true, Ordering::SeqCst);
                free()
            }
            n => n,
        }
    }

    /// Whether poll(2) says writable: at least three quarters of the buffer are free (`unix_writable`), and the container has
    /// room for more.
    pub(crate) fn writable(&self) -> bool {
        let fine = || {
            let sent = self.sent.load(Ordering::SeqCst);
            sent.saturating_mul(4) <= self.sndbuf() && self.core.memory().room(sent) > 0
        };
        fine() || {
            self.starved.store(true, Ordering::SeqCst);
            fine()
        }
    }

    /// Takes bytes of a stream from `sender`, with what goes with them; gives how many.
    pub(crate) fn push_bytes(&self, sender: &Endpoint, data: &[u8], attached: Attached) -> Result<usize> {
        let n = {
            let mut inbox = self.inbox.lock();
            if inbox.dead || self.shutdown_bits() & SHUT_READ != 0 {
                return Err(Errno::EPIPE);
            }
            // A stream has one inbox, whose lock keeps room and count in step.
            let n = sender.room().min(data.len());
            if n == 0 && !data.is_empty() {
                return Err(Errno::EAGAIN);
            }
            inbox.add_bytes(data.get(..n).unwrap_or_default(), attached);
            sender.take_up(n);
            n
        };
        self.core.queue().wake(PollEvents::READ_READY);
        Ok(n)
    }

    /// Takes a whole message from `sender`.
    pub(crate) fn push_packet(
        &self,
        sender: &Arc<Endpoint>,
        data: &[u8],
        limit: QueueLimit,
        attached: Attached,
    ) -> Result<usize> {
        // The room that Linux keeps back (`unix_dgram_sendmsg`).
        if data.len() > sender.sndbuf().saturating_sub(32) {
            return Err(Errno::EMSGSIZE);
        }
        {
            let mut inbox = self.inbox.lock();
            if inbox.dead {
                return Err(Errno::ECONNREFUSED);
            }
            if self.shutdown_bits() & SHUT_READ != 0 {
                return Err(Errno::EPIPE);
            }
            // Any room at all will do, as on Linux: one message may exceed what is left.
            if sender.room() == 0 {
                return Err(Errno::EAGAIN);
            }
            if limit == QueueLimit::Short && inbox.packets.len() > MAX_DGRAM_QLEN {
                note_waiting(&mut inbox.waiting, sender.core.queue());
                return Err(Errno::EAGAIN);
            }
            let bytes = cost(data.len());
            // Beyond its container's limit a socket has one short message under way.
            if bytes > sender.core.memory().room(0) {
                return Err(Errno::ENOBUFS);
            }
            sender.take_up(bytes);
            let charge = Charge { sender: sender.clone(), bytes };
            inbox.packets.push_back(Packet { data: data.into(), from: sender.name(), attached, charge });
        }
        self.core.queue().wake(PollEvents::READ_READY);
        Ok(data.len())
    }

    /// Whether a datagram from another than the peer finds room; if not, `sender` will be woken.
    pub(crate) fn takes_datagrams(&self, sender: &Arc<WaitQueue>) -> bool {
        let mut inbox = self.inbox.lock();
        let full = !inbox.dead && inbox.packets.len() > MAX_DGRAM_QLEN;
        if full {
            note_waiting(&mut inbox.waiting, sender);
        }
        !full
    }

    // Receiving

    /// Takes bytes of a stream that `peer` has sent; EAGAIN if there are none.
    pub(crate) fn take_bytes(
        &self,
        peer: &Endpoint,
        buf: &mut [u8],
        flags: MsgFlags,
        pass_creds: bool,
    ) -> Result<Incoming> {
        let mut inbox = self.inbox.lock();
        if inbox.segments.is_empty() {
            return Err(Errno::EAGAIN);
        }
        if flags.contains(MsgFlags::PEEK) {
            return Ok(inbox.peek_bytes(buf, pass_creds));
        }
        let (message, taken) = inbox.take_bytes(buf, pass_creds);
        peer.give_back(taken);
        drop(inbox);
        Ok(message)
    }

    /// Takes a message; EAGAIN if there is none.
    pub(crate) fn take_packet(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming> {
        let mut inbox = self.inbox.lock();
        let front = inbox.packets.front().ok_or(Errno::EAGAIN)?;
        let len = front.data.len().min(buf.len());
        buf[..len].copy_from_slice(&front.data[..len]);
        let mut m = Incoming {
            len,
            full_len: front.data.len(),
            from: front.from.as_ref().map(|n| n.to_sockaddr()),
            ..Incoming::default()
        };
        if len < m.full_len {
            m.flags |= MsgFlags::TRUNC;
        }
        // The files get new references; the rights stay in flight.
        if flags.contains(MsgFlags::PEEK) {
            m.ancillary.creds = front.attached.creds.clone();
            m.ancillary.files = front.attached.rights.as_ref().map(Rights::peek).unwrap_or_default();
            return Ok(m);
        }
        let packet = inbox.packets.pop_front();
        let waiting =
            if inbox.packets.len() <= MAX_DGRAM_QLEN { std::mem::take(&mut inbox.waiting) } else { Vec::new() };
        // From here on unlocked: giving room back wakes the sender.
        drop(inbox);
        wake(&waiting);
        if let Some(Packet { attached, charge, .. }) = packet {
            drop(charge);
            m.ancillary.creds = attached.creds;
            m.ancillary.files = attached.rights.map(Rights::receive).unwrap_or_default();
        }
        Ok(m)
    }

    /// Whether a read would find data.
    pub(crate) fn has_data(&self) -> bool {
        let inbox = self.inbox.lock();
        !inbox.segments.is_empty() || !inbox.packets.is_empty()
    }

    /// Bytes of all that waits, and of the first message.
    pub(crate) fn waiting_bytes(&self) -> (usize, usize) {
        let inbox = self.inbox.lock();
        let packets = inbox.packets.iter().map(|p| p.data.len()).sum::<usize>();
        (inbox.bytes.len() + packets, inbox.packets.front().map_or(0, |p| p.data.len()))
    }

    /// Ends the endpoint; gives whether data was lost. `peer` is that of a connection.
    pub(crate) fn kill(&self, peer: Option<&Arc<Endpoint>>) -> Unread {
        let (old, bytes) = {
            let mut inbox = self.inbox.lock();
            // Marked dead, so that a sender that still has it fails.
            let old = std::mem::replace(&mut *inbox, Inbox { dead: true, ..Inbox::default() });
            let bytes = old.bytes.len();
            (old, bytes)
        };
        // Packets give their room back by themselves.
        if let Some(peer) = peer {
            peer.give_back(bytes);
        }
        wake(&old.waiting);
        let unread = !old.segments.is_empty() || !old.packets.is_empty();
        self.shutdown.fetch_or(SHUT_READ | SHUT_WRITE, Ordering::AcqRel);
        if unread { Unread::Some } else { Unread::None }
    }

    /// Shows the rights in the queue.
    pub(crate) fn for_each_rights(&self, show: &mut dyn FnMut(&Rights)) {
        let inbox = self.inbox.lock();
        let segments = inbox.segments.iter().map(|s| &s.attached);
        let packets = inbox.packets.iter().map(|p| &p.attached);
        segments.chain(packets).filter_map(|a| a.rights.as_ref()).for_each(show);
    }

    /// Takes the rights out of the queue, leaving the data.
    pub(crate) fn take_rights(&self) -> Vec<Rights> {
        let mut inbox = self.inbox.lock();
        let i = &mut *inbox;
        let segments = i.segments.iter_mut().map(|s| &mut s.attached);
        let packets = i.packets.iter_mut().map(|p| &mut p.attached);
        segments.chain(packets).filter_map(|a| a.rights.take()).collect()
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // What a dead connection's other end has not read.
        self.core.memory().release(self.sent.load(Ordering::SeqCst));
    }
}

/// Whether the queue of a datagram socket is held short: not for the socket's own peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum QueueLimit {
    Short,
    None,
}

/// Whether data was left when a socket went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    None,
    Some,
}

/// Whether two pieces of a stream are from the same sender.
fn same_sender(a: Option<&SocketCreds>, b: Option<&SocketCreds>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.same(b),
        _ => false,
    }
}

impl Inbox {
    fn add_bytes(&mut self, data: &[u8], attached: Attached) {
        // A stream has no empty messages: rights without data go nowhere.
        if data.is_empty() {
            return;
        }
        self.bytes.push(data);
        // Rights stay with the bytes that they were sent with.
        match self.segments.back_mut() {
            Some(last)
                if attached.rights.is_none()
                    && last.attached.rights.is_none()
                    && same_sender(last.attached.creds.as_ref(), attached.creds.as_ref()) =>
            {
                last.len += data.len();
            }
            _ => self.segments.push_back(Segment { len: data.len(), attached }),
        }
    }

    /// Bytes of whole and part segments that one read may take, and the index of the segment whose rights it gets.
    ///
    /// A read ends behind a segment with rights, and before one of another sender if the reader wants to know them.
    fn readable(&self, room: usize, pass_creds: bool) -> (usize, Option<usize>) {
        let first = self.segments.front().and_then(|s| s.attached.creds.as_ref());
        let mut len = 0;
        for (at, s) in self.segments.iter().enumerate() {
            if len >= room || (pass_creds && !same_sender(first, s.attached.creds.as_ref())) {
                break;
            }
            len += s.len.min(room - len);
            if s.attached.rights.is_some() {
                return (len, Some(at));
            }
        }
        (len, None)
    }

    fn peek_bytes(&self, buf: &mut [u8], pass_creds: bool) -> Incoming {
        let (len, with_rights) = self.readable(buf.len(), pass_creds);
        let mut m = Incoming::bytes(self.bytes.peek(&mut buf[..len], 0));
        m.ancillary.creds = self.segments.front().and_then(|s| s.attached.creds.clone());
        let rights = with_rights.and_then(|at| self.segments.get(at)?.attached.rights.as_ref());
        m.ancillary.files = rights.map(Rights::peek).unwrap_or_default();
        m.complete = !m.ancillary.files.is_empty();
        m
    }

    /// Gives the message and the bytes taken.
    fn take_bytes(&mut self, buf: &mut [u8], pass_creds: bool) -> (Incoming, usize) {
        let (len, with_rights) = self.readable(buf.len(), pass_creds);
        let mut m = Incoming::bytes(self.bytes.take(&mut buf[..len]));
        m.ancillary.creds = self.segments.front().and_then(|s| s.attached.creds.clone());
        // A short read has the rights at once; what is left of the segment is plain data.
        if let Some(s) = with_rights.and_then(|at| self.segments.get_mut(at)) {
            m.ancillary.files = s.attached.rights.take().map(Rights::receive).unwrap_or_default();
        }
        let mut left = m.len;
        while let Some(front) = self.segments.front_mut() {
            if front.len > left {
                front.len -= left;
                break;
            }
            left -= front.len;
            self.segments.pop_front();
        }
        let next = self.segments.front().map(|s| s.attached.creds.as_ref());
        m.complete =
            with_rights.is_some() || (pass_creds && next.is_some_and(|n| !same_sender(n, m.ancillary.creds.as_ref())));
        let n = m.len;
        (m, n)
    }
}
