//! Sockets: families, types, options, addresses, message headers, ancillary data.
//!
//! Sources: socket(2), socket(7), unix(7), ip(7), tcp(7), `linux/{socket,un,in,in6,tcp}.h`, `asm-generic/socket.h`,
//! `include/linux/socket.h`.

consts! { "Address families (and protocol families), socket(2).", u16; AF_UNSPEC = 0, AF_UNIX = 1, AF_INET = 2,
AF_INET6 = 10,
AF_NETLINK = 16, AF_PACKET = 17, AF_ALG = 38, AF_VSOCK = 40, AF_XDP = 44, AF_MAX = 46 }
consts! { "Socket types, socket(2).", u32; SOCK_STREAM = 1, SOCK_DGRAM = 2, SOCK_RAW = 3, SOCK_RDM = 4,
SOCK_SEQPACKET = 5, SOCK_DCCP = 6,
SOCK_PACKET = 10, SOCK_TYPE_MASK = 0xf, SOCK_MAX = 11 }
consts! { "Flags or'ed to the socket type, socket(2).", u32; SOCK_NONBLOCK = 0o4000, SOCK_CLOEXEC = 0o2_000_000 }
consts! { "IP protocols, `linux/in.h`.", u32; IPPROTO_IP = 0, IPPROTO_ICMP = 1, IPPROTO_TCP = 6, IPPROTO_UDP = 17,
IPPROTO_IPV6 = 41,
IPPROTO_ICMPV6 = 58, IPPROTO_UDPLITE = 136, IPPROTO_RAW = 255, IPPROTO_MPTCP = 262 }
consts! { "shutdown(2) how.", u32; SHUT_RD = 0, SHUT_WR = 1, SHUT_RDWR = 2 }
consts! { "Largest backlog that listen(2) keeps (`net.core.somaxconn`).", u32; SOMAXCONN = 4096 }

flag_set! {
    /// `MSG_*` flags of send(2) and recv(2).
    MsgFlags: u32, "MSG_" {
        OOB = 1, PEEK = 2, DONTROUTE = 4, CTRUNC = 8, PROBE = 0x10, TRUNC = 0x20, DONTWAIT = 0x40, EOR = 0x80,
        WAITALL = 0x100,
        FIN = 0x200, SYN = 0x400, CONFIRM = 0x800, RST = 0x1000, ERRQUEUE = 0x2000, NOSIGNAL = 0x4000, MORE = 0x8000,
        WAITFORONE = 0x10000, BATCH = 0x40000, ZEROCOPY = 0x400_0000, FASTOPEN = 0x2000_0000,
        CMSG_CLOEXEC = 0x4000_0000,
        CMSG_COMPAT = 0x8000_0000,
    }
}

