//! The connections of the trees, a thread each.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};

use moat_abi::{Errno, Result};
use moat_control::BootError;
use moat_fs_host::gofer::channel::{Channel, MAX_MESSAGE_BYTES};
use moat_fs_host::gofer::protocol::{Entry, Frame, Handle, MAX_CLOSED, MAX_CONNECTIONS, Reply, Request, Watcher};
use moat_fs_host::tree::{HostEntry, HostTree};
use moat_fs_host::{DirectTree, NodeMaker, SpecialNodes};
use moat_host::fanotify::FileHandle;
use moat_sync::{LockClass, Mutex};
use moat_vfs::file::SyncKind;

use crate::handles::Handles;
use crate::watches::Watches;

/// Stack of a connection's thread: the deepest it goes is one operation of a tree.
const STACK_BYTES: usize = 128 << 10;

/// Bytes of the entries in one reply, so that with all else it fits into a message.
const LISTING_BYTES: usize = MAX_MESSAGE_BYTES - 1024;

/// A tree that is served.
struct Tree {
    files: DirectTree,
    handles: Mutex<Handles>,
    connections: AtomicUsize,
    /// Made when something is watched.
    watches: OnceLock<Result<Watches>>,
}

impl Tree {
    fn watches(&self) -> Result<&Watches> {
        self.watches.get_or_init(Watches::new).as_ref().map_err(|errno| *errno)
    }
}

/// The connections that are served.
pub(crate) struct Serving(Receiver<()>);

impl Serving {
    /// Waits until the last connection is closed.
    pub(crate) fn wait(self) {
        // Nothing is ever sent: an error says that no thread has a sender any more.
        while self.0.recv().is_ok() {}
    }
}

/// Serves each tree at its socket.
///
/// # Errors
/// No descriptor or no thread can be had.
pub(crate) fn start(
    exports: impl Iterator<Item = (OwnedFd, OwnedFd)>,
    nodes: Option<&Arc<NodeMaker>>,
    special: SpecialNodes,
) -> std::result::Result<Serving, BootError> {
    let (alive, ended) = channel();
    for (root, socket) in exports {
        let files = DirectTree::new(root).with_nodes(nodes.cloned()).with_special(special);
        let root =
            files.root().map_err(|e| BootError::host("opening a tree", &io::Error::from_raw_os_error(e.raw())))?;
        let handles = Mutex::new(LockClass::Table, Handles::new(root));
        let tree = Arc::new(Tree { files, handles, connections: AtomicUsize::new(0), watches: OnceLock::new() });
        Connection::start(&tree, socket, &alive).map_err(|e| BootError::host("starting a thread", &e))?;
    }
    Ok(Serving(ended))
}

/// One connection of a tree.
struct Connection {
    tree: Arc<Tree>,
    /// What is left of a listing.
    listing: VecDeque<HostEntry>,
    /// Dropped with the connection's thread.
    alive: Sender<()>,
}

