//! The magic links of a process: cwd, exe, root, and ns/*.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
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

const NAMESPACES: [&str; 9] = ["cgroup", "ipc", "mnt", "net", "pid", "pid_for_children", "user", "uts", "time"];
/// Linux's number of the first time namespace; moat has no others.
const TIME_NS: u64 = 0xeffffffa;

fn namespace_id(task: &Task, name: &str) -> Result<u64> {
    let ns = task.namespaces();
    Ok(match name {
        "cgroup" => ns.cgroup.id,
        "ipc" => ns.ipc.id,
        "net" => ns.net.id,
        "uts" => ns.uts.id,
        "pid" => task.pid_ns().id,
        "pid_for_children" => ns.pid_for_children.id,
        "user" => task.creds().user_ns.id,
        "mnt" => task.fs_of().ok_or(Errno::ENOENT)?.lock().namespace.id(),
        "time" => TIME_NS,
        _ => return Err(Errno::ENOENT),
    })
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
        let name = NAMESPACES.iter().find(|n| n.as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(Arc::new(NsLink { attributes: owned(&self.proc, &self.who, name, 0o777), who: self.who.clone(), name }))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let entry = |n: &&str| Entry {
            name: n.as_bytes().to_vec(),
            ino: owned(&self.proc, &self.who, n, 0).ino,
            file_type: FileType::Symlink,
        };
        Ok(NAMESPACES.iter().map(entry).collect())
    }
}

/// A namespace by its name and number: `uts:[4026531838]`.
struct NsLink {
    attributes: Attributes,
    who: Who,
    name: &'static str,
}

impl Inode for NsLink {
    fn metadata(&self) -> Result<Metadata> {
        Ok(self.attributes.metadata(FileType::Symlink))
    }

    fn file_type(&self) -> FileType {
        FileType::Symlink
    }

    fn read_link(&self) -> Result<Vec<u8>> {
        let id = namespace_id(&*self.who.task()?, self.name)?;
        // The kind is the same for the namespace of children.
        let kind = self.name.strip_suffix("_for_children").unwrap_or(self.name);
        Ok(format!("{kind}:[{id}]").into_bytes())
    }

    fn read_link_for(&self, caller: &dyn Caller) -> Result<Vec<u8>> {
        self.who.may_inspect(caller)?;
        self.read_link()
    }
}
