//! [`Kernel`]: what exists once per sandbox, and the root from which everything of a guest is reached.
//!
//! There is no global: a task has its kernel through its thread group, a file of /proc through its file system. A test can
//! hold two kernels in one process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use moat_identity::namespaces::UtsNames;
use moat_identity::session::JobSignals;
use moat_identity::{
    CgroupNamespace, Counter, IpcNamespace, Namespaces, NetNamespace, Pid, PidNamespace, UserNamespace, UtsNamespace,
};
use moat_mm::MmIds;
use moat_monitor::Monitor;
use moat_platform::Platform;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::vfs::VfsConfig;
use moat_vfs::{Registry, Vfs};

use crate::futex::Futexes;
use crate::process::core_pattern::CorePattern;
use crate::process::family::{Family, TaskTable};
use crate::process::group::{GroupId, ThreadGroup};
use crate::quotas::NamespaceQuotas;
use crate::strace::{Strace, StraceSwitch};
use crate::task::Task;
use crate::task::samples::GuestSamples;
use crate::task::times::CallTimes;
use crate::task::waits::WaitProfile;

/// Says what there is: see [`Config::assemble`].
pub type Assemble = Box<dyn FnOnce(&Weak<Kernel>) -> Registry>;

/// What a sandbox is booted with.
pub struct Config {
    /// How guest code runs.
    pub platform: Arc<dyn Platform>,
    /// CPUs that guests see.
    pub cpu_count: usize,
    /// Bytes of memory that guests see.
    pub total_memory: u64,
    /// The names of the first UTS namespace.
    pub names: UtsNames,
    /// The first user namespace.
    pub user_ns: Arc<UserNamespace>,
    /// CLOCK_BOOTTIME at a boot before, if this kernel goes on where that one's ended.
    pub booted_ns: Option<u64>,
    /// Whether system calls are logged.
    pub strace: Strace,
    /// Says what file system types, devices and address families there are. What it registers may refer to the kernel, which
    /// does not exist yet while this is called.
    pub assemble: Assemble,
}

/// The release that uname(2) gives: programs test it for features of Linux 6.
pub const RELEASE: &str = "6.12.0-moat";
/// The version that uname(2) gives.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC";

/// What exists once per sandbox.
pub struct Kernel {
    /// How guest code runs.
    pub platform: Arc<dyn Platform>,
    /// Mounts, open files, and what can be mounted and opened.
    pub vfs: Vfs,
    /// All processes.
    pub(crate) family: Mutex<Family>,
    /// Which task a pid stands for.
    pub(crate) tasks: TaskTable,
    /// Who waits for words of guest memory.
    pub(crate) futexes: Arc<Futexes>,
    /// Where ids come from.
    pub ids: Ids,
    /// How many namespaces guests may make.
    pub quotas: Arc<NamespaceQuotas>,
    /// CPUs that guests see.
    pub cpu_count: usize,
    /// Bytes of memory that guests see.
    pub total_memory: u64,
    /// Which system calls are logged.
    pub strace: StraceSwitch,
    /// How long tasks wait, while somebody asks.
    pub waits: WaitProfile,
    /// How long system calls take, while somebody asks.
    pub times: CallTimes,
    /// Where application code was, while somebody asks.
    pub samples: GuestSamples,
    /// Who is told what tasks do.
    pub monitor: Monitor,
    /// The outermost pid namespace: it sees all containers.
    pub root_pid_ns: Arc<PidNamespace>,
    /// The first namespaces.
    pub root_namespaces: Namespaces,
    /// The first user namespace.
    pub root_user_ns: Arc<UserNamespace>,
    /// CLOCK_REALTIME at boot, nanoseconds.
    pub boot_realtime_ns: u64,
    /// CLOCK_BOOTTIME at boot, nanoseconds: uptime counts from here.
    pub boot_boottime_ns: u64,
    /// What core files are called.
    pub core_pattern: Arc<CorePattern>,
    /// Random bytes for `/proc/sys/kernel/random/boot_id`.
    pub boot_id: [u8; 16],
    /// Processes made since boot (`processes` of /proc/stat).
    pub forks: AtomicU64,
    /// Woken when a process has ended for good, or a container's init has.
    pub exits: WaitQueue,
    syscall_counts: Mutex<BTreeMap<u64, u64>>,
    unknown_logged: AtomicBool,
    /// What is to go wrong, for a test.
    #[cfg(debug_assertions)]
    pub(crate) mishap: Option<crate::mishap::Mishap>,
    /// Itself, for those who must not keep it alive.
    pub(crate) me: Weak<Kernel>,
}

/// The ids that are given once per kernel.
pub struct Ids {
    /// Inode numbers of namespaces: `/proc/PID/ns/*`.
    pub namespaces: Counter,
    /// Numbers of logins.
    pub logins: Counter,
    /// See [`crate::task::TaskId`].
    pub(crate) tasks: Counter,
    /// Address spaces and their shared memory.
    pub mm: Arc<MmIds>,
}

/// The first inode number of a namespace that is not one of the first ones (`PROC_DYNAMIC_FIRST`).
const FIRST_NAMESPACE_ID: u64 = 0xf000_1000;

