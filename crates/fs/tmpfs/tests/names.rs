//! The rules of names, attributes and contents, through the vfs on a tmpfs.

use std::ops::ControlFlow;
use std::sync::Arc;

use moat_abi::cap::CapSet;
use moat_abi::fs::{FileType, OpenFlags, SEEK_END, SEEK_SET};
use moat_abi::{Errno, Result};
use moat_fs_tmpfs::{TmpFs, TmpOptions};
use moat_vfs::caller::KernelCaller;
use moat_vfs::inode::{NodeKind, RenameFlags};
use moat_vfs::ops::{self, OpenHow};
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{Credentials, FsContext, Mount, MountFlags, MountNamespace, OpenFile, Registry, UserNamespace, Vfs};

struct World {
    caller: KernelCaller,
    fs: FsContext,
    vfs: Arc<Vfs>,
}

impl World {
    fn new() -> World {
        let options = TmpOptions { size: 1 << 20, inodes: 100, mode: 0o755, uid: 0, gid: 0, memory: 0 };
        World::with(&options)
    }

    fn with(options: &TmpOptions) -> World {
        let mut registry = Registry::default();
        moat_fs_tmpfs::register(&mut registry);
        let vfs = moat_vfs::vfs::fake::vfs(registry);
        let fs = TmpFs::new(vfs.new_device(), options).unwrap();
        let mount = Mount::new(vfs.tables(), fs, MountFlags::empty(), b"root");
        let ns = MountNamespace::new(mount, vfs.root_user_ns.clone());
        World { caller: vfs.kernel_caller(), fs: FsContext::new(ns), vfs: Arc::new(vfs) }
    }

    fn user(&self, uid: u32) -> World {
        let creds = Credentials::user(uid, uid, Arc::from([]), CapSet::EMPTY, UserNamespace::root());
        World { caller: KernelCaller::new(Arc::new(creds)), fs: self.fs.clone(), vfs: self.vfs.clone() }
    }

