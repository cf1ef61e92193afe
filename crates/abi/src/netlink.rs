//! Netlink messages and the part of rtnetlink that lists links, addresses and routes.
//!
//! Sources: netlink(7), rtnetlink(7), `linux/{netlink,rtnetlink,if_link,if_addr,if_arp}.h`.

consts! { "Netlink protocols, netlink(7).", u32; NETLINK_ROUTE = 0, NETLINK_USERSOCK = 2, NETLINK_SOCK_DIAG = 4,
NETLINK_AUDIT = 9, NETLINK_NETFILTER = 12,
NETLINK_KOBJECT_UEVENT = 15, NETLINK_GENERIC = 16 }
consts! { "Control messages, netlink(7).", u16; NLMSG_NOOP = 1, NLMSG_ERROR = 2, NLMSG_DONE = 3, NLMSG_OVERRUN = 4,
NLMSG_MIN_TYPE = 16 }
consts! { "`nlmsg_flags`, netlink(7).", u16; NLM_F_REQUEST = 1, NLM_F_MULTI = 2, NLM_F_ACK = 4, NLM_F_ECHO = 8,
NLM_F_DUMP_INTR = 16, NLM_F_ROOT = 0x100,
NLM_F_MATCH = 0x200, NLM_F_ATOMIC = 0x400, NLM_F_DUMP = 0x300, NLM_F_REPLACE = 0x100, NLM_F_EXCL = 0x200,
NLM_F_CREATE = 0x400, NLM_F_APPEND = 0x800,
NLM_F_CAPPED = 0x100 }
consts! { "Options of level SOL_NETLINK, netlink(7).", u32; NETLINK_ADD_MEMBERSHIP = 1, NETLINK_DROP_MEMBERSHIP = 2,
NETLINK_PKTINFO = 3,
NETLINK_BROADCAST_ERROR = 4, NETLINK_NO_ENOBUFS = 5, NETLINK_LISTEN_ALL_NSID = 8, NETLINK_LIST_MEMBERSHIPS = 9,
NETLINK_CAP_ACK = 10,
NETLINK_EXT_ACK = 11, NETLINK_GET_STRICT_CHK = 12 }
consts! { "Message types of rtnetlink(7).", u16; RTM_NEWLINK = 16, RTM_DELLINK = 17, RTM_GETLINK = 18,
RTM_SETLINK = 19, RTM_NEWADDR = 20, RTM_DELADDR = 21,
RTM_GETADDR = 22, RTM_NEWROUTE = 24, RTM_DELROUTE = 25, RTM_GETROUTE = 26, RTM_NEWNEIGH = 28, RTM_DELNEIGH = 29,
RTM_GETNEIGH = 30, RTM_NEWRULE = 32,
RTM_DELRULE = 33, RTM_GETRULE = 34, RTM_NEWQDISC = 36, RTM_GETQDISC = 38, RTM_GETNEIGHTBL = 66, RTM_GETADDRLABEL = 74,
RTM_GETNETCONF = 82, RTM_GETNSID = 90, RTM_GETSTATS = 94, RTM_GETNEXTHOP = 106 }
consts! { "Attributes of links, rtnetlink(7).", u16; IFLA_UNSPEC = 0, IFLA_ADDRESS = 1, IFLA_BROADCAST = 2,
IFLA_IFNAME = 3, IFLA_MTU = 4, IFLA_LINK = 5,
IFLA_QDISC = 6, IFLA_STATS = 7, IFLA_MASTER = 10, IFLA_TXQLEN = 13, IFLA_OPERSTATE = 16, IFLA_LINKMODE = 17,
IFLA_LINKINFO = 18, IFLA_NET_NS_PID = 19, IFLA_STATS64 = 23,
IFLA_AF_SPEC = 26, IFLA_GROUP = 27, IFLA_NET_NS_FD = 28, IFLA_EXT_MASK = 29, IFLA_NUM_TX_QUEUES = 31, IFLA_NUM_RX_QUEUES = 32,
IFLA_CARRIER = 33 }
consts! { "Attributes in IFLA_LINKINFO.", u16; IFLA_INFO_KIND = 1, IFLA_INFO_DATA = 2 }
consts! { "Multicast groups of rtnetlink(7), by number.", u32; RTNLGRP_LINK = 1, RTNLGRP_NEIGH = 3, RTNLGRP_IPV4_IFADDR = 5,
RTNLGRP_IPV4_ROUTE = 7, RTNLGRP_IPV6_IFADDR = 9, RTNLGRP_IPV6_ROUTE = 11 }
consts! { "Attributes of rules, `linux/fib_rules.h`.", u16; FRA_PRIORITY = 6, FRA_SUPPRESS_PREFIXLEN = 14, FRA_TABLE = 15,
FRA_PROTOCOL = 21 }
consts! { "Actions of rules.", u8; FR_ACT_TO_TBL = 1 }
consts! { "Attributes of queueing disciplines.", u16; TCA_KIND = 1 }
consts! { "The parent of a device's own discipline.", u32; TC_H_ROOT = 0xffff_ffff }
consts! { "Flags of routes, `rtm_flags`.", u32; RTM_F_CLONED = 0x200 }
consts! { "Flags of next hops, `rtm_flags`.", u32; RTNH_F_ONLINK = 4 }
consts! { "Message types of sock_diag(7).", u16; SOCK_DIAG_BY_FAMILY = 20, SOCK_DESTROY = 21 }
consts! { "Attributes and their bits (shifted by one) in `idiag_ext`, `linux/inet_diag.h`.", u16; INET_DIAG_MEMINFO = 1,
INET_DIAG_INFO = 2, INET_DIAG_CONG = 4, INET_DIAG_SKMEMINFO = 7, INET_DIAG_SHUTDOWN = 8 }
consts! { "Attributes of UNIX sockets, `linux/unix_diag.h`.", u16; UNIX_DIAG_NAME = 0, UNIX_DIAG_PEER = 2, UNIX_DIAG_RQLEN = 4,
UNIX_DIAG_SHUTDOWN = 6, UNIX_DIAG_UID = 7 }
consts! { "What is to be shown of UNIX sockets, `udiag_show`.", u32; UDIAG_SHOW_NAME = 1, UDIAG_SHOW_PEER = 4,
UDIAG_SHOW_RQLEN = 0x10, UDIAG_SHOW_UID = 0x40 }
consts! { "Attributes of addresses, rtnetlink(7).", u16; IFA_UNSPEC = 0, IFA_ADDRESS = 1, IFA_LOCAL = 2,
IFA_LABEL = 3, IFA_BROADCAST = 4, IFA_ANYCAST = 5,
IFA_CACHEINFO = 6, IFA_MULTICAST = 7, IFA_FLAGS = 8 }
consts! { "Flags of addresses, rtnetlink(7).", u32; IFA_F_SECONDARY = 1, IFA_F_NODAD = 2, IFA_F_TENTATIVE = 0x40,
IFA_F_PERMANENT = 0x80 }
consts! { "Attributes of neighbours, rtnetlink(7).", u16; NDA_DST = 1, NDA_LLADDR = 2 }
consts! { "Attributes of routes, rtnetlink(7).", u16; RTA_UNSPEC = 0, RTA_DST = 1, RTA_SRC = 2, RTA_IIF = 3,
RTA_OIF = 4, RTA_GATEWAY = 5, RTA_PRIORITY = 6,
RTA_PREFSRC = 7, RTA_METRICS = 8, RTA_MULTIPATH = 9, RTA_TABLE = 15, RTA_VIA = 18, RTA_ENCAP = 22 }
consts! { "Fields of `struct rtmsg`, rtnetlink(7).", u8; RT_TABLE_UNSPEC = 0, RT_TABLE_COMPAT = 252, RT_TABLE_DEFAULT = 253,
RT_TABLE_MAIN = 254, RT_TABLE_LOCAL = 255,
RTPROT_UNSPEC = 0, RTPROT_KERNEL = 2, RTPROT_BOOT = 3, RTPROT_STATIC = 4, RT_SCOPE_UNIVERSE = 0,
RT_SCOPE_LINK = 253, RT_SCOPE_HOST = 254,
RTN_UNSPEC = 0, RTN_UNICAST = 1, RTN_LOCAL = 2, RTN_BROADCAST = 3, RTN_MULTICAST = 5, RTN_BLACKHOLE = 6, RTN_UNREACHABLE = 7,
RTN_PROHIBIT = 8 }
consts! { "Hardware types, `ifi_type`.", u16; ARPHRD_ETHER = 1, ARPHRD_LOOPBACK = 772, ARPHRD_NONE = 0xfffe }
consts! { "Values of IFLA_OPERSTATE.", u8; IF_OPER_UNKNOWN = 0, IF_OPER_DOWN = 2, IF_OPER_UP = 6 }

