//! TCP_INFO: what there is to say of a connection that loses nothing; what goes with bytes that are read (TCP_INQ, SO_TIMESTAMP).

use moat_abi::socket::{MsgFlags, SOL_TCP, TCP_INQ, TcpInfo};
use moat_vfs::socket::{ControlMessage, Incoming};
use zerocopy::IntoBytes;

use super::TcpSocket;
use super::end::SHUT_READ;
use crate::options::MSS;

/// The loopback's MTU.
const MTU: u32 = 65536;
/// A round trip and its deviation, in microseconds.
const RTT_US: u32 = 20;

pub(super) fn tcp_info(socket: &TcpSocket) -> Vec<u8> {
    let info = TcpInfo {
        tcpi_state: socket.tcp_state(),
        // Time stamps, SACK and window scaling, all three in use.
        tcpi_options: 7,
        tcpi_wscale: 0x77,
        // Microseconds, as Linux starts with.
        tcpi_rto: 204_000,
        tcpi_ato: 40_000,
        tcpi_snd_mss: MSS,
        tcpi_rcv_mss: MSS,
        tcpi_pmtu: MTU,
        tcpi_rcv_ssthresh: MTU,
        tcpi_rtt: RTT_US,
        tcpi_rttvar: RTT_US / 2,
        tcpi_snd_ssthresh: i32::MAX.cast_unsigned(),
        tcpi_snd_cwnd: 10,
        tcpi_advmss: MSS,
        tcpi_reordering: 3,
        tcpi_rcv_space: MTU,
        tcpi_pacing_rate: u64::MAX,
        tcpi_max_pacing_rate: u64::MAX,
        tcpi_min_rtt: RTT_US,
        tcpi_snd_wnd: MTU,
        tcpi_rcv_wnd: MTU,
        ..TcpInfo::default()
    };
    info.as_bytes().to_vec()
}

impl TcpSocket {
    /// Adds what is left to be read, if that was asked for (TCP_INQ).
    pub(super) fn with_rest(&self, mut message: Incoming, flags: MsgFlags, rest: impl FnOnce() -> usize) -> Incoming {
        message.ancillary.other.extend(self.end.stamp_of(message.full_len, flags));
        if self.options.number(SOL_TCP, TCP_INQ) != 0 {
            // At least 1 before the end, so that it is read (`tcp_inq_hint`).
            let end = self.end.shutdown_bits() & SHUT_READ != 0;
            let rest = i32::try_from(rest().max(usize::from(end))).unwrap_or(i32::MAX);
            let data = rest.to_ne_bytes().to_vec();
            message.ancillary.other.push(ControlMessage { level: SOL_TCP, kind: TCP_INQ, data });
        }
        message
    }
}
