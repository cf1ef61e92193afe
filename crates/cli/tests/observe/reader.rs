//! A monitor as others write them: gVisor's public protocol for security events, read from its description alone.
//!
//! The server accepts, both sides say a handshake, and each packet is a header (its length, the kind of message and how many were
//! dropped, little-endian, 16, 16 and 32 bits) with a protobuf message behind it.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex};

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};

/// A value of a protobuf field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a message with their numbers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(u64, Wire)>);

impl Fields {
    fn parse(mut bytes: &[u8]) -> Fields {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Wire::Number(varint(&mut bytes)),
                2 => {
                    let len = usize::try_from(varint(&mut bytes)).unwrap();
                    let (value, rest) = bytes.split_at(len);
                    bytes = rest;
                    Wire::Bytes(value.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        Fields(fields)
    }

    /// A number; 0 where the field is left out.
    pub(crate) fn number(&self, field: u64) -> i64 {
        let found = self.0.iter().find_map(|(number, value)| match value {
            Wire::Number(value) if *number == field => Some(*value),
            _ => None,
        });
        found.unwrap_or(0) as i64
    }

    pub(crate) fn bytes(&self, field: u64) -> Vec<Vec<u8>> {
        let of = |(number, value): &(u64, Wire)| match value {
            Wire::Bytes(bytes) if *number == field => Some(bytes.clone()),
            _ => None,
        };
        self.0.iter().filter_map(of).collect()
    }

    pub(crate) fn texts(&self, field: u64) -> Vec<String> {
        self.bytes(field).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }

    pub(crate) fn text(&self, field: u64) -> String {
        self.texts(field).concat()
    }

    /// A message inside, if it is there.
    pub(crate) fn inner(&self, field: u64) -> Option<Fields> {
        self.bytes(field).first().map(|bytes| Fields::parse(bytes))
    }
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (first, rest) = bytes.split_first().unwrap();
        *bytes = rest;
        value |= u64::from(first & 0x7f) << shift;
        if first & 0x80 == 0 {
            break;
        }
    }
    value
}

/// One packet.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) kind: u16,
    pub(crate) dropped: u32,
    pub(crate) fields: Fields,
}

/// A listening monitor.
pub(crate) struct Monitor {
    messages: Arc<Mutex<Vec<Message>>>,
}

/// A socket at `path` that monitors listen on.
pub(crate) fn listen(path: &Path) -> OwnedFd {
    let kind = SocketType::SEQPACKET;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
    rustix::net::listen(&socket, 4).unwrap();
    socket
}

/// Accepts a sandbox and says the handshake.
pub(crate) fn accept(socket: &OwnedFd) -> OwnedFd {
    let peer = rustix::net::accept(socket).unwrap();
    let mut packet = [0; 1024];
    let (n, _) = rustix::net::recv(&peer, &mut packet, RecvFlags::empty()).unwrap();
    let version = Fields::parse(&packet[..n]).number(1);
    assert!(version >= 1, "version {version}");
    rustix::net::send(&peer, &[8, 1], SendFlags::empty()).unwrap();
    peer
}

impl Monitor {
    /// Listens at `path` and reads all that sandboxes say.
    pub(crate) fn start(path: &Path) -> Monitor {
        let socket = listen(path);
        let messages = Arc::new(Mutex::new(Vec::new()));
        let seen = messages.clone();
        std::thread::spawn(move || {
            loop {
                let peer = accept(&socket);
                let mut packet = vec![0; 256 << 10];
                while let Ok((n @ 1.., _)) = rustix::net::recv(&peer, &mut packet, RecvFlags::empty()) {
                    let header = |at: usize| u16::from_le_bytes([packet[at], packet[at + 1]]);
                    // Later versions may have longer headers.
                    let fields = Fields::parse(&packet[usize::from(header(0))..n]);
                    let dropped = u32::from_le_bytes(packet[4..8].try_into().unwrap());
                    seen.lock().unwrap().push(Message { kind: header(2), dropped, fields });
                }
            }
        });
        Monitor { messages }
    }

    /// What was said so far, of one kind.
    pub(crate) fn of(&self, kind: u16) -> Vec<Fields> {
        let messages = self.messages.lock().unwrap();
        messages.iter().filter(|message| message.kind == kind).map(|message| message.fields.clone()).collect()
    }

    /// How many events were dropped by then.
    pub(crate) fn dropped(&self) -> u32 {
        self.messages.lock().unwrap().last().map_or(0, |message| message.dropped)
    }
}
