//! Path resolution and the dentry cache against a naive model: a map from paths to nodes, walked by recursion.

use std::collections::BTreeMap;
use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::{Errno, Result};
use moat_fs_tmpfs::{TmpFs, TmpOptions};
use moat_vfs::caller::KernelCaller;
use moat_vfs::inode::RenameFlags;
use moat_vfs::ops::{self, OpenHow};
use moat_vfs::walk::{LookupFlags, View, resolve};
use moat_vfs::{Mount, MountFlags, MountNamespace, Path};
use proptest::prelude::*;

type Place = Vec<String>;

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Dir,
    File,
    Link(String),
}

/// Every node but the root, by the names that lead to it.
#[derive(Default, Debug)]
struct Model(BTreeMap<Place, Node>);

impl Model {
    fn node(&self, at: &Place) -> Option<Node> {
        if at.is_empty() { Some(Node::Dir) } else { self.0.get(at).cloned() }
    }

    fn resolve(&self, from: &Place, path: &str, follow: bool, links: &mut u32) -> Result<Place> {
        if path.is_empty() {
            return Err(Errno::ENOENT);
        }
        let mut at = if path.starts_with('/') { Place::new() } else { from.clone() };
        let names: Vec<&str> = path.split('/').filter(|n| !n.is_empty()).collect();
        let slash = path.ends_with('/');
        for (i, name) in names.iter().enumerate() {
            if self.node(&at) != Some(Node::Dir) {
                return Err(Errno::ENOTDIR);
            }
            let last = i + 1 == names.len();
            match *name {
                "." => {}
                ".." => {
                    at.pop();
                }
                name => {
                    let mut next = at.clone();
                    next.push(name.to_string());
                    match self.node(&next).ok_or(Errno::ENOENT)? {
                        Node::Link(target) if !last || follow || slash => {
                            *links += 1;
                            if *links > 40 {
                                return Err(Errno::ELOOP);
                            }
                            at = self.resolve(&at, &target, true, links)?;
                        }
                        _ => at = next,
                    }
                }
            }
        }
        if slash && self.node(&at) != Some(Node::Dir) {
            return Err(Errno::ENOTDIR);
        }
        Ok(at)
    }

    fn rename(&mut self, from: &Place, to: &Place) {
        let moved: Vec<_> = self.0.keys().filter(|k| k.starts_with(from)).cloned().collect();
        let taken: Vec<_> = moved.iter().map(|k| (k[from.len()..].to_vec(), self.0[k].clone())).collect();
        self.0.retain(|k, _| !k.starts_with(from));
        self.0.retain(|k, _| !k.starts_with(to));
        for (rest, node) in taken {
            self.0.insert(to.iter().cloned().chain(rest).collect(), node);
        }
    }
}

fn text(at: &Place) -> String {
    format!("/{}", at.join("/"))
}

#[derive(Clone, Debug)]
enum Step {
    Mkdir(String),
    Write(String),
    Symlink(String, String),
    Remove(String),
    Rmdir(String),
    Rename(String, String),
    Find(String, bool),
}

fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![4 => "[abc]", 1 => Just(".".to_string()), 1 => Just("..".to_string())];
    (any::<bool>(), prop::collection::vec(part, 0..5), 0..6).prop_map(|(absolute, parts, slash)| {
        let slash = if slash == 0 { "/" } else { "" };
        format!("{}{}{slash}", if absolute { "/" } else { "" }, parts.join("/"))
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        path().prop_map(Step::Mkdir),
        path().prop_map(Step::Write),
        (path(), path()).prop_map(|(t, p)| Step::Symlink(t, p)),
        path().prop_map(Step::Remove),
        path().prop_map(Step::Rmdir),
        (path(), path()).prop_map(|(a, b)| Step::Rename(a, b)),
        (path(), any::<bool>()).prop_map(|(p, f)| Step::Find(p, f)),
        (path(), any::<bool>()).prop_map(|(p, f)| Step::Find(p, f)),
    ]
}

