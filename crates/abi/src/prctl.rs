//! prctl(2), arch_prctl(2), rlimits, scheduling, personality(2), reboot(2), uname(2), sysinfo(2), getrandom(2).
//!
//! Sources: `linux/{prctl,resource,sched,sched/types,personality,reboot,utsname,sysinfo,random}.h`, `asm/prctl.h`.

consts! { "prctl(2) options.", u32; PR_SET_PDEATHSIG = 1, PR_GET_PDEATHSIG = 2, PR_GET_DUMPABLE = 3,
PR_SET_DUMPABLE = 4, PR_GET_UNALIGN = 5,
PR_SET_UNALIGN = 6, PR_GET_KEEPCAPS = 7, PR_SET_KEEPCAPS = 8, PR_GET_FPEMU = 9, PR_SET_FPEMU = 10,
PR_GET_FPEXC = 11, PR_SET_FPEXC = 12,
PR_GET_TIMING = 13, PR_SET_TIMING = 14, PR_SET_NAME = 15, PR_GET_NAME = 16, PR_GET_ENDIAN = 19,
PR_SET_ENDIAN = 20, PR_GET_SECCOMP = 21,
PR_SET_SECCOMP = 22, PR_CAPBSET_READ = 23, PR_CAPBSET_DROP = 24, PR_GET_TSC = 25, PR_SET_TSC = 26,
PR_GET_SECUREBITS = 27,
PR_SET_SECUREBITS = 28, PR_SET_TIMERSLACK = 29, PR_GET_TIMERSLACK = 30, PR_TASK_PERF_EVENTS_DISABLE = 31,
PR_TASK_PERF_EVENTS_ENABLE = 32,
PR_MCE_KILL = 33, PR_MCE_KILL_GET = 34, PR_SET_MM = 35, PR_SET_CHILD_SUBREAPER = 36, PR_GET_CHILD_SUBREAPER = 37,
PR_SET_NO_NEW_PRIVS = 38,
PR_GET_NO_NEW_PRIVS = 39, PR_GET_TID_ADDRESS = 40, PR_SET_THP_DISABLE = 41, PR_GET_THP_DISABLE = 42,
PR_MPX_ENABLE_MANAGEMENT = 43,
PR_MPX_DISABLE_MANAGEMENT = 44, PR_SET_FP_MODE = 45, PR_GET_FP_MODE = 46, PR_CAP_AMBIENT = 47, PR_SVE_SET_VL = 50,
PR_SVE_GET_VL = 51,
PR_GET_SPECULATION_CTRL = 52, PR_SET_SPECULATION_CTRL = 53, PR_PAC_RESET_KEYS = 54, PR_SET_TAGGED_ADDR_CTRL = 55,
PR_GET_TAGGED_ADDR_CTRL = 56,
PR_SET_IO_FLUSHER = 57, PR_GET_IO_FLUSHER = 58, PR_SET_SYSCALL_USER_DISPATCH = 59, PR_PAC_SET_ENABLED_KEYS = 60,
PR_PAC_GET_ENABLED_KEYS = 61,
PR_SCHED_CORE = 62, PR_SET_MDWE = 65, PR_GET_MDWE = 66, PR_SET_MEMORY_MERGE = 67, PR_GET_MEMORY_MERGE = 68,
PR_SET_VMA = 0x5356_4d41, PR_SET_PTRACER = 0x5961_6d61 }
consts! { "PR_CAP_AMBIENT operations.", u32; PR_CAP_AMBIENT_IS_SET = 1, PR_CAP_AMBIENT_RAISE = 2,
PR_CAP_AMBIENT_LOWER = 3, PR_CAP_AMBIENT_CLEAR_ALL = 4 }
consts! { "PR_SET_VMA operation.", u32; PR_SET_VMA_ANON_NAME = 0 }
consts! { "PR_SET_PTRACER value for any process.", u64; PR_SET_PTRACER_ANY = u64::MAX }
consts! { "PR_SET_DUMPABLE values.", u32; SUID_DUMP_DISABLE = 0, SUID_DUMP_USER = 1, SUID_DUMP_ROOT = 2 }
consts! { "PR_SET_TSC values.", u32; PR_TSC_ENABLE = 1, PR_TSC_SIGSEGV = 2 }
consts! { "PR_SET_MM sub-options.", u32; PR_SET_MM_START_CODE = 1, PR_SET_MM_END_CODE = 2, PR_SET_MM_START_DATA = 3,
PR_SET_MM_END_DATA = 4,
PR_SET_MM_START_STACK = 5, PR_SET_MM_START_BRK = 6, PR_SET_MM_BRK = 7, PR_SET_MM_ARG_START = 8,
PR_SET_MM_ARG_END = 9, PR_SET_MM_ENV_START = 10,
PR_SET_MM_ENV_END = 11, PR_SET_MM_AUXV = 12, PR_SET_MM_EXE_FILE = 13, PR_SET_MM_MAP = 14, PR_SET_MM_MAP_SIZE = 15 }
consts! { "PR_SET_MDWE flags.", u32; PR_MDWE_REFUSE_EXEC_GAIN = 1, PR_MDWE_NO_INHERIT = 2 }
consts! { "PR_GET_SPECULATION_CTRL results and settings.", u32; PR_SPEC_STORE_BYPASS = 0, PR_SPEC_INDIRECT_BRANCH = 1,
PR_SPEC_L1D_FLUSH = 2,
PR_SPEC_NOT_AFFECTED = 0, PR_SPEC_PRCTL = 1, PR_SPEC_ENABLE = 2, PR_SPEC_DISABLE = 4, PR_SPEC_FORCE_DISABLE = 8,
PR_SPEC_DISABLE_NOEXEC = 16 }
/// Bytes of a thread's name with its NUL.
pub const TASK_COMM_LEN: usize = 16;

