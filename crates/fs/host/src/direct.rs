//! [`DirectTree`]: the sentry reaches the host's files itself, by descriptors below one that it was given.

mod attributes;
mod make;
mod nodes;
mod sockets;
mod stat;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::stat::Statfs;
use moat_abi::{Errno, Result};
use moat_host::descriptors::{Purpose, within};
use moat_vfs::file::SyncKind;
use moat_vfs::inode::{Metadata, SetAttr};

use rustix::fs::{self, AtFlags, Mode, OFlags, RenameFlags};

use crate::tree::{HostAccess, HostEntry, HostKind, HostRename, HostTree, NewHostNode};

pub use nodes::NodeMaker;
pub use sockets::{Fifos, Sockets, SpecialNodes};
pub(crate) use stat::{direct_block, may_not_append, metadata_of};

/// A tree below one donated directory descriptor.
pub struct DirectTree {
    root: OwnedFd,
    /// Who may make nodes of devices.
    nodes: Option<Arc<NodeMaker>>,
    special: SpecialNodes,
}

impl DirectTree {
    /// The tree below `root`, a directory opened with O_PATH or O_RDONLY.
    #[must_use]
    pub fn new(root: OwnedFd) -> DirectTree {
        DirectTree { root, nodes: None, special: SpecialNodes::default() }
    }

    /// Says whose the sockets and FIFOs are.
    #[must_use]
    pub fn with_special(self, special: SpecialNodes) -> DirectTree {
        DirectTree { special, ..self }
    }

    /// Has `nodes` make nodes of devices, where this process itself may not.
    #[must_use]
    pub fn with_nodes(self, nodes: Option<Arc<NodeMaker>>) -> DirectTree {
        DirectTree { nodes, ..self }
    }
}

impl DirectTree {
    /// A descriptor that is more than a path: of a directory, or of a regular file that was held.
    ///
    /// # Errors
    /// ENOTDIR; those of open(2).
    pub fn open_to_watch(&self, node: &DirectNode) -> Result<OwnedFd> {
        match node.access {
            Some(_) => node.fd.try_clone().map_err(Errno::from),
            None => self.open_directory(node),
        }
    }
}

/// A file that is held.
#[derive(Debug)]
pub struct DirectNode {
    fd: OwnedFd,
    /// `None` for O_PATH.
    access: Option<HostAccess>,
}

impl DirectNode {
    fn path(fd: OwnedFd) -> DirectNode {
        DirectNode { fd, access: None }
    }
}

impl AsFd for DirectNode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Flags of every open: the host's descriptors stay in this process, links are not followed, terminals not taken.
const BASE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NOCTTY);
/// O_NONBLOCK, so that a FIFO put in a regular file's place can't block the sentry.
const FILE: OFlags = BASE.union(OFlags::NONBLOCK);

/// A component that the host would read as more than a name would leave the tree.
fn component(name: &[u8]) -> Result<&[u8]> {
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::EINVAL);
    }
    Ok(name)
}

fn open_flags(access: HostAccess) -> OFlags {
    match access {
        HostAccess::Read => OFlags::RDONLY,
        HostAccess::ReadNoAtime => OFlags::RDONLY | OFlags::NOATIME,
        HostAccess::Write => OFlags::WRONLY,
        HostAccess::ReadWrite => OFlags::RDWR,
    }
}

/// Opens an entry that has to be of this type. Nothing is waited for.
fn open_only(dir: &DirectNode, name: &[u8], access: HostAccess, file_type: FileType) -> Result<OwnedFd> {
    let fd = fs::openat(dir, component(name)?, FILE | open_flags(access), Mode::empty()).map_err(Errno::from)?;
    let fd = within(fd, Purpose::File)?;
    let st = fs::fstat(&fd).map_err(Errno::from)?;
    // The name may have been given to something else since it was looked up.
    if FileType::from_mode(st.st_mode) == Some(file_type) { Ok(fd) } else { Err(Errno::ESTALE) }
}

/// Opens the directory that `dir` holds, to read or sync it.
fn open_dir(dir: &DirectNode) -> Result<OwnedFd> {
    fs::openat(dir, c".", BASE | OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).map_err(Errno::from)
}

