//! The further host calls of a sentry with a network: in mode `host` from the lists of [`moat_net_host`], in mode `sandbox`
//! [`PACKETS`].

use moat_host::net::DEVICE_QUERIES;
use moat_jail::seccomp::{Arg, Rule, any, is, when};
use moat_net_host::KINDS;
use moat_net_host::options::HOST_OPTIONS;

/// moat_host::packet: many frames at once over donated packet sockets. A frame's device is that of its socket, or one that
/// the address in memory names, which a filter can't see: then another one of the sandbox's own network namespace.
pub(super) const PACKETS: &[Rule<'static>] = &[any(libc::SYS_recvmmsg), any(libc::SYS_sendmmsg)];

/// What moat_net_host's sockets have in their type.
const TYPE_FLAGS: u64 = (libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) as u64;

/// Calls whose addresses a filter can't see; they are those of the families in [`KINDS`], because no other socket that can
/// be bound or connected exists in the sandbox process.
const ADDRESSES: &[Rule<'static>] = &[
    // HostSocket::bind.
    any(libc::SYS_bind),
    // HostSocket::connect and finish_connect.
    any(libc::SYS_connect),
    // HostSocket::listen.
    any(libc::SYS_listen),
    // HostSocket::local_address and peer_address.
    any(libc::SYS_getsockname),
    any(libc::SYS_getpeername),
    // HostSocket::ioctl; FIONREAD and TIOCOUTQ are allowed anyway.
    when(libc::SYS_ioctl, &[is(1, moat_abi::socket::SIOCATMARK as u64)]),
    // moat_net_host::device.
    when(libc::SYS_ioctl, &[is(1, moat_abi::socket::SIOCGIFCONF as u64)]),
];

/// The rules with their conditions.
pub(super) struct HostSockets {
    /// socket: family, type, protocol.
    kinds: Vec<[Arg; 3]>,
    /// getsockopt and setsockopt: level, name.
    options: Vec<(i64, [Arg; 2])>,
    /// ioctl: request.
    queries: Vec<[Arg; 1]>,
}

impl HostSockets {
    pub(super) fn new() -> HostSockets {
        let kind = |k: &moat_vfs::socket::SocketKind| {
            [is(0, k.family.into()), is(1, u64::from(k.socket_type) | TYPE_FLAGS), is(2, k.protocol.into())]
        };
        let mut options = Vec::new();
        // The list by which options are passed to the host: the filter has no others, and never fewer.
        for o in HOST_OPTIONS {
            let args = [is(1, o.level.into()), is(2, o.name.into())];
            if o.can_get() {
                options.push((libc::SYS_getsockopt, args));
            }
            if o.can_set() {
                options.push((libc::SYS_setsockopt, args));
            }
        }
        let queries = DEVICE_QUERIES.iter().map(|request| [is(1, (*request).into())]).collect();
        HostSockets { kinds: KINDS.iter().map(kind).collect(), options, queries }
    }

    pub(super) fn rules(&self) -> impl Iterator<Item = Rule<'_>> {
        let kinds = self.kinds.iter().map(|args| when(libc::SYS_socket, args));
        let options = self.options.iter().map(|(call, args)| when(*call, args));
        let queries = self.queries.iter().map(|args| when(libc::SYS_ioctl, args));
        ADDRESSES.iter().copied().chain(kinds).chain(options).chain(queries)
    }
}
