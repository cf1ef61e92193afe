// The declarations of system calls, as `cargo x fuzz` writes them for this program, and what each argument is made of.
//
// A line is `NR NAME ARGUMENT:TYPE ...`; the names and types are those of crates/syscalls. An argument gets its value by the
// first rule that fits; what no rule knows gets numbers.
#pragma once
#include "constants.h"
#include <stdlib.h>

struct call;
typedef uint64_t (*maker)(struct thread *);

struct call {
    long nr;
    char name[32];
    int count;
    maker make[6];
    const struct constants *constants[6];
};

static struct call calls[512];
static uint32_t call_count;

static uint64_t any_pid(struct thread *t) {
    switch (rnd(t, 12)) {
    case 0: return 0;
    case 1: return one_in(t, 20) ? (uint64_t)-1 : 999999;
    case 2: return one_in(t, 4) ? (uint64_t)-some_pid(t) : edge(t) & ~1ul; // who traces process 1 stops the supervisor
    default: return (uint64_t)some_pid(t);
    }
}

static uint64_t offset(struct thread *t) { return one_in(t, 6) ? edge(t) : rnd(t, 70000); }
static uint64_t protection(struct thread *t) { return PICK(t, prot_flags); }
static uint64_t kinds_of_mapping(struct thread *t) { return PICK(t, map_flags); }
static uint64_t opening(struct thread *t) { return PICK(t, open_flags) | (one_in(t, 20) ? bits(t) : 0); }
static uint64_t at(struct thread *t) { return one_in(t, 20) ? bits(t) : PICK(t, at_flags); }
static uint64_t cloning(struct thread *t) { return PICK(t, clone_flags) | (rnd(t, 3) ? 0 : PICK(t, clone_flags)); }
static uint64_t waiting(struct thread *t) { return PICK(t, ((uint64_t[]){1, 1, 3, 9, 5, 0x40000001, 0x80000005, 0x20000001, 0x1000005, 13})); }
static uint64_t messages_flags(struct thread *t) {
    return rnd(t, 4) ? MSG_DONTWAIT | PICK(t, ((uint64_t[]){0, 0, MSG_PEEK, MSG_TRUNC, MSG_NOSIGNAL, MSG_WAITALL, MSG_ERRQUEUE, MSG_OOB, MSG_EOR, MSG_MORE, MSG_CMSG_CLOEXEC, MSG_FASTOPEN})) : bits(t);
}
static uint64_t number(struct thread *t) { return small(t); }
static uint64_t option(struct thread *t) { return rnd(t, 8) ? rnd(t, 84) : edge(t); }
static uint64_t output_page(struct thread *t) { return output(t, one_in(t, 4) ? PAGE - 1 : 256); }
static uint64_t new_cloning(struct thread *t) { return clone_arguments(t, cloning(t)); }
static uint64_t new_opening(struct thread *t) { return how_to_open(t, opening(t)); }
static uint64_t address(struct thread *t) {
    struct sockaddr_storage all;
    socket_address(t, &all);
    return placed(t, &all, sizeof all);
}
static uint64_t address_length(struct thread *t) { return one_in(t, 10) ? length(t) : PICK(t, ((uint64_t[]){16, 16, 28, 12, 20, 110, 13, 2, 0})); }
static uint64_t length_word(struct thread *t) {
    uint64_t value = length(t);
    return placed(t, &value, 4);
}
static uint64_t offset_word(struct thread *t) {
    uint64_t value = offset(t);
    return rnd(t, 2) ? 0 : placed(t, &value, 8);
}
static uint64_t attribute_name(struct thread *t) {
    return text_of(t, PICK(t, ((const char *[]){"user.a", "user.b", "user.", "trusted.a", "security.capability", "security.x", "system.posix_acl_access", "system.posix_acl_default", "", "a", "trusted.overlay.opaque"})));
}
static uint64_t capability_attribute(struct thread *t) {
    uint32_t all[6] = {0x02000001, (uint32_t)word(t), 0, (uint32_t)rnd(t, 2), 0, 0};
    char list[128];
    size_t n = access_list(t, list);
    return rnd(t, 2) ? placed(t, all, sizeof all) : placed(t, list, n);
}
static uint64_t queue_name(struct thread *t) {
    char text[16];
    sprintf(text, one_in(t, 10) ? "/q/%u" : "/q%u", rnd(t, 3));
    return text_of(t, text + (one_in(t, 4) ? 1 : 0));
}
static uint64_t file_system(struct thread *t) {
    return text_of(t, PICK(t, ((const char *[]){"tmpfs", "proc", "sysfs", "devpts", "mqueue", "overlay", "cgroup2", "devtmpfs", "ramfs", "", "nothing"})));
}
static uint64_t mount_options(struct thread *t) {
    return text_of(t, PICK(t, ((const char *[]){"", "size=1m", "mode=700", "size=1%", "nr_inodes=3", "uid=0,gid=5", "lowerdir=/tmp/t/a:/tmp/t/b", "lowerdir=/tmp/t/a,upperdir=/tmp/t/b,workdir=/tmp/t", "size=99999999999999999999", "hidepid=2", "ptmxmode=0666,newinstance", ","})));
}

