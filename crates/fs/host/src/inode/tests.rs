//! Files whose nodes were given back, and that others have moved meanwhile.

use std::any::Any;
use std::fs;
use std::path::{Path, PathBuf};

use moat_vfs::filesystem::FileSystem;
use moat_vfs::inode::{Inode, NewNode, NodeKind, SetAttr};

use super::*;
use crate::tree::HostAccess;
use crate::{DirectTree, HostFs};

/// A directory that vanishes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("moat-inode-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("mkdir");
        Scratch(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Node = Arc<HostInode<DirectTree>>;

fn mount(path: &Path, trust: Trust) -> (Arc<HostFs<DirectTree>>, Node) {
    let tree = DirectTree::new(fs::File::open(path).expect("open").into());
    let fs = HostFs::new(moat_abi::stat::DeviceId::new(0, 50), tree, trust).expect("mount");
    let any: Arc<dyn Any + Send + Sync> = fs.root();
    (fs, any.downcast().expect("a host inode"))
}

/// Takes the node of an inode that could be found again.
fn close(inode: &Node) {
    inode.recent.store(false, Ordering::Relaxed);
    inode.give_node_back();
    inode.give_node_back();
}

fn own_node(mode: u32) -> NewNode<'static> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    NewNode { mode, uid, gid, kind: NodeKind::File }
}

#[test]
fn a_chain_of_any_length_is_opened_again_and_dropped() {
    let small_stack = std::thread::Builder::new().stack_size(128 << 10);
    small_stack.spawn(open_and_drop_a_chain).expect("spawn").join().expect("no panic");
}

fn open_and_drop_a_chain() {
    const DEPTH: usize = 3000;
    let dir = Scratch::new("deep");
    let (_fs, root) = mount(&dir.0, Trust::Shared);
    let mut deepest = root.clone();
    for _ in 0..DEPTH {
        deepest.create(b"d", &NewNode { kind: NodeKind::Dir, ..own_node(0o700) }).expect("mkdir");
        deepest = deepest.find(b"d").expect("find");
    }
    let mut at = deepest.clone();
    while let Some((parent, _)) = at.last_place() {
        close(&at);
        at = parent;
    }
    assert!(!deepest.is_held());
    assert_eq!(deepest.listing(|| deepest.node()).expect("entries").len(), 0);
    drop(at);
    drop(deepest);
    // From below, because a path of this length can't be walked.
    let mut at = fs::canonicalize(&dir.0).expect("path");
    let top = at.clone();
    for _ in 0..DEPTH {
        fs::rename(at.join("d"), top.join("next")).expect("rename");
        if at != top {
            fs::remove_dir(&at).expect("rmdir");
        }
        fs::rename(top.join("next"), top.join("this")).expect("rename");
        at = top.join("this");
    }
}

#[test]
fn directories_that_swap_places_are_no_cycle() {
    let dir = Scratch::new("cycle");
    let (a, b) = (dir.0.join("a"), dir.0.join("b"));
    fs::create_dir_all(a.join("b")).expect("mkdir");
    let (_fs, root) = mount(&dir.0, Trust::Shared);
    let node_a = root.find(b"a").expect("find");
    let node_b = node_a.find(b"b").expect("find");
    // a/b becomes b/a; only b's entry is looked at, and then a/b is made again.
    fs::rename(a.join("b"), &b).expect("rename");
    fs::rename(&a, b.join("a")).expect("rename");
    assert!(Arc::ptr_eq(&root.find(b"b").expect("find"), &node_b));
    assert!(Arc::ptr_eq(&node_b.find(b"a").expect("find"), &node_a));
    let kept = node_a.node().expect("node");
    fs::rename(b.join("a"), &a).expect("rename");
    fs::rename(&b, a.join("b")).expect("rename");
    assert!(Arc::ptr_eq(&node_a.find(b"b").expect("find"), &node_b));
    drop(kept);
    close(&node_a);
    close(&node_b);
    assert!(node_b.node().is_err(), "what is known of it is from before");
    assert!(Arc::ptr_eq(&root.find(b"a").expect("find"), &node_a));
    assert!(Arc::ptr_eq(&node_a.find(b"b").expect("find"), &node_b));
    assert!(node_b.node().is_ok());
}

#[test]
fn a_directory_in_the_place_of_another_is_stale() {
    let dir = Scratch::new("stale");
    fs::create_dir(dir.0.join("d")).expect("mkdir");
    let (_fs, root) = mount(&dir.0, Trust::Shared);
    let d = root.find(b"d").expect("find");
    let held = d.node().expect("node");
    close(&d);
    fs::rename(dir.0.join("d"), dir.0.join("old")).expect("rename");
    fs::create_dir(dir.0.join("d")).expect("mkdir");
    assert_eq!(d.node().err(), Some(Errno::ESTALE));
    fs::remove_dir(dir.0.join("d")).expect("rmdir");
    std::os::unix::fs::symlink("/", dir.0.join("d")).expect("symlink");
    assert_eq!(d.node().err(), Some(Errno::ESTALE), "a link is not followed");
    drop(held);
}

