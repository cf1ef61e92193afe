//! The host calls of the sentry besides those of every process of a sandbox ([`BASE`]), by what makes them. To allow
//! another one, add a line with its caller.

use std::os::fd::RawFd;

use moat_control::spec::{FileAccess, PlatformKind};

use moat_host::userfault::REQUESTS as WATCHES_OF_MEMORY;

use moat_host::objects::{FS_IOC_FIEMAP, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS};

use moat_jail::seccomp::{Arg, BASE, DIRECT_TREE, Rule, WATCHES, any, is, is_int, when, with};

/// Everything that a sentry with this platform and this way to the host's files may call, but for
/// [`open_below`].
pub(super) fn all<'a>(platform: PlatformKind, files: FileAccess) -> impl Iterator<Item = Rule<'a>> {
    let direct = match files {
        FileAccess::Direct => DIRECT_TREE,
        FileAccess::Gofer => &[],
    };
    let outside = match files {
        FileAccess::Direct => WATCHES,
        FileAccess::Gofer => &[],
    };
    let guest = match platform {
        PlatformKind::Systrap => SYSTRAP,
        PlatformKind::Ptrace => PTRACE,
    };
    [BASE, MEMORY, THREADS, EVENTS, FILES, direct, outside, TERMINALS, SOCKETS, GUEST_PROCESSES, guest]
        .into_iter()
        .flatten()
        .copied()
}

/// Conditions of openat(2) where only what is below one directory is opened: moat_host::procfs.
pub(super) fn open_below(directory: RawFd) -> [Arg; 2] {
    [is(0, u64::from(directory.unsigned_abs())), with(2, libc::O_NOFOLLOW as u64)]
}

const MEMORY: &[Rule<'static>] = &[
    // Memory of tmpfs files, shared memory and memfds of the guest.
    any(libc::SYS_memfd_create),
];

const THREADS: &[Rule<'static>] = &[
    // Executors: one for each CPU, pinned.
    any(libc::SYS_sched_setaffinity),
    any(libc::SYS_getcpu),
    // Which there are; of all CPUs; of those that run a guest.
    when(libc::SYS_membarrier, &[is_int(0, libc::MEMBARRIER_CMD_QUERY)]),
    when(libc::SYS_membarrier, &[is_int(0, libc::MEMBARRIER_CMD_GLOBAL)]),
    when(libc::SYS_membarrier, &[is_int(0, libc::MEMBARRIER_CMD_GLOBAL_EXPEDITED)]),
    any(libc::SYS_nanosleep),
    any(libc::SYS_clock_nanosleep),
    any(libc::SYS_clock_getres),
    // Limits are read only, and only the sentry's own.
    when(libc::SYS_prlimit64, &[is(0, 0), is(2, 0)]),
    // The timer of CPU profiles, whose signals come to this process alone.
    when(libc::SYS_setitimer, &[is_int(0, libc::ITIMER_PROF)]),
    // Load and memory for the guest's sysinfo and /proc.
    any(libc::SYS_sysinfo),
    any(libc::SYS_getrusage),
];

const EVENTS: &[Rule<'static>] = &[
    // The executor's reactor, donated descriptors.
    any(libc::SYS_poll),
    any(libc::SYS_ppoll),
    any(libc::SYS_epoll_create1),
    any(libc::SYS_epoll_ctl),
    any(libc::SYS_epoll_wait),
    any(libc::SYS_epoll_pwait),
    any(libc::SYS_epoll_pwait2),
    any(libc::SYS_eventfd2),
    any(libc::SYS_pipe2),
    // When systrap is to count the guest processes. The timer is made before the filter is in force.
    any(libc::SYS_timerfd_settime),
    // The platforms' child watchers.
    any(libc::SYS_signalfd4),
];

const FILES: &[Rule<'static>] = &[
    any(libc::SYS_read),
    any(libc::SYS_writev),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    any(libc::SYS_preadv2),
    any(libc::SYS_pwritev2),
    any(libc::SYS_lseek),
    any(libc::SYS_dup3),
    any(libc::SYS_fallocate),
    any(libc::SYS_fsync),
    any(libc::SYS_fdatasync),
    when(libc::SYS_fcntl, &[is_int(1, libc::F_SETFD)]),
    // O_NONBLOCK and O_APPEND of donated descriptors.
    when(libc::SYS_fcntl, &[is_int(1, libc::F_SETFL)]),
    // Seals of the guest's memfds.
    when(libc::SYS_fcntl, &[is_int(1, libc::F_ADD_SEALS)]),
    when(libc::SYS_fcntl, &[is_int(1, libc::F_GET_SEALS)]),
    // Bytes to read in donated pipes and sockets.
    when(libc::SYS_ioctl, &[is(1, libc::FIONREAD)]),
    // Flags and extents of open files of the host; the flags that need a capability, the host refuses.
    when(libc::SYS_ioctl, &[is(1, FS_IOC_GETFLAGS)]),
    when(libc::SYS_ioctl, &[is(1, FS_IOC_SETFLAGS)]),
    when(libc::SYS_ioctl, &[is(1, FS_IOC_FIEMAP)]),
    // Locks of shared trees, taken on the host as well.
    when(libc::SYS_fcntl, &[is_int(1, libc::F_OFD_SETLK)]),
    when(libc::SYS_fcntl, &[is_int(1, libc::F_OFD_GETLK)]),
    any(libc::SYS_flock),
];

