//! The kinds of tree that the area knows.

use super::super::{FileServer, Files, Writable};

/// A kind of tree, and how the sandbox reaches it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Tree {
    /// What it is called in the names of cases.
    pub(super) name: &'static str,
    /// What the sandbox is given.
    pub(super) files: Files,
    /// Where it is in the sandbox.
    pub(super) place: &'static str,
    /// What Linux has that is the same.
    pub(super) native: Native,
    /// Who makes calls, in the words of `sequence.c`.
    pub(super) actors: &'static str,
}

/// Where the same calls are made natively.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Native {
    /// On a tmpfs, in a chroot.
    Tmpfs,
    /// On an overlay, in a chroot.
    Overlay,
    /// In a directory.
    Directory,
}

const DIRECT: FileServer = FileServer::Sandbox;
const GOFER: FileServer = FileServer::Gofer;

/// All of them.
pub(super) const TREES: [Tree; 8] = [
    Tree::new("tmpfs", DIRECT, Writable::Nothing, "/tmp", Native::Tmpfs, "ru"),
    Tree::new("overlay", DIRECT, Writable::Nothing, "/tree", Native::Overlay, "ru"),
    Tree::new("root", DIRECT, Writable::Root, "/tree", Native::Directory, "rud"),
    Tree::new("root@gofer", GOFER, Writable::Root, "/tree", Native::Directory, "rud"),
    Tree::new("shared-root", DIRECT, Writable::SharedRoot, "/tree", Native::Directory, "ruhd"),
    Tree::new("shared-root@gofer", GOFER, Writable::SharedRoot, "/tree", Native::Directory, "ruhd"),
    Tree::new("bind", DIRECT, Writable::Homes, "/tmp", Native::Directory, "ruhd"),
    Tree::new("bind@gofer", GOFER, Writable::Homes, "/tmp", Native::Directory, "ruhd"),
];

impl Tree {
    const fn new(
        name: &'static str,
        server: FileServer,
        writable: Writable,
        place: &'static str,
        native: Native,
        actors: &'static str,
    ) -> Tree {
        Tree { name, files: Files { server, writable }, place, native, actors }
    }
}
