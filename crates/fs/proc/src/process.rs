//! The directory of a process, /proc/PID, and of a thread, /proc/PID/task/TID.

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::FileType;
use moat_abi::{Errno, Result};
use moat_identity::Pid;
use moat_kernel::signal::view::RunState;
use moat_kernel::{Kernel, Task};
use moat_mm::MemoryManager;
use moat_vfs::caller::Caller;
use moat_vfs::cred::Credentials;
use moat_vfs::generated::{Attributes, Entry, Listing, Text, TextFile};
use moat_vfs::inode::Inode;

use crate::fs::ProcMount;
use crate::root::{dir, parse_pid};
use crate::{fds, links, memory, misc, mounts, net, stat, status};

/// Whether a directory shows a process or one thread of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// /proc/PID.
    Process,
    /// /proc/PID/task/TID.
    Thread,
}

/// Whose files are shown. Holds the pid, not the task: files of a process that is gone give ESRCH.
#[derive(Clone)]
pub struct Who {
    kernel: Arc<Kernel>,
    pid: Arc<Pid>,
    /// Process or thread.
    pub kind: Kind,
}

impl Who {
    /// The task numbered `pid`, where it exists.
    ///
    /// # Errors
    /// ENOENT.
    pub(crate) fn find(proc: &ProcMount, pid: i32, kind: Kind) -> Result<Who> {
        let pid = proc.pid_ns.lookup(pid).ok_or(Errno::ENOENT)?;
        let who = Who { kernel: proc.kernel.clone(), pid, kind };
        who.task().map_err(|_| Errno::ENOENT)?;
        Ok(who)
    }

    /// The task: the thread, or the leader of the process.
    ///
    /// # Errors
    /// ESRCH.
    pub fn task(&self) -> Result<Arc<Task>> {
        self.kernel.task_of(&self.pid).ok_or(Errno::ESRCH)
    }

    /// Whether the number is that of a process.
    #[must_use]
    pub fn is_process(&self) -> bool {
        self.task().is_ok_and(|t| t.is_leader())
    }

    /// The address space.
    ///
    /// # Errors
    /// ESRCH for a task that is gone.
    pub fn mm(&self) -> Result<Option<Arc<MemoryManager>>> {
        Ok(self.task()?.mm_of())
    }

    /// Whether `caller` may look into the process: ptrace(2), "Ptrace access mode checking", with PTRACE_MODE_FSCREDS.
    ///
    /// # Errors
    /// EACCES; ESRCH.
    pub fn may_inspect(&self, caller: &dyn Caller) -> Result<()> {
        let task = self.task()?;
        if is_of(caller, &task) { Ok(()) } else { may_inspect(caller.creds(), &task) }
    }

    /// Whether `caller` is a thread of the process.
    pub(crate) fn is_own(&self, caller: &dyn Caller) -> bool {
        self.task().is_ok_and(|task| is_of(caller, &task))
    }
}

fn is_of(caller: &dyn Caller, task: &Task) -> bool {
    caller.task().is_some_and(|t| t.process_pid().id == task.group.pid().id)
}

fn may_inspect(c: &Credentials, task: &Task) -> Result<()> {
    let theirs = task.creds();
    let same = [theirs.uid, theirs.euid, theirs.suid].iter().all(|id| *id == c.fsuid)
        && [theirs.gid, theirs.egid, theirs.sgid].iter().all(|id| *id == c.fsgid);
    let dumpable = task.group.dumpable() == moat_kernel::process::group::Dumpable::Yes;
    let privileged = c.has_root_cap(Cap::SYS_PTRACE);
    if privileged || (same && dumpable && c.permitted.contains_all(theirs.permitted)) {
        Ok(())
    } else {
        Err(Errno::EACCES)
    }
}

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

/// Takes in what somebody with these credentials wrote.
pub(crate) type WriteFn = fn(&Who, &Credentials, &[u8]) -> Result<()>;

/// A file of a process.
pub(crate) struct FileSpec {
    pub(crate) name: &'static str,
    pub(crate) mode: u32,
    pub(crate) guard: Guard,
    pub(crate) read: ReadFn,
    pub(crate) write: Option<WriteFn>,
}

impl FileSpec {
    const fn new(name: &'static str, mode: u32, read: ReadFn) -> FileSpec {
        FileSpec { name, mode, guard: Guard::Bits, read, write: None }
    }

