// System V IPC: shared memory, semaphores, message queues.
#include "check.h"
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#define PAGE 4096

union semun {
    int val;
    struct semid_ds *buf;
    unsigned short *array;
};

struct message {
    long type;
    char text[64];
};

static void on_signal(int n) {
    (void)n;
}

static void catch_alarm(int flags, int ms) {
    struct sigaction a = {.sa_handler = on_signal, .sa_flags = flags};
    OK(sigaction(SIGALRM, &a, NULL));
    struct itimerval t = {.it_value = {ms / 1000, ms % 1000 * 1000}};
    OK(setitimer(ITIMER_REAL, &t, NULL));
}

static key_t fresh_key(void) {
    return 0x4d000000 | (getpid() & 0xffffff);
}

static int op(int id, int number, int by, int flags) {
    struct sembuf o = {number, by, flags};
    return semop(id, &o, 1);
}

static unsigned long attached(int id) {
    struct shmid_ds d;
    OK(shmctl(id, IPC_STAT, &d));
    return d.shm_nattch;
}

TEST(shm_keys_and_sizes) {
    key_t key = fresh_key();
    ERR(shmget(key, PAGE, 0), ENOENT);
    int id = OK(shmget(key, 100, IPC_CREAT | 0600));
    CHECK_EQ(shmget(key, 100, 0), id);
    CHECK_EQ(shmget(key, 0, 0), id);
    ERR(shmget(key, 101, 0), EINVAL);
    ERR(shmget(key, 100, IPC_CREAT | IPC_EXCL), EEXIST);
    ERR(shmget(IPC_PRIVATE, 0, 0600), EINVAL);
    struct shmid_ds d;
    OK(shmctl(id, IPC_STAT, &d));
    CHECK_EQ(d.shm_segsz, 100);
    CHECK_EQ(d.shm_perm.mode, 0600);
    CHECK_EQ(d.shm_cpid, getpid());
    CHECK_EQ(d.shm_perm.__key, key);
    CHECK_EQ(d.shm_atime, 0);
    CHECK(d.shm_ctime != 0);
    OK(shmctl(id, IPC_RMID, NULL));
    ERR(shmget(key, 100, 0), ENOENT);
    ERR(shmctl(id, IPC_STAT, &d), EINVAL);
    ERR(shmctl(-1, IPC_STAT, &d), EINVAL);
}

TEST(shm_attach_and_detach) {
    int id = OK(shmget(IPC_PRIVATE, 3 * PAGE, 0600));
    char *a = OK((char *)shmat(id, NULL, 0));
    char *b = OK((char *)shmat(id, NULL, SHM_RDONLY));
    CHECK_EQ(attached(id), 2);
    a[PAGE] = 5;
    CHECK_EQ(b[PAGE], 5);
    ERR(mprotect(b, PAGE, PROT_READ | PROT_WRITE), EACCES);
    ERR(shmat(id, a, 0), EINVAL);
    ERR(shmat(id, a + 1, 0), EINVAL);
    ERR(shmat(id, NULL, SHM_REMAP), EINVAL);
    ERR(shmdt(a + PAGE), EINVAL);
    CHECK(shmat(id, b + 7, SHM_RND | SHM_REMAP) == b);
    CHECK_EQ(attached(id), 2);
    b[PAGE] = 6;
    CHECK_EQ(a[PAGE], 6);
    // A hole splits an attachment, each part of which counts.
    OK(munmap(a + PAGE, PAGE));
    CHECK_EQ(attached(id), 3);
    OK(shmdt(a));
    CHECK_EQ(attached(id), 1);
    OK(shmdt(b));
    ERR(shmdt(b), EINVAL);
    struct shmid_ds d;
    OK(shmctl(id, IPC_STAT, &d));
    CHECK(d.shm_dtime != 0 && d.shm_lpid == getpid());
    OK(shmctl(id, IPC_RMID, NULL));
}

TEST(shm_lives_until_the_last_detach) {
    int id = OK(shmget(IPC_PRIVATE, PAGE, 0600));
    int *p = OK((int *)shmat(id, NULL, 0));
    pid_t child = CHILD({
        CHECK_EQ(attached(id), 2);
        p[0] = 7;
    });
    EXITED(wait_for(child), 0);
    CHECK_EQ(attached(id), 1);
    CHECK_EQ(p[0], 7);
    OK(shmctl(id, IPC_RMID, NULL));
    struct shmid_ds d;
    OK(shmctl(id, IPC_STAT, &d));
    CHECK_EQ(d.shm_perm.mode & SHM_DEST, SHM_DEST);
    int *q = OK((int *)shmat(id, NULL, 0));
    CHECK_EQ(q[0], 7);
    OK(shmdt(p));
    OK(shmdt(q));
    ERR(shmctl(id, IPC_STAT, &d), EINVAL);
}

