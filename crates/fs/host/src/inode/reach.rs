//! How a file is reached: by a node that is held, by a descriptor that is open, or by a name that still leads to it.
//!
//! # Invariants
//! - A node is given back only if a name can lead to the file again; what has lost its last known name keeps its node.
//! - What a name leads to is the file only if its identity is the same; else it is ESTALE.

use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use moat_abi::fs::{AccessMode, FileType, OpenFlags};
use moat_abi::{Errno, Result};
use moat_vfs::inode::Metadata;

use super::HostInode;
use super::names::MAX_DEPTH;
use crate::fs::Trust;
use crate::tree::{HostAccess, HostTree};

/// The node of a file.
pub(super) struct Held<T: HostTree> {
    node: Option<Arc<T::Node>>,
    /// It can't be found again.
    kept: bool,
    /// It can be opened again without a name.
    opens: bool,
}

impl<T: HostTree> Default for Held<T> {
    fn default() -> Self {
        Held { node: None, kept: false, opens: false }
    }
}

/// What an opening by the guest needs of the host.
pub(super) fn access_of(flags: OpenFlags) -> HostAccess {
    match flags.access_mode() {
        AccessMode::ReadOnly if flags.contains(OpenFlags::NOATIME) => HostAccess::ReadNoAtime,
        AccessMode::ReadOnly => HostAccess::Read,
        AccessMode::WriteOnly => HostAccess::Write,
        AccessMode::ReadWrite | AccessMode::Neither => HostAccess::ReadWrite,
    }
}

impl<T: HostTree> HostInode<T> {
    pub(super) fn file_type_is_directory(&self) -> bool {
        self.identity.file_type == FileType::Directory
    }

    pub(crate) fn set_root(&self, node: T::Node) {
        *self.held.lock() = Held { node: Some(Arc::new(node)), kept: true, opens: false };
    }

    /// Holds `node` until it is given back; one that is held already stays.
    pub(super) fn set_node(self: &Arc<Self>, node: T::Node) {
        if !self.may_stay_held() {
            return;
        }
        let before = {
            let mut held = self.held.lock();
            if held.node.is_none() {
                held.node = Some(Arc::new(node));
                None
            } else {
                // Another was faster, and its node stays.
                Some(node)
            }
        };
        if before.is_none() {
            self.core.note_holder(self);
        }
    }

    /// Holds `node` until the last opening is closed.
    fn hold_while_open(&self, node: T::Node) {
        let spare = {
            let mut held = self.held.lock();
            if held.node.is_some() { Some(node) } else { held.node.replace(Arc::new(node)).and(None) }
        };
        drop(spare);
    }

    /// Holds `node` for as long as the file is in memory.
    pub(super) fn keep_node(&self, node: T::Node) {
        let before =
            std::mem::replace(&mut *self.held.lock(), Held { node: Some(Arc::new(node)), kept: true, opens: true });
        drop(before);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.lock().node.is_some()
    }

    /// Gives the node back if a name leads to the file and nobody has it open; false if it stays for now.
    pub(crate) fn give_node_back(&self) -> bool {
        // Used or open: it stays for another round.
        if self.recent.swap(false, Ordering::Relaxed) || self.openings.load(Ordering::Relaxed) != 0 {
            return false;
        }
        if self.last_place().is_none() {
            return false;
        }
        let gone = {
            let mut held = self.held.lock();
            if held.kept {
                return false;
            }
            held.opens = false;
            held.node.take()
        };
        drop(gone);
        true
    }

    /// Gives the node back that was only held while somebody had the file open.
    pub(crate) fn give_back_if_closed(&self) {
        if self.may_stay_held() {
            return;
        }
        let gone = {
            let mut held = self.held.lock();
            if held.kept { None } else { held.node.take() }
        };
        drop(gone);
    }

    fn held_node(&self) -> Option<Arc<T::Node>> {
        let node = self.held.lock().node.clone()?;
        // Mostly it is set already, and reading shares the cache line.
        if !self.recent.load(Ordering::Relaxed) {
            self.recent.store(true, Ordering::Relaxed);
        }
        Some(node)
    }

