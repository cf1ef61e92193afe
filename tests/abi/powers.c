// What a process may do to others and to the system: ids, capabilities, tracing, signals, scheduling, limits, sessions, IPC, sockets, each
// as somebody who may and somebody who may not.
#include "check.h"
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>
#include <mqueue.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/fsuid.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/timex.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/xattr.h>

#define AS_NOBODY(...) EXITED(wait_for(CHILD(become_nobody(); __VA_ARGS__)), 0)

// A child of these ids that sleeps, in a session of its own or in this one.
static pid_t sleeper(int id, int own_session) {
    int ready[2];
    char byte;
    OK(pipe(ready));
    pid_t pid = CHILD({
        if (own_session)
            OK(setsid());
        if (id == 65534)
            become_nobody();
        else if (id)
            OK(setresgid(id, id, id) | setresuid(id, id, id) | prctl(PR_SET_DUMPABLE, 1));
        CHECK_EQ(write(ready[1], "x", 1), 1);
        for (;;)
            pause();
    });
    CHECK_EQ(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void end(pid_t pid) {
    OK(kill(pid, SIGKILL));
    KILLED(wait_for(pid), SIGKILL);
}

TEST(users_take_their_own_ids_only) {
    EXITED(wait_for(CHILD({
               OK(setresuid(1, 2, 3));
               ERR(setreuid(3, -1), EPERM);
               ERR(setreuid(9, -1), EPERM);
               ERR(setreuid(-1, 9), EPERM);
               ERR(setresuid(9, -1, -1), EPERM);
               ERR(setresuid(-1, -1, 9), EPERM);
               ERR(setuid(9), EPERM);
               ERR(setuid(2), EPERM); // the effective id is neither
               CHECK_EQ(setfsuid(9), 2);
               CHECK_EQ(setfsuid(-1), 2);
               OK(setuid(3));
               OK(setreuid(3, -1));
           })),
           0);
    EXITED(wait_for(CHILD({
               OK(setresgid(1, 2, 3));
               OK(setresuid(5, 5, 5));
               ERR(setregid(3, -1), EPERM);
               ERR(setregid(9, -1), EPERM);
               ERR(setregid(-1, 9), EPERM);
               ERR(setresgid(9, -1, -1), EPERM);
               ERR(setresgid(-1, -1, 9), EPERM);
               ERR(setgid(9), EPERM);
               ERR(setgid(2), EPERM);
               CHECK_EQ(setfsgid(9), 2);
               CHECK_EQ(setfsgid(-1), 2);
               OK(setregid(-1, 3));
               OK(setresgid(3, 1, -1));
               OK(setgid(3));
           })),
           0);
}

TEST(capabilities_of_others_and_of_nobody) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, getppid()};
    struct __user_cap_data_struct data[2] = {{0}};
    ERR(syscall(SYS_capset, &header, data), EPERM);
    AS_NOBODY({
        ERR(prctl(PR_CAPBSET_DROP, CAP_CHOWN), EPERM);
        ERR(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT), EPERM);
        ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), EPERM);
        header.pid = 0;
        data[0].inheritable = 1 << CAP_CHOWN;
        ERR(syscall(SYS_capset, &header, data), EPERM);
    });
    EXITED(wait_for(CHILD({
               OK(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED));
               ERR(prctl(PR_SET_SECUREBITS, 0), EPERM);
               ERR(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED | SECBIT_NOROOT), EPERM);
               ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), EPERM); // not inheritable
           })),
           0);
}

TEST(a_program_s_capabilities_need_the_bounding_set) {
    // Revision 2, effective; permitted.
    const unsigned char caps[20] = {1, 0, 0, 2, 1 << CAP_KILL};
    char self[256], text[4096];
    ssize_t n = OK(readlink("/proc/self/exe", self, sizeof self - 1));
    self[n] = 0;
    // A mount that honours them.
    OK(unshare(CLONE_NEWNS));
    OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
    OK(mkdir("m", 0755));
    OK(mount("x", "m", "tmpfs", 0, NULL));
    OK(chdir("m"));
    int from = OK(open(self, O_RDONLY)), to = OK(open("program", O_CREAT | O_WRONLY, 0755));
    while ((n = OK(read(from, text, sizeof text))) > 0)
        CHECK_EQ(write(to, text, n), n);
    close(to);
    OK(chmod("program", 0755));
    OK(chmod(".", 0755));
    OK(setxattr("program", "security.capability", caps, 20, 0));
    EXITED(wait_for(CHILD(become_nobody(); execl("program", "program", "--list", NULL); _exit(9))), 0);
    EXITED(wait_for(CHILD({
               OK(prctl(PR_CAPBSET_DROP, CAP_KILL));
               become_nobody();
               execl("program", "program", "--list", NULL);
               _exit(errno);
           })),
           EPERM);
    EXITED(wait_for(CHILD({
               OK(prctl(PR_CAPBSET_DROP, CAP_KILL)); // and root
               execl("program", "program", "--list", NULL);
               _exit(errno);
           })),
           EPERM);
    EXITED(wait_for(CHILD(become_nobody(); prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
                          execl("program", "program", "--list", NULL); _exit(errno))),
           0);
}

