//! [`Queue`]: messages in the order of their priorities; [`QueueFile`]: a queue that is open.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Weak};

use moat_abi::signal::Signal;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::OpenFileKind;
use moat_kernel::ThreadGroup;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::OpenFile;
use moat_vfs::file::{File, Seekable};
use moat_vfs::persist::SaveFiles;

use crate::fs::Charge;

/// The limits of a queue (`struct mq_attr`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attributes {
    /// Messages, at most.
    pub max_messages: usize,
    /// Bytes of a message, at most.
    pub message_size: usize,
}

/// How the owner of a registration is told of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notification {
    /// Not at all, but nobody else can register (SIGEV_NONE).
    Nothing,
    /// By a signal with this value.
    Signal {
        /// Which.
        signal: Signal,
        /// `sigev_value`.
        value: u64,
    },
}

struct Registration {
    owner: Weak<ThreadGroup>,
    how: Notification,
}

#[derive(Default)]
struct QueueState {
    /// By priority; no list is empty.
    messages: BTreeMap<u32, VecDeque<Vec<u8>>>,
    count: usize,
    bytes: usize,
    /// Calls that wait for a message: they come before a notification.
    receivers: usize,
    registration: Option<Registration>,
}

/// What an image has of a queue.
pub(crate) struct SavedQueue {
    /// In the order of their sending within each priority.
    pub(crate) messages: Vec<(u32, Vec<u8>)>,
    pub(crate) registration: Option<(Arc<ThreadGroup>, Notification)>,
}

/// A message queue.
pub struct Queue {
    /// Its limits.
    pub attributes: Attributes,
    state: Mutex<QueueState>,
    changed: WaitQueue,
    charge: Charge,
}

/// Marks a call that waits for a message.
pub struct Receiver<'a> {
    queue: &'a Queue,
}

impl Drop for Receiver<'_> {
    fn drop(&mut self) {
        self.queue.state.lock().receivers -= 1;
    }
}

impl Queue {
    pub(crate) fn new(attributes: Attributes, charge: Charge) -> Queue {
        let state = Mutex::new(LockClass::Stream, QueueState::default());
        Queue { attributes, state, changed: WaitQueue::new(), charge }
    }

    /// What is in it, and who is told of a message.
    pub(crate) fn save(&self) -> SavedQueue {
        let s = self.state.lock();
        let each = s.messages.iter().flat_map(|(priority, list)| list.iter().map(|text| (*priority, text.clone())));
        let registration = s.registration.as_ref().and_then(|r| Some((r.owner.upgrade()?, r.how)));
        SavedQueue { messages: each.collect(), registration }
    }

    /// One out of an image.
    pub(crate) fn restored(attributes: Attributes, charge: Charge, saved: SavedQueue) -> Queue {
        let mut state = QueueState { count: saved.messages.len(), ..QueueState::default() };
        for (priority, text) in saved.messages {
            state.bytes = state.bytes.saturating_add(text.len());
            state.messages.entry(priority).or_default().push_back(text);
        }
        state.registration = saved.registration.map(|(owner, how)| Registration { owner: Arc::downgrade(&owner), how });
        Queue { attributes, state: Mutex::new(LockClass::Stream, state), changed: WaitQueue::new(), charge }
    }

    /// The user who pays for it.
    pub(crate) fn payer(&self) -> u32 {
        self.charge.uid()
    }

