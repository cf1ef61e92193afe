//! Namespaces as files: what the links of /proc/PID/ns lead to, namespaces(7), ioctl_ns(2).
//!
//! A file holds its namespace, so that this outlives the last task in it; a bind mount of the file does so too (`ip netns add`).

use std::sync::{Arc, Weak};

use moat_abi::clone::CloneFlags;
use moat_abi::fs::{FileType, OpenFlags};
use moat_abi::tty::{NS_GET_NSTYPE, NS_GET_OWNER_UID, NS_GET_PARENT, NS_GET_USERNS};
use moat_abi::{Errno, Result};
use moat_identity::{CgroupNamespace, IpcNamespace, NetNamespace, PidNamespace, UserNamespace, UtsNamespace};
use moat_image::Refusal;
use moat_image::state::{NamespaceRef, OpenFileKind};
use moat_vfs::anon::Pseudo;
use moat_vfs::fd_table::OnExec;
use moat_vfs::inode::{Inode, Metadata, OpenContext};
use moat_vfs::mount::MountNamespace;
use moat_vfs::persist::SaveFiles;
use moat_vfs::{Caller, Credentials, File, OpenFile, Path};

use crate::kernel::Kernel;
use crate::task::Task;

/// The first time namespace, which is the only one (`PROC_TIME_INIT_INO`).
const TIME_ID: u64 = 0xeffffffa;

/// A namespace of any kind.
#[derive(Clone)]
#[allow(missing_docs)]
pub enum Namespace {
    Cgroup(Arc<CgroupNamespace>),
    Ipc(Arc<IpcNamespace>),
    Mount(Arc<MountNamespace>),
    Net(Arc<NetNamespace>),
    Pid(Arc<PidNamespace>),
    /// The one time namespace, by its owner.
    Time(Arc<UserNamespace>),
    User(Arc<UserNamespace>),
    Uts(Arc<UtsNamespace>),
}

/// Which namespace of a task: the names of /proc/PID/ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Link {
    Cgroup,
    Ipc,
    Mount,
    Net,
    Pid,
    PidForChildren,
    Time,
    TimeForChildren,
    User,
    Uts,
}

impl Link {
    /// All, in the order of their names.
    pub const ALL: [Link; 10] = [
        Link::Cgroup,
        Link::Ipc,
        Link::Mount,
        Link::Net,
        Link::Pid,
        Link::PidForChildren,
        Link::Time,
        Link::TimeForChildren,
        Link::User,
        Link::Uts,
    ];

    /// The name in /proc/PID/ns.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Link::Cgroup => "cgroup",
            Link::Ipc => "ipc",
            Link::Mount => "mnt",
            Link::Net => "net",
            Link::Pid => "pid",
            Link::PidForChildren => "pid_for_children",
            Link::Time => "time",
            Link::TimeForChildren => "time_for_children",
            Link::User => "user",
            Link::Uts => "uts",
        }
    }
}

impl Namespace {
    /// The namespace of `task` that `link` names.
    ///
    /// # Errors
    /// ENOENT where there is none: a task that has ended, a pid namespace that has no init yet.
    pub fn of(task: &Task, link: Link) -> Result<Namespace> {
        let ns = task.namespaces();
        Ok(match link {
            Link::Cgroup => Namespace::Cgroup(ns.cgroup.clone()),
            Link::Ipc => Namespace::Ipc(ns.ipc.clone()),
            Link::Net => Namespace::Net(ns.net.clone()),
            Link::Uts => Namespace::Uts(ns.uts.clone()),
            Link::Pid => Namespace::Pid(task.pid_ns()),
            Link::PidForChildren if ns.pid_for_children.last_pid() == 0 => return Err(Errno::ENOENT),
            Link::PidForChildren => Namespace::Pid(ns.pid_for_children.clone()),
            Link::Time | Link::TimeForChildren => Namespace::Time(task.kernel().root_user_ns.clone()),
            Link::User => Namespace::User(task.creds().user_ns.clone()),
            Link::Mount => Namespace::Mount(task.fs_of().ok_or(Errno::ENOENT)?.lock().namespace.clone()),
        })
    }

