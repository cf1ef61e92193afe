//! Connections in TIME_WAIT that nobody holds, and what the tables of connections give back when they are gone.
//!
//! # Invariants
//! - An id is in `slots` or in `waiting`, never in both; `by_tuple` knows those of either.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

use super::{ConnectionId, Connections, Listed, Slot, TcpOptions, Tuple};
use crate::tcp::{ConnectionState, Rules, TimeWait};
use crate::time::Time;

/// Room that a table keeps when it is empty.
const KEPT: usize = 1024;

pub(super) struct Waiting {
    tuple: Tuple,
    options: TcpOptions,
    timer: Option<Time>,
    left: TimeWait,
}

/// Gives back room that a busier time has left behind. What is left is doubled, so that this is rare.
fn shrink<K: Eq + Hash, V>(table: &mut HashMap<K, V>) {
    if table.capacity() > KEPT && table.len() < table.capacity() / 8 {
        table.shrink_to(table.len().saturating_mul(2).max(KEPT));
    }
}

impl Connections {
    /// All connections.
    pub(super) fn count(&self) -> usize {
        self.slots.len().saturating_add(self.waiting.len())
    }

    /// Whether a connection only waits for stray segments, and nobody holds it.
    pub(super) fn only_waits(&self, id: ConnectionId) -> bool {
        self.waiting.contains_key(&id)
            || self.slots.get(&id).is_some_and(|s| s.connection.state() == ConnectionState::TimeWait && s.released)
    }

    /// Keeps the little of a connection that TIME_WAIT takes, if nobody holds it.
    pub(super) fn lay_down(&mut self, id: ConnectionId) {
        let Some(slot) = self.slots.get(&id).filter(|s| s.released && s.listener.is_none()) else { return };
        let Some(left) = TimeWait::of(&slot.connection) else { return };
        let waiting = Waiting { tuple: (slot.local, slot.remote), options: slot.options, timer: slot.timer, left };
        self.retransmitted = self.retransmitted.wrapping_add(slot.connection.retransmitted().into());
        self.slots.remove(&id);
        self.waiting.insert(id, waiting);
        self.tidy();
    }

    /// Makes it a whole connection again: a segment has come for it.
    pub(crate) fn wake(&mut self, id: ConnectionId, rules: Rules, now: Time) {
        let Some(w) = self.waiting.remove(&id) else { return };
        let slot = Slot {
            connection: w.left.connection(rules, now),
            local: w.tuple.0,
            remote: w.tuple.1,
            options: w.options,
            observer: None,
            listener: None,
            released: true,
            timer: w.timer,
        };
        self.slots.insert(id, slot);
    }

    /// The timer of a connection that waits has come: it is over, or its time was put off.
    pub(super) fn waited(&mut self, id: ConnectionId, at: Time, now: Time) {
        let Some(w) = self.waiting.get_mut(&id).filter(|w| w.timer == Some(at)) else { return };
        if w.left.until <= now {
            self.remove(id);
        } else {
            w.timer = Some(w.left.until);
            self.timers.push(Reverse((w.left.until, id)));
        }
    }

    /// Forgets one that waits; gives which packets were its.
    pub(super) fn forget(&mut self, id: ConnectionId) -> Option<Tuple> {
        self.waiting.remove(&id).map(|w| w.tuple)
    }

    /// Those that wait, as /proc/net/tcp shows them.
    pub(super) fn list_waiting(&self) -> impl Iterator<Item = Listed> {
        let listed =
            |w: &Waiting| Listed { local: w.tuple.0, remote: w.tuple.1, state: ConnectionState::TimeWait, held: false };
        self.waiting.values().map(listed)
    }

    /// Gives back the room of connections that are gone, and drops timers that nobody waits for.
    pub(super) fn tidy(&mut self) {
        shrink(&mut self.slots);
        shrink(&mut self.waiting);
        shrink(&mut self.by_tuple);
        // A heap gives up nothing from its middle; a timer of keepalive is due in two hours.
        if self.timers.len() > self.count().saturating_mul(2).saturating_add(KEPT) {
            let (slots, waiting) = (&self.slots, &self.waiting);
            self.timers.retain(|Reverse((at, id))| {
                let set = slots.get(id).map(|s| s.timer).or_else(|| waiting.get(id).map(|w| w.timer));
                set == Some(Some(*at))
            });
        }
        if self.timers.capacity() > KEPT && self.timers.len() < self.timers.capacity() / 8 {
            self.timers.shrink_to(self.timers.len().saturating_mul(2).max(KEPT));
        }
    }

    /// Entries for which the tables have room.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        [self.slots.capacity(), self.waiting.capacity(), self.by_tuple.capacity(), self.timers.capacity()].iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::connections::ListenOn;
    use crate::device::DeviceFeatures;
    use crate::stack::{Observer, Stack};
    use crate::tcp::{Changes, Settings};
    use crate::testing;
    use crate::time::SECOND;

    struct Nobody;

    impl Observer for Nobody {
        fn changed(&self, _: Changes) {}
    }

