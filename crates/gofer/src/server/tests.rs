//! A server in this process, asked by the real client and by one that does not play by the rules.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use moat_abi::Errno;
use moat_fs_host::GoferTree;
use moat_fs_host::gofer::protocol::{MAX_HANDLES, ROOT};
use moat_fs_host::tree::{HostAccess, HostKind, HostRename, NewHostNode};
use moat_vfs::inode::SetAttr;

use super::*;

/// All tests have the process's descriptors in common; held alone by one that uses them up.
static DESCRIPTORS: RwLock<()> = RwLock::new(());

/// A hold of [`DESCRIPTORS`].
enum Hold {
    Shared { _guard: RwLockReadGuard<'static, ()> },
    Alone { _guard: RwLockWriteGuard<'static, ()> },
}

/// A directory that vanishes with the test.
struct Scratch(PathBuf, #[allow(dead_code)] Hold);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let guard = DESCRIPTORS.read().unwrap_or_else(PoisonError::into_inner);
        Scratch::with(name, Hold::Shared { _guard: guard })
    }

    /// While no other test runs.
    fn alone(name: &str) -> Scratch {
        let guard = DESCRIPTORS.write().unwrap_or_else(PoisonError::into_inner);
        Scratch::with(name, Hold::Alone { _guard: guard })
    }

    fn with(name: &str, hold: Hold) -> Scratch {
        let path = std::env::temp_dir().join(format!("moat-gofer-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("mkdir");
        Scratch(path, hold)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn serve(root: &Path) -> (OwnedFd, Serving) {
    let (ours, theirs) = Channel::pair().expect("socketpair");
    let root = File::open(root).expect("open").into();
    (ours, start(std::iter::once((root, theirs)), None, moat_fs_host::SpecialNodes::default()).expect("start"))
}

fn node(path: &Path) -> NewHostNode {
    let own = fs::metadata(path).expect("stat");
    NewHostNode { mode: 0o640, uid: own.uid(), gid: own.gid() }
}

#[test]
fn every_operation_reaches_the_host() {
    let dir = Scratch::new("operations");
    let (socket, serving) = serve(&dir.0);
    let tree = GoferTree::new(socket);
    let root = tree.root().expect("root");
    let new = node(&dir.0);

    let mut file = File::from(tree.create(&root, b"a", new).expect("create"));
    file.write_all(b"text").expect("write");
    assert_eq!(fs::read(dir.0.join("a")).expect("read"), b"text");
    let known = tree.stat_at(&root, b"a").expect("stat");
    assert_eq!((known.mode & 0o7777, known.size), (0o640, 4));
    let mut text = String::new();
    let read = tree.open_at(&root, b"a", HostAccess::Read).expect("open");
    File::from(read).read_to_string(&mut text).expect("read");
    assert_eq!(text, "text");

    let made = tree.make(&root, b"d", HostKind::Directory, NewHostNode { mode: 0o750, ..new });
    assert_eq!(made.expect("mkdir").1.mode & 0o7777, 0o750);
    let (sub, _) = tree.lookup(&root, b"d").expect("lookup");
    tree.rename(&root, b"a", &sub, b"b", HostRename::NoReplace).expect("rename");
    let (b, known) = tree.lookup(&sub, b"b").expect("lookup");
    assert!(known.btime.is_some(), "the host of the tests tells when a file was made");
    tree.link_at(&sub, b"b", &root, b"c").expect("link_at");
    assert_eq!(tree.stat(&b).expect("stat").nlink, 2);
    tree.set_attr(&b, &SetAttr { mode: Some(0o400), ..SetAttr::default() }).expect("set_attr");
    tree.set_attr(&sub, &SetAttr { mode: Some(0o700), ..SetAttr::default() }).expect("set_attr");
    let (s, _) = tree.make(&root, b"s", HostKind::Symlink(b"d/b"), new).expect("symlink");
    assert_eq!(tree.read_link(&s).expect("read_link"), b"d/b");
    tree.make(&root, b"f", HostKind::Fifo, new).expect("mkfifo");
    tree.make(&root, b"u", HostKind::Socket, new).expect("socket");
    let mut names: Vec<_> = tree.list(&root).expect("list").into_iter().map(|e| (e.name, e.dtype)).collect();
    names.sort();
    let all = [(&b"c"[..], 8), (b"d", 4), (b"f", 1), (b"s", 10), (b"u", 12)];
    assert!(names.iter().map(|(name, dtype)| (name.as_slice(), *dtype)).eq(all));
    assert!(tree.statfs(&root).expect("statfs").f_blocks > 0);
    tree.sync(&root, SyncKind::All).expect("sync");
    tree.sync(&sub, SyncKind::Data).expect("sync");
    tree.sync_fs(&root).expect("sync_fs");
    tree.unlink(&sub, b"b").expect("unlink");
    tree.rmdir(&root, b"d").expect("rmdir");
    assert_eq!(tree.stat_at(&root, b"d").err(), Some(Errno::ENOENT));
    drop((b, s));

    drop((sub, root, tree));
    serving.wait();
}

#[test]
fn a_file_is_held_whatever_its_names() {
    let dir = Scratch::new("held");
    let (socket, serving) = serve(&dir.0);
    let tree = GoferTree::new(socket);
    let root = tree.root().expect("root");
    fs::write(dir.0.join("a"), "old").expect("write");
    let (path, _) = tree.lookup(&root, b"a").expect("lookup");
    let (held, _) = tree.hold(&root, b"a", HostAccess::ReadWrite).expect("hold");
    fs::remove_file(dir.0.join("a")).expect("unlink");
    fs::write(dir.0.join("a"), "new").expect("write");
    tree.set_attr(&held, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).expect("set_attr");
    assert_ne!(fs::metadata(dir.0.join("a")).expect("stat").mode() & 0o7777, 0o600);
    assert_eq!(tree.stat(&path).expect("stat").mode & 0o7777, 0o600);
    let mut text = String::new();
    File::from(tree.reopen(&held, HostAccess::ReadWrite).expect("reopen")).read_to_string(&mut text).expect("read");
    assert_eq!(text, "old");
    assert_eq!(tree.reopen(&path, HostAccess::Read).err(), Some(Errno::ESTALE));
    match tree.set_xattr(&held, b"trusted.x", b"1", 0) {
        Err(Errno::EOPNOTSUPP) => {}
        done => {
            done.expect("set_xattr");
            assert_eq!(tree.get_xattr(&held, b"trusted.x").expect("get_xattr"), b"1");
            assert!(tree.list_xattr(&held).expect("list_xattr").contains(&b"trusted.x".to_vec()));
            assert_eq!(tree.get_xattr(&held, b"user.moat.trusted.x"), Err(Errno::ENODATA));
            tree.remove_xattr(&held, b"trusted.x").expect("remove_xattr");
        }
    }
    let (unnamed, fd) = tree.unnamed(&root, node(&dir.0)).expect("unnamed");
    File::from(fd).write_all(b"unnamed").expect("write");
    tree.link(&unnamed, &root, b"n").expect("link");
    assert_eq!(fs::read(dir.0.join("n")).expect("read"), b"unnamed");
    drop((path, held, unnamed, root, tree));
    serving.wait();
}

#[test]
fn names_that_lead_out_are_refused() {
    let dir = Scratch::new("names");
    symlink("/etc", dir.0.join("etc")).expect("symlink");
    let (socket, _serving) = serve(&dir.0);
    let tree = GoferTree::new(socket);
    let root = tree.root().expect("root");
    for name in [&b""[..], b".", b"..", b"a/b", b"/etc/passwd", b"x\0y", b"../etc"] {
        assert_eq!(tree.stat_at(&root, name).err(), Some(Errno::EINVAL), "{name:?}");
        assert_eq!(tree.lookup(&root, name).map(drop).err(), Some(Errno::EINVAL), "{name:?}");
        assert_eq!(tree.open_at(&root, name, HostAccess::Read).err(), Some(Errno::EINVAL), "{name:?}");
        assert_eq!(tree.make(&root, name, HostKind::Directory, node(&dir.0)).err(), Some(Errno::EINVAL), "{name:?}");
        assert_eq!(tree.rename(&root, b"etc", &root, name, HostRename::Replace).err(), Some(Errno::EINVAL));
        assert_eq!(tree.unlink(&root, name).err(), Some(Errno::EINVAL), "{name:?}");
    }
    let (etc, _) = tree.lookup(&root, b"etc").expect("lookup");
    assert_eq!(tree.stat_at(&etc, b"passwd").err(), Some(Errno::ENOTDIR), "a link is held, not followed");
    assert_eq!(tree.open_at(&root, b"etc", HostAccess::Read).err(), Some(Errno::ELOOP));
    let long = [b'x'; 256];
    assert_eq!(tree.stat_at(&root, &long).err(), Some(Errno::ENAMETOOLONG));
    assert_eq!(tree.stat_at(&root, &long[..255]).err(), Some(Errno::ENOENT));
}

#[test]
fn long_listings_come_in_parts() {
    let dir = Scratch::new("listing");
    let name = |n: u32| format!("{n:0>200}");
    for n in 0..1000 {
        File::create(dir.0.join(name(n))).expect("create");
    }
    let (socket, _serving) = serve(&dir.0);
    let tree = GoferTree::new(socket);
    let root = tree.root().expect("root");
    let mut names: Vec<_> = tree.list(&root).expect("list").into_iter().map(|e| e.name).collect();
    names.sort();
    assert!(names.iter().map(Vec::as_slice).eq((0..1000).map(name).collect::<Vec<_>>().iter().map(String::as_bytes)));
}

#[test]
fn many_threads_share_a_tree_and_handles_are_given_back() {
    let dir = Scratch::new("threads");
    for n in 0..8 {
        fs::create_dir(dir.0.join(n.to_string())).expect("mkdir");
    }
    let (socket, serving) = serve(&dir.0);
    let tree = GoferTree::new(socket);
    let root = tree.root().expect("root");
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (tree, root) = (&tree, &root);
            scope.spawn(move || {
                let name = n.to_string().into_bytes();
                let ino = tree.stat_at(root, &name).expect("stat").ino;
                // In all more than there are handles.
                for _ in 0..MAX_HANDLES / 8 + 1 {
                    let (sub, _) = tree.lookup(root, &name).expect("lookup");
                    assert_eq!(tree.stat(&sub).expect("stat").ino, ino);
                }
            });
        }
    });
    drop((root, tree));
    serving.wait();
}

#[test]
fn a_client_that_breaks_the_rules_is_cut_off() {
    let dir = Scratch::new("hostile");
    for bytes in [&b"\xff"[..], b"\x00\x7f", b"\x00\x01\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff"] {
        let (socket, serving) = serve(&dir.0);
        rustix::io::write(&socket, bytes).expect("write");
        let mut channel = Channel::new(socket);
        assert!(channel.receive::<Reply<'_>>().expect("receive").is_none(), "{bytes:?}");
        serving.wait();
    }
    // A descriptor, too many handles.
    let (socket, _) = serve(&dir.0);
    let mut channel = Channel::new(socket);
    let fd = File::open("/").expect("open");
    channel.send(&Frame { closed: vec![], request: Request::Stat { node: ROOT } }, Some(fd.as_fd())).expect("send");
    assert!(channel.receive::<Reply<'_>>().expect("receive").is_none());
    let (socket, _) = serve(&dir.0);
    let mut channel = Channel::new(socket);
    let closed = vec![1; MAX_CLOSED + 1];
    channel.send(&Frame { closed, request: Request::Stat { node: ROOT } }, None).expect("send");
    assert!(channel.receive::<Reply<'_>>().expect("receive").is_none());
}

#[test]
fn handles_that_were_not_given_out_name_nothing() {
    let dir = Scratch::alone("handles");
    fs::create_dir(dir.0.join("d")).expect("mkdir");
    let (socket, serving) = serve(&dir.0);
    let mut channel = Channel::new(socket);
    let mut ask = |closed: &[Handle], request| {
        channel.send(&Frame { closed: closed.to_vec(), request }, None).expect("send");
        match channel.receive::<Reply<'_>>().expect("receive").expect("answer").0 {
            Reply::Failed(errno) => Err(Errno::from_raw(errno)),
            Reply::Node(handle, _) => Ok(handle),
            _ => Ok(0),
        }
    };
    for handle in [1, 5, Handle::MAX] {
        assert_eq!(ask(&[], Request::Stat { node: handle }), Err(Errno::EBADF));
        assert_eq!(ask(&[handle], Request::Stat { node: ROOT }), Ok(0));
    }
    assert_eq!(ask(&[ROOT], Request::Stat { node: ROOT }), Ok(0), "the root stays open");
    let open = Request::Lookup { dir: ROOT, name: b"d" };
    let mut given = 0;
    let full = loop {
        match ask(&[], open) {
            Ok(handle) => given = handle,
            Err(errno) => break errno,
        }
    };
    assert!(full == Errno::ENFILE || full == Errno::EMFILE, "{full:?}");
    assert_eq!(ask(&[given], open), Ok(given));
    assert_eq!(ask(&[], Request::ListMore), Ok(0), "nothing is left of no listing");
    drop(channel);
    serving.wait();
}
