//! The host calls of the sentry, by what makes them. To allow another one, add a line with its caller.

use std::os::fd::RawFd;

use moat_control::spec::{FileAccess, PlatformKind};
use moat_host::objects::{CALLS_BY_PATH_DESCRIPTOR, FS_IOC_FIEMAP, FS_IOC_GETFLAGS, FS_IOC_SETFLAGS};

use moat_jail::seccomp::{Arg, Rule, any, is, is_not, when, with, without};

/// Everything that a sentry with this platform and this way to the host's files may call, but for
/// [`open_below`].
pub(super) fn all<'a>(platform: PlatformKind, files: FileAccess) -> impl Iterator<Item = Rule<'a>> {
    let direct = match files {
        FileAccess::Direct => DIRECT_FILES,
        FileAccess::Gofer => &[],
    };
    let guest = match platform {
        PlatformKind::Systrap => SYSTRAP,
        PlatformKind::Ptrace => PTRACE,
    };
    [MEMORY, THREADS, EVENTS, FILES, direct, TERMINALS, SOCKETS, GUEST_PROCESSES, guest].into_iter().flatten().copied()
}

/// Conditions of openat(2) where only what is below one directory is opened: moat_host::procfs.
pub(super) fn open_below(directory: RawFd) -> [Arg; 2] {
    [is(0, u64::from(directory.unsigned_abs())), with(2, libc::O_NOFOLLOW as u64)]
}

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
/// AT_FDCWD as the 32 bits that the filter sees.
const AT_FDCWD: u64 = libc::AT_FDCWD as u32 as u64;

/// AT_EMPTY_PATH: the descriptor itself is meant.
const EMPTY_PATH: u64 = libc::AT_EMPTY_PATH as u64;

const SYS_SETXATTRAT: libc::c_long = CALLS_BY_PATH_DESCRIPTOR[1];
const SYS_GETXATTRAT: libc::c_long = CALLS_BY_PATH_DESCRIPTOR[2];
const SYS_LISTXATTRAT: libc::c_long = CALLS_BY_PATH_DESCRIPTOR[3];
const SYS_REMOVEXATTRAT: libc::c_long = CALLS_BY_PATH_DESCRIPTOR[4];

/// What the C library's pthread_create passes to clone, and nothing else.
const THREAD_FLAGS: u64 = (libc::CLONE_VM
    | libc::CLONE_FS
    | libc::CLONE_FILES
    | libc::CLONE_SIGHAND
    | libc::CLONE_THREAD
    | libc::CLONE_SYSVSEM
    | libc::CLONE_SETTLS
    | libc::CLONE_PARENT_SETTID
    | libc::CLONE_CHILD_CLEARTID) as u64;

const MEMORY: &[Rule<'static>] = &[
    // malloc, thread stacks, windows on memfds. Never executable.
    when(libc::SYS_mmap, &[without(2, PROT_EXEC)]),
    // malloc, guard pages of stacks.
    when(libc::SYS_mprotect, &[without(2, PROT_EXEC)]),
    any(libc::SYS_munmap),
    // realloc.
    any(libc::SYS_mremap),
    any(libc::SYS_brk),
    // malloc's trimming, stacks of ended threads.
    any(libc::SYS_madvise),
    // Memory of tmpfs files, shared memory and memfds of the guest.
    any(libc::SYS_memfd_create),
    any(libc::SYS_mincore),
];

const THREADS: &[Rule<'static>] = &[
    // std::thread: executors and their spares.
    when(libc::SYS_clone, &[is(0, THREAD_FLAGS)]),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_rseq),
    any(libc::SYS_sigaltstack),
    when(libc::SYS_prctl, &[is(0, libc::PR_SET_NAME as u64)]),
    // Names of memory areas, by newer C libraries' malloc.
    when(libc::SYS_prctl, &[is(0, libc::PR_SET_VMA as u64)]),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
    any(libc::SYS_gettid),
    any(libc::SYS_getpid),
    // Locks.
    any(libc::SYS_futex),
    // Executors: one for each CPU, pinned; give way to a guest thread on the same CPU.
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_sched_setaffinity),
    any(libc::SYS_sched_yield),
    any(libc::SYS_getcpu),
    any(libc::SYS_membarrier),
    any(libc::SYS_rt_sigprocmask),
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_restart_syscall),
    any(libc::SYS_nanosleep),
    any(libc::SYS_clock_nanosleep),
    // Clocks that the vDSO does not have: CPU clocks of guest threads.
    any(libc::SYS_clock_gettime),
    any(libc::SYS_clock_getres),
    // Random numbers for the guest and for hash maps.
    any(libc::SYS_getrandom),
    // Limits are read only, and only the sentry's own.
    when(libc::SYS_prlimit64, &[is(0, 0), is(2, 0)]),
    // Load and memory for the guest's sysinfo and /proc.
    any(libc::SYS_sysinfo),
    any(libc::SYS_getrusage),
    // Kicks of guest threads; ending the sandbox by abort().
    any(libc::SYS_tgkill),
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
    any(libc::SYS_timerfd_create),
    any(libc::SYS_timerfd_settime),
    // The platforms' child watchers.
    any(libc::SYS_signalfd4),
];

