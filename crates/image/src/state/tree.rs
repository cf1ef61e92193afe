//! Trees of files in memory.

use serde::{Deserialize, Serialize};

use crate::pages::Segment;

/// The files of a file system in memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TreeState {
    /// The last inode number that was given.
    pub last_ino: u64,
    /// The files: the root first, each directory behind the one that it is in.
    pub nodes: Vec<NodeState>,
}

/// A file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// Its inode number.
    pub ino: u64,
    /// Type and permissions.
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The owning group.
    pub gid: u32,
    /// Seconds and nanoseconds of the last access, modification and change, and of its making.
    pub times: [(i64, i64); 4],
    /// It has no name and may get one (O_TMPFILE).
    pub linkable: bool,
    /// Extended attributes: names and values.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// What is in it.
    pub content: ContentState,
}

/// What is in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContentState {
    /// A regular file's bytes.
    File {
        /// How many.
        size: u64,
        /// F_GET_SEALS.
        seals: u32,
        /// Pages that were written or reserved: each the first and the one after the last.
        held: Vec<(u64, u64)>,
        /// Where they are.
        bytes: BytesState,
    },
    /// A directory.
    Directory {
        /// Its entries, by growing cookies.
        entries: Vec<EntryState>,
        /// The last cookie that was given.
        last_cookie: u64,
    },
    /// The target of a symbolic link.
    Link(#[serde(with = "serde_bytes")] Vec<u8>),
    /// A FIFO, a socket, or a device with its major and minor number.
    Special(u32, u32),
}

/// Bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BytesState {
    /// These; what they lack of the file is zeros.
    Here(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Pages by their offset in the file; what they lack of it is holes.
    Pages(Vec<Segment>),
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EntryState {
    /// Its name.
    #[serde(with = "serde_bytes")]
    pub name: Vec<u8>,
    /// Its position among the entries.
    pub cookie: u64,
    /// Which of [`TreeState::nodes`] it stands for.
    pub node: u32,
}

impl NodeState {
    /// The stretches of pages that it names.
    pub(crate) fn segments(&self) -> &[Segment] {
        match &self.content {
            ContentState::File { bytes: BytesState::Pages(segments), .. } => segments,
            _ => &[],
        }
    }
}
