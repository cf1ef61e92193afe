//! The upper tree of a union out of an image.

use std::sync::{Arc, Weak};

use moat_abi::fs::FileType;

use super::OverlayFs;
use crate::inode::{NameInDir, OverlayInode, is_opaque, is_whiteout};

impl OverlayFs {
    /// Has files of the union that are in use show what the upper tree has from here on.
    pub(super) fn refresh(&self) {
        let known: Vec<_> = self.union.known.lock().values().filter_map(Weak::upgrade).collect();
        let named: Vec<_> = self.union.known_names.lock().values().filter_map(Weak::upgrade).collect();
        let mut all: Vec<_> = known.into_iter().chain(named).map(|inode| (depth(&inode), inode)).collect();
        // What an inode shows depends on the directory that it is in.
        all.sort_by_key(|(depth, _)| *depth);
        for (_, inode) in all {
            refresh_one(&inode);
        }
    }
}

fn place(inode: &OverlayInode) -> Option<NameInDir> {
    inode.place.lock().clone()
}

fn depth(inode: &OverlayInode) -> usize {
    let mut depth = 0usize;
    let mut above = place(inode);
    while let Some(at) = above {
        depth = depth.saturating_add(1);
        above = place(&at.parent);
    }
    depth
}

fn refresh_one(inode: &Arc<OverlayInode>) {
    let Some(at) = place(inode) else { return };
    let upper = at.parent.parts().upper.and_then(|dir| dir.lookup(&at.name).ok());
    // What is hidden, or has become something else, is met under its name no more.
    let Some(upper) = upper.filter(|u| !is_whiteout(u)) else { return };
    let old = inode.parts();
    let same_type = old.top().is_ok_and(|top| top.file_type() == upper.file_type());
    if !same_type || old.upper.as_ref().is_some_and(|u| Arc::ptr_eq(u, &upper)) {
        return;
    }
    if let Ok(meta) = upper.metadata() {
        inode.union.alias(meta.key(), inode);
    }
    let hides = upper.file_type() != FileType::Directory || is_opaque(&upper);
    let mut layers = inode.layers.lock();
    layers.upper = Some(upper);
    if hides {
        layers.lowers.clear();
    }
}
