// The ends of the ranges of numbers: offsets, lengths, sums of lengths, addresses, stacks, headers of programs.
#include "check.h"
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/sem.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <elf.h>
#include <ucontext.h>

#define LAST LONG_MAX
#define LOW LONG_MIN

static char page[65536] __attribute__((aligned(4096)));

static int file(void) {
    int fd = OK(open("f", O_RDWR | O_CREAT, 0644));
    CHECK_EQ(write(fd, "0123456789", 10), 10);
    return fd;
}

TEST(offsets_of_transfers) {
    int fd = file();
    struct iovec v = {page, 10};
    CHECK_EQ(pread(fd, page, 10, LAST - 10), 0);
    ERR(pread(fd, page, 10, LAST), EINVAL);
    ERR(pread(fd, page, 10, -1), EINVAL);
    ERR(preadv(fd, &v, 1, LOW), EINVAL);
    ERR(pwrite(fd, page, 10, -1), EINVAL);
    ERR(pwrite(fd, page, 10, LOW), EINVAL);
    CHECK(pwrite(fd, page, 10, LAST - 1) == -1 && (errno == EFBIG || errno == EINVAL));
    ERR(syscall(SYS_read, fd, page, SIZE_MAX), EFAULT);
}

TEST(sums_of_lengths) {
    int fd = file();
    struct iovec v[3] = {{page, 10}, {page, LAST}, {page, LAST}};
    ERR(syscall(SYS_writev, fd, v, -1), EINVAL);
    v[0].iov_len = SIZE_MAX;
    ERR(readv(fd, v, 1), EINVAL);
    v[0].iov_len = LAST;
    ERR(pwritev(fd, v, 3, LAST), EFAULT);
    v[0].iov_len = 10;
    ERR(preadv(fd, v, 1, LAST), EINVAL);
    ERR(pwritev(fd, v, 1, LAST - 9), EINVAL);
    ERR(syscall(SYS_writev, fd, v, IOV_MAX + 1), EINVAL);
    ERR(process_vm_readv(getpid(), v, 1, (struct iovec[]){{page, SIZE_MAX}}, 1, 0), EINVAL);
    ERR(process_vm_readv(getpid(), v, 1, v, LAST, 0), EINVAL);
}

TEST(seek_beyond) {
    int fd = file();
    CHECK(lseek(fd, LAST, SEEK_SET) == LAST || errno == EINVAL);
    OK(lseek(fd, 10, SEEK_SET));
    CHECK(lseek(fd, LAST, SEEK_CUR) == -1 && (errno == EOVERFLOW || errno == EINVAL));
    CHECK(lseek(fd, LAST, SEEK_END) == -1 && (errno == EOVERFLOW || errno == EINVAL));
    ERR(lseek(fd, LOW, SEEK_CUR), EINVAL);
    ERR(lseek(fd, LOW, SEEK_END), EINVAL);
    ERR(lseek(fd, LAST, SEEK_DATA), ENXIO);
    CHECK_EQ(lseek(fd, 0, SEEK_CUR), 10);
}

TEST(sizes_of_files) {
    int fd = file();
    ERR(ftruncate(fd, LOW), EINVAL);
    ERR(fallocate(fd, 0, LAST, LAST), EFBIG);
    ERR(fallocate(fd, 0, 0, LOW), EINVAL);
    ERR(fallocate(fd, 0, -1, 1), EINVAL);
    ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, LAST, 1), EFBIG);
    OK(posix_fadvise(fd, LAST, LAST, POSIX_FADV_DONTNEED));
    ERR(sync_file_range(fd, LAST, LAST, 0), EINVAL);
    ERR(sync_file_range(fd, -1, 0, 0), EINVAL);
    CHECK_EQ(lseek(fd, 0, SEEK_END), 10);
}

TEST(copies_between_files) {
    int in = file(), out = OK(open("g", O_RDWR | O_CREAT, 0644));
    off_t at = LAST;
    CHECK(sendfile(out, in, &at, 10) <= 0);
    at = -1;
    ERR(sendfile(out, in, &at, 10), EINVAL);
    off_t from = LAST, to = 0;
    CHECK(copy_file_range(in, &from, out, &to, 10, 0) <= 0);
    from = 0, to = LAST;
    ERR(copy_file_range(in, &from, out, &to, SIZE_MAX, 0), EOVERFLOW);
    from = LAST, to = 0;
    ERR(copy_file_range(in, &from, out, &to, SIZE_MAX, 0), EOVERFLOW);
}

