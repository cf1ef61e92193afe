//! IPV6_CHECKSUM: where a raw socket of IPv6 has a checksum made in what it sends, and looked at in what comes (RFC 3542, section 3.1).

use moat_abi::socket as abi;
use moat_abi::socket::{IPPROTO_ICMPV6, SOL_IPV6, SOL_RAW};
use moat_abi::{Errno, Result};
use moat_net_stack::{IpHeader, checksum_holds};

use super::RawSocket;

/// Where ICMPv6 has its checksum.
const OF_ICMPV6: i32 = 2;
const NONE: i32 = -1;

impl RawSocket {
    /// Whether an option is this one: it is at both levels.
    pub(super) fn is_checksum(&self, level: u32, name: u32) -> bool {
        matches!(level, SOL_RAW | SOL_IPV6) && name == abi::IPV6_CHECKSUM && !self.v4() && !self.is_ping()
    }

    /// The offset, or -1.
    pub(super) fn checksum_offset(&self) -> i32 {
        let start = if self.kind.protocol == IPPROTO_ICMPV6 { OF_ICMPV6 } else { NONE };
        self.options.chosen(SOL_RAW, abi::IPV6_CHECKSUM).unwrap_or(start)
    }

    /// Sets the offset (`do_rawv6_setsockopt`).
    ///
    /// # Errors
    /// EINVAL for an odd one, and for ICMPv6, whose checksum the RFC leaves nobody to choose, at the level of IPv6.
    pub(super) fn set_checksum(&self, level: u32, value: &[u8]) -> Result<()> {
        let offset = value.first_chunk().map(|b| i32::from_ne_bytes(*b)).ok_or(Errno::EINVAL)?;
        if (level == SOL_IPV6 && self.kind.protocol == IPPROTO_ICMPV6) || (offset > 0 && offset & 1 != 0) {
            return Err(Errno::EINVAL);
        }
        self.options.choose(SOL_RAW, abi::IPV6_CHECKSUM, offset.max(NONE));
        Ok(())
    }

    /// Where the checksum of what is sent is to be made, if it is.
    pub(super) fn checksum_at(&self) -> Option<usize> {
        if self.v4() { None } else { usize::try_from(self.checksum_offset()).ok() }
    }

    /// Whether what came may be given to the socket: with a checksum that is right, where it wants one.
    pub(super) fn checksum_fits(&self, header: &IpHeader, payload: &[u8]) -> bool {
        self.checksum_at().is_none() || checksum_holds(header, payload)
    }
}
