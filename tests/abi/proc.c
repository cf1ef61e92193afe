// /proc and /sys: the files that programs read, their format, and what they say about a known process.
#include "check.h"
#include <sys/prctl.h>
#include <sys/sysinfo.h>

static char *own(const char *name) {
    static char path[100];
    snprintf(path, sizeof path, "/proc/self/%s", name);
    return slurp(path);
}

static long field(const char *text, const char *name) {
    const char *found = strstr(text, name);
    if (!found)
        FAIL("no %s", name);
    return strtol(found + strlen(name), NULL, 0);
}

TEST(self_is_a_link_to_the_pid) {
    char text[20] = {0}, want[20];
    OK(readlink("/proc/self", text, 19));
    sprintf(want, "%d", getpid());
    STR_EQ(text, want);
    memset(text, 0, 20);
    char thread[40] = {0};
    OK(readlink("/proc/thread-self", thread, 39));
    sprintf(text, "%d/task/%d", getpid(), getpid());
    STR_EQ(thread, text);
}

TEST(stat_format) {
    char name[50], state;
    int pid, ppid, pgrp, session;
    CHECK_EQ(sscanf(own("stat"), "%d (%49[^)]) %c %d %d %d", &pid, name, &state, &ppid, &pgrp, &session), 6);
    CHECK_EQ(pid, getpid());
    CHECK_EQ(ppid, getppid());
    CHECK_EQ(pgrp, getpgrp());
    CHECK_EQ(session, getsid(0));
    CHECK_EQ(state, 'R');
    STR_EQ(name, "proc");
    int spaces = 0;
    for (char *p = strrchr(own("stat"), ')'); *p; p++)
        spaces += *p == ' ';
    CHECK_EQ(spaces, 50); // 52 fields
}

TEST(status_fields) {
    char *text = own("status");
    CHECK(!strncmp(text, "Name:\tproc\n", 11));
    CHECK_EQ(field(text, "\nPid:"), getpid());
    CHECK_EQ(field(text, "\nPPid:"), getppid());
    CHECK_EQ(field(text, "\nTgid:"), getpid());
    CHECK_EQ(field(text, "\nUid:"), 0);
    CHECK_EQ(field(text, "\nThreads:"), 1);
    CHECK(field(text, "\nVmSize:") > 100);
    CHECK(field(text, "\nVmRSS:") > 50);
    CHECK(strstr(text, "\nState:\tR (running)\n"));
    static const char *const names[] = {"\nUmask:\t", "\nGroups:\t", "\nSigQ:\t", "\nSigPnd:\t", "\nSigBlk:\t", "\nSigIgn:\t",
                                        "\nSigCgt:\t", "\nCapEff:\t", "\nCapBnd:\t", "\nNoNewPrivs:\t", "\nSeccomp:\t",
                                        "\nCpus_allowed:\t", "\nvoluntary_ctxt_switches:\t"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strstr(text, names[i]))
            FAIL("no %s", names[i] + 1);
}

TEST(status_of_signals) {
    signal(SIGUSR1, SIG_IGN);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR2);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR2);
    char *text = own("status");
    CHECK(strstr(text, "SigBlk:\t0000000000000800\n"));
    CHECK(strstr(text, "SigPnd:\t0000000000000800\n"));
    CHECK_EQ(strtoul(strstr(text, "SigIgn:\t") + 8, NULL, 16) & 0x200, 0x200);
}

TEST(states_of_a_child) {
    pid_t pid = CHILD(for (;;) pause());
    EVENTUALLY(state_of(pid) == 'S');
    OK(kill(pid, SIGSTOP));
    EVENTUALLY(state_of(pid) == 'T');
    OK(kill(pid, SIGKILL));
    EVENTUALLY(state_of(pid) == 'Z');
    char path[50];
    sprintf(path, "/proc/%d/cmdline", pid);
    STR_EQ(slurp(path), "");
    sprintf(path, "/proc/%d/status", pid);
    CHECK(strstr(slurp(path), "State:\tZ (zombie)"));
    wait_for(pid);
    ERR(open(path, O_RDONLY), ENOENT);
}

TEST(maps_format) {
    char *text = own("maps");
    unsigned long start, end, offset, inode;
    char flags[5];
    unsigned major, minor;
    CHECK_EQ(sscanf(text, "%lx-%lx %4s %lx %x:%x %lu", &start, &end, flags, &offset, &major, &minor, &inode), 7);
    CHECK(start < end && flags[3] == 'p');
    CHECK(strstr(text, "[stack]") && strstr(text, "[vdso]") && strstr(text, "[heap]"));
    unsigned long before = 0;
    for (char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        CHECK_EQ(sscanf(line, "%lx-%lx", &start, &end), 2);
        CHECK(start >= before && end > start);
        before = end;
    }
}

