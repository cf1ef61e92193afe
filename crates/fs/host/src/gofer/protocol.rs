//! [`Request`] and [`Reply`]: [`crate::tree::HostTree`] as messages.
//!
//! Each connection belongs to one tree and carries a [`Frame`] and its [`Reply`] alternately, each in one
//! SOCK_SEQPACKET packet, encoded by postcard. A file that is held is named by the [`Handle`] that the gofer gave for it,
//! an entry of a directory by one component.

use moat_abi::stat::{DeviceId, Statfs};
use moat_abi::time::Timespec;
use moat_vfs::inode::{Metadata, SetAttr, SetTime};
use serde::{Deserialize, Serialize};

use crate::tree::{HostAccess, HostKind, HostRename, NewHostNode};

/// A file that the gofer holds. All connections of a tree share the numbers.
pub type Handle = u32;

/// The tree's root, which is always open.
pub const ROOT: Handle = 0;

/// Bytes of the longest name, NAME_MAX.
pub const MAX_NAME_BYTES: usize = 255;

/// Bytes of the longest target of a symbolic link, PATH_MAX without its NUL.
pub const MAX_TARGET_BYTES: usize = 4095;

/// Handles given up in one frame, at most.
pub const MAX_CLOSED: usize = 32;

/// Files held of one tree, at most: what a client keeps by itself is far less, but the guest's open files come on top.
pub const MAX_HANDLES: usize = 1 << 15;

/// Bytes of the longest value of an extended attribute, XATTR_SIZE_MAX.
pub const MAX_VALUE_BYTES: usize = 65536;

/// Connections of one tree, at most.
pub const MAX_CONNECTIONS: usize = 8;

/// What the client sends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Frame<'a> {
    /// Handles that the client has no more use for; they are closed before the request is looked at.
    pub closed: Vec<Handle>,
    /// What is to be done.
    #[serde(borrow)]
    pub request: Request<'a>,
}

/// What is to be done: an operation of [`crate::tree::HostTree`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the operations and their arguments are those of HostTree")]
pub enum Request<'a> {
    /// Another connection to the same tree: [`Reply::Connection`], with its socket.
    Connect,
    StatAt {
        dir: Handle,
        name: &'a [u8],
    },
    Lookup {
        dir: Handle,
        name: &'a [u8],
    },
    Hold {
        dir: Handle,
        name: &'a [u8],
        access: HostAccess,
    },
    Stat {
        node: Handle,
    },
    OpenAt {
        dir: Handle,
        name: &'a [u8],
        access: HostAccess,
    },
    OpenFifoAt {
        dir: Handle,
        name: &'a [u8],
        access: HostAccess,
    },
    OpenHeldAt {
        dir: Handle,
        name: &'a [u8],
        access: HostAccess,
    },
    Reopen {
        node: Handle,
        access: HostAccess,
    },
    Create {
        dir: Handle,
        name: &'a [u8],
        new: NewHostNode,
    },
    Unnamed {
        dir: Handle,
        new: NewHostNode,
    },
    Make {
        dir: Handle,
        name: &'a [u8],
        kind: Kind<'a>,
        new: NewHostNode,
    },
    Link {
        node: Handle,
        new_dir: Handle,
        new_name: &'a [u8],
    },
    LinkAt {
        dir: Handle,
        name: &'a [u8],
        new_dir: Handle,
        new_name: &'a [u8],
    },
    Unlink {
        dir: Handle,
        name: &'a [u8],
    },
    Rmdir {
        dir: Handle,
        name: &'a [u8],
    },
    Rename {
        dir: Handle,
        name: &'a [u8],
        new_dir: Handle,
        new_name: &'a [u8],
        how: HostRename,
    },
    ReadLink {
        node: Handle,
    },
    ConnectSocket {
        node: Handle,
        socket_type: u32,
    },
    BindSocket {
        dir: Handle,
        name: &'a [u8],
        socket_type: u32,
        new: NewHostNode,
    },
    SetAttr {
        node: Handle,
        attr: Attributes,
    },
    GetXattr {
        node: Handle,
        name: &'a [u8],
    },
    SetXattr {
        node: Handle,
        name: &'a [u8],
        value: &'a [u8],
        flags: u32,
    },
    ListXattr {
        node: Handle,
    },
    RemoveXattr {
        node: Handle,
        name: &'a [u8],
    },
    /// Takes a listing, which the connection keeps until it is read or another request comes.
    List {
        dir: Handle,
    },
    /// The rest of the listing.
    ListMore,
    Sync {
        dir: Handle,
        data_only: bool,
    },
    SyncFs {
        dir: Handle,
    },
    Statfs {
        node: Handle,
    },
    /// A group of fanotify(7), for the client to read or poll.
    Group {
        of: Watcher,
    },
    /// Marks a directory, or a regular file that [`Request::Hold`] gave, in both groups.
    Watch {
        node: Handle,
        what: u64,
    },
    Unwatch {
        node: Handle,
        what: u64,
    },
    /// What the gofer's group says, but for what the gofer did: [`Reply::Told`].
    Told,
}

