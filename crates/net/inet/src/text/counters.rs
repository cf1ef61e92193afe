//! /proc/net/{snmp,netstat,sockstat,sockstat6,protocols}, proc_pid_net(5).
//!
//! What goes between the namespace's own addresses is no packets, and counted nowhere.

use std::fmt::Write;

use moat_abi::socket::{
    AF_INET, AF_INET6, IPPROTO_RAW, IPPROTO_TCP, IPPROTO_UDP, TCP_CLOSE_WAIT, TCP_ESTABLISHED, TCP_TIME_WAIT,
};
use moat_identity::NetNamespace;

use crate::inspect::SocketInfo;
use crate::listing::list;
use crate::stack::stack_of;

/// A protocol's two lines: names, and values. What is not counted is 0.
fn lines(out: &mut String, protocol: &str, names: &str, values: &[(&str, u64)]) {
    let value = |name: &str| values.iter().find(|(n, _)| *n == name).map_or(0, |(_, v)| *v);
    let numbers: Vec<String> = names.split(' ').map(|name| value(name).to_string()).collect();
    // Writing to a string can't fail.
    let _ = writeln!(out, "{protocol}: {names}\n{protocol}: {}", numbers.join(" "));
}

fn count(sockets: &[SocketInfo], family: u16) -> u64 {
    u64::try_from(sockets.iter().filter(|s| s.family == family).count()).unwrap_or(u64::MAX)
}

pub(crate) fn snmp(net: &NetNamespace) -> Vec<u8> {
    let c = stack_of(net).map(|s| s.change(|s| s.totals())).unwrap_or_default();
    let connections = list(net, IPPROTO_TCP);
    let established = connections.iter().filter(|s| s.state == TCP_ESTABLISHED || s.state == TCP_CLOSE_WAIT).count();
    let mut out = String::new();
    lines(
        &mut out,
        "Ip",
        "Forwarding DefaultTTL InReceives InHdrErrors InAddrErrors ForwDatagrams InUnknownProtos InDiscards InDelivers \
         OutRequests OutDiscards OutNoRoutes ReasmTimeout ReasmReqds ReasmOKs ReasmFails FragOKs FragFails FragCreates \
         OutTransmits",
        &[
            // 2: no.
            ("Forwarding", 2),
            ("DefaultTTL", 64),
            ("InReceives", c.ip_in_receives),
            ("InAddrErrors", c.ip_in_addr_errors),
            ("InDelivers", c.ip_in_delivers),
            ("OutRequests", c.ip_out_requests),
            ("OutNoRoutes", c.ip_out_no_routes),
            ("OutTransmits", c.ip_out_requests),
        ],
    );
    lines(
        &mut out,
        "Icmp",
        "InMsgs InErrors InCsumErrors InDestUnreachs InTimeExcds InParmProbs InSrcQuenchs InRedirects InEchos InEchoReps \
         InTimestamps InTimestampReps InAddrMasks InAddrMaskReps OutMsgs OutErrors OutRateLimitGlobal OutRateLimitHost \
         OutDestUnreachs OutTimeExcds OutParmProbs OutSrcQuenchs OutRedirects OutEchos OutEchoReps OutTimestamps \
         OutTimestampReps OutAddrMasks OutAddrMaskReps",
        &[
            ("InMsgs", c.icmp_in_messages),
            ("InDestUnreachs", c.icmp_in_unreachables),
            ("InEchos", c.icmp_in_echos),
            ("InEchoReps", c.icmp_in_echo_replies),
            ("OutMsgs", c.icmp_out_messages),
        ],
    );
    // MaxConn is -1: it varies.
    let _ = writeln!(
        out,
        "Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs \
         RetransSegs InErrs OutRsts InCsumErrors\nTcp: 1 200 120000 -1 {} {} 0 0 {established} {} {} {} 0 {} 0",
        c.tcp_active_opens,
        c.tcp_passive_opens,
        c.tcp_in_segments,
        c.tcp_out_segments,
        c.tcp_retransmitted,
        c.tcp_out_resets
    );
    const UDP: &str =
        "InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors";
    let udp = [("InDatagrams", c.udp_in_datagrams), ("NoPorts", c.udp_no_ports), ("OutDatagrams", c.udp_out_datagrams)];
    lines(&mut out, "Udp", UDP, &udp);
    lines(&mut out, "UdpLite", UDP, &[]);
    out.into_bytes()
}

