//! The frames of a network as a file that tcpdump(8) and Wireshark read: pcapng (draft-ietf-opsawg-pcapng), of version 1.0, in the
//! machine's byte order, with a block of its own for each link.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};

use moat_control::profile::{Packet, Record};

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

/// The end of a block's options.
const END_OF_OPTIONS: u16 = 0;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;
/// Times are in units of 10^-9 seconds.
const NANOSECONDS: u8 = 9;
const INBOUND: u32 = 1;
const OUTBOUND: u32 = 2;

/// What a capture had.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Captured {
    /// Frames in the file.
    pub packets: u64,
    /// Frames that were not taken for want of room.
    pub dropped: u64,
}

/// Writes the records of a sandbox as such a file, each frame when it comes.
///
/// # Errors
/// Of `from` and `to`; InvalidData for what no sandbox writes.
pub fn write(from: impl Read, mut to: impl Write) -> io::Result<Captured> {
    let mut from = BufReader::with_capacity(256 << 10, from);
    let mut captured = Captured::default();
    let mut interfaces: HashMap<u32, u32> = HashMap::new();
    to.write_all(&section_header())?;
    while let Some(record) = Record::read(&mut from)? {
        match record {
            Record::Link { link, name } => {
                let number = u32::try_from(interfaces.len()).unwrap_or(u32::MAX);
                interfaces.insert(link, number);
                to.write_all(&interface(&name))?;
            }
            Record::Packet(packet) => {
                let unknown = || io::Error::new(io::ErrorKind::InvalidData, "a frame of a link without a name");
                let interface = interfaces.get(&packet.link).ok_or_else(unknown)?;
                to.write_all(&enhanced_packet(*interface, &packet))?;
                captured.packets = captured.packets.saturating_add(1);
            }
            Record::End { dropped, .. } => captured.dropped = dropped,
            _ => {}
        }
        // Who looks at the file while it grows sees whole frames.
        if from.buffer().is_empty() {
            to.flush()?;
        }
    }
    to.flush()?;
    Ok(captured)
}

fn section_header() -> Vec<u8> {
    let mut body = BYTE_ORDER_MAGIC.to_ne_bytes().to_vec();
    // Version 1.0.
    body.extend(1u16.to_ne_bytes());
    body.extend(0u16.to_ne_bytes());
    // Of a length that is not said.
    body.extend((-1i64).to_ne_bytes());
    block(SECTION_HEADER, &body)
}

fn interface(name: &str) -> Vec<u8> {
    let mut body = LINKTYPE_ETHERNET.to_ne_bytes().to_vec();
    body.extend(0u16.to_ne_bytes());
    // Frames are whole.
    body.extend(0u32.to_ne_bytes());
    option(&mut body, IF_NAME, name.as_bytes());
    option(&mut body, IF_TSRESOL, &[NANOSECONDS]);
    option(&mut body, END_OF_OPTIONS, &[]);
    block(INTERFACE_DESCRIPTION, &body)
}

fn enhanced_packet(interface: u32, packet: &Packet) -> Vec<u8> {
    let length = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
    let (high, low) = ((packet.time_ns >> 32) & 0xffff_ffff, packet.time_ns & 0xffff_ffff);
    let halves = [high, low].map(|half| u32::try_from(half).unwrap_or(0));
    let mut body = interface.to_ne_bytes().to_vec();
    // The length twice: of what is here, and of what it was.
    for word in [halves[0], halves[1], length, length] {
        body.extend(word.to_ne_bytes());
    }
    body.extend(&*packet.bytes);
    pad(&mut body);
    let direction = if packet.outgoing { OUTBOUND } else { INBOUND };
    option(&mut body, EPB_FLAGS, &direction.to_ne_bytes());
    option(&mut body, END_OF_OPTIONS, &[]);
    block(ENHANCED_PACKET, &body)
}

/// Fills up with zeros to a multiple of four bytes.
fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    // A name of a link has 15 bytes at most; what a sandbox says is not believed.
    let value = value.get(..usize::from(u16::MAX)).unwrap_or(value);
    body.extend(code.to_ne_bytes());
    body.extend(u16::try_from(value.len()).unwrap_or(0).to_ne_bytes());
    body.extend(value);
    pad(body);
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    /// Of the kind, and the length before and after.
    const AROUND: usize = 12;
    let length = u32::try_from(body.len().saturating_add(AROUND)).unwrap_or(u32::MAX).to_ne_bytes();
    [&kind.to_ne_bytes()[..], &length, body, &length].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(bytes: &[u8]) -> Vec<u32> {
        bytes.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect()
    }

    #[test]
    fn blocks_are_laid_out_as_the_format_says() {
        let packet = Packet { link: 7, time_ns: 0x1_0000_0002, outgoing: true, bytes: vec![1, 2, 3, 4, 5].into() };
        let records = [
            Record::Link { link: 7, name: "eth0".into() },
            Record::Packet(packet),
            Record::End { dropped: 3, duration_ns: 1 },
        ];
        let bytes: Vec<u8> = records.iter().flat_map(|record| record.encode().unwrap()).collect();
        let mut file = Vec::new();
        assert_eq!(write(&*bytes, &mut file).unwrap(), Captured { packets: 1, dropped: 3 });
        let words = words(&file);
        let name = u32::from_ne_bytes(*b"eth0");
        let option = |code: u32, len: u32| code | len << 16;
        let section = [SECTION_HEADER, 28, BYTE_ORDER_MAGIC, 1, u32::MAX, u32::MAX, 28];
        let link = [1, 40, 1, 0, option(2, 4), name, option(9, 1), 9, 0, 40];
        let frame = [6, 52, 0, 1, 2, 5, 5, u32::from_ne_bytes([1, 2, 3, 4]), 5, option(2, 4), 2, 0, 52];
        assert_eq!(words, [&section[..], &link, &frame].concat());
    }

    #[test]
    fn a_frame_of_no_link_is_refused() {
        let packet = Packet { link: 7, time_ns: 0, outgoing: false, bytes: Vec::new().into() };
        let bytes = Record::Packet(packet).encode().unwrap();
        assert_eq!(write(&*bytes, Vec::new()).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
