//! A tmpfs into an image, and out of it.
//!
//! A restore finds a file system that the configuration has made, and on whose directories others are mounted. A file of the image
//! that was there at the beginning, with the same number, takes the place of that: names that are in use go on leading to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use moat_abi::Errno;
use moat_abi::fs::{FileType, S_IALLUGO};
use moat_abi::stat::DeviceId;
use moat_abi::time::Timespec;
use moat_image::pages::{Pages, PagesWriter};
use moat_image::state::{ContentState, EntryState, NodeState, TreeState};
use moat_image::{ImageError, Refusal};
use moat_sync::{LockClass, Mutex};

use crate::attr::Attr;
use crate::data::Data;
use crate::dir::{Entries, Entry};
use crate::inode::{Content, TmpInode};
use crate::shared::Shared;

/// Inode numbers are below this: what is above is for file systems that show this one's files.
const MAX_INO: u64 = 1 << 60;

/// The files below `root` as data.
///
/// # Errors
/// Contents that the host does not let be read.
pub(crate) fn save(root: &Arc<TmpInode>, pages: &mut PagesWriter) -> Result<TreeState, Refusal> {
    // A list instead of a recursion: a guest makes trees of any depth.
    // What is in the list and not in `nodes` yet is still to be looked at.
    let (mut all, mut nodes) = (vec![root.clone()], Vec::new());
    let mut numbers = HashMap::from([(root.ino, 0)]);
    while let Some(inode) = all.get(nodes.len()).cloned() {
        let content = match &inode.content {
            Content::Dir(entries) => {
                let (entries, last_cookie) = entries.lock().all();
                let entry = |Entry { name, cookie, inode }| {
                    let next = u32::try_from(all.len()).unwrap_or(u32::MAX);
                    // A file with several names is saved once; the others refer to it by its place in the list.
                    let node = *numbers.entry(inode.ino).or_insert(next);
                    if node == next {
                        all.push(inode);
                    }
                    EntryState { name, cookie, node }
                };
                ContentState::Directory { entries: entries.into_iter().map(entry).collect(), last_cookie }
            }
            _ => inode.save_content(Some(pages))?,
        };
        nodes.push(inode.save_node(content));
    }
    Ok(TreeState { last_ino: root.shared().last_ino(), nodes })
}

impl TmpInode {
    /// What is in anything but a directory.
    fn save_content(&self, pages: Option<&mut PagesWriter>) -> Result<ContentState, Refusal> {
        match &self.content {
            Content::File(data) => data.lock().save(pages),
            Content::Symlink(target) => Ok(ContentState::Link(target.to_vec())),
            Content::Special(device) => Ok(ContentState::Special(device.major, device.minor)),
            // A directory is saved with its entries, by the walk above. Without a name the walk does not come by.
            Content::Dir(_) => Err(Refusal::new("a directory that has been removed")),
        }
    }

    fn save_node(&self, content: ContentState) -> NodeState {
        // Stores through a mapping are changes that nobody has noted yet.
        let stored_at = self.take_stores();
        let a = self.attr();
        let (mtime, ctime) = (stored_at.unwrap_or(a.mtime), stored_at.unwrap_or(a.ctime));
        NodeState {
            ino: self.ino,
            mode: self.kind.mode_bits() | a.mode,
            uid: a.uid,
            gid: a.gid,
            times: [a.atime, mtime, ctime, self.btime].map(|t| (t.tv_sec, t.tv_nsec)),
            linkable: a.linkable,
            xattrs: a.xattrs.iter().map(|(name, value)| (name.clone(), value.clone())).collect(),
            content,
        }
    }

    /// The file as data, if it has no name.
    ///
    /// # Errors
    /// A file that has one; a directory.
    pub(crate) fn save_nameless(&self, pages: Option<&mut PagesWriter>) -> Result<NodeState, Refusal> {
        if self.attr().nlink != 0 {
            // It would be two files after the restore: one in the tree, and this.
            return Err(Refusal::new("a file of which one name is gone and another is not"));
        }
        Ok(self.save_node(self.save_content(pages)?))
    }
}

