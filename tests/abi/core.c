// Core files: when they are written, and that what a debugger needs is in them.
#include "check.h"
#include <elf.h>
#include <semaphore.h>
#include <sys/prctl.h>
#include <sys/procfs.h>

static char marker[64] = "memory of the process at its death";

static void begin(void) {
    if (strcmp(slurp("/proc/sys/kernel/core_pattern"), "core\n") != 0 || strcmp(slurp("/proc/sys/kernel/core_uses_pid"), "0\n") != 0)
        SKIP("core files have other names here");
    struct rlimit all;
    OK(getrlimit(RLIMIT_CORE, &all));
    all.rlim_cur = all.rlim_max;
    OK(setrlimit(RLIMIT_CORE, &all));
    if (all.rlim_cur < 100 << 20)
        SKIP("no core files allowed");
}

static char *core;
static size_t core_size;

static void load(void) {
    int fd = OK(open("core", O_RDONLY));
    struct stat s;
    OK(fstat(fd, &s));
    CHECK_EQ(s.st_mode & 07777, 0600);
    core_size = s.st_size;
    core = mmap(NULL, core_size, PROT_READ, MAP_PRIVATE, fd, 0);
    CHECK(core != MAP_FAILED);
}

static Elf64_Phdr *headers(void) {
    Elf64_Ehdr *e = (Elf64_Ehdr *)core;
    CHECK(core_size > sizeof *e && memcmp(e->e_ident, ELFMAG, 4) == 0);
    CHECK_EQ(e->e_type, ET_CORE);
    CHECK_EQ(e->e_machine, EM_X86_64);
    return (Elf64_Phdr *)(core + e->e_phoff);
}

// The nth note of a type.
static void *note(uint32_t type, int nth) {
    Elf64_Phdr *p = headers();
    CHECK_EQ(p->p_type, PT_NOTE);
    for (char *at = core + p->p_offset, *end = at + p->p_filesz; at < end;) {
        Elf64_Nhdr *n = (Elf64_Nhdr *)at;
        char *desc = at + sizeof *n + (n->n_namesz + 3) / 4 * 4;
        if (n->n_type == type && nth-- == 0)
            return desc;
        at = desc + (n->n_descsz + 3) / 4 * 4;
    }
    return NULL;
}

// What the file has at an address.
static char *memory(void *address) {
    Elf64_Phdr *p = headers();
    for (int i = 0; i < ((Elf64_Ehdr *)core)->e_phnum; i++) {
        uint64_t offset = (uint64_t)address - p[i].p_vaddr;
        if (p[i].p_type == PT_LOAD && offset < p[i].p_filesz) {
            CHECK(p[i].p_offset + offset + 64 < core_size);
            return core + p[i].p_offset + offset;
        }
    }
    return NULL;
}

TEST(core_of_a_fault) {
    begin();
    pid_t child = CHILD({
        strcpy(marker, "changed");
        register long r15 asm("r15") = 0x123456789;
        asm volatile("movl $1, 0x10" : : "r"(r15));
    });
    int status = wait_for(child);
    KILLED(status, SIGSEGV);
    CHECK(WCOREDUMP(status));
    load();
    struct elf_prstatus *s = note(NT_PRSTATUS, 0);
    CHECK(s != NULL);
    CHECK_EQ(s->pr_pid, child);
    CHECK_EQ(s->pr_ppid, getpid());
    CHECK_EQ(s->pr_cursig, SIGSEGV);
    CHECK_EQ(((unsigned long long *)s->pr_reg)[0], 0x123456789);
    CHECK(note(NT_PRSTATUS, 1) == NULL);
    siginfo_t *info = note(NT_SIGINFO, 0);
    CHECK(info && info->si_signo == SIGSEGV && info->si_addr == (void *)0x10);
    CHECK(note(NT_AUXV, 0) && note(NT_FILE, 0) && note(NT_PRFPREG, 0) && note(NT_X86_XSTATE, 0));
    struct elf_prpsinfo *p = note(NT_PRPSINFO, 0);
    CHECK(p && p->pr_pid == child);
    char *text = memory(marker);
    CHECK(text != NULL);
    STR_EQ(text, "changed");
}

__attribute__((noreturn)) static void *waits(void *ready) {
    sem_post(ready);
    for (;;)
        pause();
}

TEST(core_has_all_threads) {
    begin();
    pid_t child = CHILD({
        sem_t ready;
        sem_init(&ready, 0, 0);
        for (int i = 0; i < 3; i++) {
            pthread_t t;
            pthread_create(&t, NULL, waits, &ready);
            sem_wait(&ready);
        }
        abort();
    });
    int status = wait_for(child);
    KILLED(status, SIGABRT);
    CHECK(WCOREDUMP(status));
    load();
    CHECK(note(NT_PRSTATUS, 3) != NULL && note(NT_PRSTATUS, 4) == NULL);
    CHECK_EQ(((struct elf_prstatus *)note(NT_PRSTATUS, 0))->pr_pid, child);
}

TEST(when_a_core_is_written) {
    begin();
    pid_t child = CHILD({
        prctl(PR_SET_DUMPABLE, 0);
        abort();
    });
    int status = wait_for(child);
    KILLED(status, SIGABRT);
    CHECK(!WCOREDUMP(status));
    child = CHILD({
        setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        abort();
    });
    CHECK(!WCOREDUMP(wait_for(child)));
    child = CHILD({ raise(SIGTERM); });
    CHECK(!WCOREDUMP(wait_for(child)));
    ERR(access("core", F_OK), ENOENT);
    close(OK(open("target", O_CREAT | O_WRONLY, 0600)));
    OK(link("target", "core"));
    child = CHILD({ abort(); });
    CHECK(WCOREDUMP(wait_for(child)));
    struct stat s;
    OK(stat("target", &s));
    CHECK_EQ(s.st_size, 0);
}

TEST(core_replaces_an_older_one) {
    begin();
    int fd = OK(open("core", O_CREAT | O_WRONLY, 0600));
    OK(ftruncate(fd, 1 << 30));
    pid_t child = CHILD({ abort(); });
    CHECK(WCOREDUMP(wait_for(child)));
    load();
    CHECK(core_size < 1 << 30);
}

TEST(filter_of_a_core) {
    begin();
    char *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    pid_t child = CHILD({
        int fd = OK(open("/proc/self/coredump_filter", O_WRONLY));
        CHECK_EQ(write(fd, "0x01", 4), 4);
        strcpy(shared, "shared");
        abort();
    });
    CHECK(WCOREDUMP(wait_for(child)));
    load();
    CHECK(memory(marker) != NULL && memory(shared) == NULL);
}
