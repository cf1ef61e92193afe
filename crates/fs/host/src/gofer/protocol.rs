//! [`Request`] and [`Reply`]: [`crate::tree::HostTree`] as messages.
//!
//! Each connection belongs to one tree and carries a [`Frame`] and its [`Reply`] alternately, each in one
//! SOCK_SEQPACKET packet, encoded by postcard. A directory is named by the [`Handle`] that the gofer gave for it, an
//! entry of it by one component.

use moat_abi::stat::{DeviceId, Statfs};
use moat_abi::time::Timespec;
use moat_vfs::inode::{Metadata, SetAttr, SetTime};
use serde::{Deserialize, Serialize};

use crate::tree::{HostAccess, HostRename, NewHostNode};

/// A directory that the gofer has open. All connections of a tree share the numbers.
pub type Handle = u32;

/// The tree's root, which is always open.
pub const ROOT: Handle = 0;

/// Bytes of the longest name, NAME_MAX.
pub const MAX_NAME_BYTES: usize = 255;

/// Bytes of the longest target of a symbolic link, PATH_MAX without its NUL.
pub const MAX_TARGET_BYTES: usize = 4095;

/// Handles given up in one frame, at most.
pub const MAX_CLOSED: usize = 32;

/// Directories open in one tree, at most.
pub const MAX_HANDLES: usize = 4096;

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
    OpenDir {
        dir: Handle,
        name: &'a [u8],
    },
    Stat {
        dir: Handle,
        name: &'a [u8],
    },
    StatDir {
        dir: Handle,
    },
    Open {
        dir: Handle,
        name: &'a [u8],
        access: HostAccess,
    },
    Create {
        dir: Handle,
        name: &'a [u8],
        node: NewHostNode,
    },
    Mkdir {
        dir: Handle,
        name: &'a [u8],
        node: NewHostNode,
    },
    Symlink {
        dir: Handle,
        name: &'a [u8],
        target: &'a [u8],
        node: NewHostNode,
    },
    Mkfifo {
        dir: Handle,
        name: &'a [u8],
        node: NewHostNode,
    },
    Link {
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
        dir: Handle,
        name: &'a [u8],
    },
    SetAttr {
        dir: Handle,
        name: Option<&'a [u8]>,
        attr: Attributes,
    },
    /// Takes a listing, which the connection keeps until it is read or another request comes.
    List {
        dir: Handle,
    },
    /// The rest of the listing.
    ListMore,
    Statfs {
        dir: Handle,
    },
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
    /// An opened directory.
    Dir(Handle),
    /// Attributes.
    Metadata(#[serde(with = "MetadataDef")] Metadata),
    /// An opened regular file, whose descriptor comes along.
    File,
    /// The target of a symbolic link.
    Target(&'a [u8]),
    /// A part of a listing.
    Entries {
        /// The entries.
        #[serde(borrow)]
        entries: Vec<Entry<'a>>,
        /// Whether there are more, to be had by [`Request::ListMore`].
        more: bool,
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
}

impl Entry<'_> {
    /// An upper bound of its encoded length: the name and its length, a u64 of at most ten bytes, a type.
    #[must_use]
    pub fn max_encoded_bytes(&self) -> usize {
        self.name.len() + 16
    }
}

/// [`SetAttr`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "as in SetAttr")]
pub struct Attributes {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
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
            size: a.size,
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
            size: a.size,
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
    // The tree of a host does not tell.
    #[serde(skip)]
    btime: Option<Timespec>,
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
