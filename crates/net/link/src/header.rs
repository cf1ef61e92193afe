//! `struct virtio_net_hdr`, in the machine's byte order as packet(7) has it. Source: linux/virtio_net.h.

use moat_host::packet::VNET_HEADER_BYTES;
use moat_net_stack::{Checksum, Offload, Segmentation};

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;

const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// A flag beside the kinds: segments of TCP with ECN.
const GSO_ECN: u8 = 0x80;

/// The header that says `offload`.
#[must_use]
pub fn encode(offload: Offload) -> [u8; VNET_HEADER_BYTES] {
    let (mut flags, mut start, mut offset) = (0, 0, 0);
    if let Some(checksum) = offload.checksum {
        (flags, start, offset) = (NEEDS_CSUM, checksum.start, checksum.offset);
    }
    let (kind, size) = match offload.segments {
        None => (GSO_NONE, 0),
        Some((Segmentation::Tcp4, size)) => (GSO_TCPV4, size),
        Some((Segmentation::Tcp6, size)) => (GSO_TCPV6, size),
        Some((Segmentation::Udp, size)) => (GSO_UDP_L4, size),
    };
    let mut bytes = [0; VNET_HEADER_BYTES];
    bytes[..2].copy_from_slice(&[flags, kind]);
    for (to, value) in bytes[2..].chunks_exact_mut(2).zip([offload.header_len, size, start, offset]) {
        to.copy_from_slice(&value.to_ne_bytes());
    }
    bytes
}

/// What the host says of a received frame. A kind of segments that is not known is as none: the frame is looked at as it is.
#[must_use]
pub fn decode(bytes: &[u8; VNET_HEADER_BYTES]) -> Offload {
    let [flags, kind, rest @ ..] = bytes;
    let number =
        |index: usize| rest.get(2 * index..).and_then(|b| b.first_chunk()).map_or(0, |b| u16::from_ne_bytes(*b));
    let (header_len, size) = (number(0), number(1));
    let segments = match kind & !GSO_ECN {
        GSO_TCPV4 => Some((Segmentation::Tcp4, size)),
        GSO_TCPV6 => Some((Segmentation::Tcp6, size)),
        GSO_UDP_L4 => Some((Segmentation::Udp, size)),
        _ => None,
    };
    Offload {
        checksum: (flags & NEEDS_CSUM != 0).then(|| Checksum { start: number(2), offset: number(3) }),
        verified: flags & DATA_VALID != 0,
        segments,
        header_len,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_decoded() {
        for offload in [
            Offload::default(),
            Offload { checksum: Some(Checksum { start: 34, offset: 16 }), ..Offload::default() },
            Offload {
                checksum: Some(Checksum { start: 54, offset: 16 }),
                segments: Some((Segmentation::Tcp6, 1440)),
                header_len: 74,
                verified: false,
            },
            Offload { segments: Some((Segmentation::Udp, 100)), header_len: 42, ..Offload::default() },
        ] {
            assert_eq!(decode(&encode(offload)), offload);
        }
    }

    #[test]
    fn the_layout_is_that_of_the_header() {
        let offload = Offload {
            checksum: Some(Checksum { start: 34, offset: 16 }),
            segments: Some((Segmentation::Tcp4, 1448)),
            header_len: 66,
            verified: false,
        };
        let [a, b] = 1448u16.to_ne_bytes();
        assert_eq!(encode(offload), [1, 1, 66, 0, a, b, 34, 0, 16, 0]);
        assert!(decode(&[2, GSO_TCPV4 | GSO_ECN, 0, 0, a, b, 0, 0, 0, 0]).verified);
    }
}