struct rule {
    const char *call, *argument, *type; // NULL: any
    maker make;
};

static const struct rule rules[] = {
    {"pidfd_open", "pid", NULL, any_pid},
    {NULL, "pid", NULL, any_pid}, {NULL, "pid1", NULL, any_pid}, {NULL, "pid2", NULL, any_pid}, {NULL, "pgid", NULL, any_pid}, {NULL, "tid", NULL, any_pid},
    {NULL, "dirfd", "Fd", directory}, {NULL, "dir", "Fd", directory}, {NULL, "old_dirfd", "Fd", directory}, {NULL, "new_dirfd", "Fd", directory},
    {"mq_open", "name", NULL, queue_name}, {"mq_unlink", "name", NULL, queue_name},
    {NULL, "name", "PathArg", attribute_name}, {"fsetxattr", "value", NULL, capability_attribute}, {"setxattr", "value", NULL, capability_attribute},
    {"mount", "fs_type", NULL, file_system}, {"mount", "data", NULL, mount_options},
    {NULL, NULL, "Fd", descriptor}, {NULL, NULL, "PathArg", path},
    {NULL, NULL, "ProtFlags", protection}, {NULL, NULL, "MapFlags", kinds_of_mapping}, {NULL, NULL, "OpenFlags", opening},
    {NULL, NULL, "CloneFlags", cloning}, {NULL, NULL, "WaitFlags", waiting}, {NULL, NULL, "AtFlags", at},
    {"sendto", "flags", NULL, messages_flags}, {"recvfrom", "flags", NULL, messages_flags}, {"sendmsg", "flags", NULL, messages_flags},
    {"recvmsg", "flags", NULL, messages_flags}, {"sendmmsg", "flags", NULL, messages_flags}, {"recvmmsg", "flags", NULL, messages_flags},
    {"fchownat", "flags", NULL, at}, {"newfstatat", "flags", NULL, at}, {"unlinkat", "flags", NULL, at}, {"linkat", "flags", NULL, at},
    {"statx", "flags", NULL, at}, {"utimensat", "flags", NULL, at}, {"faccessat2", "flags", NULL, at}, {"fchmodat2", "flags", NULL, at},
    {"sendmsg", "message", NULL, one_message}, {"recvmsg", "message", NULL, one_message}, {NULL, "messages", NULL, some_messages},
    {"connect", "addr", NULL, address}, {"bind", "addr", NULL, address}, {"sendto", "addr", NULL, address}, {NULL, "addr_len", "i32", address_length},
    {"connect", "len", NULL, address_length}, {"bind", "len", NULL, address_length}, {NULL, NULL, "UserPtr<i32>", length_word},
    {"setsockopt", "name", NULL, option}, {"getsockopt", "name", NULL, option},
    {NULL, "vec", "UserAddr", vectors}, {NULL, "local", NULL, vectors}, {NULL, "remote", NULL, vectors},
    {"poll", "fds", NULL, polled}, {"ppoll", "fds", NULL, polled},
    {"select", "timeout", NULL, times}, {NULL, "read", NULL, descriptor_set}, {NULL, "write", NULL, descriptor_set}, {NULL, "except", NULL, descriptor_set},
    {"futex", "addr", NULL, futex_word}, {"futex", "addr2", NULL, futex_word}, {"futex", "timeout", NULL, times}, {NULL, "waiters", NULL, futex_waiters},
    {"semop", "ops", NULL, semaphore_operations}, {"semtimedop", "ops", NULL, semaphore_operations},
    {NULL, "argv", NULL, arguments}, {NULL, "envp", NULL, arguments}, {"clone3", "args", NULL, new_cloning}, {"openat2", "how", NULL, new_opening},
    {"seccomp", "args", NULL, filter_program}, {NULL, "handle", NULL, file_handle}, {"io_submit", "requests", NULL, asynchronous_requests},
    {NULL, NULL, "UserPtr<Timespec>", times}, {NULL, NULL, "UserPtr<[Timespec; 2]>", times}, {NULL, NULL, "UserPtr<Timeval>", times},
    {NULL, NULL, "UserPtr<[Timeval; 2]>", times}, {NULL, NULL, "UserPtr<Itimerspec>", times}, {NULL, NULL, "UserPtr<Itimerval>", times},
    {NULL, NULL, "UserPtr<Utimbuf>", times}, {NULL, NULL, "UserPtr<SigSet>", signal_set}, {NULL, NULL, "UserPtr<SigsetArg>", signal_set_and_size},
    {NULL, NULL, "UserPtr<SigInfo>", signal_info}, {NULL, NULL, "UserPtr<Sigevent>", signal_event}, {NULL, NULL, "UserPtr<SigAction>", signal_action},
    {NULL, NULL, "UserPtr<StackT>", signal_stack}, {NULL, NULL, "UserPtr<EpollEvent>", epoll_event}, {NULL, NULL, "UserPtr<Rlimit>", limit},
    {NULL, NULL, "UserPtr<CapHeader>", capability_header}, {NULL, NULL, "UserPtr<MqAttr>", queue_attributes}, {NULL, NULL, "UserPtr<i64>", offset_word},
    {NULL, NULL, "UserPtr<Stat>", output_page}, {NULL, NULL, "UserPtr<Statx>", output_page}, {NULL, NULL, "UserPtr<Statfs>", output_page},
    {NULL, "stack", NULL, mapping}, {"mincore", "vec", NULL, output_page}, {NULL, "list", NULL, output_page}, {NULL, "events", NULL, output_page},
    {"shmat", "addr", NULL, mapping}, {"shmdt", "addr", NULL, mapping}, {NULL, "addr", "u64", mapping}, {NULL, "new_addr", "u64", mapping},
    {"mmap", "len", NULL, mapping_length}, {"mprotect", "len", NULL, mapping_length}, {"munmap", "len", NULL, mapping_length}, {"madvise", "len", NULL, mapping_length},
    {"msync", "len", NULL, mapping_length}, {"mincore", "len", NULL, mapping_length}, {"mlock", "len", NULL, mapping_length}, {"mlock2", "len", NULL, mapping_length},
    {"munlock", "len", NULL, mapping_length}, {NULL, "old_len", NULL, mapping_length}, {NULL, "new_len", NULL, mapping_length}, {"mbind", "len", NULL, mapping_length},
    {"process_vm_readv", "flags", NULL, bits}, {"prctl", "a", NULL, small}, {"prctl", "b", NULL, words},
    {"ioctl", "arg", NULL, words}, {"fcntl", "arg", NULL, words}, {"ptrace", "addr", NULL, mapping}, {"ptrace", "data", NULL, words}, {"semctl", "arg", NULL, words},
    {NULL, "offset", NULL, offset}, {NULL, "flags", NULL, bits}, {NULL, "count", "usize", length}, {NULL, "size", NULL, length}, {NULL, "len", NULL, length},
    {"setsockopt", "value", NULL, words}, {NULL, NULL, "UserAddr", buffer}, {NULL, NULL, "UserPtr<u64>", words}, {NULL, NULL, NULL, NULL},
};

