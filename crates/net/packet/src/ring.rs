//! [`Ring`]: frames in memory that a program maps (PACKET_RX_RING, TPACKET_V2).
//!
//! Source: `tpacket_rcv`, `packet_set_ring` in `net/packet/af_packet.c`; packet_mmap.rst.

use moat_abi::socket::{
    SockaddrLl, TP_STATUS_COPY, TP_STATUS_KERNEL, TP_STATUS_LOSING, TP_STATUS_USER, Tpacket2Hdr, TpacketReq,
};
use moat_abi::{Errno, Result};
use moat_mm::{FileIdentity, HostMemory, MapFile, MapName, Mappable};
use moat_platform::MapSource;
use moat_vfs::anon::Pseudo;
use zerocopy::IntoBytes;

/// `TPACKET_ALIGNMENT`.
const ALIGNMENT: u32 = 16;
/// The header and the address before a frame, aligned (`TPACKET2_HDRLEN`).
const HEADER: u32 = 64;
/// Room for a link's header before the network's.
const MOST_LINK_HEADER: u32 = 16;
const PAGE: u32 = 4096;
/// Bytes of a ring, at most.
const MOST: u64 = 32 << 20;

/// A ring.
pub(crate) struct Ring {
    memory: HostMemory,
    ino: u64,
    len: u64,
    block_size: u32,
    frames_per_block: u32,
    frame_size: u32,
    frames: u32,
    /// Bytes that the program wants free before each frame.
    reserve: u32,
    /// The frame that is next.
    head: u32,
    /// A frame was lost since the last that was written.
    losing: bool,
}

/// A frame to be put in, and what is said of it.
pub(crate) struct Slot<'a> {
    pub(crate) bytes: &'a [u8],
    /// Bytes of the link's header in it.
    pub(crate) network_at: u32,
    /// How many of the bytes are wanted.
    pub(crate) wanted: u32,
    pub(crate) from: SockaddrLl,
    pub(crate) seconds: u32,
    pub(crate) nanoseconds: u32,
}

impl Ring {
    /// A ring of the shape that is asked for.
    ///
    /// # Errors
    /// EINVAL for a shape that is none; ENOMEM.
    pub(crate) fn new(shape: &TpacketReq, reserve: u32, ino: u64) -> Result<Ring> {
        let least = HEADER.checked_add(reserve).ok_or(Errno::EINVAL)?;
        if shape.tp_block_size == 0
            || !shape.tp_block_size.is_multiple_of(PAGE)
            || shape.tp_frame_size < least
            || !shape.tp_frame_size.is_multiple_of(ALIGNMENT)
        {
            return Err(Errno::EINVAL);
        }
        // As Linux checks it: no frame crosses a block, and the numbers agree. Programs work out places by them.
        let frames_per_block = shape.tp_block_size.checked_div(shape.tp_frame_size).unwrap_or(0);
        if frames_per_block == 0 || frames_per_block.checked_mul(shape.tp_block_nr) != Some(shape.tp_frame_nr) {
            return Err(Errno::EINVAL);
        }
        let len = u64::from(shape.tp_block_size).saturating_mul(shape.tp_block_nr.into());
        // It is memory that nobody else's limit counts.
        if len > MOST {
            return Err(Errno::ENOMEM);
        }
        let memory = HostMemory::new("packet ring", len).map_err(|_| Errno::ENOMEM)?;
        Ok(Ring {
            memory,
            ino,
            len,
            block_size: shape.tp_block_size,
            frames_per_block,
            frame_size: shape.tp_frame_size,
            frames: shape.tp_frame_nr,
            reserve,
            head: 0,
            losing: false,
        })
    }

    /// Where a frame lies.
    fn place(&self, frame: u32) -> u64 {
        let block = frame.checked_div(self.frames_per_block).unwrap_or(0);
        let within = frame.checked_rem(self.frames_per_block).unwrap_or(0);
        u64::from(block)
            .saturating_mul(self.block_size.into())
            .saturating_add(u64::from(within).saturating_mul(self.frame_size.into()))
    }

    /// Whose a frame is, as the program or the kernel has written there.
    fn status(&self, frame: u32) -> u32 {
        let mut word = [0; 4];
        let read = rustix::io::pread(self.memory.fd(), &mut word, self.place(frame));
        if read == Ok(word.len()) { u32::from_ne_bytes(word) } else { TP_STATUS_USER }
    }

    /// Whether the last frame that was written has not been taken yet.
    pub(crate) fn is_readable(&self) -> bool {
        let last = self.head.checked_sub(1).unwrap_or(self.frames.saturating_sub(1));
        self.status(last) != TP_STATUS_KERNEL
    }

