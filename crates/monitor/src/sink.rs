//! [`Sink`]: who is told.
//!
//! The descriptors come from outside: the sandbox can neither connect to anybody nor open a file.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Poll;

use moat_abi::PollEvents;
use moat_control::session::SinkInfo;
use moat_sync::{LockClass, Mutex, WaitQueue, block_in_place};
use rustix::net::{SendFlags, send};

use crate::messages::Event;
use crate::points::Point;
use crate::wire;

/// Bytes of lines that wait for a file to take them.
const MAX_WAITING: usize = 4 << 20;

/// Who is told of events.
pub struct Sink {
    kind: Kind,
    sent: AtomicU64,
    dropped: AtomicU64,
}

enum Kind {
    /// A monitor behind a connected SOCK_SEQPACKET socket, the handshake done.
    Remote(OwnedFd),
    /// Lines of JSON, written by a task of their own.
    File(Arc<Lines>),
    /// Nobody: events are made, and counted.
    Null,
}

impl Sink {
    /// A monitor behind `socket`, with which the handshake is done.
    #[must_use]
    pub fn remote(socket: OwnedFd) -> Sink {
        Sink::new(Kind::Remote(socket))
    }

    /// A file that lines of JSON are written to.
    #[must_use]
    pub fn file(file: OwnedFd) -> Sink {
        let lines = Lines::new();
        moat_sync::spawn(lines.clone().write_to(file));
        Sink::new(Kind::File(lines))
    }

    /// Nobody.
    #[must_use]
    pub fn null() -> Sink {
        Sink::new(Kind::Null)
    }

    fn new(kind: Kind) -> Sink {
        Sink { kind, sent: AtomicU64::new(0), dropped: AtomicU64::new(0) }
    }

    /// Tells of `event`, or drops it. Never waits.
    pub(crate) fn tell(&self, point: Point, event: &Event) {
        let taken = match &self.kind {
            Kind::Remote(socket) => {
                // The protocol's counter wraps.
                let dropped = u32::try_from(self.dropped() & u64::from(u32::MAX)).unwrap_or(0);
                let packet = wire::packet(event, dropped);
                send(socket, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL).is_ok()
            }
            Kind::File(lines) => lines.push(event.line(point)),
            Kind::Null => true,
        };
        let count = if taken { &self.sent } else { &self.dropped };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Its lines, if it is a file.
    pub(crate) fn lines(&self) -> Option<Arc<Lines>> {
        match &self.kind {
            Kind::File(lines) => Some(lines.clone()),
            Kind::Remote(_) | Kind::Null => None,
        }
    }

    fn dropped(&self) -> u64 {
        let lost = match &self.kind {
            Kind::File(lines) => lines.lost.load(Ordering::Relaxed),
            Kind::Remote(_) | Kind::Null => 0,
        };
        self.dropped.load(Ordering::Relaxed).saturating_add(lost)
    }

    /// What it is and how it went.
    #[must_use]
    pub fn info(&self) -> SinkInfo {
        let (name, lost) = match &self.kind {
            Kind::Remote(_) => ("remote", 0),
            Kind::File(lines) => ("file", lines.lost.load(Ordering::Relaxed)),
            Kind::Null => ("null", 0),
        };
        // What was queued and could not be written was counted as sent.
        let sent = self.sent.load(Ordering::Relaxed).saturating_sub(lost);
        SinkInfo { name: name.to_owned(), sent, dropped: self.dropped() }
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        if let Kind::File(lines) = &self.kind {
            lines.closed.store(true, Ordering::SeqCst);
            lines.more.wake_all();
        }
    }
}

/// Lines on their way to a file.
pub(crate) struct Lines {
    waiting: Mutex<Waiting>,
    /// Woken when there is a line, or there will be no more.
    more: WaitQueue,
    closed: AtomicBool,
    /// Whoever writes them has written the last.
    written: AtomicBool,
    /// Lines that the file did not take.
    lost: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
}

impl Lines {
    fn new() -> Arc<Lines> {
        Arc::new(Lines {
            waiting: Mutex::new(LockClass::Leaf, Waiting::default()),
            more: WaitQueue::new(),
            closed: AtomicBool::new(false),
            written: AtomicBool::new(false),
            lost: AtomicU64::new(0),
        })
    }

