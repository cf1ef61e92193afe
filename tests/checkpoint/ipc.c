// System V shared memory, semaphores and message queues; POSIX message queues.
#include "check.h"
#include <mqueue.h>
#include <poll.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

union semun {
    int val;
    unsigned short *array;
};

TEST(a_segment) {
    int id = shmget(0x1234, 10000, IPC_CREAT | 0640);
    CHECK(id >= 0);
    char *a = shmat(id, NULL, 0), *b = shmat(id, NULL, SHM_RDONLY);
    CHECK(a != (void *)-1 && b != (void *)-1);
    strcpy(a, "shared");
    a[9000] = 7;
    RESTORED();
    CHECK(!strcmp(b, "shared") && b[9000] == 7 && b[5000] == 0);
    a[0] = 'S';
    CHECK_EQ(b[0], 'S');
    struct shmid_ds ds;
    CHECK(!shmctl(id, IPC_STAT, &ds) && ds.shm_segsz == 10000 && ds.shm_nattch == 2 && ds.shm_cpid == getpid() && (ds.shm_perm.mode & 0777) == 0640);
    CHECK_EQ(shmget(0x1234, 0, 0), id);
    CHECK(!shmdt(b) && !shmctl(id, IPC_STAT, &ds) && ds.shm_nattch == 1);
    CHECK(!shmctl(id, IPC_RMID, NULL) && a[0] == 'S' && !shmdt(a) && shmctl(id, IPC_STAT, &ds) < 0);
}

TEST(a_segment_that_was_removed) {
    int id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0600), kept = shmget(0x777, 4096, IPC_CREAT | 0600);
    int *a = shmat(id, NULL, 0), status;
    struct shmid_ds ds;
    CHECK(!shmctl(id, IPC_RMID, NULL));
    *a = 1;
    pid_t child = fork();
    if (!child) {
        while (__atomic_load_n(a, __ATOMIC_SEQ_CST) != 2)
            usleep(1000);
        _exit(0);
    }
    RESTORED();
    CHECK(!shmctl(id, IPC_STAT, &ds) && ds.shm_nattch == 2 && ds.shm_perm.mode & SHM_DEST);
    __atomic_store_n(a, 2, __ATOMIC_SEQ_CST);
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(!shmdt(a) && shmctl(id, IPC_STAT, &ds) < 0 && errno == EINVAL);
    // Attached by nobody, and still there.
    CHECK(!shmctl(kept, IPC_STAT, &ds) && ds.shm_nattch == 0);
    int *k = shmat(kept, NULL, 0);
    CHECK(k != (void *)-1 && *k == 0 && !shmctl(kept, IPC_RMID, NULL));
}

TEST(semaphores) {
    int id = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600), status;
    unsigned short values[3] = {5, 0, 2};
    struct sembuf down = {2, -1, SEM_UNDO}, wait = {1, -1, 0}, up = {1, 1, 0};
    CHECK(id >= 0 && !semctl(id, 0, SETALL, (union semun){.array = values}));
    pid_t undoes = fork();
    if (!undoes) {
        CHECK(!semop(id, &down, 1));
        READY();
        AWAIT();
        _exit(0);
    }
    pid_t waits = fork();
    if (!waits)
        _exit(semop(id, &wait, 1) != 0);
    usleep(30000);
    AWAIT();
    CHECK(waitpid(undoes, &status, 0) == undoes && status == 0);
    // The end of the child has given it back.
    CHECK(semctl(id, 0, GETVAL) == 5 && semctl(id, 2, GETVAL) == 2 && semctl(id, 2, GETPID) == undoes);
    for (int i = 0; i < 5000 && semctl(id, 1, GETNCNT) != 1; i++)
        usleep(1000);
    CHECK(semctl(id, 1, GETNCNT) == 1 && !semop(id, &up, 1));
    CHECK(waitpid(waits, &status, 0) == waits && status == 0);
    CHECK(semctl(id, 1, GETVAL) == 0 && !semctl(id, 0, IPC_RMID));
}

struct message {
    long type;
    char text[20];
};