    /// Messages in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.state.lock().count
    }

    /// Whether there is no message.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds a message. The result says who is to be notified of it.
    ///
    /// # Errors
    /// EAGAIN if the queue is full; EMSGSIZE.
    pub fn send(&self, message: &[u8], priority: u32) -> Result<Option<(Arc<ThreadGroup>, Notification)>> {
        if message.len() > self.attributes.message_size {
            return Err(Errno::EMSGSIZE);
        }
        let notify = {
            let mut s = self.state.lock();
            if s.count >= self.attributes.max_messages {
                return Err(Errno::EAGAIN);
            }
            s.messages.entry(priority).or_default().push_back(message.to_vec());
            s.count += 1;
            s.bytes += message.len();
            // A registration is for the first message of an empty queue, and is used up by it.
            if s.count == 1 && s.receivers == 0 { s.registration.take() } else { None }
        };
        self.changed.wake(PollEvents::READ_READY);
        Ok(notify.and_then(|r| Some((r.owner.upgrade()?, r.how))))
    }

    /// Takes the oldest message of the highest priority.
    ///
    /// # Errors
    /// EAGAIN if there is none.
    pub fn receive(&self) -> Result<(Vec<u8>, u32)> {
        let taken = {
            let mut s = self.state.lock();
            let mut highest = s.messages.last_entry().ok_or(Errno::EAGAIN)?;
            let priority = *highest.key();
            let message = highest.get_mut().pop_front().ok_or(Errno::EAGAIN)?;
            if highest.get().is_empty() {
                highest.remove();
            }
            s.count -= 1;
            s.bytes -= message.len();
            (message, priority)
        };
        self.changed.wake(PollEvents::WRITE_READY);
        Ok(taken)
    }

    /// Marks the caller as waiting for a message while the result lives.
    #[must_use]
    pub fn await_message(&self) -> Receiver<'_> {
        self.state.lock().receivers += 1;
        Receiver { queue: self }
    }

    /// Registers `owner` for the first message of the empty queue (mq_notify(3)).
    ///
    /// # Errors
    /// EBUSY if a process is registered.
    pub fn register(&self, owner: &Arc<ThreadGroup>, how: Notification) -> Result<()> {
        let mut s = self.state.lock();
        // An owner that has ended has no claim.
        if s.registration.as_ref().is_some_and(|r| r.owner.strong_count() > 0) {
            return Err(Errno::EBUSY);
        }
        s.registration = Some(Registration { owner: Arc::downgrade(owner), how });
        Ok(())
    }

    /// Takes the registration of `owner` back, if it has one.
    pub fn unregister(&self, owner: &Arc<ThreadGroup>) {
        let mut s = self.state.lock();
        // By address: the owner need not live any more.
        if s.registration.as_ref().is_some_and(|r| std::ptr::eq(r.owner.as_ptr(), Arc::as_ptr(owner))) {
            s.registration = None;
        }
    }

    /// What read(2) shows, mq_overview(7).
    fn status(&self) -> String {
        let s = self.state.lock();
        let owner = s.registration.as_ref().and_then(|r| Some((r.owner.upgrade()?, r.how)));
        let (kind, signal, pid) = match owner {
            // 0 is SIGEV_SIGNAL, 1 SIGEV_NONE.
            Some((owner, Notification::Signal { signal, .. })) => (0, signal.number(), owner.pid().number()),
            Some((owner, Notification::Nothing)) => (1, 0, owner.pid().number()),
            None => (0, 0, 0),
        };
        format!("QSIZE:{:<10} NOTIFY:{kind:<5} SIGNO:{signal:<5} NOTIFY_PID:{pid:<6}\n", s.bytes)
    }
}

/// An open description of a queue.
pub struct QueueFile {
    /// The queue.
    pub queue: Arc<Queue>,
}

impl File for QueueFile {
    fn save(&self, f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        self.save_file(f, saver)
    }

    fn read(&self, _f: &OpenFile, buf: &mut [u8], pos: u64) -> Result<usize> {
        let text = self.queue.status();
        let rest = usize::try_from(pos).ok().and_then(|at| text.as_bytes().get(at..)).unwrap_or(&[]);
        let n = rest.len().min(buf.len());
        buf[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn seekable(&self) -> Seekable {
        Seekable::Yes
    }

    fn poll(&self, _f: &OpenFile) -> PollEvents {
        let count = self.queue.len();
        let mut ready = PollEvents::empty();
        if count > 0 {
            ready |= PollEvents::READ_READY;
        }
        if count < self.queue.attributes.max_messages {
            ready |= PollEvents::WRITE_READY;
        }
        ready
    }

    fn wait_queue(&self) -> Option<&WaitQueue> {
        Some(&self.queue.changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::{Accounts, Payer};

    fn queue(max_messages: usize) -> Queue {
        let attributes = Attributes { max_messages, message_size: 8 };
        let payer = Payer { uid: 0, limit: 1 << 20 };
        Queue::new(
            attributes,
            Charge::new(&Arc::new(Accounts::default()), &payer, attributes).expect("within the limit"),
        )
    }

    #[test]
    fn higher_priorities_first_and_in_order_within_one() {
        let q = queue(4);
        for (text, priority) in [("low", 0), ("a", 5), ("b", 5), ("top", 9)] {
            assert!(q.send(text.as_bytes(), priority).is_ok_and(|n| n.is_none()));
        }
        assert_eq!(q.send(b"x", 1).err(), Some(Errno::EAGAIN));
        let all: Vec<_> = std::iter::from_fn(|| q.receive().ok()).collect();
        let want = [("top", 9), ("a", 5), ("b", 5), ("low", 0)];
        assert!(all.iter().map(|(m, p)| (m.as_slice(), *p)).eq(want.iter().map(|(m, p)| (m.as_bytes(), *p))));
        assert_eq!(q.receive().err(), Some(Errno::EAGAIN));
    }

    #[test]
    fn sizes_are_limited_and_shown() {
        let q = queue(2);
        assert_eq!(q.send(b"123456789", 0).err(), Some(Errno::EMSGSIZE));
        assert!(q.send(b"12345678", 0).is_ok());
        assert_eq!(q.status(), "QSIZE:8          NOTIFY:0     SIGNO:0     NOTIFY_PID:0     \n");
    }
}
