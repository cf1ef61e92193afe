//! Packets of gVisor's public protocol for monitors: one message each over SOCK_SEQPACKET, behind a header of eight bytes.
//!
//! Both sides begin with a [`Handshake`] without a header. The header's length stands in it, so that it may grow.

use prost::Message;

use crate::messages::{Event, Handshake};

/// The version that is spoken here; a peer of a later one is to speak this.
pub const VERSION: u32 = 1;

/// Bytes of the header.
pub const HEADER_LEN: u16 = 8;

/// The most bytes of a handshake that are read.
pub const MAX_HANDSHAKE: usize = 10 << 10;

/// What each side says first.
#[must_use]
pub fn handshake() -> Vec<u8> {
    Handshake { version: VERSION }.encode_to_vec()
}

/// The version of a peer that said `packet`.
///
/// # Errors
/// It is no handshake, or of a version that has never been.
pub fn accept(packet: &[u8]) -> Result<u32, String> {
    match Handshake::decode(packet) {
        Ok(Handshake { version }) if version >= VERSION => Ok(version),
        Ok(Handshake { version }) => Err(format!("its version {version} is below {VERSION}")),
        Err(error) => Err(format!("it says no handshake: {error}")),
    }
}

/// A packet with a message, `dropped` events after which none was told.
#[must_use]
pub fn packet(event: &Event, dropped: u32) -> Vec<u8> {
    let mut packet = Vec::with_capacity(256);
    packet.extend(HEADER_LEN.to_le_bytes());
    packet.extend(event.message_type().to_le_bytes());
    packet.extend(dropped.to_le_bytes());
    event.encode(&mut packet);
    packet
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::{ContextData, Open};

    #[test]
    fn a_packet_is_header_and_message() {
        let context = ContextData { thread_id: 5, cwd: "/".into(), ..ContextData::default() };
        let open = Open { context_data: Some(context), sysno: 257, fd: -100, pathname: "/x".into(), ..Open::default() };
        let packet = packet(&Event::Open(open.clone()), 3);
        assert_eq!(packet[..8], [8, 0, 7, 0, 3, 0, 0, 0]);
        // Field 1, length-delimited: thread_id = 5 and cwd = "/"; field 3, varint 257.
        assert_eq!(packet[8..18], [0x0a, 5, 0x10, 5, 0x42, 1, b'/', 0x18, 0x81, 2]);
        assert_eq!(Open::decode(&packet[8..]).unwrap(), open);
    }

    #[test]
    fn handshakes() {
        assert_eq!(handshake(), [8, 1]);
        assert_eq!((accept(&[8, 1]), accept(&[8, 7])), (Ok(1), Ok(7)));
        for bad in [&[][..], &[8, 0], &[0xff], b"hello"] {
            assert!(accept(bad).is_err(), "{bad:?}");
        }
    }
}
