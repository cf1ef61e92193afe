//! The operations of a file of the host: [`Inode`] for [`HostInode`].

use std::any::Any;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::fs::{FileType, S_IALLUGO};
use moat_abi::stat::Statfs;
use moat_abi::{Errno, Result};
use moat_host::fanotify::FileHandle;
use moat_sync::{block_in_place, host_call};
use moat_vfs::acl::{Acl, AclKind};
use moat_vfs::cred::Credentials;
use moat_vfs::file::File;
use moat_vfs::inode::{
    Access, BoundSocket, Cache, Hold, Inode, Metadata, NewNode, NodeKind, OpenContext, RenameFlags, SetAttr,
    permission_by_acl,
};
use moat_vfs::outside::AsksHost;

use super::{HostInode, Opening, reach};
use crate::dir::HostDirFile;
use crate::direct::Fifos;
use crate::fifo::HostFifo;
use crate::file::HostFile;
use crate::fs::{TreeCore, Trust};
use crate::tree::{HostAccess, HostKind, HostRename, HostTree, NewHostNode};

/// `inode` as one of this tree.
fn own<T: HostTree>(core: &Arc<TreeCore<T>>, inode: &Arc<dyn Inode>) -> Result<Arc<HostInode<T>>> {
    let any: Arc<dyn Any + Send + Sync> = inode.clone();
    let own: Arc<HostInode<T>> = any.downcast().map_err(|_| Errno::EXDEV)?;
    if Arc::ptr_eq(&own.core, core) { Ok(own) } else { Err(Errno::EXDEV) }
}

impl<T: HostTree> HostInode<T> {
    /// A file that has been made as `name` of this directory.
    fn made(&self, name: &[u8], node: T::Node, host: Metadata) -> Arc<dyn Inode> {
        let inode = self.core.inode(&self.core.translate(host));
        inode.set_node(node);
        self.name_child(name, &inode);
        self.entries_changed();
        inode
    }

    /// Gives a socket of the host the name.
    fn create_socket(
        &self,
        dir: &T::Node,
        name: &[u8],
        socket: &BoundSocket,
        new: NewHostNode,
    ) -> Result<Arc<dyn Inode>> {
        let (node, host, bound) = self.core.tree.bind(dir, name, socket.socket_type, new)?;
        let _ = socket.host.set(bound);
        Ok(self.made(name, node, host))
    }
}

impl<T: HostTree> Inode for HostInode<T> {
    fn metadata(&self) -> Result<Metadata> {
        match self.known_attributes() {
            Some(meta) => Ok(meta),
            None => self.ask(),
        }
    }

    fn ownership(&self) -> Result<Metadata> {
        self.known_ownership().map_or_else(|| self.ask(), Ok)
    }

    fn abandon(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
    }

    fn file_type(&self) -> FileType {
        self.identity.file_type
    }

    fn statfs(&self) -> Option<Result<Statfs>> {
        // Without asking where it can be but one: most files have no node yet.
        self.is_elsewhere().then(|| self.core.tree.statfs(&*self.node()?))
    }

    fn sync_fs(&self) -> Option<Result<()>> {
        self.is_elsewhere().then(|| self.sync_own_fs())
    }

    fn set_attr(&self, change: &SetAttr) -> Result<()> {
        let mut rest = SetAttr { size: None, ..*change };
        if let Some(len) = change.size {
            if self.identity.file_type != FileType::Regular {
                return Err(Errno::EINVAL);
            }
            let before = self.set_id_mode();
            let fd = self.open_host(HostAccess::Write)?;
            let done = host_call(|| rustix::fs::ftruncate(&*fd, len));
            self.changed();
            drop(fd);
            self.give_back_if_closed();
            done.map_err(Errno::from)?;
            // The host takes set-id bits from whoever has no capabilities over it; which go here, the caller has said.
            rest.mode = rest.mode.or(before.map(|mode| mode & S_IALLUGO));
        }
        let SetAttr { mode, uid, gid, size: _, atime, mtime } = rest;
        if mode.is_none() && uid.is_none() && gid.is_none() && atime.is_none() && mtime.is_none() {
            return Ok(());
        }
        let done = self.with_node(|node| self.core.tree.set_attr(node, &rest));
        if let (Ok(()), Some(mode)) = (done, mode) {
            self.note_permissions(mode);
        }
        // Also after a failure, which may have left a part done.
        self.changed();
        done
    }