    /// This file's node.
    ///
    /// # Errors
    /// ESTALE if no name leads to it any more.
    pub(crate) fn node(&self) -> Result<Arc<T::Node>> {
        if let Some(node) = self.held_node() {
            return Ok(node);
        }
        let me = self.arc()?;
        // A file may have been opened already, and be reached by that; if not, by any of its names.
        if !self.file_type_is_directory() {
            if let Some(node) = self.adopted_node() {
                return Ok(node);
            }
            return me.find_by_name();
        }
        // Up to the nearest ancestor that has one, and down again.
        let mut closed = vec![me];
        let mut names = Vec::new();
        let mut dir = loop {
            let (parent, name) = closed.last().and_then(|at| at.last_place()).ok_or(Errno::ESTALE)?;
            names.push(name);
            if let Some(node) = parent.held_node() {
                break node;
            }
            // Of a tree that somebody else moves about no end is sure.
            if closed.len() >= MAX_DEPTH {
                return Err(Errno::ESTALE);
            }
            closed.push(parent);
        };
        while let (Some(inode), Some(name)) = (closed.pop(), names.pop()) {
            dir = inode.hold_again(&dir, &name)?;
        }
        Ok(dir)
    }

    /// Holds this file again, which `name` of `dir` led to.
    fn hold_again(self: &Arc<Self>, dir: &T::Node, name: &[u8]) -> Result<Arc<T::Node>> {
        let gone = |e| if matches!(e, Errno::ENOTDIR | Errno::ENOENT) { Errno::ESTALE } else { e };
        let (node, host) = self.core.tree.lookup(dir, name).map_err(gone)?;
        if !self.identity.is(&self.core.translate(host)) {
            return Err(Errno::ESTALE);
        }
        if !self.may_stay_held() {
            return Ok(Arc::new(node));
        }
        self.set_node(node);
        self.held_node().ok_or(Errno::ESTALE)
    }

    /// Whether a node is kept beyond its use. A file of a shared tree that others remove must be gone with all that it takes on
    /// the disk, unless a guest has it open.
    fn may_stay_held(&self) -> bool {
        self.core.trust == Trust::Exclusive
            || self.file_type_is_directory()
            || self.openings.load(Ordering::Relaxed) != 0
    }

    fn find_by_name(self: &Arc<Self>) -> Result<Arc<T::Node>> {
        let mut found = Err(Errno::ESTALE);
        for (dir, name) in self.places() {
            found = dir.node().and_then(|dir| self.hold_again(&dir, &name));
            if found.is_ok() {
                break;
            }
        }
        found
    }

    /// A descriptor that some opening has, with what it can do.
    fn open_descriptor(&self) -> Option<(Arc<OwnedFd>, HostAccess)> {
        if let Some(fd) = self.writers.lock().iter().rev().find_map(Weak::upgrade) {
            return Some((fd, HostAccess::ReadWrite));
        }
        self.reader.lock().upgrade().map(|fd| (fd, HostAccess::Read))
    }

    /// A node made of an open descriptor.
    fn adopted_node(&self) -> Option<Arc<T::Node>> {
        let (fd, access) = self.open_descriptor()?;
        let node = self.core.tree.adopt(&fd, access)?;
        let me = self.arc().ok()?;
        if !me.may_stay_held() {
            return Some(Arc::new(node));
        }
        me.set_node(node);
        self.held_node()
    }

    /// A node that is more than a path.
    pub(super) fn real_node(&self) -> Result<Arc<T::Node>> {
        if let Some((fd, access)) = self.open_descriptor()
            && let Some(node) = self.core.tree.adopt(&fd, access)
        {
            return Ok(Arc::new(node));
        }
        for (dir, name) in self.places() {
            let (node, host) = self.core.tree.hold(&*dir.node()?, &name, HostAccess::Read)?;
            if self.identity.is(&self.core.translate(host)) {
                return Ok(Arc::new(node));
            }
        }
        Err(Errno::ESTALE)
    }

    /// The name `name` of `dir` is about to go. If it is the last one known, the file is held, so that who has it open
    /// can still do everything with it. Failing that it is removed all the same.
    pub(super) fn prepare_to_lose(&self, dir: &HostInode<T>, name: &[u8]) {
        let abandoned = self.abandoned.swap(false, Ordering::Relaxed);
        if !self.is_only_name(dir, name) {
            return;
        }
        self.drop_reader();
        if abandoned && self.openings.load(Ordering::Relaxed) == 0 {
            return;
        }
        let opens = self.held.lock().opens;
        if self.identity.file_type == FileType::Regular && !opens {
            let found = dir.node().and_then(|dir| self.core.tree.hold(&dir, name, HostAccess::ReadWrite));
            if let Ok((node, host)) = found
                && self.identity.is(&self.core.translate(host))
            {
                return self.keep_node(node);
            }
        }
        // It can't be opened again without a name, but the rest can be done.
        if let Ok(node) = self.node() {
            let mut held = self.held.lock();
            held.node.get_or_insert(node);
            held.kept = true;
        }
    }