TEST(tracing_needs_power_over_the_process) {
    pid_t root = sleeper(0, 0), other = sleeper(65534, 0), user = sleeper(4321, 0);
    char byte;
    struct iovec local = {&byte, 1}, remote = {&byte, 1};
    ERR(ptrace(PTRACE_ATTACH, getpid(), 0, 0), EPERM);
    ERR(ptrace(PTRACE_ATTACH, 1 << 22, 0, 0), ESRCH);
    AS_NOBODY({
        ERR(ptrace(PTRACE_ATTACH, root, 0, 0), EPERM);
        ERR(ptrace(PTRACE_SEIZE, root, 0, 0), EPERM);
        ERR(process_vm_readv(root, &local, 1, &remote, 1, 0), EPERM);
        ERR(process_vm_writev(root, &local, 1, &remote, 1, 0), EPERM);
        ERR(ptrace(PTRACE_CONT, root, 0, 0), ESRCH);
        ERR(ptrace(PTRACE_ATTACH, user, 0, 0), EPERM);
        ERR(process_vm_readv(user, &local, 1, &remote, 1, 0), EPERM);
        // One's own child, which may not be looked into any more.
        OK(prctl(PR_SET_DUMPABLE, 1));
        pid_t child = CHILD(OK(prctl(PR_SET_DUMPABLE, 0)); for (;;) pause(););
        sleep_ms(100);
        ERR(ptrace(PTRACE_ATTACH, child, 0, 0), EPERM);
        ERR(process_vm_readv(child, &local, 1, &remote, 1, 0), EPERM);
        OK(kill(child, SIGKILL));
        wait_for(child);
        child = CHILD(for (;;) pause(););
        OK(ptrace(PTRACE_ATTACH, child, 0, 0));
        CHECK_EQ(waitpid(child, NULL, __WALL), child);
        ERR(ptrace(PTRACE_ATTACH, child, 0, 0), EPERM);
        ERR(ptrace(PTRACE_SEIZE, child, 0, 0), EPERM);
        OK(ptrace(PTRACE_CONT, child, 0, 0));
        ERR(ptrace(PTRACE_CONT, child, 0, 0), ESRCH); // it runs
        OK(kill(child, SIGKILL));
        wait_for(child);
        OK(ptrace(PTRACE_TRACEME, 0, 0, 0));
        ERR(ptrace(PTRACE_TRACEME, 0, 0, 0), EPERM);
    });
    ERR(ptrace(PTRACE_CONT, other, 0, 0), ESRCH);
    OK(ptrace(PTRACE_ATTACH, other, 0, 0));
    CHECK_EQ(waitpid(other, NULL, __WALL), other);
    // Who has it is not who asks.
    EXITED(wait_for(CHILD(ERR(ptrace(PTRACE_CONT, other, 0, 0), ESRCH); ERR(ptrace(PTRACE_ATTACH, other, 0, 0), EPERM))), 0);
    end(other);
    end(user);
    end(root);
}

static void nothing_of(pid_t pid) {
    const char *files[] = {"mem", "environ", "maps", "smaps", "auxv", "io", "fd/0", "clear_refs", "pagemap"};
    const char *links[] = {"exe", "cwd", "root", "fd/0", "ns/net", "ns/user"};
    char path[64], target[64];
    for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, files[i]);
        int fd = open(path, i == 7 ? O_WRONLY : O_RDONLY);
        int why = errno;
        if (fd >= 0 && read(fd, target, 1) < 0) // some are checked when they are read
            why = errno, close(fd), fd = -1;
        if (fd >= 0 || (why != EACCES && why != EPERM && why != ENOENT))
            FAIL("%s: descriptor %d, errno %d", path, fd, why);
    }
    for (unsigned i = 0; i < sizeof links / sizeof *links; i++) {
        snprintf(path, sizeof path, "/proc/%d/%s", pid, links[i]);
        ERR(readlink(path, target, sizeof target), EACCES);
    }
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    CHECK(opendir(path) == NULL);
    CHECK_EQ(errno, EACCES);
    snprintf(path, sizeof path, "/proc/%d/cwd/.", pid);
    ERR(open(path, O_RDONLY), EACCES);
}

