//! [`ProcFs`]: a mounted proc.

use std::sync::{Arc, Weak};

use moat_abi::stat::{DeviceId, PROC_SUPER_MAGIC, Statfs};
use moat_abi::{Errno, Result};
use moat_identity::{Namespaces, PidNamespace};
use moat_image::Refusal;
use moat_image::state::FileSystemState;
use moat_kernel::Kernel;
use moat_vfs::Registry;
use moat_vfs::filesystem::{FileSystem, MountRequest};
use moat_vfs::generated::{Attributes, ListedDir};
use moat_vfs::inode::Inode;
use moat_vfs::persist::SaveFiles;

use crate::mount::ProcMount;
use crate::root::Root;

/// A mounted proc.
pub struct ProcFs {
    dev: DeviceId,
    root: Arc<ListedDir<Root>>,
}

impl ProcFs {
    /// A proc that shows the tasks of `pid_ns` and the settings of `namespaces`.
    #[must_use]
    pub fn new(kernel: Arc<Kernel>, pid_ns: Arc<PidNamespace>, namespaces: Arc<Namespaces>) -> Arc<ProcFs> {
        let dev = kernel.vfs.new_device();
        let proc = ProcMount { dev, kernel, pid_ns, namespaces };
        // `PROC_ROOT_INO`.
        let attributes = Attributes { dev, ino: 1, mode: 0o555, uid: 0, gid: 0 };
        Arc::new(ProcFs { dev, root: ListedDir::new(attributes, Root::new(proc)) })
    }
}

impl FileSystem for ProcFs {
    fn save(&self, _saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        Ok(FileSystemState::Made)
    }

    fn name(&self) -> &'static str {
        "proc"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        Ok(Statfs { f_type: PROC_SUPER_MAGIC, f_bsize: 4096, f_frsize: 4096, f_namelen: 255, ..Statfs::default() })
    }
}

fn mount(kernel: Arc<Kernel>, request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    // The mounter's namespaces; the first ones when the sentry itself mounts.
    Ok(match request.caller.task() {
        Some(t) => ProcFs::new(kernel, t.process_pid().namespace().clone(), t.namespaces()),
        None => {
            let (pid_ns, namespaces) = (kernel.root_pid_ns.clone(), Arc::new(kernel.root_namespaces.clone()));
            ProcFs::new(kernel, pid_ns, namespaces)
        }
    })
}

/// Makes "proc" mountable.
pub fn register(registry: &mut Registry, kernel: &Weak<Kernel>) {
    let kernel = kernel.clone();
    registry.filesystem("proc", move |request| mount(kernel.upgrade().ok_or(Errno::ENODEV)?, request));
}