    const fn guarded(mut self) -> FileSpec {
        self.guard = Guard::Inspect;
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
    FileSpec::new("cmdline", 0o444, memory::cmdline),
    FileSpec::new("comm", 0o644, misc::comm).writable(misc::set_comm),
    FileSpec::new("coredump_filter", 0o644, misc::coredump_filter).writable(misc::set_coredump_filter),
    FileSpec::new("environ", 0o400, memory::environ).guarded(),
    FileSpec::new("gid_map", 0o644, misc::gid_map),
    FileSpec::new("io", 0o400, misc::io).guarded(),
    FileSpec::new("limits", 0o444, misc::limits),
    FileSpec::new("loginuid", 0o644, misc::loginuid),
    FileSpec::new("maps", 0o444, memory::maps).guarded(),
    FileSpec::new("mountinfo", 0o444, mounts::mountinfo),
    FileSpec::new("mounts", 0o444, mounts::mounts),
    FileSpec::new("mountstats", 0o400, mounts::mountstats),
    FileSpec::new("oom_adj", 0o644, misc::oom_adj),
    FileSpec::new("oom_score", 0o444, misc::oom_score),
    FileSpec::new("oom_score_adj", 0o644, misc::oom_score_adj).writable(misc::set_oom_score_adj),
    FileSpec::new("personality", 0o400, misc::personality).guarded(),
    FileSpec::new("sched", 0o644, misc::sched),
    FileSpec::new("schedstat", 0o444, misc::schedstat),
    FileSpec::new("sessionid", 0o444, misc::sessionid),
    FileSpec::new("setgroups", 0o644, misc::setgroups),
    FileSpec::new("smaps", 0o444, memory::smaps).guarded(),
    FileSpec::new("smaps_rollup", 0o444, memory::smaps_rollup).guarded(),
    FileSpec::new("stat", 0o444, stat::stat),
    FileSpec::new("statm", 0o444, stat::statm),
    FileSpec::new("status", 0o444, status::status),
    FileSpec::new("syscall", 0o400, misc::syscall).guarded(),
    FileSpec::new("timerslack_ns", 0o666, misc::timerslack),
    FileSpec::new("uid_map", 0o644, misc::uid_map),
    FileSpec::new("wchan", 0o444, misc::wchan),
];

struct ProcessText {
    proc: ProcMount,
    who: Who,
    spec: &'static FileSpec,
}

impl Text for ProcessText {
    fn read(&self, _caller: &Credentials) -> Result<Vec<u8>> {
        (self.spec.read)(&self.proc, &self.who)
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
}

/// The listing of /proc/PID.
pub struct ProcessDir {
    proc: ProcMount,
    who: Who,
}

const DIRS: [&str; 5] = ["fd", "fdinfo", "net", "ns", "task"];

impl ProcessDir {
    pub(crate) fn inode(proc: &ProcMount, who: Who) -> Arc<dyn Inode> {
        let attributes = owned(proc, &who, "pid", 0o555);
        dir(attributes, ProcessDir { proc: proc.clone(), who })
    }
}

/// Attributes of a file that belongs to the process's effective user, or to root where it may not be inspected.
pub(crate) fn owned(proc: &ProcMount, who: &Who, name: &str, mode: u32) -> Attributes {
    let (uid, gid) = match who.task() {
        // Directories that everybody may list show the user even then (`task_dump_owner`).
        Ok(t) if mode == 0o555 || t.group.dumpable() == moat_kernel::process::group::Dumpable::Yes => {
            let c = t.creds();
            (c.euid, c.egid)
        }
        _ => (0, 0),
    };
    let number = who.pid.number_in(&proc.pid_ns);
    let ino = if name == "pid" && who.kind == Kind::Process {
        proc.ino((number, name))
    } else {
        proc.ino((number, name, who.kind))
    };
    Attributes { dev: proc.dev, ino, mode, uid, gid }
}

impl Listing for ProcessDir {
    fn owner(&self) -> Option<(u32, u32)> {
        let creds = self.who.task().ok()?.creds();
        Some((creds.euid, creds.egid))
    }

    fn lookup(&self, name: &[u8]) -> Result<Arc<dyn Inode>> {
        self.who.task().map_err(|_| Errno::ENOENT)?;
        let name = std::str::from_utf8(name).map_err(|_| Errno::ENOENT)?;
        let (proc, who) = (&self.proc, &self.who);
        if let Some(link) = links::lookup(proc, who, name) {
            return Ok(link);
        }
        match name {
            "fd" => return Ok(fds::fd_dir(proc, who)),
            "fdinfo" => return Ok(fds::fdinfo_dir(proc, who)),
            "net" => return Ok(net::dir(proc)),
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
        for name in DIRS.iter().filter(|n| **n != "task" || self.who.kind == Kind::Process) {
            add(name, FileType::Directory);
        }
        for name in links::NAMES {
            add(name, FileType::Symlink);
        }
        add("mem", FileType::Regular);
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
            ino: self.proc.ino((tid, "pid", Kind::Thread)),
            file_type: FileType::Directory,
        };
        Ok(tids.into_iter().map(entry).collect())
    }
}

/// The state letter of a task: proc_pid_stat(5), field 3, and its word.
pub(crate) fn state_of(task: &Task) -> (char, &'static str) {
    if task.group.zombie_status().is_some() {
        return ('Z', "zombie");
    }
    match task.run_state() {
        RunState::Dead => return ('Z', "zombie"),
        RunState::TracingStop => return ('t', "tracing stop"),
        RunState::Stopped => return ('T', "stopped"),
        RunState::Live => {}
    }
    if task.wchan.lock().is_some() { ('S', "sleeping") } else { ('R', "running") }
}