TEST(shm_limits_and_lists) {
    int id = OK(shmget(IPC_PRIVATE, 2 * PAGE, 0640));
    struct shminfo limits;
    int highest = OK(shmctl(0, IPC_INFO, (struct shmid_ds *)&limits));
    CHECK_EQ(limits.shmmin, 1);
    CHECK(limits.shmmni >= 4096);
    struct shm_info info;
    OK(shmctl(0, SHM_INFO, (struct shmid_ds *)&info));
    CHECK(info.used_ids >= 1 && info.shm_tot >= 2);
    int found = 0;
    struct shmid_ds d;
    for (int i = 0; i <= highest; i++)
        found |= shmctl(i, SHM_STAT, &d) == id;
    CHECK(found);
    FILE *f = OK(fopen("/proc/sysvipc/shm", "r") ?: (FILE *)-1);
    char line[400], want[60];
    sprintf(want, " %d   640 %21d", id, 2 * PAGE);
    found = 0;
    while (fgets(line, sizeof line, f))
        found |= strstr(line, want) != NULL;
    CHECK(found);
    fclose(f);
    OK(shmctl(id, IPC_RMID, NULL));
}

TEST(permissions_of_others) {
    int shm = OK(shmget(IPC_PRIVATE, PAGE, 0644));
    int sem = OK(semget(IPC_PRIVATE, 1, 0600));
    int msg = OK(msgget(IPC_PRIVATE, 0622));
    pid_t child = CHILD({
        OK(setgid(1000));
        OK(setuid(1000));
        ERR(shmat(shm, NULL, 0), EACCES);
        OK(shmat(shm, NULL, SHM_RDONLY));
        ERR(shmctl(shm, IPC_RMID, NULL), EPERM);
        ERR(op(sem, 0, 1, 0), EACCES);
        ERR(semctl(sem, 0, GETVAL), EACCES);
        ERR(semctl(sem, 0, IPC_RMID), EPERM);
        struct message m = {1, "x"};
        OK(msgsnd(msg, &m, 1, 0));
        ERR(msgrcv(msg, &m, 1, 0, 0), EACCES);
    });
    EXITED(wait_for(child), 0);
    struct shmid_ds d;
    OK(shmctl(shm, IPC_STAT, &d));
    d.shm_perm.uid = 1000;
    d.shm_perm.mode = 0400;
    OK(shmctl(shm, IPC_SET, &d));
    child = CHILD({
        OK(setuid(1000));
        ERR(shmat(shm, NULL, 0), EACCES);
        OK(shmctl(shm, IPC_RMID, NULL));
    });
    EXITED(wait_for(child), 0);
    OK(semctl(sem, 0, IPC_RMID));
    OK(msgctl(msg, IPC_RMID, NULL));
}

TEST(sem_values) {
    ERR(semget(IPC_PRIVATE, 0, 0600), EINVAL);
    ERR(semget(IPC_PRIVATE, -1, 0600), EINVAL);
    int id = OK(semget(IPC_PRIVATE, 3, 0600));
    unsigned short values[3] = {1, 2, 3};
    OK(semctl(id, 0, SETALL, (union semun){.array = values}));
    memset(values, 0, sizeof values);
    OK(semctl(id, 0, GETALL, (union semun){.array = values}));
    CHECK(values[0] == 1 && values[1] == 2 && values[2] == 3);
    OK(semctl(id, 1, SETVAL, (union semun){.val = 9}));
    CHECK_EQ(semctl(id, 1, GETVAL), 9);
    CHECK_EQ(semctl(id, 1, GETPID), getpid());
    ERR(semctl(id, 1, SETVAL, (union semun){.val = 32768}), ERANGE);
    ERR(semctl(id, 1, SETVAL, (union semun){.val = -1}), ERANGE);
    ERR(semctl(id, 3, GETVAL), EINVAL);
    ERR(semctl(id, 0, 99), EINVAL);
    ERR(op(id, 3, 1, 0), EFBIG);
    OK(semctl(id, 0, SETVAL, (union semun){.val = 32767}));
    ERR(op(id, 0, 1, 0), ERANGE);
    ERR(semop(id, NULL, 1), EFAULT);
    ERR(semop(id, NULL, 0), EINVAL);
    ERR(semop(id, NULL, 501), E2BIG);
    // All or nothing.
    struct sembuf both[2] = {{1, -1, 0}, {2, -4, IPC_NOWAIT}};
    ERR(semop(id, both, 2), EAGAIN);
    CHECK_EQ(semctl(id, 1, GETVAL), 9);
    struct semid_ds d;
    OK(semctl(id, 0, IPC_STAT, (union semun){.buf = &d}));
    CHECK_EQ(d.sem_nsems, 3);
    CHECK_EQ(d.sem_otime, 0);
    OK(op(id, 1, -1, 0));
    OK(semctl(id, 0, IPC_STAT, (union semun){.buf = &d}));
    CHECK(d.sem_otime != 0);
    OK(semctl(id, 0, IPC_RMID));
    ERR(semctl(id, 0, GETVAL), EINVAL);
}

