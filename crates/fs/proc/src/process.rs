//! The directory of a process, /proc/PID, and of a thread, /proc/PID/task/TID.

use std::sync::Arc;

use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_identity::Pid;
use moat_vfs::caller::Caller;
use moat_vfs::cred::Credentials;
use moat_vfs::generated::{Entry, ListedDir, Listing, Text, TextFile};
use moat_vfs::inode::Inode;

use crate::mount::{ProcMount, dir};
use crate::who::{Kind, Who, owned, parse_pid};
use crate::{fds, idmaps, links, memory, misc, mounts, net, stat, status};

/// Who may open a file of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guard {
    /// Whom the permission bits let.
    Bits,
    /// Who could trace the process.
    Inspect,
}

/// Makes the whole text of a file.
pub(crate) type ReadFn = fn(&ProcMount, &Who) -> Result<Vec<u8>>;

/// Makes the text as somebody with these credentials sees it.
pub(crate) type ReadForFn = fn(&ProcMount, &Who, &Credentials) -> Result<Vec<u8>>;

/// What makes the text of a file.
#[derive(Clone, Copy)]
pub(crate) enum Read {
    /// The same for all.
    Same(ReadFn),
    /// By who reads it.
    For(ReadForFn),
}

/// Takes in what somebody with these credentials wrote.
pub(crate) type WriteFn = fn(&Who, &Credentials, &[u8]) -> Result<()>;

/// A file of a process.
pub(crate) struct FileSpec {
    pub(crate) name: &'static str,
    pub(crate) mode: u32,
    pub(crate) guard: Guard,
    pub(crate) read: Read,
    pub(crate) write: Option<WriteFn>,
    pub(crate) writers: Writers,
}

/// Whose writes a file takes, of those who may open it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writers {
    /// Everybody's.
    All,
    /// Those of the thread that it belongs to.
    Itself,
}

impl FileSpec {
    const fn new(name: &'static str, mode: u32, read: ReadFn) -> FileSpec {
        FileSpec { name, mode, guard: Guard::Bits, read: Read::Same(read), write: None, writers: Writers::All }
    }

    /// A file in which everybody sees ids of its own user namespace.
    const fn shown_to(name: &'static str, mode: u32, read: ReadForFn) -> FileSpec {
        FileSpec { name, mode, guard: Guard::Bits, read: Read::For(read), write: None, writers: Writers::All }
    }

    const fn guarded(mut self) -> FileSpec {
        self.guard = Guard::Inspect;
        self
    }

    const fn written_by_itself(mut self) -> FileSpec {
        self.writers = Writers::Itself;
        self
    }

    const fn writable(mut self, write: WriteFn) -> FileSpec {
        self.write = Some(write);
        self
    }
}

const FILES: &[FileSpec] = &[
    FileSpec::new("auxv", 0o400, memory::auxv).guarded(),
    FileSpec::new("cgroup", 0o444, misc::cgroup),
    FileSpec::new("clear_refs", 0o200, misc::nothing).writable(misc::clear_refs).guarded(),
    FileSpec::new("cmdline", 0o444, memory::cmdline),
    FileSpec::new("comm", 0o644, misc::comm).writable(misc::set_comm),
    FileSpec::new("coredump_filter", 0o644, misc::coredump_filter).writable(misc::set_coredump_filter),
    FileSpec::new("environ", 0o400, memory::environ).guarded(),
    FileSpec::new("io", 0o400, misc::io).guarded(),
    FileSpec::new("limits", 0o444, misc::limits),
    FileSpec::new("loginuid", 0o644, misc::loginuid).writable(misc::set_loginuid).written_by_itself(),
    FileSpec::new("maps", 0o444, memory::maps).guarded(),
    FileSpec::new("mountinfo", 0o444, mounts::mountinfo),
    FileSpec::new("mounts", 0o444, mounts::mounts),
    FileSpec::new("mountstats", 0o400, mounts::mountstats),
    FileSpec::new("oom_adj", 0o644, misc::oom_adj).writable(misc::set_oom_adj),
    FileSpec::new("oom_score", 0o444, misc::oom_score),
    FileSpec::new("oom_score_adj", 0o644, misc::oom_score_adj).writable(misc::set_oom_score_adj),
    FileSpec::new("personality", 0o400, misc::personality).guarded(),
    FileSpec::new("sched", 0o644, misc::sched).writable(misc::reset_sched),
    FileSpec::new("schedstat", 0o444, misc::schedstat),
    FileSpec::new("sessionid", 0o444, misc::sessionid),
    FileSpec::new("smaps", 0o444, memory::smaps).guarded(),
    FileSpec::new("smaps_rollup", 0o444, memory::smaps_rollup).guarded(),
    FileSpec::new("stat", 0o444, stat::stat),
    FileSpec::new("statm", 0o444, stat::statm),
    FileSpec::shown_to("status", 0o444, status::status),
    FileSpec::new("syscall", 0o400, misc::syscall).guarded(),
    FileSpec::new("timerslack_ns", 0o666, misc::timerslack).writable(misc::set_timerslack).guarded(),
    FileSpec::new("wchan", 0o444, misc::wchan),
];

struct ProcessText {
    proc: ProcMount,
    who: Who,
    spec: &'static FileSpec,
}

impl Text for ProcessText {
    fn read(&self, caller: &Credentials) -> Result<Vec<u8>> {
        match self.spec.read {
            Read::Same(read) => read(&self.proc, &self.who),
            Read::For(read) => read(&self.proc, &self.who, caller),
        }
    }