TEST(what_proc_shows_of_others) {
    pid_t root = sleeper(0, 0), user = sleeper(4321, 0);
    AS_NOBODY(nothing_of(root); nothing_of(user));
    AS_NOBODY({
        int ready[2];
        char byte;
        OK(pipe(ready));
        OK(prctl(PR_SET_DUMPABLE, 1));
        pid_t child = CHILD(OK(prctl(PR_SET_DUMPABLE, 0)); CHECK_EQ(write(ready[1], "x", 1), 1); for (;;) pause(););
        CHECK_EQ(read(ready[0], &byte, 1), 1);
        nothing_of(child);
        OK(kill(child, SIGKILL));
        wait_for(child);
    });
    end(user);
    end(root);
}

static int queue_to(pid_t pid, pid_t tid, int code) {
    siginfo_t info = {.si_signo = SIGUSR1, .si_code = code};
    return tid ? syscall(SYS_rt_tgsigqueueinfo, pid, tid, SIGUSR1, &info) : syscall(SYS_rt_sigqueueinfo, pid, SIGUSR1, &info);
}

TEST(signals_need_the_same_user) {
    pid_t root = sleeper(0, 0), apart = sleeper(0, 1), other = sleeper(65534, 0);
    AS_NOBODY({
        int pidfd = OK(syscall(SYS_pidfd_open, root, 0));
        ERR(kill(root, SIGTERM), EPERM);
        ERR(kill(root, 0), EPERM);
        ERR(syscall(SYS_tgkill, root, root, SIGTERM), EPERM);
        ERR(syscall(SYS_tkill, root, SIGTERM), EPERM);
        ERR(syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0), EPERM);
        ERR(queue_to(root, 0, SI_QUEUE), EPERM);
        ERR(queue_to(root, root, SI_QUEUE), EPERM);
        OK(kill(root, SIGCONT)); // of the same session
        ERR(kill(apart, SIGCONT), EPERM);
        ERR(kill(-apart, SIGTERM), EPERM);
        OK(kill(other, 0));
        ERR(queue_to(other, 0, SI_USER), EPERM); // as if kill had sent it
        ERR(queue_to(other, other, SI_TKILL), EPERM);
        ERR(queue_to(other, other, 1), EPERM);
        ERR(syscall(SYS_tgkill, root, other, SIGTERM), ESRCH);
    });
    ERR(queue_to(root, 0, SI_USER), EPERM); // whoever one is
    end(root);
    end(apart);
    end(other);
}

TEST(scheduling_of_others) {
    pid_t root = sleeper(0, 0), other = sleeper(65534, 0);
    cpu_set_t cpus;
    struct sched_param zero = {0}, one = {1};
    OK(sched_getaffinity(0, sizeof cpus, &cpus));
    AS_NOBODY({
        ERR(sched_setaffinity(root, sizeof cpus, &cpus), EPERM);
        OK(sched_setaffinity(other, sizeof cpus, &cpus));
        ERR(sched_setscheduler(root, SCHED_BATCH, &zero), EPERM);
        ERR(sched_setparam(root, &zero), EPERM);
        OK(sched_setscheduler(other, SCHED_BATCH, &zero));
        ERR(setpriority(PRIO_PROCESS, root, 10), EPERM);
        OK(setpriority(PRIO_PROCESS, other, 10));
        ERR(setpriority(PRIO_PROCESS, other, 5), EACCES);
        ERR(syscall(SYS_ioprio_set, 1, root, 2 << 13 | 4), EPERM);
        OK(syscall(SYS_ioprio_set, 1, other, 2 << 13 | 4));
        ERR(syscall(SYS_ioprio_set, 1, 0, 1 << 13 | 4), EPERM); // the real-time class
        ERR(syscall(SYS_ioprio_set, 1, 1 << 22, 2 << 13 | 4), ESRCH);
        struct rlimit none = {0, 0};
        OK(setrlimit(RLIMIT_RTPRIO, &none));
        ERR(sched_setscheduler(0, SCHED_FIFO, &one), EPERM);
        OK(sched_setscheduler(0, SCHED_OTHER | 0x40000000, &zero));
        ERR(sched_setscheduler(0, SCHED_OTHER, &zero), EPERM); // what was forgone is not taken back
        unsigned attributes[12] = {48, 0, 0, 0, -5};
        attributes[2] = 1; // SCHED_FLAG_RESET_ON_FORK
        ERR(syscall(SYS_sched_setattr, 0, attributes, 0), EPERM);
    });
    end(root);
    end(other);
}

