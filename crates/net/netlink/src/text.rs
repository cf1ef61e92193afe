//! /proc/net/netlink, proc_pid_net(5).

use std::fmt::Write;

use moat_identity::NetNamespace;

use crate::socket::sockets;

pub(crate) fn netlink(net: &NetNamespace) -> Vec<u8> {
    let mut text =
        String::from("sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n");
    for s in sockets(net) {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{:016x} {:<3} {:<10} {:08x} {:<8} {:<8} {:<5} {:<8} {:<8} {:<8}",
            0, s.protocol, s.port, s.groups, 0, 0, 0, 2, 0, s.ino
        );
    }
    text.into_bytes()
}
