//! Names of files that come out of an image.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Dentry;
use crate::inode::Inode;

impl Dentry {
    /// A file whose `name` in `parent` is gone.
    #[must_use]
    pub fn removed(parent: &Arc<Dentry>, name: &[u8], inode: Arc<dyn Inode>) -> Arc<Dentry> {
        Dentry::detached(parent, name, inode)
    }

    /// Forgets what is known of the tree of this dentry, but for what is in use: the file system has other files from here on.
    pub(crate) fn forget_unused(self: &Arc<Self>) {
        let mut top = self.clone();
        while let Some(parent) = top.parent() {
            top = parent;
        }
        let mut all = vec![top];
        let mut at = 0;
        while let Some(dir) = all.get(at).cloned() {
            all.extend(dir.state.read().children.values().cloned());
            at = at.saturating_add(1);
        }
        // Children before their parents, which they hold.
        while let Some(d) = all.pop() {
            {
                let mut s = d.state.write();
                d.cache.absent_total.fetch_sub(s.absent.len(), Ordering::Relaxed);
                s.absent.clear();
                d.version.fetch_add(1, Ordering::AcqRel);
            }
            let (name, Some(parent)) = d.name_and_parent() else { continue };
            let mut s = parent.state.write();
            // Two references: the parent's, which only this lock gives out again, and ours.
            if !d.is_mountpoint() && Arc::strong_count(&d) <= 2 {
                s.children.remove(&name);
            }
        }
    }
}