consts! { "Levels of setsockopt(2) and of control messages.", u32; SOL_SOCKET = 1, SOL_IP = 0, SOL_TCP = 6,
SOL_UDP = 17, SOL_IPV6 = 41,
SOL_ICMPV6 = 58, SOL_RAW = 255, SOL_PACKET = 263, SOL_NETLINK = 270 }
consts! { "Socket options of level SOL_SOCKET, socket(7).", u32; SO_DEBUG = 1, SO_REUSEADDR = 2, SO_TYPE = 3,
SO_ERROR = 4, SO_DONTROUTE = 5,
SO_BROADCAST = 6, SO_SNDBUF = 7, SO_RCVBUF = 8, SO_KEEPALIVE = 9, SO_OOBINLINE = 10, SO_NO_CHECK = 11,
SO_PRIORITY = 12, SO_LINGER = 13,
SO_BSDCOMPAT = 14, SO_REUSEPORT = 15, SO_PASSCRED = 16, SO_PEERCRED = 17, SO_RCVLOWAT = 18, SO_SNDLOWAT = 19,
SO_RCVTIMEO = 20,
SO_SNDTIMEO = 21, SO_BINDTODEVICE = 25, SO_ATTACH_FILTER = 26, SO_DETACH_FILTER = 27, SO_PEERNAME = 28,
SO_TIMESTAMP = 29,
SO_ACCEPTCONN = 30, SO_PEERSEC = 31, SO_SNDBUFFORCE = 32, SO_RCVBUFFORCE = 33, SO_PASSSEC = 34,
SO_TIMESTAMPNS = 35, SO_MARK = 36,
SO_TIMESTAMPING = 37, SO_PROTOCOL = 38, SO_DOMAIN = 39, SO_RXQ_OVFL = 40, SO_PEEK_OFF = 42, SO_NOFCS = 43,
SO_LOCK_FILTER = 44,
SO_SELECT_ERR_QUEUE = 45, SO_BUSY_POLL = 46, SO_MAX_PACING_RATE = 47, SO_BPF_EXTENSIONS = 48,
SO_INCOMING_CPU = 49, SO_ATTACH_BPF = 50,
SO_ATTACH_REUSEPORT_CBPF = 51, SO_ATTACH_REUSEPORT_EBPF = 52, SO_CNX_ADVICE = 53, SO_MEMINFO = 55,
SO_INCOMING_NAPI_ID = 56,
SO_COOKIE = 57, SO_PEERGROUPS = 59, SO_ZEROCOPY = 60, SO_TXTIME = 61, SO_BINDTOIFINDEX = 62,
SO_TIMESTAMP_NEW = 63, SO_TIMESTAMPNS_NEW = 64,
SO_TIMESTAMPING_NEW = 65, SO_RCVTIMEO_NEW = 66, SO_SNDTIMEO_NEW = 67, SO_DETACH_REUSEPORT_BPF = 68,
SO_PREFER_BUSY_POLL = 69,
SO_BUSY_POLL_BUDGET = 70, SO_NETNS_COOKIE = 71, SO_BUF_LOCK = 72, SO_RESERVE_MEM = 73, SO_TXREHASH = 74,
SO_RCVMARK = 75,
SO_PASSPIDFD = 76, SO_PEERPIDFD = 77 }
consts! { "Socket options of level IPPROTO_IP, ip(7).", u32; IP_TOS = 1, IP_TTL = 2, IP_HDRINCL = 3, IP_OPTIONS = 4,
IP_RECVOPTS = 6, IP_RETOPTS = 7,
IP_PKTINFO = 8, IP_MTU_DISCOVER = 10, IP_RECVERR = 11, IP_RECVTTL = 12, IP_RECVTOS = 13, IP_MTU = 14,
IP_FREEBIND = 15, IP_PASSSEC = 18,
IP_TRANSPARENT = 19, IP_ORIGDSTADDR = 20, IP_MINTTL = 21, IP_NODEFRAG = 22, IP_CHECKSUM = 23,
IP_BIND_ADDRESS_NO_PORT = 24, IP_RECVFRAGSIZE = 25,
IP_RECVERR_RFC4884 = 26, IP_MULTICAST_IF = 32, IP_MULTICAST_TTL = 33, IP_MULTICAST_LOOP = 34,
IP_ADD_MEMBERSHIP = 35, IP_DROP_MEMBERSHIP = 36,
IP_UNBLOCK_SOURCE = 37, IP_BLOCK_SOURCE = 38, IP_ADD_SOURCE_MEMBERSHIP = 39, IP_DROP_SOURCE_MEMBERSHIP = 40,
IP_MSFILTER = 41,
MCAST_JOIN_GROUP = 42, MCAST_BLOCK_SOURCE = 43, MCAST_UNBLOCK_SOURCE = 44, MCAST_LEAVE_GROUP = 45,
MCAST_JOIN_SOURCE_GROUP = 46, MCAST_LEAVE_SOURCE_GROUP = 47,
IP_MULTICAST_ALL = 49, IP_UNICAST_IF = 50, IP_LOCAL_PORT_RANGE = 51, IP_PROTOCOL = 52 }
consts! { "Socket options of level IPPROTO_IPV6, ipv6(7).", u32; IPV6_CHECKSUM = 7, IPV6_UNICAST_HOPS = 16, IPV6_MULTICAST_IF = 17,
IPV6_MULTICAST_HOPS = 18,
IPV6_MULTICAST_LOOP = 19, IPV6_ADD_MEMBERSHIP = 20, IPV6_DROP_MEMBERSHIP = 21, IPV6_MTU_DISCOVER = 23,
IPV6_MTU = 24, IPV6_RECVERR = 25,
IPV6_V6ONLY = 26, IPV6_MULTICAST_ALL = 29, IPV6_RECVERR_RFC4884 = 31, IPV6_RECVPKTINFO = 49, IPV6_PKTINFO = 50, IPV6_RECVHOPLIMIT = 51, IPV6_HOPLIMIT = 52,
IPV6_RECVPATHMTU = 60, IPV6_DONTFRAG = 62, IPV6_RECVTCLASS = 66, IPV6_TCLASS = 67, IPV6_AUTOFLOWLABEL = 70,
IPV6_ADDR_PREFERENCES = 72, IPV6_MINHOPCOUNT = 73, IPV6_RECVORIGDSTADDR = 74, IPV6_TRANSPARENT = 75,
IPV6_UNICAST_IF = 76, IPV6_FREEBIND = 78 }
consts! { "Options of raw sockets of ICMP: level SOL_RAW, raw(7), and level SOL_ICMPV6.", u32; ICMP_FILTER = 1,
ICMPV6_FILTER = 1 }
consts! { "Socket options of level IPPROTO_TCP, tcp(7).", u32; TCP_NODELAY = 1, TCP_MAXSEG = 2, TCP_CORK = 3,
TCP_KEEPIDLE = 4, TCP_KEEPINTVL = 5,
TCP_KEEPCNT = 6, TCP_SYNCNT = 7, TCP_LINGER2 = 8, TCP_DEFER_ACCEPT = 9, TCP_WINDOW_CLAMP = 10, TCP_INFO = 11,
TCP_QUICKACK = 12,
TCP_CONGESTION = 13, TCP_MD5SIG = 14, TCP_THIN_LINEAR_TIMEOUTS = 16, TCP_USER_TIMEOUT = 18, TCP_REPAIR = 19,
TCP_FASTOPEN = 23,
TCP_TIMESTAMP = 24, TCP_NOTSENT_LOWAT = 25, TCP_CC_INFO = 26, TCP_SAVE_SYN = 27, TCP_SAVED_SYN = 28,
TCP_FASTOPEN_CONNECT = 30, TCP_ULP = 31,
TCP_ZEROCOPY_RECEIVE = 35, TCP_INQ = 36, TCP_TX_DELAY = 37 }
consts! { "Socket options of level IPPROTO_UDP, udp(7).", u32; UDP_CORK = 1, UDP_ENCAP = 100, UDP_SEGMENT = 103,
UDP_GRO = 104 }
consts! { "States of a TCP socket, `tcpi_state`.", u8; TCP_ESTABLISHED = 1, TCP_SYN_SENT = 2, TCP_SYN_RECV = 3,
TCP_FIN_WAIT1 = 4, TCP_FIN_WAIT2 = 5,
TCP_TIME_WAIT = 6, TCP_CLOSE = 7, TCP_CLOSE_WAIT = 8, TCP_LAST_ACK = 9, TCP_LISTEN = 10, TCP_CLOSING = 11 }