    /// Waits until all are written; there will be no more.
    pub(crate) async fn written(&self) {
        let look = || if self.written.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending };
        self.more.until(PollEvents::all(), look).await;
    }

    /// Takes a line if there is room.
    fn push(&self, line: Vec<u8>) -> bool {
        let mut waiting = self.waiting.lock();
        let bytes = waiting.bytes.saturating_add(line.len());
        // A slow reader loses events; the guest does not wait for it, nor does the sentry's memory grow.
        if bytes > MAX_WAITING {
            return false;
        }
        waiting.bytes = bytes;
        waiting.lines.push_back(line);
        let first = waiting.lines.len() == 1;
        drop(waiting);
        // The writer takes all that waits at once: while there is more than one it is awake already.
        if first {
            self.more.wake_all();
        }
        true
    }

    /// Writes lines until there will be no more; whatever waits at the end is written as well.
    async fn write_to(self: Arc<Self>, file: OwnedFd) {
        loop {
            let look = || {
                let waiting = std::mem::take(&mut *self.waiting.lock());
                match waiting.lines.is_empty() && !self.closed.load(Ordering::SeqCst) {
                    true => Poll::Pending,
                    false => Poll::Ready(waiting.lines),
                }
            };
            let lines = self.more.until(PollEvents::all(), look).await;
            if lines.is_empty() {
                self.written.store(true, Ordering::SeqCst);
                self.more.wake_all();
                return;
            }
            // The disk may take its time, a network's longer.
            let lost = block_in_place(|| lines.iter().filter(|line| !write(&file, line)).count());
            self.lost.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }
}

/// Whether the file took the line, or the part of it that nothing can take back.
fn write(file: &OwnedFd, mut line: &[u8]) -> bool {
    while !line.is_empty() {
        match rustix::io::write(file, line) {
            Ok(0) => return false,
            Ok(n) => line = line.get(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            // A pipe that is full, a disk that is full.
            Err(_) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::Fork;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn event() -> Event {
        Event::Fork(Fork { sysno: 57, ..Fork::default() })
    }

    #[test]
    fn a_slow_monitor_loses_events_and_is_told_how_many() {
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let sink = Sink::remote(ours);
        for _ in 0..10_000 {
            sink.tell(Point::Clone, &event());
        }
        let info = sink.info();
        assert!(info.dropped > 0 && info.sent > 0 && info.sent + info.dropped == 10_000, "{info:?}");
        // Once it reads again the header says what it missed.
        let mut buf = [0; 1024];
        for _ in 0..info.sent {
            let (n, _) = rustix::net::recv(&theirs, &mut buf, rustix::net::RecvFlags::empty()).unwrap();
            assert_eq!((n, &buf[..8]), (10, &[8, 0, 29, 0, 0, 0, 0, 0][..]));
        }
        sink.tell(Point::Clone, &event());
        rustix::net::recv(&theirs, &mut buf, rustix::net::RecvFlags::empty()).unwrap();
        assert_eq!(u64::from(u32::from_le_bytes(buf[4..8].try_into().unwrap())), info.dropped);
        // A dead one takes nothing more, and no signal comes.
        drop(theirs);
        sink.tell(Point::Clone, &event());
        assert_eq!(sink.info().dropped, info.dropped + 1);
    }

    #[test]
    fn lines_that_wait_are_bounded() {
        let lines = Lines::new();
        let line = vec![b'x'; 1 << 20];
        assert!((0..4).all(|_| lines.push(line.clone())));
        assert!(!lines.push(line.clone()));
    }

    #[test]
    fn lines_have_the_point_and_the_message() {
        let line = String::from_utf8(event().line(Point::by_name("syscall/fork/enter").unwrap())).unwrap();
        assert_eq!(line, "{\"point\":\"syscall/fork/enter\",\"sysno\":57}\n");
    }
}