TEST(sem_waits) {
    int id = OK(semget(IPC_PRIVATE, 2, 0600));
    pid_t decrease = CHILD(OK(op(id, 0, -2, 0)));
    while (!OK(semctl(id, 0, GETNCNT)))
        sleep_ms(5);
    OK(op(id, 0, 1, 0));
    CHECK_EQ(semctl(id, 0, GETNCNT), 1);
    pid_t zero = CHILD(OK(op(id, 0, 0, 0)));
    while (!OK(semctl(id, 0, GETZCNT)))
        sleep_ms(5);
    OK(op(id, 0, 1, 0));
    EXITED(wait_for(decrease), 0);
    EXITED(wait_for(zero), 0);
    CHECK_EQ(semctl(id, 0, GETVAL), 0);
    CHECK_EQ(semctl(id, 0, GETNCNT), 0);
    CHECK_EQ(semctl(id, 0, GETZCNT), 0);
    pid_t removed = CHILD(ERR(op(id, 1, -1, 0), EIDRM));
    while (!OK(semctl(id, 1, GETNCNT)))
        sleep_ms(5);
    OK(semctl(id, 0, IPC_RMID));
    EXITED(wait_for(removed), 0);
}

TEST(sem_timeout_and_signals) {
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    struct sembuf o = {0, -1, 0};
    struct timespec t = {0, 50 * 1000 * 1000};
    long long start = now_ms();
    ERR(semtimedop(id, &o, 1, &t), EAGAIN);
    CHECK(now_ms() - start >= 49);
    t.tv_nsec = 1000000000;
    ERR(semtimedop(id, &o, 1, &t), EINVAL);
    // Never restarted.
    catch_alarm(SA_RESTART, 50);
    ERR(semop(id, &o, 1), EINTR);
    CHECK_EQ(semctl(id, 0, GETNCNT), 0);
    OK(semctl(id, 0, IPC_RMID));
}

TEST(sem_undo) {
    int id = OK(semget(IPC_PRIVATE, 1, 0600));
    OK(semctl(id, 0, SETVAL, (union semun){.val = 2}));
    EXITED(wait_for(CHILD(OK(op(id, 0, -2, SEM_UNDO)); OK(op(id, 0, 5, 0)))), 0);
    CHECK_EQ(semctl(id, 0, GETVAL), 7);
    EXITED(wait_for(CHILD(OK(op(id, 0, 3, SEM_UNDO)); OK(op(id, 0, -8, 0)))), 0);
    CHECK_EQ(semctl(id, 0, GETVAL), 0);
    // A lock that is given back by a killed process.
    OK(op(id, 0, 1, 0));
    pid_t child = CHILD(OK(op(id, 0, -1, SEM_UNDO)); pause());
    while (OK(semctl(id, 0, GETVAL)))
        sleep_ms(5);
    OK(kill(child, SIGKILL));
    OK(op(id, 0, -1, 0));
    KILLED(wait_for(child), SIGKILL);
    // Setting a value forgets what was to be undone.
    EXITED(wait_for(CHILD(OK(op(id, 0, 4, SEM_UNDO)); OK(semctl(id, 0, SETVAL, (union semun){.val = 6})))), 0);
    CHECK_EQ(semctl(id, 0, GETVAL), 6);
    OK(semctl(id, 0, IPC_RMID));
}