static void lock(int fd, int command, long start, long length, int want) {
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
    errno = 0;
    int got = fcntl(fd, command, &l);
    if (got != (want ? -1 : 0) || errno != want)
        FAIL("lock from %ld for %ld: %d, errno %d, want %d", start, length, got, errno, want);
}

TEST(ranges_of_locks) {
    int fd = file();
    lock(fd, F_SETLK, LAST, 1, 0);
    lock(fd, F_SETLK, LAST, 2, EOVERFLOW);
    lock(fd, F_SETLK, 1, LAST, 0);
    lock(fd, F_SETLK, 2, LAST, EOVERFLOW);
    lock(fd, F_SETLK, 0, LOW, EINVAL);
    lock(fd, F_SETLK, 5, -6, EINVAL);
    lock(fd, F_SETLK, LOW, 1, EINVAL);
    lock(fd, F_SETLK, LAST, -LAST, 0);
    lock(fd, F_SETLK, 0, LAST, 0);
    struct flock seen = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    EXITED(wait_for(CHILD({
        OK(fcntl(fd, F_GETLK, &seen));
        CHECK_EQ(seen.l_start, 0);
        CHECK_EQ(seen.l_len, 0); // up to the last byte that there can be
    })), 0);
    OK(lseek(fd, 10, SEEK_SET));
    struct flock relative = {.l_type = F_RDLCK, .l_whence = SEEK_CUR, .l_start = LAST, .l_len = 1};
    ERR(fcntl(fd, F_SETLK, &relative), EOVERFLOW);
    relative.l_start = LOW;
    ERR(fcntl(fd, F_SETLK, &relative), EINVAL);
}

TEST(addresses_of_mappings) {
    int fd = file();
    ERR(mmap(NULL, SIZE_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ERR(mmap(NULL, SIZE_MAX - 4095, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), ENOMEM);
    ERR((void *)syscall(SYS_mmap, 0, 8192, PROT_READ, MAP_PRIVATE, fd, -4096ul), EOVERFLOW);
    ERR(mmap((void *)-4096ul, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), ENOMEM);
    ERR(munmap((void *)-4096ul, 4096), EINVAL);
    ERR(munmap(page, SIZE_MAX), EINVAL);
    ERR(mprotect((void *)-4096ul, 8192, PROT_READ), ENOMEM);
    ERR(mprotect(page, SIZE_MAX, PROT_READ), ENOMEM);
    ERR(madvise((void *)-4096ul, 8192, MADV_DONTNEED), EINVAL);
    ERR(madvise(page, SIZE_MAX - 4095, MADV_DONTNEED), EINVAL);
    ERR(msync((void *)-4096ul, 8192, MS_SYNC), ENOMEM);
    ERR(mlock((void *)-4096ul, 8192), EINVAL);
    ERR(mincore((void *)-4096ul, 8192, (void *)page), ENOMEM);
    ERR(mremap(page, 4096, SIZE_MAX, MREMAP_MAYMOVE), EINVAL);
    ERR(mremap(page, SIZE_MAX - 4095, 4096, MREMAP_MAYMOVE), EINVAL);
    ERR(mremap(page, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)-4096ul), EINVAL);
    void *before = sbrk(0);
    CHECK(syscall(SYS_brk, -1ul) == (long)before);
    CHECK(syscall(SYS_brk, LAST) == (long)before);
}

TEST(buffers_at_the_top) {
    int fd = file();
    ERR(pread(fd, (void *)-8ul, 8, 0), EFAULT);
    ERR(pread(fd, (void *)-8ul, 64, 0), EFAULT);
    ERR(pread(fd, (void *)0x7ffffffff000, 4096, 0), EFAULT);
    ERR(write(fd, (void *)-1ul, 10), EFAULT);
    ERR(open((void *)-3ul, O_RDONLY), EFAULT);
    ERR(syscall(SYS_getcwd, (void *)-8ul, SIZE_MAX), EFAULT);
    ERR(syscall(SYS_getrandom, (void *)-8ul, SIZE_MAX, 0), EFAULT);
    ERR(syscall(SYS_getdents64, OK(open(".", O_RDONLY)), (void *)-8ul, UINT_MAX), EINVAL);
    ERR(syscall(SYS_execve, "/proc/self/exe", (void *)-8ul, NULL), EFAULT);
    ERR(syscall(SYS_poll, (void *)-8ul, 2, 0), EFAULT);
    ERR(syscall(SYS_futex, (void *)-4ul, 0, 0, NULL), EFAULT);
}

TEST(sizes_of_system_v_objects) {
    ERR(shmget(IPC_PRIVATE, SIZE_MAX, 0600), EINVAL);
    CHECK(shmget(IPC_PRIVATE, LAST, 0600) == -1 && (errno == ENOMEM || errno == EINVAL || errno == ENOSPC));
    ERR(semget(IPC_PRIVATE, INT_MAX, 0600), EINVAL);
    ERR(semget(IPC_PRIVATE, -1, 0600), EINVAL);
    int id = OK(semget(IPC_PRIVATE, 2, 0600));
    struct sembuf up = {0, SHRT_MAX, 0}, down = {0, SHRT_MIN, IPC_NOWAIT};
    OK(semop(id, &up, 1));
    ERR(semop(id, &up, 1), ERANGE);
    ERR(semop(id, &down, 1), EAGAIN);
    ERR(semctl(id, 0, SETVAL, INT_MAX), ERANGE);
    ERR(semctl(id, 0, SETVAL, INT_MIN), ERANGE);
    ERR(semctl(id, INT_MAX, GETVAL), EINVAL);
    ERR(semop(id, &up, SIZE_MAX), E2BIG);
    OK(semctl(id, 0, IPC_RMID));
    ERR(shmat(INT_MAX, (void *)-1ul, 0), EINVAL);
}

// A guest that waits for longer than any clock goes waits; it does not end the world.
TEST(timeouts_of_sockets) {
    int pair[2];
    OK(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    const struct timeval times[] = {{LAST, 999999}, {LAST, 0}, {LAST / 10, 0}, {LAST / 1000, 0}, {1ll << 40, 0}};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        OK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &times[i], sizeof times[i]));
        OK(setsockopt(pair[0], SOL_SOCKET, SO_SNDTIMEO, &times[i], sizeof times[i]));
        pid_t pid = CHILD({
            sleep_ms(30);
            CHECK_EQ(write(pair[1], "x", 1), 1);
        });
        CHECK_EQ(recv(pair[0], page, 1, 0), 1);
        EXITED(wait_for(pid), 0);
        pid = CHILD({
            sleep_ms(30);
            CHECK_EQ(write(pair[1], "x", 1), 1);
        });
        CHECK_EQ(read(pair[0], page, 1), 1);
        EXITED(wait_for(pid), 0);
    }
    struct timeval got;
    socklen_t length = sizeof got;
    OK(setsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &times[0], sizeof times[0]));
    OK(getsockopt(pair[0], SOL_SOCKET, SO_RCVTIMEO, &got, &length));
    CHECK_EQ(got.tv_sec, 0); // for ever
}

