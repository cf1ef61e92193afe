//! Control messages, cmsg(3): those that may go to the host, and all that come from it.

use moat_abi::socket::{
    Cmsghdr, IP_PKTINFO, IP_TOS, IP_TTL, IPV6_DONTFRAG, IPV6_HOPLIMIT, IPV6_PKTINFO, IPV6_TCLASS, SCM_CREDENTIALS,
    SCM_RIGHTS, SO_MARK, SOL_IP, SOL_IPV6, SOL_SOCKET, SOL_UDP, UDP_SEGMENT, cmsg_align,
};
use moat_abi::{Errno, Result};
use moat_vfs::socket::ControlMessage;
use zerocopy::{FromBytes, IntoBytes};

const HEADER: usize = size_of::<Cmsghdr>();

/// Whether a message goes to the host (`__sock_cmsg_send`, `ip_cmsg_send`, `ip6_datagram_send_ctl`, `udp_cmsg_send`).
///
/// # Errors
/// EINVAL for one that is unknown at a level that is known; EPERM for one that takes a privilege.
fn passes(m: &ControlMessage) -> Result<bool> {
    match (m.level, m.kind) {
        (SOL_IP, IP_PKTINFO | IP_TTL | IP_TOS)
        | (SOL_IPV6, IPV6_PKTINFO | IPV6_HOPLIMIT | IPV6_TCLASS | IPV6_DONTFRAG)
        | (SOL_UDP, UDP_SEGMENT) => Ok(true),
        // Nothing to any family but AF_UNIX.
        (SOL_SOCKET, SCM_RIGHTS | SCM_CREDENTIALS) => Ok(false),
        (SOL_SOCKET, SO_MARK) => Err(Errno::EPERM),
        (SOL_SOCKET | SOL_IP | SOL_IPV6 | SOL_UDP, _) => Err(Errno::EINVAL),
        _ => Ok(false),
    }
}

/// Lays out the messages of a send call for the host.
///
/// # Errors
/// EINVAL, EPERM.
pub(crate) fn encode(messages: &[ControlMessage]) -> Result<Vec<u8>> {
    let mut out = Vec::new();
    for m in messages {
        if !passes(m)? {
            continue;
        }
        let header = Cmsghdr { cmsg_len: (HEADER + m.data.len()) as u64, cmsg_level: m.level, cmsg_type: m.kind };
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(&m.data);
        out.resize(cmsg_align(out.len()), 0);
    }
    Ok(out)
}

/// The messages that the host gave.
pub(crate) fn decode(mut rest: &[u8]) -> Vec<ControlMessage> {
    let mut out = Vec::new();
    while let Ok((header, _)) = Cmsghdr::read_from_prefix(rest) {
        let len = usize::try_from(header.cmsg_len).unwrap_or(usize::MAX);
        let Some(data) = rest.get(HEADER..len) else { break };
        out.push(ControlMessage { level: header.cmsg_level, kind: header.cmsg_type, data: data.to_vec() });
        rest = rest.get(cmsg_align(len)..).unwrap_or_default();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: u32, kind: u32, len: usize) -> ControlMessage {
        ControlMessage { level, kind, data: vec![7; len] }
    }

    #[test]
    fn what_passes_comes_back_and_the_rest_does_not() {
        let all = [
            message(SOL_IP, IP_TTL, 4),
            message(SOL_SOCKET, SCM_RIGHTS, 4),
            message(SOL_IP, IP_PKTINFO, 12),
            message(99, 1, 1),
        ];
        let bytes = encode(&all).unwrap();
        assert_eq!(decode(&bytes), [all[0].clone(), all[2].clone()]);
        assert_eq!(encode(&[message(SOL_SOCKET, SO_MARK, 4)]), Err(Errno::EPERM));
        assert_eq!(encode(&[message(SOL_SOCKET, 9999, 4)]), Err(Errno::EINVAL));
        assert_eq!(decode(&bytes[..20]), [all[0].clone()]);
        assert_eq!(decode(&bytes[..19]), []);
    }
}