TEST(messages) {
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600), gone = msgget(IPC_PRIVATE, IPC_CREAT | 0600), status;
    struct message m = {3, "three"};
    CHECK(!msgctl(gone, IPC_RMID, NULL) && !msgsnd(id, &m, 6, 0));
    m = (struct message){2, "two"};
    CHECK(!msgsnd(id, &m, 4, 0));
    pid_t child = fork();
    if (!child)
        _exit(msgrcv(id, &m, sizeof m.text, 9, 0) != 5 || strcmp(m.text, "nine"));
    usleep(30000);
    RESTORED();
    struct msqid_ds ds;
    CHECK(!msgctl(id, IPC_STAT, &ds) && ds.msg_qnum == 2 && ds.msg_lspid == getpid());
    CHECK(msgrcv(id, &m, sizeof m.text, -2, 0) == 4 && m.type == 2 && !strcmp(m.text, "two"));
    CHECK(msgrcv(id, &m, sizeof m.text, 0, 0) == 6 && m.type == 3 && !strcmp(m.text, "three"));
    m = (struct message){9, "nine"};
    CHECK(!msgsnd(id, &m, 5, 0) && waitpid(child, &status, 0) == child && status == 0);
    int next = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    CHECK(next >= 0 && next != gone && next != id && !msgctl(next, IPC_RMID, NULL) && !msgctl(id, IPC_RMID, NULL));
}

TEST(a_posix_queue) {
    struct mq_attr attr = {.mq_maxmsg = 4, .mq_msgsize = 30};
    char b[100];
    unsigned priority;
    mq_unlink("/checkpoint");
    mqd_t q = mq_open("/checkpoint", O_RDWR | O_CREAT | O_NONBLOCK, 0640, &attr);
    CHECK(q >= 0 && !mq_send(q, "low", 3, 1) && !mq_send(q, "a", 1, 5) && !mq_send(q, "", 0, 5));
    RESTORED();
    struct mq_attr now;
    CHECK(!mq_getattr(q, &now) && now.mq_maxmsg == 4 && now.mq_msgsize == 30 && now.mq_curmsgs == 3 && now.mq_flags == O_NONBLOCK);
    mqd_t again = mq_open("/checkpoint", O_RDONLY | O_NONBLOCK);
    CHECK(again >= 0 && mq_receive(again, b, 100, &priority) == 1 && priority == 5 && *b == 'a');
    CHECK(mq_receive(q, b, 100, &priority) == 0 && mq_receive(q, b, 100, &priority) == 3 && priority == 1);
    CHECK(mq_receive(q, b, 100, NULL) < 0 && errno == EAGAIN);
    struct stat s;
    CHECK(!fstat(q, &s) && (s.st_mode & 0777) == 0640 && !mq_unlink("/checkpoint"));
    CHECK(mq_open("/checkpoint", O_RDONLY) < 0 && errno == ENOENT);
}

TEST(a_posix_queue_without_a_name) {
    struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 10};
    char b[10];
    int status;
    mq_unlink("/checkpoint-gone");
    mqd_t q = mq_open("/checkpoint-gone", O_RDWR | O_CREAT, 0600, &attr);
    CHECK(q >= 0 && !mq_unlink("/checkpoint-gone") && !mq_send(q, "1", 1, 0) && !mq_send(q, "2", 1, 0));
    pid_t child = fork();
    // Waits for room.
    if (!child)
        _exit(mq_send(q, "3", 1, 0) != 0);
    usleep(30000);
    RESTORED();
    CHECK(mq_receive(q, b, 10, NULL) == 1 && *b == '1');
    CHECK(waitpid(child, &status, 0) == child && status == 0);
    CHECK(mq_receive(q, b, 10, NULL) == 1 && mq_receive(q, b, 10, NULL) == 1 && *b == '3');
    CHECK(mq_open("/checkpoint-gone", O_RDONLY) < 0 && errno == ENOENT);
}

static volatile sig_atomic_t told;

static void tell(int signal, siginfo_t *info, void *context) {
    (void)signal, (void)context;
    told = info->si_value.sival_int;
}

TEST(a_notification) {
    struct sigaction action = {.sa_sigaction = tell, .sa_flags = SA_SIGINFO};
    struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGRTMIN + 1, .sigev_value.sival_int = 42};
    mq_unlink("/checkpoint-notify");
    mqd_t q = mq_open("/checkpoint-notify", O_RDWR | O_CREAT, 0600, NULL);
    CHECK(q >= 0 && !sigaction(SIGRTMIN + 1, &action, NULL) && !mq_notify(q, &event));
    RESTORED();
    CHECK(mq_notify(q, &event) < 0 && errno == EBUSY && !told);
    CHECK(!mq_send(q, "x", 1, 0));
    for (int i = 0; i < 1000 && !told; i++)
        usleep(1000);
    CHECK(told == 42 && !mq_unlink("/checkpoint-notify"));
}