TEST(msg_types) {
    int id = OK(msgget(IPC_PRIVATE, 0600));
    struct message m;
    long types[] = {5, 2, 9, 2};
    for (int i = 0; i < 4; i++) {
        m.type = types[i];
        m.text[0] = 'a' + i;
        OK(msgsnd(id, &m, 1, 0));
    }
    CHECK_EQ(msgrcv(id, &m, 64, -4, 0), 1);
    CHECK(m.type == 2 && m.text[0] == 'b');
    CHECK_EQ(msgrcv(id, &m, 64, 5, MSG_EXCEPT), 1);
    CHECK_EQ(m.type, 9);
    CHECK_EQ(msgrcv(id, &m, 64, 2, 0), 1);
    CHECK_EQ(m.text[0], 'd');
    ERR(msgrcv(id, &m, 64, 2, IPC_NOWAIT), ENOMSG);
    CHECK_EQ(msgrcv(id, &m, 64, 0, 0), 1);
    CHECK_EQ(m.text[0], 'a');
    m.type = 0;
    ERR(msgsnd(id, &m, 1, 0), EINVAL);
    m.type = 1;
    ERR(msgsnd(id, &m, -1, 0), EINVAL);
    ERR(msgsnd(id, &m, 8193, 0), EINVAL);
    ERR(msgsnd(id, BAD_ADDRESS, 1, 0), EFAULT);
    strcpy(m.text, "longer");
    OK(msgsnd(id, &m, 6, 0));
    ERR(msgrcv(id, &m, 3, 0, 0), E2BIG);
    memset(&m, 0, sizeof m);
    CHECK_EQ(msgrcv(id, &m, 3, 0, MSG_NOERROR), 3);
    STR_EQ(m.text, "lon");
    OK(msgsnd(id, &m, 0, 0));
    CHECK_EQ(msgrcv(id, &m, 3, 0, 0), 0);
    OK(msgctl(id, IPC_RMID, NULL));
    ERR(msgrcv(id, &m, 3, 0, 0), EINVAL);
}

TEST(msg_waits) {
    int id = OK(msgget(IPC_PRIVATE, 0600));
    struct message m = {1, "ping"};
    pid_t child = CHILD({
        struct message r;
        CHECK_EQ(msgrcv(id, &r, 64, 3, 0), 4);
        STR_EQ(r.text, "ping");
    });
    sleep_ms(30);
    OK(msgsnd(id, &m, 5, 0));
    m.type = 3;
    OK(msgsnd(id, &m, 4, 0));
    EXITED(wait_for(child), 0);

    static struct { long type; char text[8192]; } big = {1, ""};
    ERR(msgsnd(id, &big, 8192, IPC_NOWAIT) ?: msgsnd(id, &big, 8192, IPC_NOWAIT), EAGAIN);
    child = CHILD(OK(msgsnd(id, &big, 8192, 0)));
    sleep_ms(30);
    struct msqid_ds d;
    OK(msgctl(id, IPC_STAT, &d));
    CHECK_EQ(d.msg_qnum, 2);
    CHECK_EQ(d.__msg_cbytes, 8197);
    CHECK_EQ(d.msg_qbytes, 16384);
    CHECK_EQ(msgrcv(id, &big, 8192, 0, 0), 5);
    EXITED(wait_for(child), 0);

    catch_alarm(SA_RESTART, 50);
    ERR(msgrcv(id, &m, 64, 77, 0), EINTR);
    catch_alarm(SA_RESTART, 50);
    ERR(msgsnd(id, &big, 8192, 0), EINTR);
    child = CHILD(ERR(msgrcv(id, &m, 64, 77, 0), EIDRM));
    sleep_ms(50);
    OK(msgctl(id, IPC_RMID, NULL));
    EXITED(wait_for(child), 0);
}

TEST(namespaces) {
    key_t key = fresh_key();
    int sem = OK(semget(key, 1, IPC_CREAT | 0600));
    int shm = OK(shmget(key, PAGE, IPC_CREAT | 0600));
    int msg = OK(msgget(key, IPC_CREAT | 0600));
    char *p = OK((char *)shmat(shm, NULL, 0));
    ERR(syscall(SYS_clone, CLONE_NEWIPC | CLONE_SYSVSEM | SIGCHLD, 0, 0, 0, 0), EINVAL);
    int gone[2], go[2];
    OK(pipe(gone));
    OK(pipe(go));
    pid_t child = CHILD({
        OK(op(sem, 0, 2, SEM_UNDO));
        CHECK_EQ(semctl(sem, 0, GETVAL), 2);
        OK(unshare(CLONE_NEWIPC));
        OK(write(gone[1], "", 1));
        char c;
        OK(read(go[0], &c, 1));
        ERR(semget(key, 1, 0), ENOENT);
        ERR(shmget(key, 1, 0), ENOENT);
        ERR(msgget(key, 0), ENOENT);
        CHECK_EQ(semget(key, 1, IPC_CREAT | 0600), 0);
        p[0] = 9; // what is attached stays
        OK(shmdt(p));
    });
    char c;
    OK(read(gone[0], &c, 1));
    // The semaphore was given back when the process left the namespace.
    CHECK_EQ(semctl(sem, 0, GETVAL), 0);
    OK(write(go[1], "", 1));
    EXITED(wait_for(child), 0);
    CHECK_EQ(p[0], 9);
    OK(semctl(sem, 0, IPC_RMID));
    OK(shmctl(shm, IPC_RMID, NULL));
    OK(msgctl(msg, IPC_RMID, NULL));
}
