//! A time namespace: CLOCK_MONOTONIC and CLOCK_BOOTTIME of this process and its children, by an offset (time_namespaces(7)).
//!
//! The vDSO and every call that takes or gives a time of these clocks go by it, so whoever is inside has nothing to convert.

use std::fs;
use std::io;
use std::os::fd::AsFd;

use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use super::{boottime_ns, monotonic_ns};

/// The offsets of the namespace that children are born in.
const OFFSETS: &str = "/proc/self/timens_offsets";
const FOR_CHILDREN: &str = "/proc/self/ns/time_for_children";

/// How far CLOCK_MONOTONIC and CLOCK_BOOTTIME are from the host's, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Offsets {
    monotonic_ns: i128,
    boottime_ns: i128,
}

impl Offsets {
    /// Those in the text of [`OFFSETS`]: a line for each clock, with its name or number, seconds and nanoseconds.
    fn parse(text: &str) -> Option<Offsets> {
        let mut offsets = Offsets::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let clock = words.next()?;
            let (sec, nsec): (i128, i128) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let ns = sec.checked_mul(1_000_000_000)?.checked_add(nsec)?;
            match clock {
                "monotonic" | "1" => offsets.monotonic_ns = ns,
                "boottime" | "7" => offsets.boottime_ns = ns,
                _ => return None,
            }
        }
        Some(offsets)
    }
}

impl std::fmt::Display for Offsets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (clock, ns) in [(1, self.monotonic_ns), (7, self.boottime_ns)] {
            // Nanoseconds count forwards from the second before.
            writeln!(f, "{clock} {} {}", ns.div_euclid(1_000_000_000), ns.rem_euclid(1_000_000_000))?;
        }
        Ok(())
    }
}

/// How much a clock has to be put forward to show `then` and not `now`.
fn ahead(then: u64, now: u64) -> i128 {
    i128::from(then).saturating_sub(i128::from(now))
}

/// Puts this process into a new time namespace, whose CLOCK_MONOTONIC and CLOCK_BOOTTIME go on from these times.
///
/// Takes a process of one thread and the host's /proc. Returns by how much CLOCK_MONOTONIC has changed, in nanoseconds.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN or CAP_SYS_TIME; EINVAL if the host has no time namespaces; ERANGE if a time is none that
/// it can have. Without one the process is where it was.
pub fn go_on_from(monotonic: u64, boottime: u64) -> io::Result<i128> {
    // SAFETY: it concerns no thread that is there, and no descriptor.
    unsafe { unshare_unsafe(UnshareFlags::NEWTIME) }?;
    // Offsets are from the host's clocks, and this process may be in a namespace already.
    let outside = Offsets::parse(&fs::read_to_string(OFFSETS)?).ok_or(io::ErrorKind::InvalidData)?;
    let inside = fs::File::open(FOR_CHILDREN)?;
    let change = ahead(monotonic, monotonic_ns());
    let offsets = Offsets {
        monotonic_ns: outside.monotonic_ns.saturating_add(change),
        boottime_ns: outside.boottime_ns.saturating_add(ahead(boottime, boottime_ns())),
    };
    fs::write(OFFSETS, offsets.to_string())?;
    move_into_link_name_space(inside.as_fd(), Some(LinkNameSpaceType::Time))?;
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_they_are_written() {
        let offsets = Offsets { monotonic_ns: -1_500_000_000, boottime_ns: 7_000_000_001 };
        assert_eq!(offsets.to_string(), "1 -2 500000000\n7 7 1\n");
        assert_eq!(Offsets::parse(&offsets.to_string()), Some(offsets));
        let shown = "monotonic           0         0\nboottime           -3        20\n";
        assert_eq!(Offsets::parse(shown), Some(Offsets { monotonic_ns: 0, boottime_ns: -2_999_999_980 }));
        assert!(
            ["x 1 1", "1 1", "1 x 0", "1 999999999999999999999999999999999999999 0"]
                .iter()
                .all(|t| Offsets::parse(t).is_none())
        );
    }
}
