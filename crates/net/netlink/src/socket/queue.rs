//! [`Queue`]: the messages that wait to be read, within SO_RCVBUF and what the container's sockets may hold.
//!
//! # Invariants
//! - Once a message was lost nothing is taken until all that waits has been read: who reads knows that what it has read is of before.

use std::collections::VecDeque;
use std::sync::Arc;

use moat_vfs::socket::SocketMemory;

pub(super) struct Queue {
    messages: VecDeque<Vec<u8>>,
    /// What they count for.
    bytes: usize,
    /// One was lost (`NETLINK_S_CONGESTED`).
    congested: bool,
    /// The reader does not want to be told of what is lost (NETLINK_NO_ENOBUFS).
    untold: bool,
    memory: Arc<SocketMemory>,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    Taken,
    /// It is the first one that is lost: the reader is to be told.
    Overrun,
    /// Others were lost before it, or the reader does not want to know.
    Lost,
}

/// What a message counts for: with the bookkeeping of a packet buffer (`skb->truesize`).
fn cost(message: &[u8]) -> usize {
    message.len().saturating_add(320).next_multiple_of(512).saturating_add(256)
}

impl Queue {
    pub(super) fn new(memory: Arc<SocketMemory>) -> Queue {
        Queue { messages: VecDeque::new(), bytes: 0, congested: false, untold: false, memory }
    }

    /// Takes a message if there is room in a receive buffer of `room` bytes (`netlink_attachskb`, `netlink_broadcast_deliver`).
    pub(super) fn push(&mut self, message: Vec<u8>, room: usize) -> Pushed {
        if self.congested {
            return Pushed::Lost;
        }
        // The last one may go beyond it.
        if self.bytes > room || cost(&message) > self.memory.room(self.bytes) {
            if self.untold {
                return Pushed::Lost;
            }
            self.congested = true;
            return Pushed::Overrun;
        }
        self.put(message);
        Pushed::Taken
    }

    /// Takes a message whatever the room is: a piece of a dump that somebody reads, or what was here before.
    pub(super) fn put(&mut self, message: Vec<u8>) {
        let cost = cost(&message);
        self.memory.charge(cost);
        self.bytes = self.bytes.saturating_add(cost);
        self.messages.push_back(message);
    }

    pub(super) fn front(&self) -> Option<&Vec<u8>> {
        self.messages.front()
    }

    /// Throws the first one away.
    pub(super) fn pop(&mut self) {
        let Some(message) = self.messages.pop_front() else { return };
        let cost = cost(&message);
        self.memory.release(cost);
        self.bytes = self.bytes.saturating_sub(cost);
        self.congested &= !self.messages.is_empty();
    }

    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Vec<u8>> {
        self.messages.iter()
    }

    /// Whether the reader is to be told of what is lost; one that is not gets all that there is room for (NETLINK_NO_ENOBUFS).
    pub(super) fn set_untold(&mut self, untold: bool) {
        self.untold = untold;
        self.congested &= !untold;
    }

    pub(super) fn is_untold(&self) -> bool {
        self.untold
    }

    pub(super) fn is_congested(&self) -> bool {
        self.congested
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.memory.release(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_is_told_once_until_all_is_read() {
        let memory = SocketMemory::unlimited();
        let mut q = Queue::new(memory.clone());
        assert_eq!(q.push(vec![0; 100], 700), Pushed::Taken);
        assert_eq!((q.push(vec![1], 700), q.push(vec![2], 1 << 20)), (Pushed::Overrun, Pushed::Lost));
        assert_eq!(memory.used(), 768);
        q.pop();
        assert_eq!((q.push(vec![3], 700), q.iter().count(), q.is_congested()), (Pushed::Taken, 1, false));
        drop(q);
        assert_eq!(memory.used(), 0);
        let mut q = Queue::new(memory.clone());
        q.set_untold(true);
        assert_eq!((q.push(vec![0; 100], 700), q.push(vec![1], 700)), (Pushed::Taken, Pushed::Lost));
        assert_eq!((q.push(vec![2], 1 << 20), q.is_congested()), (Pushed::Taken, false));
        // A container that holds all that it may still gets a little through.
        let full = SocketMemory::new(0);
        let mut q = Queue::new(full);
        assert_eq!((0..9).filter(|_| q.push(vec![4], 1 << 20) == Pushed::Taken).count(), 5);
    }
}
