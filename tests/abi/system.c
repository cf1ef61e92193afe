// Everything about the system as a whole and the process's settings: uname, sysinfo, random, prctl, scheduling, limits.
#include "check.h"
#include <sys/mount.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/random.h>
#include <sys/sysinfo.h>
#include <sys/user.h>
#include <sys/utsname.h>
#include <linux/filter.h>

TEST(uname_says_linux) {
    struct utsname u;
    OK(uname(&u));
    STR_EQ(u.sysname, "Linux");
    STR_EQ(u.machine, "x86_64");
    STR_EQ(u.nodename, "moat");
    CHECK_EQ(u.release[0], '6');
    CHECK_EQ(u.release[1], '.');
    ERR(syscall(SYS_uname, BAD_ADDRESS), EFAULT);
}

TEST(hostname_can_change) {
    OK(sethostname("changed", 7));
    struct utsname u;
    OK(uname(&u));
    STR_EQ(u.nodename, "changed");
    OK(sethostname("moat", 4));
    ERR(sethostname("x", 65), EINVAL);
    ERR(sethostname("x", -1), EINVAL);
    OK(setdomainname("domain", 6));
}

TEST(sysinfo_is_sane) {
    struct sysinfo s;
    OK(sysinfo(&s));
    CHECK(s.totalram > 1 << 20 && s.freeram <= s.totalram);
    CHECK(s.uptime > 0);
    CHECK(s.procs > 0);
    CHECK_EQ(s.mem_unit, 1);
    ERR(syscall(SYS_sysinfo, BAD_ADDRESS), EFAULT);
}

TEST(getrandom_gives_bytes) {
    unsigned char a[64] = {0}, b[64] = {0};
    CHECK_EQ(getrandom(a, 64, 0), 64);
    CHECK_EQ(getrandom(b, 64, GRND_NONBLOCK), 64);
    CHECK(memcmp(a, b, 64));
    CHECK_EQ(getrandom(a, 0, 0), 0);
    ERR(getrandom(a, 64, 0x100), EINVAL);
    ERR(syscall(SYS_getrandom, BAD_ADDRESS, 64, 0), EFAULT);
}

TEST(affinity) {
    cpu_set_t set;
    CPU_ZERO(&set);
    OK(sched_getaffinity(0, sizeof set, &set));
    int count = CPU_COUNT(&set);
    CHECK(count >= 1);
    CHECK_EQ(syscall(SYS_sched_getaffinity, 0, sizeof set, &set) % 8, 0);
    ERR(syscall(SYS_sched_getaffinity, 0, 1, &set), EINVAL);
    CPU_ZERO(&set);
    CPU_SET(0, &set);
    OK(sched_setaffinity(0, sizeof set, &set));
    CPU_ZERO(&set);
    OK(sched_getaffinity(0, sizeof set, &set));
    CHECK_EQ(CPU_COUNT(&set), 1);
    CHECK_EQ(sched_getcpu(), 0);
    EXITED(wait_for(CHILD(OK(sched_getaffinity(0, sizeof set, &set)); CHECK_EQ(CPU_COUNT(&set), 1))), 0);
    CPU_ZERO(&set);
    ERR(sched_setaffinity(0, sizeof set, &set), EINVAL);
    ERR(sched_getaffinity(1 << 21, sizeof set, &set), ESRCH);
}

TEST(getcpu) {
    unsigned cpu = 99999, node = 99999;
    OK(syscall(SYS_getcpu, &cpu, &node, NULL));
    CHECK(cpu < 4096 && node < 64);
}

TEST(schedulers) {
    CHECK_EQ(sched_getscheduler(0), SCHED_OTHER);
    struct sched_param p = {0};
    OK(sched_getparam(0, &p));
    CHECK_EQ(p.sched_priority, 0);
    OK(sched_setscheduler(0, SCHED_BATCH, &p));
    CHECK_EQ(sched_getscheduler(0), SCHED_BATCH);
    CHECK_EQ(sched_get_priority_max(SCHED_FIFO), 99);
    CHECK_EQ(sched_get_priority_min(SCHED_FIFO), 1);
    CHECK_EQ(sched_get_priority_max(SCHED_OTHER), 0);
    ERR(sched_get_priority_max(99), EINVAL);
    p.sched_priority = 5;
    ERR(sched_setscheduler(0, SCHED_OTHER, &p), EINVAL);
    ERR(sched_setscheduler(0, 99, &p), EINVAL);
    ERR(sched_getscheduler(1 << 21), ESRCH);
    ERR(sched_getscheduler(-1), EINVAL);
    OK(sched_yield());
    struct timespec t;
    OK(sched_rr_get_interval(0, &t));
}

