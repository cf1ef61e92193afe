//! [`Time`]: a moment of the stack's clock, which whoever drives it brings along.

/// Microseconds of a millisecond.
pub const MS: u64 = 1_000;
/// Microseconds of a second.
pub const SECOND: u64 = 1_000_000;

/// A moment, in microseconds since the stack's clock began. Durations are plain numbers of microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// A moment that many microseconds after the beginning.
    #[must_use]
    pub const fn from_us(us: u64) -> Time {
        Time(us)
    }

    /// Microseconds since the beginning.
    #[must_use]
    pub const fn us(self) -> u64 {
        self.0
    }

    /// The moment `us` later.
    #[must_use]
    pub const fn after(self, us: u64) -> Time {
        Time(self.0.saturating_add(us))
    }

    /// Microseconds since `earlier`; 0 if that is later.
    #[must_use]
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
