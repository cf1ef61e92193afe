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

/// A rule about the devices that a container may use, as `linux.resources.devices` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRule {
    /// It allows, or denies.
    pub allow: bool,
    /// Whom it concerns.
    pub devices: RuleDevices,
    /// Opening for reading.
    pub read: bool,
    /// Opening for writing.
    pub write: bool,
    /// Making a node.
    pub make: bool,
}

/// The devices of a rule, by major and minor number; all numbers for none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum RuleDevices {
    /// All that there are: what was said before does not count any more.
    All,
    Char(Option<u32>, Option<u32>),
    Block(Option<u32>, Option<u32>),
}
