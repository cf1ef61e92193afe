//! [`Counters`]: what a stack has received and sent, as /proc/net/snmp shows it (`struct ipstats_mib` and its like).

/// Counters of a stack since it was made. Names are those of RFC 1213 and its successors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Counters {
    pub ip_in_receives: u64,
    pub ip_in_addr_errors: u64,
    pub ip_in_delivers: u64,
    pub ip_out_requests: u64,
    pub ip_out_no_routes: u64,
    pub icmp_in_messages: u64,
    pub icmp_in_echos: u64,
    pub icmp_in_echo_replies: u64,
    pub icmp_in_unreachables: u64,
    pub icmp_out_messages: u64,
    pub udp_in_datagrams: u64,
    pub udp_no_ports: u64,
    pub udp_out_datagrams: u64,
    pub tcp_active_opens: u64,
    pub tcp_passive_opens: u64,
    pub tcp_in_segments: u64,
    pub tcp_out_segments: u64,
    pub tcp_out_resets: u64,
    pub tcp_retransmitted: u64,
    pub tcp_listen_overflows: u64,
    pub tcp_listen_drops: u64,
    pub tcp_cookies_sent: u64,
    pub tcp_cookies_received: u64,
    pub tcp_cookies_failed: u64,
}

/// Counts one more.
pub(crate) fn count(counter: &mut u64) {
    *counter = counter.wrapping_add(1);
}
