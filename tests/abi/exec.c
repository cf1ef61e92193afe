// execve: arguments and environment, scripts, what survives it and what does not, errors.
#include "check.h"
#include <elf.h>
#include <sys/auxv.h>
#include <sys/prctl.h>

static int run(const char *path, char *const argv[], char *const envp[]) {
    pid_t pid = CHILD(execve(path, argv, envp); _exit(errno == 0 ? 250 : errno));
    return wait_for(pid);
}

#define SELF "/proc/self/exe"
#define HELPER(...) ((char *[]){"exec", "--helper", __VA_ARGS__, NULL})
#define NO_ENV ((char *[]){NULL})

// A program that runs after all must not look like a check that has passed.
#define REFUSED(ERROR, CALL) EXITED(wait_for(CHILD(CALL; _exit(errno == (ERROR) ? 77 : 78))), 77)

TEST(passes_the_exit_status) {
    EXITED(run(SELF, HELPER("exit", "5"), NO_ENV), 5);
}

TEST(passes_arguments) {
    EXITED(run(SELF, HELPER("args", "one", "", "two words", "\xff\x01"), NO_ENV), 0);
}

TEST(passes_the_environment) {
    EXITED(run(SELF, HELPER("env"), ((char *[]){"A=1", "B=", "C=x=y", NULL})), 0);
}

TEST(null_argv_gets_an_empty_string) {
    // Linux 5.18: argc is never 0.
    EXITED(run("/bin/exec", NULL, NULL), 55);
}

TEST(errors_of_the_path) {
    REFUSED(ENOENT, execve("missing", HELPER("x"), NO_ENV));
    REFUSED(ENOENT, execve("", HELPER("x"), NO_ENV));
    REFUSED(EACCES, execve("/tmp", HELPER("x"), NO_ENV));
    write_file("plain", "#!/bin/exec\n");
    REFUSED(EACCES, execve("plain", HELPER("x"), NO_ENV));
    OK(chmod(".", 0755));
    OK(chmod("plain", 0744));
    EXITED(wait_for(CHILD(become_nobody(); execve("plain", HELPER("x"), NO_ENV); _exit(errno == EACCES ? 77 : 78))), 77);
    OK(chmod("plain", 0644));
    REFUSED(ENOTDIR, execve("plain/x", HELPER("x"), NO_ENV));
    OK(symlink("loop", "loop"));
    REFUSED(ELOOP, execve("loop", HELPER("x"), NO_ENV));
    char name[300];
    memset(name, 'a', 299);
    name[299] = 0;
    REFUSED(ENAMETOOLONG, execve(name, HELPER("x"), NO_ENV));
}

TEST(errors_of_the_pointers) {
    ERR(syscall(SYS_execve, BAD_ADDRESS, NULL, NULL), EFAULT);
    ERR(syscall(SYS_execve, SELF, BAD_ADDRESS, NULL), EFAULT);
    ERR(syscall(SYS_execve, SELF, NULL, BAD_ADDRESS), EFAULT);
    char *argv[] = {BAD_ADDRESS, NULL};
    ERR(syscall(SYS_execve, SELF, argv, NULL), EFAULT);
}

TEST(garbage_is_enoexec) {
    write_file("garbage", "this is not a program");
    OK(chmod("garbage", 0755));
    REFUSED(ENOEXEC, execve("garbage", HELPER("x"), NO_ENV));
    write_file("empty", "");
    OK(chmod("empty", 0755));
    REFUSED(ENOEXEC, execve("empty", HELPER("x"), NO_ENV));
}

TEST(truncated_elf_is_refused) {
    write_file("elf", "\177ELF\2\1\1");
    OK(chmod("elf", 0755));
    REFUSED(ENOEXEC, execve("elf", HELPER("x"), NO_ENV));
}

TEST(elf_of_another_machine_is_refused) {
    Elf64_Ehdr header = {.e_ident = {0x7f, 'E', 'L', 'F', 2, 1, 1}, .e_type = ET_EXEC, .e_machine = EM_AARCH64,
                         .e_version = 1, .e_phoff = 64, .e_phentsize = 56, .e_phnum = 1, .e_ehsize = 64};
    int fd = OK(open("elf", O_WRONLY | O_CREAT, 0755));
    CHECK_EQ(write(fd, &header, sizeof header), sizeof header);
    close(fd);
    REFUSED(ENOEXEC, execve("elf", HELPER("x"), NO_ENV));
}

static void script(const char *path, const char *text) {
    write_file(path, text);
    OK(chmod(path, 0755));
}