TEST(limits_of_others) {
    pid_t root = sleeper(0, 0), other = sleeper(65534, 0);
    struct rlimit limit = {10, 10};
    AS_NOBODY({
        ERR(prlimit(root, RLIMIT_NOFILE, NULL, &limit), EPERM);
        ERR(prlimit(root, RLIMIT_NOFILE, &limit, NULL), EPERM);
        OK(prlimit(other, RLIMIT_NOFILE, &limit, NULL));
        limit.rlim_max = 11;
        ERR(prlimit(other, RLIMIT_NOFILE, &limit, NULL), EPERM);
    });
    unsigned long most = 0;
    FILE *f = fopen("/proc/sys/fs/nr_open", "r");
    CHECK(f && fscanf(f, "%lu", &most) == 1);
    limit.rlim_max = most + 1;
    ERR(setrlimit(RLIMIT_NOFILE, &limit), EPERM); // not even root
    end(root);
    end(other);
}

TEST(groups_and_sessions_of_others) {
    int ends[2];
    pid_t grandchild = 0;
    OK(pipe(ends));
    pid_t child = CHILD({
        pid_t pid = CHILD(for (;;) pause(););
        CHECK_EQ(write(ends[1], &pid, sizeof pid), sizeof pid);
        wait_for(pid);
    });
    CHECK_EQ(read(ends[0], &grandchild, sizeof grandchild), sizeof grandchild);
    ERR(setpgid(grandchild, 0), ESRCH); // not a child of one's own
    OK(setpgid(child, 0));
    pid_t apart = sleeper(0, 1);
    ERR(setpgid(apart, 0), EPERM);      // it leads a session
    ERR(setpgid(child, apart), EPERM);  // a group of another session
    ERR(setpgid(child, 1 << 22), EPERM);
    EXITED(wait_for(CHILD(OK(setsid()); ERR(setsid(), EPERM); ERR(setpgid(0, 0), EPERM))), 0);
    OK(kill(grandchild, SIGKILL));
    EXITED(wait_for(child), 0);
    end(apart);
}

TEST(system_v_objects_of_others) {
    int shm = OK(shmget(IPC_PRIVATE, 4096, 0600)), msg = OK(msgget(IPC_PRIVATE, 0600)), sem = OK(semget(IPC_PRIVATE, 1, 0600));
    int shared = OK(shmget(IPC_PRIVATE, 4096, 0666));
    struct shmid_ds shm_state;
    struct msqid_ds msg_state;
    struct semid_ds sem_state;
    OK(shmctl(shared, IPC_STAT, &shm_state));
    OK(msgctl(msg, IPC_STAT, &msg_state));
    OK(semctl(sem, 0, IPC_STAT, &sem_state));
    struct sembuf up = {0, 1, 0};
    struct {
        long type;
        char text[1];
    } m = {1, "x"};
    AS_NOBODY({
        CHECK(shmat(shm, NULL, 0) == (void *)-1);
        CHECK_EQ(errno, EACCES);
        CHECK(shmat(shared, NULL, 0) != (void *)-1);
        ERR(shmctl(shared, IPC_RMID, NULL), EPERM);
        ERR(shmctl(shared, IPC_SET, &shm_state), EPERM);
        ERR(shmctl(shared, SHM_LOCK, NULL), EPERM);
        ERR(shmctl(shm, IPC_STAT, &shm_state), EACCES);
        ERR(msgctl(msg, IPC_RMID, NULL), EPERM);
        ERR(msgctl(msg, IPC_SET, &msg_state), EPERM);
        ERR(msgsnd(msg, &m, 1, 0), EACCES);
        ERR(msgrcv(msg, &m, 1, 0, IPC_NOWAIT), EACCES);
        ERR(semctl(sem, 0, IPC_RMID), EPERM);
        ERR(semctl(sem, 0, IPC_SET, &sem_state), EPERM);
        ERR(semctl(sem, 0, SETVAL, 1), EACCES);
        ERR(semop(sem, &up, 1), EACCES);
        int own = OK(msgget(IPC_PRIVATE, 0600));
        OK(msgctl(own, IPC_STAT, &msg_state));
        msg_state.msg_qbytes = 1 << 24;
        ERR(msgctl(own, IPC_SET, &msg_state), EPERM); // more than msgmnb takes a capability
        OK(msgctl(own, IPC_RMID, NULL));
        struct rlimit none = {0, 0};
        int mine = OK(shmget(IPC_PRIVATE, 4096, 0600));
        OK(setrlimit(RLIMIT_MEMLOCK, &none));
        ERR(shmctl(mine, SHM_LOCK, NULL), EPERM);
        OK(shmctl(mine, IPC_RMID, NULL));
    });
    OK(shmctl(shm, IPC_RMID, NULL));
    OK(shmctl(shared, IPC_RMID, NULL));
    OK(msgctl(msg, IPC_RMID, NULL));
    OK(semctl(sem, 0, IPC_RMID));
}