fn bits(path: &Path) -> u32 {
    use std::os::unix::fs::MetadataExt;
    fs::symlink_metadata(path).expect("stat").mode() & 0o7777
}

fn chmod(mode: u32) -> SetAttr {
    SetAttr { mode: Some(mode), ..SetAttr::default() }
}

#[test]
fn a_change_reaches_the_file_and_not_its_name() {
    for trust in [Trust::Exclusive, Trust::Shared] {
        let dir = Scratch::new("object");
        let (_fs, root) = mount(&dir.0, trust);
        let old = root.create(b"x", &own_node(0o644)).expect("create");
        root.unlink(b"x").expect("unlink");
        root.create(b"x", &own_node(0o644)).expect("create");
        old.set_attr(&chmod(0o600)).expect("set_attr");
        assert_eq!(bits(&dir.0.join("x")), 0o644, "{trust:?}");
        let meta = old.metadata().expect("metadata");
        assert_eq!((meta.mode & 0o7777, meta.nlink), (0o600, 0));
        assert_eq!(root.link(b"y", &old), Err(Errno::ENOENT), "what is gone stays gone");
    }
}

#[test]
fn a_file_is_there_while_one_of_its_names_is() {
    for trust in [Trust::Exclusive, Trust::Shared] {
        let dir = Scratch::new("links");
        let (_fs, root) = mount(&dir.0, trust);
        let a = root.create(b"a", &own_node(0o644)).expect("create");
        root.link(b"b", &a).expect("link");
        assert!(Arc::ptr_eq(&root.find(b"b").expect("find"), &root.find(b"a").expect("find")));
        root.unlink(b"b").expect("unlink");
        a.set_attr(&chmod(0o600)).expect("set_attr");
        assert_eq!(bits(&dir.0.join("a")), 0o600, "{trust:?}");
        root.link(b"c", &a).expect("link");
        assert_eq!(a.metadata().expect("metadata").nlink, 2);
    }
}

#[test]
fn a_number_that_is_given_again_is_another_file() {
    let dir = Scratch::new("reuse");
    let (_fs, root) = mount(&dir.0, Trust::Shared);
    fs::write(dir.0.join("x"), "x").expect("write");
    let old = root.find(b"x").expect("find");
    close(&old);
    fs::remove_file(dir.0.join("x")).expect("unlink");
    fs::create_dir(dir.0.join("x")).expect("mkdir");
    let new = root.find(b"x").expect("find");
    assert_eq!(new.file_type(), FileType::Directory);
    assert!(!Arc::ptr_eq(&old, &new));
    assert_eq!(old.metadata().err(), Some(Errno::ESTALE));
    assert_eq!(old.set_attr(&chmod(0o600)).err(), Some(Errno::ESTALE));
}

#[test]
fn nodes_are_bounded() {
    let dir = Scratch::new("bounded");
    for n in 0..1100 {
        fs::create_dir(dir.0.join(n.to_string())).expect("mkdir");
    }
    let (_fs, root) = mount(&dir.0, Trust::Shared);
    let all: Vec<Node> = (0..1100).map(|n| root.find(n.to_string().as_bytes()).expect("find")).collect();
    let held = all.iter().filter(|inode| inode.is_held()).count();
    assert!(held <= 1024, "{held}");
    assert!(all.iter().all(|inode| inode.metadata().is_ok()), "all are found again");
}

