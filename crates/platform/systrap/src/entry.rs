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
        let Some(word) = self.0.get(place(behind)) else { return false };
        let found = word.load(Ordering::Relaxed);
        // Whoever else is counted here begins anew: two sites that take turns are never rewritten, which costs no more than their traps.
        let count = if found >> ADDRESS_SHIFT == behind { u16::try_from(found & 0xffff).unwrap_or(0) } else { 0 };
        let count = count.saturating_add(1);
        // A trap of another thread at the same moment may be lost.
        word.store(behind << ADDRESS_SHIFT | u64::from(count), Ordering::Relaxed);
        count >= HOT && count.is_power_of_two()
    }

    /// A site could not be rewritten because of what others just did: the next trap at it asks again.
    pub fn count_again(&self, behind: u64) {
        if let Some(word) = self.0.get(place(behind)) {
            // One short of where it asks: it asks at each trap until it has been tried.
            let count = u64::from(HOT.saturating_sub(1));
            word.store(behind << ADDRESS_SHIFT | count, Ordering::Relaxed);
        }
    }
}

/// Where a site is counted, with few others: the upper bits of a product depend on all of the address.
fn place(behind: u64) -> usize {
    usize::try_from(behind.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or(0) % COUNTED
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
        let (traps, site, other) = (Traps::default(), 0x7fff_ffff_f002, 0x40_0002);
        let hot = |traps: &Traps, at| (0..HOT).filter(|_| traps.count(at)).count();
        assert_eq!(hot(&traps, site), 1);
        assert!(!traps.count(site) || HOT == 1);
        let child = traps.duplicate();
        assert!((0..HOT * 2).any(|_| child.count(site)), "it has not begun anew");
        traps.count_again(site);
        assert!(traps.count(site));
        // In the same place of the table: begins anew.
        let same = (other + 2..).find(|at| place(*at) == place(other)).unwrap();
        assert_eq!((hot(&traps, other), hot(&traps, same), hot(&traps, other)), (1, 1, 1));
    }
}