    fn is_changed_outside(&self) -> bool {
        self.is_shared()
    }

    fn hold(self: Arc<Self>) -> Result<Option<Hold>> {
        if self.is_shared() { Ok(Some(Box::new(Opening::held(self)?))) } else { Ok(None) }
    }

    fn watch_outside(&self, by: &dyn AsksHost, what: u64) -> Option<(FileHandle, u64)> {
        if T::ADOPTS {
            return by.mark(self.open_watched()?.as_fd(), what);
        }
        self.core.tree.watch(&*self.node_to_watch()?, by, what).ok()
    }

    fn unwatch_outside(&self, by: &dyn AsksHost, what: u64) {
        // A file that is gone has taken its mark along, and so has one that can't be opened lost its use: what is told of it belongs to
        // nobody.
        if !T::ADOPTS {
            let _ = self.node_to_watch().map(|node| self.core.tree.unwatch(&node, what));
        } else if let Some(open) = self.open_watched() {
            by.unmark(open.as_fd(), what);
        }
    }

    fn cache_policy(&self) -> Cache {
        match self.core.trust {
            Trust::Exclusive => Cache::Keep,
            Trust::Shared => Cache::Revalidate,
        }
    }

    fn revalidate(&self, name: &[u8], child: &Arc<dyn Inode>) -> Result<bool> {
        match self.find(name) {
            Ok(now) => {
                let now: Arc<dyn Inode> = now;
                Ok(Arc::ptr_eq(&now, child))
            }
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ESTALE) => Ok(false),
            Err(e) => Err(e),
        }
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        Ok(self.find(name)?)
    }

    fn create(&self, name: &[u8], node: &NewNode<'_>) -> Result<Arc<dyn Inode>> {
        let new = NewHostNode { mode: node.mode, uid: node.uid, gid: node.gid };
        let dir = self.node()?;
        let kind = match node.kind {
            NodeKind::File => {
                let inode = self.create_file(&dir, name, new)?;
                self.entries_changed();
                return Ok(inode);
            }
            NodeKind::TmpFile => return Ok(self.create_unnamed(&dir, new)?),
            NodeKind::Dir => HostKind::Directory,
            NodeKind::Symlink(target) => HostKind::Symlink(target),
            NodeKind::Fifo => HostKind::Fifo,
            NodeKind::BoundSocket(socket) if self.core.special.sockets.can_create() => {
                return self.create_socket(&dir, name, socket, new);
            }
            NodeKind::Socket | NodeKind::BoundSocket(_) => HostKind::Socket,
            NodeKind::Device { file_type: FileType::BlockDevice, rdev } => HostKind::BlockDevice(rdev),
            NodeKind::Device { rdev, .. } => HostKind::CharDevice(rdev),
        };
        let make = || self.core.tree.make(&dir, name, kind, new);
        // A device takes the word of another process.
        let (node, host) = match kind {
            HostKind::CharDevice(_) | HostKind::BlockDevice(_) => block_in_place(make)?,
            _ => make()?,
        };
        Ok(self.made(name, node, host))
    }

    fn link(&self, name: &[u8], target: &Arc<dyn Inode>) -> Result<()> {
        let target = own(&self.core, target)?;
        let done = target.link_to(&*self.node()?, name);
        target.changed();
        self.entries_changed();
        done?;
        self.name_child(name, &target);
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        let victim = self.child(name);
        if let Some(victim) = &victim {
            victim.prepare_to_lose(self, name);
        }
        self.core.tree.unlink(&*self.node()?, name)?;
        self.unname_child(name);
        if let Some(victim) = victim {
            victim.changed();
        }
        self.entries_changed();
        Ok(())
    }

    fn rmdir(&self, name: &[u8]) -> Result<()> {
        let victim = self.child(name);
        if let Some(victim) = &victim {
            victim.prepare_to_lose(self, name);
        }
        self.core.tree.rmdir(&*self.node()?, name)?;
        self.unname_child(name);
        if let Some(victim) = victim {
            victim.changed();
        }
        self.entries_changed();
        Ok(())
    }

    fn rename(&self, old: &[u8], new_dir: &Arc<dyn Inode>, new: &[u8], flags: RenameFlags) -> Result<()> {
        let how = match flags {
            f if f.is_empty() => HostRename::Replace,
            RenameFlags::NOREPLACE => HostRename::NoReplace,
            RenameFlags::EXCHANGE => HostRename::Exchange,
            RenameFlags::WHITEOUT => HostRename::Whiteout,
            f if f == RenameFlags::WHITEOUT | RenameFlags::NOREPLACE => HostRename::WhiteoutNoReplace,
            _ => return Err(Errno::EINVAL),
        };
        let new_dir = own(&self.core, new_dir)?;
        // Before the host moves it: afterwards the names lead elsewhere.
        let moved = self.child(old);
        let target = new_dir.child(new);
        if let Some(target) = &target
            && how != HostRename::Exchange
        {
            // Its last name may go, and with that the way to open it again.
            target.prepare_to_lose(&new_dir, new);
        }
        let done = self.core.tree.rename(&*self.node()?, old, &*new_dir.node()?, new, how);
        if done.is_ok() {
            self.unname_child(old);
            new_dir.unname_child(new);
            if let Some(moved) = &moved {
                new_dir.name_child(new, moved);
            }
            if let Some(target) = &target
                && how == HostRename::Exchange
            {
                self.name_child(old, target);
            }
        }
        // Whether it worked or not: an error does not say that nothing was done.
        moved.iter().chain(&target).for_each(|inode| inode.changed());
        self.entries_changed();
        new_dir.entries_changed();
        done
    }

    fn connect_socket(&self, socket_type: u32) -> Result<OwnedFd> {
        let node = self.node()?;
        block_in_place(|| self.core.tree.connect(&node, socket_type))
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        if self.identity.file_type != FileType::Symlink {
            return Err(Errno::EINVAL);
        }
        if let Some(target) = self.target.get() {
            return Ok(target.to_vec());
        }
        let target = self.core.tree.read_link(&*self.node()?)?;
        let _ = self.target.set(target.clone().into());
        Ok(target)
    }

    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        match self.identity.file_type {
            FileType::Regular => {
                let fd = self.open_host(reach::access_of(ctx.flags))?;
                Ok(Arc::new(HostFile::new(self, fd)))
            }
            FileType::Directory => {
                let dir = if self.is_shared() { Some(self.node()?) } else { None };
                Ok(Arc::new(HostDirFile::new(self, dir)))
            }
            FileType::Fifo if self.core.special.fifos == Fifos::Host => Ok(Arc::new(HostFifo::open(self, ctx.flags)?)),
            _ => moat_vfs::inode::open_special(&self.metadata()?, ctx),
        }
    }

    fn permission(&self, creds: &Credentials, access: Access) -> Result<()> {
        // Without asking the host, as paths lead through directories all the time.
        if creds.has_root_cap(moat_abi::cap::Cap::DAC_OVERRIDE) && self.identity.file_type == FileType::Directory {
            return Ok(());
        }
        permission_by_acl(&self.ownership()?, creds, access, || self.get_acl(AclKind::Access))
    }

    fn get_acl(&self, kind: AclKind) -> Result<Option<Arc<Acl>>> {
        self.acl(kind)
    }

    fn get_xattr(&self, name: &[u8]) -> Result<Vec<u8>> {
        self.with_node(|node| self.core.tree.get_xattr(node, name))
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> Result<()> {
        let done = self.with_node(|node| self.core.tree.set_xattr(node, name, value, flags));
        self.attributes_changed();
        done
    }

    fn list_xattr(&self) -> Result<Vec<Vec<u8>>> {
        self.with_node(|node| self.core.tree.list_xattr(node))
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let done = self.with_node(|node| self.core.tree.remove_xattr(node, name));
        self.attributes_changed();
        done
    }
}