consts! { "Control message types of SOL_SOCKET, unix(7).", u32; SCM_RIGHTS = 1, SCM_CREDENTIALS = 2, SCM_SECURITY = 3,
SCM_PIDFD = 4,
SCM_TIMESTAMP = SO_TIMESTAMP, SCM_TIMESTAMPNS = SO_TIMESTAMPNS }
/// Most descriptors in one SCM_RIGHTS message.
pub const SCM_MAX_FD: usize = 253;

/// Bytes of the largest socket address (`struct sockaddr_storage`).
pub const SOCKADDR_STORAGE_SIZE: usize = 128;
/// Bytes of `sun_path`.
pub const UNIX_PATH_MAX: usize = 108;

guest_struct! {
    /// `struct sockaddr_un`, unix(7). The length that goes with it says how much of the path counts.
    SockaddrUn: 110 { sun_family: u16, sun_path: [u8; UNIX_PATH_MAX] }
}
guest_struct! {
    /// `struct sockaddr_in`, ip(7); port and address are big-endian.
    SockaddrIn: 16 { sin_family: u16, sin_port: [u8; 2], sin_addr: [u8; 4], sin_zero: [u8; 8] }
}
guest_struct! {
    /// `struct sockaddr_in6`, ipv6(7); port, flow label and address are big-endian, the scope id is not.
    SockaddrIn6: 28 { sin6_family: u16, sin6_port: [u8; 2], sin6_flowinfo: [u8; 4], sin6_addr: [u8; 16],
        sin6_scope_id: u32 }
}
/// Shortest `sockaddr_in6` that Linux takes: without the scope id (`SIN6_LEN_RFC2133`).
pub const SIN6_LEN_RFC2133: usize = 24;
guest_struct! {
    /// `struct sockaddr_nl`, netlink(7).
    SockaddrNl: 12 { nl_family: u16, pad: u16, nl_pid: u32, nl_groups: u32 }
}
guest_struct! {
    /// `struct sockaddr_ll`, packet(7).
    SockaddrLl: 20 { sll_family: u16, sll_protocol: [u8; 2], sll_ifindex: i32, sll_hatype: u16, sll_pkttype: u8,
        sll_halen: u8, sll_addr: [u8; 8] }
}

