//! [`Narrow`]: numbers into smaller types, cut to what fits.

/// A number type with a greatest value.
pub(crate) trait Limit {
    const MOST: Self;
}

macro_rules! limits {
    ($($t:ty),*) => { $(impl Limit for $t { const MOST: $t = <$t>::MAX; })* };
}
limits!(u8, u16, u32, u64, usize, i32);

/// Gives a non-negative number as another type; one that is too large becomes the greatest of that type.
pub(crate) trait Narrow: Sized {
    fn narrow<T: TryFrom<Self> + Limit>(self) -> T {
        T::try_from(self).unwrap_or(T::MOST)
    }
}

impl Narrow for u16 {}
impl Narrow for u32 {}
impl Narrow for u64 {}
impl Narrow for u128 {}
impl Narrow for usize {}

/// A quotient; what is divided by nothing is nothing.
pub(crate) fn quotient(n: u64, by: u64) -> u64 {
    n.checked_div(by).unwrap_or(0)
}

/// The largest multiple of `unit` that is not above `n`.
pub(crate) fn whole(n: u64, unit: u64) -> u64 {
    n.saturating_sub(n.checked_rem(unit).unwrap_or(0))
}
