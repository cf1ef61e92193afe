//! [`Neighbours`]: which link address an IP address has, RFC 826 and 4861.
//!
//! The table says what is to be asked; whoever owns it makes the packets. It is bounded, and so is what waits for an answer.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::packet::Packet;
use crate::time::{SECOND, Time};

/// Entries at most (`gc_thresh3`), and frames that wait for one of them.
const MOST_ENTRIES: usize = 1024;
const MOST_WAITING: usize = 101;
/// Questions before a neighbour is given up, by multicast and by unicast, with their interval.
const PROBES: u32 = 3;
const INTERVAL_US: u64 = SECOND;
/// How long an answer counts, and how long a stale entry is used before it is asked for again.
const REACHABLE_US: u64 = 30 * SECOND;
const DELAY_US: u64 = 5 * SECOND;
/// How long a neighbour that did not answer is not asked again.
const FAILED_US: u64 = SECOND;
/// How long an entry stays that nobody uses.
const UNUSED_US: u64 = 300 * SECOND;

/// A neighbour: link and address.
pub(crate) type Key = (u32, IpAddr);

#[derive(Debug)]
enum Standing {
    /// Asked for, with frames that wait.
    Incomplete {
        waiting: Vec<Packet>,
        asked: u32,
    },
    Reachable,
    Stale,
    /// In use though it is stale: asked when the time comes.
    Delay,
    /// Asked directly.
    Probe {
        asked: u32,
    },
    Permanent,
    Failed,
}

#[derive(Debug)]
struct Entry {
    mac: [u8; 6],
    standing: Standing,
    due: Time,
    used: Time,
}

/// An entry as `ip neigh` shows it, with its `NUD_*` state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The link's number.
    pub link: u32,
    /// Its IP address.
    pub address: IpAddr,
    /// Its address on the link, if that is known.
    pub mac: Option<[u8; 6]>,
    /// `NUD_*`.
    pub state: u16,
}

/// What is to be done for a frame.
#[derive(Debug)]
pub(crate) enum Resolution {
    /// Send it there.
    Known([u8; 6], Packet),
    /// It waits; ask.
    Ask,
    /// It waits for an answer that was asked for.
    Waiting,
    /// It is lost: the neighbour does not answer, or too much waits.
    Lost(Packet),
}

/// What the time brings.
#[derive(Debug)]
pub(crate) enum Due {
    /// Ask all.
    Ask(Key),
    /// Ask the one that had this address.
    AskDirectly(Key, [u8; 6]),
    /// Nobody answered.
    GaveUp(Vec<Packet>),
}

/// The neighbours of all links.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    entries: HashMap<Key, Entry>,
    /// The first moment at which an entry needs something done, or earlier.
    next: Option<Time>,
}

impl Neighbours {
    /// A neighbour that is known for good.
    pub(crate) fn add_permanent(&mut self, key: Key, mac: [u8; 6]) {
        let entry = Entry { mac, standing: Standing::Permanent, due: Time::default(), used: Time::default() };
        self.entries.insert(key, entry);
    }

    /// Whether there is no room for one more that is known for good.
    pub(crate) fn is_full_for(&self, key: Key) -> bool {
        self.entries.len() >= MOST_ENTRIES && !self.entries.contains_key(&key)
    }

    /// Forgets a neighbour; gives whether there was one. What waited for it is lost.
    pub(crate) fn remove(&mut self, key: Key) -> bool {
        self.entries.remove(&key).is_some()
    }

    /// Forgets the neighbours of a link that is down.
    pub(crate) fn forget_link(&mut self, link: u32) {
        self.entries.retain(|(l, _), _| *l != link);
    }

