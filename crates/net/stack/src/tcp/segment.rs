//! [`Segment`] and [`SegmentOut`]: segments as the connection sees them, RFC 9293, 7323 and 2018.

use bytes::Bytes;
use smoltcp::wire::{TcpOption, TcpPacket, TcpSeqNumber};

use super::receive_queue::MOST_BLOCKS;
use crate::num::Narrow;

/// Bytes of a header without options.
pub(crate) const HEADER: usize = 20;
/// Bytes of the timestamp option with its padding.
pub(crate) const TIMESTAMP_ROOM: usize = 12;

/// The bits of a header that mean something here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// The first of a connection.
    pub syn: bool,
    /// The last of a stream.
    pub fin: bool,
    /// The end of a connection.
    pub rst: bool,
    /// The sender had no more to send.
    pub psh: bool,
    /// Marks of the network have come (RFC 3168); of a SYN: ECN is asked for or agreed on.
    pub ece: bool,
    /// That was heard.
    pub cwr: bool,
}

/// What the IP header of a segment says of congestion (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// The sender takes marks for losses.
    pub capable: bool,
    /// The network has marked it.
    pub marked: bool,
}

impl Marks {
    /// Of the type of service or traffic class.
    #[must_use]
    pub fn of(tos: u8) -> Marks {
        Marks { capable: tos & 3 != 0, marked: tos & 3 == 3 }
    }
}

/// The options of a segment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Largest segment that the sender takes.
    pub mss: Option<u16>,
    /// Shift of its windows.
    pub window_scale: Option<u8>,
    /// It understands SACK.
    pub sack_permitted: bool,
    /// The sender's clock, and the clock that it has seen.
    pub timestamp: Option<(u32, u32)>,
    /// Ranges that came out of order.
    pub sack: Vec<(u32, u32)>,
}

/// A segment that came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The first byte's number.
    pub seq: u32,
    /// The next byte that the sender expects.
    pub ack: Option<u32>,
    /// Its flags.
    pub flags: Flags,
    /// The sender's window, not shifted.
    pub window: u16,
    /// Its options.
    pub options: Options,
    /// Its bytes.
    pub payload: &'a [u8],
    /// The largest segment that it was put together from.
    pub part: usize,
    /// What its IP header says.
    pub ecn: Marks,
}

/// A segment to be sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentOut {
    /// The first byte's number.
    pub seq: u32,
    /// The next byte that is expected.
    pub ack: Option<u32>,
    /// Its flags.
    pub flags: Flags,
    /// The window, shifted.
    pub window: u16,
    /// Its options.
    pub options: Options,
    /// Its bytes.
    pub payload: Vec<Bytes>,
    /// Bytes of payload that a packet may carry: it is to be cut if it has more.
    pub mss: u16,
    /// The network may mark it.
    pub capable: bool,
}

