//! [`GoferTree`]: the sentry's side of the gofer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::stat::Statfs;
use moat_abi::{Errno, Result};
use moat_host::descriptors::{Purpose, within};
use moat_host::fanotify::{self, FileHandle};
use moat_sync::{LockClass, Mutex};
use moat_vfs::file::SyncKind;
use moat_vfs::inode::{Metadata, SetAttr};
use moat_vfs::outside::{AsksHost, Left, Served, ServedEvents};

use super::channel::Channel;
use super::pool::Pool;
use super::protocol::{
    Entry, Frame, Handle, MAX_CLOSED, MAX_NAME_BYTES, MAX_TARGET_BYTES, MAX_VALUE_BYTES, ROOT, Reply, Request, Watcher,
};
use crate::tree::{HostAccess, HostEntry, HostKind, HostRename, HostTree, NewHostNode};

/// A tree that the gofer serves.
pub struct GoferTree(Arc<Shared>);

/// What the tree and its nodes share.
struct Shared {
    pool: Pool,
    /// Handles whose nodes are dropped; they go with the next request.
    closed: Mutex<Vec<Handle>>,
    /// Set when somebody listens to what the gofer is told of marked files.
    watched: OnceLock<()>,
}

/// A file that the gofer holds.
pub struct GoferNode {
    handle: Handle,
    shared: Arc<Shared>,
}

impl Drop for GoferNode {
    fn drop(&mut self) {
        if self.handle != ROOT {
            // Told by the next request: a drop must not wait for an answer.
            self.shared.closed.lock().push(self.handle);
        }
    }
}

impl GoferTree {
    /// The tree behind a connected socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> GoferTree {
        let closed = Mutex::new(LockClass::Leaf, Vec::new());
        GoferTree(Arc::new(Shared { pool: Pool::new(socket), closed, watched: OnceLock::new() }))
    }
}

/// What the gofer says that it must not say.
fn unexpected() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// One request over a connection; `read` makes the result of a reply that is no failure.
fn exchange<R>(
    channel: &mut Channel,
    closed: Vec<Handle>,
    request: Request<'_>,
    read: impl FnOnce(Reply<'_>, Option<OwnedFd>) -> io::Result<R>,
) -> io::Result<Result<R>> {
    channel.send(&Frame { closed, request }, None)?;
    match channel.receive::<Reply<'_>>()? {
        None => Err(io::ErrorKind::UnexpectedEof.into()),
        Some((Reply::Failed(errno), _)) => Ok(Err(Errno::from_raw(errno))),
        Some((reply, fd)) => read(reply, fd).map(Ok),
    }
}

impl Shared {
    /// Runs `talk` with a connection. One that breaks, or makes no sense, is given up: EIO.
    fn with_channel<R>(&self, talk: impl FnOnce(&mut Channel, Vec<Handle>) -> io::Result<Result<R>>) -> Result<R> {
        let mut channel = self.pool.take().map_err(|_| Errno::EIO)?;
        let closed = {
            let mut closed = self.closed.lock();
            let rest = closed.len().saturating_sub(MAX_CLOSED);
            closed.split_off(rest)
        };
        let done = talk(&mut channel, closed).and_then(|done| {
            // While the connection is still in hand.
            self.grow(&mut channel)?;
            Ok(done)
        });
        match done {
            Ok(done) => {
                self.pool.give_back(channel);
                done
            }
            Err(error) => {
                tracing::error!(%error, "a connection to the gofer is lost");
                self.pool.lost();
                Err(Errno::EIO)
            }
        }
    }

    /// Makes another connection if somebody waits for one.
    fn grow(&self, channel: &mut Channel) -> io::Result<()> {
        if self.pool.is_short() {
            let socket = exchange(channel, Vec::new(), Request::Connect, |reply, fd| match (reply, fd) {
                (Reply::Connection, Some(socket)) => Ok(socket),
                _ => Err(unexpected()),
            })?;
            // A gofer short of descriptors says so: those who wait get this connection.
            if let Ok(socket) = socket {
                self.pool.add(socket);
            }
        }
        Ok(())
    }