/// Where the last component of `path` is, without following it: what an operation on names has worked on.
fn name_place(model: &Model, path: &str) -> Place {
    let bare = path.trim_end_matches('/');
    let (dir, name) = bare.rsplit_once('/').map_or((".", bare), |(d, n)| (if d.is_empty() { "/" } else { d }, n));
    let mut at = model.resolve(&Place::new(), dir, true, &mut 0).unwrap();
    at.push(name.to_string());
    at
}

struct Real {
    caller: KernelCaller,
    root: Path,
    _ns: Arc<MountNamespace>,
}

impl Real {
    fn new() -> Real {
        let options = TmpOptions { size: 0, inodes: 0, mode: 0o755, uid: 0, gid: 0, memory: 0 };
        let vfs = moat_vfs::vfs::fake::vfs(moat_vfs::Registry::default());
        let fs = TmpFs::new(vfs.new_device(), &options).unwrap();
        let mount = Mount::new(vfs.tables(), fs, MountFlags::empty(), b"root");
        let ns = MountNamespace::new(mount, vfs.root_user_ns.clone());
        Real { caller: vfs.kernel_caller(), root: ns.root(), _ns: ns }
    }

    fn view(&self) -> View<'_> {
        View { caller: &self.caller, root: &self.root, base: &self.root, umask: 0 }
    }

    fn find(&self, path: &str, follow: bool) -> Result<String> {
        let flags = if follow { LookupFlags::FOLLOW } else { LookupFlags::empty() };
        let found = resolve(&self.view(), path.as_bytes(), flags)?;
        Ok(String::from_utf8(found.text(Some(&self.root))).unwrap())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn walks_agree_with_recursion(steps in prop::collection::vec(step(), 1..60)) {
        let real = Real::new();
        let mut model = Model::default();
        let view = real.view();
        for step in steps {
            match step {
                Step::Mkdir(p) => {
                    if ops::mkdir(&view, p.as_bytes(), 0o755).is_ok() {
                        let at = name_place(&model, &p);
                        prop_assert_eq!(model.0.insert(at, Node::Dir), None);
                    }
                }
                Step::Write(p) => {
                    let how = OpenHow::new(OpenFlags::CREAT | OpenFlags::EXCL | OpenFlags::WRONLY, 0o644);
                    if ops::open(&view, p.as_bytes(), &how).is_ok() {
                        let at = name_place(&model, &p);
                        prop_assert_eq!(model.0.insert(at, Node::File), None);
                    }
                }
                Step::Symlink(target, p) => {
                    if ops::symlink(&view, target.as_bytes(), p.as_bytes()).is_ok() {
                        let at = name_place(&model, &p);
                        prop_assert_eq!(model.0.insert(at, Node::Link(target)), None);
                    }
                }
                Step::Remove(p) => {
                    if ops::unlink(&view, p.as_bytes()).is_ok() {
                        let gone = model.0.remove(&name_place(&model, &p));
                        prop_assert!(matches!(gone, Some(Node::File | Node::Link(_))));
                    }
                }
                Step::Rmdir(p) => {
                    if ops::rmdir(&view, p.as_bytes()).is_ok() {
                        let at = name_place(&model, &p);
                        prop_assert_eq!(model.0.remove(&at), Some(Node::Dir));
                        prop_assert!(!model.0.keys().any(|k| k.starts_with(&at)));
                    }
                }
                Step::Rename(a, b) => {
                    if ops::rename(&view, a.as_bytes(), &view, b.as_bytes(), RenameFlags::empty()).is_ok() {
                        let (from, to) = (name_place(&model, &a), name_place(&model, &b));
                        if from != to {
                            model.rename(&from, &to);
                        }
                    }
                }
                Step::Find(p, follow) => {
                    let expected = model.resolve(&Place::new(), &p, follow, &mut 0).map(|at| text(&at));
                    prop_assert_eq!(real.find(&p, follow), expected, "{}", p);
                }
            }
        }
        for at in model.0.keys() {
            prop_assert_eq!(real.find(&text(at), false), Ok(text(at)));
        }
    }
}