    fn write(&self, caller: &Credentials, data: &[u8]) -> Result<()> {
        self.spec.write.ok_or(Errno::EINVAL)?(&self.who, caller, data)
    }

    fn may_open(&self, caller: &dyn Caller) -> Result<()> {
        match self.spec.guard {
            Guard::Bits => Ok(()),
            Guard::Inspect => self.who.may_inspect(caller),
        }
    }

    fn may_write(&self, opener: Option<u64>) -> Result<()> {
        let own = opener == Some(self.who.pid.id);
        if self.spec.writers == Writers::All || own { Ok(()) } else { Err(Errno::EPERM) }
    }
}

/// The listing of /proc/PID.
pub struct ProcessDir {
    proc: ProcMount,
    who: Who,
}

const DIRS: [&str; 5] = ["fd", "fdinfo", "net", "ns", "task"];

/// The process that `inode` is the directory of: where signals are sent to, such a directory is as good as a pidfd.
#[must_use]
pub fn process_of(inode: &Arc<dyn Inode>) -> Option<Arc<Pid>> {
    let dir = moat_vfs::generated::downcast::<ListedDir<ProcessDir>>(inode.clone())?;
    let who = &dir.listing().who;
    (who.kind == Kind::Process).then(|| who.pid.clone())
}

impl ProcessDir {
    pub(crate) fn inode(proc: &ProcMount, who: Who) -> Arc<dyn Inode> {
        let attributes = owned(proc, &who, "pid", 0o555);
        dir(attributes, ProcessDir { proc: proc.clone(), who })
    }
}

impl Listing for ProcessDir {
    fn owner(&self) -> Option<(u32, u32)> {
        // The directory's owner follows the process's ids.
        let creds = self.who.task().ok()?.creds();
        Some((creds.euid, creds.egid))
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        // It may have been reaped since the directory was found.
        self.who.task().map_err(|_| Errno::ENOENT)?;
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let (proc, who) = (&self.proc, &self.who);
        if let Some(link) = links::lookup(proc, who, name) {
            return Ok(link);
        }
        if let Some(map) = idmaps::lookup(proc, who, name) {
            return Ok(map);
        }
        match name {
            "fd" => return Ok(fds::fd_dir(proc, who)),
            "fdinfo" => return Ok(fds::fdinfo_dir(proc, who)),
            "net" => return Ok(net::dir(proc, who)),
            "ns" => return Ok(links::ns_dir(proc, who)),
            "mem" => return Ok(memory::mem_file(proc, who)),
            "task" if who.kind == Kind::Process => {
                return Ok(dir(owned(proc, who, "task", 0o555), TaskDir { proc: proc.clone(), who: who.clone() }));
            }
            _ => {}
        }
        let spec = FILES.iter().find(|f| f.name == name).ok_or(Errno::ENOENT)?;
        let text = ProcessText { proc: proc.clone(), who: who.clone(), spec };
        Ok(TextFile::new(owned(proc, who, name, spec.mode), text))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        self.who.task().map_err(|_| Errno::ENOENT)?;
        let mut all = Vec::new();
        let mut add = |name: &str, file_type| {
            let ino = owned(&self.proc, &self.who, name, 0).ino;
            all.push(Entry { name: name.as_bytes().to_vec(), ino, file_type });
        };
        // A thread has no threads of its own.
        for name in DIRS.iter().filter(|n| **n != "task" || self.who.kind == Kind::Process) {
            add(name, FileType::Directory);
        }
        for name in links::NAMES {
            add(name, FileType::Symlink);
        }
        for name in ["mem"].iter().chain(&idmaps::NAMES) {
            add(name, FileType::Regular);
        }
        for f in FILES {
            add(f.name, FileType::Regular);
        }
        Ok(all)
    }
}

/// The listing of /proc/PID/task.
struct TaskDir {
    proc: ProcMount,
    who: Who,
}

impl Listing for TaskDir {
    fn links(&self) -> u32 {
        let threads = self.who.task().map_or(0, |t| t.group.thread_count());
        u32::try_from(threads).unwrap_or(u32::MAX).saturating_add(2)
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        let tid = parse_pid(name).ok_or(Errno::ENOENT)?;
        let thread = Who::find(&self.proc, tid, Kind::Thread)?;
        // Threads of this very process only (`proc_task_lookup`).
        if thread.task()?.group.id != self.who.task()?.group.id {
            return Err(Errno::ENOENT);
        }
        Ok(ProcessDir::inode(&self.proc, thread))
    }

    fn entries(&self) -> Result<Vec<Entry>> {
        let group = self.who.task().map_err(|_| Errno::ENOENT)?.group.clone();
        let mut tids: Vec<i32> =
            group.threads().iter().map(|t| t.tid_in(&self.proc.pid_ns)).filter(|t| *t > 0).collect();
        if tids.is_empty() {
            // A zombie still shows its leader.
            tids.push(group.pid().number_in(&self.proc.pid_ns));
        }
        tids.sort_unstable();
        let entry = |tid: i32| Entry {
            name: tid.to_string().into_bytes(),
            // As `owned` numbers the directory of a thread.
            ino: self.proc.ino((tid, "pid", Kind::Thread)),
            file_type: FileType::Directory,
        };
        Ok(tids.into_iter().map(entry).collect())
    }
}
