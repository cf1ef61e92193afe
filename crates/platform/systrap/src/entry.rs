//! [`Entry`]: how a thread's last call has entered, and what calls from rewritten sites are spared and asked for.
//!
//! Such a call has no signal frame: the sentry sees the general registers, and may set rax alone before the thread goes on. Whatever
//! takes more (orders, clones, signals, other registers, the extended state) first has the thread make a frame of its state
//! after the call (`thread/called.rs`); from then on it is as one that has trapped.

use moat_platform::Event;

/// Traps at a site before it is rewritten, which costs some ten of them; with debug assertions so few that every test meets such sites.
const HOT: u32 = if cfg!(debug_assertions) { 1 } else { 16 };
/// Sites whose traps a thread counts at a time.
const COUNTED: usize = 16;

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
    /// Addresses behind sites, and how often each has trapped lately.
    counts: [(u64, u32); COUNTED],
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
    pub fn trapped(&mut self, behind: u64) {
        let count = &mut self.counts[usize::try_from(behind >> 1).unwrap_or(0) % COUNTED];
        if count.0 != behind {
            *count = (behind, 0);
        }
        count.1 = count.1.saturating_add(1);
        // Again if it could not be done then, less and less often.
        self.hot = (count.1 >= HOT && count.1.is_power_of_two()).then_some(behind);
    }

    /// The site of that call, if it is worth being rewritten.
    pub fn hot_site(&mut self) -> Option<u64> {
        self.hot.take()
    }
}