impl SockaddrIn {
    /// The port in the host's byte order.
    #[must_use]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.sin_port)
    }
}

impl SockaddrIn6 {
    /// The port in the host's byte order.
    #[must_use]
    pub const fn port(&self) -> u16 {
        u16::from_be_bytes(self.sin6_port)
    }
}

guest_struct! {
    /// `struct msghdr` of the kernel (`user_msghdr`), recvmsg(2).
    Msghdr: 56 { msg_name: u64, msg_namelen: i32, pad0: u32, msg_iov: u64, msg_iovlen: u64, msg_control: u64,
        msg_controllen: u64, msg_flags: u32, pad1: u32 }
}
guest_struct! {
    /// `struct mmsghdr`, recvmmsg(2).
    Mmsghdr: 64 { msg_hdr: Msghdr, msg_len: u32, pad: u32 }
}
guest_struct! {
    /// `struct cmsghdr`, cmsg(3); the data follows, and the next header is 8-byte aligned.
    Cmsghdr: 16 { cmsg_len: u64, cmsg_level: u32, cmsg_type: u32 }
}
/// Bytes from one control message to the next for `len` bytes of it (`CMSG_ALIGN`); saturates.
#[must_use]
pub const fn cmsg_align(len: usize) -> usize {
    len.saturating_add(7) & !7
}

