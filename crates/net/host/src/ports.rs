//! Ports that take a capability: bind(2) below `net.ipv4.ip_unprivileged_port_start`.
//!
//! The guest's own CAP_NET_BIND_SERVICE is asked for first, then the host judges by the sandbox's.

use std::sync::OnceLock;

use moat_abi::cap::Cap;
use moat_abi::{Errno, Result};
use moat_vfs::Caller;

/// As Linux starts.
const DEFAULT_FIRST_UNPRIVILEGED: u16 = 1024;
const SYSCTL: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

static FIRST_UNPRIVILEGED: OnceLock<u16> = OnceLock::new();

/// Reads the host's limit for its network namespace; to be called while the host's /proc is still there.
pub fn read_host_limit() {
    let text = std::fs::read_to_string(SYSCTL).unwrap_or_default();
    let _ = FIRST_UNPRIVILEGED.set(text.trim().parse().unwrap_or(DEFAULT_FIRST_UNPRIVILEGED));
}

/// Whether `caller` may bind the port of an AF_INET or AF_INET6 address, where both have it in the same place.
///
/// # Errors
/// EACCES. A malformed address is left to the host.
pub(crate) fn check(caller: &dyn Caller, addr: &[u8]) -> Result<()> {
    let port = addr.get(2..4).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_be_bytes(*b));
    let limit = FIRST_UNPRIVILEGED.get().copied().unwrap_or(DEFAULT_FIRST_UNPRIVILEGED);
    if port != 0 && port < limit && !caller.creds().has_root_cap(Cap::NET_BIND_SERVICE) {
        return Err(Errno::EACCES);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::cap::CapSet;
    use moat_vfs::{Credentials, KernelCaller};
    use std::sync::Arc;

    #[test]
    fn low_ports_take_the_capability() {
        let root = moat_identity::UserNamespace::root();
        let user =
            KernelCaller::new(Arc::new(Credentials::user(1000, 1000, vec![].into(), CapSet::EMPTY, root.clone())));
        let with_port = |port: u16| [[2, 0], port.to_be_bytes()].concat();
        assert_eq!(check(&user, &with_port(80)), Err(Errno::EACCES));
        assert_eq!(check(&user, &with_port(0)), Ok(()));
        assert_eq!(check(&user, &with_port(1024)), Ok(()));
        assert_eq!(check(&user, &[2, 0, 0]), Ok(()));
        assert_eq!(check(&KernelCaller::root(root), &with_port(80)), Ok(()));
    }
}