fn kind_of(node: &NodeState) -> Result<FileType, ImageError> {
    let wrong = || ImageError::state(format!("a file of mode {:o}", node.mode));
    let kind = FileType::from_mode(node.mode).ok_or_else(wrong)?;
    // In a hostile image the mode and the content need not agree.
    let fits = match node.content {
        ContentState::File { .. } => kind == FileType::Regular,
        ContentState::Directory { .. } => kind == FileType::Directory,
        ContentState::Link(_) => kind == FileType::Symlink,
        ContentState::Special(..) => !matches!(kind, FileType::Regular | FileType::Directory | FileType::Symlink),
    };
    if fits { Ok(kind) } else { Err(wrong()) }
}

fn timespec((tv_sec, tv_nsec): (i64, i64)) -> Result<Timespec, ImageError> {
    // What utimensat(2) would refuse is not to come in this way.
    let fits = (0..1_000_000_000).contains(&tv_nsec);
    if fits { Ok(Timespec { tv_sec, tv_nsec }) } else { Err(ImageError::state("a time of a file")) }
}

fn attr_of(node: &NodeState, nlink: u32) -> Result<Attr, ImageError> {
    let [atime, mtime, ctime, _] = node.times;
    let mut attr = Attr {
        mode: node.mode & S_IALLUGO,
        uid: node.uid,
        gid: node.gid,
        nlink,
        atime: timespec(atime)?,
        mtime: timespec(mtime)?,
        ctime: timespec(ctime)?,
        linkable: nlink == 0 && node.linkable,
        xattrs: BTreeMap::new(),
        xattr_bytes: 0,
    };
    for (name, value) in &node.xattrs {
        // By the limits of setxattr(2): names, sizes, and bytes of all together.
        attr.put_xattr(name, value).map_err(|_| ImageError::state("extended attributes of a file"))?;
    }
    Ok(attr)
}

/// A new file of the image; a directory is empty.
pub(crate) fn make(
    shared: &Arc<Shared>,
    node: &NodeState,
    nlink: u32,
    pages: &Pages,
) -> Result<Arc<TmpInode>, ImageError> {
    let kind = kind_of(node)?;
    // Zero stands for no file in getdents(2); the numbers from MAX_INO on are given by whoever shows this file system's
    // files under numbers of its own.
    if node.ino == 0 || node.ino >= MAX_INO {
        return Err(ImageError::state(format!("the inode number {}", node.ino)));
    }
    let content = match &node.content {
        ContentState::File { .. } => {
            Content::File(Mutex::new(LockClass::FileData, Data::restore(shared, &node.content, pages)?))
        }
        ContentState::Directory { .. } => Content::Dir(Mutex::new(LockClass::Inode, Entries::default())),
        ContentState::Link(target) => Content::Symlink(target.as_slice().into()),
        ContentState::Special(major, minor) => Content::Special(DeviceId::new(*major, *minor)),
    };
    let attr = Mutex::new(LockClass::Inode, attr_of(node, nlink)?);
    let btime = timespec(node.times[3])?;
    shared.put_back_ino(node.ino).map_err(full)?;
    Ok(Arc::new(TmpInode { shared: shared.clone(), ino: node.ino, kind, btime, attr, content }))
}

fn full(errno: Errno) -> ImageError {
    ImageError::Unfit(format!("files of the image in a tmpfs: {errno}"))
}