impl Kernel {
    /// Makes a kernel without processes.
    ///
    /// # Errors
    /// Those of the first pid namespace.
    pub fn boot(config: Config) -> moat_abi::Result<Arc<Kernel>> {
        // The first namespaces have the inode numbers of Linux's (`PROC_PID_INIT_INO` and its like).
        let root_user_ns = config.user_ns;
        let root_pid_ns = PidNamespace::new(0xeffffffc, root_user_ns.clone(), None)?;
        let user = || root_user_ns.clone();
        let root_namespaces = Namespaces {
            uts: UtsNamespace::new(0xeffffffe, user(), config.names),
            pid_for_children: root_pid_ns.clone(),
            ipc: IpcNamespace::new(0xefff_ffff, user()),
            net: NetNamespace::new(0xf000_0098, user()),
            cgroup: CgroupNamespace::new(0xeffffffb, user()),
        };
        // /proc/sys/kernel/random/boot_id: of this kernel, not of the host.
        let mut boot_id = [0; 16];
        moat_host::random::fill(&mut boot_id);
        let now = moat_host::clock::boottime_ns();
        let booted = config.booted_ns.unwrap_or(now);
        let kernel = Arc::new_cyclic(|me: &Weak<Kernel>| Kernel {
            platform: config.platform,
            vfs: Vfs::new(VfsConfig {
                registry: (config.assemble)(me),
                total_memory: config.total_memory,
                root_user_ns: root_user_ns.clone(),
                io_signals: me.clone(),
            }),
            family: Mutex::new(LockClass::Tasks, Family::default()),
            tasks: TaskTable::default(),
            futexes: Arc::default(),
            ids: Ids {
                namespaces: Counter::starting_at(FIRST_NAMESPACE_ID),
                logins: Counter::starting_at(1),
                tasks: Counter::starting_at(1),
                mm: Arc::default(),
            },
            quotas: Arc::default(),
            cpu_count: config.cpu_count.max(1),
            total_memory: config.total_memory,
            strace: StraceSwitch::new(config.strace),
            waits: WaitProfile::default(),
            times: CallTimes::default(),
            samples: GuestSamples::default(),
            monitor: Monitor::default(),
            root_pid_ns,
            root_namespaces,
            root_user_ns,
            boot_realtime_ns: moat_host::clock::realtime_ns().saturating_sub(now.saturating_sub(booted)),
            boot_boottime_ns: booted,
            boot_id,
            core_pattern: Arc::default(),
            forks: AtomicU64::new(0),
            exits: WaitQueue::new(),
            syscall_counts: Mutex::new(LockClass::Leaf, BTreeMap::new()),
            unknown_logged: AtomicBool::new(false),
            #[cfg(debug_assertions)]
            mishap: crate::mishap::Mishap::of_environment(),
            me: me.clone(),
        });
        Ok(kernel)
    }

    /// Whether anybody wants to know of system calls: the strace log, or a monitor.
    pub(crate) fn is_watched(&self) -> bool {
        self.strace.is_on() || self.monitor.is_on()
    }

    /// What sessions send signals by.
    #[must_use]
    pub fn job_signals(&self) -> Weak<dyn JobSignals> {
        self.me.clone()
    }

    /// A fresh inode number for a namespace.
    #[must_use]
    pub fn next_namespace_id(&self) -> u64 {
        self.ids.namespaces.next()
    }

    /// The task that `pid` stands for, until it is reaped.
    #[must_use]
    pub fn task_of(&self, pid: &Pid) -> Option<Arc<Task>> {
        self.tasks.get(pid)
    }

    /// Whether a process is there and has not ended.
    #[must_use]
    pub fn is_alive(&self, process: GroupId) -> bool {
        self.family.lock().node(process).is_some_and(|node| node.zombie.is_none())
    }

    /// The thread group that the task behind `pid` leads.
    #[must_use]
    pub fn process_of(&self, pid: &Pid) -> Option<Arc<ThreadGroup>> {
        let group = self.tasks.get(pid)?.group.clone();
        // A thread that leads no group names no process.
        (group.pid().id == pid.id).then_some(group)
    }

    /// The task with this number in `ns`.
    #[must_use]
    pub fn task(&self, ns: &PidNamespace, number: i32) -> Option<Arc<Task>> {
        self.task_of(&*ns.lookup(number)?)
    }

    /// The thread group led by the task with this number in `ns`.
    #[must_use]
    pub fn process(&self, ns: &PidNamespace, number: i32) -> Option<Arc<ThreadGroup>> {
        self.process_of(&*ns.lookup(number)?)
    }

    /// Nanoseconds since the sandbox was booted.
    #[must_use]
    pub fn uptime_ns(&self) -> u64 {
        moat_host::clock::boottime_ns().saturating_sub(self.boot_boottime_ns)
    }

    /// Takes note of a call that moat does not have; the first of each number is logged.
    pub fn note_missing_syscall(&self, nr: u64) {
        let mut counts = self.syscall_counts.lock();
        // A guest can try any number: the table is bounded.
        if counts.len() >= 1024 && !counts.contains_key(&nr) {
            self.unknown_logged.store(true, Ordering::Relaxed);
            return;
        }
        let n = counts.entry(nr).or_insert(0);
        *n += 1;
        if *n == 1 {
            let name = u32::try_from(nr).ok().and_then(moat_abi::nr::name).unwrap_or("?");
            tracing::warn!(nr, name, "system call not supported: ENOSYS");
        }
    }
}