    /// Puts a frame in; gives whether there was room.
    pub(crate) fn put(&mut self, slot: &Slot<'_>) -> bool {
        // The program has not given the frame back: what comes is lost until it does, and the next one says so.
        if self.status(self.head) != TP_STATUS_KERNEL {
            self.losing = true;
            return false;
        }
        let network = HEADER.saturating_add(MOST_LINK_HEADER).saturating_add(self.reserve);
        let start = network.saturating_sub(slot.network_at);
        let len = u32::try_from(slot.bytes.len()).unwrap_or(u32::MAX);
        let room = self.frame_size.saturating_sub(start);
        // The filter's wish, the frame itself, and the slot each bound it; only the last is worth telling.
        let kept = slot.wanted.min(len).min(room);
        let cut = if kept < slot.wanted.min(len) { TP_STATUS_COPY } else { 0 };
        let losing = if std::mem::take(&mut self.losing) { TP_STATUS_LOSING } else { 0 };
        let status = TP_STATUS_USER | cut | losing;
        let header = Tpacket2Hdr {
            tp_status: TP_STATUS_KERNEL,
            tp_len: len,
            tp_snaplen: kept,
            tp_mac: u16::try_from(start).unwrap_or(u16::MAX),
            tp_net: u16::try_from(network).unwrap_or(u16::MAX),
            tp_sec: slot.seconds,
            tp_nsec: slot.nanoseconds,
            ..Tpacket2Hdr::default()
        };
        let at = self.place(self.head);
        let put = |bytes: &[u8], by: u32| {
            rustix::io::pwrite(self.memory.fd(), bytes, at.saturating_add(by.into())) == Ok(bytes.len())
        };
        let bytes = usize::try_from(kept).ok().and_then(|n| slot.bytes.get(..n)).unwrap_or_default();
        // The state comes last: with it the frame is the program's.
        let whole = put(header.as_bytes(), 0)
            && put(slot.from.as_bytes(), 32)
            && put(bytes, start)
            && put(&status.to_ne_bytes(), 0);
        if whole {
            let next = self.head.saturating_add(1);
            self.head = if next >= self.frames { 0 } else { next };
        }
        whole
    }

    /// What a program maps.
    pub(crate) fn mappable(&self) -> RingMemory {
        RingMemory { memory: self.memory.clone(), ino: self.ino, len: self.len }
    }
}

/// A ring's memory.
pub(crate) struct RingMemory {
    memory: HostMemory,
    ino: u64,
    len: u64,
}

impl Mappable for RingMemory {
    fn map_source(&self, what: &MapFile<'_>) -> Result<MapSource> {
        // Beyond its end there is nothing to fault in.
        if what.offset.checked_add(what.len).is_none_or(|end| end > self.len) {
            return Err(Errno::EINVAL);
        }
        Ok(self.memory.map_source(what.offset, what.sharing))
    }

    fn identity(&self) -> FileIdentity {
        FileIdentity { dev: Pseudo::Socket.dev().to_raw(), ino: self.ino }
    }

    fn describe(&self) -> MapName {
        MapName { identity: self.identity(), path: format!("socket:[{}]", self.ino).into_bytes() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> TpacketReq {
        TpacketReq { tp_block_size: 4096, tp_block_nr: 2, tp_frame_size: 1024, tp_frame_nr: 8 }
    }

    #[test]
    fn shapes_that_do_not_add_up_are_refused() {
        assert!(Ring::new(&shape(), 0, 1).is_ok());
        for bad in [
            TpacketReq { tp_block_size: 0, ..shape() },
            TpacketReq { tp_block_size: 4097, ..shape() },
            TpacketReq { tp_frame_size: 48, tp_frame_nr: 170, ..shape() },
            TpacketReq { tp_frame_nr: 7, ..shape() },
            TpacketReq { tp_frame_size: 8192, tp_frame_nr: 0, ..shape() },
        ] {
            assert_eq!(Ring::new(&bad, 0, 1).err(), Some(Errno::EINVAL), "{bad:?}");
        }
        assert_eq!(Ring::new(&shape(), u32::MAX, 1).err(), Some(Errno::EINVAL));
        let huge = TpacketReq { tp_block_nr: 1 << 20, tp_frame_nr: 4 << 20, ..shape() };
        assert_eq!(Ring::new(&huge, 0, 1).err(), Some(Errno::ENOMEM));
    }

    #[test]
    fn a_full_ring_loses_until_a_frame_is_given_back() {
        let mut ring = Ring::new(&shape(), 0, 1).unwrap();
        let bytes = [7u8; 2000];
        let slot = Slot {
            bytes: &bytes,
            network_at: 14,
            wanted: u32::MAX,
            from: SockaddrLl::default(),
            seconds: 1,
            nanoseconds: 2,
        };
        assert!(!ring.is_readable());
        for _ in 0..8 {
            assert!(ring.put(&slot));
        }
        assert!(ring.is_readable() && !ring.put(&slot));
        let mut header = [0; 32];
        rustix::io::pread(ring.memory.fd(), &mut header, 0).unwrap();
        let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().unwrap());
        assert_eq!((word(0), word(4), word(8)), (TP_STATUS_USER | TP_STATUS_COPY, 2000, 1024 - 66));
        rustix::io::pwrite(ring.memory.fd(), &[0; 4], 0).unwrap();
        assert!(ring.put(&slot) && !ring.put(&slot));
        assert_eq!(ring.status(0) & TP_STATUS_LOSING, TP_STATUS_LOSING);
    }
}
