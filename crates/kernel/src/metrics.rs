//! [`Metrics`]: what a container's tasks have done, counted where they do it.
//!
//! Counting costs a few loads and stores to memory of the thread's own ([`moat_sync::Counters`]); sums are made when somebody asks.

use moat_abi::{Errno, nr};
use moat_sync::Counters;

use crate::error::{SyscallError, SyscallResult};

/// How a system call ended, as far as it matters to who looks for what goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResultClass {
    /// With a value.
    Ok,
    /// It would have had to wait: EAGAIN, EINPROGRESS, ETIMEDOUT.
    Again,
    /// Somebody may not: EPERM, EACCES, EROFS.
    Denied,
    /// Moat, or a file, does not have it: ENOSYS, EOPNOTSUPP, ENOTTY.
    Unsupported,
    /// A signal came first.
    Interrupted,
    /// Any other error.
    Error,
}

impl ResultClass {
    /// All of them.
    pub const ALL: [ResultClass; 6] = [
        ResultClass::Ok,
        ResultClass::Again,
        ResultClass::Denied,
        ResultClass::Unsupported,
        ResultClass::Interrupted,
        ResultClass::Error,
    ];

    /// Its name in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ResultClass::Ok => "ok",
            ResultClass::Again => "again",
            ResultClass::Denied => "denied",
            ResultClass::Unsupported => "unsupported",
            ResultClass::Interrupted => "interrupted",
            ResultClass::Error => "error",
        }
    }

    /// Its place in [`ResultClass::ALL`].
    fn place(self) -> usize {
        match self {
            ResultClass::Ok => 0,
            ResultClass::Again => 1,
            ResultClass::Denied => 2,
            ResultClass::Unsupported => 3,
            ResultClass::Interrupted => 4,
            ResultClass::Error => 5,
        }
    }

    fn of(result: &SyscallResult) -> ResultClass {
        match result {
            Ok(_) => ResultClass::Ok,
            Err(SyscallError::Restart(_)) => ResultClass::Interrupted,
            Err(SyscallError::Errno(errno)) => match *errno {
                Errno::EAGAIN | Errno::EINPROGRESS | Errno::ETIMEDOUT => ResultClass::Again,
                Errno::EPERM | Errno::EACCES | Errno::EROFS => ResultClass::Denied,
                Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::ENOTTY => ResultClass::Unsupported,
                Errno::EINTR => ResultClass::Interrupted,
                _ => ResultClass::Error,
            },
        }
    }
}

/// A limit of tasks, which may refuse a fork: EAGAIN does not say which of them it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForkLimit {
    /// Of its user: setrlimit(2).
    User,
    /// Of its container: config.json's `pids.limit`, `--pids-limit`.
    Container,
    /// No number is free in its pid namespace.
    Numbers,
    /// What the host lets the sandbox have.
    Host,
}

impl ForkLimit {
    /// All of them.
    pub const ALL: [ForkLimit; 4] = [ForkLimit::User, ForkLimit::Container, ForkLimit::Numbers, ForkLimit::Host];

    /// Its name where it is set.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ForkLimit::User => "RLIMIT_NPROC",
            ForkLimit::Container => "pids.max",
            ForkLimit::Numbers => "kernel.pid_max",
            ForkLimit::Host => "host",
        }
    }

    /// What to look at.
    pub(crate) fn advice(self) -> &'static str {
        match self {
            ForkLimit::User => "the user's limit of processes (ulimit -u) refuses a fork",
            ForkLimit::Container => "the container's limit of tasks (--pids-limit) refuses a fork",
            ForkLimit::Numbers => "no process number is free",
            ForkLimit::Host => {
                "the host refuses a process: pids.max of a cgroup above the sandbox, its user's RLIMIT_NPROC, kernel.pid_max or threads-max"
            }
        }
    }
}

/// What else is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Bytes that read(2) and its like gave.
    BytesRead,
    /// Bytes that write(2) and its like took.
    BytesWritten,
    /// Bytes that recvfrom(2) and its like gave.
    BytesReceived,
    /// Bytes that sendto(2) and its like took.
    BytesSent,
    /// Bytes between files, with no stop in the guest: sendfile(2) and its like.
    BytesCopied,
    /// Page faults and other exceptions that the host left to the sentry.
    Faults,
    /// Application code was left because somebody kicked the thread out.
    Kicks,
    /// A fork failed with EAGAIN.
    ForkRefused(ForkLimit),
}

impl Event {
    /// Its place among them.
    fn place(self) -> usize {
        match self {
            Event::BytesRead => 0,
            Event::BytesWritten => 1,
            Event::BytesReceived => 2,
            Event::BytesSent => 3,
            Event::BytesCopied => 4,
            Event::Faults => 5,
            Event::Kicks => 6,
            Event::ForkRefused(ForkLimit::User) => 7,
            Event::ForkRefused(ForkLimit::Container) => 8,
            Event::ForkRefused(ForkLimit::Numbers) => 9,
            Event::ForkRefused(ForkLimit::Host) => 10,
        }
    }
}

const EVENTS: usize = 11;
/// Counters of one call: one for each class, and as many as fill a cache line.
const CLASSES: usize = 8;
/// All numbers that Linux has, and one place for all others.
const CALLS: usize = nr::TABLE_LEN + 1;
const ALL: usize = CALLS * CLASSES + EVENTS;

