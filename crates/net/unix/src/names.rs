//! Names of UNIX sockets: in files, and abstract ones by network namespace.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::fs::FileType;
use moat_abi::socket::{AF_UNIX, UNIX_PATH_MAX};
use moat_abi::{Errno, Result};
use moat_kernel::task::current::from_caller;
use moat_sync::{LockClass, Mutex};
use moat_vfs::inode::{InodeKey, NodeKind};
use moat_vfs::socket::{SockAddr, family_of};
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{Access, Caller, Path, ops};

use crate::socket::{Flavor, UnixSocket};

/// Bytes before the path in `sockaddr_un`.
const PATH_OFFSET: usize = 2;

/// The name of a bound socket.
pub(crate) enum Name {
    /// A file. The path is held, so that no other file gets the inode's number.
    File { text: Vec<u8>, key: InodeKey, _path: Path },
    /// An abstract name, with its leading zero byte.
    Abstract { text: Vec<u8>, net_id: u64, flavor: Flavor },
}

impl Name {
    /// As getsockname(2) gives it: a path with its zero byte.
    pub(crate) fn to_sockaddr(&self) -> SockAddr {
        let mut bytes = AF_UNIX.to_ne_bytes().to_vec();
        match self {
            Name::File { text, .. } => {
                bytes.extend_from_slice(text);
                bytes.push(0);
            }
            Name::Abstract { text, .. } => bytes.extend_from_slice(text),
        }
        SockAddr::new(&bytes)
    }

    /// As /proc/net/unix shows it: zero bytes as `@`.
    pub(crate) fn shown(&self) -> Vec<u8> {
        match self {
            Name::File { text, .. } => text.clone(),
            Name::Abstract { text, .. } => text.iter().map(|b| if *b == 0 { b'@' } else { *b }).collect(),
        }
    }
}

/// An address as a call gives it.
pub(crate) enum Given<'a> {
    /// Nothing but the family.
    Unnamed,
    File(&'a [u8]),
    Abstract(&'a [u8]),
}

/// Decodes a `sockaddr_un` (`unix_validate_addr`).
///
/// # Errors
/// EINVAL.
pub(crate) fn parse(addr: &[u8]) -> Result<Given<'_>> {
    if family_of(addr) != Some(AF_UNIX) || addr.len() > PATH_OFFSET + UNIX_PATH_MAX {
        return Err(Errno::EINVAL);
    }
    let path = addr.get(PATH_OFFSET..).unwrap_or_default();
    Ok(match path.first() {
        None => Given::Unnamed,
        Some(0) => Given::Abstract(path),
        Some(_) => Given::File(path.split(|b| *b == 0).next().unwrap_or_default()),
    })
}

#[derive(Default)]
struct Table {
    files: HashMap<InodeKey, Weak<UnixSocket>>,
    abstracts: HashMap<(u64, Flavor, Vec<u8>), Weak<UnixSocket>>,
}

fn table() -> &'static Mutex<Table> {
    static TABLE: OnceLock<Mutex<Table>> = OnceLock::new();
    TABLE.get_or_init(|| Mutex::new(LockClass::Table, Table::default()))
}

/// Runs `body` with the caller's root, working directory and umask.
fn with_view<R>(caller: &dyn Caller, body: impl FnOnce(&View<'_>) -> Result<R>) -> Result<R> {
    let task = from_caller(caller).ok_or(Errno::EOPNOTSUPP)?;
    let fs = task.fs().lock().clone();
    body(&View { caller, root: &fs.root, base: &fs.cwd, umask: fs.umask })
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
    let made = with_view(caller, |view| ops::mknod(view, text, 0o777, NodeKind::Socket));
    let path = made.map_err(|e| if e == Errno::EEXIST { Errno::EADDRINUSE } else { e })?;
    let key = path.inode().metadata()?.key();
    table().lock().files.insert(key, Arc::downgrade(socket));
    Ok(Arc::new(Name::File { text: text.to_vec(), key, _path: path }))
}

fn bind_abstract(socket: &Arc<UnixSocket>, text: &[u8]) -> Result<Arc<Name>> {
    let (net_id, flavor) = (socket.net_id(), socket.flavor());
    let mut t = table().lock();
    let slot = t.abstracts.entry((net_id, flavor, text.to_vec())).or_default();
    if slot.strong_count() > 0 {
        return Err(Errno::EADDRINUSE);
    }
    *slot = Arc::downgrade(socket);
    Ok(Arc::new(Name::Abstract { text: text.to_vec(), net_id, flavor }))
}

/// Five hexadecimal digits that nobody has (`unix_autobind`).
fn bind_automatic(socket: &Arc<UnixSocket>) -> Result<Arc<Name>> {
    static NEXT: AtomicU32 = AtomicU32::new(0x3_1f52);
    const NAMES: u32 = 1 << 20;
    for _ in 0..NAMES {
        let n = NEXT.fetch_add(1, Ordering::Relaxed) % NAMES;
        match bind_abstract(socket, format!("\0{n:05x}").as_bytes()) {
            Err(Errno::EADDRINUSE) => {}
            done => return done,
        }
    }
    Err(Errno::ENOSPC)
}

/// Whether `socket` is the one that was bound to `name`: accepted sockets only show it.
pub(crate) fn is_owner(name: &Name, socket: &Weak<UnixSocket>) -> bool {
    let t = table().lock();
    let owner = match name {
        Name::File { key, .. } => t.files.get(key),
        Name::Abstract { text, net_id, flavor } => t.abstracts.get(&(*net_id, *flavor, text.clone())),
    };
    owner.is_some_and(|o| o.ptr_eq(socket))
}

/// Forgets a name. A file stays, as on Linux.
pub(crate) fn unbind(name: &Name) {
    let mut t = table().lock();
    match name {
        Name::File { key, .. } => drop(t.files.remove(key)),
        Name::Abstract { text, net_id, flavor } => drop(t.abstracts.remove(&(*net_id, *flavor, text.clone()))),
    }
}

/// Finds the socket of an address, for one of `flavor` (`unix_find_other`).
///
/// # Errors
/// ECONNREFUSED if nobody has it, EPROTOTYPE for a socket of another type, EACCES without write permission; those of a path.
pub(crate) fn find(caller: &dyn Caller, net_id: u64, flavor: Flavor, addr: &[u8]) -> Result<Arc<UnixSocket>> {
    match parse(addr)? {
        Given::Unnamed => Err(Errno::ECONNREFUSED),
        Given::Abstract(text) => {
            let found = table().lock().abstracts.get(&(net_id, flavor, text.to_vec())).cloned();
            found.and_then(|s| s.upgrade()).ok_or(Errno::ECONNREFUSED)
        }
        Given::File(text) => {
            let key = with_view(caller, |view| {
                let path = resolve(view, text, LookupFlags::FOLLOW)?;
                let inode = path.inode();
                inode.permission(view.creds(), Access::WRITE)?;
                if inode.file_type() != FileType::Socket {
                    return Err(Errno::ECONNREFUSED);
                }
                Ok(inode.metadata()?.key())
            })?;
            let found = table().lock().files.get(&key).cloned();
            let socket = found.and_then(|s| s.upgrade()).ok_or(Errno::ECONNREFUSED)?;
            if socket.flavor() == flavor { Ok(socket) } else { Err(Errno::EPROTOTYPE) }
        }
    }
}