TEST(limits_read_and_write) {
    static const int resources[] = {RLIMIT_CPU, RLIMIT_FSIZE, RLIMIT_DATA, RLIMIT_STACK, RLIMIT_CORE, RLIMIT_RSS, RLIMIT_NPROC,
                                    RLIMIT_NOFILE, RLIMIT_MEMLOCK, RLIMIT_AS, RLIMIT_LOCKS, RLIMIT_SIGPENDING, RLIMIT_MSGQUEUE,
                                    RLIMIT_NICE, RLIMIT_RTPRIO, RLIMIT_RTTIME};
    struct rlimit limit;
    for (size_t i = 0; i < sizeof resources / sizeof *resources; i++)
        OK(getrlimit(resources[i], &limit));
    OK(getrlimit(RLIMIT_NOFILE, &limit));
    CHECK_EQ(limit.rlim_cur, 1024);
    CHECK_EQ(limit.rlim_max, 4096);
    limit.rlim_cur = 5000;
    ERR(setrlimit(RLIMIT_NOFILE, &limit), EINVAL);
    ERR(getrlimit(99, &limit), EINVAL);
    ERR(syscall(SYS_getrlimit, RLIMIT_CPU, BAD_ADDRESS), EFAULT);
    OK(getrlimit(RLIMIT_STACK, &limit));
    CHECK_EQ(limit.rlim_cur, 8 << 20);
}

TEST(prlimit_of_a_child) {
    pid_t pid = CHILD(pause());
    struct rlimit limit = {50, 60}, old;
    OK(prlimit(pid, RLIMIT_NOFILE, &limit, &old));
    CHECK_EQ(old.rlim_cur, 1024);
    OK(prlimit(pid, RLIMIT_NOFILE, NULL, &old));
    CHECK_EQ(old.rlim_cur, 50);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
    ERR(prlimit(1 << 21, RLIMIT_NOFILE, NULL, &old), ESRCH);
    EXITED(wait_for(CHILD(become_nobody(); ERR(prlimit(1, RLIMIT_NOFILE, NULL, &old), EPERM))), 0);
}

TEST(prctl_settings) {
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
    OK(prctl(PR_SET_DUMPABLE, 0));
    CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
    ERR(prctl(PR_SET_DUMPABLE, 2), EINVAL);
    int signal = 0;
    OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
    OK(prctl(PR_GET_PDEATHSIG, &signal));
    CHECK_EQ(signal, SIGUSR1);
    ERR(prctl(PR_SET_PDEATHSIG, 99), EINVAL);
    EXITED(wait_for(CHILD(OK(prctl(PR_GET_PDEATHSIG, &signal)); CHECK_EQ(signal, 0))), 0);
    ERR(prctl(9999), EINVAL);
    ERR(prctl(PR_SET_NAME, BAD_ADDRESS), EFAULT);
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 50000);
    OK(prctl(PR_SET_TIMERSLACK, 1000));
    CHECK_EQ(prctl(PR_GET_TIMERSLACK), 1000);
    CHECK_EQ(prctl(PR_GET_SECCOMP), 0);
}

TEST(setuid_clears_pdeathsig_and_dumpable) {
    EXITED(wait_for(CHILD({
               OK(prctl(PR_SET_PDEATHSIG, SIGUSR1));
               become_nobody();
               int signal = 9;
               OK(prctl(PR_GET_PDEATHSIG, &signal));
               CHECK_EQ(signal, 0);
           })),
           0);
}

TEST(seccomp_filter_works_inside) {
    EXITED(wait_for(CHILD({
               struct sock_filter code[] = {
                   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getppid, 0, 1),
                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
               };
               struct sock_fprog program = {4, code};
               OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
               OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
               ERR(syscall(SYS_getppid), 77);
               OK(syscall(SYS_getpid));
           })),
           0);
}

