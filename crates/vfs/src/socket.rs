//! Sockets, as far as they are the same in all address families.
//!
//! - [`Socket`]: what a family provides; [`SocketFile`]: the [`crate::File`] around any of them.
//! - [`SocketCore`]: the options of level SOL_SOCKET, the wait queue and the pending error, one in each socket.
//! - [`AddressFamily`]: what makes the sockets of a family; [`crate::Registry`] has them by number.
//! - [`ByteQueue`]: bytes on their way, for stream sockets.
//!
//! # Invariants
//! - A socket never waits: EAGAIN, then its own wait queue tells of a change, whatever caused it.
//! - Addresses are the bytes of `struct sockaddr`, family first; a family checks every length itself.
//! - [`Socket::release`] comes once, when the last description is gone; no socket keeps itself alive.

mod bytes;
mod core;
mod family;
mod file;
mod memory;
mod persist;

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use moat_abi::socket::{MsgFlags, SHUT_RD, SHUT_RDWR, SHUT_WR, SIOCINQ, SIOCOUTQ, SOCKADDR_STORAGE_SIZE};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::Pid;
use moat_image::Refusal;
use moat_image::state::{SocketCredsState, SocketRef};
use moat_mm::Mappable;

use crate::caller::Caller;
use crate::file::SaveFiles;
use crate::open_file::OpenFile;

pub use self::bytes::ByteQueue;
pub use self::core::{BufferSide, CoreFlags, SocketCore};
pub use self::family::{AddressFamily, SocketMaker};
pub use self::file::SocketFile;
pub use self::memory::SocketMemory;
pub use self::persist::{RestoreSockets, RestoredSockets};

/// Family, type and protocol of a socket: the arguments of socket(2) without the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SocketKind {
    /// `AF_*`.
    pub family: u16,
    /// `SOCK_*`.
    pub socket_type: u32,
    /// The protocol, as SO_PROTOCOL tells it.
    pub protocol: u32,
}

/// A `struct sockaddr` of up to 128 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SockAddr {
    len: u8,
    bytes: [u8; SOCKADDR_STORAGE_SIZE],
}

impl SockAddr {
    /// An address of these bytes; what is beyond 128 bytes is cut.
    #[must_use]
    pub fn new(from: &[u8]) -> SockAddr {
        let mut bytes = [0; SOCKADDR_STORAGE_SIZE];
        let n = from.len().min(SOCKADDR_STORAGE_SIZE);
        bytes[..n].copy_from_slice(&from[..n]);
        SockAddr { len: u8::try_from(n).unwrap_or(u8::MAX), bytes }
    }

    /// The family alone: the name of a socket without one.
    #[must_use]
    pub fn unnamed(family: u16) -> SockAddr {
        SockAddr::new(&family.to_ne_bytes())
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..usize::from(self.len)]
    }
}

impl fmt::Debug for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x?}", self.as_bytes())
    }
}

/// The family of an address; `None` if it is too short to have one.
#[must_use]
pub fn family_of(addr: &[u8]) -> Option<u16> {
    addr.first_chunk().map(|b| u16::from_ne_bytes(*b))
}

/// Who sent a message or owns a peer: SCM_CREDENTIALS, SO_PEERCRED. Ids are the kernel's.
#[derive(Clone)]
pub struct SocketCreds {
    /// The process: its number depends on the reader's namespace. `None` is pid 0.
    pub process: Option<Arc<Pid>>,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
}

impl SocketCreds {
    /// Whether both stand for the same sender.
    #[must_use]
    pub fn same(&self, other: &SocketCreds) -> bool {
        let process = match (&self.process, &other.process) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        };
        process && self.uid == other.uid && self.gid == other.gid
    }

    /// The same, as an image has it.
    pub fn save(&self, saver: &mut dyn SaveFiles) -> SocketCredsState {
        let process = self.process.as_ref().map(|pid| saver.process(pid));
        SocketCredsState { process, uid: self.uid, gid: self.gid }
    }
}

/// A control message that only its family understands.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct ControlMessage {
    pub level: u32,
    pub kind: u32,
    pub data: Vec<u8>,
}

/// What travels beside the data of a message.
#[derive(Clone, Default)]
pub struct Ancillary {
    /// Open files (SCM_RIGHTS).
    pub files: Vec<Arc<OpenFile>>,
    /// The sender's credentials; outgoing: those it has asked for, already checked.
    pub creds: Option<SocketCreds>,
    /// All else.
    pub other: Vec<ControlMessage>,
}

impl Ancillary {
    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.creds.is_none() && self.other.is_empty()
    }
}

