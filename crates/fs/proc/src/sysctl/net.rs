//! The settings of a network namespace: /proc/sys/net, tcp(7), ip(7), socket(7).

use moat_abi::{Errno, Result};
use moat_identity::Setting;

use super::{Entry, Scope, Value, conf, join, numbers, set_all};

pub(super) const SETTINGS: &[Entry] = &[
    ("net/core/somaxconn", Value::Number(|s| &s.namespaces.net.settings.max_backlog)),
    ("net/core/rmem_default", Value::Fixed("212992")),
    ("net/core/rmem_max", Value::Fixed("212992")),
    ("net/core/wmem_default", Value::Fixed("212992")),
    ("net/core/wmem_max", Value::Fixed("212992")),
    ("net/ipv4/ip_forward", Value::Set(forwarding, set_forwarding)),
    ("net/ipv4/ip_local_port_range", Value::Set(|s| join(ports(s).map(Setting::get)), set_port_range)),
    ("net/ipv4/ip_unprivileged_port_start", Value::Number(|s| &s.namespaces.net.settings.first_unprivileged_port)),
    ("net/ipv4/ping_group_range", Value::Set(|s| join(ping_groups(s).map(Setting::get)), set_ping_groups)),
    ("net/ipv4/tcp_congestion_control", Value::Fixed("cubic")),
    ("net/ipv4/tcp_rmem", Value::Fixed("4096\t131072\t6291456")),
    ("net/ipv4/tcp_wmem", Value::Fixed("4096\t16384\t4194304")),
    ("net/ipv4/tcp_tw_reuse", Value::Kept("2")),
    ("net/ipv6/auto_flowlabels", Value::Fixed("0")),
    ("net/ipv6/bindv6only", Value::Fixed("0")),
    ("net/ipv6/ip6frag_time", Value::Fixed("60")),
    ("net/ipv6/ip_nonlocal_bind", Value::Fixed("0")),
    // What the stack does, which can't be chosen.
    ("net/ipv4/tcp_abort_on_overflow", Value::Fixed("0")),
    ("net/ipv4/tcp_allowed_congestion_control", Value::Fixed("reno cubic")),
    ("net/ipv4/tcp_available_congestion_control", Value::Fixed("reno cubic")),
    ("net/ipv4/tcp_early_retrans", Value::Fixed("3")),
    ("net/ipv4/tcp_ecn_fallback", Value::Fixed("1")),
    ("net/ipv4/tcp_invalid_ratelimit", Value::Fixed("500")),
    ("net/ipv4/tcp_min_rtt_wlen", Value::Fixed("300")),
    ("net/ipv4/tcp_min_tso_segs", Value::Fixed("2")),
    ("net/ipv4/tcp_moderate_rcvbuf", Value::Fixed("1")),
    ("net/ipv4/tcp_mtu_probing", Value::Fixed("0")),
    ("net/ipv4/tcp_reordering", Value::Fixed("3")),
    ("net/ipv4/tcp_rto_min_us", Value::Fixed("200000")),
    ("net/ipv4/tcp_tso_rtt_log", Value::Fixed("9")),
    // Of connections that begin from here on.
    ("net/ipv4/tcp_ecn", Value::Number(|s| &s.namespaces.net.settings.tcp.ecn)),
    ("net/ipv4/tcp_syncookies", Value::Number(|s| &s.namespaces.net.settings.tcp.syncookies)),
    ("net/ipv4/tcp_max_syn_backlog", Value::Number(|s| &s.namespaces.net.settings.tcp.max_syn_backlog)),
    ("net/ipv4/tcp_sack", Value::Number(|s| &s.namespaces.net.settings.tcp.sack)),
    ("net/ipv4/tcp_dsack", Value::Number(|s| &s.namespaces.net.settings.tcp.dsack)),
    ("net/ipv4/tcp_timestamps", Value::Number(|s| &s.namespaces.net.settings.tcp.timestamps)),
    ("net/ipv4/tcp_window_scaling", Value::Number(|s| &s.namespaces.net.settings.tcp.window_scaling)),
    ("net/ipv4/tcp_frto", Value::Number(|s| &s.namespaces.net.settings.tcp.frto)),
    ("net/ipv4/tcp_recovery", Value::Number(|s| &s.namespaces.net.settings.tcp.recovery)),
    ("net/ipv4/tcp_pacing_ss_ratio", Value::Number(|s| &s.namespaces.net.settings.tcp.pacing_ss_ratio)),
    ("net/ipv4/tcp_pacing_ca_ratio", Value::Number(|s| &s.namespaces.net.settings.tcp.pacing_ca_ratio)),
    ("net/ipv4/tcp_slow_start_after_idle", Value::Number(|s| &s.namespaces.net.settings.tcp.slow_start_after_idle)),
    ("net/ipv4/tcp_syn_retries", Value::Number(|s| &s.namespaces.net.settings.tcp.syn_retries)),
    ("net/ipv4/tcp_synack_retries", Value::Number(|s| &s.namespaces.net.settings.tcp.synack_retries)),
    ("net/ipv4/tcp_retries2", Value::Number(|s| &s.namespaces.net.settings.tcp.retries2)),
    ("net/ipv4/tcp_fin_timeout", Value::Number(|s| &s.namespaces.net.settings.tcp.fin_timeout)),
    ("net/ipv4/tcp_keepalive_time", Value::Number(|s| &s.namespaces.net.settings.tcp.keepalive_time)),
    ("net/ipv4/tcp_keepalive_intvl", Value::Number(|s| &s.namespaces.net.settings.tcp.keepalive_intvl)),
    ("net/ipv4/tcp_keepalive_probes", Value::Number(|s| &s.namespaces.net.settings.tcp.keepalive_probes)),
];

/// Another name for that of all devices.
fn forwarding(scope: &Scope) -> String {
    scope.device_value(conf::FORWARDING).to_string()
}

fn set_forwarding(scope: &Scope, text: &str) -> Result<()> {
    scope.set_device(conf::FORWARDING, text)
}

fn ports(scope: &Scope) -> [&Setting; 2] {
    let settings = &scope.namespaces.net.settings;
    [&settings.first_local_port, &settings.last_local_port]
}

fn set_port_range(scope: &Scope, text: &str) -> Result<()> {
    match numbers(text)?[..] {
        [first, last] if first <= last => set_all(ports(scope), text),
        _ => Err(Errno::EINVAL),
    }
}

fn ping_groups(scope: &Scope) -> [&Setting; 2] {
    let settings = &scope.namespaces.net.settings;
    [&settings.first_ping_group, &settings.last_ping_group]
}

fn set_ping_groups(scope: &Scope, text: &str) -> Result<()> {
    match numbers(text)?[..] {
        // For nobody (`ipv4_ping_group_range`).
        [first, last] if first > last => set_all(ping_groups(scope), "1 0"),
        _ => set_all(ping_groups(scope), text),
    }
}
