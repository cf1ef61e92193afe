//! The magic links of a process: cwd, exe, root, and ns/*.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_kernel::nsfs::{Link, Namespace};
use moat_kernel::task::Task;
use moat_vfs::caller::Caller;
use moat_vfs::generated::{Attributes, Entry, Listing};
use moat_vfs::inode::{Inode, Metadata};
use moat_vfs::path::Path;

use crate::mount::ProcMount;
use crate::mount::dir;
use crate::who::{Who, owned};

/// The links in /proc/PID itself.
pub(crate) const NAMES: [&str; 3] = ["cwd", "exe", "root"];

#[derive(Clone, Copy)]
enum Target {
    Cwd,
    Exe,
    Root,
}

impl Target {
    fn of(self, task: &Task) -> Result<Path> {
        let fs = || task.fs_of().ok_or(Errno::ENOENT);
        match self {
            Target::Cwd => Ok(fs()?.lock().cwd.clone()),
            Target::Root => Ok(fs()?.lock().root.clone()),
            Target::Exe => task.group.exe().map(|e| e.path().clone()).ok_or(Errno::ENOENT),
        }
    }
}

pub(crate) fn lookup(proc: &ProcMount, who: &Who, name: &str) -> Option<Arc<dyn Inode>> {
    let target = match name {
        "cwd" => Target::Cwd,
        "exe" => Target::Exe,
        "root" => Target::Root,
        _ => return None,
    };
    Some(Arc::new(PathLink { attributes: owned(proc, who, name, 0o777), who: who.clone(), target }))
}

struct PathLink {
    attributes: Attributes,
    who: Who,
    target: Target,
}

impl PathLink {
    fn path(&self) -> Result<Path> {
        self.target.of(&*self.who.task()?)
    }
}

impl Inode for PathLink {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.attributes.metadata(FileType::Symlink))
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        // What it shows depends on the caller: see `read_link_for`.
        Err(Errno::EACCES)
    }

    fn read_link_for(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        self.who.may_inspect(caller)?;
        // The path as the caller's root shows it (`d_path`).
        let root = caller.task().map(|t| t.start_of_paths().root);
        Ok(self.path()?.text(root.as_ref()))
    }

    fn follow(&self, caller: &dyn Caller) -> Result<Option<Path>> {
        self.who.may_inspect(caller)?;
        self.path().map(Some)
    }
}

struct NsDir {
    proc: ProcMount,
    who: Who,
}

pub(crate) fn ns_dir(proc: &ProcMount, who: &Who) -> Arc<dyn Inode> {
    dir(owned(proc, who, "ns", 0o511), NsDir { proc: proc.clone(), who: who.clone() })
}

impl Listing for NsDir {
    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let link = *Link::ALL.iter().find(|link| link.name().as_bytes() == name).ok_or(Errno::ENOENT)?;
        let attributes = owned(&self.proc, &self.who, link.name(), 0o777);
        Ok(Arc::new(NsLink { attributes, proc: self.proc.clone(), who: self.who.clone(), link }))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let entry = |link: &Link| Entry {
            name: link.name().as_bytes().to_vec(),
            ino: owned(&self.proc, &self.who, link.name(), 0).ino,
            file_type: FileType::Symlink,
        };
        Ok(Link::ALL.iter().map(entry).collect())
    }
}

/// A link to a namespace of the task, whose text is its kind and number: `uts:[4026531838]`.
struct NsLink {
    attributes: Attributes,
    proc: ProcMount,
    who: Who,
    link: Link,
}

impl NsLink {
    fn namespace(&self) -> Result<Namespace> {
        Namespace::of(&*self.who.task()?, self.link)
    }
}

impl Inode for NsLink {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.attributes.metadata(FileType::Symlink))
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        Ok(self.namespace()?.text().into_bytes())
    }

    fn read_link_for(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        self.who.may_inspect(caller)?;
        self.read_link()
    }

    fn follow(&self, caller: &dyn Caller) -> Result<Option<Path>> {
        self.who.may_inspect(caller)?;
        Ok(Some(self.namespace()?.path(&self.proc.kernel)))
    }
}
