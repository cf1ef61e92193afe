//! [`SocketCore`]: options of level SOL_SOCKET, wait queue and pending error: socket(7).

mod persist;

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bitflags::bitflags;
use moat_abi::cap::Cap;
use moat_abi::socket as abi;
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::Counter;
use moat_sync::{LockClass, Mutex, WaitQueue};

use super::SocketMemory;
use crate::caller::Caller;

bitflags! {
    /// Options that are on or off.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct CoreFlags: u32 {
        #[allow(missing_docs)]
        const DEBUG = 1;
        #[allow(missing_docs)]
        const REUSEADDR = 1 << 1;
        #[allow(missing_docs)]
        const DONTROUTE = 1 << 2;
        #[allow(missing_docs)]
        const BROADCAST = 1 << 3;
        #[allow(missing_docs)]
        const KEEPALIVE = 1 << 4;
        #[allow(missing_docs)]
        const OOBINLINE = 1 << 5;
        #[allow(missing_docs)]
        const NO_CHECK = 1 << 6;
        #[allow(missing_docs)]
        const REUSEPORT = 1 << 7;
        #[allow(missing_docs)]
        const PASSCRED = 1 << 8;
        #[allow(missing_docs)]
        const TIMESTAMP = 1 << 9;
        #[allow(missing_docs)]
        const TIMESTAMPNS = 1 << 10;
        #[allow(missing_docs)]
        const PASSSEC = 1 << 11;
        #[allow(missing_docs)]
        const RXQ_OVFL = 1 << 12;
        #[allow(missing_docs)]
        const SELECT_ERR_QUEUE = 1 << 13;
        /// The sizes of the buffers were set by hand: they do not grow by themselves (`SOCK_SNDBUF_LOCK`).
        const SNDBUF_SET = 1 << 16;
        /// As [`CoreFlags::SNDBUF_SET`].
        const RCVBUF_SET = 1 << 17;
    }
}

/// Which of a socket's buffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum BufferSide {
    Send,
    Receive,
}

/// Default and largest size of a buffer (`net.core.{w,r}mem_{default,max}`).
pub const BUFFER_DEFAULT: usize = 212_992;
const BUFFER_MAX: usize = 212_992;
const SNDBUF_MIN: usize = 4608;
const RCVBUF_MIN: usize = 2304;

#[derive(Clone, Default)]
struct Details {
    /// Seconds; `None` if SO_LINGER is off.
    linger: Option<u32>,
    linger_seconds_off: u32,
    priority: u32,
    mark: u32,
    device: Vec<u8>,
    busy_poll: u32,
    pacing_rate: u64,
}

/// What all sockets have.
pub struct SocketCore {
    queue: Arc<WaitQueue>,
    inodes: Arc<Counter>,
    memory: Arc<SocketMemory>,
    ino: u64,
    flags: AtomicU32,
    /// A pending errno, 0 for none (`sk_err`).
    error: AtomicI32,
    /// What has come and was not taken (`sk_drops`).
    lost: AtomicU32,
    sndbuf: AtomicUsize,
    rcvbuf: AtomicUsize,
    rcvlowat: AtomicUsize,
    /// Nanoseconds; 0 for none.
    rcvtimeo_ns: AtomicU64,
    sndtimeo_ns: AtomicU64,
    details: Mutex<Details>,
}

impl SocketCore {
    /// The state of another new socket, with nothing of this one but where inode numbers come from and bytes are counted.
    #[must_use]
    pub fn fresh(&self) -> SocketCore {
        SocketCore::new(&self.inodes, &self.memory)
    }

    /// The state of a new socket, which gets an inode number of `inodes`; its bytes are counted in `memory`.
    #[must_use]
    pub fn new(inodes: &Arc<Counter>, memory: &Arc<SocketMemory>) -> SocketCore {
        SocketCore {
            queue: Arc::new(WaitQueue::new()),
            inodes: inodes.clone(),
            memory: memory.clone(),
            ino: inodes.next(),
            flags: AtomicU32::new(0),
            error: AtomicI32::new(0),
            lost: AtomicU32::new(0),
            sndbuf: AtomicUsize::new(BUFFER_DEFAULT),
            rcvbuf: AtomicUsize::new(BUFFER_DEFAULT),
            rcvlowat: AtomicUsize::new(1),
            rcvtimeo_ns: AtomicU64::new(0),
            sndtimeo_ns: AtomicU64::new(0),
            details: Mutex::new(LockClass::Leaf, Details { pacing_rate: u64::MAX, ..Details::default() }),
        }
    }

