//! [`Setting`]: a number of /proc/sys that has an effect.

use std::sync::atomic::{AtomicU64, Ordering};

use moat_abi::{Errno, Result};

/// A number that can be set within bounds.
#[derive(Debug)]
pub struct Setting {
    value: AtomicU64,
    least: u64,
    most: u64,
}

impl Setting {
    /// `value` at first; `least` to `most` can be set.
    #[must_use]
    pub const fn new(value: u64, least: u64, most: u64) -> Setting {
        Setting { value: AtomicU64::new(value), least, most }
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.value.load(Ordering::Relaxed)
    }

    /// The number, cut to what an `i32` holds: limits that the interface has as `int`.
    #[must_use]
    pub fn get_i32(&self) -> i32 {
        i32::try_from(self.get()).unwrap_or(i32::MAX)
    }

    /// Sets it.
    ///
    /// # Errors
    /// EINVAL out of bounds.
    pub fn set(&self, value: u64) -> Result<()> {
        if !(self.least..=self.most).contains(&value) {
            return Err(Errno::EINVAL);
        }
        self.value.store(value, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let s = Setting::new(5, 2, 9);
        assert_eq!((s.set(1), s.set(10), s.get()), (Err(Errno::EINVAL), Err(Errno::EINVAL), 5));
        assert_eq!((s.set(9), s.get_i32()), (Ok(()), 9));
        assert_eq!(Setting::new(u64::MAX, 0, u64::MAX).get_i32(), i32::MAX);
    }
}
