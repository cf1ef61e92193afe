//! The rules that every namespace begins with, and that don't change: RTM_GETRULE.

use moat_abi::netlink as nl;
use moat_abi::netlink::FibRuleHdr;
use moat_abi::socket::AF_INET;
use zerocopy::IntoBytes;

use super::Head;
use crate::message::Message;

/// The messages about the rules of these families.
pub(super) fn all(families: &[u16], (kind, flags, to): Head) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for family in families {
        // Priority and table; IPv6 has no table `default`.
        let rules = [(0, nl::RT_TABLE_LOCAL), (32766, nl::RT_TABLE_MAIN), (32767, nl::RT_TABLE_DEFAULT)];
        let count = if *family == AF_INET { 3 } else { 2 };
        for (priority, table) in rules.into_iter().take(count) {
            let header = FibRuleHdr {
                family: u8::try_from(*family).unwrap_or(0),
                table,
                action: nl::FR_ACT_TO_TBL,
                ..FibRuleHdr::default()
            };
            let mut m = Message::new(kind, flags, to)
                .body(header.as_bytes())
                .attr_u32(nl::FRA_TABLE, table.into())
                .attr_u32(nl::FRA_SUPPRESS_PREFIXLEN, u32::MAX)
                .attr(nl::FRA_PROTOCOL, &[nl::RTPROT_KERNEL]);
            if priority > 0 {
                m = m.attr_u32(nl::FRA_PRIORITY, priority);
            }
            out.push(m.finish());
        }
    }
    out
}