    /// Gives the file another name.
    pub(super) fn link_to(&self, dir: &T::Node, name: &[u8]) -> Result<()> {
        let tree = &self.core.tree;
        // By its name where only this sandbox changes names.
        let place = if self.core.trust == Trust::Exclusive { self.last_place() } else { None };
        if let Some((old_dir, old)) = place {
            return tree.link_at(&*old_dir.node()?, &old, dir, name);
        }
        let by_node = self.node().and_then(|node| tree.link(&node, dir, name));
        if !matches!(by_node, Err(Errno::ENOENT | Errno::EPERM | Errno::ESTALE)) {
            return by_node;
        }
        // Before Linux 6.10 a link of a descriptor takes a capability over the host.
        for (old_dir, old) in self.places() {
            let old_dir = old_dir.node()?;
            if tree.stat_at(&old_dir, &old).is_ok_and(|host| self.identity.is(&self.core.translate(host))) {
                return tree.link_at(&old_dir, &old, dir, name);
            }
        }
        by_node
    }

    /// Asks for the attributes.
    pub(super) fn ask(&self) -> Result<Metadata> {
        let tree = &self.core.tree;
        if let Some(node) = self.held_node() {
            return self.ask_by(|| tree.stat(&node));
        }
        if let Some((fd, _)) = self.open_descriptor() {
            return self.ask_by(|| crate::direct::metadata_of(&*fd));
        }
        let mut found = Err(Errno::ESTALE);
        for (dir, name) in self.places() {
            found = dir.node().and_then(|dir| self.ask_by(|| tree.stat_at(&dir, &name)));
            if found.is_ok() {
                break;
            }
        }
        // ENOENT is about names; this is about a file that was there.
        found.map_err(|e| if e == Errno::ENOENT { Errno::ESTALE } else { e })
    }

    /// Opens this regular file on the host; read-only openings share one descriptor.
    pub(super) fn open_host(&self, access: HostAccess) -> Result<Arc<OwnedFd>> {
        if access == HostAccess::Read
            && let Some(fd) = self.reader.lock().upgrade()
        {
            return Ok(fd);
        }
        let writes = matches!(access, HostAccess::Write | HostAccess::ReadWrite);
        // Also where it is of no use, but not before the file has been opened: the host may have removed it already.
        let fresh = self.fresh.lock().take();
        if let Some(fd) = &fresh
            && writes
        {
            if self.core.trust == Trust::Shared && !T::ADOPTS {
                self.hold_fresh();
            }
            return Ok(fd.clone());
        }
        let (fd, has) = match access {
            // A mapping needs a readable descriptor even of a file that is open for writing only.
            HostAccess::Write => match self.open_anew(HostAccess::ReadWrite) {
                Ok(fd) => (fd, HostAccess::ReadWrite),
                Err(_) => (self.open_anew(access)?, access),
            },
            // O_NOATIME is for who owns the file, which an unprivileged sandbox may not.
            HostAccess::ReadNoAtime => match self.open_anew(access) {
                Err(Errno::EPERM) => (self.open_anew(HostAccess::Read)?, access),
                opened => (opened?, access),
            },
            HostAccess::Read | HostAccess::ReadWrite => (self.open_anew(access)?, access),
        };
        drop(fresh);
        let fd = Arc::new(fd);
        match has {
            HostAccess::Read => {
                *self.reader.lock() = Arc::downgrade(&fd);
                self.keep_reader(&fd);
            }
            HostAccess::ReadWrite => self.note_writer(&fd),
            HostAccess::Write | HostAccess::ReadNoAtime => {}
        }
        Ok(fd)
    }

    /// Keeps the descriptor that made this file for its opening, which follows.
    pub(super) fn keep_fresh(self: &Arc<Self>, fd: OwnedFd) {
        let fd = Arc::new(fd);
        self.note_writer(&fd);
        let before = self.fresh.lock().replace(fd);
        drop(before);
        for old in self.core.fresh.note(self, 1) {
            let unused = old.fresh.lock().take();
            // Closed with nothing locked.
            drop(unused);
        }
    }

    /// Remembers a descriptor that can do everything, for as long as it is open.
    fn note_writer(&self, fd: &Arc<OwnedFd>) {
        let mut writers = self.writers.lock();
        while writers.last().is_some_and(|last| last.strong_count() == 0) {
            writers.pop();
        }
        // Now and then, so that many openings are not gone through at each.
        if writers.len().is_power_of_two() {
            writers.retain(|fd| fd.strong_count() != 0);
        }
        writers.push(Arc::downgrade(fd));
    }