    fn at(host: u8, port: u16) -> SocketAddr {
        SocketAddr::new([10, 1, 0, host].into(), port)
    }

    fn stacks() -> [Stack; 2] {
        [1, 2].map(|host| {
            let features = |link| (link == 2).then(DeviceFeatures::default);
            Stack::new(&testing::config(host), features, Time::from_us(SECOND))
        })
    }

    /// Carries frames both ways until there are none; gives how many there were.
    fn exchange(stacks: &mut [Stack; 2]) -> usize {
        let mut count = 0;
        loop {
            let [a, b] = stacks;
            let (forth, back) = (a.take_output(2), b.take_output(2));
            if forth.is_empty() && back.is_empty() {
                return count;
            }
            count += forth.len() + back.len();
            forth.iter().for_each(|p| b.receive(2, &p.flat_frame(), p.offload()));
            back.iter().for_each(|p| a.receive(2, &p.flat_frame(), p.offload()));
        }
    }

    /// A connection from a port of the second host, which the first one ends.
    fn come_and_go(stacks: &mut [Stack; 2], listener: crate::ListenerId, port: u16) {
        let options = TcpOptions::default();
        let theirs =
            stacks[1].tcp_connect(at(2, port), at(1, 80), options, Settings::default(), None).expect("a connection");
        exchange(stacks);
        let ours = stacks[0].tcp_accept(listener).expect("a connection").id;
        stacks[0].tcp_release(ours);
        exchange(stacks);
        stacks[1].tcp_release(theirs);
        exchange(stacks);
    }

    fn listen(stack: &mut Stack) -> crate::ListenerId {
        let on = ListenOn { port: 80, address: at(1, 80).ip(), dual: false, device: None };
        stack.tcp_listen(on, 16, TcpOptions::default(), Settings::default(), std::sync::Arc::new(Nobody))
    }

    #[test]
    fn connections_that_are_gone_leave_no_room_behind() {
        let mut s = stacks();
        let listener = listen(&mut s[0]);
        for port in 10_000..18_000 {
            come_and_go(&mut s, listener, port);
        }
        assert_eq!((s[0].tcp.slots.len(), s[0].tcp.waiting.len()), (0, 8000));
        assert!(size_of::<Waiting>() * 4 < size_of::<Slot>(), "{} {}", size_of::<Waiting>(), size_of::<Slot>());
        assert!(s[0].tcp.slots.capacity() <= KEPT * 2, "whole connections: room for {}", s[0].tcp.slots.capacity());
        assert_eq!(s[1].tcp.count(), 0, "the other end is done");
        assert!(s[1].tcp.room() < 8 * KEPT, "room for {}", s[1].tcp.room());
        assert_eq!(s[0].tcp_list().len(), 8000);
        for stack in &mut s {
            stack.poll(Time::from_us(62 * SECOND));
        }
        assert_eq!((s[0].tcp.count(), s[0].tcp.by_tuple.len(), s[0].tcp.timers.len()), (0, 0, 0));
        assert!(s[0].tcp.room() < 8 * KEPT, "room for {}", s[0].tcp.room());
    }

    #[test]
    fn one_that_waits_answers_and_waits_anew() {
        let mut s = stacks();
        let listener = listen(&mut s[0]);
        let options = TcpOptions::default();
        let theirs = s[1].tcp_connect(at(2, 5000), at(1, 80), options, Settings::default(), None).unwrap();
        exchange(&mut s);
        let ours = s[0].tcp_accept(listener).unwrap().id;
        s[0].tcp_release(ours);
        exchange(&mut s);
        s[1].tcp_release(theirs);
        // The FIN comes, and its acknowledgement is lost.
        let fin = s[1].take_output(2);
        fin.iter().for_each(|p| s[0].receive(2, &p.flat_frame(), p.offload()));
        assert!(!s[0].take_output(2).is_empty());
        assert_eq!((s[0].tcp.waiting.len(), s[1].tcp.count()), (1, 1));
        s[0].poll(Time::from_us(31 * SECOND));
        s[1].poll(Time::from_us(31 * SECOND));
        // Sent again, it is acknowledged.
        assert!(exchange(&mut s) >= 2);
        assert_eq!((s[0].tcp.waiting.len(), s[0].tcp.slots.len(), s[1].tcp.count()), (1, 0, 0));
        s[0].poll(Time::from_us(62 * SECOND));
        assert_eq!(s[0].tcp.count(), 1, "its time began anew");
        s[0].poll(Time::from_us(92 * SECOND));
        assert_eq!(s[0].tcp.count(), 0);
        // A new connection takes the place of one that waits.
        come_and_go(&mut s, listener, 6000);
        assert_eq!(s[0].tcp.waiting.len(), 1);
        s[0].poll(Time::from_us(95 * SECOND));
        s[1].poll(Time::from_us(95 * SECOND));
        come_and_go(&mut s, listener, 6000);
        assert_eq!((s[0].tcp.waiting.len(), s[0].tcp.by_tuple.len()), (1, 1));
    }
}
