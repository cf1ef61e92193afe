//! [`Inbox`]: the receive queue of a socket that gets whole datagrams or packets.

mod persist;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use moat_abi::socket::{MsgFlags, SIOCGSTAMP, SIOCGSTAMPNS};
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::Caller;
use moat_vfs::socket::{BufferSide, CoreFlags, Incoming, SocketCore, SocketMemory, answer_queue_ioctl};
use zerocopy::IntoBytes;

use crate::address;
use crate::ancillary::{Arrived, describe, wants_stamps};
use crate::options::InetOptions;

/// A datagram or packet that has come.
pub(crate) struct Datagram {
    pub(crate) data: Box<[u8]>,
    pub(crate) from: SocketAddr,
    pub(crate) arrived: Arrived,
}

/// A receive queue.
pub(crate) struct Inbox {
    /// What so many bytes of data count for in the receive buffer.
    cost: fn(usize) -> usize,
    /// Where it is counted what waits.
    memory: Arc<SocketMemory>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    datagrams: VecDeque<Datagram>,
    /// What they count for.
    bytes: usize,
    closed: bool,
    stamp: Stamp,
}

/// When that came which was read last (`sk_stamp`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stamp {
    /// Nothing was read.
    #[default]
    Nothing,
    /// Something was, when nobody had asked for the time yet.
    Unasked,
    /// Nothing was read since somebody has asked.
    Asked,
    At(Timespec),
}

impl Stamp {
    fn after(self, at: Timespec, core: &SocketCore) -> Stamp {
        // Who gets it with each datagram gets it nowhere else (`sock_recv_cmsgs`).
        if wants_stamps(core) {
            return self;
        }
        match self {
            Stamp::Nothing | Stamp::Unasked => Stamp::Unasked,
            Stamp::Asked | Stamp::At(_) => Stamp::At(at),
        }
    }
}

impl Inbox {
    /// An empty one.
    pub(crate) fn new(cost: fn(usize) -> usize, memory: Arc<SocketMemory>) -> Inbox {
        Inbox { cost, memory, queue: Mutex::new(LockClass::Stream, Queue::default()) }
    }

    /// Takes a datagram; gives whether it did. One that finds no room in the receive buffer of the socket `core` is lost, but for
    /// the first.
    pub(crate) fn push(&self, mut datagram: Datagram, core: &SocketCore) -> bool {
        let mut queue = self.queue.lock();
        let cost = (self.cost)(datagram.data.len());
        let bytes = queue.bytes.saturating_add(cost);
        // The first one is taken whatever its size: else a buffer smaller than one datagram would never get any.
        let full = bytes > core.buffer(BufferSide::Receive) && !queue.datagrams.is_empty();
        if queue.closed || full || cost > self.memory.room(queue.bytes) {
            core.count_lost();
            return false;
        }
        if core.has(CoreFlags::RXQ_OVFL) {
            datagram.arrived.lost = core.lost();
        }
        self.memory.charge(cost);
        queue.bytes = bytes;
        queue.datagrams.push_back(datagram);
        true
    }

    /// What waits, by `each`.
    pub(crate) fn all<T>(&self, each: impl Fn(&Datagram) -> T) -> Vec<T> {
        self.queue.lock().datagrams.iter().map(each).collect()
    }

    /// Takes a datagram that was in the queue before, whatever the room is.
    fn put_back(&self, datagram: Datagram) {
        let cost = (self.cost)(datagram.data.len());
        let mut queue = self.queue.lock();
        self.memory.charge(cost);
        queue.bytes = queue.bytes.saturating_add(cost);
        queue.datagrams.push_back(datagram);
    }

    /// The first datagram as recv(2) gives it to a socket of `family` with `options`; `None` if there is none.
    pub(crate) fn receive(
        &self,
        buf: &mut [u8],
        flags: MsgFlags,
        (core, options): (&SocketCore, &InetOptions),
        (family, port): (u16, u16),
    ) -> Option<Incoming> {
        let mut queue = self.queue.lock();
        let front = queue.datagrams.front()?;
        let len = front.data.len().min(buf.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..len), front.data.get(..len)) {
            to.copy_from_slice(from);
        }
        let from = Some(address::format(family, front.from));
        let mut message = Incoming { len, full_len: front.data.len(), from, ..Incoming::default() };
        if len < message.full_len {
            // The rest of a datagram is lost (recv(2)).
            message.flags |= MsgFlags::TRUNC;
        }
        message.ancillary.other = describe(core, options, (family, port), &front.arrived);
        queue.stamp = queue.stamp.after(front.arrived.at, core);
        if !flags.contains(MsgFlags::PEEK) {
            let cost = (self.cost)(message.full_len).min(queue.bytes);
            self.memory.release(cost);
            queue.bytes = queue.bytes.saturating_sub(cost);
            let gone = queue.datagrams.pop_front();
            // Freed with the lock given up: a datagram has up to 64 kB.
            drop(queue);
            drop(gone);
        }
        Some(message)
    }

    /// SIOCGSTAMP: when that came which was read last; the first call asks for it to be noted (`sock_gettstamp`).
    ///
    /// # Errors
    /// ENOENT if nothing was read.
    pub(crate) fn stamp(&self) -> Result<Timespec> {
        let mut queue = self.queue.lock();
        match queue.stamp {
            Stamp::Nothing => {
                queue.stamp = Stamp::Asked;
                Err(Errno::ENOENT)
            }
            Stamp::Asked => Err(Errno::ENOENT),
            // Nobody has noted it: the time of the question stands for it.
            Stamp::Unasked => {
                let now = moat_vfs::clock::now();
                queue.stamp = Stamp::At(now);
                Ok(now)
            }
            Stamp::At(at) => Ok(at),
        }
    }

    /// Answers the ioctls about the queue.
    ///
    /// # Errors
    /// ENOTTY for others; EFAULT; those of [`Inbox::stamp`].
    pub(crate) fn ioctl(&self, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        let bytes = match cmd {
            // Microseconds, as `struct timeval` has them.
            SIOCGSTAMP => {
                let at = self.stamp()?;
                [at.tv_sec.to_ne_bytes(), (at.tv_nsec / 1000).to_ne_bytes()].concat()
            }
            SIOCGSTAMPNS => self.stamp()?.as_bytes().to_vec(),
            _ => return answer_queue_ioctl(caller, cmd, arg, || self.first_len()),
        };
        caller.write_user(arg, &bytes)?;
        Ok(0)
    }

    /// What all that waits counts for.
    pub(crate) fn bytes(&self) -> usize {
        self.queue.lock().bytes
    }

    /// Bytes of the first datagram (SIOCINQ); 0 if there is none.
    pub(crate) fn first_len(&self) -> usize {
        self.queue.lock().datagrams.front().map_or(0, |datagram| datagram.data.len())
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().datagrams.is_empty()
    }

    /// Takes nothing any more, and drops what waits.
    pub(crate) fn close(&self) {
        let old = {
            let mut queue = self.queue.lock();
            // So that a datagram under way to a closed socket is not kept.
            queue.closed = true;
            self.memory.release(std::mem::take(&mut queue.bytes));
            std::mem::take(&mut queue.datagrams)
        };
        drop(old);
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.close();
    }
}