TEST(script_gets_interpreter_argument_and_path) {
    script("script", "#!/bin/exec --helper\nignored\n");
    // argv is: /bin/exec, "--helper", "script" and the rest.
    EXITED(run("./script", ((char *[]){"zero", "a", "b", NULL}), NO_ENV), 33);
}

TEST(script_argument_is_one_word) {
    script("./exit", "#! /bin/exec   --helper x y  \n");
    EXITED(run("./exit", ((char *[]){"zero", NULL}), NO_ENV), 0); // not the flag --helper, so nothing runs
}

TEST(script_of_a_script) {
    script("inner", "#!/bin/exec --helper\n");
    char text[200], cwd[100];
    snprintf(text, sizeof text, "#!%s/inner\n", getcwd(cwd, sizeof cwd));
    script("outer", text);
    EXITED(run("./outer", ((char *[]){"zero", NULL}), NO_ENV), 33);
}

TEST(script_recursion_is_limited) {
    char text[200], cwd[100];
    snprintf(text, sizeof text, "#!%s/again\n", getcwd(cwd, sizeof cwd));
    script("again", text);
    REFUSED(ELOOP, execve("./again", HELPER("x"), NO_ENV));
}

TEST(script_errors) {
    script("none", "#!/no/such/interpreter\n");
    REFUSED(ENOENT, execve("./none", HELPER("x"), NO_ENV));
    script("blank", "#!   \n");
    REFUSED(ENOEXEC, execve("./blank", HELPER("x"), NO_ENV));
}

TEST(close_on_exec) {
    int keep = OK(open("/dev/null", O_RDONLY));
    int gone = OK(open("/dev/null", O_RDONLY | O_CLOEXEC));
    char a[12], b[12];
    sprintf(a, "%d", keep);
    sprintf(b, "%d", gone);
    EXITED(run(SELF, HELPER("fds", a, b), NO_ENV), 0);
}

TEST(pid_stays) {
    char text[12];
    pid_t pid = CHILD(sprintf(text, "%d", getpid()); execve(SELF, HELPER("pid", text), NO_ENV));
    EXITED(wait_for(pid), 0);
}

static void handler(int signal) {
    (void)signal;
}

TEST(handlers_reset_ignored_stay) {
    EXITED(wait_for(CHILD({
               signal(SIGUSR1, handler);
               signal(SIGUSR2, SIG_IGN);
               execve(SELF, HELPER("dispositions"), NO_ENV);
           })),
           0);
}

TEST(mask_and_pending_stay) {
    EXITED(wait_for(CHILD({
               sigset_t set;
               sigemptyset(&set);
               sigaddset(&set, SIGUSR1);
               sigaddset(&set, SIGTERM);
               sigprocmask(SIG_SETMASK, &set, NULL);
               raise(SIGTERM);
               execve(SELF, HELPER("mask"), NO_ENV);
           })),
           0);
}

TEST(altstack_is_dropped) {
    EXITED(wait_for(CHILD({
               static char stack[65536];
               stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
               OK(sigaltstack(&alternate, NULL));
               execve(SELF, HELPER("altstack"), NO_ENV);
           })),
           0);
}

TEST(cwd_umask_nice_stay) {
    EXITED(wait_for(CHILD({
               OK(chdir("/proc"));
               umask(051);
               execve(SELF, HELPER("inherited"), NO_ENV);
           })),
           0);
}

TEST(itimer_stays) {
    EXITED(wait_for(CHILD({
               struct itimerval timer = {.it_value = {100, 0}};
               OK(setitimer(ITIMER_REAL, &timer, NULL));
               execve(SELF, HELPER("itimer"), NO_ENV);
           })),
           0);
}

TEST(comm_is_the_file_name) {
    OK(symlink(SELF, "a_rather_long_program_name"));
    EXITED(run("./a_rather_long_program_name", HELPER("comm", "a_rather_long_p"), NO_ENV), 0);
}

TEST(cmdline_in_proc) {
    EXITED(run(SELF, HELPER("cmdline", "x", "", "y"), NO_ENV), 0);
}

TEST(auxiliary_vector) {
    EXITED(run("/bin/exec", HELPER("auxv"), ((char *[]){"Z=1", NULL})), 0);
}

TEST(fexecve_of_a_descriptor) {
    int fd = OK(open(SELF, O_RDONLY | O_CLOEXEC));
    pid_t pid = CHILD(fexecve(fd, HELPER("exit", "6"), NO_ENV));
    EXITED(wait_for(pid), 6);
}

