//! What every process of a sandbox has to call: the lines that the filters of sentry and gofer share.
//!
//! [`BASE`] is for a process with threads that talks over a donated socket; [`DIRECT_TREE`] for one that reaches the host's
//! files by donated directories. What only one of them calls is listed there.

use moat_host::fanotify;
use moat_host::objects::CALLS_BY_PATH_DESCRIPTOR;

use super::{Rule, any, is, is_int, is_not, when, with, without};

const PROT_EXEC: u64 = libc::PROT_EXEC as u64;
/// AT_FDCWD as the 32 bits that the filter sees.
pub const AT_FDCWD: u64 = libc::AT_FDCWD as u32 as u64;

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

/// Memory, threads, locks, the end of the process, messages over sockets that it has.
pub const BASE: &[Rule<'static>] = &[
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
    // std::thread.
    when(libc::SYS_clone, &[is(0, THREAD_FLAGS)]),
    any(libc::SYS_set_robust_list),
    any(libc::SYS_rseq),
    any(libc::SYS_sigaltstack),
    any(libc::SYS_rt_sigprocmask),
    // The first pthread_create makes the handler of setuid(2) and its like, which concern all threads.
    any(libc::SYS_rt_sigaction),
    any(libc::SYS_rt_sigreturn),
    any(libc::SYS_restart_syscall),
    when(libc::SYS_prctl, &[is_int(0, libc::PR_SET_NAME)]),
    // Names of memory areas, by newer C libraries' malloc.
    when(libc::SYS_prctl, &[is_int(0, libc::PR_SET_VMA)]),
    any(libc::SYS_sched_getaffinity),
    any(libc::SYS_gettid),
    any(libc::SYS_getpid),
    // abort(), which ends the process; kicks of guest threads.
    any(libc::SYS_tgkill),
    any(libc::SYS_exit),
    any(libc::SYS_exit_group),
    // Locks.
    any(libc::SYS_futex),
    any(libc::SYS_sched_yield),
    // Locks again, where the vDSO has no clock; CPU clocks of guest threads.
    any(libc::SYS_clock_gettime),
    // Hash maps, malloc, random numbers for the guest.
    any(libc::SYS_getrandom),
    // Control connections and the gofer's channels. No socket is made or connected by these.
    any(libc::SYS_sendmsg),
    any(libc::SYS_recvmsg),
    // The panic log, descriptors that the process has.
    any(libc::SYS_write),
    any(libc::SYS_close),
    any(libc::SYS_fstat),
    // Of what is open: how a file system appends, and what O_DIRECT wants of it.
    any(libc::SYS_fstatfs),
    any(libc::SYS_getdents64),
    any(libc::SYS_ftruncate),
    // By descriptor, or below a directory that is open.
    when(libc::SYS_statx, &[is_not(0, AT_FDCWD)]),
    // OwnedFd::drop of debug builds looks whether the descriptor is open.
    when(libc::SYS_fcntl, &[is_int(1, libc::F_GETFD)]),
    when(libc::SYS_fcntl, &[is_int(1, libc::F_DUPFD_CLOEXEC)]),
    // Descriptors of files that are held, to pass them on.
    when(libc::SYS_fcntl, &[is_int(1, libc::F_GETFL)]),
];

/// What a socket that does not block has in its type.
const SOCKET_FLAGS: libc::c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

/// moat_fs_host's Sockets, with `--host-uds`: sockets that are connected or bound by [`HOST_CONNECTIONS`] and [`HOST_NAMES`].
pub const HOST_SOCKETS: &[Rule<'static>] = &[
    when(libc::SYS_socket, &[is_int(0, libc::AF_UNIX), is_int(1, libc::SOCK_STREAM | SOCKET_FLAGS), is_int(2, 0)]),
    when(libc::SYS_socket, &[is_int(0, libc::AF_UNIX), is_int(1, libc::SOCK_DGRAM | SOCKET_FLAGS), is_int(2, 0)]),
    when(libc::SYS_socket, &[is_int(0, libc::AF_UNIX), is_int(1, libc::SOCK_SEQPACKET | SOCKET_FLAGS), is_int(2, 0)]),
];

/// With `--host-uds=open`: a filter can't see where a connection leads.
pub const HOST_CONNECTIONS: &[Rule<'static>] = &[any(libc::SYS_connect)];

/// With `--host-uds=create`, of who makes the sockets; fchmod gives their nodes a mode.
pub const HOST_NAMES: &[Rule<'static>] = &[any(libc::SYS_bind)];

/// With `--host-uds=create`, of who has the sockets; accept4 and shutdown are allowed anyway.
pub const HOST_LISTENERS: &[Rule<'static>] = &[any(libc::SYS_listen)];

/// moat_fs_host's HostFifo, with `--host-fifo=open`: pipes that the process has open.
pub const HOST_FIFOS: &[Rule<'static>] = &[
    // Whether somebody has a FIFO open for writing.
    when(libc::SYS_tee, &[is_int(3, libc::SPLICE_F_NONBLOCK.cast_signed())]),
    when(libc::SYS_fcntl, &[is_int(1, libc::F_GETPIPE_SZ)]),
];

/// moat_host::fanotify, for inotify in trees that others change: events of files that are open, for who has no capability over the
/// host. Never of a mount or a file system, nor by a path.
pub const WATCHES: &[Rule<'static>] = &[
    when(libc::SYS_fanotify_init, &[is_int(0, fanotify::GROUP_FLAGS.cast_signed())]),
    when(libc::SYS_fanotify_mark, &[is_int(1, fanotify::MARK_FLAGS[0].cast_signed()), is(4, 0)]),
    when(libc::SYS_fanotify_mark, &[is_int(1, fanotify::MARK_FLAGS[1].cast_signed()), is(4, 0)]),
    // Handles that name files; nothing can be opened by one.
    when(libc::SYS_name_to_handle_at, &[is_not(0, AT_FDCWD), is_int(4, fanotify::HANDLE_FLAGS[0])]),
    when(libc::SYS_name_to_handle_at, &[is_not(0, AT_FDCWD), is_int(4, fanotify::HANDLE_FLAGS[1])]),
];

/// moat_fs_host's DirectTree: one component at a time from a donated directory, never through a symbolic link.
pub const DIRECT_TREE: &[Rule<'static>] = &[
    when(libc::SYS_openat, &[is_not(0, AT_FDCWD), with(2, libc::O_NOFOLLOW as u64)]),
    // "." of a directory that is held: to list it, to write it out, to make a file without a name in it.
    when(libc::SYS_openat, &[is_not(0, AT_FDCWD), with(2, libc::O_DIRECTORY as u64)]),
    when(libc::SYS_newfstatat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_readlinkat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_mkdirat, &[is_not(0, AT_FDCWD)]),
    // FIFOs, sockets and whiteouts; other device nodes need a capability that no process of a sandbox has.
    when(libc::SYS_mknodat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_symlinkat, &[is_not(1, AT_FDCWD)]),
    when(libc::SYS_linkat, &[is_not(0, AT_FDCWD), is_not(2, AT_FDCWD)]),
    when(libc::SYS_unlinkat, &[is_not(0, AT_FDCWD)]),
    when(libc::SYS_renameat2, &[is_not(0, AT_FDCWD), is_not(2, AT_FDCWD)]),
    any(libc::SYS_fchmod),
    // moat_host::objects: permission bits and extended attributes, by a path descriptor.
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