    fn view(&self) -> View<'_> {
        View { caller: &self.caller, root: &self.fs.root, base: &self.fs.cwd, umask: 0o022 }
    }

    fn open(&self, path: &str, flags: OpenFlags) -> Result<Arc<OpenFile>> {
        ops::open(&self.view(), path.as_bytes(), &OpenHow::new(flags, 0o644))
    }

    fn write(&self, path: &str, text: &[u8]) {
        let f = self.open(path, OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC).unwrap();
        assert_eq!(f.write(text), Ok(text.len()));
    }

    fn read(&self, path: &str) -> Result<Vec<u8>> {
        let f = self.open(path, OpenFlags::empty())?;
        let mut buf = vec![0; 4096];
        let n = f.read(&mut buf)?;
        buf.truncate(n);
        Ok(buf)
    }

    fn mkdir(&self, path: &str) -> Result<()> {
        ops::mkdir(&self.view(), path.as_bytes(), 0o755).map(|_| ())
    }

    fn symlink(&self, target: &str, path: &str) {
        ops::symlink(&self.view(), target.as_bytes(), path.as_bytes()).unwrap();
    }

    fn rename(&self, a: &str, b: &str, flags: RenameFlags) -> Result<()> {
        ops::rename(&self.view(), a.as_bytes(), &self.view(), b.as_bytes(), flags)
    }

    fn find(&self, path: &str, flags: LookupFlags) -> Result<String> {
        let p = resolve(&self.view(), path.as_bytes(), flags)?;
        Ok(String::from_utf8(p.text(Some(&self.fs.root))).unwrap())
    }

    fn list(&self, path: &str) -> Vec<String> {
        let f = self.open(path, OpenFlags::DIRECTORY).unwrap();
        let mut names = Vec::new();
        f.readdir(&mut |e| {
            names.push(String::from_utf8(e.name.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
        names
    }
}

#[test]
fn open_gives_the_errors_of_linux() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.write("/f", b"x");
    w.symlink("nowhere", "/dangling");
    w.symlink("loop", "/loop");
    let creat = OpenFlags::CREAT | OpenFlags::WRONLY;
    let err = |p: &str, f| w.open(p, f).err();
    assert_eq!(err("/d", creat), Some(Errno::EISDIR));
    assert_eq!(err("/new/", creat), Some(Errno::EISDIR));
    assert_eq!(err(".", creat | OpenFlags::EXCL), Some(Errno::EEXIST));
    assert_eq!(err("/dangling", creat | OpenFlags::EXCL), Some(Errno::EEXIST));
    assert_eq!(err("/d", OpenFlags::WRONLY), Some(Errno::EISDIR));
    assert_eq!(err("/f", OpenFlags::DIRECTORY), Some(Errno::ENOTDIR));
    assert_eq!(err("/f/", OpenFlags::empty()), Some(Errno::ENOTDIR));
    assert_eq!(err("/f/x", OpenFlags::empty()), Some(Errno::ENOTDIR));
    assert_eq!(err("/loop", OpenFlags::empty()), Some(Errno::ELOOP));
    assert_eq!(err("/dangling", OpenFlags::NOFOLLOW), Some(Errno::ELOOP));
    assert_eq!(err("/f", creat | OpenFlags::DIRECTORY), Some(Errno::EINVAL));
    assert_eq!(err("", OpenFlags::empty()), Some(Errno::ENOENT));
    assert_eq!(err(&"x".repeat(256), OpenFlags::empty()), Some(Errno::ENAMETOOLONG));
    assert!(err("/dangling", creat).is_none(), "O_CREAT makes what a dangling link points to");
    assert!(w.list("/").contains(&"nowhere".to_string()));
    let path = w.open("/dangling", OpenFlags::PATH | OpenFlags::NOFOLLOW).unwrap();
    assert_eq!(path.inode().file_type(), FileType::Symlink);
}

#[test]
fn permissions_and_sticky_directories() {
    let w = World::new();
    let u = w.user(1000);
    w.write("/secret", b"x");
    ops::chmod(
        &Credentials::root(UserNamespace::root()),
        &resolve(&w.view(), b"/secret", LookupFlags::FOLLOW).unwrap(),
        0o600,
    )
    .unwrap();
    assert_eq!(u.open("/secret", OpenFlags::empty()).err(), Some(Errno::EACCES));
    assert_eq!(u.mkdir("/mine").err(), Some(Errno::EACCES));
    ops::mkdir(&w.view(), b"/tmp", 0o777).unwrap();
    let tmp = resolve(&w.view(), b"/tmp", LookupFlags::FOLLOW).unwrap();
    ops::chmod(&Credentials::root(UserNamespace::root()), &tmp, 0o1777).unwrap();
    w.write("/tmp/roots", b"x");
    u.write("/tmp/users", b"x");
    assert_eq!(ops::unlink(&u.view(), b"/tmp/roots"), Err(Errno::EPERM));
    assert_eq!(ops::unlink(&w.user(1001).view(), b"/tmp/users"), Err(Errno::EPERM));
    assert_eq!(ops::unlink(&u.view(), b"/tmp/users"), Ok(()));
    let dev = NodeKind::Device { file_type: FileType::CharDevice, rdev: moat_abi::stat::DeviceId::new(1, 3) };
    assert_eq!(ops::mknod(&u.view(), b"/tmp/null", 0o666, dev).err(), Some(Errno::EPERM));
}

#[test]
fn removing_names() {
    let w = World::new();
    w.mkdir("/d").unwrap();
    w.mkdir("/d/e").unwrap();
    w.write("/f", b"data");
    let rmdir = |p: &str| ops::rmdir(&w.view(), p.as_bytes());
    let unlink = |p: &str| ops::unlink(&w.view(), p.as_bytes());
    assert_eq!(rmdir("/d"), Err(Errno::ENOTEMPTY));
    assert_eq!(rmdir("/d/."), Err(Errno::EINVAL));
    assert_eq!(rmdir("/d/e/.."), Err(Errno::ENOTEMPTY));
    assert_eq!(rmdir("/"), Err(Errno::EBUSY));
    assert_eq!(rmdir("/f"), Err(Errno::ENOTDIR));
    assert_eq!(unlink("/d"), Err(Errno::EISDIR));
    assert_eq!(unlink("/f/"), Err(Errno::ENOTDIR));
    assert_eq!(unlink("/none"), Err(Errno::ENOENT));
    let f = w.open("/f", OpenFlags::empty()).unwrap();
    assert_eq!(unlink("/f"), Ok(()));
    assert_eq!(f.path().text(None), b"/f (deleted)");
    assert_eq!(f.metadata().unwrap().nlink, 0);
    let mut buf = [0; 8];
    assert_eq!(f.read(&mut buf), Ok(4), "an open file outlives its name");
    let e = resolve(&w.view(), b"/d/e", LookupFlags::FOLLOW).unwrap();
    assert_eq!(rmdir("/d/e/"), Ok(()));
    let inside = View { base: &e, ..w.view() };
    assert_eq!(ops::mkdir(&inside, b"x", 0o755).err(), Some(Errno::ENOENT));
}

#[test]
fn renaming() {
    let w = World::new();
    for d in ["/a", "/a/b", "/c", "/c/full"] {
        w.mkdir(d).unwrap();
    }
    w.write("/f", b"f");
    w.write("/g", b"g");
    let none = RenameFlags::empty();
    assert_eq!(w.rename("/a", "/a/b/x", none), Err(Errno::EINVAL));
    assert_eq!(w.rename("/a/b", "/a", none), Err(Errno::ENOTEMPTY));
    assert_eq!(w.rename("/a", "/c", none), Err(Errno::ENOTEMPTY));
    assert_eq!(w.rename("/a", "/f", none), Err(Errno::ENOTDIR));
    assert_eq!(w.rename("/f", "/a", none), Err(Errno::EISDIR));
    assert_eq!(w.rename("/f", "/h/", none), Err(Errno::ENOTDIR));
    assert_eq!(w.rename("/f", "/g", RenameFlags::NOREPLACE), Err(Errno::EEXIST));
    assert_eq!(w.rename("/none", "/g", none), Err(Errno::ENOENT));
    assert_eq!(w.rename("/a/.", "/x", none), Err(Errno::EBUSY));
    assert_eq!(w.rename("/f", "/a/b", RenameFlags::EXCHANGE), Ok(()));
    assert_eq!(w.read("/a/b").as_deref(), Ok(&b"f"[..]));
    assert_eq!(w.list("/f"), [".", ".."]);
    assert_eq!(w.rename("/a/b", "/g", none), Ok(()));
    assert_eq!(w.read("/g").as_deref(), Ok(&b"f"[..]));
    assert_eq!(w.rename("/a", "/c/full", none), Ok(()), "an empty directory is replaced");
    assert_eq!(w.list("/c"), [".", "..", "full"]);
}

#[test]
fn links_count_and_share() {
    let w = World::new();
    w.write("/f", b"f");
    let f = resolve(&w.view(), b"/f", LookupFlags::FOLLOW).unwrap();
    assert_eq!(ops::link(&w.view(), &f, b"/g"), Ok(()));
    assert_eq!(ops::link(&w.view(), &f, b"/g"), Err(Errno::EEXIST));
    assert_eq!(f.inode().metadata().unwrap().nlink, 2);
    assert_eq!(w.rename("/f", "/g", RenameFlags::empty()), Ok(()), "two names of one file stay");
    assert_eq!(w.list("/").len(), 4);
    let u = ops::open(&w.view(), b"/", &OpenHow::new(OpenFlags::TMPFILE | OpenFlags::RDWR, 0o600)).unwrap();
    assert_eq!(u.metadata().unwrap().nlink, 0);
    assert_eq!(ops::link(&w.view(), u.path(), b"/named"), Ok(()));
    assert_eq!(u.metadata().unwrap().nlink, 1);
}

#[test]
fn mounts_cover_bind_and_go() {
    let w = World::new();
    w.mkdir("/m").unwrap();
    w.mkdir("/m/under").unwrap();
    let mount = |source: &str, target: &str, fs: &str, flags: u64| {
        let what = ops::Attach { source: source.as_bytes(), fs_type: fs.as_bytes(), flags, options: b"" };
        ops::mount(&w.vfs, &w.view(), &w.fs.namespace, target.as_bytes(), &what)
    };
    let umount = |target: &str| {
        ops::unmount(
            &w.view(),
            &w.fs.namespace,
            target.as_bytes(),
            moat_vfs::mount::Unmount::IfUnused,
            LookupFlags::FOLLOW,
        )
    };
    assert_eq!(mount("none", "/m", "nosuch", 0), Err(Errno::ENODEV));
    assert_eq!(mount("none", "/m", "tmpfs", 0), Ok(()));
    assert_eq!(w.list("/m"), [".", ".."]);
    w.mkdir("/m/in").unwrap();
    w.write("/m/in/file", b"x");
    assert_eq!(w.find("/m/in/../..", LookupFlags::FOLLOW).as_deref(), Ok("/"));
    assert_eq!(w.find("/m/in/../../m", LookupFlags::NO_XDEV), Err(Errno::EXDEV));
    w.mkdir("/b").unwrap();
    assert_eq!(mount("/m/in", "/b", "", 4096), Ok(()));
    assert_eq!(w.find("/b/file", LookupFlags::FOLLOW).as_deref(), Ok("/b/file"));
    assert_eq!(w.rename("/b/file", "/m/in/other", RenameFlags::empty()), Err(Errno::EXDEV));
    assert_eq!(mount("", "/b", "", 4096 | 32 | 1), Ok(()));
    assert_eq!(w.open("/b/file", OpenFlags::WRONLY).err(), Some(Errno::EROFS));
    assert!(w.open("/m/in/file", OpenFlags::WRONLY).is_ok());
    assert_eq!(ops::rmdir(&w.view(), b"/b"), Err(Errno::EBUSY));
    let busy = w.open("/b/file", OpenFlags::empty()).unwrap();
    assert_eq!(umount("/b"), Err(Errno::EBUSY));
    drop(busy);
    assert_eq!(umount("/b"), Ok(()));
    assert_eq!(umount("/b"), Err(Errno::EINVAL));
    assert_eq!(umount("/m"), Ok(()));
    assert_eq!(w.list("/m"), [".", "..", "under"]);
}

#[test]
fn openat2_keeps_inside() {
    let w = World::new();
    for d in ["/jail", "/jail/a", "/out"] {
        w.mkdir(d).unwrap();
    }
    w.symlink("/out", "/jail/abs");
    w.symlink("../../out", "/jail/a/rel");
    let jail = resolve(&w.view(), b"/jail", LookupFlags::FOLLOW).unwrap();
    let view = View { base: &jail, ..w.view() };
    let at = |p: &str, f| resolve(&view, p.as_bytes(), f | LookupFlags::FOLLOW).map(|p| p.text(None));
    assert_eq!(at("a/../..", LookupFlags::BENEATH), Err(Errno::EXDEV));
    assert_eq!(at("abs", LookupFlags::BENEATH), Err(Errno::EXDEV));
    assert_eq!(at("a/rel", LookupFlags::BENEATH), Err(Errno::EXDEV));
    assert_eq!(at("a/../a", LookupFlags::BENEATH).as_deref(), Ok(&b"/jail/a"[..]));
    assert_eq!(at("../../..", LookupFlags::IN_ROOT).as_deref(), Ok(&b"/jail"[..]));
    assert_eq!(at("abs", LookupFlags::IN_ROOT), Err(Errno::ENOENT));
    assert_eq!(at("abs", LookupFlags::NO_SYMLINKS), Err(Errno::ELOOP));
}

#[test]
fn contents_holes_and_limits() {
    let w = World::new();
    let f = w.open("/f", OpenFlags::CREAT | OpenFlags::RDWR).unwrap();
    assert_eq!(f.write_at(b"end", 200_000), Ok(3));
    assert_eq!(f.seek(0, SEEK_END), Ok(200_003));
    let mut buf = [1; 8];
    assert_eq!(f.read_at(&mut buf, 100), Ok(8));
    assert_eq!(buf, [0; 8]);
    assert_eq!(f.file().truncate(&f, 5), Ok(()));
    assert_eq!(f.file().truncate(&f, 10), Ok(()));
    assert_eq!(f.seek(0, SEEK_SET), Ok(0));
    assert_eq!(f.write(b"hello world"), Ok(11));
    assert_eq!(f.seek(-20, SEEK_END), Err(Errno::EINVAL));
    let big = vec![7; 2 << 20];
    let g = w.open("/g", OpenFlags::CREAT | OpenFlags::RDWR).unwrap();
    assert_eq!(g.write(&big), Ok((1 << 20) - 4096), "the other file has a block");
    assert_eq!(g.write(&big), Err(Errno::ENOSPC));
    ops::unlink(&w.view(), b"/f").unwrap();
    drop(f);
    assert_eq!(g.write(&big), Ok(4096), "a file that is gone frees its blocks");
    for i in 0.. {
        if let Err(e) = w.mkdir(&format!("/d{i}")) {
            assert_eq!(e, Errno::ENOSPC);
            assert!(i > 90 && i < 100);
            break;
        }
    }
}

#[test]
fn readdir_survives_changes() {
    let w = World::new();
    for i in 0..20 {
        w.write(&format!("/f{i}"), b"");
    }
    let dir = w.open("/", OpenFlags::DIRECTORY).unwrap();
    let mut seen = Vec::new();
    loop {
        let mut some = Vec::new();
        dir.readdir(&mut |e| {
            if some.len() == 3 {
                return ControlFlow::Break(());
            }
            some.push(String::from_utf8(e.name.to_vec()).unwrap());
            ControlFlow::Continue(())
        })
        .unwrap();
        if some.is_empty() {
            break;
        }
        // What has been seen is removed meanwhile, as rm -r does.
        for n in some.iter().filter(|n| n.starts_with('f')) {
            ops::unlink(&w.view(), format!("/{n}").as_bytes()).unwrap();
        }
        seen.extend(some);
    }
    assert_eq!(seen.len(), 22);
    assert_eq!(w.list("/"), [".", ".."]);
}

#[test]
fn deep_trees_are_dropped_without_recursion() {
    let options = TmpOptions { size: 0, inodes: 0, mode: 0o755, uid: 0, gid: 0, memory: 0 };
    let World { caller, fs, .. } = World::with(&options);
    let root = fs.namespace.root();
    let mut at = root.clone();
    for _ in 0..200_000 {
        let view = View { caller: &caller, root: &root, base: &at, umask: 0 };
        let next = ops::mkdir(&view, b"d", 0o755).unwrap();
        at = next;
    }
    drop((at, root, fs));
}

#[test]
fn many_large_files_need_few_descriptors() {
    let options = TmpOptions { size: 0, inodes: 0, mode: 0o755, uid: 0, gid: 0, memory: 0 };
    let w = World::with(&options);
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    if limit.current.is_some_and(|n| n < 6000) {
        return;
    }
    for i in 0..6000 {
        let f = w.open(&format!("/f{i}"), OpenFlags::CREAT | OpenFlags::WRONLY).unwrap();
        assert_eq!(f.write_at(b"x", 70_000), Ok(1));
    }
    assert!(descriptors() < 5000);
    assert_eq!(w.read("/f5999").map(|b| b.len()), Ok(4096));
}
