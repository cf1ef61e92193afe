//! [`Kernel`]: what exists once per sandbox, and [`kernel`], which gives it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use moat_platform::Platform;
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::cred::UserNamespace;

use crate::ipc::IpcNamespace;
use crate::process::family::Family;
use crate::process::pid::PidNamespace;
use crate::syscall::SyscallTable;

/// What a sandbox is booted with.
pub struct Config {
    /// How guest code runs.
    pub platform: Arc<dyn Platform>,
    /// The system calls: `moat_syscalls::table()`.
    pub syscalls: &'static dyn SyscallTable,
    /// CPUs that guests see.
    pub cpu_count: usize,
    /// Bytes of memory that guests see.
    pub total_memory: u64,
    /// The host name of the first UTS namespace.
    pub hostname: Vec<u8>,
    /// Whether system calls are logged.
    pub strace: Strace,
}

/// Which system calls are logged at the moment.
pub struct StraceSwitch {
    /// Whether any is: all that a call costs when none is.
    on: AtomicBool,
    which: Mutex<Strace>,
}

impl StraceSwitch {
    fn new(which: Strace) -> StraceSwitch {
        StraceSwitch { on: AtomicBool::new(which != Strace::Off), which: Mutex::new(LockClass::Leaf, which) }
    }

    /// Whether call `nr` is logged.
    #[must_use]
    pub fn wants(&self, nr: u64) -> bool {
        self.on.load(Ordering::Relaxed) && self.which.lock().wants(nr)
    }

    /// Changes what is logged.
    pub fn set(&self, which: Strace) {
        let on = which != Strace::Off;
        *self.which.lock() = which;
        self.on.store(on, Ordering::Relaxed);
    }
}

/// Which system calls are logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strace {
    /// None.
    Off,
    /// All.
    All,
    /// These.
    Only(Vec<u32>),
}

impl Strace {
    /// Whether call `nr` is logged.
    #[must_use]
    pub fn wants(&self, nr: u64) -> bool {
        match self {
            Strace::Off => false,
            Strace::All => true,
            Strace::Only(list) => list.iter().any(|n| u64::from(*n) == nr),
        }
    }
}

/// The release that uname(2) gives: programs test it for features of Linux 6.
pub const RELEASE: &str = "6.12.0-moat";
/// The version that uname(2) gives.
pub const VERSION: &str = "#1 SMP PREEMPT_DYNAMIC";

/// A UTS namespace.
pub struct UtsNamespace {
    /// The inode number of `/proc/PID/ns/uts`.
    pub id: u64,
    names: Mutex<(Vec<u8>, Vec<u8>)>,
}

impl UtsNamespace {
    /// A namespace with this host and domain name.
    #[must_use]
    pub fn new(id: u64, host: Vec<u8>, domain: Vec<u8>) -> Arc<UtsNamespace> {
        Arc::new(UtsNamespace { id, names: Mutex::new(LockClass::Table, (host, domain)) })
    }

    /// The host name.
    #[must_use]
    pub fn host_name(&self) -> Vec<u8> {
        self.names.lock().0.clone()
    }

    /// The NIS domain name.
    #[must_use]
    pub fn domain_name(&self) -> Vec<u8> {
        self.names.lock().1.clone()
    }

    /// Sets the host name; the caller has checked its length.
    pub fn set_host_name(&self, name: Vec<u8>) {
        self.names.lock().0 = name;
    }

    /// Sets the NIS domain name; the caller has checked its length.
    pub fn set_domain_name(&self, name: Vec<u8>) {
        self.names.lock().1 = name;
    }
}

/// The namespaces of a task that are not kept elsewhere (`struct nsproxy`).
#[derive(Clone)]
pub struct Namespaces {
    /// Host name.
    pub uts: Arc<UtsNamespace>,
    /// Where children are numbered.
    pub pid_for_children: Arc<PidNamespace>,
    /// System V IPC.
    pub ipc: Arc<IpcNamespace>,
    /// Inode numbers of the namespaces that moat has one of: `/proc/PID/ns/*`.
    pub net_id: u64,
    /// As `net_id`.
    pub cgroup_id: u64,
}

/// What exists once per sandbox.
pub struct Kernel {
    /// How guest code runs.
    pub platform: Arc<dyn Platform>,
    /// The system calls.
    pub syscalls: &'static dyn SyscallTable,
    /// All processes.
    pub family: Mutex<Family>,
    /// CPUs that guests see.
    pub cpu_count: usize,
    /// Bytes of memory that guests see.
    pub total_memory: u64,
    /// Which system calls are logged.
    pub strace: StraceSwitch,
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
    /// Random bytes for `/proc/sys/kernel/random/boot_id`.
    pub boot_id: [u8; 16],
    /// Processes made since boot (`processes` of /proc/stat).
    pub forks: AtomicU64,
    /// Woken when a process has ended for good, or a container's init has.
    pub exits: WaitQueue,
    syscall_counts: Mutex<BTreeMap<u64, u64>>,
    unknown_logged: AtomicBool,
}

static KERNEL: OnceLock<Kernel> = OnceLock::new();
static NEXT_NS: AtomicU64 = AtomicU64::new(0xf000_1000);

/// A fresh inode number for a namespace.
#[must_use]
pub fn next_namespace_id() -> u64 {
    NEXT_NS.fetch_add(1, Ordering::Relaxed)
}

/// The kernel.
///
/// # Panics
/// Before [`Kernel::boot`].
#[must_use]
pub fn kernel() -> &'static Kernel {
    KERNEL.get().expect("the kernel has not been booted")
}

impl Kernel {
    /// Makes the kernel; once per process, a second call gives the first kernel.
    ///
    /// # Errors
    /// Those of the first pid namespace.
    pub fn boot(config: Config) -> moat_abi::Result<&'static Kernel> {
        let root_pid_ns = PidNamespace::new(0xeffffffc, None)?;
        let root_namespaces = Namespaces {
            uts: UtsNamespace::new(0xeffffffe, config.hostname, b"(none)".to_vec()),
            pid_for_children: root_pid_ns.clone(),
            ipc: IpcNamespace::new(0xefff_ffff),
            net_id: 0xf000_0098,
            cgroup_id: 0xeffffffb,
        };
        let mut boot_id = [0; 16];
        crate::random::fill(&mut boot_id);
        let new = Kernel {
            platform: config.platform,
            syscalls: config.syscalls,
            family: Mutex::new(LockClass::Tasks, Family::default()),
            cpu_count: config.cpu_count.max(1),
            total_memory: config.total_memory,
            strace: StraceSwitch::new(config.strace),
            root_pid_ns,
            root_namespaces,
            root_user_ns: UserNamespace::root(),
            boot_realtime_ns: crate::clock::realtime_ns(),
            boot_boottime_ns: crate::clock::boottime_ns(),
            boot_id,
            forks: AtomicU64::new(0),
            exits: WaitQueue::new(),
            syscall_counts: Mutex::new(LockClass::Leaf, BTreeMap::new()),
            unknown_logged: AtomicBool::new(false),
        };
        moat_vfs::caller::set_hooks(Box::new(crate::hooks::VfsHooks));
        Ok(KERNEL.get_or_init(|| new))
    }

    /// Nanoseconds since the sandbox was booted.
    #[must_use]
    pub fn uptime_ns(&self) -> u64 {
        crate::clock::boottime_ns().saturating_sub(self.boot_boottime_ns)
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