TEST(lengths_of_messages) {
    int pair[2];
    OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, pair));
    struct iovec v = {page, LAST};
    struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
    CHECK(sendmsg(pair[0], &m, MSG_DONTWAIT) == -1 && (errno == EMSGSIZE || errno == EFAULT));
    v.iov_len = SIZE_MAX;
    ERR(sendmsg(pair[0], &m, MSG_DONTWAIT), EINVAL);
    v.iov_len = 1;
    m.msg_iovlen = SIZE_MAX;
    ERR(sendmsg(pair[0], &m, MSG_DONTWAIT), EMSGSIZE);
    m.msg_iovlen = 1, m.msg_control = page, m.msg_controllen = SIZE_MAX;
    ERR(sendmsg(pair[0], &m, MSG_DONTWAIT), ENOBUFS);
    struct cmsghdr *c = (void *)page;
    *c = (struct cmsghdr){.cmsg_len = SIZE_MAX, .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    m.msg_controllen = 64;
    ERR(sendmsg(pair[0], &m, MSG_DONTWAIT), EINVAL);
    c->cmsg_len = SIZE_MAX - 7;
    ERR(sendmsg(pair[0], &m, MSG_DONTWAIT), EINVAL);
    ERR(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, page, -1), EINVAL);
    int size = INT_MAX;
    OK(setsockopt(pair[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof size));
    size = INT_MIN;
    OK(setsockopt(pair[0], SOL_SOCKET, SO_RCVBUF, &size, sizeof size));
}

TEST(descriptors_out_of_range) {
    ERR(dup2(0, INT_MAX), EBADF);
    ERR(dup2(0, INT_MIN), EBADF);
    ERR(fcntl(0, F_DUPFD, INT_MAX), EINVAL);
    ERR(fcntl(0, F_DUPFD, LAST), EINVAL);
    ERR(syscall(SYS_close_range, 5, 4, 0), EINVAL);
    OK(syscall(SYS_close_range, INT_MAX, UINT_MAX, 0));
    ERR(syscall(SYS_select, INT_MIN, NULL, NULL, NULL, NULL), EINVAL);
    ERR(syscall(SYS_poll, NULL, ULONG_MAX, 0), EINVAL);
}