guest_struct! {
    /// `struct nlmsghdr`; messages start at multiples of 4 bytes.
    Nlmsghdr: 16 { nlmsg_len: u32, nlmsg_type: u16, nlmsg_flags: u16, nlmsg_seq: u32, nlmsg_pid: u32 }
}
guest_struct! {
    /// `struct nlmsgerr`: the body of NLMSG_ERROR; `error` is a negative errno, or 0 for an acknowledgement.
    Nlmsgerr: 20 { error: i32, msg: Nlmsghdr }
}
guest_struct! {
    /// `struct rtattr` (`struct nlattr`); the value follows, and the next starts at a multiple of 4 bytes.
    Rtattr: 4 { rta_len: u16, rta_type: u16 }
}
guest_struct! {
    /// `struct rtgenmsg`: the least body of a dump request.
    Rtgenmsg: 1 { rtgen_family: u8 }
}
guest_struct! {
    /// `struct ifinfomsg`.
    Ifinfomsg: 16 { ifi_family: u8, pad: u8, ifi_type: u16, ifi_index: i32, ifi_flags: u32, ifi_change: u32 }
}
guest_struct! {
    /// `struct ifaddrmsg`.
    Ifaddrmsg: 8 { ifa_family: u8, ifa_prefixlen: u8, ifa_flags: u8, ifa_scope: u8, ifa_index: u32 }
}
guest_struct! {
    /// `struct rtmsg`.
    Rtmsg: 12 { rtm_family: u8, rtm_dst_len: u8, rtm_src_len: u8, rtm_tos: u8, rtm_table: u8, rtm_protocol: u8,
        rtm_scope: u8, rtm_type: u8, rtm_flags: u32 }
}
guest_struct! {
    /// `struct ndmsg`.
    Ndmsg: 12 { ndm_family: u8, ndm_pad1: u8, ndm_pad2: u16, ndm_ifindex: i32, ndm_state: u16, ndm_flags: u8, ndm_type: u8 }
}

