//! What moat uses of a host's kernel and not every kernel has: [`TABLE`].
//!
//! The oldest kernel that moat works on is Linux [`OLDEST`]. A feature that came later has another way beside it, which is
//! slower or does less. A call that fails at once for its arguments tells whether a host has it, so nothing has to be
//! remembered. A seccomp filter around this process, as containers have them, answers ENOSYS or EPERM for a call that it
//! does not know or let through: there the call is absent too.

mod probes;

use std::fmt;

use probes::Probe;

/// A version of Linux, major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32);

impl Version {
    /// The version in the text that uname(2) gives: "5.10.0-32-amd64".
    #[must_use]
    pub fn parse(release: &str) -> Version {
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        Version(numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    }

    /// That of this host.
    #[must_use]
    pub fn of_host() -> Version {
        Version::parse(&rustix::system::uname().release().to_string_lossy())
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

/// The oldest kernel that moat works on.
pub const OLDEST: Version = Version(5, 10);

/// What a kernel may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Feature {
    Clone3,
    PidfdOpen,
    PidfdGetfd,
    OpenTree,
    TimeNamespaces,
    Openat2,
    CloseRange,
    SeccompNotifications,
    SeccompAddFd,
    ProcSubset,
    CloneIntoCgroup,
    MountSetattr,
    FutexWaitv,
    SeccompWaitKillable,
    SeccompSyncWakeUp,
    MemfdExec,
    Fchmodat2,
    XattrAt,
    Rseq,
}

/// What there is without a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Without {
    /// Another way.
    Another(&'static str),
    /// This can't be done.
    Nothing(&'static str),
}

/// A line of the table.
#[derive(Debug)]
pub struct Entry {
    /// Which.
    pub feature: Feature,
    /// The call, and what of it.
    pub name: &'static str,
    /// The first kernel that has it.
    pub since: Version,
    /// What there is without it.
    pub without: Without,
    probe: Probe,
}

impl Entry {
    /// Whether this host has it.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.probe.ask(self.since)
    }
}

impl fmt::Display for Entry {
    /// What a person is told where it is absent.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Without::Another(text) | Without::Nothing(text)) = self.without;
        write!(f, "{} (Linux {}): {text}", self.name, self.since)
    }
}

const fn entry(feature: Feature, name: &'static str, since: Version, without: Without, probe: Probe) -> Entry {
    Entry { feature, name, since, without, probe }
}

/// All of them, the oldest first.
pub const TABLE: &[Entry] = {
    use Feature::*;
    use Without::{Another, Nothing};
    &[
        // Guests use it by glibc; moat itself does not.
        entry(Rseq, "rseq(2)", Version(4, 18), Another("guests have none either"), Probe::Call(probes::rseq)),
        entry(
            SeccompNotifications,
            "seccomp(2) with SECCOMP_RET_USER_NOTIF",
            Version(5, 0),
            Nothing("no --platform=systrap, the default: --platform=ptrace"),
            Probe::Call(probes::seccomp_notifications),
        ),
        // Mounts are made detached and moved into the sandbox's root: there is no other way that a race can't disturb.
        entry(
            OpenTree,
            "open_tree(2), fsopen(2), move_mount(2)",
            Version(5, 2),
            Nothing("no sandbox can be made"),
            Probe::Call(probes::open_tree),
        ),
        entry(Clone3, "clone3(2)", Version(5, 3), Nothing("no sandbox can be made"), Probe::Call(probes::clone3)),
        // A number may be another process's by the time of a signal.
        entry(
            PidfdOpen,
            "pidfd_open(2)",
            Version(5, 3),
            Nothing("no sandbox can be made"),
            Probe::Call(probes::pidfd_open),
        ),
        // RESOLVE_BENEATH and RESOLVE_NO_SYMLINKS keep names inside a tree.
        entry(
            TimeNamespaces,
            "time_namespaces(7)",
            Version(5, 6),
            Another(
                "the monotonic clock of what is restored from an image jumps to the host's; images of before a host's start are refused",
            ),
            Probe::Call(probes::time_namespaces),
        ),
        entry(
            Openat2,
            "openat2(2)",
            Version(5, 6),
            Nothing("no file of the host can be opened safely"),
            Probe::Call(probes::openat2),
        ),
        entry(
            PidfdGetfd,
            "pidfd_getfd(2)",
            Version(5, 6),
            Nothing("no --platform=ptrace"),
            Probe::Call(probes::pidfd_getfd),
        ),
        // Version 1 takes the process after it was made, by cgroup.procs; so does version 2, but not without a race.
        entry(
            CloneIntoCgroup,
            "clone3(2) with CLONE_INTO_CGROUP",
            Version(5, 7),
            Nothing("containers can't be put into their cgroups of version 2: --ignore-cgroups"),
            Probe::Release,
        ),
        entry(
            ProcSubset,
            "subset=pid of procfs",
            Version(5, 8),
            Another("without a procfs the sandbox does not know what its processes use"),
            Probe::Release,
        ),
        // Before execve(2), for all that the caller left open.
        entry(
            CloseRange,
            "close_range(2)",
            Version(5, 9),
            Nothing("descriptors might reach the guest's processes"),
            Probe::Call(probes::close_range),
        ),
        entry(
            SeccompAddFd,
            "SECCOMP_IOCTL_NOTIF_ADDFD",
            Version(5, 9),
            Nothing("no --platform=systrap, the default: --platform=ptrace"),
            Probe::Release,
        ),
        entry(
            MountSetattr,
            "mount_setattr(2)",
            Version(5, 12),
            Another("mounts are copied and remounted one by one, which makes a start slower; none shows mapped ids"),
            Probe::Call(probes::mount_setattr),
        ),
        // Who waits for words of a process's own is in the host's queues there.
        entry(
            FutexWaitv,
            "futex_waitv(2)",
            Version(5, 16),
            Another("on --platform=systrap guests have it only for words that they share with other processes"),
            Probe::Call(probes::futex_waitv),
        ),
        // So that a guest's own signals don't interrupt a call which the sentry has begun.
        entry(
            SeccompWaitKillable,
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
            Version(5, 19),
            Another("a signal makes a guest's system call arrive twice, which the platform sees to"),
            Probe::Call(probes::seccomp_wait_killable),
        ),
        // With it the host's log has no warning about a memfd without a word on execution.
        entry(
            MemfdExec,
            "memfd_create(2) with MFD_EXEC",
            Version(6, 3),
            Another("memfds are executable anyway"),
            Probe::Call(probes::memfd_exec),
        ),
        entry(
            SeccompSyncWakeUp,
            "SECCOMP_IOCTL_NOTIF_SET_FLAGS",
            Version(6, 6),
            Another("the first system call of a guest thread that sleeps takes some microseconds longer"),
            Probe::Release,
        ),
        entry(
            Fchmodat2,
            "fchmodat2(2)",
            Version(6, 6),
            Another("files are opened for chmod(2)"),
            Probe::Call(probes::fchmodat2),
        ),
        entry(
            XattrAt,
            "getxattrat(2), setxattrat(2)",
            Version(6, 13),
            Another(
                "files are opened for extended attributes; those of symbolic links, FIFOs, sockets and devices can't be reached",
            ),
            Probe::Call(probes::xattr_at),
        ),
    ]
};

/// Whether this host has it.
#[must_use]
pub fn has(feature: Feature) -> bool {
    TABLE.iter().find(|entry| entry.feature == feature).is_some_and(Entry::is_there)
}

/// What this host lacks.
pub fn lacking() -> impl Iterator<Item = &'static Entry> {
    TABLE.iter().filter(|entry| !entry.is_there())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        assert_eq!(Version::parse("5.10.0-32-cloud-amd64"), Version(5, 10));
        assert_eq!(Version::parse("6.18"), Version(6, 18));
        assert_eq!(Version::parse("x"), Version(0, 0));
        assert!(Version(5, 9) < OLDEST && Version(6, 1) > OLDEST);
    }

    #[test]
    fn what_is_needed_is_as_old_as_the_oldest_kernel() {
        assert!(TABLE.is_sorted_by_key(|entry| entry.since));
        for entry in TABLE {
            assert!(entry.since <= OLDEST || matches!(entry.without, Without::Another(_)), "{}", entry.name);
            assert_eq!(TABLE.iter().filter(|other| other.feature == entry.feature).count(), 1, "{}", entry.name);
        }
    }

    #[test]
    fn probes_agree_with_the_kernels_number() {
        // Distributions add features to old kernels, but take none away from new ones.
        let host = Version::of_host();
        for entry in TABLE.iter().filter(|entry| entry.since <= host) {
            assert!(entry.is_there(), "{}", entry.name);
        }
    }

    #[test]
    fn the_document_has_all() {
        let document = include_str!("../../../docs/hosts.md");
        for entry in TABLE {
            assert!(document.contains(&format!("| {} | {} |", entry.name, entry.since)), "{entry}");
        }
    }
}