/// Bytes of directory entries asked for at a time.
const LISTING_BYTES: usize = 32 << 10;

impl HostTree for DirectTree {
    type Node = DirectNode;
    const ADOPTS: bool = true;

    fn root(&self) -> Result<DirectNode> {
        self.root.try_clone().map(DirectNode::path).map_err(Errno::from)
    }

    fn stat_at(&self, dir: &DirectNode, name: &[u8]) -> Result<Metadata> {
        stat::entry(dir.as_fd(), component(name)?)
    }

    fn lookup(&self, dir: &DirectNode, name: &[u8]) -> Result<(DirectNode, Metadata)> {
        let fd = fs::openat(dir, component(name)?, BASE | OFlags::PATH, Mode::empty()).map_err(Errno::from)?;
        let fd = within(fd, Purpose::File)?;
        let meta = metadata_of(&fd)?;
        Ok((DirectNode::path(fd), meta))
    }

    fn hold(&self, dir: &DirectNode, name: &[u8], access: HostAccess) -> Result<(DirectNode, Metadata)> {
        let (fd, access) = match self.open_at(dir, name, access) {
            Ok(fd) => (fd, access),
            // On a read-only mount, and while the host executes it.
            Err(_) => (self.open_at(dir, name, HostAccess::Read)?, HostAccess::Read),
        };
        let meta = metadata_of(&fd)?;
        Ok((DirectNode { fd, access: Some(access) }, meta))
    }

    fn adopt(&self, fd: &OwnedFd, access: HostAccess) -> Option<DirectNode> {
        Some(DirectNode { fd: fd.try_clone().ok()?, access: Some(access) })
    }

    fn stat(&self, node: &DirectNode) -> Result<Metadata> {
        metadata_of(node)
    }

    fn open_at(&self, dir: &DirectNode, name: &[u8], access: HostAccess) -> Result<OwnedFd> {
        open_only(dir, name, access, FileType::Regular)
    }

    fn open_fifo_at(&self, dir: &DirectNode, name: &[u8], access: HostAccess) -> Result<OwnedFd> {
        match self.special.fifos {
            Fifos::Own => Err(Errno::EPERM),
            Fifos::Host => open_only(dir, name, access, FileType::Fifo),
        }
    }

    fn open_directory(&self, dir: &DirectNode) -> Result<OwnedFd> {
        within(open_dir(dir)?, Purpose::File)
    }

    fn reopen(&self, node: &DirectNode, access: HostAccess) -> Result<OwnedFd> {
        match node.access {
            Some(has) if has.allows(access) => node.fd.try_clone().map_err(Errno::from),
            _ => Err(Errno::ESTALE),
        }
    }

    fn create(&self, dir: &DirectNode, name: &[u8], new: NewHostNode) -> Result<OwnedFd> {
        make::file(dir, component(name)?, new)
    }

    fn unnamed(&self, dir: &DirectNode, new: NewHostNode) -> Result<(DirectNode, OwnedFd)> {
        let fd = make::unnamed(dir, new)?;
        let node = self.adopt(&fd, HostAccess::ReadWrite).ok_or(Errno::EMFILE)?;
        Ok((node, fd))
    }

    fn make(
        &self,
        dir: &DirectNode,
        name: &[u8],
        kind: HostKind<'_>,
        new: NewHostNode,
    ) -> Result<(DirectNode, Metadata)> {
        let fd = make::node(dir, component(name)?, kind, new, self.nodes.as_deref())?;
        let meta = metadata_of(&fd)?;
        Ok((DirectNode::path(fd), meta))
    }

    fn link(&self, node: &DirectNode, new_dir: &DirectNode, new_name: &[u8]) -> Result<()> {
        // On older hosts this takes a capability: see `HostInode::link_to`.
        fs::linkat(node, c"", new_dir, component(new_name)?, AtFlags::EMPTY_PATH).map_err(Errno::from)
    }

    fn link_at(&self, dir: &DirectNode, name: &[u8], new_dir: &DirectNode, new_name: &[u8]) -> Result<()> {
        fs::linkat(dir, component(name)?, new_dir, component(new_name)?, AtFlags::empty()).map_err(Errno::from)
    }