guest_struct! {
    /// `struct fib_rule_hdr`.
    FibRuleHdr: 12 { family: u8, dst_len: u8, src_len: u8, tos: u8, table: u8, res1: u8, res2: u8, action: u8, flags: u32 }
}
guest_struct! {
    /// `struct tcmsg`.
    Tcmsg: 20 { tcm_family: u8, tcm_pad1: u8, tcm_pad2: u16, tcm_ifindex: i32, tcm_handle: u32, tcm_parent: u32,
        tcm_info: u32 }
}
guest_struct! {
    /// `struct inet_diag_sockid`; ports and addresses in the network's order.
    InetDiagSockid: 48 { idiag_sport: [u8; 2], idiag_dport: [u8; 2], idiag_src: [u8; 16], idiag_dst: [u8; 16],
        idiag_if: u32, idiag_cookie: [u32; 2] }
}
guest_struct! {
    /// `struct inet_diag_req_v2`.
    InetDiagReqV2: 56 { sdiag_family: u8, sdiag_protocol: u8, idiag_ext: u8, pad: u8, idiag_states: u32,
        id: InetDiagSockid }
}
guest_struct! {
    /// `struct inet_diag_msg`.
    InetDiagMsg: 72 { idiag_family: u8, idiag_state: u8, idiag_timer: u8, idiag_retrans: u8, id: InetDiagSockid,
        idiag_expires: u32, idiag_rqueue: u32, idiag_wqueue: u32, idiag_uid: u32, idiag_inode: u32 }
}
guest_struct! {
    /// `struct unix_diag_req`.
    UnixDiagReq: 24 { sdiag_family: u8, sdiag_protocol: u8, pad: u16, udiag_states: u32, udiag_ino: u32,
        udiag_show: u32, udiag_cookie: [u32; 2] }
}
guest_struct! {
    /// `struct unix_diag_msg`.
    UnixDiagMsg: 16 { udiag_family: u8, udiag_type: u8, udiag_state: u8, pad: u8, udiag_ino: u32, udiag_cookie: [u32; 2] }
}

/// Bytes from one message or attribute to the next for `len` bytes of it (`NLMSG_ALIGN`); saturates.
#[must_use]
pub const fn align(len: usize) -> usize {
    len.saturating_add(3) & !3
}
