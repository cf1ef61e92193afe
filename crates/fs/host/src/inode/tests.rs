//! Directories whose descriptors were given back, and that others have moved meanwhile.

use std::fs;
use std::path::{Path, PathBuf};

use moat_vfs::filesystem::FileSystem;

use super::*;
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

fn mount(path: &Path) -> (Arc<HostFs<DirectTree>>, Node) {
    let tree = DirectTree::new(fs::File::open(path).expect("open").into());
    let fs = HostFs::new(moat_abi::stat::DeviceId::new(0, 50), tree, Trust::Shared).expect("mount");
    let root = own(&fs.root()).expect("a host inode");
    (fs, root)
}

#[test]
fn a_chain_of_any_length_is_opened_again_and_dropped() {
    let small_stack = std::thread::Builder::new().stack_size(128 << 10);
    small_stack.spawn(open_and_drop_a_chain).expect("spawn").join().expect("no panic");
}

fn open_and_drop_a_chain() {
    const DEPTH: usize = 3000;
    let dir = Scratch::new("deep");
    let (_fs, root) = mount(&dir.0);
    let new = NewHostNode { mode: 0o700, uid: 0, gid: 0 };
    let new = NewHostNode { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw(), ..new };
    let mut deepest = root.clone();
    for _ in 0..DEPTH {
        deepest.core.tree.mkdir(&deepest.dir().expect("dir"), b"d", new).expect("mkdir");
        deepest = deepest.find(b"d").expect("find");
    }
    let mut at = deepest.clone();
    while let Ok((parent, _)) = at.parent_and_name() {
        at.close_dir();
        at = parent;
    }
    assert_eq!(deepest.entries(&deepest.dir().expect("dir")).expect("entries"), []);
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
    let (_fs, root) = mount(&dir.0);
    let node_a = root.find(b"a").expect("find");
    let node_b = node_a.find(b"b").expect("find");
    // a/b becomes b/a; only b's entry is looked at, and then a/b is made again.
    fs::rename(a.join("b"), &b).expect("rename");
    fs::rename(&a, b.join("a")).expect("rename");
    assert!(Arc::ptr_eq(&root.find(b"b").expect("find"), &node_b));
    assert!(Arc::ptr_eq(&node_b.find(b"a").expect("find"), &node_a));
    let kept = node_a.dir().expect("dir");
    fs::rename(b.join("a"), &a).expect("rename");
    fs::rename(&b, a.join("b")).expect("rename");
    assert!(Arc::ptr_eq(&node_a.find(b"b").expect("find"), &node_b));
    drop(kept);
    node_a.close_dir();
    node_b.close_dir();
    assert!(node_b.dir().is_err(), "what is known of it is from before");
    assert!(Arc::ptr_eq(&root.find(b"a").expect("find"), &node_a));
    assert!(Arc::ptr_eq(&node_a.find(b"b").expect("find"), &node_b));
    assert!(node_b.dir().is_ok());
}

#[test]
fn a_directory_in_the_place_of_another_is_stale() {
    let dir = Scratch::new("stale");
    fs::create_dir(dir.0.join("d")).expect("mkdir");
    let (_fs, root) = mount(&dir.0);
    let d = root.find(b"d").expect("find");
    let held = d.dir().expect("dir");
    d.close_dir();
    fs::rename(dir.0.join("d"), dir.0.join("old")).expect("rename");
    fs::create_dir(dir.0.join("d")).expect("mkdir");
    assert_eq!(d.dir().err(), Some(Errno::ESTALE));
    fs::remove_dir(dir.0.join("d")).expect("rmdir");
    std::os::unix::fs::symlink("/", dir.0.join("d")).expect("symlink");
    assert_eq!(d.dir().err(), Some(Errno::ESTALE), "a link is not followed");
    drop(held);
}
