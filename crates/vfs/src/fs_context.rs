//! [`FsContext`]: a process's root, working directory and umask (Linux's `fs_struct`).

use std::sync::Arc;

use crate::mount::MountNamespace;
use crate::path::Path;

/// Where a process's paths begin. Shared by CLONE_FS, copied by fork.
#[derive(Clone)]
pub struct FsContext {
    /// Working directory.
    pub cwd: Path,
    /// What `/` means.
    pub root: Path,
    /// Permission bits that new files do not get.
    pub umask: u32,
    /// The mount namespace.
    pub namespace: Arc<MountNamespace>,
}

impl FsContext {
    /// A context at the root of a namespace, with umask 022.
    #[must_use]
    pub fn new(namespace: Arc<MountNamespace>) -> FsContext {
        let root = namespace.root();
        FsContext { cwd: root.clone(), root, umask: 0o022, namespace }
    }
}
