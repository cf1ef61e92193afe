//! [`Path`]: a place in the tree of mounts, and its text.

use std::fmt;
use std::sync::Arc;

use moat_abi::Result;

use crate::dentry::Dentry;
use crate::inode::Inode;
use crate::mount::Mount;
use crate::text_busy::WriteAccess;

/// A place in the tree: a dentry, seen through a mount.
#[derive(Clone)]
pub struct Path {
    /// The mount it is seen through.
    pub mount: Arc<Mount>,
    /// The name in that mount's file system.
    pub dentry: Arc<Dentry>,
}

/// Whether a path's text could be traced to the root asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It begins at the root.
    Inside,
    /// The place is outside the root (or unmounted): the text begins at the last mount found.
    Unreachable,
    /// A name that has no place in the tree: `pipe:[5]`.
    Detached,
}

impl PartialEq for Path {
    fn eq(&self, other: &Path) -> bool {
        Arc::ptr_eq(&self.dentry, &other.dentry) && Arc::ptr_eq(&self.mount, &other.mount)
    }
}

impl fmt::Debug for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.text(None)))
    }
}

impl Path {
    /// The root of a mount.
    #[must_use]
    pub fn root_of(mount: Arc<Mount>) -> Path {
        let dentry = mount.root().clone();
        Path { mount, dentry }
    }

    /// The inode.
    #[must_use]
    pub fn inode(&self) -> &Arc<dyn Inode> {
        self.dentry.inode()
    }

    /// Whether this is the root of its mount.
    #[must_use]
    pub fn is_mount_root(&self) -> bool {
        Arc::ptr_eq(&self.dentry, self.mount.root())
    }

    /// Takes note that the regular file here is being opened for writing.
    ///
    /// # Errors
    /// ETXTBSY while it is executed; those of [`Inode::metadata`].
    pub fn write_access(&self) -> Result<WriteAccess> {
        WriteAccess::take(&self.mount.tables().text_uses, self.inode().metadata()?.key())
    }

    /// The parent directory as `..` finds it, never above `root`: crosses mounts; the root is its own parent.
    #[must_use]
    pub fn parent(&self, root: &Path) -> Path {
        let mut at = self.clone();
        loop {
            if at == *root {
                return at;
            }
            if !at.is_mount_root() {
                // A dentry that is not the mount's root has a parent, except that of an anonymous file.
                return match at.dentry.parent() {
                    Some(parent) => Path { mount: at.mount, dentry: parent },
                    None => at,
                };
            }
            // From the root of a mount one goes up where it is mounted.
            match at.mount.mountpoint() {
                Some(p) => at = p,
                None => return at,
            }
        }
    }

    /// What is on top of this place: the root of the mount that covers it, if one does.
    #[must_use]
    pub fn topmost(self) -> Path {
        // Mounts may be stacked on one place.
        let mut at = self;
        while at.dentry.is_mountpoint()
            && let Some(m) = at.mount.child_at(&at.dentry)
        {
            at = Path::root_of(m);
        }
        at
    }

    /// The text as /proc shows it (`d_path`): from `root` (or the topmost mount) down, with " (deleted)" for a name that is gone.
    #[must_use]
    pub fn text(&self, root: Option<&Path>) -> Vec<u8> {
        let (mut text, _) = self.trace(root);
        if self.dentry.is_deleted() {
            text.extend_from_slice(b" (deleted)");
        }
        text
    }

    /// The text without a mark of deletion, and how far it could be traced.
    #[must_use]
    pub fn trace(&self, root: Option<&Path>) -> (Vec<u8>, Reach) {
        // A pipe or socket has a name but no place; a namespace's file has one where it is mounted.
        if self.dentry.is_anonymous() && !(self.is_mount_root() && self.mount.mountpoint().is_some()) {
            return (self.dentry.name().to_vec(), Reach::Detached);
        }
        // Collected from the end: only the way up is known.
        let mut names = Vec::new();
        let mut at = self.clone();
        let reach = loop {
            if root.is_some_and(|r| at == *r) {
                break Reach::Inside;
            }
            if at.is_mount_root() {
                match at.mount.mountpoint() {
                    Some(p) => at = p,
                    None if root.is_none() => break Reach::Inside,
                    None => break Reach::Unreachable,
                }
                continue;
            }
            let (name, parent) = at.dentry.name_and_parent();
            match parent {
                Some(p) => at.dentry = p,
                // A file without a name in any directory: O_TMPFILE shows its number.
                None => {
                    names.push(name);
                    break Reach::Unreachable;
                }
            }
            names.push(name);
        };
        let mut text = Vec::new();
        for name in names.iter().rev() {
            text.push(b'/');
            text.extend_from_slice(name);
        }
        // The root itself.
        if text.is_empty() {
            text.push(b'/');
        }
        (text, reach)
    }

    /// Whether this place is `ancestor` or below it, across mounts.
    #[must_use]
    pub fn is_below(&self, ancestor: &Path) -> bool {
        let mut at = self.clone();
        loop {
            if at == *ancestor {
                return true;
            }
            if at.is_mount_root() {
                match at.mount.mountpoint() {
                    Some(p) => at = p,
                    None => return false,
                }
            } else {
                match at.dentry.parent() {
                    Some(p) => at.dentry = p,
                    None => return false,
                }
            }
        }
    }
}