/// A message to send, or the rest of one.
pub struct Outgoing<'a> {
    /// The bytes.
    pub data: &'a [u8],
    /// Where to; `None` for the connected peer.
    pub to: Option<&'a [u8]>,
    /// The flags of send(2).
    pub flags: MsgFlags,
    /// What goes with it. A socket takes it out with the first byte that it accepts, and leaves it where it fails.
    pub ancillary: Ancillary,
}

impl<'a> Outgoing<'a> {
    /// Plain bytes for the peer.
    #[must_use]
    pub fn plain(data: &'a [u8]) -> Outgoing<'a> {
        Outgoing { data, to: None, flags: MsgFlags::empty(), ancillary: Ancillary::default() }
    }
}

/// A message received.
#[derive(Default)]
pub struct Incoming {
    /// Bytes put in the buffer.
    pub len: usize,
    /// Bytes that the message had: more than `len` if it was cut.
    pub full_len: usize,
    /// Who sent it, for sockets that tell.
    pub from: Option<SockAddr>,
    /// What came with it.
    pub ancillary: Ancillary,
    /// TRUNC, EOR, CTRUNC.
    pub flags: MsgFlags,
    /// A stream must not go on to fill the buffer (MSG_WAITALL): what follows belongs to another message.
    pub complete: bool,
}

impl Incoming {
    /// `len` bytes of a stream.
    #[must_use]
    pub fn bytes(len: usize) -> Incoming {
        Incoming { len, full_len: len, ..Incoming::default() }
    }
}

/// Answers the ioctls about the queues of a socket that sends at once: `waiting` are the bytes of what would be read first.
///
/// # Errors
/// ENOTTY for other commands; EFAULT.
pub fn answer_queue_ioctl(caller: &dyn Caller, cmd: u32, arg: u64, waiting: impl FnOnce() -> usize) -> Result<u64> {
    let value = match cmd {
        SIOCINQ => waiting(),
        SIOCOUTQ => 0,
        _ => return Err(Errno::ENOTTY),
    };
    caller.write_user(arg, &i32::try_from(value).unwrap_or(i32::MAX).to_ne_bytes())?;
    Ok(0)
}

/// Which halves of a connection shutdown(2) closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shutdown {
    Read,
    Write,
    Both,
}