    /// Keeps a descriptor for the next one who reads the file. Where others may remove it, it would take its space until then.
    fn keep_reader(&self, fd: &Arc<OwnedFd>) {
        if self.core.trust != Trust::Exclusive {
            return;
        }
        let before = self.kept_reader.lock().replace(fd.clone());
        drop(before);
        let Some(me) = self.me.upgrade() else { return };
        self.core.readers.note(&me, 1).iter().for_each(|old| old.drop_reader());
    }

    fn drop_reader(&self) {
        let gone = self.kept_reader.lock().take();
        // Closed with nothing locked.
        drop(gone);
    }

    /// Holds a file that was just made, as an opening by name would. If others were faster, it can only be used by its descriptor.
    fn hold_fresh(&self) {
        for (dir, name) in self.places() {
            let found = dir.node().and_then(|dir| self.core.tree.lookup(&dir, &name));
            if let Ok((node, host)) = found
                && self.identity.is(&self.core.translate(host))
            {
                return self.hold_while_open(node);
            }
        }
    }

    /// Opens this FIFO on the host, without waiting for its other end.
    ///
    /// # Errors
    /// ENXIO for writing where nobody reads; ESTALE if no name leads to it any more; those of the host.
    pub(crate) fn open_fifo(&self, access: HostAccess) -> Result<OwnedFd> {
        let tree = &self.core.tree;
        let is_this = |host| self.identity.is(&self.core.translate(host));
        let mut failed = Errno::ESTALE;
        for (dir, name) in self.places() {
            let dir = dir.node()?;
            match tree.open_fifo_at(&dir, &name, access) {
                Ok(fd) if is_this(crate::direct::metadata_of(&fd)?) => return Ok(fd),
                // What else has the name by now may have said so.
                Err(e) if tree.stat_at(&dir, &name).is_ok_and(is_this) => failed = e,
                Ok(_) | Err(_) => {}
            }
        }
        Err(failed)
    }

    /// A descriptor for an owner of locks: a write lock needs one that is open for writing.
    pub(crate) fn open_for_locks(&self) -> Result<OwnedFd> {
        self.open_anew(HostAccess::ReadWrite).or_else(|_| self.open_anew(HostAccess::Read))
    }

    /// A descriptor that the host can be asked by what others do to the file; it holds nothing beyond its use.
    pub(super) fn open_watched(&self) -> Option<Arc<OwnedFd>> {
        let watchable = self.is_shared();
        match self.identity.file_type {
            FileType::Directory if watchable => self.core.tree.open_directory(&*self.node().ok()?).ok().map(Arc::new),
            FileType::Regular if watchable => self.open_anew(HostAccess::Read).ok().map(Arc::new),
            _ => None,
        }
    }

    /// A node that the gofer can mark.
    pub(super) fn node_to_watch(&self) -> Option<Arc<T::Node>> {
        match self.identity.file_type {
            FileType::Directory if self.is_shared() => self.node().ok(),
            FileType::Regular if self.is_shared() => self.places().into_iter().find_map(|(dir, name)| {
                let (node, meta) = self.core.tree.hold(&*dir.node().ok()?, &name, HostAccess::Read).ok()?;
                // Only if the name still leads to this file.
                self.identity.is(&self.core.translate(meta)).then(|| Arc::new(node))
            }),
            _ => None,
        }
    }

    fn open_anew(&self, access: HostAccess) -> Result<OwnedFd> {
        let tree = &self.core.tree;
        let again = {
            let held = self.held.lock();
            if held.opens { held.node.clone() } else { None }
        };
        let mut failed = Errno::ESTALE;
        for (dir, name) in self.places() {
            let opened = dir.node().and_then(|dir| match self.core.trust {
                Trust::Exclusive => Ok((tree.open_at(&dir, &name, access)?, None)),
                Trust::Shared => tree.open_held_at(&dir, &name, access),
            });
            match opened {
                // Only if the name still leads to this file.
                Ok((fd, node)) if self.identity.is(&self.core.translate(crate::direct::metadata_of(&fd)?)) => {
                    if let Some(node) = node {
                        self.hold_while_open(node);
                    }
                    return Ok(fd);
                }
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENXIO) => {}
                Err(e) => failed = e,
            }
        }
        if let Some(node) = again {
            return tree.reopen(&node, access);
        }
        // Whoever has it open can do no more with it than it was opened for.
        if let Some((fd, has)) = self.open_descriptor()
            && has.allows(access)
        {
            return fd.try_clone().map_err(|_| Errno::EMFILE);
        }
        Err(failed)
    }
}
