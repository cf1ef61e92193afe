//! [`TcpSettings`]: what a network namespace says of TCP, `net.ipv4.tcp_*`, tcp(7).

use crate::setting::Setting;

/// The settings, each by its name without `tcp_`. Times are in seconds.
#[allow(missing_docs)]
pub struct TcpSettings {
    pub ecn: Setting,
    pub syncookies: Setting,
    pub max_syn_backlog: Setting,
    pub sack: Setting,
    pub dsack: Setting,
    pub timestamps: Setting,
    pub window_scaling: Setting,
    pub frto: Setting,
    pub recovery: Setting,
    pub pacing_ss_ratio: Setting,
    pub pacing_ca_ratio: Setting,
    pub slow_start_after_idle: Setting,
    pub syn_retries: Setting,
    pub synack_retries: Setting,
    pub retries2: Setting,
    pub fin_timeout: Setting,
    pub keepalive_time: Setting,
    pub keepalive_intvl: Setting,
    pub keepalive_probes: Setting,
}

/// The largest value of those that are `int` and of those that are one byte (`ipv4_net_table`).
const INT: u64 = 0x7fff_ffff;
const BYTE: u64 = 255;
/// Seconds that a signed number of ticks can hold.
const SECONDS: u64 = 2_147_483;

impl Default for TcpSettings {
    fn default() -> TcpSettings {
        TcpSettings {
            ecn: Setting::new(2, 0, 2),
            syncookies: Setting::new(1, 0, BYTE),
            max_syn_backlog: Setting::new(4096, 0, INT),
            sack: Setting::new(1, 0, BYTE),
            dsack: Setting::new(1, 0, BYTE),
            timestamps: Setting::new(1, 0, BYTE),
            window_scaling: Setting::new(1, 0, BYTE),
            frto: Setting::new(2, 0, BYTE),
            recovery: Setting::new(1, 0, BYTE),
            pacing_ss_ratio: Setting::new(200, 0, 1000),
            pacing_ca_ratio: Setting::new(120, 0, 1000),
            slow_start_after_idle: Setting::new(1, 0, BYTE),
            syn_retries: Setting::new(6, 1, 127),
            synack_retries: Setting::new(5, 0, BYTE),
            retries2: Setting::new(15, 0, BYTE),
            fin_timeout: Setting::new(60, 0, SECONDS),
            keepalive_time: Setting::new(7200, 0, SECONDS),
            keepalive_intvl: Setting::new(75, 0, SECONDS),
            keepalive_probes: Setting::new(9, 0, BYTE),
        }
    }
}