// The value of a line of /proc/self/status.
static int status_line(const char *label) {
    char line[256];
    int value = -1;
    FILE *file = fopen("/proc/self/status", "r");
    CHECK(file);
    while (fgets(line, sizeof line, file))
        if (!strncmp(line, label, strlen(label)))
            value = atoi(line + strlen(label));
    fclose(file);
    return value;
}

// Installs a filter that gives calls numbered `nr` this result, if the first argument is `arg`, and allows all others.
static void filter_call(unsigned nr, unsigned arg, unsigned result) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 16),     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, arg, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, result),          BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {6, code};
    OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    OK(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program));
}

TEST(seccomp_filters_add_up_and_are_inherited) {
    EXITED(wait_for(CHILD({
               CHECK_EQ(status_line("Seccomp:"), 0);
               filter_call(SYS_getpgid, 7, SECCOMP_RET_ERRNO | 77);
               CHECK_EQ(status_line("Seccomp:"), 2);
               CHECK_EQ(status_line("Seccomp_filters:"), 1);
               OK(syscall(SYS_getpgid, 0));
               ERR(syscall(SYS_getpgid, 7), 77);
               // What the first allows by number alone a second may yet refuse; what it refuses nobody can allow.
               OK(syscall(SYS_getsid, 0));
               filter_call(SYS_getsid, 0, SECCOMP_RET_ERRNO | 78);
               ERR(syscall(SYS_getsid, 0), 78);
               filter_call(SYS_getpgid, 7, SECCOMP_RET_ERRNO | 79);
               ERR(syscall(SYS_getpgid, 7), 79);
               pid_t pid = CHILD({
                   CHECK_EQ(status_line("Seccomp_filters:"), 3);
                   ERR(syscall(SYS_getsid, 0), 78);
                   // The stricter action wins, whichever filter is newer.
                   filter_call(SYS_getpgid, 7, SECCOMP_RET_TRAP);
                   filter_call(SYS_getpgid, 7, SECCOMP_RET_ERRNO | 80);
                   syscall(SYS_getpgid, 7);
               });
               KILLED(wait_for(pid), SIGSYS);
           })),
           0);
}

TEST(seccomp_reaches_the_other_threads) {
    static volatile int go, seen;
    void *reader(void *unused) {
        OK(syscall(SYS_getsid, 0));
        go = 1;
        while (go != 2)
            sched_yield();
        seen = syscall(SYS_getsid, 0) == -1 ? errno : 0;
        CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
        return unused;
    }
    EXITED(wait_for(CHILD({
               pthread_t thread;
               CHECK_EQ(pthread_create(&thread, NULL, reader, NULL), 0);
               while (!go)
                   sched_yield();
               struct sock_filter code[] = {
                   BPF_STMT(BPF_LD | BPF_W | BPF_ABS, 0),
                   BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_getsid, 0, 1),
                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 77),
                   BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
               };
               struct sock_fprog program = {4, code};
               OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
               OK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program));
               go = 2;
               pthread_join(thread, NULL);
               CHECK_EQ(seen, 77);
           })),
           0);
}

TEST(seccomp_judges_what_a_tracer_makes_of_a_call) {
    pid_t pid = CHILD({
        filter_call(SYS_getsid, 0, SECCOMP_RET_ERRNO | 77);
        filter_call(SYS_getpgid, 7, SECCOMP_RET_TRACE | 5);
        OK(ptrace(PTRACE_TRACEME));
        raise(SIGSTOP);
        ERR(syscall(SYS_getpgid, 7), 77);
        CHECK_EQ(syscall(SYS_getpgid, 7), 1234);
        CHECK_EQ(syscall(SYS_getpgid, 7), getpgrp());
    });
    int stop;
    OK(waitpid(pid, &stop, 0));
    CHECK_EQ(WIFSTOPPED(stop) ? WSTOPSIG(stop) : 0, SIGSTOP);
    OK(ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP | PTRACE_O_EXITKILL));
    struct user_regs_struct regs;
    for (int round = 0; round < 3; round++) {
        unsigned long data;
        OK(ptrace(PTRACE_CONT, pid, 0, 0));
        int status;
        OK(waitpid(pid, &status, 0));
        CHECK_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_SECCOMP << 8);
        OK(ptrace(PTRACE_GETEVENTMSG, pid, 0, &data));
        CHECK_EQ(data, 5);
        OK(ptrace(PTRACE_GETREGS, pid, 0, &regs));
        CHECK_EQ(regs.orig_rax, SYS_getpgid);
        CHECK_EQ(regs.rdi, 7);
        // Another call, which the other filter refuses; none at all; another argument.
        regs.rdi = 0;
        if (round == 0)
            regs.orig_rax = SYS_getsid;
        if (round == 1)
            regs.orig_rax = -1, regs.rax = 1234;
        OK(ptrace(PTRACE_SETREGS, pid, 0, &regs));
    }
    OK(ptrace(PTRACE_CONT, pid, 0, 0));
    EXITED(wait_for(pid), 0);
}

