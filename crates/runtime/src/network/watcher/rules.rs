//! The host calls of a watcher. To allow another one, add a line with its caller.

use moat_jail::seccomp::{BASE, Rule, any, is, is_int, when};

/// Everything that a watcher may call.
pub(super) fn all() -> impl Iterator<Item = Rule<'static>> {
    [BASE, OWN].into_iter().flatten().copied()
}

const PACKET_TYPE: libc::c_int = libc::SOCK_RAW | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
const UDP_TYPE: libc::c_int = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;

const OWN: &[Rule<'static>] = &[
    // Netlink, and the control connection's end.
    any(libc::SYS_sendto),
    any(libc::SYS_recvfrom),
    any(libc::SYS_poll),
    any(libc::SYS_ppoll),
    // moat_host::packet::open.
    when(libc::SYS_socket, &[is_int(0, libc::AF_PACKET), is_int(1, PACKET_TYPE), is_int(2, 0)]),
    when(libc::SYS_setsockopt, &[is_int(1, libc::SOL_PACKET)]),
    when(libc::SYS_setsockopt, &[is_int(1, libc::SOL_SOCKET)]),
    // That, and super::resolver.
    any(libc::SYS_bind),
    when(libc::SYS_socket, &[is_int(0, libc::AF_INET), is_int(1, UDP_TYPE), is_int(2, 0)]),
    any(libc::SYS_connect),
    when(libc::SYS_ioctl, &[is(1, libc::FIONBIO)]),
];

#[cfg(test)]
mod tests {
    use moat_jail::seccomp::{NEVER, Refusal, compile};

    use super::*;

    #[test]
    fn compiles_and_reaches_no_file_and_no_other_namespace() {
        assert!(compile(all(), Refusal::Kill).expect("compile").len() < 4096);
        // What a sandbox never has: sockets of two kinds, which the arguments say, for interfaces and the resolver.
        let sockets = [libc::SYS_socket, libc::SYS_bind, libc::SYS_connect];
        for rule in all() {
            assert!(sockets.contains(&rule.call) || !NEVER.contains(&rule.call), "{} is allowed", rule.call);
            assert!(rule.call != libc::SYS_socket || rule.args.len() == 3, "family, type and protocol are fixed");
        }
        for call in [libc::SYS_open, libc::SYS_openat, libc::SYS_openat2, libc::SYS_setns, libc::SYS_unshare] {
            assert!(all().all(|rule| rule.call != call), "{call}");
        }
    }
}