TEST(execveat_relative_and_flags) {
    int bin = OK(open("/bin", O_PATH | O_DIRECTORY));
    pid_t pid = CHILD(syscall(SYS_execveat, bin, "exec", HELPER("exit", "9"), NO_ENV, 0));
    EXITED(wait_for(pid), 9);
    OK(symlink("/bin/exec", "link"));
    ERR(syscall(SYS_execveat, AT_FDCWD, "link", HELPER("x"), NO_ENV, AT_SYMLINK_NOFOLLOW), ELOOP);
    ERR(syscall(SYS_execveat, 999, "exec", HELPER("x"), NO_ENV, 0), EBADF);
    ERR(syscall(SYS_execveat, bin, "exec", HELPER("x"), NO_ENV, 0x8), EINVAL);
}

TEST(memfd_can_be_executed) {
    int fd = OK(memfd_create("program", MFD_CLOEXEC));
    int from = OK(open(SELF, O_RDONLY));
    char buffer[65536];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        CHECK_EQ(write(fd, buffer, got), got);
    pid_t pid = CHILD(fexecve(fd, HELPER("exit", "7"), NO_ENV));
    EXITED(wait_for(pid), 7);
}

TEST(a_long_string_is_e2big) {
    size_t length = 33 * 4096;
    char *text = malloc(length);
    memset(text, 'x', length - 1);
    text[length - 1] = 0;
    REFUSED(E2BIG, execve(SELF, HELPER("args", text), NO_ENV));
}

TEST(many_arguments) {
    enum { COUNT = 5000 };
    static char *argv[COUNT + 4] = {"exec", "--helper", "count"};
    for (int i = 0; i < COUNT; i++)
        argv[3 + i] = "0123456789012345678901234567890123456789";
    EXITED(run(SELF, argv, NO_ENV), 0);
}

TEST(too_many_arguments_are_e2big) {
    static char *argv[400000];
    for (int i = 0; i < 399999; i++)
        argv[i] = "0123456789";
    REFUSED(E2BIG, execve(SELF, argv, NO_ENV));
}

TEST(writing_a_running_program_is_etxtbsy) {
    int from = OK(open(SELF, O_RDONLY)), to = OK(open("copy", O_WRONLY | O_CREAT, 0755));
    char buffer[65536];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        CHECK_EQ(write(to, buffer, got), got);
    REFUSED(ETXTBSY, execve("./copy", HELPER("exit", "1"), NO_ENV));
    close(to);
    pid_t pid = CHILD(execve("./copy", HELPER("pause"), NO_ENV));
    EVENTUALLY(state_of(pid) == 'S' && strstr(slurp("/proc/self/stat"), "exec"));
    sleep_ms(50);
    ERR(open("copy", O_WRONLY), ETXTBSY);
    OK(kill(pid, SIGKILL));
    wait_for(pid);
    OK(open("copy", O_WRONLY));
}

static void *execs(void *unused) {
    (void)unused;
    execve(SELF, HELPER("threads"), NO_ENV);
    return NULL;
}

TEST(exec_from_a_thread_takes_over_the_pid) {
    pid_t pid = CHILD({
        pthread_t t;
        pthread_create(&t, NULL, (void *(*)(void *))pause, NULL);
        pthread_create(&t, NULL, execs, NULL);
        pthread_join(t, NULL);
    });
    EXITED(wait_for(pid), 0);
}

TEST(setuid_bit_is_honoured) {
    int from = OK(open(SELF, O_RDONLY)), to = OK(open("/root/suid", O_WRONLY | O_CREAT | O_TRUNC, 0755));
    char buffer[65536];
    ssize_t got;
    while ((got = read(from, buffer, sizeof buffer)) > 0)
        CHECK_EQ(write(to, buffer, got), got);
    close(to);
    OK(chmod("/root", 0755));
    OK(chown("/root/suid", 1234, 1235));
    OK(chmod("/root/suid", 06755));
    pid_t pid = CHILD(become_nobody(); execve("/root/suid", HELPER("ids", "65534", "1234", "65534", "1235"), NO_ENV));
    int status = wait_for(pid);
    pid = CHILD(become_nobody(); OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
                execve("/root/suid", HELPER("ids", "65534", "65534", "65534", "65534"), NO_ENV));
    int status2 = wait_for(pid);
    unlink("/root/suid");
    EXITED(status, 0);
    EXITED(status2, 0);
}

static int fds(char **argv) {
    return fcntl(atoi(argv[1]), F_GETFD) == 0 && fcntl(atoi(argv[2]), F_GETFD) == -1 && errno == EBADF ? 0 : 1;
}

static int dispositions(void) {
    struct sigaction a, b;
    sigaction(SIGUSR1, NULL, &a);
    sigaction(SIGUSR2, NULL, &b);
    return a.sa_handler == SIG_DFL && b.sa_handler == SIG_IGN ? 0 : 1;
}