/// Whose group: it has the kinds of events that this process causes, besides others of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Watcher {
    /// MODIFY and ACCESS of files.
    Client,
    /// All else.
    Gofer,
}

/// [`HostKind`].
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in HostKind")]
pub enum Kind<'a> {
    Directory,
    Symlink(&'a [u8]),
    Fifo,
    Socket,
    CharDevice { major: u32, minor: u32 },
    BlockDevice { major: u32, minor: u32 },
}

impl<'a> From<HostKind<'a>> for Kind<'a> {
    fn from(kind: HostKind<'a>) -> Kind<'a> {
        match kind {
            HostKind::Directory => Kind::Directory,
            HostKind::Symlink(target) => Kind::Symlink(target),
            HostKind::Fifo => Kind::Fifo,
            HostKind::Socket => Kind::Socket,
            HostKind::CharDevice(d) => Kind::CharDevice { major: d.major, minor: d.minor },
            HostKind::BlockDevice(d) => Kind::BlockDevice { major: d.major, minor: d.minor },
        }
    }
}

impl<'a> From<Kind<'a>> for HostKind<'a> {
    fn from(kind: Kind<'a>) -> HostKind<'a> {
        match kind {
            Kind::Directory => HostKind::Directory,
            Kind::Symlink(target) => HostKind::Symlink(target),
            Kind::Fifo => HostKind::Fifo,
            Kind::Socket => HostKind::Socket,
            Kind::CharDevice { major, minor } => HostKind::CharDevice(DeviceId::new(major, minor)),
            Kind::BlockDevice { major, minor } => HostKind::BlockDevice(DeviceId::new(major, minor)),
        }
    }
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub enum Reply<'a> {
    /// It is done.
    Done,
    /// It failed with this errno.
    Failed(i32),
    /// A new connection, whose socket comes along.
    Connection,
    /// A node.
    Node(Handle, #[serde(with = "MetadataDef")] Metadata),
    /// A node whose opened regular file, or whose socket, comes along.
    NodeFile(Handle),
    /// Attributes.
    Metadata(#[serde(with = "MetadataDef")] Metadata),
    /// An opened regular file or FIFO, or a socket that is connected, whose descriptor comes along.
    File,
    /// The target of a symbolic link, or the value of an extended attribute.
    Bytes(&'a [u8]),
    /// Names of extended attributes.
    Names(#[serde(borrow)] Vec<&'a [u8]>),
    /// A part of a listing.
    Entries {
        /// The entries.
        #[serde(borrow)]
        entries: Vec<Entry<'a>>,
        /// Whether there are more, to be had by [`Request::ListMore`].
        more: bool,
    },
    /// What names a marked file, in the parts of [`moat_host::fanotify::FileHandle`], and what is told of it.
    Watched {
        /// Id of the file system.
        fsid: [u8; 8],
        /// Kind of the handle.
        kind: i32,
        /// Bytes of the handle.
        bytes: &'a [u8],
        /// What of what was asked for.
        told: u64,
    },
    /// What others did.
    Told {
        /// As the host writes it; nothing waits if it is empty.
        events: &'a [u8],
        /// Files of which the gofer has set one time, in the parts of their handles, for the first time since it was last asked: a
        /// MODIFY or ACCESS of the client's group is that.
        #[serde(borrow)]
        touched: Vec<([u8; 8], i32, &'a [u8])>,
    },
    /// The file system.
    Statfs(#[serde(with = "StatfsDef")] Statfs),
}

/// An entry of a listing.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in HostEntry")]
pub struct Entry<'a> {
    pub name: &'a [u8],
    pub ino: u64,
    pub dtype: u8,
    pub next: i64,
}

impl Entry<'_> {
    /// An upper bound of its encoded length: the name and its length, two numbers of at most ten bytes, a type.
    #[must_use]
    pub fn max_encoded_bytes(&self) -> usize {
        self.name.len() + 26
    }
}

/// [`SetAttr`], without the size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in SetAttr")]
pub struct Attributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub atime: Option<Time>,
    pub mtime: Option<Time>,
}

/// [`SetTime`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in SetTime")]
pub enum Time {
    Now,
    At { sec: i64, nsec: i64 },
}

impl From<SetTime> for Time {
    fn from(t: SetTime) -> Time {
        match t {
            SetTime::Now => Time::Now,
            SetTime::At(t) => Time::At { sec: t.tv_sec, nsec: t.tv_nsec },
        }
    }
}

impl From<Time> for SetTime {
    fn from(t: Time) -> SetTime {
        match t {
            Time::Now => SetTime::Now,
            Time::At { sec, nsec } => SetTime::At(Timespec { tv_sec: sec, tv_nsec: nsec }),
        }
    }
}

impl From<&SetAttr> for Attributes {
    fn from(a: &SetAttr) -> Attributes {
        Attributes {
            mode: a.mode,
            uid: a.uid,
            gid: a.gid,
            atime: a.atime.map(Time::from),
            mtime: a.mtime.map(Time::from),
        }
    }
}

impl From<Attributes> for SetAttr {
    fn from(a: Attributes) -> SetAttr {
        SetAttr {
            mode: a.mode,
            uid: a.uid,
            gid: a.gid,
            size: None,
            atime: a.atime.map(SetTime::from),
            mtime: a.mtime.map(SetTime::from),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "DeviceId")]
struct DeviceIdDef {
    major: u32,
    minor: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Timespec")]
struct TimespecDef {
    tv_sec: i64,
    tv_nsec: i64,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Metadata")]
struct MetadataDef {
    #[serde(with = "DeviceIdDef")]
    dev: DeviceId,
    ino: u64,
    mode: u32,
    nlink: u32,
    uid: u32,
    gid: u32,
    #[serde(with = "DeviceIdDef")]
    rdev: DeviceId,
    size: u64,
    blksize: u32,
    blocks: u64,
    #[serde(with = "TimespecDef")]
    atime: Timespec,
    #[serde(with = "TimespecDef")]
    mtime: Timespec,
    #[serde(with = "TimespecDef")]
    ctime: Timespec,
    #[serde(with = "birth")]
    btime: Option<Timespec>,
}

mod birth {
    use moat_abi::time::Timespec;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(t: &Option<Timespec>, to: S) -> Result<S::Ok, S::Error> {
        t.map(|t| (t.tv_sec, t.tv_nsec)).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Timespec>, D::Error> {
        let t: Option<(i64, i64)> = Option::deserialize(from)?;
        Ok(t.map(|(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec }))
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Statfs")]
struct StatfsDef {
    f_type: i64,
    f_bsize: i64,
    f_blocks: u64,
    f_bfree: u64,
    f_bavail: u64,
    f_files: u64,
    f_ffree: u64,
    f_fsid: [i32; 2],
    f_namelen: i64,
    f_frsize: i64,
    f_flags: i64,
    f_spare: [i64; 4],
}
