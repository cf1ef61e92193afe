//! /proc/net/packet, proc_pid_net(5).

use std::fmt::Write;

use moat_identity::NetNamespace;

use crate::socket::sockets;

pub(crate) fn packet(net: &NetNamespace) -> Vec<u8> {
    let mut text = String::from("sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n");
    for s in sockets(net) {
        // Writing to a string can't fail.
        let _ = writeln!(
            text,
            "{:016x} {:<6} {:<4} {:04x}   {:<5} {} {:<6} {:<6} {:<6}",
            0,
            3,
            s.socket_type,
            s.protocol,
            s.device,
            u8::from(s.running),
            s.bytes,
            s.uid,
            s.ino
        );
    }
    text.into_bytes()
}