static void on_signal(int number) {
    (void)number;
    _exit(5);
}

// A signal on a stack at either end of the addresses: the process dies of it, and nothing else does.
TEST(stacks_of_signals) {
    static const unsigned long stacks[] = {0, 1, 8, 100, 127, 128, 129, 4096, 0x7ffffffff000, 0x800000000000, LAST, -4096ul, -129ul, -128ul, -8ul, -1ul};
    for (size_t i = 0; i < sizeof stacks / sizeof *stacks; i++) {
        pid_t pid = CHILD({
            signal(SIGUSR1, on_signal);
            register long pid __asm__("rdi") = getpid();
            __asm__ volatile("mov %0, %%rsp\n\tmov $62, %%eax\n\tmov $10, %%esi\n\tsyscall\n\thlt" : : "r"(stacks[i]), "r"(pid) : "rax", "rsi", "rcx", "r11");
        });
        int status = wait_for(pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSEGV)
            FAIL("rsp %#lx: status %#x", stacks[i], status);
    }
    stack_t s = {.ss_sp = (void *)-4096ul, .ss_size = SIZE_MAX};
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
    for (int i = 0; i < 3; i++) {
        pid_t pid = CHILD({
            if (!sigaltstack(&s, NULL)) {
                sigaction(SIGUSR1, &action, NULL);
                raise(SIGUSR1);
            } else {
                raise(SIGSEGV);
            }
        });
        int status = wait_for(pid);
        // A stack that begins at the top and goes round ends at an address that is good.
        if (!(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV) && !(WIFEXITED(status) && WEXITSTATUS(status) == 5))
            FAIL("stack at %p: status %#x", s.ss_sp, status);
        s = (stack_t){.ss_sp = (void *)(i ? -1ul : 0), .ss_size = i ? 1 << 20 : SIZE_MAX};
    }
}

// Programs whose headers point to the ends of files and memory. They fail by an error, or die of a signal at the latest.
TEST(headers_of_programs) {
    static const uint64_t ends[] = {0, 4095, 0x7fffffffe000, 0x7ffffffff000, 0x800000000000, LAST, -4096ul, -1ul};
    struct { Elf64_Ehdr header; Elf64_Phdr segment[2]; } image;
    for (unsigned field = 0; field < 10; field++)
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            memset(&image, 0, sizeof image);
            memcpy(image.header.e_ident, ELFMAG "\2\1\1", 7);
            image.header.e_type = field % 2 ? ET_EXEC : ET_DYN, image.header.e_machine = EM_X86_64, image.header.e_version = 1;
            image.header.e_phoff = sizeof image.header, image.header.e_ehsize = sizeof image.header;
            image.header.e_phentsize = sizeof(Elf64_Phdr), image.header.e_phnum = 2;
            for (int n = 0; n < 2; n++)
                image.segment[n] = (Elf64_Phdr){.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x400000 + 0x10000ul * n,
                                                .p_filesz = sizeof image, .p_memsz = 4096, .p_align = 4096};
            uint64_t value = ends[i];
            switch (field) {
            case 0: case 1: image.segment[0].p_vaddr = value; break;
            case 2: image.segment[1].p_vaddr = value; break;
            case 3: image.segment[1].p_memsz = value; break;
            case 4: image.segment[0].p_filesz = image.segment[0].p_memsz = value; break;
            case 5: image.segment[1].p_offset = value; break;
            case 6: image.header.e_phoff = value; break;
            case 7: image.header.e_entry = value; break;
            case 8: image.segment[0].p_align = value; break;
            default: image.segment[0].p_type = PT_INTERP, image.segment[0].p_offset = value; image.segment[0].p_filesz = value; break;
            }
            int fd = OK(open("program", O_WRONLY | O_CREAT | O_TRUNC, 0755));
            CHECK_EQ(write(fd, &image, sizeof image), sizeof image);
            close(fd);
            pid_t pid = CHILD({
                execl("program", "program", NULL);
                _exit(77);
            });
            int status = wait_for(pid);
            if (!(WIFEXITED(status) && WEXITSTATUS(status) == 77) && !WIFSIGNALED(status))
                FAIL("field %u, %#lx: status %#x", field, (unsigned long)value, status);
        }
}
