//! /dev/console: the node that stands for the terminal on which the container was started, and its name.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_fs_host::stdio::HostStream;
use moat_kernel::process::container::ContainerGroup;
use moat_kernel::process::session::Terminal;
use moat_vfs::caller::KernelCaller;
use moat_vfs::cred::Credentials;
use moat_vfs::inode::{NodeKind, SetAttr};
use moat_vfs::mount::MountNamespace;
use moat_vfs::ops;
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{OpenFile, Path};

const CONSOLE: DeviceId = DeviceId::new(5, 1);

/// Makes the node if stdin is a terminal, and gives the descriptors of that terminal its name, as ttyname(3) finds it.
///
/// A root without a writable /dev has no console; the descriptors then have no name.
pub(crate) fn set_up(
    files: &mut [Arc<OpenFile>],
    namespace: &MountNamespace,
    container: &ContainerGroup,
    creds: &Credentials,
) {
    let Some(terminal) = files.first().and_then(terminal_of) else { return };
    let Ok(node) = make_node(namespace, creds) else { return };
    for file in files {
        if terminal_of(file).is_some_and(|t| t.device_number() == terminal.device_number()) {
            *file = OpenFile::new(file.file().clone(), node.clone(), file.flags(), file.creds().clone());
        }
    }
    container.set_console(terminal);
}

fn terminal_of(file: &Arc<OpenFile>) -> Option<Arc<dyn Terminal>> {
    file.downcast::<HostStream>()?.terminal().map(|t| t.clone() as Arc<dyn Terminal>)
}

/// The node belongs to the container's first user, who has the terminal open anyway.
fn make_node(namespace: &MountNamespace, creds: &Credentials) -> Result<Path> {
    let caller = KernelCaller::root();
    let root = namespace.root();
    let view = View { caller: &caller, root: &root, base: &root, umask: 0 };
    let kind = NodeKind::Device { file_type: FileType::CharDevice, rdev: CONSOLE };
    let node = match ops::mknod(&view, b"/dev/console", 0o620, kind) {
        Err(Errno::EEXIST) => resolve(&view, b"/dev/console", LookupFlags::FOLLOW)?,
        made => made?,
    };
    if node.inode().metadata()?.rdev != CONSOLE {
        return Err(Errno::ENXIO);
    }
    node.inode().set_attr(&SetAttr { uid: Some(creds.uid), ..SetAttr::default() })?;
    Ok(node)
}
