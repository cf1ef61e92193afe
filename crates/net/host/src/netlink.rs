//! NETLINK_ROUTE: questions go to the host as they are, and nothing else does.
//!
//! The host would refuse changes too, as the sandbox has no capability over its network; this keeps its code for them out
//! of a guest's reach.

use moat_abi::netlink::{
    NLMSG_MIN_TYPE, Nlmsghdr, RTM_GETADDR, RTM_GETADDRLABEL, RTM_GETLINK, RTM_GETNEIGH, RTM_GETNEIGHTBL,
    RTM_GETNETCONF, RTM_GETNEXTHOP, RTM_GETNSID, RTM_GETQDISC, RTM_GETROUTE, RTM_GETRULE, RTM_GETSTATS, align,
};
use moat_abi::{Errno, Result};
use zerocopy::FromBytes;

/// The requests that only ask.
const QUESTIONS: &[u16] = &[
    RTM_GETLINK,
    RTM_GETADDR,
    RTM_GETROUTE,
    RTM_GETNEIGH,
    RTM_GETRULE,
    RTM_GETQDISC,
    RTM_GETNEIGHTBL,
    RTM_GETADDRLABEL,
    RTM_GETNETCONF,
    RTM_GETNSID,
    RTM_GETSTATS,
    RTM_GETNEXTHOP,
];

/// Looks at all requests of a message (`netlink_rcv_skb`).
///
/// # Errors
/// EPERM if one of them asks for a change.
pub(crate) fn check_requests(mut rest: &[u8]) -> Result<()> {
    while let Ok((request, _)) = Nlmsghdr::read_from_prefix(rest) {
        let len = usize::try_from(request.nlmsg_len).unwrap_or(usize::MAX);
        // What the kernel takes for the end is followed by nothing that it reads.
        if len < size_of::<Nlmsghdr>() || len > rest.len() {
            break;
        }
        // Lower types are netlink's own and ask for nothing.
        if request.nlmsg_type >= NLMSG_MIN_TYPE && !QUESTIONS.contains(&request.nlmsg_type) {
            return Err(Errno::EPERM);
        }
        rest = rest.get(align(len)..).unwrap_or_default();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use moat_abi::netlink::RTM_NEWLINK;
    use zerocopy::IntoBytes;

    fn request(kind: u16) -> Vec<u8> {
        let header = Nlmsghdr { nlmsg_len: 20, nlmsg_type: kind, ..Nlmsghdr::default() };
        [header.as_bytes(), &[0; 4]].concat()
    }

    #[test]
    fn a_change_is_found_wherever_it_is() {
        assert_eq!(check_requests(&request(RTM_GETLINK)), Ok(()));
        assert_eq!(check_requests(&request(RTM_NEWLINK)), Err(Errno::EPERM));
        let both = [request(RTM_GETADDR), request(RTM_NEWLINK)].concat();
        assert_eq!(check_requests(&both), Err(Errno::EPERM));
        assert_eq!(check_requests(&both[..39]), Ok(()));
        assert_eq!(check_requests(&[]), Ok(()));
    }
}