TEST(personality) {
    CHECK_EQ(syscall(SYS_personality, 0xffffffff), 0);
}

TEST(unknown_calls_are_enosys) {
    ERR(syscall(600), ENOSYS);
    ERR(syscall(SYS_tuxcall), ENOSYS);
    ERR(syscall(SYS_getpmsg), ENOSYS);
}

TEST(privileged_calls_are_refused) {
    EXITED(wait_for(CHILD({
               become_nobody();
               ERR(syscall(SYS_reboot, 0, 0, 0, 0), EPERM);
               ERR(syscall(SYS_mount, "none", "/tmp", "tmpfs", 0, 0), EPERM);
               ERR(syscall(SYS_umount2, "/tmp", 0), EPERM);
               ERR(syscall(SYS_swapon, "x", 0), EPERM);
               ERR(syscall(SYS_unshare, 0x04000000), EPERM); // CLONE_NEWUTS
           })),
           0);
}

TEST(mount_tmpfs) {
    OK(mkdir("m", 0755));
    OK(syscall(SYS_mount, "none", "m", "tmpfs", 0, "size=1m"));
    close(OK(open("m/f", O_CREAT | O_WRONLY, 0600)));
    struct stat a, b;
    OK(stat("m", &a));
    OK(stat(".", &b));
    CHECK(a.st_dev != b.st_dev);
    ERR(rmdir("m"), EBUSY);
    int fd = OK(open("m/f", O_RDONLY));
    ERR(syscall(SYS_umount2, "m", 0), EBUSY);
    close(fd);
    OK(syscall(SYS_umount2, "m", 0));
    ERR(stat("m/f", &a), ENOENT);
    ERR(syscall(SYS_umount2, "m", 0), EINVAL);
    ERR(syscall(SYS_mount, "none", "m", "no-such-fs", 0, 0), ENODEV);
}

// A tracer can't give a tracee a segment base that faults; what comes before it in the structure is set.
TEST(segment_bases_of_a_tracee) {
    pid_t pid = CHILD({
        OK(ptrace(PTRACE_TRACEME));
        raise(SIGSTOP);
    });
    int status;
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    CHECK(WIFSTOPPED(status));
    struct user_regs_struct old, set, now;
    OK(ptrace(PTRACE_GETREGS, pid, 0, &old));
    set = old;
    set.rbx = 0x1234;
    set.fs_base = 1ull << 63;
    set.gs_base = 0x5000;
    ERR(ptrace(PTRACE_SETREGS, pid, 0, &set), EIO);
    OK(ptrace(PTRACE_GETREGS, pid, 0, &now));
    CHECK_EQ(now.rbx, 0x1234);
    CHECK_EQ(now.fs_base, old.fs_base);
    CHECK_EQ(now.gs_base, old.gs_base);
    set.fs_base = old.fs_base;
    set.gs_base = ~0ull;
    ERR(ptrace(PTRACE_SETREGS, pid, 0, &set), EIO);
    ERR(ptrace(PTRACE_POKEUSER, pid, offsetof(struct user_regs_struct, fs_base), ~0ull), EIO);
    ERR(syscall(SYS_ptrace, 30 /* PTRACE_ARCH_PRCTL */, pid, 1ull << 63, 0x1002 /* ARCH_SET_FS */), EPERM);
    OK(ptrace(PTRACE_SETREGS, pid, 0, &old));
    OK(ptrace(PTRACE_CONT, pid, 0, 0));
    CHECK_EQ(waitpid(pid, &status, 0), pid);
    EXITED(status, 0);
}

