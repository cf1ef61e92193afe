//! How many descriptors guests may have the sentry open, by what for.
//!
//! The host gives out the lowest free number, so a number says how many are in use. Those above a line are kept for what must
//! work when guests have taken all others: the files of a program that is executed from outside, then new processes, then
//! control connections.

use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use moat_abi::{Errno, Result};
use rustix::process::{Resource, getrlimit};

/// Read before a filter forbids it.
static LIMIT: OnceLock<u64> = OnceLock::new();

/// The most descriptors that this process may have. To be asked for once when that is as it stays.
pub fn limit() -> u64 {
    *LIMIT.get_or_init(|| getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
}

/// What a descriptor is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Memory that guests share, and that of their files in memory.
    Memory,
    /// A file or a socket of the host.
    File,
    /// A process that a guest makes.
    Process,
}

impl Purpose {
    /// The first number that is not for this.
    fn line(self, limit: u64) -> u64 {
        let kept = (limit / 16).min(4096);
        limit.saturating_sub(match self {
            Purpose::Memory => kept.saturating_mul(2),
            Purpose::File => kept,
            Purpose::Process => kept / 4,
        })
    }
}

/// Gives `fd` back, unless what is left is kept for other things than `purpose`: it is closed then.
///
/// # Errors
/// ENFILE.
pub fn within(fd: OwnedFd, purpose: Purpose) -> Result<OwnedFd> {
    if is_within(&fd, purpose) { Ok(fd) } else { Err(Errno::ENFILE) }
}

/// Whether `fd` may be used for `purpose`.
#[must_use]
pub fn is_within(fd: &OwnedFd, purpose: Purpose) -> bool {
    let limit = limit();
    u64::try_from(fd.as_raw_fd()).is_ok_and(|number| number < purpose.line(limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_descriptors_are_for_fewer_and_fewer_things() {
        for limit in [64, 1024, 20_000, 1 << 20, u64::MAX] {
            let line = |purpose: Purpose| purpose.line(limit);
            assert!(line(Purpose::Memory) > limit / 2 && line(Purpose::Memory) < line(Purpose::File), "{limit}");
            assert!(line(Purpose::File) < line(Purpose::Process) && line(Purpose::Process) < limit, "{limit}");
        }
    }

    #[test]
    fn a_number_beyond_the_line_is_refused() {
        use rustix::io::fcntl_dupfd_cloexec;
        let file = std::fs::File::open("/dev/null").expect("/dev/null");
        let limit = getrlimit(Resource::Nofile).current.expect("a limit");
        let last = i32::try_from(limit.min(1 << 16) - 1).expect("a number");
        assert!(within(file.try_clone().expect("a descriptor").into(), Purpose::Memory).is_ok());
        if limit <= 1 << 16 {
            let high = fcntl_dupfd_cloexec(&file, last).expect("a descriptor");
            assert_eq!(within(high, Purpose::Process).err(), Some(Errno::ENFILE));
        }
    }
}
