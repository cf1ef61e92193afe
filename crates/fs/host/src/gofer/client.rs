//! [`GoferTree`]: the sentry's side of the gofer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::stat::Statfs;
use moat_abi::{Errno, Result};
use moat_sync::{LockClass, Mutex};
use moat_vfs::inode::{Metadata, SetAttr};

use super::channel::Channel;
use super::pool::Pool;
use super::protocol::{Entry, Frame, Handle, MAX_CLOSED, MAX_NAME_BYTES, MAX_TARGET_BYTES, ROOT, Reply, Request};
use crate::tree::{HostAccess, HostEntry, HostRename, HostTree, NewHostNode};

/// A tree that the gofer serves.
pub struct GoferTree(Arc<Shared>);

/// What the tree and its directories share.
struct Shared {
    pool: Pool,
    /// Handles whose directories are dropped; they go with the next request.
    closed: Mutex<Vec<Handle>>,
}

/// A directory that the gofer has open.
pub struct GoferDir {
    handle: Handle,
    shared: Arc<Shared>,
}

impl Drop for GoferDir {
    fn drop(&mut self) {
        if self.handle != ROOT {
            self.shared.closed.lock().push(self.handle);
        }
    }
}

impl GoferTree {
    /// The tree behind a connected socket.
    #[must_use]
    pub fn new(socket: OwnedFd) -> GoferTree {
        let closed = Mutex::new(LockClass::Leaf, Vec::new());
        GoferTree(Arc::new(Shared { pool: Pool::new(socket), closed }))
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
        self.call(request, |reply, fd| match (reply, fd) {
            (Reply::File, Some(fd)) => Ok(fd),
            _ => Err(unexpected()),
        })
    }
}

/// A name that is not too long for a message; what it may be else, the gofer says.
fn name(name: &[u8]) -> Result<&[u8]> {
    if name.len() > MAX_NAME_BYTES { Err(Errno::ENAMETOOLONG) } else { Ok(name) }
}

fn listed(entry: &Entry<'_>) -> HostEntry {
    HostEntry { name: entry.name.to_vec(), ino: entry.ino, dtype: entry.dtype }
}

impl HostTree for GoferTree {
    type Dir = GoferDir;

    fn open_root(&self) -> Result<GoferDir> {
        Ok(GoferDir { handle: ROOT, shared: self.0.clone() })
    }

    fn open_dir(&self, dir: &GoferDir, entry: &[u8]) -> Result<GoferDir> {
        let request = Request::OpenDir { dir: dir.handle, name: name(entry)? };
        let handle = self.0.call(request, |reply, _| match reply {
            Reply::Dir(handle) => Ok(handle),
            _ => Err(unexpected()),
        })?;
        Ok(GoferDir { handle, shared: self.0.clone() })
    }

    fn stat(&self, dir: &GoferDir, entry: &[u8]) -> Result<Metadata> {
        self.0.stat(Request::Stat { dir: dir.handle, name: name(entry)? })
    }

    fn stat_dir(&self, dir: &GoferDir) -> Result<Metadata> {
        self.0.stat(Request::StatDir { dir: dir.handle })
    }

    fn open(&self, dir: &GoferDir, entry: &[u8], access: HostAccess) -> Result<OwnedFd> {
        self.0.open(Request::Open { dir: dir.handle, name: name(entry)?, access })
    }

    fn create(&self, dir: &GoferDir, entry: &[u8], node: NewHostNode) -> Result<OwnedFd> {
        self.0.open(Request::Create { dir: dir.handle, name: name(entry)?, node })
    }

    fn mkdir(&self, dir: &GoferDir, entry: &[u8], node: NewHostNode) -> Result<()> {
        self.0.act(Request::Mkdir { dir: dir.handle, name: name(entry)?, node })
    }

    fn symlink(&self, dir: &GoferDir, entry: &[u8], target: &[u8], node: NewHostNode) -> Result<()> {
        if target.len() > MAX_TARGET_BYTES {
            return Err(Errno::ENAMETOOLONG);
        }
        self.0.act(Request::Symlink { dir: dir.handle, name: name(entry)?, target, node })
    }

    fn mkfifo(&self, dir: &GoferDir, entry: &[u8], node: NewHostNode) -> Result<()> {
        self.0.act(Request::Mkfifo { dir: dir.handle, name: name(entry)?, node })
    }

    fn link(&self, dir: &GoferDir, entry: &[u8], new_dir: &GoferDir, new_name: &[u8]) -> Result<()> {
        let (entry, new_name) = (name(entry)?, name(new_name)?);
        self.0.act(Request::Link { dir: dir.handle, name: entry, new_dir: new_dir.handle, new_name })
    }

    fn unlink(&self, dir: &GoferDir, entry: &[u8]) -> Result<()> {
        self.0.act(Request::Unlink { dir: dir.handle, name: name(entry)? })
    }

    fn rmdir(&self, dir: &GoferDir, entry: &[u8]) -> Result<()> {
        self.0.act(Request::Rmdir { dir: dir.handle, name: name(entry)? })
    }

    fn rename(&self, dir: &GoferDir, entry: &[u8], new_dir: &GoferDir, new_name: &[u8], how: HostRename) -> Result<()> {
        let (entry, new_name) = (name(entry)?, name(new_name)?);
        self.0.act(Request::Rename { dir: dir.handle, name: entry, new_dir: new_dir.handle, new_name, how })
    }

    fn read_link(&self, dir: &GoferDir, entry: &[u8]) -> Result<Vec<u8>> {
        self.0.call(Request::ReadLink { dir: dir.handle, name: name(entry)? }, |reply, _| match reply {
            Reply::Target(target) => Ok(target.to_vec()),
            _ => Err(unexpected()),
        })
    }

    fn set_attr(&self, dir: &GoferDir, entry: Option<&[u8]>, attr: &SetAttr) -> Result<()> {
        let entry = entry.map(name).transpose()?;
        self.0.act(Request::SetAttr { dir: dir.handle, name: entry, attr: attr.into() })
    }

    fn list(&self, dir: &GoferDir) -> Result<Vec<HostEntry>> {
        self.0.with_channel(|channel, mut closed| {
            let mut all = Vec::new();
            let mut request = Request::List { dir: dir.handle };
            loop {
                let more = exchange(channel, std::mem::take(&mut closed), request, |reply, _| match reply {
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

    fn statfs(&self, dir: &GoferDir) -> Result<Statfs> {
        self.0.call(Request::Statfs { dir: dir.handle }, |reply, _| match reply {
            Reply::Statfs(statfs) => Ok(statfs),
            _ => Err(unexpected()),
        })
    }
}
