//! What a connection is made with: [`Settings`] of its socket, [`Rules`] of its namespace, [`Parameters`] of both and its path.

use crate::time::SECOND;

/// What a socket's options say.
#[derive(Clone, Debug)]
pub struct Settings {
    /// TCP_NODELAY.
    pub no_delay: bool,
    /// TCP_CORK.
    pub cork: bool,
    /// SO_KEEPALIVE.
    pub keep_alive: bool,
    /// TCP_KEEPIDLE, in microseconds.
    pub keep_idle_us: u64,
    /// TCP_KEEPINTVL, in microseconds.
    pub keep_interval_us: u64,
    /// TCP_KEEPCNT.
    pub keep_count: u32,
    /// TCP_USER_TIMEOUT in microseconds; 0 for the default.
    pub user_timeout_us: u64,
    /// TCP_SYNCNT.
    pub syn_retries: u32,
    /// TCP_MAXSEG, if it was set.
    pub max_segment: Option<u16>,
    /// SO_SNDBUF, if it was set: no autotuning.
    pub send_buffer: Option<usize>,
    /// SO_RCVBUF, if it was set.
    pub receive_buffer: Option<usize>,
    /// SO_MAX_PACING_RATE, in bytes a second, if it was set.
    pub pacing_rate: Option<u64>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            no_delay: false,
            cork: false,
            keep_alive: false,
            keep_idle_us: SECOND.saturating_mul(7200),
            keep_interval_us: SECOND.saturating_mul(75),
            keep_count: 9,
            user_timeout_us: 0,
            syn_retries: 6,
            max_segment: None,
            send_buffer: None,
            receive_buffer: None,
            pacing_rate: None,
        }
    }
}

/// How ECN is used (`net.ipv4.tcp_ecn`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EcnRule {
    /// 0: not at all.
    Never,
    /// 1: it is asked for, and accepted.
    Ask,
    /// 2: it is accepted from who asks for it.
    #[default]
    Accept,
}

/// When SYNs are answered by cookies (`net.ipv4.tcp_syncookies`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookieRule {
    /// 0: never.
    Never,
    /// 1: when the queue of half-open connections is full.
    #[default]
    Overflow,
    /// 2: always.
    Always,
}

/// What a namespace says of all its connections (`net.ipv4.tcp_*`); a connection goes by what was set when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// `tcp_ecn`.
    pub ecn: EcnRule,
    /// `tcp_syncookies`.
    pub cookies: CookieRule,
    /// `tcp_max_syn_backlog`: half-open connections of a listener.
    pub syn_backlog: usize,
    /// `tcp_sack`.
    pub sack: bool,
    /// `tcp_dsack`: what came twice is told.
    pub dsack: bool,
    /// `tcp_timestamps`.
    pub timestamps: bool,
    /// `tcp_window_scaling`.
    pub window_scaling: bool,
    /// `tcp_frto`: a timeout is examined before all is sent again.
    pub frto: bool,
    /// `tcp_recovery`, bit 0: losses are found by time (RACK), with SACK.
    pub rack: bool,
    /// `tcp_recovery`, bit 1: nothing is added to the time for segments that overtake each other more than once.
    pub rack_static: bool,
    /// `tcp_recovery`, bit 2: three segments that have arrived show nothing, only time does.
    pub rack_no_threshold: bool,
    /// `tcp_pacing_ss_ratio` and `tcp_pacing_ca_ratio`: the rate in hundredths of a window in a round trip.
    pub pacing: (u64, u64),
    /// `tcp_slow_start_after_idle`.
    pub restart_after_idle: bool,
    /// `tcp_synack_retries`: times that a SYN is answered again.
    pub syn_answers: u32,
    /// `tcp_retries2`: times that data is sent again.
    pub retries: u32,
    /// `tcp_fin_timeout`, in microseconds: how long FIN_WAIT2 lasts that nobody holds.
    pub fin_timeout_us: u64,
}

impl Default for Rules {
    fn default() -> Rules {
        Rules {
            ecn: EcnRule::Accept,
            cookies: CookieRule::Overflow,
            syn_backlog: 4096,
            sack: true,
            dsack: true,
            timestamps: true,
            window_scaling: true,
            frto: true,
            rack: true,
            rack_static: false,
            rack_no_threshold: false,
            pacing: (200, 120),
            restart_after_idle: true,
            syn_answers: 5,
            retries: 15,
            fin_timeout_us: SECOND.saturating_mul(60),
        }
    }
}

/// Counters for TCP_INFO.
#[derive(Clone, Copy, Debug, Default)]
#[allow(missing_docs)]
pub struct Counters {
    pub retransmits: u32,
    pub total_retransmits: u32,
    pub bytes_sent: u64,
    pub bytes_retransmitted: u64,
    pub bytes_acked: u64,
    pub bytes_received: u64,
    pub segments_in: u32,
    pub segments_out: u32,
    pub data_segments_in: u32,
    pub data_segments_out: u32,
    pub reordering_seen: u32,
    pub duplicates_seen: u32,
    pub delivered: u32,
}

/// What a connection is made with.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// The first sequence number.
    pub iss: u32,
    /// Added to the clock of timestamps, so that they don't tell it.
    pub timestamp_offset: u32,
    /// Largest payload with a header without options that the path takes.
    pub path_mss: u16,
    /// Largest payload of a segment that is handed down, if the device can cut it; 0 if not.
    pub largest_segment: u32,
    /// The socket's options.
    pub settings: Settings,
    /// What the namespace says.
    pub rules: Rules,
}