consts! { "arch_prctl(2) options.", u32; ARCH_SET_GS = 0x1001, ARCH_SET_FS = 0x1002, ARCH_GET_FS = 0x1003,
ARCH_GET_GS = 0x1004,
ARCH_GET_CPUID = 0x1011, ARCH_SET_CPUID = 0x1012, ARCH_GET_XCOMP_SUPP = 0x1021, ARCH_GET_XCOMP_PERM = 0x1022,
ARCH_REQ_XCOMP_PERM = 0x1023,
ARCH_MAP_VDSO_X32 = 0x2001, ARCH_MAP_VDSO_32 = 0x2002, ARCH_MAP_VDSO_64 = 0x2003, ARCH_SHSTK_ENABLE = 0x5001,
ARCH_SHSTK_DISABLE = 0x5002,
ARCH_SHSTK_LOCK = 0x5003, ARCH_SHSTK_STATUS = 0x5005 }

consts! { "Resources of getrlimit(2).", u32; RLIMIT_CPU = 0, RLIMIT_FSIZE = 1, RLIMIT_DATA = 2, RLIMIT_STACK = 3,
RLIMIT_CORE = 4, RLIMIT_RSS = 5,
RLIMIT_NPROC = 6, RLIMIT_NOFILE = 7, RLIMIT_MEMLOCK = 8, RLIMIT_AS = 9, RLIMIT_LOCKS = 10, RLIMIT_SIGPENDING = 11,
RLIMIT_MSGQUEUE = 12,
RLIMIT_NICE = 13, RLIMIT_RTPRIO = 14, RLIMIT_RTTIME = 15 }
/// How many resources there are.
pub const RLIM_NLIMITS: usize = 16;
/// No limit.
pub const RLIM_INFINITY: u64 = u64::MAX;
/// Names of the resources as OCI configurations give them.
pub const RLIMIT_NAMES: [&str; RLIM_NLIMITS] = [
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
];
guest_struct! {
    /// `struct rlimit64`, prlimit64(2), which on x86-64 is `struct rlimit` too.
    Rlimit: 16 { rlim_cur: u64, rlim_max: u64 }
}