    /// Where the bytes in its queues are counted.
    #[must_use]
    pub fn memory(&self) -> &Arc<SocketMemory> {
        &self.memory
    }

    /// The state of a socket that a listener gives: options are inherited, errors and queue are not.
    #[must_use]
    pub fn inherit(&self) -> SocketCore {
        let new = self.fresh();
        let copy = |from: &AtomicUsize, to: &AtomicUsize| to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
        new.flags.store(self.flags.load(Ordering::Relaxed), Ordering::Relaxed);
        copy(&self.sndbuf, &new.sndbuf);
        copy(&self.rcvbuf, &new.rcvbuf);
        copy(&self.rcvlowat, &new.rcvlowat);
        new.rcvtimeo_ns.store(self.rcvtimeo_ns.load(Ordering::Relaxed), Ordering::Relaxed);
        new.sndtimeo_ns.store(self.sndtimeo_ns.load(Ordering::Relaxed), Ordering::Relaxed);
        // Copied between the two locks, which are of one class.
        let details = self.details.lock().clone();
        *new.details.lock() = details;
        new
    }

    /// The same state with another inode number: that of the socket behind it, which other tables show.
    #[must_use]
    pub fn with_ino(self, ino: u64) -> SocketCore {
        SocketCore { ino, ..self }
    }

    /// The wait queue.
    #[must_use]
    pub fn queue(&self) -> &Arc<WaitQueue> {
        &self.queue
    }

