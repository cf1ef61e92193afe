//! [`TmpFs`]: one tmpfs, with its limits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::fs::{FileType, NAME_MAX};
use moat_abi::stat::{self, DeviceId, Statfs};
use moat_abi::{Errno, Result};
use moat_image::pages::Pages;
use moat_image::state::{ContentState, FileSystemState, NodeState, TreeState};
use moat_image::{ImageError, Refusal};
use moat_vfs::filesystem::{MountRequest, options};
use moat_vfs::persist::SaveFiles;
use moat_vfs::{FileSystem, Inode};

use crate::inode::TmpInode;
use crate::medium::Medium;
use crate::persist;
use crate::shared::{BLOCK, Shared};

/// The options of tmpfs(5).
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct TmpOptions {
    /// Bytes of all contents together; 0 is no limit.
    pub size: u64,
    /// Inodes; 0 is no limit.
    pub inodes: u64,
    /// Permissions of the root directory.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Of which a size in percent is: the machine's memory.
    pub memory: u64,
}

impl TmpOptions {
    /// Those of a machine with this many bytes of memory: half of it, as on Linux.
    #[must_use]
    pub fn of_machine(memory: u64) -> TmpOptions {
        TmpOptions { size: memory / 2, inodes: memory / 2 / BLOCK, mode: 0o1777, uid: 0, gid: 0, memory }
    }

    /// Parses an option string over these values.
    ///
    /// # Errors
    /// EINVAL for an unknown option or a bad value.
    pub fn parse(mut self, text: &[u8]) -> Result<TmpOptions> {
        for (key, value) in options(text) {
            let value = value.map(|v| std::str::from_utf8(v).map_err(|_| Errno::EINVAL)).transpose()?;
            let number = |v: Option<&str>| v.and_then(|v| v.parse().ok()).ok_or(Errno::EINVAL);
            match key {
                b"size" => self.size = size(value.ok_or(Errno::EINVAL)?, self.memory)?,
                b"nr_blocks" => self.size = size(value.ok_or(Errno::EINVAL)?, 0)?.saturating_mul(BLOCK),
                b"nr_inodes" => self.inodes = size(value.ok_or(Errno::EINVAL)?, 0)?,
                b"mode" => {
                    self.mode =
                        u32::from_str_radix(value.ok_or(Errno::EINVAL)?, 8).map_err(|_| Errno::EINVAL)? & 0o7777;
                }
                b"uid" => self.uid = number(value)?,
                b"gid" => self.gid = number(value)?,
                // Placement and accounting hints, and flags that runtimes pass in the option string.
                b"huge" | b"mpol" | b"inode32" | b"inode64" | b"noswap" | b"rw" | b"ro" | b"defaults" => {}
                _ => return Err(Errno::EINVAL),
            }
        }
        Ok(self)
    }
}

/// `64k`, `1g` (memparse), or a percentage of `all`.
fn size(text: &str, all: u64) -> Result<u64> {
    // Of the memory of the guest's machine (tmpfs(5)).
    if let Some(percent) = text.strip_suffix('%') {
        let percent: u64 = percent.parse().map_err(|_| Errno::EINVAL)?;
        return Ok((all / 100).saturating_mul(percent));
    }
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(Errno::EINVAL),
    };
    let n: u64 = digits.parse().map_err(|_| Errno::EINVAL)?;
    n.checked_mul(1 << shift).ok_or(Errno::EINVAL)
}

/// A tmpfs.
pub struct TmpFs {
    shared: Arc<Shared>,
    root: Arc<TmpInode>,
    /// What it was made with.
    made_with: TmpOptions,
}

impl TmpFs {
    /// An empty one with this device number.
    ///
    /// # Errors
    /// ENOSPC if the limits leave no room for the root.
    pub fn new(dev: DeviceId, o: &TmpOptions) -> Result<Arc<TmpFs>> {
        TmpFs::make(dev, o, None)
    }

    /// As [`TmpFs::new`], with the contents of larger files on `medium`, whose limits hold besides.
    ///
    /// # Errors
    /// As [`TmpFs::new`].
    pub fn on_medium(dev: DeviceId, o: &TmpOptions, medium: Arc<dyn Medium>) -> Result<Arc<TmpFs>> {
        TmpFs::make(dev, o, Some(medium))
    }