    /// Finds where a frame goes.
    pub(crate) fn resolve(&mut self, key: Key, packet: Packet, now: Time) -> Resolution {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.used = now;
            match &mut entry.standing {
                Standing::Incomplete { waiting, .. } => {
                    // A neighbour that is silent must not hold memory without bound.
                    if waiting.len() >= MOST_WAITING {
                        return Resolution::Lost(packet);
                    }
                    waiting.push(packet);
                    return Resolution::Waiting;
                }
                // For a moment nobody asks again: each packet would else wait for all probes.
                Standing::Failed if entry.due > now => return Resolution::Lost(packet),
                Standing::Failed => {}
                Standing::Reachable if entry.due > now => return Resolution::Known(entry.mac, packet),
                Standing::Reachable | Standing::Stale => {
                    // It is used as it is, and asked only if nothing confirms it in time (RFC 4861, section 7.3.3).
                    entry.standing = Standing::Delay;
                    entry.due = now.after(DELAY_US);
                    let mac = entry.mac;
                    self.wake_at(now.after(DELAY_US));
                    return Resolution::Known(mac, packet);
                }
                _ => return Resolution::Known(entry.mac, packet),
            }
        }
        if !self.make_room(now) {
            return Resolution::Lost(packet);
        }
        let standing = Standing::Incomplete { waiting: vec![packet], asked: 1 };
        self.entries.insert(key, Entry { mac: [0; 6], standing, due: now.after(INTERVAL_US), used: now });
        self.wake_at(now.after(INTERVAL_US));
        Resolution::Ask
    }

    fn make_room(&mut self, now: Time) -> bool {
        if self.entries.len() < MOST_ENTRIES {
            return true;
        }
        // First those that nobody has used for long.
        self.entries.retain(|_, e| matches!(e.standing, Standing::Permanent) || now.since(e.used) < UNUSED_US);
        if self.entries.len() >= MOST_ENTRIES {
            let old = self
                .entries
                .iter()
                // Never one that is being asked, since packets wait for it.
                .filter(|(_, e)| matches!(e.standing, Standing::Stale | Standing::Failed | Standing::Reachable))
                .min_by_key(|(_, e)| e.used)
                .map(|(key, _)| *key);
            if let Some(key) = old {
                self.entries.remove(&key);
            }
        }
        self.entries.len() < MOST_ENTRIES
    }

    /// A neighbour has answered what was asked; gives the frames that waited.
    pub(crate) fn answered(&mut self, key: Key, mac: [u8; 6], now: Time) -> Vec<Packet> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        // What the configuration says is not changed by messages.
        if matches!(entry.standing, Standing::Permanent) {
            return Vec::new();
        }
        let asked = matches!(entry.standing, Standing::Incomplete { .. } | Standing::Probe { .. } | Standing::Delay);
        if !asked && entry.mac != mac {
            // Nobody asked: the address may have moved, which the next use finds out.
            entry.mac = mac;
            entry.standing = Standing::Stale;
            return Vec::new();
        }
        entry.mac = mac;
        entry.due = now.after(REACHABLE_US);
        match std::mem::replace(&mut entry.standing, Standing::Reachable) {
            Standing::Incomplete { waiting, .. } => waiting,
            _ => Vec::new(),
        }
    }

    /// A neighbour has asked for an own address, and said what its own are; gives the frames that waited for it.
    pub(crate) fn heard(&mut self, key: Key, mac: [u8; 6], now: Time) -> Vec<Packet> {
        match self.entries.get_mut(&key) {
            Some(Entry { standing: Standing::Incomplete { .. }, .. }) => {
                let waiting = self.answered(key, mac, now);
                if let Some(entry) = self.entries.get_mut(&key) {
                    entry.standing = Standing::Delay;
                    entry.due = now.after(DELAY_US);
                }
                self.wake_at(now.after(DELAY_US));
                waiting
            }
            // An address that has moved: the next use finds out whether it is true.
            Some(entry) => {
                if entry.mac != mac && !matches!(entry.standing, Standing::Permanent) {
                    entry.mac = mac;
                    entry.standing = Standing::Stale;
                }
                Vec::new()
            }
            None => {
                // Who asks will be answered, so its address is needed soon.
                if self.make_room(now) {
                    self.entries.insert(key, Entry { mac, standing: Standing::Stale, due: now, used: now });
                }
                Vec::new()
            }
        }
    }

    /// A transport has heard from behind this neighbour: it is there.
    pub(crate) fn confirm(&mut self, key: Key, now: Time) {
        if let Some(entry) = self.entries.get_mut(&key)
            // Only what was in doubt; an address that is not known stays so.
            && matches!(entry.standing, Standing::Delay | Standing::Probe { .. } | Standing::Stale)
        {
            entry.standing = Standing::Reachable;
            entry.due = now.after(REACHABLE_US);
        }
    }

    /// The address of a neighbour, if it is known.
    pub(crate) fn mac(&self, key: Key) -> Option<[u8; 6]> {
        let entry = self.entries.get(&key)?;
        (!matches!(entry.standing, Standing::Incomplete { .. } | Standing::Failed)).then_some(entry.mac)
    }

    /// When [`Neighbours::poll`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.next
    }

    fn wake_at(&mut self, due: Time) {
        self.next = Some(self.next.map_or(due, |n| n.min(due)));
    }

    pub(crate) fn poll(&mut self, now: Time) -> Vec<Due> {
        let mut out = Vec::new();
        // Nearly always nothing is due, and no entry is looked at.
        if self.next.is_none_or(|next| next > now) {
            return out;
        }
        for (key, entry) in &mut self.entries {
            if entry.due > now {
                continue;
            }
            match &mut entry.standing {
                Standing::Incomplete { asked, .. } if *asked < PROBES => {
                    *asked = asked.saturating_add(1);
                    entry.due = now.after(INTERVAL_US);
                    out.push(Due::Ask(*key));
                }
                Standing::Incomplete { waiting, .. } => {
                    out.push(Due::GaveUp(std::mem::take(waiting)));
                    entry.standing = Standing::Failed;
                    entry.due = now.after(FAILED_US);
                }
                // The state is only noted: the next use asks.
                Standing::Reachable => entry.standing = Standing::Stale,
                Standing::Delay => {
                    entry.standing = Standing::Probe { asked: 1 };
                    entry.due = now.after(INTERVAL_US);
                    out.push(Due::AskDirectly(*key, entry.mac));
                }
                Standing::Probe { asked } if *asked < PROBES => {
                    *asked = asked.saturating_add(1);
                    entry.due = now.after(INTERVAL_US);
                    out.push(Due::AskDirectly(*key, entry.mac));
                }
                Standing::Probe { .. } => {
                    entry.standing = Standing::Failed;
                    entry.due = now;
                }
                Standing::Stale | Standing::Permanent | Standing::Failed => {}
            }
        }
        // Only states in which something happens by itself.
        self.next = self
            .entries
            .values()
            .filter(|e| matches!(e.standing, Standing::Incomplete { .. } | Standing::Delay | Standing::Probe { .. }))
            .map(|e| e.due)
            .min();
        out
    }

    pub(crate) fn list(&self, now: Time) -> Vec<Neighbour> {
        let mut all: Vec<Neighbour> = self
            .entries
            .iter()
            .map(|((link, address), e)| {
                let (state, known) = match e.standing {
                    Standing::Incomplete { .. } => (0x01, false),
                    // Noted when it is used next; shown as it is.
                    Standing::Reachable if e.due > now => (0x02, true),
                    Standing::Reachable => (0x04, true),
                    Standing::Stale => (0x04, true),
                    Standing::Delay => (0x08, true),
                    Standing::Probe { .. } => (0x10, true),
                    Standing::Failed => (0x20, false),
                    Standing::Permanent => (0x80, true),
                };
                Neighbour { link: *link, address: *address, mac: known.then_some(e.mac), state }
            })
            .collect();
        all.sort_by_key(|n| (n.link, n.address));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_neighbour_is_asked_for_answers_ages_and_is_given_up() {
        let mut n = Neighbours::default();
        let key = (2, "10.0.0.9".parse().unwrap());
        let at = |s: u64| Time::from_us(s * SECOND);
        assert!(matches!(n.resolve(key, Packet::default(), at(0)), Resolution::Ask));
        assert!(matches!(n.resolve(key, Packet::default(), at(0)), Resolution::Waiting));
        assert_eq!(n.answered(key, [7; 6], at(0)).len(), 2);
        assert!(matches!(n.resolve(key, Packet::default(), at(29)), Resolution::Known([7, ..], _)));
        assert_eq!(n.list(at(31))[0].state, 4);
        // In use though stale: asked directly after the delay, three times.
        assert!(matches!(n.resolve(key, Packet::default(), at(31)), Resolution::Known(..)));
        for s in [36, 37, 38] {
            assert!(matches!(n.poll(at(s))[..], [Due::AskDirectly(..)]));
        }
        assert!(n.poll(at(39)).is_empty());
        assert!(matches!(n.resolve(key, Packet::default(), at(40)), Resolution::Ask));
        n.poll(at(41));
        n.poll(at(42));
        assert!(matches!(&n.poll(at(43))[..], [Due::GaveUp(waiting)] if waiting.len() == 1));
        assert!(matches!(n.resolve(key, Packet::default(), at(43)), Resolution::Lost(_)));
    }

    #[test]
    fn the_table_and_its_queues_are_bounded() {
        let mut n = Neighbours::default();
        for i in 0..1500u32 {
            n.resolve((2, std::net::Ipv4Addr::from(i).into()), Packet::default(), Time::default());
            n.heard((3, std::net::Ipv4Addr::from(i).into()), [1; 6], Time::default());
            n.resolve((2, std::net::Ipv4Addr::from(0).into()), Packet::default(), Time::default());
        }
        assert!(n.entries.len() <= MOST_ENTRIES);
    }
}