    /// The number that names it.
    #[must_use]
    pub fn id(&self) -> u64 {
        match self {
            Namespace::Cgroup(n) => n.id,
            Namespace::Ipc(n) => n.id,
            Namespace::Mount(n) => n.id(),
            Namespace::Net(n) => n.id,
            Namespace::Pid(n) => n.id,
            Namespace::Time(_) => TIME_ID,
            Namespace::User(n) => n.id,
            Namespace::Uts(n) => n.id,
        }
    }

    /// The flag of clone(2) that makes one of its kind.
    #[must_use]
    pub fn flag(&self) -> CloneFlags {
        match self {
            Namespace::Cgroup(_) => CloneFlags::NEWCGROUP,
            Namespace::Ipc(_) => CloneFlags::NEWIPC,
            Namespace::Mount(_) => CloneFlags::NEWNS,
            Namespace::Net(_) => CloneFlags::NEWNET,
            Namespace::Pid(_) => CloneFlags::NEWPID,
            Namespace::Time(_) => CloneFlags::NEWTIME,
            Namespace::User(_) => CloneFlags::NEWUSER,
            Namespace::Uts(_) => CloneFlags::NEWUTS,
        }
    }

    /// Its kind and number, as the links show it: `uts:[4026531838]`.
    #[must_use]
    pub fn text(&self) -> String {
        let kind = match self {
            Namespace::Cgroup(_) => "cgroup",
            Namespace::Ipc(_) => "ipc",
            Namespace::Mount(_) => "mnt",
            Namespace::Net(_) => "net",
            Namespace::Pid(_) => "pid",
            Namespace::Time(_) => "time",
            Namespace::User(_) => "user",
            Namespace::Uts(_) => "uts",
        };
        format!("{kind}:[{}]", self.id())
    }

    /// The user namespace that owns it: whose capabilities rule in it. That of a user namespace is its parent.
    #[must_use]
    pub fn owner(&self) -> Option<Arc<UserNamespace>> {
        Some(match self {
            Namespace::Cgroup(n) => n.user_ns.clone(),
            Namespace::Ipc(n) => n.user_ns.clone(),
            Namespace::Mount(n) => n.user_ns().clone(),
            Namespace::Net(n) => n.user_ns.clone(),
            Namespace::Pid(n) => n.user_ns.clone(),
            Namespace::Time(owner) => owner.clone(),
            Namespace::User(n) => return n.parent.clone(),
            Namespace::Uts(n) => n.user_ns.clone(),
        })
    }

    /// A place that leads to it, in no directory.
    #[must_use]
    pub fn path(&self, kernel: &Arc<Kernel>) -> Path {
        let inode = Arc::new(NsInode { kernel: Arc::downgrade(kernel), namespace: self.clone() });
        kernel.vfs.pseudo_path(Pseudo::Nsfs, inode, self.text().as_bytes())
    }
}

/// The inode of a namespace. Each lookup makes one; they are the same by device and number.
struct NsInode {
    kernel: Weak<Kernel>,
    namespace: Namespace,
}

impl Inode for NsInode {
    fn metadata(&self) -> Result<Metadata> {
        let mode = FileType::Regular.mode_bits() | 0o444;
        let (dev, ino) = (Pseudo::Nsfs.dev(), self.namespace.id());
        Ok(Metadata { dev, ino, mode, nlink: 1, blksize: 4096, ..Metadata::default() })
    }

    fn file_type(&self) -> FileType {
        FileType::Regular
    }

    fn mount_namespace(&self) -> Option<u64> {
        if let Namespace::Mount(n) = &self.namespace { Some(n.id()) } else { None }
    }

    fn open(self: Arc<Self>, _ctx: &OpenContext<'_>) -> Result<Arc<dyn File>> {
        Ok(Arc::new(NsFile { kernel: self.kernel.clone(), namespace: self.namespace.clone() }))
    }
}

/// An open namespace file: what setns(2) takes.
pub struct NsFile {
    kernel: Weak<Kernel>,
    namespace: Namespace,
}