static maker maker_of(const char *call, const char *argument, const char *type) {
    const struct rule *rule = rules;
    for (; rule->make; rule++)
        if ((!rule->call || !strcmp(rule->call, call)) && (!rule->argument || !strcmp(rule->argument, argument)) && (!rule->type || !strcmp(rule->type, type)))
            return rule->make;
    return strncmp(type, "UserPtr", 7) ? number : words;
}

static int read_table(const char *file) {
    char line[512];
    FILE *from = fopen(file, "re");
    while (from && fgets(line, sizeof line, from)) {
        struct call *call = &calls[call_count];
        char *rest = line, *nr = strtok_r(rest, " \n", &rest), *name = strtok_r(rest, " \n", &rest), *word;
        if (!nr || !name || call_count == 512)
            continue;
        call->nr = atol(nr);
        snprintf(call->name, sizeof call->name, "%s", name);
        while ((word = strtok_r(rest, " \n", &rest)) && call->count < 6) {
            char *type = strchr(word, ':');
            if (!type)
                return -1;
            *type++ = 0;
            for (char *c = type; *c; c++) // [Timespec; 2] is written without its space
                if (*c == '~')
                    *c = ' ';
            call->constants[call->count] = constants_of(call->name, word);
            call->make[call->count++] = maker_of(call->name, word, type);
        }
        call_count++;
    }
    return from && call_count ? fclose(from) : -1;
}
