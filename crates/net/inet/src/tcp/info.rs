//! TCP_INFO: what there is to say of a connection that loses nothing.

use moat_abi::socket::TcpInfo;
use zerocopy::IntoBytes;

use super::TcpSocket;
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
