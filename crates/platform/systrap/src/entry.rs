//! [`Entry`]: how a thread's last call has entered, and what calls from rewritten sites are spared and asked for.
//!
//! Such a call has no signal frame: the sentry sees the general registers, and may set rax alone before the thread goes on. Whatever
//! takes more (orders, clones, signals, other registers, the extended state) first has the thread make a frame of its state
//! after the call (`thread/called.rs`); from then on it is as one that has trapped.

use std::sync::atomic::{AtomicU64, Ordering};

use moat_platform::Event;

/// Traps at a site before it is rewritten, which costs some ten of them; with debug assertions so few that every test meets such sites.
const HOT: u16 = if cfg!(debug_assertions) { 1 } else { 16 };
/// Sites whose traps a process counts at a time.
const COUNTED: usize = 64;
/// Places in which one site may be counted.
const WAYS: usize = 4;
/// Where in a word of [`Traps`] the address is; the number is below.
const ADDRESS_SHIFT: u32 = 16;

/// How often the call sites of a process have trapped lately, whichever thread came by: many live for a few calls only.
pub struct Traps([AtomicU64; COUNTED]);

impl Default for Traps {
    fn default() -> Traps {
        Traps(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Traps {
    /// Those of a copy of the process.
    pub fn duplicate(&self) -> Traps {
        Traps(std::array::from_fn(|i| AtomicU64::new(self.0.get(i).map_or(0, |word| word.load(Ordering::Relaxed)))))
    }

    /// A call has trapped at the site before `behind`. Whether that is to be rewritten: again if it could not be done then, less and less
    /// often.
    fn count(&self, behind: u64) -> bool {
        let places = self.places(behind);
        let known = places.iter().find(|word| site_of(word) == behind);
        // A site that is new takes the place of the one with the least traps, and counts from there: those that trap most keep theirs,
        // whichever others trap between.
        let Some(word) = known.or_else(|| places.iter().min_by_key(|word| traps_of(word))) else { return false };
        let count = traps_of(word).saturating_add(1);
        // A trap of another thread at the same moment may be lost.
        word.store(behind << ADDRESS_SHIFT | u64::from(count), Ordering::Relaxed);
        count >= HOT && count.is_power_of_two()
    }

    /// A site could not be rewritten because of what others just did: the next trap at it asks again.
    pub fn count_again(&self, behind: u64) {
        if let Some(word) = self.places(behind).iter().find(|word| site_of(word) == behind) {
            // One short of where it asks: it asks at each trap until it has been tried.
            let count = u64::from(HOT.saturating_sub(1));
            word.store(behind << ADDRESS_SHIFT | count, Ordering::Relaxed);
        }
    }

    fn places(&self, behind: u64) -> &[AtomicU64] {
        self.0.chunks(WAYS).nth(set(behind)).unwrap_or_default()
    }
}

/// Where a site is counted, with few others: the upper bits of a product depend on all of the address.
fn set(behind: u64) -> usize {
    usize::try_from(behind.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or(0) % (COUNTED / WAYS)
}

fn site_of(word: &AtomicU64) -> u64 {
    word.load(Ordering::Relaxed) >> ADDRESS_SHIFT
}

fn traps_of(word: &AtomicU64) -> u16 {
    u16::try_from(word.load(Ordering::Relaxed) & 0xffff).unwrap_or(0)
}

/// How a thread's last call has entered.
#[derive(Debug, Default)]
pub struct Entry {
    /// See [`Entry::at_call`].
    pub at_call: bool,
    /// It was let go on from such a call, and has not been heard of since.
    pub returns: bool,
    /// A call that is not told of before there is a frame.
    pub untold: Option<Event>,
    hot: Option<u64>,
}

impl Entry {
    /// Whether a call has not been told of.
    pub fn has_untold(&self) -> bool {
        self.untold.is_some()
    }

    /// Whether the thread waits in a call from a rewritten site.
    pub fn at_call(&self) -> bool {
        self.at_call
    }

    /// A call has trapped.
    pub fn trapped(&mut self, traps: &Traps, behind: u64) {
        self.hot = traps.count(behind).then_some(behind);
    }

    /// The site of that call, if it is worth being rewritten.
    pub fn hot_site(&mut self) -> Option<u64> {
        self.hot.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traps_of_all_threads_count_and_those_of_a_parent() {
        let (traps, site) = (Traps::default(), 0x7fff_ffff_f002);
        let hot = |traps: &Traps, at| (0..HOT).filter(|_| traps.count(at)).count();
        assert_eq!(hot(&traps, site), 1);
        assert!(!traps.count(site) || HOT == 1);
        let child = traps.duplicate();
        assert!((0..HOT * 2).any(|_| child.count(site)), "it has not begun anew");
        traps.count_again(site);
        assert!(traps.count(site));
    }

    /// As many sites that are counted in the same places.
    fn neighbours(count: usize) -> Vec<u64> {
        (0x40_0002..).filter(|at| set(*at) == set(0x40_0002)).take(count).collect()
    }

    #[test]
    fn sites_that_trap_in_turn_are_hot_wherever_they_lie() {
        let (traps, sites) = (Traps::default(), neighbours(WAYS));
        let mut hot = vec![0; WAYS];
        for _ in 0..HOT {
            sites.iter().zip(&mut hot).for_each(|(site, hot)| *hot += usize::from(traps.count(*site)));
        }
        assert!(hot.iter().all(|times| *times >= 1), "{hot:?}");
    }

    #[test]
    fn one_that_traps_often_is_found_among_many_that_do_not() {
        let (traps, sites) = (Traps::default(), neighbours(1001));
        let (often, seldom) = sites.split_first().unwrap();
        // One trap in four is its.
        let found = seldom.chunks(3).filter(|others| {
            others.iter().for_each(|other| _ = traps.count(*other));
            traps.count(*often)
        });
        assert!(found.count() >= 1);
    }

    #[test]
    fn a_site_that_cant_be_rewritten_is_tried_less_and_less_often() {
        let traps = Traps::default();
        let times = (0..1 << 10).filter(|_| traps.count(0x40_0002)).count();
        assert!((1..=11).contains(&times), "{times} times");
    }
}