TEST(maps_follow_mmap) {
    char *p = OK(mmap((void *)0x10000000, 0x3000, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
    CHECK(strstr(own("maps"), "10000000-10003000 rw-p 00000000 00:00 0"));
    OK(mprotect(p + 0x1000, 0x1000, PROT_READ));
    char *text = own("maps");
    CHECK(strstr(text, "10000000-10001000 rw-p") && strstr(text, "10001000-10002000 r--p") && strstr(text, "10002000-10003000 rw-p"));
    OK(mprotect(p + 0x1000, 0x1000, PROT_READ | PROT_WRITE));
    CHECK(strstr(own("maps"), "10000000-10003000 rw-p")); // merged again
}

TEST(statm_and_smaps) {
    unsigned long size, resident;
    CHECK_EQ(sscanf(own("statm"), "%lu %lu", &size, &resident), 2);
    CHECK(size >= resident && resident > 10);
    char *text = own("smaps");
    CHECK(strstr(text, "\nRss:") && strstr(text, "\nPss:") && strstr(text, "\nPrivate_Dirty:") && strstr(text, "\nVmFlags:"));
}

TEST(exe_cwd_root) {
    char text[200] = {0}, cwd[200];
    OK(readlink("/proc/self/exe", text, 199));
    STR_EQ(text, "/bin/proc");
    memset(text, 0, 200);
    OK(readlink("/proc/self/cwd", text, 199));
    CHECK(getcwd(cwd, sizeof cwd));
    STR_EQ(text, cwd);
    memset(text, 0, 200);
    OK(readlink("/proc/self/root", text, 199));
    STR_EQ(text, "/");
    OK(open("/proc/self/cwd/.", O_RDONLY));
    OK(open("/proc/self/root/proc/version", O_RDONLY));
}

TEST(fd_directory) {
    int fd = OK(dup2(1, 77));
    DIR *d = opendir("/proc/self/fd");
    CHECK(d);
    struct dirent *e;
    int found = 0;
    while ((e = readdir(d)))
        found += !strcmp(e->d_name, "77");
    CHECK_EQ(found, 1);
    close(fd);
    struct stat s;
    ERR(lstat("/proc/self/fd/77", &s), ENOENT);
    int f = OK(open("f", O_RDWR | O_CREAT | O_APPEND, 0600));
    CHECK_EQ(write(f, "12345", 5), 5);
    char path[50];
    sprintf(path, "/proc/self/fdinfo/%d", f);
    char *text = slurp(path);
    CHECK_EQ(field(text, "pos:"), 5);
    CHECK(strstr(text, "flags:\t01"));
}

TEST(fd_links_have_modes) {
    int r = OK(open("/dev/null", O_RDONLY));
    char path[50];
    sprintf(path, "/proc/self/fd/%d", r);
    struct stat s;
    OK(lstat(path, &s));
    CHECK_EQ(s.st_mode, S_IFLNK | 0500);
}

TEST(environ_and_cmdline) {
    CHECK(strstr(own("environ"), "PATH="));
    CHECK(strstr(own("cmdline"), "proc"));
}

TEST(comm_can_be_written) {
    int fd = OK(open("/proc/self/comm", O_WRONLY));
    CHECK_EQ(write(fd, "renamed", 7), 7);
    char name[17] = "";
    OK(prctl(PR_GET_NAME, name));
    STR_EQ(name, "renamed");
}

static void *waits(void *unused) {
    return pause(), unused;
}

TEST(task_directory) {
    pthread_t t;
    pthread_create(&t, NULL, waits, NULL);
    DIR *d = opendir("/proc/self/task");
    CHECK(d);
    struct dirent *e;
    int threads = 0;
    while ((e = readdir(d)))
        threads += e->d_name[0] != '.';
    CHECK_EQ(threads, 2);
    CHECK_EQ(field(own("status"), "\nThreads:"), 2);
    struct stat s;
    OK(stat("/proc/self/task", &s));
    CHECK_EQ(s.st_nlink, 4);
}

TEST(limits_file) {
    struct rlimit limit = {100, 200};
    OK(setrlimit(RLIMIT_NOFILE, &limit));
    CHECK(strstr(own("limits"), "Max open files            100                  200                  files"));
}

TEST(mounts_files) {
    char *text = own("mounts");
    CHECK(strstr(text, " / ") && strstr(text, "proc /proc proc "));
    text = own("mountinfo");
    CHECK(strstr(text, " /proc ") && strstr(text, " - proc proc "));
    CHECK(strstr(slurp("/proc/filesystems"), "nodev\ttmpfs\n"));
}

TEST(oom_score_adj) {
    int fd = OK(open("/proc/self/oom_score_adj", O_RDWR));
    CHECK_EQ(write(fd, "500", 3), 3);
    STR_EQ(own("oom_score_adj"), "500\n");
    ERR(write(fd, "5000", 4), EINVAL);
    EXITED(wait_for(CHILD(STR_EQ(own("oom_score_adj"), "500\n"))), 0);
}

TEST(mem_file_reads_memory) {
    static char secret[] = "find me";
    int fd = OK(open("/proc/self/mem", O_RDONLY));
    char text[8] = {0};
    CHECK_EQ(pread(fd, text, 7, (off_t)(uintptr_t)secret), 7);
    STR_EQ(text, "find me");
    ERR(pread(fd, text, 7, 16), EIO);
}

TEST(global_files) {
    CHECK(!strncmp(slurp("/proc/version"), "Linux version ", 14));
    CHECK(strstr(slurp("/proc/cpuinfo"), "processor\t: 0\n"));
    CHECK(strstr(slurp("/proc/cpuinfo"), "flags\t\t: "));
    char *text = slurp("/proc/meminfo");
    CHECK(field(text, "MemTotal:") > 10000);
    CHECK(field(text, "\nMemAvailable:") > 1000);
    text = slurp("/proc/stat");
    CHECK(!strncmp(text, "cpu ", 4) && strstr(text, "\ncpu0 ") && strstr(text, "\nbtime ") && strstr(text, "\nprocesses "));
    double a, b;
    CHECK_EQ(sscanf(slurp("/proc/uptime"), "%lf %lf", &a, &b), 2);
    CHECK_EQ(sscanf(slurp("/proc/loadavg"), "%lf %lf", &a, &b), 2);
}

TEST(sys_kernel_files) {
    CHECK(atoi(slurp("/proc/sys/kernel/pid_max")) >= 32768);
    STR_EQ(slurp("/proc/sys/kernel/ostype"), "Linux\n");
    STR_EQ(slurp("/proc/sys/kernel/hostname"), "moat\n");
    CHECK(strlen(slurp("/proc/sys/kernel/random/boot_id")) == 37);
    CHECK(strlen(slurp("/proc/sys/kernel/random/uuid")) == 37);
    CHECK(atoi(slurp("/proc/sys/kernel/cap_last_cap")) >= 37);
    CHECK(atoi(slurp("/proc/sys/vm/overcommit_memory")) >= 0);
    CHECK(atoi(slurp("/proc/sys/fs/pipe-max-size")) >= 65536);
}

TEST(net_files) {
    CHECK(strstr(slurp("/proc/net/dev"), "lo:"));
    CHECK(strstr(slurp("/proc/self/net/unix"), "Num"));
    CHECK(strstr(slurp("/proc/net/tcp"), "local_address"));
}

TEST(namespaces) {
    char text[50] = {0}, child[50] = {0};
    OK(readlink("/proc/self/ns/pid", text, 49));
    CHECK(!strncmp(text, "pid:[", 5));
    OK(readlink("/proc/1/ns/pid", child, 49));
    STR_EQ(child, text);
    OK(readlink("/proc/self/ns/mnt", text, 49));
}

TEST(directory_lists_processes) {
    pid_t pid = CHILD(pause());
    DIR *d = opendir("/proc");
    CHECK(d);
    struct dirent *e;
    int seen = 0, one = 0;
    while ((e = readdir(d))) {
        seen += atoi(e->d_name) == pid;
        one += !strcmp(e->d_name, "1");
    }
    CHECK_EQ(seen, 1);
    CHECK_EQ(one, 1);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(files_of_others_are_protected) {
    pid_t root = getpid();
    char path[50];
    sprintf(path, "/proc/%d/environ", root);
    EXITED(wait_for(CHILD(become_nobody(); ERR(open(path, O_RDONLY), EACCES))), 0);
    sprintf(path, "/proc/%d/stat", root);
    EXITED(wait_for(CHILD(become_nobody(); OK(open(path, O_RDONLY)))), 0);
}

TEST(owner_is_the_user) {
    pid_t pid = CHILD(become_nobody(); pause());
    char path[50];
    sprintf(path, "/proc/%d", pid);
    struct stat s;
    EVENTUALLY(stat(path, &s) == 0 && s.st_uid == 65534);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
}

TEST(nothing_can_be_made_in_proc) {
    ERR(open("/proc/new", O_CREAT | O_WRONLY, 0600), ENOENT);
    ERR(mkdir("/proc/new", 0700), ENOENT);
    ERR(unlink("/proc/version"), EPERM);
}

TEST(sys_files) {
    CHECK(slurp("/sys/devices/system/cpu/online")[0] == '0');
    CHECK(slurp("/sys/devices/system/cpu/possible")[0] == '0');
    struct stat s;
    OK(stat("/sys/class/net/lo", &s));
    OK(stat("/sys/fs/cgroup", &s));
    OK(stat("/sys/devices/system/node", &s));
}

TEST(settings_that_nobody_writes_are_not_opened_for_it) {
    // Root's capabilities do not count there.
    ERR(open("/proc/sys/kernel/osrelease", O_WRONLY), EACCES);
    ERR(open("/proc/sys/kernel/ostype", O_RDWR | O_TRUNC), EACCES);
    close(OK(open("/proc/sys/kernel/osrelease", O_RDONLY)));
    close(OK(open("/proc/sys/kernel/hostname", O_RDWR)));
}

TEST(reads_in_small_pieces_are_consistent) {
    char whole[8192], pieces[8192];
    int fd = OK(open("/proc/self/status", O_RDONLY));
    size_t length = 0;
    ssize_t n;
    while ((n = read(fd, pieces + length, 7)) > 0)
        length += n;
    CHECK(length > 500);
    OK(lseek(fd, 0, SEEK_SET));
    n = read(fd, whole, sizeof whole);
    CHECK(n > 500 && !memcmp(whole, pieces, 20));
}

TEST(login_is_noted_once_and_inherited) {
    const char *path = "/proc/self/loginuid";
    if (access(path, F_OK) != 0 || strcmp(slurp(path), "4294967295") != 0)
        SKIP("somebody has logged in, or it is not kept here");
    ERR(put_file(path, "x"), EINVAL);
    char other[40];
    sprintf(other, "/proc/%d/loginuid", getppid());
    ERR(put_file(other, "0"), EPERM);
    OK(put_file(path, "0"));
    STR_EQ(own("loginuid"), "0");
    long session = atol(own("sessionid"));
    CHECK(session > 0 && session != 4294967295);
    pid_t child = CHILD({
        STR_EQ(slurp("/proc/self/loginuid"), "0");
        CHECK_EQ(atol(slurp("/proc/self/sessionid")), session);
    });
    EXITED(wait_for(child), 0);
}

TEST(writable_files_check_what_they_take) {
    OK(put_file("/proc/self/timerslack_ns", "12345"));
    STR_EQ(own("timerslack_ns"), "12345\n");
    OK(put_file("/proc/self/timerslack_ns", "0"));
    STR_EQ(own("timerslack_ns"), "50000\n");
    OK(put_file("/proc/self/clear_refs", "1"));
    ERR(put_file("/proc/self/clear_refs", "6"), EINVAL);
    ERR(put_file("/proc/self/clear_refs", "x"), EINVAL);
    OK(put_file("/proc/self/coredump_filter", "0x31"));
    STR_EQ(own("coredump_filter"), "00000031\n");
    OK(put_file("/proc/self/oom_adj", "15"));
    STR_EQ(own("oom_score_adj"), "1000\n");
    ERR(put_file("/proc/self/oom_adj", "16"), EINVAL);
}

TEST(directory_of_a_process_takes_signals) {
    pid_t child = CHILD({ pause(); });
    char path[40];
    sprintf(path, "/proc/%d", child);
    int dir = OK(open(path, O_RDONLY | O_DIRECTORY));
    OK(syscall(SYS_pidfd_send_signal, dir, 0, NULL, 0));
    int files = OK(openat(dir, "fd", O_RDONLY | O_DIRECTORY));
    ERR(syscall(SYS_pidfd_send_signal, files, 0, NULL, 0), EBADF);
    ERR(syscall(SYS_pidfd_send_signal, OK(open("/", O_RDONLY)), 0, NULL, 0), EBADF);
    ERR(syscall(SYS_pidfd_send_signal, OK(open(path, O_PATH)), 0, NULL, 0), EBADF);
    OK(syscall(SYS_pidfd_send_signal, dir, SIGTERM, NULL, 0));
    KILLED(wait_for(child), SIGTERM);
    ERR(syscall(SYS_pidfd_send_signal, dir, 0, NULL, 0), ESRCH);
}
