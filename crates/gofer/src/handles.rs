//! [`Handles`]: the files of one tree that its client holds, by number.

use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_fs_host::direct::DirectNode;
use moat_fs_host::gofer::protocol::{Handle, MAX_HANDLES, ROOT};

/// A bounded table; [`ROOT`] is always in it.
#[derive(Debug)]
pub(crate) struct Handles {
    open: Vec<Option<Arc<DirectNode>>>,
    free: Vec<Handle>,
}

impl Handles {
    pub(crate) fn new(root: DirectNode) -> Handles {
        Handles { open: vec![Some(Arc::new(root))], free: Vec::new() }
    }

    /// The file that the client means.
    ///
    /// # Errors
    /// EBADF for a number that was not given out, or was closed.
    pub(crate) fn get(&self, handle: Handle) -> Result<Arc<DirectNode>> {
        let slot = usize::try_from(handle).ok().and_then(|index| self.open.get(index));
        slot.cloned().flatten().ok_or(Errno::EBADF)
    }

    /// Gives a file a number.
    ///
    /// # Errors
    /// ENFILE if the client holds too many.
    pub(crate) fn insert(&mut self, node: DirectNode) -> Result<Handle> {
        let node = Some(Arc::new(node));
        if let Some(handle) = self.free.pop() {
            let slot = usize::try_from(handle).ok().and_then(|index| self.open.get_mut(index));
            *slot.ok_or(Errno::EBADF)? = node;
            return Ok(handle);
        }
        if self.open.len() >= MAX_HANDLES {
            return Err(Errno::ENFILE);
        }
        let handle = Handle::try_from(self.open.len()).map_err(|_| Errno::ENFILE)?;
        self.open.push(node);
        Ok(handle)
    }

    /// Lets a file go. The root, and what is not open, stays as it is.
    pub(crate) fn close(&mut self, handle: Handle) {
        if handle == ROOT {
            return;
        }
        let slot = usize::try_from(handle).ok().and_then(|index| self.open.get_mut(index));
        if slot.is_some_and(|slot| slot.take().is_some()) {
            self.free.push(handle);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dir() -> DirectNode {
        use moat_fs_host::tree::HostTree;
        moat_fs_host::DirectTree::new(std::fs::File::open("/").expect("open").into()).root().expect("root")
    }

    #[test]
    fn numbers_are_given_and_taken_back() {
        let mut handles = Handles::new(dir());
        let a = handles.insert(dir()).expect("insert");
        let b = handles.insert(dir()).expect("insert");
        assert!(a != ROOT && b != ROOT && a != b);
        handles.close(a);
        handles.close(a);
        assert_eq!(handles.get(a).err(), Some(Errno::EBADF));
        assert_eq!(handles.insert(dir()).expect("insert"), a);
        let c = handles.insert(dir()).expect("insert");
        assert!(c != a && c != b, "a handle closed twice is given out once");
    }

    #[test]
    fn numbers_of_no_directory_are_refused() {
        let mut handles = Handles::new(dir());
        handles.close(ROOT);
        handles.close(Handle::MAX);
        assert!(handles.get(ROOT).is_ok());
        assert_eq!(handles.get(1).err(), Some(Errno::EBADF));
        assert_eq!(handles.get(Handle::MAX).err(), Some(Errno::EBADF));
    }
}
