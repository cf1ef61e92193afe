//! [`GoferSpec`]: what a gofer process serves.

use serde::{Deserialize, Serialize};

use super::{FdNumber, HostNodes, JailSpec, Lifetime, SPEC_VERSION, SpecError};

/// All that a new gofer is made from; one gofer serves one container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoferSpec {
    /// [`SPEC_VERSION`].
    pub version: u32,
    /// How the process shuts itself in.
    pub jail: JailSpec,
    /// The trees.
    pub trees: Vec<GoferTree>,
    /// The socket of the process that makes nodes of devices, if there is one.
    pub node_maker: Option<FdNumber>,
    /// What it does with sockets and FIFOs in the trees.
    #[serde(default)]
    pub host_nodes: HostNodes,
    /// Whether the gofer dies with the command that started it; with the sandbox it does in any case.
    pub lifetime: Lifetime,
    /// A host call that the filter refuses is named in the panic log.
    pub debug: bool,
}

/// A tree to serve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoferTree {
    /// The tree: an O_PATH descriptor of a directory or a file.
    pub tree: FdNumber,
    /// What it is.
    pub kind: TreeKind,
    /// Nothing in it can be changed.
    pub readonly: bool,
    /// The socket by which the sandbox asks for it.
    pub socket: FdNumber,
}

/// What a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum TreeKind {
    /// A directory: the root of the tree that the sandbox sees.
    Directory,
    /// Anything else: the sandbox sees a directory with this one entry.
    File,
}

impl GoferSpec {
    /// Encodes the spec for donation.
    ///
    /// # Errors
    /// None in practice.
    pub fn encode(&self) -> Result<Vec<u8>, SpecError> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Decodes a donated spec.
    ///
    /// # Errors
    /// Malformed input, or a spec of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, SpecError> {
        let spec: Self = serde_json::from_slice(bytes)?;
        if spec.version == SPEC_VERSION { Ok(spec) } else { Err(SpecError::Version(spec.version)) }
    }
}