    fn call<R>(
        &self,
        request: Request<'_>,
        read: impl FnOnce(Reply<'_>, Option<OwnedFd>) -> io::Result<R>,
    ) -> Result<R> {
        self.with_channel(|channel, closed| exchange(channel, closed, request, read))
    }

    /// A request that is answered by [`Reply::Done`].
    fn act(&self, request: Request<'_>) -> Result<()> {
        self.call(request, |reply, _| match reply {
            Reply::Done => Ok(()),
            _ => Err(unexpected()),
        })
    }

    fn stat(&self, request: Request<'_>) -> Result<Metadata> {
        self.call(request, |reply, _| match reply {
            Reply::Metadata(metadata) => Ok(metadata),
            _ => Err(unexpected()),
        })
    }

    fn open(&self, request: Request<'_>) -> Result<OwnedFd> {
        let opened = self.call(request, |reply, fd| match (reply, fd) {
            (Reply::File, Some(fd)) => Ok(fd),
            _ => Err(unexpected()),
        });
        within(opened?, Purpose::File)
    }
}

/// The result of [`Reply::NodeFile`].
fn node_file(reply: Reply<'_>, fd: Option<OwnedFd>) -> io::Result<(Handle, OwnedFd)> {
    match (reply, fd) {
        (Reply::NodeFile(handle), Some(fd)) => Ok((handle, fd)),
        _ => Err(unexpected()),
    }
}

/// A name that is not too long for a message; what it may be else, the gofer says.
fn name(name: &[u8]) -> Result<&[u8]> {
    if name.len() > MAX_NAME_BYTES { Err(Errno::ENAMETOOLONG) } else { Ok(name) }
}

fn listed(entry: &Entry<'_>) -> HostEntry {
    HostEntry { name: entry.name.to_vec(), ino: entry.ino, dtype: entry.dtype, next: entry.next }
}

impl GoferTree {
    fn node(&self, handle: Handle) -> GoferNode {
        GoferNode { handle, shared: self.0.clone() }
    }

    /// A request that is answered by [`Reply::Node`].
    fn hold_by(&self, request: Request<'_>) -> Result<(GoferNode, Metadata)> {
        let (handle, metadata) = self.0.call(request, |reply, _| match reply {
            Reply::Node(handle, metadata) => Ok((handle, metadata)),
            _ => Err(unexpected()),
        })?;
        Ok((self.node(handle), metadata))
    }

    /// A request that is answered by [`Reply::Bytes`].
    fn bytes(&self, request: Request<'_>) -> Result<Vec<u8>> {
        self.0.call(request, |reply, _| match reply {
            Reply::Bytes(bytes) => Ok(bytes.to_vec()),
            _ => Err(unexpected()),
        })
    }
}

/// What the gofer is told of marked files.
struct Told {
    own: Arc<OwnedFd>,
    served: Arc<OwnedFd>,
    /// Who listens must not keep a tree that is unmounted.
    shared: Weak<Shared>,
}

impl ServedEvents for Told {
    fn own_group(&self) -> &Arc<OwnedFd> {
        &self.own
    }

    fn served_group(&self) -> &Arc<OwnedFd> {
        &self.served
    }

    fn read_served(&self) -> Result<Served> {
        let shared = self.shared.upgrade().ok_or(Errno::EIO)?;
        shared.call(Request::Told, |reply, _| match reply {
            Reply::Told { events, touched } => Ok(Served {
                events: fanotify::parse(events),
                left: if events.is_empty() { Left::Nothing } else { Left::More },
                touched: touched.into_iter().map(|(id, kind, bytes)| FileHandle::from_parts(id, kind, bytes)).collect(),
            }),
            _ => Err(unexpected()),
        })
    }
}

impl HostTree for GoferTree {
    type Node = GoferNode;
    const ADOPTS: bool = false;

    fn root(&self) -> Result<GoferNode> {
        Ok(self.node(ROOT))
    }

    fn stat_at(&self, dir: &GoferNode, entry: &[u8]) -> Result<Metadata> {
        self.0.stat(Request::StatAt { dir: dir.handle, name: name(entry)? })
    }

    fn lookup(&self, dir: &GoferNode, entry: &[u8]) -> Result<(GoferNode, Metadata)> {
        self.hold_by(Request::Lookup { dir: dir.handle, name: name(entry)? })
    }