/// The names in the root, as they are seen.
fn names(root: &Node) -> Vec<String> {
    let listing = root.listing(|| root.node()).expect("listing");
    let mut names: Vec<String> =
        listing.behind(0).map(|(entry, _)| String::from_utf8_lossy(&entry.name).into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_exclusive_directory_is_listed_once_until_the_sandbox_changes_it() {
    let dir = Scratch::new("listed");
    fs::write(dir.0.join("a"), "a").expect("write");
    let (_fs, root) = mount(&dir.0, Trust::Exclusive);
    assert_eq!(names(&root), ["a"]);
    // Behind its back: the tree is not to be changed so, and that it is not seen shows that the host is not asked.
    fs::write(dir.0.join("b"), "b").expect("write");
    assert_eq!(names(&root), ["a"]);
    root.create(b"c", &own_node(0o600)).expect("create");
    assert_eq!(names(&root), ["a", "b", "c"]);
    let found: Arc<dyn Inode> = root.clone();
    root.rename(b"c", &found, b"d", moat_vfs::RenameFlags::empty()).expect("rename");
    assert_eq!(names(&root), ["a", "b", "d"]);
    root.link(b"e", &(root.find(b"d").expect("find") as Arc<dyn Inode>)).expect("link");
    root.unlink(b"a").expect("unlink");
    assert_eq!(names(&root), ["b", "d", "e"]);
    root.create(b"f", &NewNode { kind: NodeKind::Dir, ..own_node(0o700) }).expect("mkdir");
    root.unlink(b"b").expect("unlink");
    assert_eq!(names(&root), ["d", "e", "f"]);
    root.rmdir(b"f").expect("rmdir");
    assert_eq!(names(&root), ["d", "e"]);
}

#[test]
fn a_shared_directory_is_listed_each_time() {
    let dir = Scratch::new("asked");
    let (_fs, root) = mount(&dir.0, Trust::Shared);
    assert_eq!(names(&root), [""; 0]);
    fs::write(dir.0.join("a"), "a").expect("write");
    assert_eq!(names(&root), ["a"]);
}

#[test]
fn a_descriptor_is_kept_for_the_next_reader_unless_the_file_may_go() {
    let dir = Scratch::new("reader");
    fs::write(dir.0.join("a"), "a").expect("write");
    for (trust, kept) in [(Trust::Exclusive, 1), (Trust::Shared, 0)] {
        let (_fs, root) = mount(&dir.0, trust);
        let file = root.find(b"a").expect("find");
        let fd = Arc::downgrade(&file.open_host(crate::tree::HostAccess::Read).expect("open"));
        assert_eq!(fd.strong_count(), kept);
        if trust == Trust::Exclusive {
            let again = file.open_host(crate::tree::HostAccess::Read).expect("open");
            assert!(std::ptr::eq(Arc::as_ptr(&again), fd.as_ptr()));
            drop(again);
            root.unlink(b"a").expect("unlink");
            // Nothing is kept of a file that goes.
            assert_eq!(fd.strong_count(), 0);
            fs::write(dir.0.join("a"), "a").expect("write");
        }
    }
}

#[test]
fn what_permissions_depend_on_is_not_asked_again_when_entries_change() {
    let dir = Scratch::new("ownership");
    let (_fs, root) = mount(&dir.0, Trust::Exclusive);
    let (before, mode) = (root.metadata().expect("stat"), bits(&dir.0));
    root.create(b"d", &NewNode { kind: NodeKind::Dir, ..own_node(0o700) }).expect("mkdir");
    // Behind its back, to see what is asked.
    fs::set_permissions(&dir.0, std::os::unix::fs::PermissionsExt::from_mode(0o511)).expect("chmod");
    assert_eq!(root.ownership().expect("stat").mode & 0o777, mode & 0o777);
    let after = root.metadata().expect("stat");
    assert_eq!((after.nlink, after.mode & 0o777), (before.nlink + 1, 0o511));
    root.set_attr(&chmod(0o700)).expect("chmod");
    assert_eq!(root.ownership().expect("stat").mode & 0o777, 0o700);
}

#[test]
fn a_file_that_nobody_has_is_not_held_when_its_last_name_goes() {
    let dir = Scratch::new("abandoned");
    let (_fs, root) = mount(&dir.0, Trust::Exclusive);
    for (name, abandoned) in [(b"a", true), (b"b", false)] {
        root.create(name, &own_node(0o600)).expect("create");
        let file = root.find(name).expect("find");
        // The descriptor that made it is for the next one who opens it.
        drop(file.open_host(crate::tree::HostAccess::ReadWrite).expect("open"));
        if abandoned {
            file.abandon();
        }
        root.unlink(name).expect("unlink");
        assert_eq!(file.metadata().err(), abandoned.then_some(Errno::ESTALE));
    }
}

#[test]
fn what_is_open_for_writing_is_opened_again_when_others_have_removed_it() {
    let dir = Scratch::new("writers");
    fs::write(dir.0.join("f"), "abc").expect("write");
    let (_fs, root) = mount(&dir.0, Trust::Shared);
    let file = root.find(b"f").expect("find");
    let first = file.open_host(HostAccess::ReadWrite).expect("open");
    // Descriptors that come and go later, as that of a truncation.
    for _ in 0..9 {
        drop(file.open_host(HostAccess::Write).expect("open"));
    }
    file.set_attr(&SetAttr { size: Some(1), ..SetAttr::default() }).expect("truncate");
    fs::remove_file(dir.0.join("f")).expect("unlink");
    let again = file.open_host(HostAccess::Read).expect("open again");
    let mut byte = [0; 2];
    assert_eq!(rustix::io::pread(&*again, &mut byte, 0), Ok(1));
    drop((first, again));
    assert_eq!(file.open_host(HostAccess::Read).err(), Some(Errno::ESTALE));
}
