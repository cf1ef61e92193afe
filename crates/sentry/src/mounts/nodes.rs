//! Nodes of devices: those that a configuration lists, and those that are mounted on a file one by one.
//!
//! A node is a name for a number. What it opens is the driver that the guest's kernel has for that ([`moat_vfs::Registry`]).

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_control::spec::{DeviceSpec, NodeKind as SpecKind, NodeSpec};
use moat_vfs::inode::{NewNode, NodeKind, SetAttr};
use moat_vfs::mount::Mount;
use moat_vfs::ops;
use moat_vfs::path::Path;

use super::Builder;

fn kind(node: &NodeSpec) -> NodeKind<'static> {
    match node.kind {
        SpecKind::Char(major, minor) => {
            NodeKind::Device { file_type: FileType::CharDevice, rdev: DeviceId::new(major, minor) }
        }
        SpecKind::Block(major, minor) => {
            NodeKind::Device { file_type: FileType::BlockDevice, rdev: DeviceId::new(major, minor) }
        }
        SpecKind::Fifo => NodeKind::Fifo,
    }
}

/// Whether `path` is the node already, but for owner and mode.
fn is_like(path: &Path, node: &NodeSpec) -> bool {
    let Ok(meta) = path.inode().metadata() else { return false };
    match kind(node) {
        NodeKind::Device { file_type, rdev } => meta.file_type() == file_type && meta.rdev == rdev,
        _ => meta.file_type() == FileType::Fifo,
    }
}

impl Builder {
    /// A mount whose root is this node alone.
    pub(super) fn node_mount(&self, node: &NodeSpec) -> Result<Arc<Mount>> {
        const NAME: &[u8] = b"node";
        // Room for the root and the node.
        let whole = self.of_type("tmpfs", "size=4096,nr_inodes=2")?;
        let new = NewNode { mode: node.mode, uid: node.uid, gid: node.gid, kind: kind(node) };
        whole.root().inode().create(NAME, &new)?;
        let dentry = whole.root().lookup(NAME)?;
        Ok(Mount::bind(&Path { mount: whole, dentry }))
    }

    /// Makes a node that the configuration lists. What is there already stays, as with runc; if it is the same device, it gets
    /// the owner and mode that are asked for.
    pub(super) fn add_device(&self, device: &DeviceSpec) -> Result<()> {
        let (path, node) = (device.path.as_bytes(), &device.node);
        if let Some(slash) = path.iter().rposition(|b| *b == b'/').filter(|at| *at > 0) {
            self.make_dirs(&path[..slash])?;
        }
        let at = match self.with_view(|view| ops::mknod(view, path, node.mode, kind(node))) {
            Ok(made) => made,
            Err(Errno::EEXIST) => match self.find(path) {
                Ok(found) if is_like(&found, node) => found,
                _ => return Ok(()),
            },
            // A tree of the host that takes no nodes of devices.
            Err(Errno::EPERM | Errno::EROFS) => {
                let mount = self.node_mount(node)?;
                let at = self.make_file(path)?;
                return self.namespace.attach(&mount, &at);
            }
            Err(e) => return Err(e),
        };
        at.inode().set_attr(&SetAttr {
            mode: Some(node.mode),
            uid: Some(node.uid),
            gid: Some(node.gid),
            ..SetAttr::default()
        })
    }
}