guest_struct! {
    /// `struct ucred`, SCM_CREDENTIALS and SO_PEERCRED.
    Ucred: 12 { pid: i32, uid: u32, gid: u32 }
}
guest_struct! {
    /// `struct linger`, SO_LINGER.
    Linger: 8 { l_onoff: i32, l_linger: i32 }
}
guest_struct! {
    /// `struct ip_mreq`, IP_ADD_MEMBERSHIP.
    IpMreq: 8 { imr_multiaddr: [u8; 4], imr_interface: [u8; 4] }
}
guest_struct! {
    /// `struct ip_mreqn`, IP_ADD_MEMBERSHIP.
    IpMreqn: 12 { imr_multiaddr: [u8; 4], imr_address: [u8; 4], imr_ifindex: i32 }
}
guest_struct! {
    /// `struct ipv6_mreq`, IPV6_ADD_MEMBERSHIP.
    Ipv6Mreq: 20 { ipv6mr_multiaddr: [u8; 16], ipv6mr_ifindex: i32 }
}
guest_struct! {
    /// `struct in_pktinfo`, IP_PKTINFO.
    InPktinfo: 12 { ipi_ifindex: i32, ipi_spec_dst: [u8; 4], ipi_addr: [u8; 4] }
}
guest_struct! {
    /// `struct in6_pktinfo`, IPV6_PKTINFO.
    In6Pktinfo: 20 { ipi6_addr: [u8; 16], ipi6_ifindex: i32 }
}
guest_struct! {
    /// `struct tcp_info` up to `tcpi_rehash` (the length of Linux 6.2; 6.1 ends before `tcpi_rcv_wnd`); getsockopt(2)
    /// cuts it to what the caller has room for.
    TcpInfo: 240 {
        tcpi_state: u8, tcpi_ca_state: u8, tcpi_retransmits: u8, tcpi_probes: u8, tcpi_backoff: u8, tcpi_options: u8,
        tcpi_wscale: u8,
        tcpi_delivery_rate_app_limited: u8, tcpi_rto: u32, tcpi_ato: u32, tcpi_snd_mss: u32, tcpi_rcv_mss: u32,
        tcpi_unacked: u32,
        tcpi_sacked: u32, tcpi_lost: u32, tcpi_retrans: u32, tcpi_fackets: u32, tcpi_last_data_sent: u32,
        tcpi_last_ack_sent: u32,
        tcpi_last_data_recv: u32, tcpi_last_ack_recv: u32, tcpi_pmtu: u32, tcpi_rcv_ssthresh: u32, tcpi_rtt: u32,
        tcpi_rttvar: u32,
        tcpi_snd_ssthresh: u32, tcpi_snd_cwnd: u32, tcpi_advmss: u32, tcpi_reordering: u32, tcpi_rcv_rtt: u32,
        tcpi_rcv_space: u32,
        tcpi_total_retrans: u32, tcpi_pacing_rate: u64, tcpi_max_pacing_rate: u64, tcpi_bytes_acked: u64,
        tcpi_bytes_received: u64,
        tcpi_segs_out: u32, tcpi_segs_in: u32, tcpi_notsent_bytes: u32, tcpi_min_rtt: u32, tcpi_data_segs_in: u32,
        tcpi_data_segs_out: u32,
        tcpi_delivery_rate: u64, tcpi_busy_time: u64, tcpi_rwnd_limited: u64, tcpi_sndbuf_limited: u64,
        tcpi_delivered: u32,
        tcpi_delivered_ce: u32, tcpi_bytes_sent: u64, tcpi_bytes_retrans: u64, tcpi_dsack_dups: u32,
        tcpi_reord_seen: u32,
        tcpi_rcv_ooopack: u32, tcpi_snd_wnd: u32, tcpi_rcv_wnd: u32, tcpi_rehash: u32,
    }
}

