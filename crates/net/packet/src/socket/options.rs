//! The options of level SOL_PACKET.

use moat_abi::socket as abi;
use moat_abi::socket::TpacketReq;
use moat_abi::{Errno, Result};
use zerocopy::FromBytes;

use super::{PacketSocket, number};
use crate::ring::Ring;

impl PacketSocket {
    /// Sets an option of level SOL_PACKET.
    ///
    /// # Errors
    /// EINVAL, EBUSY while there is a ring, ENODEV, ENOMEM; ENOPROTOOPT.
    pub(super) fn set_packet_option(&self, name: u32, value: &[u8]) -> Result<()> {
        match name {
            // Every frame of a link is seen anyway, so these change nothing; the device must be there.
            abi::PACKET_ADD_MEMBERSHIP | abi::PACKET_DROP_MEMBERSHIP => {
                let index = number(value)?;
                if value.len() < 16 {
                    return Err(Errno::EINVAL);
                }
                self.device(index).map(|_| ())
            }
            abi::PACKET_VERSION => {
                let version = number(value)?;
                let mut s = self.state.lock();
                // A ring that is there has frames of its version.
                match (version, s.ring.is_some()) {
                    (_, true) => Err(Errno::EBUSY),
                    (abi::TPACKET_V1 | abi::TPACKET_V2, _) => {
                        s.version = version;
                        Ok(())
                    }
                    _ => Err(Errno::EINVAL),
                }
            }
            abi::PACKET_RESERVE => {
                let reserve = number(value)?;
                let mut s = self.state.lock();
                if s.ring.is_some() {
                    return Err(Errno::EBUSY);
                }
                s.reserve = reserve;
                Ok(())
            }
            abi::PACKET_RX_RING => {
                let (shape, _) = TpacketReq::read_from_prefix(value).map_err(|_| Errno::EINVAL)?;
                let mut s = self.state.lock();
                if shape.tp_block_nr == 0 {
                    s.ring = None;
                    return if shape.tp_frame_nr == 0 { Ok(()) } else { Err(Errno::EINVAL) };
                }
                if s.ring.is_some() {
                    return Err(Errno::EBUSY);
                }
                // Only this version's frames are written.
                if s.version != abi::TPACKET_V2 {
                    return Err(Errno::EINVAL);
                }
                s.ring = Some(Ring::new(&shape, s.reserve, self.core.ino())?);
                Ok(())
            }
            abi::PACKET_AUXDATA => {
                self.state.lock().auxdata = number(value)? != 0;
                Ok(())
            }
            abi::PACKET_IGNORE_OUTGOING => {
                self.state.lock().ignores_outgoing = number(value)? != 0;
                Ok(())
            }
            abi::PACKET_TIMESTAMP => Ok(()),
            _ => Err(Errno::ENOPROTOOPT),
        }
    }
}
