//! [`Executable`]: a file that processes execute, to which nobody writes meanwhile.

use std::sync::Arc;

use moat_abi::Result;

use crate::metadata::InodeKey;
use crate::path::Path;

/// A file that processes execute.
pub struct Executable {
    path: Path,
    key: InodeKey,
}

impl Executable {
    /// Takes note that the file at `path` is about to be executed.
    ///
    /// # Errors
    /// ETXTBSY while it is open for writing; those of [`crate::Inode::metadata`].
    pub fn new(path: Path) -> Result<Arc<Executable>> {
        let key = path.inode().metadata()?.key();
        path.mount.tables().text_uses.change(key, -1)?;
        Ok(Arc::new(Executable { path, key }))
    }

    /// The file: /proc/PID/exe.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Executable {
    fn drop(&mut self) {
        self.path.mount.tables().text_uses.undo(self.key, -1);
    }
}
