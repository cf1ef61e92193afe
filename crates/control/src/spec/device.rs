//! Nodes of devices as the sandbox spec describes them.

use serde::{Deserialize, Serialize};

/// A node to make.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// Absolute, clean guest path; directories missing on the way are made.
    pub path: String,
    /// What is made.
    pub node: NodeSpec,
}

/// A node that is neither a file nor a directory. What opening a device does depends on its number alone, which the guest's
/// kernel has a driver for, or has not: no device of the host is ever opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// What a node is; devices with their major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum NodeKind {
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}
