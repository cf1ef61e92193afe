//! [`Reassembly`]: packets from their fragments, RFC 791, 5722 and 8200.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::packet::{Fragment, IpHeader};
use crate::time::{SECOND, Time};

/// How long fragments wait for the others, and bytes of all that wait (`net.ipv4.ipfrag_{time,high_thresh}`).
const WAIT_US: u64 = 30 * SECOND;
const MOST_BYTES: usize = 4 * 1024 * 1024;
/// Fragments of one packet, and what each counts for beside its bytes.
const MOST_FRAGMENTS: usize = 64;
const COST: usize = 256;
/// Bytes of the largest payload.
const MOST_PAYLOAD: usize = 65_535;

type Key = (IpAddr, IpAddr, u8, u32);

#[derive(Debug)]
struct Partial {
    parts: Vec<(usize, Vec<u8>)>,
    /// The length of the payload, once the last fragment has come.
    total: Option<usize>,
    held: usize,
    began: Time,
}

/// Fragments that wait for others.
#[derive(Debug, Default)]
pub(crate) struct Reassembly {
    partial: HashMap<Key, Partial>,
    held: usize,
}

impl Reassembly {
    /// Takes a fragment; gives the payload when it was the last that was missing. One that overlaps others spoils its packet.
    pub(crate) fn insert(&mut self, h: &IpHeader, f: Fragment, payload: &[u8], now: Time) -> Option<Vec<u8>> {
        self.poll(now);
        let key = (h.source, h.destination, h.protocol, f.id);
        let end = f.offset.saturating_add(payload.len());
        // All but the last fragment have a multiple of 8 bytes, since offsets count in eights.
        let misfit = f.more && (payload.is_empty() || payload.len().checked_rem(8) != Some(0));
        // A packet with one bad fragment can never be whole.
        if misfit || end > MOST_PAYLOAD {
            self.remove(&key);
            return None;
        }
        let cost = payload.len().saturating_add(COST);
        // The oldest has waited longest for what will not come.
        if self.held.saturating_add(cost) > MOST_BYTES {
            self.drop_oldest();
        }
        let partial =
            self.partial.entry(key).or_insert_with(|| Partial { parts: Vec::new(), total: None, held: 0, began: now });
        // The network may repeat a fragment; that spoils nothing.
        if partial.parts.iter().any(|(at, p)| *at == f.offset && p == payload) {
            return None;
        }
        // Overlaps are how filters are evaded: the packet goes (RFC 5722).
        let overlaps = partial.parts.iter().any(|(at, p)| *at < end && f.offset < at.saturating_add(p.len()));
        // Two ends, or bytes behind the end.
        let beyond = partial.total.is_some_and(|t| end > t || !f.more);
        let short = !f.more && partial.parts.iter().any(|(at, p)| at.saturating_add(p.len()) > end);
        if overlaps || beyond || short || partial.parts.len() >= MOST_FRAGMENTS {
            self.remove(&key);
            return None;
        }
        if !f.more {
            partial.total = Some(end);
        }
        partial.parts.push((f.offset, payload.to_vec()));
        partial.held = partial.held.saturating_add(cost);
        self.held = self.held.saturating_add(cost);
        // Without overlaps the lengths add up to the whole only if nothing is missing.
        let have = partial.parts.iter().fold(0usize, |n, (_, p)| n.saturating_add(p.len()));
        if partial.total != Some(have) {
            return None;
        }
        let mut whole = self.remove(&key)?;
        whole.parts.sort_by_key(|(at, _)| *at);
        Some(whole.parts.into_iter().flat_map(|(_, p)| p).collect())
    }

    fn remove(&mut self, key: &Key) -> Option<Partial> {
        let partial = self.partial.remove(key)?;
        self.held = self.held.saturating_sub(partial.held);
        Some(partial)
    }

    fn drop_oldest(&mut self) {
        if let Some(key) = self.partial.iter().min_by_key(|(_, p)| p.began).map(|(key, _)| *key) {
            self.remove(&key);
        }
    }

    /// Forgets what has waited for too long.
    pub(crate) fn poll(&mut self, now: Time) {
        if self.partial.is_empty() {
            return;
        }
        let old: Vec<Key> =
            self.partial.iter().filter(|(_, p)| now.since(p.began) >= WAIT_US).map(|(key, _)| *key).collect();
        for key in old {
            self.remove(&key);
        }
    }

    /// When [`Reassembly::poll`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.partial.values().map(|p| p.began.after(WAIT_US)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> IpHeader {
        let ip = "10.0.0.1".parse().unwrap();
        IpHeader { source: ip, destination: ip, protocol: 17, ttl: 1, tos: 0 }
    }

    fn put(r: &mut Reassembly, id: u32, offset: usize, more: bool, payload: &[u8]) -> Option<Vec<u8>> {
        r.insert(&header(), Fragment { id, offset, more }, payload, Time::default())
    }

    #[test]
    fn fragments_in_any_order_make_the_packet() {
        let mut r = Reassembly::default();
        assert_eq!(put(&mut r, 1, 16, false, b"xyz"), None);
        assert_eq!(put(&mut r, 1, 0, true, b"abcdefgh"), None);
        assert_eq!(put(&mut r, 1, 0, true, b"abcdefgh"), None);
        assert_eq!(put(&mut r, 1, 8, true, b"ijklmnop"), Some(b"abcdefghijklmnopxyz".to_vec()));
        assert_eq!(r.held, 0);
    }

    #[test]
    fn overlaps_spoil_a_packet_and_memory_is_bounded() {
        let mut r = Reassembly::default();
        put(&mut r, 1, 0, true, b"abcdefgh");
        put(&mut r, 1, 0, true, b"abcdefghijklmnop");
        assert_eq!(put(&mut r, 1, 8, false, b"x"), None);
        for id in 0..10_000 {
            put(&mut r, id, 8, true, &[0; 1024]);
        }
        assert!(r.held <= MOST_BYTES);
        r.poll(Time::from_us(WAIT_US));
        assert_eq!((r.held, r.partial.len()), (0, 0));
    }
}