/// What a request gives, before it is put into a message.
enum Outcome {
    Reply(Reply<'static>),
    Bytes(Vec<u8>),
    Names(Vec<Vec<u8>>),
    File(OwnedFd),
    NodeFile(Handle, OwnedFd),
    Watched(FileHandle, u64),
    Told(Vec<u8>, Vec<FileHandle>),
    Connection(OwnedFd),
    /// The next part of the connection's listing.
    Listing,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tree.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connection {
    fn start(tree: &Arc<Tree>, socket: OwnedFd, alive: &Sender<()>) -> io::Result<()> {
        let others = tree.connections.fetch_add(1, Ordering::Relaxed);
        // Counted out again when it is dropped.
        let mut connection = Connection { tree: tree.clone(), listing: VecDeque::new(), alive: alive.clone() };
        // Bounds the threads that a client can have.
        if others >= MAX_CONNECTIONS {
            return Err(rustix::io::Errno::MFILE.into());
        }
        let mut channel = Channel::new(socket);
        std::thread::Builder::new().name("tree".into()).stack_size(STACK_BYTES).spawn(move || {
            if let Err(error) = connection.serve(&mut channel) {
                tracing::debug!(%error, "a connection ends");
            }
        })?;
        Ok(())
    }

    /// Answers until the client closes, or says what makes no sense.
    fn serve(&mut self, channel: &mut Channel) -> io::Result<()> {
        loop {
            let outcome = match channel.receive::<Frame<'_>>()? {
                None => return Ok(()),
                // Requests come without descriptors.
                Some((frame, None)) if frame.closed.len() <= MAX_CLOSED => {
                    self.close(&frame.closed);
                    self.answer(frame.request)
                }
                Some(_) => return Err(io::ErrorKind::InvalidData.into()),
            };
            match outcome {
                Ok(Outcome::Reply(reply)) => channel.send(&reply, None)?,
                Ok(Outcome::Bytes(bytes)) => channel.send(&Reply::Bytes(&bytes), None)?,
                Ok(Outcome::Names(names)) => {
                    channel.send(&Reply::Names(names.iter().map(Vec::as_slice).collect()), None)?;
                }
                Ok(Outcome::NodeFile(node, fd)) => channel.send(&Reply::NodeFile(node), Some(fd.as_fd()))?,
                Ok(Outcome::File(fd)) => channel.send(&Reply::File, Some(fd.as_fd()))?,
                Ok(Outcome::Connection(fd)) => channel.send(&Reply::Connection, Some(fd.as_fd()))?,
                Ok(Outcome::Watched(handle, told)) => {
                    let (fsid, kind, bytes) = handle.parts();
                    channel.send(&Reply::Watched { fsid, kind, bytes, told }, None)?;
                }
                Ok(Outcome::Told(events, touched)) => {
                    let touched = touched.iter().map(FileHandle::parts).collect();
                    channel.send(&Reply::Told { events: &events, touched }, None)?;
                }
                Ok(Outcome::Listing) => self.send_listing(channel)?,
                Err(errno) => channel.send(&Reply::Failed(errno.raw()), None)?,
            }
        }
    }

    fn close(&self, closed: &[Handle]) {
        if !closed.is_empty() {
            let mut handles = self.tree.handles.lock();
            closed.iter().for_each(|handle| handles.close(*handle));
        }
    }

    /// Carries a request out. Names are checked by the tree.
    fn answer(&mut self, request: Request<'_>) -> Result<Outcome> {
        let files = &self.tree.files;
        let at = |handle| self.tree.handles.lock().get(handle);
        let done = |()| Outcome::Reply(Reply::Done);
        let held = |(node, metadata)| -> Result<Outcome> {
            Ok(Outcome::Reply(Reply::Node(self.tree.handles.lock().insert(node)?, metadata)))
        };
        // Only ListMore goes on with a listing: anything else lets it go.
        if !matches!(request, Request::ListMore) {
            self.listing = VecDeque::new();
        }
        Ok(match request {
            Request::Connect => Outcome::Connection(self.connect()?),
            Request::StatAt { dir, name } => Outcome::Reply(Reply::Metadata(files.stat_at(&*at(dir)?, name)?)),
            Request::Lookup { dir, name } => held(files.lookup(&*at(dir)?, name)?)?,
            Request::Hold { dir, name, access } => held(files.hold(&*at(dir)?, name, access)?)?,
            Request::Stat { node } => Outcome::Reply(Reply::Metadata(files.stat(&*at(node)?)?)),
            Request::OpenAt { dir, name, access } => Outcome::File(files.open_at(&*at(dir)?, name, access)?),
            // Refused by the tree unless it was told that FIFOs are the host's.
            Request::OpenFifoAt { dir, name, access } => Outcome::File(files.open_fifo_at(&*at(dir)?, name, access)?),
            Request::OpenHeldAt { dir, name, access } => {
                let fd = files.open_at(&*at(dir)?, name, access)?;
                let node = files.adopt(&fd, access).ok_or(Errno::EMFILE)?;
                Outcome::NodeFile(self.tree.handles.lock().insert(node)?, fd)
            }
            Request::Reopen { node, access } => Outcome::File(files.reopen(&*at(node)?, access)?),
            Request::Create { dir, name, new } => Outcome::File(files.create(&*at(dir)?, name, new)?),
            Request::Unnamed { dir, new } => {
                let (node, fd) = files.unnamed(&*at(dir)?, new)?;
                Outcome::NodeFile(self.tree.handles.lock().insert(node)?, fd)
            }
            Request::Make { dir, name, kind, new } => held(files.make(&*at(dir)?, name, kind.into(), new)?)?,
            Request::Link { node, new_dir, new_name } => files.link(&*at(node)?, &*at(new_dir)?, new_name).map(done)?,
            Request::LinkAt { dir, name, new_dir, new_name } => {
                files.link_at(&*at(dir)?, name, &*at(new_dir)?, new_name).map(done)?
            }
            Request::Unlink { dir, name } => files.unlink(&*at(dir)?, name).map(done)?,
            Request::Rmdir { dir, name } => files.rmdir(&*at(dir)?, name).map(done)?,
            Request::Rename { dir, name, new_dir, new_name, how } => {
                files.rename(&*at(dir)?, name, &*at(new_dir)?, new_name, how).map(done)?
            }
            Request::ReadLink { node } => Outcome::Bytes(files.read_link(&*at(node)?)?),
            Request::ConnectSocket { node, socket_type } => Outcome::File(files.connect(&*at(node)?, socket_type)?),
            // Refused by the tree unless it was told to.
            Request::BindSocket { dir, name, socket_type, new } => {
                let (node, _, socket) = files.bind(&*at(dir)?, name, socket_type, new)?;
                Outcome::NodeFile(self.tree.handles.lock().insert(node)?, socket)
            }
            Request::SetAttr { node, attr } => {
                let node = at(node)?;
                files.set_attr(&node, &attr.into())?;
                // Told of as a reading or writing, which the client takes for another's unless it is told.
                if let Some(Ok(watches)) = self.tree.watches.get()
                    && attr.atime.is_some() != attr.mtime.is_some()
                {
                    watches.touched(node.as_fd());
                }
                done(())
            }
            Request::GetXattr { node, name } => Outcome::Bytes(files.get_xattr(&*at(node)?, name)?),
            Request::SetXattr { node, name, value, flags } => {
                files.set_xattr(&*at(node)?, name, value, flags).map(done)?
            }
            Request::ListXattr { node } => Outcome::Names(files.list_xattr(&*at(node)?)?),
            Request::RemoveXattr { node, name } => files.remove_xattr(&*at(node)?, name).map(done)?,
            Request::List { dir } => {
                let listing = files.list(&*at(dir)?)?;
                self.listing = listing.into();
                Outcome::Listing
            }
            Request::ListMore => Outcome::Listing,
            Request::Sync { dir, data_only } => {
                let kind = if data_only { SyncKind::Data } else { SyncKind::All };
                files.sync(&*at(dir)?, kind).map(done)?
            }
            Request::SyncFs { dir } => files.sync_fs(&*at(dir)?).map(done)?,
            Request::Group { of } => {
                let watches = self.tree.watches()?;
                let group = match of {
                    Watcher::Client => watches.client(),
                    Watcher::Gofer => watches.own(),
                };
                Outcome::File(group.try_clone().map_err(Errno::from)?)
            }
            Request::Watch { node, what } => {
                let (handle, told) = self.tree.watches()?.mark(&files.open_to_watch(&*at(node)?)?, what)?;
                Outcome::Watched(handle, told)
            }
            Request::Unwatch { node, what } => {
                self.tree.watches()?.unmark(&files.open_to_watch(&*at(node)?)?, what);
                done(())
            }
            Request::Told => {
                let (events, touched) = self.tree.watches()?.told()?;
                Outcome::Told(events, touched)
            }
            Request::Statfs { node } => Outcome::Reply(Reply::Statfs(files.statfs(&*at(node)?)?)),
        })
    }

    /// Another connection to the tree; the client's end of it.
    fn connect(&self) -> Result<OwnedFd> {
        let (ours, theirs) = Channel::pair()?;
        Connection::start(&self.tree, ours, &self.alive)?;
        Ok(theirs)
    }

    /// Sends as much of the listing as fits into a message.
    fn send_listing(&mut self, channel: &mut Channel) -> io::Result<()> {
        let mut part = Vec::new();
        let mut bytes = 0;
        while let Some(entry) = self.listing.pop_front() {
            bytes += encoded(&entry).max_encoded_bytes();
            if bytes > LISTING_BYTES {
                // The first of the next part.
                self.listing.push_front(entry);
                break;
            }
            part.push(entry);
        }
        let entries = part.iter().map(encoded).collect();
        channel.send(&Reply::Entries { entries, more: !self.listing.is_empty() }, None)
    }
}

fn encoded(entry: &HostEntry) -> Entry<'_> {
    Entry { name: &entry.name, ino: entry.ino, dtype: entry.dtype, next: entry.next }
}

#[cfg(test)]
mod tests;