TEST(message_queues_of_others) {
    char name[32];
    snprintf(name, sizeof name, "/powers%d", getpid());
    mqd_t queue = OK(mq_open(name, O_CREAT | O_RDWR, 0600, NULL));
    AS_NOBODY(ERR(mq_open(name, O_RDONLY), EACCES); ERR(mq_open(name, O_WRONLY), EACCES); ERR(mq_unlink(name), EACCES));
    mqd_t writer = OK(mq_open(name, O_WRONLY)), reader = OK(mq_open(name, O_RDONLY));
    char text[8192];
    ERR(mq_receive(writer, text, sizeof text, NULL), EBADF);
    ERR(mq_send(reader, "x", 1, 0), EBADF);
    OK(mq_unlink(name));
    close(queue);
}

TEST(filters_of_system_calls) {
    struct sock_filter allow = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW};
    struct sock_fprog program = {1, &allow};
    AS_NOBODY({
        ERR(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program), EACCES);
        ERR(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program), EACCES);
        OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
        OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program));
    });
}

TEST(a_chosen_pid) {
    pid_t wanted = 31000;
    unsigned long arguments[11] = {0};
    arguments[4] = SIGCHLD;
    arguments[8] = (unsigned long)&wanted;
    arguments[9] = 1;
    AS_NOBODY(ERR(syscall(SYS_clone3, arguments, sizeof arguments), EPERM));
}

TEST(the_system_s_clock_and_names) {
    struct timex change = {.modes = ADJ_OFFSET};
    struct timespec now;
    OK(clock_gettime(CLOCK_REALTIME, &now));
    AS_NOBODY({
        ERR(adjtimex(&change), EPERM);
        ERR(clock_settime(CLOCK_REALTIME, &now), EPERM);
        ERR(sethostname("x", 1), EPERM);
        ERR(setdomainname("x", 1), EPERM);
        ERR(chroot("/"), EPERM);
        ERR(syscall(SYS_syslog, 4, &now, 8), EPERM);
        ERR(open("/proc/sys/kernel/hostname", O_WRONLY), EACCES);
        ERR(open("/proc/sys/net/ipv4/ip_forward", O_WRONLY), EACCES);
        OK(prctl(PR_SET_DUMPABLE, 1)); // its files in /proc are its own again
        int fd = OK(open("/proc/self/oom_score_adj", O_RDWR));
        CHECK_EQ(write(fd, "5", 1), 1);
        ERR(write(fd, "-1", 2), EACCES);
    });
}

TEST(timers_are_counted) {
    struct rlimit none = {0, 0};
    timer_t timer;
    OK(setrlimit(RLIMIT_SIGPENDING, &none));
    ERR(timer_create(CLOCK_MONOTONIC, NULL, &timer), EAGAIN);
}

TEST(pipes_are_bounded_for_users) {
    int ends[2];
    OK(pipe(ends));
    AS_NOBODY({
        ERR(fcntl(ends[0], F_SETPIPE_SZ, 1 << 21), EPERM);
        OK(fcntl(ends[0], F_SETPIPE_SZ, 1 << 16));
    });
}