    fn unlink(&self, dir: &DirectNode, name: &[u8]) -> Result<()> {
        fs::unlinkat(dir, component(name)?, AtFlags::empty()).map_err(Errno::from)
    }

    fn rmdir(&self, dir: &DirectNode, name: &[u8]) -> Result<()> {
        fs::unlinkat(dir, component(name)?, AtFlags::REMOVEDIR).map_err(Errno::from)
    }

    fn rename(
        &self,
        dir: &DirectNode,
        name: &[u8],
        new_dir: &DirectNode,
        new_name: &[u8],
        how: HostRename,
    ) -> Result<()> {
        let flags = match how {
            HostRename::Replace => RenameFlags::empty(),
            HostRename::NoReplace => RenameFlags::NOREPLACE,
            HostRename::Exchange => RenameFlags::EXCHANGE,
            HostRename::Whiteout => RenameFlags::WHITEOUT,
            HostRename::WhiteoutNoReplace => RenameFlags::WHITEOUT | RenameFlags::NOREPLACE,
        };
        fs::renameat_with(dir, component(name)?, new_dir, component(new_name)?, flags).map_err(Errno::from)
    }

    fn connect(&self, node: &DirectNode, socket_type: u32) -> Result<OwnedFd> {
        self.special.sockets.connect(node.as_fd(), socket_type)
    }

    fn bind(
        &self,
        dir: &DirectNode,
        name: &[u8],
        socket_type: u32,
        new: NewHostNode,
    ) -> Result<(DirectNode, Metadata, OwnedFd)> {
        let (fd, socket) = self.special.sockets.bind(dir, component(name)?, socket_type, new)?;
        let meta = metadata_of(&fd)?;
        Ok((DirectNode::path(fd), meta, socket))
    }

    fn read_link(&self, node: &DirectNode) -> Result<Vec<u8>> {
        fs::readlinkat(node, c"", Vec::new()).map(|t| t.into_bytes()).map_err(Errno::from)
    }

    fn set_attr(&self, node: &DirectNode, attr: &SetAttr) -> Result<()> {
        attributes::set(node, attr)
    }

    fn get_xattr(&self, node: &DirectNode, name: &[u8]) -> Result<Vec<u8>> {
        attributes::get_xattr(node, name)
    }

    fn set_xattr(&self, node: &DirectNode, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        attributes::set_xattr(node, name, value, flags)
    }

    fn list_xattr(&self, node: &DirectNode) -> Result<Vec<Vec<u8>>> {
        attributes::list_xattr(node)
    }

    fn remove_xattr(&self, node: &DirectNode, name: &[u8]) -> Result<()> {
        attributes::remove_xattr(node, name)
    }

    fn list(&self, dir: &DirectNode) -> Result<Vec<HostEntry>> {
        // A descriptor of its own, with a position of its own.
        let fd = open_dir(dir)?;
        let mut buf = vec![0; LISTING_BYTES];
        let mut entries = Vec::new();
        loop {
            let n = moat_host::files::getdents(&fd, &mut buf)?;
            let filled = buf.get(..n).unwrap_or_default();
            if filled.is_empty() {
                return Ok(entries);
            }
            for e in moat_host::files::entries(filled).filter(|e| e.name != b"." && e.name != b"..") {
                // `DT_*` are the type bits of a mode, shifted.
                let dtype = e.file_type.map_or(0, |t| u8::try_from(t.mode_bits() >> 12).unwrap_or(0));
                entries.push(HostEntry { name: e.name.to_vec(), ino: e.ino, dtype, next: e.next_offset });
            }
        }
    }

    fn sync(&self, dir: &DirectNode, kind: SyncKind) -> Result<()> {
        let fd = open_dir(dir)?;
        match kind {
            SyncKind::Data => fs::fdatasync(fd),
            SyncKind::All => fs::fsync(fd),
        }
        .map_err(Errno::from)
    }

    fn sync_fs(&self, dir: &DirectNode) -> Result<()> {
        fs::syncfs(open_dir(dir)?).map_err(Errno::from)
    }

    fn statfs(&self, node: &DirectNode) -> Result<Statfs> {
        stat::file_system(node.as_fd())
    }
}