consts! { "Network device ioctls, netdevice(7).", u32; SIOCGIFNAME = 0x8910, SIOCGIFCONF = 0x8912,
SIOCADDRT = 0x890b, SIOCDELRT = 0x890c,
SIOCGIFFLAGS = 0x8913, SIOCSIFFLAGS = 0x8914,
SIOCGIFADDR = 0x8915, SIOCSIFADDR = 0x8916, SIOCGIFDSTADDR = 0x8917, SIOCGIFBRDADDR = 0x8919, SIOCSIFBRDADDR = 0x891a,
SIOCSIFNETMASK = 0x891c,
SIOCGIFNETMASK = 0x891b, SIOCGIFMETRIC = 0x891d,
SIOCGIFMTU = 0x8921, SIOCSIFMTU = 0x8922, SIOCGIFHWADDR = 0x8927, SIOCGIFINDEX = 0x8933, SIOCGIFTXQLEN = 0x8942, SIOCSIFTXQLEN = 0x8943, SIOCGIFMAP = 0x8970,
SIOCETHTOOL = 0x8946 }
consts! { "Socket ioctls, socket(7) and unix(7).", u32; FIOSETOWN = 0x8901, SIOCSPGRP = 0x8902, FIOGETOWN = 0x8903,
SIOCGPGRP = 0x8904,
SIOCATMARK = 0x8905, SIOCGSTAMP = 0x8906, SIOCGSTAMPNS = 0x8907, SIOCINQ = 0x541b, SIOCOUTQ = 0x5411, SIOCUNIXFILE = 0x89e0 }
/// Bytes of an interface name with its NUL.
pub const IFNAMSIZ: usize = 16;
guest_struct! {
    /// `struct ifreq`, netdevice(7).
    Ifreq: 40 { ifr_name: [u8; IFNAMSIZ], ifr_data: [u8; 24] }
}
consts! { "Who says what is wrong, `ee_origin`.", u8; SO_EE_ORIGIN_LOCAL = 1, SO_EE_ORIGIN_ICMP = 2, SO_EE_ORIGIN_ICMP6 = 3 }
guest_struct! {
    /// `struct sock_extended_err`, which the offender's address follows.
    SockExtendedErr: 16 { ee_errno: u32, ee_origin: u8, ee_type: u8, ee_code: u8, ee_pad: u8, ee_info: u32, ee_data: u32 }
}
consts! { "Options of level SOL_PACKET, packet(7).", u32; PACKET_ADD_MEMBERSHIP = 1, PACKET_DROP_MEMBERSHIP = 2,
PACKET_RX_RING = 5, PACKET_STATISTICS = 6, PACKET_AUXDATA = 8, PACKET_VERSION = 10, PACKET_HDRLEN = 11, PACKET_RESERVE = 12,
PACKET_TX_RING = 13, PACKET_TIMESTAMP = 17, PACKET_FANOUT = 18, PACKET_IGNORE_OUTGOING = 23 }
consts! { "Kinds of packets, `sll_pkttype`.", u8; PACKET_HOST = 0, PACKET_BROADCAST = 1, PACKET_MULTICAST = 2,
PACKET_OTHERHOST = 3, PACKET_OUTGOING = 4 }
consts! { "Ethernet protocols, packet(7).", u16; ETH_P_ALL = 3 }
consts! { "Frame states of a ring, `linux/if_packet.h`.", u32; TP_STATUS_KERNEL = 0, TP_STATUS_USER = 1, TP_STATUS_COPY = 2,
TP_STATUS_LOSING = 4, TP_STATUS_CSUMNOTREADY = 8 }
consts! { "Versions of rings.", u32; TPACKET_V1 = 0, TPACKET_V2 = 1, TPACKET_V3 = 2 }
guest_struct! {
    /// `struct tpacket2_hdr`: what is before a frame in a ring.
    Tpacket2Hdr: 32 { tp_status: u32, tp_len: u32, tp_snaplen: u32, tp_mac: u16, tp_net: u16, tp_sec: u32, tp_nsec: u32,
        tp_vlan_tci: u16, tp_vlan_tpid: u16, tp_padding: [u8; 4] }
}
guest_struct! {
    /// `struct tpacket_req`: the shape of a ring.
    TpacketReq: 16 { tp_block_size: u32, tp_block_nr: u32, tp_frame_size: u32, tp_frame_nr: u32 }
}
guest_struct! {
    /// `struct tpacket_stats`.
    TpacketStats: 8 { tp_packets: u32, tp_drops: u32 }
}
guest_struct! {
    /// `struct tpacket_auxdata`.
    TpacketAuxdata: 20 { tp_status: u32, tp_len: u32, tp_snaplen: u32, tp_mac: u16, tp_net: u16, tp_vlan_tci: u16,
        tp_vlan_tpid: u16 }
}
guest_struct! {
    /// `struct rtentry`: a route, for SIOCADDRT and SIOCDELRT.
    Rtentry: 120 { rt_pad1: u64, rt_dst: SockaddrIn, rt_gateway: SockaddrIn, rt_genmask: SockaddrIn, rt_flags: u16,
        rt_pad2: u16, rt_pad3: u32, rt_pad4: [u64; 2], rt_metric: i16, rt_pad5: [u16; 3], rt_dev: u64, rt_mtu: u64,
        rt_window: u64, rt_irtt: u16, rt_pad6: [u16; 3] }
}
guest_struct! {
    /// `struct ifconf`, SIOCGIFCONF.
    Ifconf: 16 { ifc_len: i32, pad: u32, ifc_buf: u64 }
}
consts! { "Interface flags, netdevice(7).", u32; IFF_UP = 1, IFF_BROADCAST = 2, IFF_LOOPBACK = 8,
IFF_POINTOPOINT = 16, IFF_RUNNING = 0x40,
IFF_NOARP = 0x80, IFF_PROMISC = 0x100, IFF_MULTICAST = 0x1000, IFF_LOWER_UP = 0x1_0000 }