TEST(descriptors_under_way_are_counted) {
    struct rlimit limit = {20, 20};
    EXITED(wait_for(CHILD({
               OK(setrlimit(RLIMIT_NOFILE, &limit));
               // An id that nobody else has: they are counted by user.
               OK(syscall(SYS_setgroups, 0, NULL));
               OK(setresgid(4321, 4321, 4321));
               OK(setresuid(4321, 4321, 4321));
               int pair[2], sent = 0;
               OK(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, pair));
               union {
                   char space[CMSG_SPACE(10 * sizeof(int))];
                   struct cmsghdr header;
               } control = {.header = {CMSG_LEN(10 * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
               for (int i = 0; i < 10; i++)
                   ((int *)CMSG_DATA(&control.header))[i] = pair[0];
               struct iovec data = {"x", 1};
               struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
               while (sendmsg(pair[0], &message, 0) == 1)
                   CHECK(++sent < 10);
               CHECK_EQ(errno, ETOOMANYREFS);
               CHECK(sent >= 2);
           })),
           0);
}

TEST(sockets_that_take_a_capability) {
    int one = 1;
    AS_NOBODY({
        ERR(socket(AF_PACKET, SOCK_RAW, 0), EPERM);
        ERR(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP), EPERM);
        ERR(socket(AF_INET6, SOCK_RAW, IPPROTO_ICMPV6), EPERM);
        int fd = OK(socket(AF_INET, SOCK_DGRAM, 0));
        ERR(setsockopt(fd, SOL_SOCKET, SO_DEBUG, &one, sizeof one), EACCES);
        ERR(setsockopt(fd, SOL_SOCKET, SO_MARK, &one, sizeof one), EPERM);
        ERR(setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &one, sizeof one), EPERM);
        ERR(setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &one, sizeof one), EPERM);
        ERR(setsockopt(fd, SOL_IP, IP_TRANSPARENT, &one, sizeof one), EPERM);
        struct sockaddr_in low = {.sin_family = AF_INET, .sin_port = htons(99), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        ERR(bind(fd, (struct sockaddr *)&low, sizeof low), EACCES);
        // A change of the network: RTM_NEWLINK of device 1.
        int route = OK(socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE));
        struct {
            struct nlmsghdr header;
            int body[4];
        } request = {{sizeof request, 16, NLM_F_REQUEST | NLM_F_ACK, 1, 0}, {0, 1, 0, 0}};
        struct {
            struct nlmsghdr header;
            int error;
        } answer;
        char text[1024];
        CHECK_EQ(send(route, &request, sizeof request, 0), (long)sizeof request);
        CHECK(recv(route, text, sizeof text, 0) >= (long)sizeof answer);
        memcpy(&answer, text, sizeof answer);
        CHECK_EQ(answer.header.nlmsg_type, NLMSG_ERROR);
        CHECK_EQ(answer.error, -EPERM);
    });
}

TEST(a_datagram_socket_has_one_peer) {
    struct sockaddr_un a = {AF_UNIX, "a"}, b = {AF_UNIX, "b"};
    int first = OK(socket(AF_UNIX, SOCK_DGRAM, 0)), second = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    int stranger = OK(socket(AF_UNIX, SOCK_DGRAM, 0));
    OK(bind(first, (struct sockaddr *)&a, sizeof a));
    OK(bind(second, (struct sockaddr *)&b, sizeof b));
    OK(connect(first, (struct sockaddr *)&b, sizeof b));
    ERR(connect(stranger, (struct sockaddr *)&a, sizeof a), EPERM);
    ERR(sendto(stranger, "x", 1, 0, (struct sockaddr *)&a, sizeof a), EPERM);
    OK(connect(second, (struct sockaddr *)&a, sizeof a));
}

TEST(a_broadcast_is_meant) {
    int fd = OK(socket(AF_INET, SOCK_DGRAM, 0)), one = 1;
    struct sockaddr_in all = {.sin_family = AF_INET, .sin_port = htons(99), .sin_addr = {htonl(0x7fffffff)}};
    ERR(sendto(fd, "x", 1, 0, (struct sockaddr *)&all, sizeof all), EACCES);
    OK(setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof one));
    int sent = sendto(fd, "x", 1, 0, (struct sockaddr *)&all, sizeof all);
    CHECK(sent == 1 || errno != EACCES);
}