consts! { "Scheduling policies, sched(7).", u32; SCHED_NORMAL = 0, SCHED_FIFO = 1, SCHED_RR = 2, SCHED_BATCH = 3,
SCHED_IDLE = 5,
SCHED_DEADLINE = 6, SCHED_EXT = 7, SCHED_RESET_ON_FORK = 0x4000_0000 }
consts! { "`sched_flags` of sched_setattr(2).", u64; SCHED_FLAG_RESET_ON_FORK = 1, SCHED_FLAG_RECLAIM = 2,
SCHED_FLAG_DL_OVERRUN = 4,
SCHED_FLAG_KEEP_POLICY = 8, SCHED_FLAG_KEEP_PARAMS = 16, SCHED_FLAG_UTIL_CLAMP_MIN = 32,
SCHED_FLAG_UTIL_CLAMP_MAX = 64 }
guest_struct! {
    /// `struct sched_param`.
    SchedParam: 4 { sched_priority: i32 }
}
guest_struct! {
    /// `struct sched_attr`, version 1; version 0 ends before the clamps.
    SchedAttr: 56 { size: u32, sched_policy: u32, sched_flags: u64, sched_nice: i32, sched_priority: u32,
        sched_runtime: u64, sched_deadline: u64,
        sched_period: u64, sched_util_min: u32, sched_util_max: u32 }
}
/// Size of version 0 of [`SchedAttr`].
pub const SCHED_ATTR_SIZE_VER0: usize = 48;
consts! { "I/O priorities, ioprio_set(2).", u32; IOPRIO_WHO_PROCESS = 1, IOPRIO_WHO_PGRP = 2, IOPRIO_WHO_USER = 3,
IOPRIO_CLASS_NONE = 0,
IOPRIO_CLASS_RT = 1, IOPRIO_CLASS_BE = 2, IOPRIO_CLASS_IDLE = 3, IOPRIO_CLASS_SHIFT = 13 }

consts! { "personality(2) values.", u32; PER_LINUX = 0, PER_LINUX32 = 8, ADDR_NO_RANDOMIZE = 0x4_0000,
FDPIC_FUNCPTRS = 0x8_0000,
MMAP_PAGE_ZERO = 0x10_0000, ADDR_COMPAT_LAYOUT = 0x20_0000, READ_IMPLIES_EXEC = 0x40_0000,
ADDR_LIMIT_32BIT = 0x80_0000,
SHORT_INODE = 0x100_0000, WHOLE_SECONDS = 0x200_0000, STICKY_TIMEOUTS = 0x400_0000, ADDR_LIMIT_3GB = 0x800_0000,
PER_GET = u32::MAX }
consts! { "reboot(2) magic numbers and commands.", u32; LINUX_REBOOT_MAGIC1 = 0xfee1_dead,
LINUX_REBOOT_MAGIC2 = 672_274_793,
LINUX_REBOOT_MAGIC2A = 85_072_278, LINUX_REBOOT_MAGIC2B = 369_367_448, LINUX_REBOOT_MAGIC2C = 537_993_216,
LINUX_REBOOT_CMD_RESTART = 0x0123_4567,
LINUX_REBOOT_CMD_HALT = 0xcdef_0123, LINUX_REBOOT_CMD_CAD_ON = 0x89ab_cdef, LINUX_REBOOT_CMD_CAD_OFF = 0,
LINUX_REBOOT_CMD_POWER_OFF = 0x4321_fedc,
LINUX_REBOOT_CMD_RESTART2 = 0xa1b2_c3d4 }
consts! { "syslog(2) commands.", i32; SYSLOG_ACTION_CLOSE = 0, SYSLOG_ACTION_OPEN = 1, SYSLOG_ACTION_READ = 2,
SYSLOG_ACTION_READ_ALL = 3,
SYSLOG_ACTION_READ_CLEAR = 4, SYSLOG_ACTION_CLEAR = 5, SYSLOG_ACTION_CONSOLE_OFF = 6, SYSLOG_ACTION_CONSOLE_ON = 7,
SYSLOG_ACTION_CONSOLE_LEVEL = 8, SYSLOG_ACTION_SIZE_UNREAD = 9, SYSLOG_ACTION_SIZE_BUFFER = 10 }

/// Bytes of each string in [`Utsname`] with its NUL.
pub const UTS_LEN: usize = 65;
guest_struct! {
    /// `struct new_utsname`, uname(2): NUL-terminated strings.
    Utsname: 390 { sysname: [u8; UTS_LEN], nodename: [u8; UTS_LEN], release: [u8; UTS_LEN], version: [u8; UTS_LEN],
        machine: [u8; UTS_LEN],
        domainname: [u8; UTS_LEN] }
}
guest_struct! {
    /// `struct sysinfo`, sysinfo(2); loads are fixed-point with 16 binary places.
    Sysinfo: 112 { uptime: i64, loads: [u64; 3], totalram: u64, freeram: u64, sharedram: u64, bufferram: u64,
        totalswap: u64, freeswap: u64,
        procs: u16, pad: u16, pad1: u32, totalhigh: u64, freehigh: u64, mem_unit: u32, pad2: u32 }
}
consts! { "getrandom(2) flags.", u32; GRND_NONBLOCK = 1, GRND_RANDOM = 2, GRND_INSECURE = 4 }