const FILES: &[Rule<'static>] = &[
    any(libc::SYS_read),
    any(libc::SYS_write),
    any(libc::SYS_readv),
    any(libc::SYS_writev),
    any(libc::SYS_pread64),
    any(libc::SYS_pwrite64),
    any(libc::SYS_preadv),
    any(libc::SYS_pwritev),
    any(libc::SYS_preadv2),
    any(libc::SYS_pwritev2),
    any(libc::SYS_lseek),
    any(libc::SYS_close),
    any(libc::SYS_dup),
    any(libc::SYS_dup3),
    // std::fs::File::read_to_end asks how much there is; HostFile, stdio.
    when(libc::SYS_statx, &[is_not(0, AT_FDCWD)]),
    any(libc::SYS_fstat),
    // moat_host::procfs::own_threads; DirectTree.
    any(libc::SYS_getdents64),
    any(libc::SYS_ftruncate),
    any(libc::SYS_fallocate),
    any(libc::SYS_fsync),
    any(libc::SYS_fdatasync),
    when(libc::SYS_fcntl, &[is(1, libc::F_DUPFD_CLOEXEC as u64)]),
    when(libc::SYS_fcntl, &[is(1, libc::F_GETFD as u64)]),
    when(libc::SYS_fcntl, &[is(1, libc::F_SETFD as u64)]),
    when(libc::SYS_fcntl, &[is(1, libc::F_GETFL as u64)]),
    // O_NONBLOCK and O_APPEND of donated descriptors.
    when(libc::SYS_fcntl, &[is(1, libc::F_SETFL as u64)]),
    // Seals of the guest's memfds.
    when(libc::SYS_fcntl, &[is(1, libc::F_ADD_SEALS as u64)]),
    when(libc::SYS_fcntl, &[is(1, libc::F_GET_SEALS as u64)]),
    // Bytes to read in donated pipes and sockets.
    when(libc::SYS_ioctl, &[is(1, libc::FIONREAD)]),
    // Flags and extents of open files of the host; the flags that need a capability, the host refuses.
    when(libc::SYS_ioctl, &[is(1, FS_IOC_GETFLAGS as u64)]),
    when(libc::SYS_ioctl, &[is(1, FS_IOC_SETFLAGS as u64)]),
    when(libc::SYS_ioctl, &[is(1, FS_IOC_FIEMAP as u64)]),
    // Locks of shared trees, taken on the host as well.
    when(libc::SYS_fcntl, &[is(1, libc::F_OFD_SETLK as u64)]),
    when(libc::SYS_fcntl, &[is(1, libc::F_OFD_GETLK as u64)]),
    any(libc::SYS_flock),
];

/// DirectTree: one component at a time from a donated directory, never through a symbolic link.
const DIRECT_FILES: &[Rule<'static>] = &[
    when(libc::SYS_openat, &[is_not(0, AT_FDCWD), with(2, libc::O_NOFOLLOW as u64)]),
    // "." of a directory that is held: to list it, to write it out, to make a file without a name in it.
    when(libc::SYS_openat, &[is_not(0, AT_FDCWD), with(2, libc::O_DIRECTORY as u64)]),
    when(libc::SYS_newfstatat, &[is_not(0, AT_FDCWD)]),
    any(libc::SYS_fstatfs),
    when(libc::SYS_readlinkat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_mkdirat, &[is_not(0, AT_FDCWD)]),
    // FIFOs, sockets and whiteouts; other device nodes need a capability that the sandbox does not have.
    when(libc::SYS_mknodat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_symlinkat, &[is_not(1, AT_FDCWD)]),
    when(libc::SYS_linkat, &[is_not(0, AT_FDCWD), is_not(2, AT_FDCWD)]),
    when(libc::SYS_unlinkat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_renameat2, &[is_not(0, AT_FDCWD), is_not(2, AT_FDCWD)]),
    any(libc::SYS_fchmod),
    // moat_host::objects: permission bits, and extended attributes of directories, by a path descriptor.
    when(libc::SYS_fchmodat2, &[is_not(0, AT_FDCWD), is(3, EMPTY_PATH)]),
    when(SYS_SETXATTRAT, &[is_not(0, AT_FDCWD), is(2, 0)]),
    when(SYS_GETXATTRAT, &[is_not(0, AT_FDCWD), is(2, 0)]),
    when(SYS_LISTXATTRAT, &[is_not(0, AT_FDCWD), is(2, 0)]),
    when(SYS_REMOVEXATTRAT, &[is_not(0, AT_FDCWD), is(2, 0)]),
    // Extended attributes of files that are held open.
    any(libc::SYS_fsetxattr),
    any(libc::SYS_fgetxattr),
    any(libc::SYS_flistxattr),
    any(libc::SYS_fremovexattr),
    any(libc::SYS_fchown),
    when(libc::SYS_fchownat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_utimensat, &[is_not(0, AT_FDCWD)]),
    // HostFs::sync.
    any(libc::SYS_syncfs),
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
    any(libc::SYS_sendmsg),
    any(libc::SYS_recvmsg),
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