    fn make(dev: DeviceId, o: &TmpOptions, medium: Option<Arc<dyn Medium>>) -> Result<Arc<TmpFs>> {
        let shared = Shared::new(dev, o.size.div_ceil(BLOCK), o.inodes, medium);
        let root = TmpInode::root(&shared, FileType::Directory.mode_bits() | o.mode, o.uid, o.gid)?;
        Ok(Arc::new(TmpFs { shared, root, made_with: *o }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

/// The space of a file system with these limits on that medium: the medium's, in its blocks, if there are none.
fn within(limits: Statfs, medium: &Statfs) -> Statfs {
    // Without a limit of its own it has what the disk has.
    if limits.f_blocks == 0 {
        return Statfs { f_type: 0, f_fsid: [0; 2], f_flags: 0, ..*medium };
    }
    let left = |blocks: u64| blocks.saturating_mul(medium.f_frsize.max(1).cast_unsigned()) / BLOCK;
    Statfs {
        f_bfree: limits.f_bfree.min(left(medium.f_bfree)),
        f_bavail: limits.f_bavail.min(left(medium.f_bavail)),
        ..limits
    }
}

/// The constructor for mount(2).
pub(crate) fn construct(request: &MountRequest<'_>) -> Result<Arc<dyn FileSystem>> {
    let creds = request.caller.creds();
    let unset = TmpOptions { uid: u32::MAX, gid: u32::MAX, ..TmpOptions::of_machine(request.tables.total_memory) };
    let mut o = unset.parse(request.options)?;
    // What is given is an id of the caller's user namespace.
    let ns = &creds.user_ns;
    o.uid = if o.uid == unset.uid { creds.fsuid } else { ns.kernel_uid(o.uid).ok_or(Errno::EINVAL)? };
    o.gid = if o.gid == unset.gid { creds.fsgid } else { ns.kernel_gid(o.gid).ok_or(Errno::EINVAL)? };
    Ok(TmpFs::new(request.tables.new_device(), &o)?)
}

impl FileSystem for TmpFs {
    fn name(&self) -> &'static str {
        "tmpfs"
    }

    fn root(&self) -> Arc<dyn Inode> {
        self.root.clone()
    }

    fn dev(&self) -> DeviceId {
        self.shared.dev
    }

    fn statfs(&self) -> Result<Statfs> {
        let s = &self.shared;
        let (blocks, inodes) = (s.max_blocks.load(Ordering::Relaxed), s.max_inodes.load(Ordering::Relaxed));
        let free = blocks.saturating_sub(s.used_blocks.load(Ordering::Relaxed));
        let mut space = Statfs {
            f_bsize: BLOCK.cast_signed(),
            f_frsize: BLOCK.cast_signed(),
            f_blocks: blocks,
            f_bfree: free,
            f_bavail: free,
            ..Statfs::default()
        };
        // The disk may have less room than the limit says.
        if let Some(medium) = &s.medium {
            space = within(space, &medium.statfs()?);
        }
        Ok(Statfs {
            f_type: stat::TMPFS_MAGIC,
            f_files: inodes,
            f_ffree: inodes.saturating_sub(s.used_inodes.load(Ordering::Relaxed)),
            f_namelen: i64::try_from(NAME_MAX).unwrap_or(255),
            ..space
        })
    }

    fn remount(&self, text: &[u8]) -> Result<()> {
        let s = &self.shared;
        let size = s.max_blocks.load(Ordering::Relaxed).saturating_mul(BLOCK);
        let old = TmpOptions {
            size,
            inodes: s.max_inodes.load(Ordering::Relaxed),
            ..TmpOptions::of_machine(self.made_with.memory)
        };
        let new = old.parse(text)?;
        let blocks = new.size.div_ceil(BLOCK);
        let used = (s.used_blocks.load(Ordering::Relaxed), s.used_inodes.load(Ordering::Relaxed));
        // What is in use must fit (`shmem_reconfigure`).
        if (blocks != 0 && used.0 > blocks) || (new.inodes != 0 && used.1 > new.inodes) {
            return Err(Errno::EINVAL);
        }
        s.max_blocks.store(blocks, Ordering::Relaxed);
        s.max_inodes.store(new.inodes, Ordering::Relaxed);
        s.note_remount();
        Ok(())
    }

    fn made(&self) {
        self.shared.made();
    }

    fn save(&self, saver: &mut dyn SaveFiles) -> std::result::Result<FileSystemState, Refusal> {
        if self.shared.is_remounted() {
            // A restore makes it from the configuration, which has the old ones.
            return Err(Refusal::new("a tmpfs whose limits have been changed"));
        }
        match saver.pages() {
            Some(pages) if !self.shared.is_as_made() => Ok(FileSystemState::Tree(persist::save(&self.root, pages)?)),
            _ => Ok(FileSystemState::Made),
        }
    }

    fn restore(&self, tree: &TreeState, pages: &Pages) -> std::result::Result<(), ImageError> {
        persist::restore(&self.root, tree, pages)
    }

    fn restore_unnamed(&self, node: &NodeState, pages: &Pages) -> std::result::Result<Arc<dyn Inode>, ImageError> {
        match node.content {
            ContentState::File { .. } => Ok(persist::make(&self.shared, node, 0, pages)?),
            _ => Err(ImageError::state("a file without a name that is no regular file")),
        }
    }

    /// What is not as it would be without options (`shmem_show_options`).
    fn show_options(&self) -> String {
        let (made, default) = (&self.made_with, TmpOptions::of_machine(self.made_with.memory));
        let (blocks, inodes) = (&self.shared.max_blocks, &self.shared.max_inodes);
        let (blocks, inodes) = (blocks.load(Ordering::Relaxed), inodes.load(Ordering::Relaxed));
        let shown = [
            (blocks != default.size.div_ceil(BLOCK), format!(",size={}k", blocks.saturating_mul(BLOCK / 1024))),
            (inodes != default.inodes, format!(",nr_inodes={inodes}")),
            (made.mode != default.mode, format!(",mode={:03o}", made.mode)),
            (made.uid != default.uid, format!(",uid={}", made.uid)),
            (made.gid != default.gid, format!(",gid={}", made.gid)),
        ];
        shown.into_iter().filter(|(is_set, _)| *is_set).map(|(_, text)| text).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_checked() {
        let o = TmpOptions { size: 100 << 20, ..TmpOptions::of_machine(1000 << 20) };
        let p = |t: &str| o.parse(t.as_bytes());
        assert_eq!(p("size=64k,mode=700,uid=5").map(|o| (o.size, o.mode, o.uid)), Ok((65536, 0o700, 5)));
        assert_eq!(p("size=50%").map(|o| o.size), Ok(500 << 20));
        assert_eq!(p("size=300%").map(|o| o.size), Ok(3000 << 20));
        for bad in ["size=", "size=x", "size=99999999999999g", "mode=9", "what", "uid=-1"] {
            assert_eq!(p(bad).err(), Some(Errno::EINVAL), "{bad}");
        }
    }
}