/// The names of the counters of TCP (`snmp4_net_list`).
const TCP_EXT: &str = "SyncookiesSent SyncookiesRecv SyncookiesFailed EmbryonicRsts PruneCalled RcvPruned OfoPruned OutOfWindowIcmps \
     LockDroppedIcmps ArpFilter TW TWRecycled TWKilled PAWSActive PAWSEstab BeyondWindow TSEcrRejected PAWSOldAck \
     PAWSTimewait DelayedACKs DelayedACKLocked DelayedACKLost ListenOverflows ListenDrops TCPHPHits TCPPureAcks \
     TCPHPAcks TCPRenoRecovery TCPSackRecovery TCPSACKReneging TCPSACKReorder TCPRenoReorder TCPTSReorder TCPFullUndo \
     TCPPartialUndo TCPDSACKUndo TCPLossUndo TCPLostRetransmit TCPRenoFailures TCPSackFailures TCPLossFailures \
     TCPFastRetrans TCPSlowStartRetrans TCPTimeouts TCPLossProbes TCPLossProbeRecovery TCPRenoRecoveryFail \
     TCPSackRecoveryFail TCPRcvCollapsed TCPBacklogCoalesce TCPDSACKOldSent TCPDSACKOfoSent TCPDSACKRecv TCPDSACKOfoRecv \
     TCPAbortOnData TCPAbortOnClose TCPAbortOnMemory TCPAbortOnTimeout TCPAbortOnLinger TCPAbortFailed \
     TCPMemoryPressures TCPMemoryPressuresChrono TCPSACKDiscard TCPDSACKIgnoredOld TCPDSACKIgnoredNoUndo TCPSpuriousRTOs \
     TCPMD5NotFound TCPMD5Unexpected TCPMD5Failure TCPSackShifted TCPSackMerged TCPSackShiftFallback TCPBacklogDrop \
     PFMemallocDrop TCPMinTTLDrop TCPDeferAcceptDrop IPReversePathFilter TCPTimeWaitOverflow TCPReqQFullDoCookies \
     TCPReqQFullDrop TCPRetransFail TCPRcvCoalesce TCPOFOQueue TCPOFODrop TCPOFOMerge TCPChallengeACK TCPSYNChallenge \
     TCPFastOpenActive TCPFastOpenActiveFail TCPFastOpenPassive TCPFastOpenPassiveFail TCPFastOpenListenOverflow \
     TCPFastOpenCookieReqd TCPFastOpenBlackhole TCPSpuriousRtxHostQueues BusyPollRxPackets TCPAutoCorking \
     TCPFromZeroWindowAdv TCPToZeroWindowAdv TCPWantZeroWindowAdv TCPSynRetrans TCPOrigDataSent TCPHystartTrainDetect \
     TCPHystartTrainCwnd TCPHystartDelayDetect TCPHystartDelayCwnd TCPACKSkippedSynRecv TCPACKSkippedPAWS \
     TCPACKSkippedSeq TCPACKSkippedFinWait2 TCPACKSkippedTimeWait TCPACKSkippedChallenge TCPWinProbe TCPKeepAlive \
     TCPMTUPFail TCPMTUPSuccess TCPDelivered TCPDeliveredCE TCPAckCompressed TCPZeroWindowDrop TCPRcvQDrop \
     TCPWqueueTooBig TCPFastOpenPassiveAltKey TcpTimeoutRehash TcpDuplicateDataRehash TCPDSACKRecvSegs \
     TCPDSACKIgnoredDubious TCPMigrateReqSuccess TCPMigrateReqFailure TCPPLBRehash TCPAORequired TCPAOBad \
     TCPAOKeyNotFound TCPAOGood TCPAODroppedIcmps";

