//! Processes: clone(2), wait(2), rusage, credentials' constants, rlimits, scheduling, prctl(2).
//!
//! Sources: `linux/{sched,wait,resource,prctl,capability}.h`, `arch/x86/include/uapi/asm/prctl.h`.

use crate::time::Timeval;

flag_set! {
    /// Flags of clone(2), clone3(2), unshare(2) and setns(2). The low byte of clone's argument is the exit signal
    /// ([`CSIGNAL`]).
    CloneFlags: u64, "CLONE_" {
        VM = 0x100, FS = 0x200, FILES = 0x400, SIGHAND = 0x800, PIDFD = 0x1000, PTRACE = 0x2000, VFORK = 0x4000,
        PARENT = 0x8000,
        THREAD = 0x1_0000, NEWNS = 0x2_0000, SYSVSEM = 0x4_0000, SETTLS = 0x8_0000, PARENT_SETTID = 0x10_0000,
        CHILD_CLEARTID = 0x20_0000,
        DETACHED = 0x40_0000, UNTRACED = 0x80_0000, CHILD_SETTID = 0x100_0000, NEWCGROUP = 0x200_0000,
        NEWUTS = 0x400_0000,
        NEWIPC = 0x800_0000, NEWUSER = 0x1000_0000, NEWPID = 0x2000_0000, NEWNET = 0x4000_0000, IO = 0x8000_0000,
        CLEAR_SIGHAND = 0x1_0000_0000, INTO_CGROUP = 0x2_0000_0000, NEWTIME = 0x80,
    }
}

impl CloneFlags {
    /// The flags that make namespaces, without NEWTIME (which clone(2) cannot say).
    pub const NAMESPACES: CloneFlags = Self::NEWNS
        .union(Self::NEWCGROUP)
        .union(Self::NEWUTS)
        .union(Self::NEWIPC)
        .union(Self::NEWUSER)
        .union(Self::NEWPID)
        .union(Self::NEWNET);
}

consts! { "The exit signal in clone(2)'s flags.", u64; CSIGNAL = 0xff }

guest_struct! {
    /// `struct clone_args`, clone3(2), version 2. Versions 0 and 1 end before `set_tid` and `cgroup`.
    CloneArgs: 88 {
        flags: u64, pidfd: u64, child_tid: u64, parent_tid: u64, exit_signal: u64, stack: u64, stack_size: u64,
        tls: u64,
        set_tid: u64, set_tid_size: u64, cgroup: u64,
    }
}
consts! { "Sizes of `struct clone_args`; smaller than the first is EINVAL.", usize; CLONE_ARGS_SIZE_VER0 = 64,
CLONE_ARGS_SIZE_VER1 = 80,
CLONE_ARGS_SIZE_VER2 = 88 }

flag_set! {
    /// Options of wait4(2) and waitid(2).
    WaitFlags: u32, "W" {
        NOHANG = 1, UNTRACED = 2, STOPPED = 2, EXITED = 4, CONTINUED = 8, NOWAIT = 0x0100_0000,
        NOTHREAD = 0x2000_0000, ALL = 0x4000_0000, CLONE = 0x8000_0000,
    }
}
consts! { "`idtype` of waitid(2).", u32; P_ALL = 0, P_PID = 1, P_PGID = 2, P_PIDFD = 3 }

/// The status word of wait4(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitStatus {
    /// Ended by exit with this status (its low eight bits).
    Exited(u8),
    /// Ended by a signal.
    Signaled {
        /// The signal.
        signal: u8,
        /// Whether a core was dumped.
        core: CoreDump,
    },
    /// Stopped by a signal, or a ptrace stop whose event is in bits 8 and up of the value.
    Stopped(u32),
    /// Continued.
    Continued,
}

/// Whether a death by signal dumped core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoreDump {
    /// `WCOREDUMP` is true.
    Dumped,
    /// It is false.
    NotDumped,
}

impl WaitStatus {
    /// The word that the guest reads.
    #[must_use]
    pub const fn to_raw(self) -> u32 {
        match self {
            WaitStatus::Exited(code) => (code as u32) << 8,
            WaitStatus::Signaled { signal, core: CoreDump::NotDumped } => signal as u32 & 0x7f,
            WaitStatus::Signaled { signal, core: CoreDump::Dumped } => (signal as u32 & 0x7f) | 0x80,
            WaitStatus::Stopped(code) => (code << 8) | 0x7f,
            WaitStatus::Continued => 0xffff,
        }
    }

    /// Decodes a word from the host.
    #[must_use]
    pub const fn from_raw(raw: u32) -> WaitStatus {
        if raw == 0xffff {
            WaitStatus::Continued
        } else if raw & 0xff == 0x7f {
            WaitStatus::Stopped(raw >> 8)
        } else if raw & 0x7f == 0 {
            WaitStatus::Exited((raw >> 8) as u8)
        } else {
            let core = if raw & 0x80 != 0 { CoreDump::Dumped } else { CoreDump::NotDumped };
            WaitStatus::Signaled { signal: (raw & 0x7f) as u8, core }
        }
    }
}

guest_struct! {
    /// `struct rusage`, getrusage(2).
    Rusage: 144 {
        ru_utime: Timeval, ru_stime: Timeval, ru_maxrss: i64, ru_ixrss: i64, ru_idrss: i64, ru_isrss: i64,
        ru_minflt: i64, ru_majflt: i64,
        ru_nswap: i64, ru_inblock: i64, ru_oublock: i64, ru_msgsnd: i64, ru_msgrcv: i64, ru_nsignals: i64,
        ru_nvcsw: i64, ru_nivcsw: i64,
    }
}
consts! { "`who` of getrusage(2).", i32; RUSAGE_SELF = 0, RUSAGE_CHILDREN = -1, RUSAGE_THREAD = 1 }
consts! { "`which` of getpriority(2).", i32; PRIO_PROCESS = 0, PRIO_PGRP = 1, PRIO_USER = 2 }
consts! { "kcmp(2) types.", u32; KCMP_FILE = 0, KCMP_VM = 1, KCMP_FILES = 2, KCMP_FS = 3, KCMP_SIGHAND = 4,
KCMP_IO = 5, KCMP_SYSVSEM = 6,
KCMP_EPOLL_TFD = 7 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_status_round_trips() {
        for status in [
            WaitStatus::Exited(0),
            WaitStatus::Exited(255),
            WaitStatus::Signaled { signal: 9, core: CoreDump::NotDumped },
            WaitStatus::Signaled { signal: 11, core: CoreDump::Dumped },
            WaitStatus::Stopped(19),
            WaitStatus::Stopped(5 | 4 << 8),
            WaitStatus::Continued,
        ] {
            assert_eq!(WaitStatus::from_raw(status.to_raw()), status);
        }
        assert_eq!(WaitStatus::Stopped(19).to_raw(), 0x137f);
    }
}