impl NsFile {
    /// The namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Gives the caller a descriptor of `namespace`.
    fn give(&self, caller: &dyn Caller, namespace: &Namespace) -> Result<u64> {
        let kernel = self.kernel.upgrade().ok_or(Errno::ENXIO)?;
        let task = caller.task().ok_or(Errno::EPERM)?;
        let file = Arc::new(NsFile { kernel: self.kernel.clone(), namespace: namespace.clone() });
        let file = OpenFile::new(file, namespace.path(&kernel), OpenFlags::empty(), caller.creds().clone());
        let fd = task.install(file, OnExec::Close)?;
        u64::try_from(fd.0).map_err(|_| Errno::EBADF)
    }

    /// The owner, for whom it is at or below the caller's own user namespace (`ns_get_owner`).
    fn visible_owner(&self, caller: &dyn Caller) -> Result<Namespace> {
        let owner = self.namespace.owner().ok_or(Errno::EPERM)?;
        let visible = owner.is_within(&caller.creds().user_ns);
        if visible { Ok(Namespace::User(owner)) } else { Err(Errno::EPERM) }
    }

    fn parent(&self, caller: &dyn Caller) -> Result<Namespace> {
        match &self.namespace {
            Namespace::User(_) => self.visible_owner(caller),
            Namespace::Pid(ns) => {
                let parent = ns.parent.clone().ok_or(Errno::EPERM)?;
                let own = caller.task().ok_or(Errno::EPERM)?.process_pid().namespace().clone();
                if own.contains(&parent) { Ok(Namespace::Pid(parent)) } else { Err(Errno::EPERM) }
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

/// Opens `namespace` as it was open.
#[must_use]
pub fn open(kernel: &Arc<Kernel>, namespace: &Namespace, flags: OpenFlags, creds: &Arc<Credentials>) -> Arc<OpenFile> {
    let file = Arc::new(NsFile { kernel: Arc::downgrade(kernel), namespace: namespace.clone() });
    OpenFile::new(file, namespace.path(kernel), flags, creds.clone())
}

impl File for NsFile {
    fn save(&self, _f: &OpenFile, saver: &mut dyn SaveFiles) -> std::result::Result<OpenFileKind, Refusal> {
        // By nothing in the image one could tell whose it is.
        if saver.container() != 0 {
            return Err(Refusal::new("a file of a namespace, in a later container of a pod,"));
        }
        let names = saver.namespaces();
        Ok(OpenFileKind::Namespace(match &self.namespace {
            Namespace::Cgroup(n) => NamespaceRef::Cgroup(names.cgroup(n)?),
            Namespace::Ipc(n) => NamespaceRef::Ipc(names.ipc(n)?),
            Namespace::Mount(n) => names.mounts(n.id()).map(|()| NamespaceRef::Mount)?,
            Namespace::Net(n) => NamespaceRef::Net(names.net(n)?),
            Namespace::Pid(n) => NamespaceRef::Pid(names.pid(n)?),
            Namespace::Time(_) => NamespaceRef::Time,
            Namespace::User(n) => NamespaceRef::User(names.user(n)?),
            Namespace::Uts(n) => NamespaceRef::Uts(names.uts(n)?),
        }))
    }

    fn ioctl(&self, _f: &OpenFile, caller: &dyn Caller, cmd: u32, arg: u64) -> Result<u64> {
        match cmd {
            NS_GET_USERNS => self.give(caller, &self.visible_owner(caller)?),
            NS_GET_PARENT => self.give(caller, &self.parent(caller)?),
            NS_GET_NSTYPE => Ok(self.namespace.flag().bits()),
            NS_GET_OWNER_UID => {
                let Namespace::User(ns) = &self.namespace else { return Err(Errno::EINVAL) };
                let uid = caller.creds().user_ns.show_uid(ns.owner.0);
                caller.write_user(arg, &uid.to_ne_bytes())?;
                Ok(0)
            }
            _ => Err(Errno::ENOTTY),
        }
    }
}