impl<'a> Segment<'a> {
    /// Decodes a segment; `None` if it is malformed. Options that are malformed end the list of options.
    #[must_use]
    pub fn parse(packet: &TcpPacket<&'a [u8]>) -> Option<Segment<'a>> {
        packet.check_len().ok()?;
        let mut options = Options::default();
        let mut rest = packet.options();
        while !rest.is_empty() {
            let Ok((next, option)) = TcpOption::parse(rest) else { break };
            // The parser must get on, or the list would never end.
            if next.len() >= rest.len() {
                break;
            }
            rest = next;
            match option {
                TcpOption::EndOfList => break,
                TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
                // Larger shifts count as 14 (RFC 7323, section 2.3).
                TcpOption::WindowScale(shift) => options.window_scale = Some(shift.min(14)),
                TcpOption::SackPermitted => options.sack_permitted = true,
                TcpOption::SackRange(ranges) => {
                    options.sack = ranges.iter().flatten().copied().take(MOST_BLOCKS).collect();
                }
                TcpOption::TimeStamp { tsval, tsecr } => options.timestamp = Some((tsval, tsecr)),
                _ => {}
            }
        }
        Some(Segment {
            seq: packet.seq_number().0.cast_unsigned(),
            ack: packet.ack().then(|| packet.ack_number().0.cast_unsigned()),
            flags: Flags {
                syn: packet.syn(),
                fin: packet.fin(),
                rst: packet.rst(),
                psh: packet.psh(),
                ece: packet.ece(),
                cwr: packet.cwr(),
            },
            window: packet.window_len(),
            options,
            payload: packet.payload(),
            part: packet.payload().len(),
            ecn: Marks::default(),
        })
    }

    /// The numbers that it takes: its bytes, and one each for SYN and FIN.
    #[must_use]
    pub fn length(&self) -> u64 {
        let flags = u64::from(self.flags.syn).saturating_add(u64::from(self.flags.fin));
        self.payload.len().narrow::<u64>().saturating_add(flags)
    }
}

impl SegmentOut {
    /// Bytes of its payload.
    #[must_use]
    pub fn len(&self) -> usize {
        self.payload.iter().fold(0, |n, p| n.saturating_add(p.len()))
    }

    /// Whether it has no payload.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of its header.
    #[must_use]
    pub fn header_len(&self) -> usize {
        let o = &self.options;
        let mut len = HEADER;
        len = len.saturating_add(if o.mss.is_some() { 4 } else { 0 });
        len = len.saturating_add(if o.window_scale.is_some() { 4 } else { 0 });
        len = len.saturating_add(if o.sack_permitted { 4 } else { 0 });
        len = len.saturating_add(if o.timestamp.is_some() { TIMESTAMP_ROOM } else { 0 });
        if !o.sack.is_empty() {
            len = len.saturating_add(4).saturating_add(o.sack.len().saturating_mul(8));
        }
        len
    }

    /// Writes its header, without ports and checksum, into a zeroed buffer of [`SegmentOut::header_len`] bytes.
    pub fn emit(&self, packet: &mut TcpPacket<&mut [u8]>) {
        packet.set_header_len(self.header_len().narrow());
        packet.set_seq_number(TcpSeqNumber(self.seq.cast_signed()));
        packet.set_ack_number(TcpSeqNumber(self.ack.unwrap_or(0).cast_signed()));
        packet.set_ack(self.ack.is_some());
        packet.set_syn(self.flags.syn);
        packet.set_fin(self.flags.fin);
        packet.set_rst(self.flags.rst);
        packet.set_psh(self.flags.psh);
        packet.set_ece(self.flags.ece);
        packet.set_cwr(self.flags.cwr);
        packet.set_window_len(self.window);
        let o = &self.options;
        let mut rest = packet.options_mut();
        if let Some(mss) = o.mss {
            rest = TcpOption::MaxSegmentSize(mss).emit(rest);
        }
        // Padded ahead with no-operations, so that each ends at a multiple of 4 bytes.
        if o.sack_permitted {
            rest = TcpOption::NoOperation.emit(rest);
            rest = TcpOption::NoOperation.emit(rest);
            rest = TcpOption::SackPermitted.emit(rest);
        }
        if let Some((tsval, tsecr)) = o.timestamp {
            rest = TcpOption::NoOperation.emit(rest);
            rest = TcpOption::NoOperation.emit(rest);
            rest = TcpOption::TimeStamp { tsval, tsecr }.emit(rest);
        }
        if let Some(shift) = o.window_scale {
            rest = TcpOption::NoOperation.emit(rest);
            rest = TcpOption::WindowScale(shift).emit(rest);
        }
        if !o.sack.is_empty() {
            rest = TcpOption::NoOperation.emit(rest);
            rest = TcpOption::NoOperation.emit(rest);
            let mut ranges = [None; 3];
            for (to, from) in ranges.iter_mut().zip(&o.sack) {
                *to = Some(*from);
            }
            TcpOption::SackRange(ranges).emit(rest);
        }
    }
}
