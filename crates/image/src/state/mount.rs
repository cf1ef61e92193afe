//! Mounts, file systems, and places in them.

use serde::{Deserialize, Serialize};

use super::index::ContainerIndex;
use super::terminal::PtyState;
use super::tree::TreeState;
use crate::refs::{Named, Ref};

/// A place in the tree of mounts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PathState {
    /// The mount it is seen through.
    pub mount: Ref<MountState>,
    /// Names from the root of the mount on, each after a slash; empty for that root.
    pub names: Vec<u8>,
}

/// A mount of the container's mount namespace. It is made from the configuration again; this tells whether it is the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountState {
    /// Its place in the order of the namespace's mounts, parents first.
    pub index: u32,
    /// The type of its file system.
    pub fs_type: String,
    /// Where it is mounted, from the root of the namespace on.
    pub mountpoint: Vec<u8>,
    /// Its file system.
    pub file_system: Ref<FileSystemState>,
    /// Whose it is.
    #[serde(default)]
    pub container: ContainerIndex,
}

/// A file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FileSystemState {
    /// All of it comes from the configuration, or from the kernel's other state.
    Made,
    /// These files are in it.
    Tree(TreeState),
    /// These pseudo-terminals are.
    Terminals(Vec<Ref<PtyState>>),
}

impl Named for MountState {
    const WHAT: &'static str = "mount";
}

impl Named for FileSystemState {
    const WHAT: &'static str = "file system";
}
