//! Messages of system calls: who made it, how it ended and its number come first.

use prost::Message;
use serde::Serialize;

use super::{ContextData, Exit, ItimerSpec, StructRlimit, hex};

call! {
    /// open(2), openat(2), creat(2).
    Open {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(string, tag = "6")]
        pathname: String,
        #[prost(uint32, tag = "7")]
        flags: u32,
        #[prost(uint32, tag = "8")]
        mode: u32,
    }
}

call! {
    /// close(2).
    Close {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
    }
}

call! {
    /// read(2) and its like.
    Read {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(uint64, tag = "6")]
        count: u64,
        #[prost(bool, tag = "7")]
        has_offset: bool,
        #[prost(int64, tag = "8")]
        offset: i64,
        #[prost(uint32, tag = "9")]
        flags: u32,
    }
}

call! {
    /// write(2) and its like.
    Write {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(uint64, tag = "6")]
        count: u64,
        #[prost(bool, tag = "7")]
        has_offset: bool,
        #[prost(int64, tag = "8")]
        offset: i64,
        #[prost(uint32, tag = "9")]
        flags: u32,
    }
}

call! {
    /// connect(2).
    Connect {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(bytes = "vec", tag = "6")]
        #[serde(serialize_with = "hex")]
        address: Vec<u8>,
    }
}

call! {
    /// execve(2), execveat(2).
    Execve {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(string, tag = "6")]
        pathname: String,
        #[prost(string, repeated, tag = "7")]
        argv: Vec<String>,
        #[prost(string, repeated, tag = "8")]
        envv: Vec<String>,
        #[prost(uint32, tag = "9")]
        flags: u32,
    }
}

call! {
    /// socket(2).
    Socket {
        #[prost(int32, tag = "4")]
        domain: i32,
        #[prost(int32, tag = "5")]
        r#type: i32,
        #[prost(int32, tag = "6")]
        protocol: i32,
    }
}

call! {
    /// chdir(2), fchdir(2).
    Chdir {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(string, tag = "6")]
        pathname: String,
    }
}

call! {
    /// setuid(2), setgid(2), setsid(2).
    Setid {
        #[prost(uint32, tag = "4")]
        id: u32,
    }
}

call! {
    /// setresuid(2), setresgid(2).
    Setresid {
        #[prost(uint32, tag = "4")]
        rid: u32,
        #[prost(uint32, tag = "5")]
        eid: u32,
        #[prost(uint32, tag = "6")]
        sid: u32,
    }
}

call! {
    /// prlimit64(2).
    Prlimit {
        #[prost(int32, tag = "4")]
        pid: i32,
        #[prost(int64, tag = "5")]
        resource: i64,
        #[prost(message, optional, tag = "6")]
        new_limit: Option<StructRlimit>,
        #[prost(message, optional, tag = "7")]
        old_limit: Option<StructRlimit>,
    }
}

call! {
    /// pipe(2), pipe2(2).
    Pipe {
        #[prost(uint32, tag = "4")]
        flags: u32,
        #[prost(int32, tag = "5")]
        reader: i32,
        #[prost(int32, tag = "6")]
        writer: i32,
    }
}

call! {
    /// fcntl(2).
    Fcntl {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(int32, tag = "6")]
        cmd: i32,
        #[prost(int64, tag = "7")]
        args: i64,
    }
}

call! {
    /// dup(2), dup2(2), dup3(2).
    Dup {
        #[prost(int32, tag = "4")]
        old_fd: i32,
        #[prost(int32, tag = "5")]
        new_fd: i32,
        #[prost(string, tag = "6")]
        fd_path: String,
        #[prost(uint32, tag = "7")]
        flags: u32,
    }
}

call! {
    /// signalfd(2).
    Signalfd {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(uint64, tag = "6")]
        sigset: u64,
        #[prost(int32, tag = "7")]
        flags: i32,
    }
}

