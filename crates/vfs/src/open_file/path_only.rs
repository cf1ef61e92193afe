//! O_PATH: a description that only says which file it is.

use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::{PollEvents, Result};

use super::OpenFile;
use crate::cred::Credentials;
use crate::file::File;
use crate::inode::Hold;
use crate::path::Path;

/// What serves it: nothing, but that the file stays reachable.
struct PathOnly {
    _held: Option<Hold>,
}

impl File for PathOnly {
    fn poll(&self, _f: &OpenFile) -> PollEvents {
        // poll(2) takes it for a descriptor that is not open.
        PollEvents::NVAL
    }
}

impl OpenFile {
    /// Makes an O_PATH description.
    ///
    /// # Errors
    /// Those of [`crate::Inode::hold`].
    pub fn path_only(path: Path, flags: OpenFlags, creds: Arc<Credentials>) -> Result<Arc<OpenFile>> {
        // Before the description is there: what can't be held is not open either.
        let file = PathOnly { _held: path.inode().clone().hold()? };
        Ok(OpenFile::new(Arc::new(file), path, (flags & OpenFlags::PATH_MASK) | OpenFlags::PATH, creds))
    }
}