    fn hold(&self, dir: &GoferNode, entry: &[u8], access: HostAccess) -> Result<(GoferNode, Metadata)> {
        self.hold_by(Request::Hold { dir: dir.handle, name: name(entry)?, access })
    }

    /// The sentry's descriptor is no node of the gofer's.
    fn adopt(&self, _fd: &OwnedFd, _access: HostAccess) -> Option<GoferNode> {
        None
    }

    fn stat(&self, node: &GoferNode) -> Result<Metadata> {
        self.0.stat(Request::Stat { node: node.handle })
    }

    fn open_at(&self, dir: &GoferNode, entry: &[u8], access: HostAccess) -> Result<OwnedFd> {
        self.0.open(Request::OpenAt { dir: dir.handle, name: name(entry)?, access })
    }

    fn open_fifo_at(&self, dir: &GoferNode, entry: &[u8], access: HostAccess) -> Result<OwnedFd> {
        self.0.open(Request::OpenFifoAt { dir: dir.handle, name: name(entry)?, access })
    }

    fn open_held_at(&self, dir: &GoferNode, entry: &[u8], access: HostAccess) -> Result<(OwnedFd, Option<GoferNode>)> {
        let request = Request::OpenHeldAt { dir: dir.handle, name: name(entry)?, access };
        let (handle, fd) = self.0.call(request, node_file)?;
        Ok((fd, Some(self.node(handle))))
    }

    fn reopen(&self, node: &GoferNode, access: HostAccess) -> Result<OwnedFd> {
        self.0.open(Request::Reopen { node: node.handle, access })
    }

    fn create(&self, dir: &GoferNode, entry: &[u8], new: NewHostNode) -> Result<OwnedFd> {
        self.0.open(Request::Create { dir: dir.handle, name: name(entry)?, new })
    }

    fn unnamed(&self, dir: &GoferNode, new: NewHostNode) -> Result<(GoferNode, OwnedFd)> {
        let request = Request::Unnamed { dir: dir.handle, new };
        let (handle, fd) = self.0.call(request, node_file)?;
        Ok((self.node(handle), fd))
    }

    fn make(
        &self,
        dir: &GoferNode,
        entry: &[u8],
        kind: HostKind<'_>,
        new: NewHostNode,
    ) -> Result<(GoferNode, Metadata)> {
        if matches!(kind, HostKind::Symlink(target) if target.len() > MAX_TARGET_BYTES) {
            return Err(Errno::ENAMETOOLONG);
        }
        self.hold_by(Request::Make { dir: dir.handle, name: name(entry)?, kind: kind.into(), new })
    }

    fn link(&self, node: &GoferNode, new_dir: &GoferNode, new_name: &[u8]) -> Result<()> {
        self.0.act(Request::Link { node: node.handle, new_dir: new_dir.handle, new_name: name(new_name)? })
    }

    fn link_at(&self, dir: &GoferNode, entry: &[u8], new_dir: &GoferNode, new_name: &[u8]) -> Result<()> {
        let (entry, new_name) = (name(entry)?, name(new_name)?);
        self.0.act(Request::LinkAt { dir: dir.handle, name: entry, new_dir: new_dir.handle, new_name })
    }

    fn unlink(&self, dir: &GoferNode, entry: &[u8]) -> Result<()> {
        self.0.act(Request::Unlink { dir: dir.handle, name: name(entry)? })
    }

    fn rmdir(&self, dir: &GoferNode, entry: &[u8]) -> Result<()> {
        self.0.act(Request::Rmdir { dir: dir.handle, name: name(entry)? })
    }

    fn rename(
        &self,
        dir: &GoferNode,
        entry: &[u8],
        new_dir: &GoferNode,
        new_name: &[u8],
        how: HostRename,
    ) -> Result<()> {
        let (entry, new_name) = (name(entry)?, name(new_name)?);
        self.0.act(Request::Rename { dir: dir.handle, name: entry, new_dir: new_dir.handle, new_name, how })
    }

    fn connect(&self, node: &GoferNode, socket_type: u32) -> Result<OwnedFd> {
        self.0.open(Request::ConnectSocket { node: node.handle, socket_type })
    }