    /// Counts a datagram that has come and found no room, or was not wanted.
    pub fn count_lost(&self) {
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    #[must_use]
    pub fn lost(&self) -> u32 {
        self.lost.load(Ordering::Relaxed)
    }

    /// The inode number, which also is the socket's cookie.
    #[must_use]
    pub fn ino(&self) -> u64 {
        self.ino
    }

    /// Whether all of `flags` are set.
    #[must_use]
    pub fn has(&self, flags: CoreFlags) -> bool {
        CoreFlags::from_bits_retain(self.flags.load(Ordering::Relaxed)).contains(flags)
    }

    fn set(&self, flag: CoreFlags, on: u32) {
        if on != 0 {
            self.flags.fetch_or(flag.bits(), Ordering::Relaxed);
        } else {
            self.flags.fetch_and(!flag.bits(), Ordering::Relaxed);
        }
    }

    /// Makes `errno` the pending error; the caller wakes the queue.
    pub fn set_error(&self, errno: Errno) {
        self.error.store(errno.raw(), Ordering::Release);
    }

    /// Takes the pending error.
    ///
    /// # Errors
    /// The error itself.
    pub fn take_error(&self) -> Result<()> {
        // Read before it is written: nearly all calls find none, and the line stays shared.
        if self.error.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        match self.error.swap(0, Ordering::AcqRel) {
            0 => Ok(()),
            e => Err(Errno::from_raw(e)),
        }
    }

    /// Whether an error is pending.
    #[must_use]
    pub fn has_error(&self) -> bool {
        self.error.load(Ordering::Acquire) != 0
    }

    /// Bytes of a buffer.
    #[must_use]
    pub fn buffer(&self, side: BufferSide) -> usize {
        match side {
            BufferSide::Send => self.sndbuf.load(Ordering::Relaxed),
            BufferSide::Receive => self.rcvbuf.load(Ordering::Relaxed),
        }
    }

    /// Sets the starting size of a buffer, as a family has it.
    pub fn set_buffer(&self, side: BufferSide, bytes: usize) {
        match side {
            BufferSide::Send => self.sndbuf.store(bytes, Ordering::Relaxed),
            BufferSide::Receive => self.rcvbuf.store(bytes, Ordering::Relaxed),
        }
    }

    /// How long a call may wait (SO_RCVTIMEO, SO_SNDTIMEO); `None` is for ever.
    #[must_use]
    pub fn timeout(&self, side: BufferSide) -> Option<Duration> {
        let ns = match side {
            BufferSide::Send => &self.sndtimeo_ns,
            BufferSide::Receive => &self.rcvtimeo_ns,
        };
        Some(ns.load(Ordering::Relaxed)).filter(|ns| *ns != 0).map(Duration::from_nanos)
    }

    /// Sets a timeout; `None` is for ever.
    pub fn set_timeout(&self, side: BufferSide, timeout: Option<Duration>) {
        let ns = timeout.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX));
        match side {
            BufferSide::Send => self.sndtimeo_ns.store(ns, Ordering::Relaxed),
            BufferSide::Receive => self.rcvtimeo_ns.store(ns, Ordering::Relaxed),
        }
    }

    /// Seconds of SO_LINGER, if it is on.
    #[must_use]
    pub fn linger(&self) -> Option<u32> {
        self.details.lock().linger
    }

    /// Bytes a second that are sent at most (SO_MAX_PACING_RATE), if it was set.
    #[must_use]
    pub fn pacing_rate(&self) -> Option<u64> {
        // Nothing is as good as no bound (`tcp_update_skb_after_send`).
        Some(self.details.lock().pacing_rate).filter(|rate| *rate != 0 && *rate != u64::MAX)
    }

    /// Bytes that a read waits for (SO_RCVLOWAT).
    #[must_use]
    pub fn rcvlowat(&self) -> usize {
        self.rcvlowat.load(Ordering::Relaxed)
    }

    /// The pending error as poll(2) shows it.
    #[must_use]
    pub fn error_events(&self) -> PollEvents {
        if self.has_error() { PollEvents::ERR } else { PollEvents::empty() }
    }

    /// An option of SOL_SOCKET that is the same in all families; timeouts and what needs the socket are the caller's.
    ///
    /// # Errors
    /// ENOPROTOOPT.
    pub fn get_option(&self, name: u32) -> Result<Vec<u8>> {
        if let Some(flag) = flag_of(name) {
            return Ok(u32::from(self.has(flag)).to_ne_bytes().to_vec());
        }
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let value = match name {
            abi::SO_SNDBUF => size(self.buffer(BufferSide::Send)),
            abi::SO_RCVBUF => size(self.buffer(BufferSide::Receive)),
            abi::SO_RCVLOWAT => size(self.rcvlowat()),
            abi::SO_SNDLOWAT => 1,
            // SO_ERROR takes the error away (socket(7)).
            abi::SO_ERROR => self.take_error().err().map_or(0, |e| e.raw().cast_unsigned()),
            abi::SO_PRIORITY => self.details.lock().priority,
            abi::SO_MARK => self.details.lock().mark,
            abi::SO_BUSY_POLL => self.details.lock().busy_poll,
            abi::SO_LINGER => {
                let d = self.details.lock();
                // Off, the time that was set last is still shown.
                let seconds = d.linger.unwrap_or(d.linger_seconds_off);
                return Ok([u32::from(d.linger.is_some()).to_ne_bytes(), seconds.to_ne_bytes()].concat());
            }
            abi::SO_BINDTODEVICE => {
                let mut name = self.details.lock().device.clone();
                if !name.is_empty() {
                    name.push(0);
                }
                return Ok(name);
            }
            abi::SO_COOKIE => return Ok(self.ino.to_ne_bytes().to_vec()),
            abi::SO_MAX_PACING_RATE => {
                // Narrow as the callers that have 32 bits; wide ones see the same value.
                let rate = self.details.lock().pacing_rate;
                return Ok(u32::try_from(rate).unwrap_or(u32::MAX).to_ne_bytes().to_vec());
            }
            abi::SO_BPF_EXTENSIONS => 64,
            abi::SO_INCOMING_CPU
            | abi::SO_INCOMING_NAPI_ID
            | abi::SO_BSDCOMPAT
            | abi::SO_LOCK_FILTER
            | abi::SO_TIMESTAMPING
            | abi::SO_ZEROCOPY
            | abi::SO_BINDTOIFINDEX => 0,
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(value.to_ne_bytes().to_vec())
    }

    /// Sets an option of SOL_SOCKET that is the same in all families.
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL, EPERM, EDOM, ENODEV.
    pub fn set_option(&self, caller: &dyn Caller, name: u32, value: &[u8]) -> Result<()> {
        match name {
            abi::SO_LINGER => return self.set_linger(value),
            abi::SO_BINDTODEVICE => return self.set_device(value),
            // Filters: packets are never looked at, so there is nothing to filter. A socket without one has none to take off.
            abi::SO_DETACH_FILTER => return Err(Errno::ENOENT),
            _ => {}
        }
        let number = value.first_chunk().map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
        if let Some(flag) = flag_of(name) {
            // EACCES: the one option that has this errno (socket(7)).
            if name == abi::SO_DEBUG && number != 0 && !caller.creds().has_root_cap(Cap::NET_ADMIN) {
                return Err(Errno::EACCES);
            }
            // One kind of stamp at a time (`sock_set_timestamp`).
            match name {
                abi::SO_TIMESTAMP => self.set(CoreFlags::TIMESTAMPNS, 0),
                abi::SO_TIMESTAMPNS => self.set(CoreFlags::TIMESTAMP, 0),
                _ => {}
            }
            self.set(flag, number);
            return Ok(());
        }
        // Marks and priorities are for whoever rules the container's network: a socket does not know the owner of its own.
        let privileged = || caller.creds().has_root_cap(Cap::NET_ADMIN);
        match name {
            abi::SO_SNDBUF => self.resize(BufferSide::Send, number, BUFFER_MAX),
            abi::SO_RCVBUF => self.resize(BufferSide::Receive, number, BUFFER_MAX),
            abi::SO_SNDBUFFORCE | abi::SO_RCVBUFFORCE if !privileged() => return Err(Errno::EPERM),
            abi::SO_SNDBUFFORCE => self.resize(BufferSide::Send, number, 1 << 28),
            abi::SO_RCVBUFFORCE => self.resize(BufferSide::Receive, number, 1 << 28),
            abi::SO_RCVLOWAT => {
                // A negative number is the largest, and zero waits for one byte as well (`sock_set_rcvlowat`).
                let n = if number.cast_signed() < 0 { i32::MAX.cast_unsigned() } else { number.max(1) };
                self.rcvlowat.store(n as usize, Ordering::Relaxed);
            }
            // Priorities above 6 are for the administrator (socket(7)).
            abi::SO_PRIORITY if number > 6 && !privileged() => return Err(Errno::EPERM),
            abi::SO_PRIORITY => self.details.lock().priority = number,
            abi::SO_MARK if !privileged() && !caller.creds().has_root_cap(Cap::NET_RAW) => return Err(Errno::EPERM),
            abi::SO_MARK => self.details.lock().mark = number,
            abi::SO_BUSY_POLL => self.details.lock().busy_poll = number,
            abi::SO_MAX_PACING_RATE => {
                let rate = if number == u32::MAX { u64::MAX } else { number.into() };
                self.details.lock().pacing_rate = rate;
            }
            // Whoever sets it waits for word of each MSG_ZEROCOPY, which does not come: what is sent is always copied.
            abi::SO_ZEROCOPY => return Err(Errno::EOPNOTSUPP),
            // Hints about how packets travel: there are none.
            abi::SO_INCOMING_CPU | abi::SO_BSDCOMPAT | abi::SO_TXREHASH => {}
            abi::SO_SNDLOWAT | abi::SO_TYPE | abi::SO_PROTOCOL | abi::SO_DOMAIN | abi::SO_ERROR => {
                return Err(Errno::ENOPROTOOPT);
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        Ok(())
    }

    fn resize(&self, side: BufferSide, asked: u32, max: usize) {
        // Doubled, to make up for the kernel's own overhead: socket(7). A negative number asks for the most.
        let asked = if asked.cast_signed() < 0 { max } else { (asked as usize).min(max) };
        let (min, flag) = match side {
            BufferSide::Send => (SNDBUF_MIN, CoreFlags::SNDBUF_SET),
            BufferSide::Receive => (RCVBUF_MIN, CoreFlags::RCVBUF_SET),
        };
        self.set(flag, 1);
        self.set_buffer(side, (asked * 2).max(min));
        // There may be room at once.
        if side == BufferSide::Send {
            self.queue.wake(PollEvents::WRITE_READY);
        }
    }

    fn set_linger(&self, value: &[u8]) -> Result<()> {
        let word = |at: usize| {
            value.get(at..at + 4).and_then(|b| b.first_chunk()).map(|b| u32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)
        };
        let (on, seconds) = (word(0)?, word(4)?);
        let mut d = self.details.lock();
        if on == 0 {
            d.linger_seconds_off = d.linger.unwrap_or(d.linger_seconds_off);
            d.linger = None;
        } else {
            d.linger = Some(seconds);
        }
        Ok(())
    }

    fn set_device(&self, value: &[u8]) -> Result<()> {
        let name = value.split(|b| *b == 0).next().unwrap_or_default();
        if !name.is_empty() && name != b"lo" {
            return Err(Errno::ENODEV);
        }
        self.details.lock().device = name.to_vec();
        Ok(())
    }
}

fn flag_of(name: u32) -> Option<CoreFlags> {
    Some(match name {
        abi::SO_DEBUG => CoreFlags::DEBUG,
        abi::SO_REUSEADDR => CoreFlags::REUSEADDR,
        abi::SO_DONTROUTE => CoreFlags::DONTROUTE,
        abi::SO_BROADCAST => CoreFlags::BROADCAST,
        abi::SO_KEEPALIVE => CoreFlags::KEEPALIVE,
        abi::SO_OOBINLINE => CoreFlags::OOBINLINE,
        abi::SO_NO_CHECK => CoreFlags::NO_CHECK,
        abi::SO_REUSEPORT => CoreFlags::REUSEPORT,
        abi::SO_PASSCRED => CoreFlags::PASSCRED,
        abi::SO_TIMESTAMP => CoreFlags::TIMESTAMP,
        abi::SO_TIMESTAMPNS => CoreFlags::TIMESTAMPNS,
        abi::SO_PASSSEC => CoreFlags::PASSSEC,
        abi::SO_RXQ_OVFL => CoreFlags::RXQ_OVFL,
        abi::SO_SELECT_ERR_QUEUE => CoreFlags::SELECT_ERR_QUEUE,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::caller::KernelCaller;

    #[test]
    fn buffer_sizes_are_doubled_and_bounded() {
        let core = SocketCore::new(&Arc::new(Counter::starting_at(1)), &SocketMemory::unlimited());
        let caller = KernelCaller::root(moat_identity::UserNamespace::root());
        let set =
            |n: u32| core.set_option(&caller, abi::SO_SNDBUF, &n.to_ne_bytes()).map(|()| core.buffer(BufferSide::Send));
        assert_eq!(set(20_000), Ok(40_000));
        assert_eq!(set(1), Ok(SNDBUF_MIN));
        assert_eq!(set(1 << 30), Ok(2 * BUFFER_MAX));
        assert_eq!(core.set_option(&caller, abi::SO_SNDBUF, &[1]), Err(Errno::EINVAL));
    }

    #[test]
    fn what_would_be_waited_for_in_vain_is_refused() {
        let core = SocketCore::new(&Arc::new(Counter::starting_at(1)), &SocketMemory::unlimited());
        let caller = KernelCaller::root(moat_identity::UserNamespace::root());
        assert_eq!(core.set_option(&caller, abi::SO_ZEROCOPY, &1u32.to_ne_bytes()), Err(Errno::EOPNOTSUPP));
        assert_eq!(core.get_option(abi::SO_ZEROCOPY), Ok(0u32.to_ne_bytes().to_vec()));
    }

    #[test]
    fn an_error_is_told_once() {
        let core = SocketCore::new(&Arc::new(Counter::starting_at(1)), &SocketMemory::unlimited());
        core.set_error(Errno::ECONNRESET);
        assert_eq!(core.error_events(), PollEvents::ERR);
        assert_eq!(core.get_option(abi::SO_ERROR), Ok(104u32.to_ne_bytes().to_vec()));
        assert_eq!(core.take_error(), Ok(()));
    }
}