// Bytes of names are shown as they are, but for what separates words.
TEST(names_of_mounts) {
    static const char place[] = "m\xc3\xa9\x01\xff #\t\\";
    OK(mkdir(place, 0755));
    OK(syscall(SYS_mount, "n\xc3\xa9\x01\xff #\t\\", place, "tmpfs", 0, "size=1m"));
    static const char source[] = "n\xc3\xa9\x01\xff\\040\\043\\011\\134 ", shown[] = "/m\xc3\xa9\x01\xff\\040#\\011\\134 ";
    for (int i = 0; i < 3; i++) {
        char *text = slurp((const char *[]){"/proc/self/mounts", "/proc/self/mountinfo", "/proc/self/mountstats"}[i]);
        if (!strstr(text, source) || !strstr(text, shown))
            FAIL("file %d: %s", i, text);
    }
    OK(syscall(SYS_umount2, place, 0));
}

TEST(tmpfs_size_limit) {
    OK(mkdir("m", 0755));
    OK(syscall(SYS_mount, "none", "m", "tmpfs", 0, "size=64k"));
    int fd = OK(open("m/f", O_CREAT | O_WRONLY, 0600));
    static char block[100000];
    ssize_t n = write(fd, block, sizeof block);
    CHECK(n == 65536);
    ERR(write(fd, block, 1), ENOSPC);
    close(fd);
    OK(syscall(SYS_umount2, "m", 0));
}

TEST(bind_mount) {
    OK(mkdir("a", 0755));
    OK(mkdir("b", 0755));
    write_file("a/f", "seen");
    OK(syscall(SYS_mount, "a", "b", NULL, 4096, NULL)); // MS_BIND
    STR_EQ(slurp("b/f"), "seen");
    OK(syscall(SYS_mount, NULL, "b", NULL, 4096 | 32 | 1, NULL)); // remount read-only
    ERR(open("b/f", O_WRONLY), EROFS);
    ERR(open("b/new", O_CREAT | O_WRONLY, 0600), EROFS);
    OK(open("a/f", O_WRONLY));
    OK(syscall(SYS_umount2, "b", 0));
}

TEST(sysv_semaphores) {
    int id = OK(syscall(SYS_semget, 0, 2, 01000 | 0600));
    struct { unsigned short number; short op, flags; } op = {0, 1, 0};
    OK(syscall(SYS_semop, id, &op, 1));
    CHECK_EQ(syscall(SYS_semctl, id, 0, 12), 1); // GETVAL
    op.op = -1;
    OK(syscall(SYS_semop, id, &op, 1));
    op.flags = 04000; // IPC_NOWAIT
    ERR(syscall(SYS_semop, id, &op, 1), EAGAIN);
    OK(syscall(SYS_semctl, id, 0, 0)); // IPC_RMID
    ERR(syscall(SYS_semop, id, &op, 1), EINVAL);
}

TEST(sysv_messages) {
    int id = OK(syscall(SYS_msgget, 0, 01000 | 0600));
    struct { long type; char text[10]; } m = {3, "hello"};
    OK(syscall(SYS_msgsnd, id, &m, 6, 0));
    memset(&m, 0, sizeof m);
    CHECK_EQ(syscall(SYS_msgrcv, id, &m, 10, 0, 0), 6);
    CHECK_EQ(m.type, 3);
    STR_EQ(m.text, "hello");
    ERR(syscall(SYS_msgrcv, id, &m, 10, 0, 04000), ENOMSG);
    OK(syscall(SYS_msgctl, id, 0, NULL));
}

TEST(unshare_uts) {
    EXITED(wait_for(CHILD(OK(syscall(SYS_unshare, 0x04000000)); OK(sethostname("inner", 5)))), 0);
    struct utsname u;
    OK(uname(&u));
    STR_EQ(u.nodename, "moat");
}

// What a descriptor leads to in another mount namespace is not the caller's to mount on.
TEST(mounting_stays_in_the_own_namespace) {
    if (geteuid() != 0)
        SKIP("may not mount");
    OK(mkdir("m", 0755));
    char outside[40];
    snprintf(outside, sizeof outside, "/proc/self/fd/%d", OK(open("m", O_PATH | O_DIRECTORY)));
    if (unshare(CLONE_NEWNS) != 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
        SKIP("may not mount");
    ERR(mount("t", outside, "tmpfs", 0, NULL), EINVAL);
    ERR(mount(outside, "m", NULL, MS_BIND, NULL), EINVAL);
    OK(mount("t", "m", "tmpfs", 0, NULL));
}