call! {
    /// chroot(2).
    Chroot {
        #[prost(string, tag = "4")]
        pathname: String,
    }
}

call! {
    /// eventfd(2).
    Eventfd {
        #[prost(int32, tag = "4")]
        val: i32,
        #[prost(uint32, tag = "5")]
        flags: u32,
    }
}

call! {
    /// clone(2).
    Clone {
        #[prost(uint64, tag = "4")]
        flags: u64,
        #[prost(uint64, tag = "5")]
        stack: u64,
        #[prost(uint64, tag = "6")]
        new_tid: u64,
        #[prost(uint64, tag = "7")]
        tls: u64,
    }
}

call! {
    /// bind(2).
    Bind {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(bytes = "vec", tag = "6")]
        #[serde(serialize_with = "hex")]
        address: Vec<u8>,
    }
}

call! {
    /// accept(2), accept4(2).
    Accept {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(bytes = "vec", tag = "6")]
        #[serde(serialize_with = "hex")]
        address: Vec<u8>,
        #[prost(int32, tag = "7")]
        flags: i32,
    }
}

call! {
    /// timerfd_create(2).
    TimerfdCreate {
        #[prost(int32, tag = "4")]
        clock_id: i32,
        #[prost(int32, tag = "5")]
        flags: i32,
    }
}

call! {
    /// timerfd_settime(2).
    TimerfdSetTime {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(int32, tag = "6")]
        flags: i32,
        #[prost(message, optional, tag = "7")]
        new_value: Option<ItimerSpec>,
        #[prost(message, optional, tag = "8")]
        old_value: Option<ItimerSpec>,
    }
}

call! {
    /// timerfd_gettime(2).
    TimerfdGetTime {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(message, optional, tag = "6")]
        cur_value: Option<ItimerSpec>,
    }
}

call! {
    /// fork(2), vfork(2).
    Fork {
    }
}

call! {
    /// inotify_init(2).
    InotifyInit {
        #[prost(int32, tag = "4")]
        flags: i32,
    }
}

call! {
    /// inotify_add_watch(2).
    InotifyAddWatch {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(string, tag = "6")]
        pathname: String,
        #[prost(uint32, tag = "7")]
        mask: u32,
    }
}

call! {
    /// inotify_rm_watch(2).
    InotifyRmWatch {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(int32, tag = "6")]
        wd: i32,
    }
}

call! {
    /// socketpair(2).
    SocketPair {
        #[prost(int32, tag = "4")]
        domain: i32,
        #[prost(int32, tag = "5")]
        r#type: i32,
        #[prost(int32, tag = "6")]
        protocol: i32,
        #[prost(int32, tag = "7")]
        socket1: i32,
        #[prost(int32, tag = "8")]
        socket2: i32,
    }
}

call! {
    /// mmap(2).
    Mmap {
        #[prost(int64, tag = "4")]
        fd: i64,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(uint64, tag = "6")]
        addr: u64,
        #[prost(uint64, tag = "7")]
        length: u64,
        #[prost(uint32, tag = "8")]
        prot: u32,
        #[prost(uint32, tag = "9")]
        flags: u32,
        #[prost(int64, tag = "10")]
        offset: i64,
    }
}

call! {
    /// listen(2).
    Listen {
        #[prost(int32, tag = "4")]
        fd: i32,
        #[prost(string, tag = "5")]
        fd_path: String,
        #[prost(int32, tag = "6")]
        backlog: i32,
        #[prost(bytes = "vec", tag = "7")]
        #[serde(serialize_with = "hex")]
        address: Vec<u8>,
        #[prost(int32, tag = "8")]
        socket_family: i32,
        #[prost(int32, tag = "9")]
        socket_type: i32,
    }
}

call! {
    /// ptrace(2).
    Ptrace {
        #[prost(int64, tag = "4")]
        request: i64,
        #[prost(int32, tag = "5")]
        pid: i32,
    }
}
