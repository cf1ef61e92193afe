//! The host calls of the gofer: those of every process of a sandbox, those of a tree of the host's files, and its own.
//! To allow another one, add a line with its caller.

use moat_control::spec::SocketUse;
use moat_jail::seccomp::{BASE, DIRECT_TREE, HOST_CONNECTIONS, HOST_NAMES, HOST_SOCKETS, Rule, WATCHES, any, is, when};

/// Everything that a gofer may call.
pub(crate) fn all() -> impl Iterator<Item = Rule<'static>> {
    [BASE, DIRECT_TREE, WATCHES, OWN].into_iter().flatten().copied()
}

/// What sockets of the host take besides.
pub(crate) fn of_sockets(sockets: SocketUse) -> impl Iterator<Item = Rule<'static>> {
    let lists = [
        (sockets != SocketUse::None, HOST_SOCKETS),
        (sockets.opens(), HOST_CONNECTIONS),
        (sockets.creates(), HOST_NAMES),
    ];
    lists.into_iter().filter(|(wanted, _)| *wanted).flat_map(|(_, rules)| rules).copied()
}

const OWN: &[Rule<'static>] = &[
    // Channel::pair for further connections.
    when(libc::SYS_socketpair, &[is(0, libc::AF_UNIX as u64)]),
    // Directories, written out; the sentry has its own.
    any(libc::SYS_fsync),
    any(libc::SYS_fdatasync),
    // What the host tells of marked files. Of files it adds nothing: they can be mapped.
    any(libc::SYS_read),
];

#[cfg(test)]
mod tests {
    use moat_jail::seccomp::{NEVER, Refusal, compile};

    use super::*;

    #[test]
    fn compiles_and_lists_nothing_dangerous() {
        assert!(compile(all(), Refusal::Kill).expect("compile").len() < 4096);
        for rule in all() {
            assert!(!NEVER.contains(&rule.call), "{} is allowed", rule.call);
            let clash = all().any(|other| other.call == rule.call && other.args.is_empty());
            assert!(rule.args.is_empty() || !clash, "call {}", rule.call);
        }
    }

    #[test]
    fn files_are_reached_from_an_open_directory_only() {
        for call in [libc::SYS_openat2, libc::SYS_chdir, libc::SYS_fchdir, libc::SYS_kill] {
            assert!(all().all(|rule| rule.call != call), "{call}");
        }
    }
}
