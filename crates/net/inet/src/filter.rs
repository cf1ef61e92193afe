//! Filters of classic BPF that a program attaches: how many bytes of a frame it wants, or none.

use moat_abi::ptrace::{BPF_MAXINSNS, SockFilter, SockFprog};
use moat_abi::{Errno, Result};
use moat_bpf::{Input, Loads, Program, Size};
use moat_vfs::Caller;
use zerocopy::FromBytes;

/// Offsets from here on ask for what is beside a frame (`SKF_AD_OFF`).
const BESIDE: u32 = 0xffff_f000;
/// Offsets from here on begin at the network's header, and at the link's (`SKF_NET_OFF`, `SKF_LL_OFF`).
const NETWORK: u32 = 0xfff0_0000;
const LINK: u32 = 0xffe0_0000;
/// What is beside a frame: protocol, kind, device, whether it had a VLAN.
const PROTOCOL: u32 = 0;
const KIND: u32 = 4;
const DEVICE: u32 = 8;
const VLAN_TAG: u32 = 44;
const VLAN_PRESENT: u32 = 48;

/// A frame as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// All of it: with the link's header, or from the network's.
    pub bytes: &'a [u8],
    /// Where that begins which the socket gets: offsets count from there.
    pub data_at: usize,
    /// Bytes of the link's header in `bytes`.
    pub network_at: usize,
    /// The protocol by its number of Ethernet.
    pub protocol: u16,
    /// Whom it was sent to (PACKET_HOST ...).
    pub kind: u8,
    /// The device.
    pub device: u32,
}

impl Input for Subject<'_> {
    fn length(&self) -> u32 {
        u32::try_from(self.bytes.len().saturating_sub(self.data_at)).unwrap_or(u32::MAX)
    }

    fn load(&self, offset: u32, size: Size) -> Option<u32> {
        let at = match offset {
            // What is not in the bytes is asked for at "negative" offsets, counted from here (`SKF_AD_OFF`).
            BESIDE.. => {
                return match offset.wrapping_sub(BESIDE) {
                    PROTOCOL => Some(self.protocol.into()),
                    KIND => Some(self.kind.into()),
                    DEVICE => Some(self.device),
                    VLAN_TAG | VLAN_PRESENT => Some(0),
                    _ => None,
                };
            }
            NETWORK.. => usize::try_from(offset.wrapping_sub(NETWORK)).ok()?.checked_add(self.network_at)?,
            // A socket of type SOCK_DGRAM sees no link header.
            LINK.. if self.network_at > 0 => usize::try_from(offset.wrapping_sub(LINK)).ok()?,
            LINK.. => return None,
            // All others count from what the socket gets.
            _ => usize::try_from(offset).ok()?.checked_add(self.data_at)?,
        };
        let bytes = self.bytes.get(at..at.checked_add(size.bytes())?)?;
        Some(bytes.iter().fold(0, |n, b| n.wrapping_shl(8) | u32::from(*b)))
    }
}

/// Reads the program that SO_ATTACH_FILTER names.
///
/// # Errors
/// EINVAL; EFAULT.
pub fn read(caller: &dyn Caller, value: &[u8]) -> Result<Program> {
    let (header, _) = SockFprog::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
    if header.len == 0 || header.len > BPF_MAXINSNS || header.filter == 0 {
        return Err(Errno::EINVAL);
    }
    // At most 4,096 of them, by the check above.
    let mut bytes = vec![0; usize::from(header.len).saturating_mul(size_of::<SockFilter>())];
    caller.read_user(header.filter, &mut bytes)?;
    let instructions = bytes.chunks_exact(size_of::<SockFilter>());
    let program = instructions.filter_map(|b| SockFilter::read_from_bytes(b).ok()).collect();
    Program::new(program, Loads::Packet)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_reach_the_frame_its_headers_and_what_is_beside_it() {
        let bytes: Vec<u8> = (0..20).collect();
        let s = Subject { bytes: &bytes, data_at: 0, network_at: 14, protocol: 0x800, kind: 4, device: 7 };
        assert_eq!(s.load(1, Size::Half), Some(0x0102));
        assert_eq!((s.load(16, Size::Word), s.load(17, Size::Word)), (Some(0x1011_1213), None));
        assert_eq!((s.load(NETWORK, Size::Byte), s.load(LINK + 2, Size::Byte)), (Some(14), Some(2)));
        assert_eq!((s.load(BESIDE, Size::Word), s.load(BESIDE + 4, Size::Word)), (Some(0x800), Some(4)));
        assert_eq!((s.load(BESIDE + 8, Size::Word), s.load(BESIDE + 12, Size::Word)), (Some(7), None));
        assert_eq!(s.load(u32::MAX, Size::Word), None);
        // Of a transport's socket offsets count from its header, and the network's is still there.
        let s = Subject { data_at: 8, network_at: 0, ..s };
        assert_eq!((s.length(), s.load(0, Size::Byte), s.load(NETWORK + 1, Size::Byte)), (12, Some(8), Some(1)));
        assert_eq!((s.load(12, Size::Byte), s.load(LINK, Size::Byte)), (None, None));
    }
}
