//! Names for the terminal that a process is started on: an entry of the container's devpts, as ttyname(3) looks for it,
//! and /dev/console for that of the container's init.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_abi::{Errno, Result};
use moat_fs_host::stdio::HostStream;
use moat_fs_host::terminal::HostTerminal;
use moat_kernel::process::container::ContainerGroup;
use moat_tty::Terminal;
use moat_vfs::caller::KernelCaller;
use moat_vfs::cred::Credentials;
use moat_vfs::inode::{NodeKind, SetAttr};
use moat_vfs::mount::MountNamespace;
use moat_vfs::ops;
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{OpenFile, Path};

const CONSOLE: DeviceId = DeviceId::new(5, 1);
/// Major number of the slaves of ptys.
const SLAVE_MAJOR: u32 = 136;

/// Gives the init's terminal, if stdin is one, its names. A root without a writable /dev has no /dev/console.
pub(crate) fn set_up(
    files: &mut [Arc<OpenFile>],
    namespace: &MountNamespace,
    container: &ContainerGroup,
    creds: &Credentials,
) -> Option<Arc<HostTerminal>> {
    let terminal = files.first().and_then(terminal_of)?;
    // Also where it gets no name: an image knows it by this.
    terminal.set_console();
    let node = make_console(namespace, creds);
    let named = name(files, namespace, creds);
    if let Ok(node) = node {
        // Without a devpts the console is all the name there is.
        if named == Named::No {
            show_as(files, &terminal, &node);
        }
        container.set_console(terminal.clone());
    }
    Some(terminal)
}

/// Whether a terminal has a name in the container's devpts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Named {
    No,
    Yes,
}

/// Gives the terminal that stdin is, if it is one, a name in the container's devpts, if it has one.
pub(crate) fn name(files: &mut [Arc<OpenFile>], namespace: &MountNamespace, creds: &Credentials) -> Named {
    let Some(terminal) = files.first().and_then(terminal_of) else { return Named::No };
    match adopt(&terminal, namespace, creds) {
        Ok(node) => {
            show_as(files, &terminal, &node);
            Named::Yes
        }
        Err(_) => Named::No,
    }
}

fn adopt(terminal: &Arc<HostTerminal>, namespace: &MountNamespace, creds: &Credentials) -> Result<Path> {
    let caller = KernelCaller::root(creds.user_ns.first());
    let root = namespace.root();
    let view = View { caller: &caller, root: &root, base: &root, umask: 0 };
    let devpts = resolve(&view, b"/dev/pts", LookupFlags::FOLLOW)?;
    let as_terminal: Arc<dyn Terminal> = terminal.clone();
    let index = moat_fs_devpts::adopt(&devpts, &as_terminal, creds.uid)?;
    let node = resolve(&view, format!("/dev/pts/{index}").as_bytes(), LookupFlags::empty())?;
    // As /proc/PID/stat has it: ps(1) finds the name by it.
    terminal.set_device_number(DeviceId::new(SLAVE_MAJOR, index).to_raw());
    Ok(node)
}

/// Has the descriptors of `terminal` show `node` as their name.
fn show_as(files: &mut [Arc<OpenFile>], terminal: &Arc<HostTerminal>, node: &Path) {
    for file in files {
        if terminal_of(file).is_some_and(|t| Arc::ptr_eq(&t, terminal)) {
            *file = OpenFile::new(file.file().clone(), node.clone(), file.flags(), file.creds().clone());
        }
    }
}

fn terminal_of(file: &Arc<OpenFile>) -> Option<Arc<HostTerminal>> {
    file.downcast::<HostStream>()?.terminal().cloned()
}

/// The node belongs to the container's first user, who has the terminal open anyway.
fn make_console(namespace: &MountNamespace, creds: &Credentials) -> Result<Path> {
    let caller = KernelCaller::root(creds.user_ns.first());
    let root = namespace.root();
    let view = View { caller: &caller, root: &root, base: &root, umask: 0 };
    let kind = NodeKind::Device { file_type: FileType::CharDevice, rdev: CONSOLE };
    let node = match ops::mknod(&view, b"/dev/console", 0o620, kind) {
        Err(Errno::EEXIST) => resolve(&view, b"/dev/console", LookupFlags::FOLLOW)?,
        made => made?,
    };
    // Another file of that name is left alone.
    if node.inode().metadata()?.rdev != CONSOLE {
        return Err(Errno::ENXIO);
    }
    node.inode().set_attr(&SetAttr { uid: Some(creds.uid), ..SetAttr::default() })?;
    Ok(node)
}
