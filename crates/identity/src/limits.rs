//! Resource limits: getrlimit(2), prlimit(2).

use moat_sync::{LockClass, Mutex};

/// RLIM_INFINITY.
pub const INFINITY: u64 = u64::MAX;

/// A resource of getrlimit(2), with Linux's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "names of getrlimit(2)")]
pub enum Resource {
    Cpu = 0,
    FileSize = 1,
    Data = 2,
    Stack = 3,
    Core = 4,
    Rss = 5,
    Processes = 6,
    OpenFiles = 7,
    Memlock = 8,
    AddressSpace = 9,
    Locks = 10,
    SigPending = 11,
    MessageQueue = 12,
    Nice = 13,
    RtPriority = 14,
    RtTime = 15,
}

impl Resource {
    /// All of them in the order of their numbers.
    pub const ALL: [Resource; 16] = [
        Resource::Cpu,
        Resource::FileSize,
        Resource::Data,
        Resource::Stack,
        Resource::Core,
        Resource::Rss,
        Resource::Processes,
        Resource::OpenFiles,
        Resource::Memlock,
        Resource::AddressSpace,
        Resource::Locks,
        Resource::SigPending,
        Resource::MessageQueue,
        Resource::Nice,
        Resource::RtPriority,
        Resource::RtTime,
    ];

    /// The resource with Linux's number `n`.
    #[must_use]
    pub fn from_number(n: u32) -> Option<Resource> {
        Resource::ALL.get(usize::try_from(n).ok()?).copied()
    }

    /// The name in /proc/PID/limits and its unit.
    #[must_use]
    pub fn describe(self) -> (&'static str, &'static str) {
        match self {
            Resource::Cpu => ("Max cpu time", "seconds"),
            Resource::FileSize => ("Max file size", "bytes"),
            Resource::Data => ("Max data size", "bytes"),
            Resource::Stack => ("Max stack size", "bytes"),
            Resource::Core => ("Max core file size", "bytes"),
            Resource::Rss => ("Max resident set", "bytes"),
            Resource::Processes => ("Max processes", "processes"),
            Resource::OpenFiles => ("Max open files", "files"),
            Resource::Memlock => ("Max locked memory", "bytes"),
            Resource::AddressSpace => ("Max address space", "bytes"),
            Resource::Locks => ("Max file locks", "locks"),
            Resource::SigPending => ("Max pending signals", "signals"),
            Resource::MessageQueue => ("Max msgqueue size", "bytes"),
            Resource::Nice => ("Max nice priority", ""),
            Resource::RtPriority => ("Max realtime priority", ""),
            Resource::RtTime => ("Max realtime timeout", "us"),
        }
    }
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// In force.
    pub soft: u64,
    /// Ceiling of `soft`.
    pub hard: u64,
}

impl Limit {
    /// No limit.
    pub const NONE: Limit = Limit { soft: INFINITY, hard: INFINITY };

    /// Both values alike.
    #[must_use]
    pub const fn both(value: u64) -> Limit {
        Limit { soft: value, hard: value }
    }
}

/// The limits of a process.
pub struct Limits {
    table: Mutex<[Limit; 16]>,
}

impl Default for Limits {
    /// Those of Linux's init (`INIT_RLIMITS`), with numbers of processes and signals for a machine of a few GiB.
    fn default() -> Self {
        let mut table = [Limit::NONE; 16];
        table[Resource::Stack as usize] = Limit { soft: 8 << 20, hard: INFINITY };
        table[Resource::Core as usize] = Limit { soft: 0, hard: INFINITY };
        table[Resource::Processes as usize] = Limit::both(63_432);
        table[Resource::OpenFiles as usize] = Limit { soft: 1024, hard: 1_048_576 };
        table[Resource::Memlock as usize] = Limit::both(8 << 20);
        table[Resource::SigPending as usize] = Limit::both(63_432);
        table[Resource::MessageQueue as usize] = Limit::both(819_200);
        table[Resource::Nice as usize] = Limit::both(0);
        table[Resource::RtPriority as usize] = Limit::both(0);
        Limits::new(table)
    }
}

impl Limits {
    /// These limits, in the order of their numbers.
    #[must_use]
    pub fn new(table: [Limit; 16]) -> Limits {
        Limits { table: Mutex::new(LockClass::Process, table) }
    }

    /// A copy for a child.
    #[must_use]
    pub fn duplicate(&self) -> Limits {
        Limits::new(*self.table.lock())
    }

    /// One limit.
    #[must_use]
    pub fn get(&self, resource: Resource) -> Limit {
        self.table.lock()[resource as usize]
    }

    /// Sets one limit; the caller has checked the right to.
    pub fn set(&self, resource: Resource, limit: Limit) {
        self.table.lock()[resource as usize] = limit;
    }
}
