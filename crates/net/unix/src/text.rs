//! /proc/net/unix, proc_pid_net(5).

use std::fmt::Write;
use std::sync::{Arc, Weak};

use moat_abi::socket::{SOCK_DGRAM, SOCK_SEQPACKET, SOCK_STREAM};
use moat_identity::NetNamespace;
use moat_vfs::socket::Socket;

use crate::family::Local;
use crate::name::Flavor;
use crate::socket::UnixSocket;

/// The text of /proc/net/unix.
#[must_use]
pub fn unix(net: &NetNamespace) -> Vec<u8> {
    let all: Vec<Arc<UnixSocket>> = Local::of(net).sockets.lock().values().filter_map(Weak::upgrade).collect();
    let mut text = String::from("Num       RefCount Protocol Flags    Type St Inode Path\n").into_bytes();
    for s in &all {
        let (connected, listening) = s.phase_bits();
        let kind = match s.flavor() {
            Flavor::Stream => SOCK_STREAM,
            Flavor::Datagram => SOCK_DGRAM,
            Flavor::SeqPacket => SOCK_SEQPACKET,
        };
        // SO_ACCEPTCON in the flags; SS_UNCONNECTED or SS_CONNECTED.
        let (flags, state) = (if listening { 0x10000 } else { 0 }, if connected { 3 } else { 1 });
        let mut line = String::new();
        let _ = write!(line, "{:016x}: {:08X} {:08X} {flags:08X} {kind:04X} {state:02X} {:5}", 0, 2, 0, s.core().ino());
        text.extend_from_slice(line.as_bytes());
        if let Some(name) = s.endpoint.name() {
            text.push(b' ');
            text.extend(name.shown());
        }
        text.push(b'\n');
    }
    text
}
