//! [`Watched`]: a tree whose calls hold up nobody but the caller.

use std::os::fd::OwnedFd;

use moat_abi::Result;
use moat_abi::stat::Statfs;
use moat_host::fanotify::FileHandle;
use moat_sync::host_call;
use moat_vfs::file::SyncKind;
use moat_vfs::inode::{Metadata, SetAttr};
use moat_vfs::outside::AsksHost;

use crate::tree::{HostAccess, HostEntry, HostKind, HostRename, HostTree, NewHostNode};

/// Makes each call of a tree a [`host_call`]: the disk may be slow, and the gofer stopped. File systems have their trees in it, so that no
/// call can forget that.
pub struct Watched<T>(T);

impl<T: HostTree> Watched<T> {
    /// Wraps a tree.
    pub fn new(tree: T) -> Watched<T> {
        Watched(tree)
    }
}

impl<T: HostTree> HostTree for Watched<T> {
    type Node = T::Node;
    const ADOPTS: bool = T::ADOPTS;

    // At mount time no task waits for the caller yet; a later container's trees come while others run.
    fn root(&self) -> Result<T::Node> {
        host_call(|| self.0.root())
    }

    // Most calls are of this kind, and take less than a hand-over would.
    fn stat_at(&self, dir: &T::Node, name: &[u8]) -> Result<Metadata> {
        host_call(|| self.0.stat_at(dir, name))
    }

    fn lookup(&self, dir: &T::Node, name: &[u8]) -> Result<(T::Node, Metadata)> {
        host_call(|| self.0.lookup(dir, name))
    }

    fn hold(&self, dir: &T::Node, name: &[u8], access: HostAccess) -> Result<(T::Node, Metadata)> {
        host_call(|| self.0.hold(dir, name, access))
    }

    // Through a gofer even this is a message.
    fn adopt(&self, fd: &OwnedFd, access: HostAccess) -> Option<T::Node> {
        host_call(|| self.0.adopt(fd, access))
    }

    fn stat(&self, node: &T::Node) -> Result<Metadata> {
        host_call(|| self.0.stat(node))
    }

    fn open_at(&self, dir: &T::Node, name: &[u8], access: HostAccess) -> Result<OwnedFd> {
        host_call(|| self.0.open_at(dir, name, access))
    }

    fn open_fifo_at(&self, dir: &T::Node, name: &[u8], access: HostAccess) -> Result<OwnedFd> {
        host_call(|| self.0.open_fifo_at(dir, name, access))
    }

    fn open_held_at(&self, dir: &T::Node, name: &[u8], access: HostAccess) -> Result<(OwnedFd, Option<T::Node>)> {
        host_call(|| self.0.open_held_at(dir, name, access))
    }

    fn open_directory(&self, dir: &T::Node) -> Result<OwnedFd> {
        host_call(|| self.0.open_directory(dir))
    }

    fn reopen(&self, node: &T::Node, access: HostAccess) -> Result<OwnedFd> {
        host_call(|| self.0.reopen(node, access))
    }

    fn create(&self, dir: &T::Node, name: &[u8], new: NewHostNode) -> Result<OwnedFd> {
        host_call(|| self.0.create(dir, name, new))
    }

    fn unnamed(&self, dir: &T::Node, new: NewHostNode) -> Result<(T::Node, OwnedFd)> {
        host_call(|| self.0.unnamed(dir, new))
    }

    fn make(&self, dir: &T::Node, name: &[u8], kind: HostKind<'_>, new: NewHostNode) -> Result<(T::Node, Metadata)> {
        host_call(|| self.0.make(dir, name, kind, new))
    }

    fn link(&self, node: &T::Node, new_dir: &T::Node, new_name: &[u8]) -> Result<()> {
        host_call(|| self.0.link(node, new_dir, new_name))
    }

    fn link_at(&self, dir: &T::Node, name: &[u8], new_dir: &T::Node, new_name: &[u8]) -> Result<()> {
        host_call(|| self.0.link_at(dir, name, new_dir, new_name))
    }

    fn unlink(&self, dir: &T::Node, name: &[u8]) -> Result<()> {
        host_call(|| self.0.unlink(dir, name))
    }

    fn rmdir(&self, dir: &T::Node, name: &[u8]) -> Result<()> {
        host_call(|| self.0.rmdir(dir, name))
    }

    fn rename(&self, dir: &T::Node, name: &[u8], new_dir: &T::Node, new_name: &[u8], how: HostRename) -> Result<()> {
        host_call(|| self.0.rename(dir, name, new_dir, new_name, how))
    }

    // Callers have it in `block_in_place` besides, where this adds nothing: whoever listens may take long to accept.
    fn connect(&self, node: &T::Node, socket_type: u32) -> Result<OwnedFd> {
        host_call(|| self.0.connect(node, socket_type))
    }

    fn bind(
        &self,
        dir: &T::Node,
        name: &[u8],
        socket_type: u32,
        new: NewHostNode,
    ) -> Result<(T::Node, Metadata, OwnedFd)> {
        host_call(|| self.0.bind(dir, name, socket_type, new))
    }

    fn watch(&self, node: &T::Node, by: &dyn AsksHost, what: u64) -> Result<(FileHandle, u64)> {
        host_call(|| self.0.watch(node, by, what))
    }

    fn unwatch(&self, node: &T::Node, what: u64) -> Result<()> {
        host_call(|| self.0.unwatch(node, what))
    }

    fn read_link(&self, node: &T::Node) -> Result<Vec<u8>> {
        host_call(|| self.0.read_link(node))
    }

    fn set_attr(&self, node: &T::Node, attr: &SetAttr) -> Result<()> {
        host_call(|| self.0.set_attr(node, attr))
    }

    fn get_xattr(&self, node: &T::Node, name: &[u8]) -> Result<Vec<u8>> {
        host_call(|| self.0.get_xattr(node, name))
    }

    fn set_xattr(&self, node: &T::Node, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        host_call(|| self.0.set_xattr(node, name, value, flags))
    }

    fn list_xattr(&self, node: &T::Node) -> Result<Vec<Vec<u8>>> {
        host_call(|| self.0.list_xattr(node))
    }

    fn remove_xattr(&self, node: &T::Node, name: &[u8]) -> Result<()> {
        host_call(|| self.0.remove_xattr(node, name))
    }

    // A directory that the host has in memory is read in microseconds; only one that it has not is worth a hand-over.
    fn list(&self, dir: &T::Node) -> Result<Vec<HostEntry>> {
        host_call(|| self.0.list(dir))
    }

    // As with `connect`: it will sleep.
    fn sync(&self, dir: &T::Node, kind: SyncKind) -> Result<()> {
        host_call(|| self.0.sync(dir, kind))
    }

    fn sync_fs(&self, dir: &T::Node) -> Result<()> {
        host_call(|| self.0.sync_fs(dir))
    }

    fn statfs(&self, node: &T::Node) -> Result<Statfs> {
        host_call(|| self.0.statfs(node))
    }
}