/// Puts the files of an image below `root`.
///
/// # Errors
/// What is wrong with them; no room.
pub(crate) fn restore(root: &Arc<TmpInode>, tree: &TreeState, pages: &Pages) -> Result<(), ImageError> {
    // All of it is checked before anything is changed.
    let links = links(tree)?;
    let mut known = take_all(root);
    let mut nodes = Vec::new();
    for (i, (node, nlink)) in tree.nodes.iter().zip(&links).enumerate() {
        // A file that the configuration has made keeps its inode: it may be mounted, or open by number already.
        let there = if i == 0 { Some(root.clone()) } else { known.remove(&node.ino) };
        let inode = match there.filter(|inode| inode.can_become(node)) {
            Some(inode) => {
                inode.put_back(node, *nlink, pages)?;
                inode
            }
            None if i == 0 => return Err(ImageError::state("a tree of files without a root")),
            None => make(root.shared(), node, *nlink, pages)?,
        };
        nodes.push(inode);
    }
    for (dir, node) in nodes.iter().zip(&tree.nodes) {
        let (Content::Dir(inside), ContentState::Directory { entries, last_cookie }) = (&dir.content, &node.content)
        else {
            continue;
        };
        let mut inside = inside.lock();
        for entry in entries {
            let inode = usize::try_from(entry.node).ok().and_then(|at| nodes.get(at));
            let put = inode.and_then(|inode| inside.put_back(&entry.name, entry.cookie, inode.clone()).ok());
            put.ok_or_else(|| ImageError::state("an entry of a directory"))?;
        }
        inside.put_back_cookie(*last_cookie).map_err(|_| ImageError::state("the last entry of a directory"))?;
    }
    root.shared().put_back_last_ino(tree.last_ino.min(MAX_INO));
    root.shared().note_change();
    Ok(())
}

/// How many links each file has. Directories have one name each, behind that of the directory that they are in: so there are no
/// circles.
fn links(tree: &TreeState) -> Result<Vec<u32>, ImageError> {
    let wrong = || ImageError::state("the names of files");
    let is_dir = |node: &NodeState| matches!(node.content, ContentState::Directory { .. });
    let mut numbers = std::collections::HashSet::new();
    let mut names = vec![0_u32; tree.nodes.len()];
    let mut subdirs = names.clone();
    for (i, node) in tree.nodes.iter().enumerate() {
        if !numbers.insert(node.ino) {
            return Err(wrong());
        }
        let ContentState::Directory { entries, .. } = &node.content else { continue };
        for entry in entries {
            let at = usize::try_from(entry.node).map_err(|_| wrong())?;
            let (named, target) = (names.get_mut(at).ok_or_else(wrong)?, tree.nodes.get(at).ok_or_else(wrong)?);
            *named = named.saturating_add(1);
            if is_dir(target) {
                let inside = subdirs.get_mut(i).ok_or_else(wrong)?;
                *inside = inside.saturating_add(1);
                // A directory has one name, and stands behind the one that it is in: so there is no circle of them.
                if at <= i || *named > 1 {
                    return Err(wrong());
                }
            }
        }
    }
    let counted = tree.nodes.iter().zip(names.iter().zip(subdirs)).enumerate();
    let link = |(i, (node, (named, subdirs))): (usize, (&NodeState, (&u32, u32)))| match (i, named) {
        (0, 0) | (1.., 1..) => Ok(if is_dir(node) { subdirs.saturating_add(2) } else { *named }),
        _ => Err(wrong()),
    };
    counted.map(link).collect()
}

/// All files below `root`, by their numbers; its directories are empty then.
fn take_all(root: &Arc<TmpInode>) -> HashMap<u64, Arc<TmpInode>> {
    let (mut found, mut pending) = (HashMap::new(), vec![root.clone()]);
    while let Some(inode) = pending.pop() {
        if let Content::Dir(entries) = &inode.content {
            pending.append(&mut entries.lock().drain());
        }
        found.insert(inode.ino, inode);
    }
    found
}

impl TmpInode {
    /// Whether it can stand for a file of the image: what never changes of it is the same.
    fn can_become(&self, node: &NodeState) -> bool {
        let same = match (&self.content, &node.content) {
            (Content::File(_), ContentState::File { .. }) | (Content::Dir(_), ContentState::Directory { .. }) => true,
            (Content::Symlink(target), ContentState::Link(saved)) => **target == **saved,
            (Content::Special(device), ContentState::Special(major, minor)) => *device == DeviceId::new(*major, *minor),
            _ => false,
        };
        same && self.ino == node.ino && kind_of(node).is_ok_and(|kind| kind == self.kind)
    }

    fn put_back(&self, node: &NodeState, nlink: u32, pages: &Pages) -> Result<(), ImageError> {
        if let Content::File(data) = &self.content {
            let mut data = data.lock();
            data.uncharge(self.shared());
            *data = Data::restore(self.shared(), &node.content, pages)?;
        }
        *self.attr() = attr_of(node, nlink)?;
        Ok(())
    }
}
