//! Who has which name: in files, and abstract ones by network namespace.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_vfs::inode::{BoundSocket, Inode, NodeKind};
use moat_vfs::socket::Socket;
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{Access, Caller, Path, ops};

use crate::host::HostEnd;
use crate::name::{Given, Name, parse};
use crate::socket::UnixSocket;

/// Runs `body` with the caller's root, working directory and umask.
fn with_view<R>(caller: &dyn Caller, body: impl FnOnce(&View<'_>) -> Result<R>) -> Result<R> {
    let task = caller.task().ok_or(Errno::EOPNOTSUPP)?;
    let start = task.start_of_paths();
    body(&View { caller, root: &start.root, base: &start.cwd, umask: start.umask })
}

/// Gives `socket` a name, and enters it.
///
/// # Errors
/// EADDRINUSE, ENOSPC (no automatic name is free), those of mknod(2).
pub(crate) fn bind(caller: &dyn Caller, socket: &Arc<UnixSocket>, given: &Given<'_>) -> Result<Arc<Name>> {
    match given {
        Given::Unnamed => bind_automatic(socket),
        Given::Abstract(text) => bind_abstract(socket, text),
        Given::File(text) => bind_file(caller, socket, text),
    }
}

fn bind_file(caller: &dyn Caller, socket: &Arc<UnixSocket>, text: &[u8]) -> Result<Arc<Name>> {
    let bound = BoundSocket { socket_type: socket.kind().socket_type, host: OnceLock::new() };
    // The umask applies, as to mknod(2).
    let made = with_view(caller, |view| ops::mknod(view, text, 0o777, NodeKind::BoundSocket(&bound)));
    let path = made.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
    let key = path.inode().metadata()?.key();
    // Entered in the table all the same: within the sandbox it is found there.
    if let Some(fd) = bound.host.into_inner() {
        let _ = socket.host.named.set(HostEnd::new(fd, socket.endpoint.core.queue())?);
    }
    socket.family().files.lock().insert(key, Arc::downgrade(socket));
    Ok(Arc::new(Name::File { text: text.to_vec(), key, path }))
}

/// Gives `socket` out of an image the file that it was bound to.
///
/// # Errors
/// EADDRINUSE.
pub(crate) fn bind_found(socket: &Arc<UnixSocket>, text: &[u8], path: Path) -> Result<Arc<Name>> {
    let key = path.inode().metadata()?.key();
    // Of two sockets at one place the first would be lost.
    let before = socket.family().files.lock().insert(key, Arc::downgrade(socket));
    if before.is_some_and(|owner| owner.strong_count() > 0) {
        return Err(Errno::EADDRINUSE);
    }
    Ok(Arc::new(Name::File { text: text.to_vec(), key, path }))
}

pub(crate) fn bind_abstract(socket: &Arc<UnixSocket>, text: &[u8]) -> Result<Arc<Name>> {
    let flavor = socket.flavor();
    let mut abstracts = socket.local().abstracts.lock();
    let slot = abstracts.entry((flavor, text.to_vec())).or_default();
    // A socket that is just being dropped has no claim any more.
    if slot.strong_count() > 0 {
        return Err(Errno::EADDRINUSE);
    }
    *slot = Arc::downgrade(socket);
    Ok(Arc::new(Name::Abstract { text: text.to_vec(), flavor }))
}

/// Five hexadecimal digits that nobody has (`unix_autobind`).
fn bind_automatic(socket: &Arc<UnixSocket>) -> Result<Arc<Name>> {
    const NAMES: u32 = 1 << 20;
    for _ in 0..NAMES {
        let n = socket.local().next_automatic.fetch_add(1, Ordering::Relaxed) % NAMES;
        match bind_abstract(socket, format!("\0{n:05x}").as_bytes()) {
            Err(Errno::EADDRINUSE) => {}
            done => return done,
        }
    }
    Err(Errno::ENOSPC)
}

/// Forgets the name of `socket`, if it is the one that was bound to it: accepted sockets only show theirs. A file stays, as
/// on Linux.
pub(crate) fn unbind(name: &Name, socket: &UnixSocket, me: &Weak<UnixSocket>) {
    match name {
        Name::File { key, .. } => {
            let mut files = socket.family().files.lock();
            if files.get(key).is_some_and(|owner| owner.ptr_eq(me)) {
                files.remove(key);
            }
        }
        Name::Abstract { text, flavor } => {
            let mut abstracts = socket.local().abstracts.lock();
            let at = (*flavor, text.clone());
            if abstracts.get(&at).is_some_and(|owner| owner.ptr_eq(me)) {
                abstracts.remove(&at);
            }
        }
        Name::Shown { .. } => {}
    }
}

/// Who is at an address.
pub(crate) enum Found {
    /// A socket of the sandbox.
    Socket(Arc<UnixSocket>),
    /// The node of a socket that nobody in the sandbox has: of one of the host, perhaps.
    Node(Arc<dyn Inode>),
}

/// Finds the socket of an address, for `by` to talk to (`unix_find_other`).
///
/// # Errors
/// ECONNREFUSED if nobody has it, EPROTOTYPE for a socket of another type, EACCES without write permission; those of a path.
pub(crate) fn find(caller: &dyn Caller, by: &UnixSocket, addr: &[u8]) -> Result<Found> {
    match parse(addr)? {
        Given::Unnamed => Err(Errno::ECONNREFUSED),
        Given::Abstract(text) => {
            let found = by.local().abstracts.lock().get(&(by.flavor(), text.to_vec())).cloned();
            found.and_then(|s| s.upgrade()).map(Found::Socket).ok_or(Errno::ECONNREFUSED)
        }
        Given::File(text) => {
            let (key, inode) = with_view(caller, |view| {
                let path = resolve(view, text, LookupFlags::FOLLOW)?;
                let inode = path.inode();
                // Write permission is what connecting takes (unix(7)).
                inode.permission(view.creds(), Access::WRITE)?;
                if inode.file_type() != FileType::Socket {
                    return Err(Errno::ECONNREFUSED);
                }
                Ok((inode.metadata()?.key(), inode.clone()))
            })?;
            let found = by.family().files.lock().get(&key).cloned();
            let Some(socket) = found.and_then(|s| s.upgrade()) else { return Ok(Found::Node(inode)) };
            if socket.flavor() == by.flavor() { Ok(Found::Socket(socket)) } else { Err(Errno::EPROTOTYPE) }
        }
    }
}