impl Shutdown {
    /// Decodes the argument of shutdown(2).
    ///
    /// # Errors
    /// EINVAL.
    pub fn from_raw(how: u32) -> Result<Shutdown> {
        match how {
            SHUT_RD => Ok(Shutdown::Read),
            SHUT_WR => Ok(Shutdown::Write),
            SHUT_RDWR => Ok(Shutdown::Both),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Whether the reading half is closed.
    #[must_use]
    pub fn reads(self) -> bool {
        self != Shutdown::Write
    }

    /// Whether the writing half is closed.
    #[must_use]
    pub fn writes(self) -> bool {
        self != Shutdown::Read
    }
}

/// A socket of some family. The defaults give what Linux gives for a family without the operation.
pub trait Socket: Send + Sync + Any {
    /// Family, type and protocol.
    fn kind(&self) -> SocketKind;

    /// Options, wait queue and pending error.
    fn core(&self) -> &SocketCore;

    /// Gives the socket a name.
    ///
    /// # Errors
    /// EINVAL, EADDRINUSE, EADDRNOTAVAIL, EACCES; EOPNOTSUPP by default.
    fn bind(&self, _caller: &dyn Caller, _addr: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Begins to take connections. `backlog` has been cut to SOMAXCONN.
    ///
    /// # Errors
    /// EINVAL, EADDRINUSE; EOPNOTSUPP by default.
    fn listen(&self, _caller: &dyn Caller, _backlog: usize) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Connects, or names the peer of a datagram socket.
    ///
    /// # Errors
    /// EINPROGRESS once the connection is under way: [`Socket::finish_connect`] tells its end. EALREADY while it is.
    /// EAGAIN if the peer's queue is full: try again when the own queue is woken. ECONNREFUSED, EISCONN and the like.
    fn connect(&self, _caller: &dyn Caller, _addr: &[u8]) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// How the connection that [`Socket::connect`] began has ended.
    ///
    /// # Errors
    /// EAGAIN while it has not; ECONNREFUSED and the like.
    fn finish_connect(&self) -> Result<()> {
        Ok(())
    }

    /// Whether nobody tells when a connection that was just refused with EAGAIN may be made: it is to be tried again and again.
    fn connects_untold(&self) -> bool {
        false
    }

    /// Takes a connection from the queue.
    ///
    /// # Errors
    /// EAGAIN; EINVAL for a socket that does not listen; EOPNOTSUPP by default.
    fn accept(&self, _caller: &dyn Caller) -> Result<Arc<dyn Socket>> {
        Err(Errno::EOPNOTSUPP)
    }

    /// The own name.
    ///
    /// # Errors
    /// ENOTCONN and the like, by family.
    fn local_address(&self) -> Result<SockAddr>;

    /// The peer's name.
    ///
    /// # Errors
    /// ENOTCONN.
    fn peer_address(&self) -> Result<SockAddr>;

    /// The peer's name as accept(2) tells it, of a connection that it just gave.
    ///
    /// # Errors
    /// ENOTCONN.
    fn accepted_from(&self) -> Result<SockAddr> {
        self.peer_address()
    }

    /// Sends (part of) a message; gives the bytes taken. Messages with borders are taken whole.
    ///
    /// # Errors
    /// EAGAIN, EPIPE (the caller sends SIGPIPE), ENOTCONN, EDESTADDRREQ, EMSGSIZE, ECONNREFUSED and the like.
    fn send(&self, caller: Option<&dyn Caller>, message: &mut Outgoing<'_>) -> Result<usize>;

    /// Receives into `buf`; of `flags`, PEEK, TRUNC, OOB, ERRQUEUE, CMSG_CLOEXEC concern the socket.
    ///
    /// # Errors
    /// EAGAIN, ENOTCONN, ECONNRESET and the like.
    fn receive(&self, buf: &mut [u8], flags: MsgFlags) -> Result<Incoming>;

    /// Whether the data is a stream without borders, so that a call may move part of it.
    fn is_stream(&self) -> bool;

    /// Closes one half or both.
    ///
    /// # Errors
    /// ENOTCONN.
    fn shutdown(&self, _how: Shutdown) -> Result<()> {
        Err(Errno::EOPNOTSUPP)
    }

    /// Reads an option; the answer is cut to the caller's room. SOL_SOCKET's are [`SocketCore`]'s where this gives ENOPROTOOPT.
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL, EOPNOTSUPP.
    fn get_option(&self, _caller: &dyn Caller, level: u32, _name: u32, _room: usize) -> Result<Vec<u8>> {
        Err(if level == moat_abi::socket::SOL_SOCKET { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP })
    }

    /// An option whose answer depends on what the caller's buffer holds; `None` for all others.
    fn ask_option(&self, _level: u32, _name: u32, _question: &[u8]) -> Option<Result<Vec<u8>>> {
        None
    }

    /// Sets an option; as [`Socket::get_option`].
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL, EOPNOTSUPP, EPERM.
    fn set_option(&self, _caller: &dyn Caller, level: u32, _name: u32, _value: &[u8]) -> Result<()> {
        Err(if level == moat_abi::socket::SOL_SOCKET { Errno::ENOPROTOOPT } else { Errno::EOPNOTSUPP })
    }

    /// The credentials of the peer (SO_PEERCRED), for families that know them.
    fn peer_creds(&self) -> Option<SocketCreds> {
        None
    }

    /// Whether received messages carry their sender's credentials (SO_PASSCRED).
    fn pass_creds(&self) -> bool {
        self.core().has(CoreFlags::PASSCRED)
    }

    /// Whether it listens (SO_ACCEPTCONN).
    fn is_listening(&self) -> bool {
        false
    }

    /// ioctl(2).
    ///
    /// # Errors
    /// ENOTTY by default, after which those of [`crate::Registry::device_ioctl`] are tried.
    fn ioctl(&self, _caller: &dyn Caller, _cmd: u32, _arg: u64) -> Result<u64> {
        Err(Errno::ENOTTY)
    }

    /// Memory of the socket that can be mapped.
    ///
    /// # Errors
    /// ENODEV by default; EINVAL where it has none yet.
    fn mappable(&self) -> Result<Arc<dyn Mappable>> {
        Err(Errno::ENODEV)
    }

    /// What is ready.
    fn poll(&self) -> PollEvents;

    /// What it is, as an image has it.
    ///
    /// # Errors
    /// By default, its family: it can't be saved.
    fn save(&self, _saver: &mut dyn SaveFiles) -> std::result::Result<SocketRef, Refusal> {
        let SocketKind { family, socket_type, protocol } = self.kind();
        Err(Refusal::new(format!("a socket of family {family}, type {socket_type}, protocol {protocol}")))
    }

    /// The last description is gone.
    fn release(&self) {}
}
