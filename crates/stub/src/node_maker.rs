//! The node maker: a process that does one thing, make nodes of devices in directories that it is handed.
//!
//! mknod(2) of a device takes CAP_MKNOD in the host's first user namespace, where nothing of a sandbox is. `program.rs` is a
//! freestanding program, `NODE_MAKER` its ELF file. It has a socket and no other descriptor, nobody's ids, that
//! capability and the one to write to directories of others, a root without entries, and a filter of six calls. This file is
//! what both sides share.
//!
//! # Invariants
//! - A node is made on mounts that are `nodev` only, so that nobody can open it by the descriptor that the directory was
//!   reached by.
//! - It makes nodes of devices only, by one component of a path.
//! - It ends when the socket is closed, or says what makes no sense.

/// Bytes of the longest name, with the zero byte at its end: NAME_MAX and one.
pub const NAME_BYTES: usize = 256;

/// A request; one message over a SOCK_SEQPACKET socket, with a descriptor of the directory by SCM_RIGHTS. The answer is an
/// errno as four bytes, 0 if the node was made.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Request {
    /// S_IFCHR or S_IFBLK, and permission bits.
    pub mode: u32,
    /// Major number of the device.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// One component, ended by a zero byte.
    pub name: [u8; NAME_BYTES],
}