/// The counters of a container.
pub struct Metrics(Counters);

/// What [`Metrics`] say at a time.
pub struct Snapshot(Vec<u64>);

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics(Counters::new(ALL))
    }
}

impl Metrics {
    /// A call has ended.
    pub fn count_call(&self, nr: u64, result: &SyscallResult) {
        let at = usize::try_from(nr).map_or(CALLS - 1, |nr| nr.min(CALLS - 1));
        self.0.add(at.saturating_mul(CLASSES).saturating_add(ResultClass::of(result).place()), 1);
        if let Ok(bytes @ 1..) = result
            && let Some(event) = u32::try_from(nr).ok().and_then(moves_bytes)
        {
            self.count(event, *bytes);
        }
    }

    /// Something has happened `n` times.
    pub fn count(&self, event: Event, n: u64) {
        self.0.add(CALLS.saturating_mul(CLASSES).saturating_add(event.place()), n);
    }

    /// The sums.
    #[must_use]
    pub fn read(&self) -> Snapshot {
        Snapshot(self.0.read())
    }
}

impl Snapshot {
    /// Calls that were made, with the number of each class. The name of those that Linux does not have is "unknown".
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, ResultClass, u64)> + '_ {
        let calls = self.0.chunks(CLASSES).take(CALLS).zip(0u32..);
        calls.flat_map(|(counts, number)| {
            let name = nr::name(number).unwrap_or("unknown");
            let classes = ResultClass::ALL.into_iter().zip(counts);
            classes.filter(|(_, n)| **n > 0).map(move |(class, n)| (name, class, *n))
        })
    }

    /// Calls by number, those that were made: how often, and how often they failed. Numbers that Linux does not have are one, the last.
    pub fn by_number(&self) -> impl Iterator<Item = (u64, u64, u64)> + '_ {
        let calls = self.0.chunks(CLASSES).take(CALLS).zip(0u64..);
        calls.filter_map(|(counts, number)| {
            let of = |counts: &[u64]| counts.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
            let (all, good) = (of(counts), counts.get(ResultClass::Ok.place()).copied().unwrap_or(0));
            (all > 0).then_some((number, all, all.saturating_sub(good)))
        })
    }

    /// How often something happened.
    #[must_use]
    pub fn event(&self, event: Event) -> u64 {
        self.0.get(CALLS.saturating_mul(CLASSES).saturating_add(event.place())).copied().unwrap_or(0)
    }
}

/// What the result of a call counts, if it is a number of bytes.
fn moves_bytes(call: u32) -> Option<Event> {
    match call {
        nr::READ | nr::PREAD64 | nr::READV | nr::PREADV | nr::PREADV2 => Some(Event::BytesRead),
        nr::WRITE | nr::PWRITE64 | nr::WRITEV | nr::PWRITEV | nr::PWRITEV2 => Some(Event::BytesWritten),
        nr::RECVFROM | nr::RECVMSG => Some(Event::BytesReceived),
        nr::SENDTO | nr::SENDMSG => Some(Event::BytesSent),
        nr::SENDFILE | nr::COPY_FILE_RANGE | nr::SPLICE | nr::TEE => Some(Event::BytesCopied),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Restart;

    #[test]
    fn calls_are_counted_by_name_and_class() {
        let metrics = Metrics::default();
        metrics.count_call(nr::READ.into(), &Ok(7));
        metrics.count_call(nr::READ.into(), &Ok(0));
        metrics.count_call(nr::READ.into(), &Err(Errno::EAGAIN.into()));
        metrics.count_call(nr::SENDTO.into(), &Ok(5));
        metrics.count_call(nr::OPENAT.into(), &Err(Errno::EACCES.into()));
        metrics.count_call(nr::PAUSE.into(), &Err(Restart::NoHand.into()));
        for unknown in [nr::COUNT.into(), 0xffff_ffff, u64::MAX] {
            metrics.count_call(unknown, &Err(Errno::ENOSYS.into()));
        }
        metrics.count(Event::Faults, 2);
        let seen = metrics.read();
        let calls: Vec<_> = seen.calls().map(|(name, class, n)| (name, class.name(), n)).collect();
        assert_eq!(
            calls,
            [
                ("read", "ok", 2),
                ("read", "again", 1),
                ("pause", "interrupted", 1),
                ("sendto", "ok", 1),
                ("openat", "denied", 1),
                ("unknown", "unsupported", 3)
            ]
        );
        let by_number: Vec<_> = seen.by_number().collect();
        let [read, pause, sendto, openat] = [nr::READ, nr::PAUSE, nr::SENDTO, nr::OPENAT].map(u64::from);
        let unknown = nr::TABLE_LEN as u64;
        assert_eq!(by_number, [(read, 3, 1), (pause, 1, 1), (sendto, 1, 0), (openat, 1, 1), (unknown, 3, 3)]);
        let events = [Event::BytesRead, Event::BytesSent, Event::BytesWritten, Event::Faults, Event::Kicks];
        assert_eq!(events.map(|event| seen.event(event)), [7, 5, 0, 2, 0]);
    }
}