    fn bind(
        &self,
        dir: &GoferNode,
        entry: &[u8],
        socket_type: u32,
        new: NewHostNode,
    ) -> Result<(GoferNode, Metadata, OwnedFd)> {
        let request = Request::BindSocket { dir: dir.handle, name: name(entry)?, socket_type, new };
        let (handle, socket) = self.0.call(request, node_file)?;
        let node = self.node(handle);
        let meta = self.stat(&node)?;
        Ok((node, meta, within(socket, Purpose::File)?))
    }

    fn watch(&self, node: &GoferNode, by: &dyn AsksHost, what: u64) -> Result<(FileHandle, u64)> {
        if self.0.watched.get().is_none() {
            let group = |of| self.0.open(Request::Group { of }).map(Arc::new);
            let (own, served) = (group(Watcher::Client)?, group(Watcher::Gofer)?);
            if self.0.watched.set(()).is_ok() {
                by.listen(Arc::new(Told { own, served, shared: Arc::downgrade(&self.0) }));
            }
        }
        self.0.call(Request::Watch { node: node.handle, what }, |reply, _| match reply {
            Reply::Watched { fsid, kind, bytes, told } => Ok((FileHandle::from_parts(fsid, kind, bytes), told)),
            _ => Err(unexpected()),
        })
    }

    fn unwatch(&self, node: &GoferNode, what: u64) -> Result<()> {
        self.0.act(Request::Unwatch { node: node.handle, what })
    }

    fn read_link(&self, node: &GoferNode) -> Result<Vec<u8>> {
        self.bytes(Request::ReadLink { node: node.handle })
    }

    fn set_attr(&self, node: &GoferNode, attr: &SetAttr) -> Result<()> {
        self.0.act(Request::SetAttr { node: node.handle, attr: attr.into() })
    }

    fn get_xattr(&self, node: &GoferNode, attribute: &[u8]) -> Result<Vec<u8>> {
        self.bytes(Request::GetXattr { node: node.handle, name: name(attribute)? })
    }

    fn set_xattr(&self, node: &GoferNode, attribute: &[u8], value: &[u8], flags: u32) -> Result<()> {
        if value.len() > MAX_VALUE_BYTES {
            return Err(Errno::E2BIG);
        }
        self.0.act(Request::SetXattr { node: node.handle, name: name(attribute)?, value, flags })
    }

    fn list_xattr(&self, node: &GoferNode) -> Result<Vec<Vec<u8>>> {
        self.0.call(Request::ListXattr { node: node.handle }, |reply, _| match reply {
            Reply::Names(names) => Ok(names.into_iter().map(<[u8]>::to_vec).collect()),
            _ => Err(unexpected()),
        })
    }

    fn remove_xattr(&self, node: &GoferNode, attribute: &[u8]) -> Result<()> {
        self.0.act(Request::RemoveXattr { node: node.handle, name: name(attribute)? })
    }

    fn list(&self, dir: &GoferNode) -> Result<Vec<HostEntry>> {
        self.0.with_channel(|channel, mut closed| {
            let mut all = Vec::new();
            let mut request = Request::List { dir: dir.handle };
            loop {
                let more = exchange(channel, std::mem::take(&mut closed), request, |reply, _| match reply {
                    // An empty part that promises more could go on for ever.
                    Reply::Entries { entries, more } if !entries.is_empty() || !more => {
                        all.extend(entries.iter().map(listed));
                        Ok(more)
                    }
                    _ => Err(unexpected()),
                })?;
                match more {
                    Ok(true) => request = Request::ListMore,
                    Ok(false) => return Ok(Ok(all)),
                    Err(errno) => return Ok(Err(errno)),
                }
            }
        })
    }

    fn sync(&self, dir: &GoferNode, kind: SyncKind) -> Result<()> {
        self.0.act(Request::Sync { dir: dir.handle, data_only: kind == SyncKind::Data })
    }

    fn sync_fs(&self, dir: &GoferNode) -> Result<()> {
        self.0.act(Request::SyncFs { dir: dir.handle })
    }

    fn statfs(&self, node: &GoferNode) -> Result<Statfs> {
        self.0.call(Request::Statfs { node: node.handle }, |reply, _| match reply {
            Reply::Statfs(statfs) => Ok(statfs),
            _ => Err(unexpected()),
        })
    }
}
