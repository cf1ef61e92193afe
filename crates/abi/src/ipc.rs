//! System V IPC and POSIX message queues.
//!
//! Sources: sysvipc(7), mq_overview(7), `asm-generic/{ipcbuf,shmbuf,sembuf,msgbuf}.h`,
//! `linux/{ipc,shm,sem,msg,mqueue}.h`.

consts! { "`key`, flags and commands shared by shmget(2), semget(2) and msgget(2).", i32; IPC_PRIVATE = 0,
IPC_CREAT = 0o1000, IPC_EXCL = 0o2000,
IPC_NOWAIT = 0o4000, IPC_RMID = 0, IPC_SET = 1, IPC_STAT = 2, IPC_INFO = 3 }

guest_struct! {
    /// `struct ipc64_perm`.
    Ipc64Perm: 48 { key: i32, uid: u32, gid: u32, cuid: u32, cgid: u32, mode: u32, seq: u16, pad2: u16, pad3: u32,
        unused1: u64, unused2: u64 }
}
guest_struct! {
    /// `struct shmid64_ds`, shmctl(2).
    Shmid64Ds: 112 { shm_perm: Ipc64Perm, shm_segsz: u64, shm_atime: i64, shm_dtime: i64, shm_ctime: i64,
        shm_cpid: i32, shm_lpid: i32, shm_nattch: u64,
        unused4: u64, unused5: u64 }
}
guest_struct! {
    /// `struct shminfo64`, shmctl(IPC_INFO).
    Shminfo64: 72 { shmmax: u64, shmmin: u64, shmmni: u64, shmseg: u64, shmall: u64, unused: [u64; 4] }
}
guest_struct! {
    /// `struct shm_info`, shmctl(SHM_INFO).
    ShmInfo: 48 { used_ids: i32, pad: u32, shm_tot: u64, shm_rss: u64, shm_swp: u64, swap_attempts: u64,
        swap_successes: u64 }
}
consts! { "shmget(2), shmat(2) and shmctl(2).", i32; SHM_R = 0o400, SHM_W = 0o200, SHM_HUGETLB = 0o4000,
SHM_NORESERVE = 0o10000,
SHM_RDONLY = 0o10000, SHM_RND = 0o20000, SHM_REMAP = 0o40000, SHM_EXEC = 0o100_000, SHM_LOCK = 11,
SHM_UNLOCK = 12, SHM_STAT = 13, SHM_INFO = 14,
SHM_STAT_ANY = 15, SHM_DEST = 0o1000, SHM_LOCKED = 0o2000 }
consts! { "Default limits of shared memory.", u64; SHMMIN = 1, SHMMNI = 4096, SHMMAX = u64::MAX - (1 << 24),
SHMALL = u64::MAX - (1 << 24) }

guest_struct! {
    /// `struct semid64_ds` of x86-64, semctl(2).
    Semid64Ds: 104 { sem_perm: Ipc64Perm, sem_otime: i64, unused1: u64, sem_ctime: i64, unused2: u64, sem_nsems: u64,
        unused3: u64, unused4: u64 }
}
guest_struct! {
    /// `struct sembuf`, semop(2).
    Sembuf: 6 { sem_num: u16, sem_op: i16, sem_flg: i16 }
}
guest_struct! {
    /// `struct seminfo`, semctl(IPC_INFO).
    Seminfo: 40 { semmap: i32, semmni: i32, semmns: i32, semmnu: i32, semmsl: i32, semopm: i32, semume: i32,
        semusz: i32, semvmx: i32, semaem: i32 }
}
consts! { "semctl(2) commands and semop(2) flag.", i32; GETPID = 11, GETVAL = 12, GETALL = 13, GETNCNT = 14,
GETZCNT = 15, SETVAL = 16, SETALL = 17,
SEM_STAT = 18, SEM_INFO = 19, SEM_STAT_ANY = 20, SEM_UNDO = 0x1000 }
consts! { "Default limits of semaphores.", i32; SEMMNI = 32000, SEMMSL = 32000, SEMMNS = 1_024_000_000, SEMOPM = 500,
SEMVMX = 32767, SEMAEM = 32767 }

guest_struct! {
    /// `struct msqid64_ds`, msgctl(2).
    Msqid64Ds: 120 { msg_perm: Ipc64Perm, msg_stime: i64, msg_rtime: i64, msg_ctime: i64, msg_cbytes: u64,
        msg_qnum: u64, msg_qbytes: u64, msg_lspid: i32,
        msg_lrpid: i32, unused4: u64, unused5: u64 }
}
guest_struct! {
    /// `struct msginfo`, msgctl(IPC_INFO).
    Msginfo: 32 { msgpool: i32, msgmap: i32, msgmax: i32, msgmnb: i32, msgmni: i32, msgssz: i32, msgtql: i32,
        msgseg: u16, pad: u16 }
}
consts! { "msgctl(2) commands and msgrcv(2) flags.", i32; MSG_STAT = 11, MSG_INFO = 12, MSG_STAT_ANY = 13,
MSG_NOERROR = 0o10000, MSG_EXCEPT = 0o20000,
MSG_COPY = 0o40000 }
consts! { "Default limits of System V message queues.", i32; MSGMNI = 32000, MSGMAX = 8192, MSGMNB = 16384 }

guest_struct! {
    /// `struct mq_attr`, mq_open(3).
    MqAttr: 64 { mq_flags: i64, mq_maxmsg: i64, mq_msgsize: i64, mq_curmsgs: i64, reserved: [i64; 4] }
}
consts! { "Limits of POSIX message queues, mq_overview(7).", u32; MQ_PRIO_MAX = 32768 }
consts! { "Default and hard limits of POSIX message queues, mq_overview(7).", i64; DFLT_MSG = 10, DFLT_MSGSIZE = 8192,
DFLT_MSGMAX = 10,
DFLT_MSGSIZEMAX = 8192, HARD_MSGMAX = 65536, HARD_MSGSIZEMAX = 16 << 20 }
