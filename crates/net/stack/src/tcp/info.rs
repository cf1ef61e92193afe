//! TCP_INFO.

use moat_abi::socket::TcpInfo;

use super::congestion::{Cause, Congestion};
use super::connection::{Connection, ConnectionState};
use crate::num::Narrow;
use crate::time::{MS, Time};

/// Bits of `tcpi_options`.
const TIMESTAMPS: u8 = 1;
const SACK: u8 = 2;
const WINDOW_SCALE: u8 = 4;
const ECN: u8 = 8;
const ECN_SEEN: u8 = 16;
/// `tcpi_snd_ssthresh` that means none.
const NO_THRESHOLD: u32 = 0x7fff_ffff;

impl Connection {
    /// Segments that were sent again.
    pub(crate) fn retransmitted(&self) -> u32 {
        self.counters.total_retransmits
    }

    /// What TCP_INFO shows.
    #[must_use]
    pub fn info(&self, now: Time) -> TcpInfo {
        let c = &self.counters;
        let segments = |bytes: u64| -> u32 { bytes.div_ceil(self.mss.max(1)).narrow() };
        let ms_since = |at: Time| -> u32 { (now.since(at) / MS).narrow() };
        let mut options = 0;
        if self.agreed.timestamps {
            options |= TIMESTAMPS;
        }
        if self.agreed.sack {
            options |= SACK;
        }
        if self.agreed.receive_scale > 0 {
            options |= WINDOW_SCALE;
        }
        if self.agreed.ecn {
            options |= ECN;
        }
        if self.ecn.seen {
            options |= ECN_SEEN;
        }
        let threshold = self.cc.threshold;
        TcpInfo {
            // The machine has no state that is not Linux's.
            tcpi_state: number(self.state),
            tcpi_ca_state: match self.congestion {
                Congestion::Open => 0,
                Congestion::Recovery { cause: Cause::Marks, .. } => 2,
                Congestion::Recovery { cause: Cause::Loss, .. } => 3,
                Congestion::Loss { .. } => 4,
            },
            tcpi_retransmits: c.retransmits.narrow(),
            tcpi_probes: self.unanswered.narrow(),
            tcpi_backoff: self.rtt.backoff.narrow(),
            tcpi_options: options,
            tcpi_wscale: self.agreed.send_scale | self.agreed.receive_scale.checked_shl(4).unwrap_or(0),
            tcpi_rto: self.rtt.rto().narrow(),
            tcpi_ato: 40_000,
            tcpi_snd_mss: self.mss.narrow(),
            tcpi_rcv_mss: self.ack.peer_segment.narrow(),
            tcpi_unacked: segments(self.board.outstanding()),
            tcpi_sacked: segments(self.board.sacked()),
            tcpi_lost: segments(self.board.lost()),
            tcpi_last_data_sent: ms_since(self.sent_at),
            tcpi_last_data_recv: ms_since(self.ack.received_at),
            tcpi_last_ack_recv: ms_since(self.heard_at),
            tcpi_pmtu: u32::from(self.path_mss).saturating_add(40),
            tcpi_rcv_ssthresh: self.offered_window().narrow(),
            tcpi_rtt: self.rtt.smoothed.narrow(),
            tcpi_rttvar: self.rtt.deviation.narrow(),
            tcpi_snd_ssthresh: if threshold >= 1 << 30 { NO_THRESHOLD } else { segments(threshold) },
            tcpi_snd_cwnd: segments(self.cc.window),
            tcpi_advmss: u32::from(self.path_mss),
            tcpi_reordering: 3,
            tcpi_rcv_rtt: self.tuning.rtt.narrow(),
            tcpi_rcv_space: self.tuning.best.max(65536).narrow(),
            tcpi_total_retrans: c.total_retransmits,
            tcpi_pacing_rate: self.pacing_rate().unwrap_or(u64::MAX),
            tcpi_max_pacing_rate: self.settings.pacing_rate.unwrap_or(u64::MAX),
            tcpi_bytes_acked: c.bytes_acked,
            tcpi_bytes_received: c.bytes_received,
            tcpi_segs_out: c.segments_out,
            tcpi_segs_in: c.segments_in,
            tcpi_notsent_bytes: self.send.end().saturating_sub(self.nxt.max(1)).narrow(),
            // Linux shows the largest number while there is no sample.
            tcpi_min_rtt: self.rtt.least().unwrap_or(u64::from(u32::MAX)).narrow(),
            tcpi_data_segs_in: c.data_segments_in,
            tcpi_data_segs_out: c.data_segments_out,
            tcpi_delivered: c.delivered,
            tcpi_bytes_sent: c.bytes_sent,
            tcpi_bytes_retrans: c.bytes_retransmitted,
            tcpi_dsack_dups: c.duplicates_seen,
            tcpi_reord_seen: c.reordering_seen,
            tcpi_snd_wnd: self.send_window.narrow(),
            tcpi_rcv_wnd: self.offered_window().narrow(),
            ..TcpInfo::default()
        }
    }
}

/// A state's number.
pub(crate) fn number(state: ConnectionState) -> u8 {
    match state {
        ConnectionState::Established => 1,
        ConnectionState::SynSent => 2,
        ConnectionState::SynReceived => 3,
        ConnectionState::FinWait1 => 4,
        ConnectionState::FinWait2 => 5,
        ConnectionState::TimeWait => 6,
        ConnectionState::Closed => 7,
        ConnectionState::CloseWait => 8,
        ConnectionState::LastAck => 9,
        ConnectionState::Closing => 11,
    }
}