/// Donated terminals: moat_host::tty.
const TERMINALS: &[Rule<'static>] = &[
    when(libc::SYS_ioctl, &[is(1, libc::TCGETS)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCSETS)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCSETSW)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCSETSF)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCGETS2)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCSETS2)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCSETSW2)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCSETSF2)]),
    when(libc::SYS_ioctl, &[is(1, libc::TIOCGWINSZ)]),
    when(libc::SYS_ioctl, &[is(1, libc::TIOCSWINSZ)]),
    when(libc::SYS_ioctl, &[is(1, libc::TIOCOUTQ)]),
    when(libc::SYS_ioctl, &[is(1, libc::TIOCPKT)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCFLSH)]),
    when(libc::SYS_ioctl, &[is(1, libc::TCXONC)]),
];

/// Control connections, and donated stdio that is a socket. None can be made or connected.
const SOCKETS: &[Rule<'static>] = &[
    any(libc::SYS_sendto),
    any(libc::SYS_recvfrom),
    any(libc::SYS_accept4),
    // Whom the control socket was accepted from.
    when(libc::SYS_getsockopt, &[is(1, libc::SOL_SOCKET as u64), is(2, libc::SO_PEERCRED as u64)]),
    any(libc::SYS_shutdown),
];

/// Guest processes, the only ones in the sandbox's pid namespace besides itself: signals go no further.
const GUEST_PROCESSES: &[Rule<'static>] = &[
    // AddressSpace::read and write.
    any(libc::SYS_process_vm_readv),
    any(libc::SYS_process_vm_writev),
    // Killing and reaping.
    any(libc::SYS_kill),
    any(libc::SYS_pidfd_open),
    any(libc::SYS_pidfd_send_signal),
    any(libc::SYS_waitid),
    any(libc::SYS_wait4),
    // moat_host::userfault: takes the descriptor that a guest process was told to make, and watches its memory while it is saved.
    any(libc::SYS_pidfd_getfd),
    when(libc::SYS_ioctl, &[is(1, WATCHES_OF_MEMORY[0])]),
    when(libc::SYS_ioctl, &[is(1, WATCHES_OF_MEMORY[1])]),
    when(libc::SYS_ioctl, &[is(1, WATCHES_OF_MEMORY[2])]),
    when(libc::SYS_ioctl, &[is(1, WATCHES_OF_MEMORY[3])]),
    when(libc::SYS_ioctl, &[is(1, WATCHES_OF_MEMORY[4])]),
];

const SYSTRAP: &[Rule<'static>] = &[
    // Notifications of guest processes: receive, answer, check, install a descriptor.
    when(libc::SYS_ioctl, &[is(1, SECCOMP_IOCTL_NOTIF_RECV)]),
    when(libc::SYS_ioctl, &[is(1, SECCOMP_IOCTL_NOTIF_SEND)]),
    when(libc::SYS_ioctl, &[is(1, SECCOMP_IOCTL_NOTIF_ID_VALID)]),
    when(libc::SYS_ioctl, &[is(1, SECCOMP_IOCTL_NOTIF_ADDFD)]),
    when(libc::SYS_ioctl, &[is(1, SECCOMP_IOCTL_NOTIF_SET_FLAGS)]),
];

const PTRACE: &[Rule<'static>] = &[
    // moat_host::ptrace. Only descendants can be traced, and the pid namespace holds nothing else. Not PTRACE_TRACEME, whose
    // tracer would be the creator of the sandbox: it could then not end.
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_SEIZE as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_INTERRUPT as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_CONT as u64)]),
    when(libc::SYS_ptrace, &[is(0, PTRACE_SYSEMU)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_GETREGS as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_SETREGS as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_GETREGSET as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_SETREGSET as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_GETSIGINFO as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_GET_SYSCALL_INFO as u64)]),
    when(libc::SYS_ptrace, &[is(0, PTRACE_GET_RSEQ_CONFIGURATION)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_POKEDATA as u64)]),
    when(libc::SYS_ptrace, &[is(0, libc::PTRACE_PEEKDATA as u64)]),
    // The tracer sleeps till a child stops or a command comes.
    any(libc::SYS_rt_sigtimedwait),
    // Passes the descriptor of a mapping to a guest process. A datagram socket could send to others by their names.
    when(
        libc::SYS_socketpair,
        &[is(0, libc::AF_UNIX as u64), is(1, (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as u64)],
    ),
];

// linux/ptrace.h; libc lacks them.
const PTRACE_SYSEMU: u64 = 31;
const PTRACE_GET_RSEQ_CONFIGURATION: u64 = 0x420f;

// linux/seccomp.h; libc lacks some of them.
const SECCOMP_IOCTL_NOTIF_RECV: u64 = 0xc050_2100;
const SECCOMP_IOCTL_NOTIF_SEND: u64 = 0xc018_2101;
const SECCOMP_IOCTL_NOTIF_ID_VALID: u64 = 0x4008_2102;
const SECCOMP_IOCTL_NOTIF_ADDFD: u64 = 0x4018_2103;
const SECCOMP_IOCTL_NOTIF_SET_FLAGS: u64 = 0x4008_2104;