pub(crate) fn netstat(net: &NetNamespace) -> Vec<u8> {
    let c = stack_of(net).map(|s| s.change(|s| (s.totals(), s.link_totals()))).unwrap_or_default();
    let mut out = String::new();
    lines(
        &mut out,
        "TcpExt",
        TCP_EXT,
        &[
            ("SyncookiesSent", c.0.tcp_cookies_sent),
            ("SyncookiesRecv", c.0.tcp_cookies_received),
            ("SyncookiesFailed", c.0.tcp_cookies_failed),
            ("ListenOverflows", c.0.tcp_listen_overflows),
            ("ListenDrops", c.0.tcp_listen_drops),
            ("TCPFastRetrans", c.0.tcp_retransmitted),
        ],
    );
    lines(
        &mut out,
        "IpExt",
        "InNoRoutes InTruncatedPkts InMcastPkts OutMcastPkts InBcastPkts OutBcastPkts InOctets OutOctets",
        &[("InMcastPkts", c.1.multicast), ("InOctets", c.1.received_bytes), ("OutOctets", c.1.sent_bytes)],
    );
    out.into_bytes()
}

pub(crate) fn sockstat(net: &NetNamespace) -> Vec<u8> {
    let (tcp, udp, raw) = (list(net, IPPROTO_TCP), list(net, IPPROTO_UDP), list(net, IPPROTO_RAW));
    let waiting = tcp.iter().filter(|s| s.state == TCP_TIME_WAIT).count();
    format!(
        "sockets: used {}\nTCP: inuse {} orphan 0 tw {waiting} alloc {} mem 0\nUDP: inuse {} mem 0\nUDPLITE: inuse 0\n\
         RAW: inuse {}\nFRAG: inuse 0 memory 0\n",
        tcp.len().saturating_add(udp.len()).saturating_add(raw.len()),
        count(&tcp, AF_INET),
        tcp.len(),
        count(&udp, AF_INET),
        count(&raw, AF_INET)
    )
    .into_bytes()
}

pub(crate) fn sockstat6(net: &NetNamespace) -> Vec<u8> {
    let of = |protocol| count(&list(net, protocol), AF_INET6);
    format!(
        "TCP6: inuse {}\nUDP6: inuse {}\nUDPLITE6: inuse 0\nRAW6: inuse {}\nFRAG6: inuse 0 memory 0\n",
        of(IPPROTO_TCP),
        of(IPPROTO_UDP),
        of(IPPROTO_RAW)
    )
    .into_bytes()
}

/// The protocols of AF_INET and AF_INET6, with their sockets and what these can do: close, connect, disconnect, accept, ioctl, init,
/// destroy, shutdown, setsockopt, getsockopt, sendpage, bind, backlog, hash, unhash, get_port, enter_pressure.
pub(crate) fn protocols(net: &NetNamespace) -> Vec<u8> {
    let mut out = String::from(
        "protocol  size sockets  memory press maxhdr  slab module     cl co di ac io in de sh ss gs se re bi br ha uh gp em\n",
    );
    let stream = "y  y  y  y  y  y  y  y  y  y  n  n  n  y  y  y  y  y";
    let other = "y  y  y  n  y  y  y  n  y  y  n  n  y  n  y  y  y  n";
    for (name, family, protocol, memory, able) in [
        ("RAWv6", AF_INET6, IPPROTO_RAW, -1, other),
        ("UDPv6", AF_INET6, IPPROTO_UDP, 0, other),
        ("TCPv6", AF_INET6, IPPROTO_TCP, 0, stream),
        ("RAW", AF_INET, IPPROTO_RAW, -1, other),
        ("UDP", AF_INET, IPPROTO_UDP, 0, other),
        ("TCP", AF_INET, IPPROTO_TCP, 0, stream),
    ] {
        let sockets = count(&list(net, protocol), family);
        let _ = writeln!(out, "{name:<9} {:>4} {sockets:>6}  {memory:>6}   NI  {:>5}   no   kernel      {able}", 0, 0);
    }
    out.into_bytes()
}