static int mask(void) {
    sigset_t set, pending;
    sigprocmask(SIG_BLOCK, NULL, &set);
    sigpending(&pending);
    return sigismember(&set, SIGUSR1) == 1 && sigismember(&pending, SIGTERM) == 1 ? 0 : 1;
}

static int auxv(void) {
    if (getauxval(AT_PAGESZ) != 4096 || getauxval(AT_UID) != getuid() || getauxval(AT_EGID) != getegid())
        return 1;
    if (getauxval(AT_SECURE) != 0 || getauxval(AT_CLKTCK) != 100)
        return 2;
    if (strcmp((char *)getauxval(AT_EXECFN), "/bin/exec"))
        return 3;
    if (!getauxval(AT_RANDOM) || !getauxval(AT_PHDR) || !getauxval(AT_ENTRY) || !getauxval(AT_SYSINFO_EHDR))
        return 4;
    if (strcmp((char *)getauxval(AT_PLATFORM), "x86_64") || getauxval(AT_PHENT) != 56)
        return 5;
    return memcmp((void *)getauxval(AT_SYSINFO_EHDR), "\177ELF", 4) ? 6 : 0;
}

static int ids(char **argv) {
    uid_t r, e, s;
    gid_t gr, ge, gs;
    getresuid(&r, &e, &s);
    getresgid(&gr, &ge, &gs);
    return r == (uid_t)atoi(argv[1]) && e == (uid_t)atoi(argv[2]) && s == e && gr == (gid_t)atoi(argv[3]) &&
                   ge == (gid_t)atoi(argv[4]) && gs == ge
               ? 0
               : 1;
}

extern char **environ;

int helper(int argc, char **argv) {
    const char *what = argc ? argv[0] : "";
    if (!strcmp(what, "exit"))
        return atoi(argv[1]);
    if (!strcmp(what, "args"))
        return argc == 5 && !strcmp(argv[1], "one") && !*argv[2] && !strcmp(argv[3], "two words") &&
                       !strcmp(argv[4], "\xff\x01")
                   ? 0
                   : 1;
    if (!strcmp(what, "env"))
        return !strcmp(environ[0], "A=1") && !strcmp(environ[1], "B=") && !strcmp(environ[2], "C=x=y") && !environ[3] ? 0 : 1;
    if (!strcmp(what, "fds"))
        return fds(argv);
    if (!strcmp(what, "pid"))
        return getpid() == atoi(argv[1]) ? 0 : 1;
    if (!strcmp(what, "dispositions"))
        return dispositions();
    if (!strcmp(what, "mask"))
        return mask();
    if (!strcmp(what, "altstack")) {
        stack_t s;
        return sigaltstack(NULL, &s) == 0 && s.ss_flags == SS_DISABLE ? 0 : 1;
    }
    if (!strcmp(what, "inherited")) {
        char cwd[100];
        return getcwd(cwd, sizeof cwd) && !strcmp(cwd, "/proc") && umask(0) == 051 ? 0 : 1;
    }
    if (!strcmp(what, "itimer")) {
        struct itimerval timer;
        return getitimer(ITIMER_REAL, &timer) == 0 && timer.it_value.tv_sec >= 90 ? 0 : 1;
    }
    if (!strcmp(what, "comm")) {
        char name[17] = "";
        prctl(PR_GET_NAME, name);
        return strcmp(name, argv[1]) ? 1 : 0;
    }
    if (!strcmp(what, "cmdline")) {
        char text[200];
        int fd = open("/proc/self/cmdline", O_RDONLY);
        static const char want[] = "exec\0--helper\0cmdline\0x\0\0y";
        return read(fd, text, sizeof text) == sizeof want && !memcmp(text, want, sizeof want) ? 0 : 1;
    }
    if (!strcmp(what, "auxv"))
        return auxv();
    if (!strcmp(what, "count"))
        return argc == 5001 ? 0 : 1;
    if (!strcmp(what, "pause"))
        return pause();
    if (!strcmp(what, "threads"))
        return getpid() == (int)syscall(SYS_gettid) && strstr(slurp("/proc/self/status"), "Threads:\t1\n") ? 0 : 1;
    if (!strcmp(what, "ids"))
        return ids(argv);
    // A script: argv[0] is its path.
    if (!strcmp(what, "./script"))
        return argc == 3 && !strcmp(argv[1], "a") && !strcmp(argv[2], "b") ? 33 : 1;
    if (strstr(what, "/inner"))
        return argc == 2 && !strcmp(argv[1], "./outer") ? 33 : 1;
    return 45;
}
