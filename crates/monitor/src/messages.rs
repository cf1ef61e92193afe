//! What is told: messages of gVisor's public protocol (`pkg/sentry/seccheck/points/*.proto`), field by field as their readers know them.
//!
//! A string is UTF-8 in that protocol: bytes of a guest that are none are replaced.

use prost::Message;
use serde::{Serialize, Serializer};

use crate::points::Point;

/// The first message of each side.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Handshake {
    /// The version of the protocol.
    #[prost(uint32, tag = "1")]
    pub version: u32,
}

/// A point in time, or a span.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize)]
#[allow(missing_docs)]
pub struct Timespec {
    #[prost(int64, tag = "1")]
    pub sec: i64,
    #[prost(int64, tag = "2")]
    pub nsec: i64,
}

/// User and group ids, of the first user namespace.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize)]
#[allow(missing_docs)]
pub struct Credentials {
    #[prost(uint32, tag = "1")]
    pub real_uid: u32,
    #[prost(uint32, tag = "2")]
    pub effective_uid: u32,
    #[prost(uint32, tag = "3")]
    pub saved_uid: u32,
    #[prost(uint32, tag = "4")]
    pub real_gid: u32,
    #[prost(uint32, tag = "5")]
    pub effective_gid: u32,
    #[prost(uint32, tag = "6")]
    pub saved_gid: u32,
}

/// Who did it.
#[derive(Clone, PartialEq, Eq, Message, Serialize)]
#[allow(missing_docs)]
pub struct ContextData {
    #[serde(skip_serializing_if = "is_default")]
    #[prost(int64, tag = "1")]
    pub time_ns: i64,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(int32, tag = "2")]
    pub thread_id: i32,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(int64, tag = "3")]
    pub thread_start_time_ns: i64,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(int32, tag = "4")]
    pub thread_group_id: i32,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(int64, tag = "5")]
    pub thread_group_start_time_ns: i64,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(string, tag = "6")]
    pub container_id: String,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(message, optional, tag = "7")]
    pub credentials: Option<Credentials>,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(string, tag = "8")]
    pub cwd: String,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(string, tag = "9")]
    pub process_name: String,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(int32, tag = "10")]
    pub parent_thread_group_id: i32,
    #[serde(skip_serializing_if = "is_default")]
    #[prost(bool, tag = "11")]
    pub is_exec_session: bool,
}

/// How a system call ended.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize)]
#[allow(missing_docs)]
pub struct Exit {
    #[prost(int64, tag = "1")]
    pub result: i64,
    #[prost(int64, tag = "2")]
    pub errorno: i64,
}

/// A limit of resources.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize)]
#[allow(missing_docs)]
pub struct StructRlimit {
    #[prost(uint64, tag = "1")]
    pub cur: u64,
    #[prost(uint64, tag = "2")]
    pub max: u64,
}

/// A timer's setting.
#[derive(Clone, Copy, PartialEq, Eq, Message, Serialize)]
#[allow(missing_docs)]
pub struct ItimerSpec {
    #[prost(message, optional, tag = "1")]
    pub interval: Option<Timespec>,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Timespec>,
}

/// What was not asked for is left out of lines.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Bytes of an address, for people: hexadecimal digits.
fn hex<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Declares a message about what a task did: who did it is its first field.
macro_rules! event {
    ($(#[doc = $doc:literal])* $name:ident { $($fields:tt)* }) => {
        event! { @message $(#[doc = $doc])* $name { $($fields)* } }

        impl $name {
            fn dress(&mut self, context_data: Option<ContextData>, _: Option<Exit>) {
                self.context_data = context_data;
            }
        }
    };
    (@message $(#[doc = $doc:literal])* $name:ident { $($(#[$attribute:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[doc = $doc])*
        #[derive(Clone, PartialEq, Eq, Message, Serialize)]
        #[allow(missing_docs)]
        pub struct $name {
            #[prost(message, optional, tag = "1")]
            #[serde(skip_serializing_if = "Option::is_none")]
            pub context_data: Option<ContextData>,
            $($(#[$attribute])* pub $field: $ty,)*
        }
    };
}

/// Declares the message of a system call: who made it, how it ended, and its number come first.
macro_rules! call {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[$attribute:meta])* $field:ident: $ty:ty,)* }) => {
        event! { @message $(#[doc = $doc])* $name {
            #[prost(message, optional, tag = "2")]
            #[serde(skip_serializing_if = "Option::is_none")]
            exit: Option<Exit>,
            #[prost(uint64, tag = "3")]
            sysno: u64,
            $($(#[$attribute])* $field: $ty,)*
        } }

        impl $name {
            fn dress(&mut self, context_data: Option<ContextData>, exit: Option<Exit>) {
                self.context_data = context_data;
                self.exit = exit;
            }
        }
    };
}

event! {
    /// A container is started.
    Start {
        #[prost(string, tag = "2")]
        id: String,
        #[prost(string, tag = "3")]
        cwd: String,
        #[prost(string, repeated, tag = "4")]
        args: Vec<String>,
        #[prost(string, repeated, tag = "5")]
        env: Vec<String>,
        #[prost(bool, tag = "6")]
        terminal: bool,
    }
}

event! {
    /// A task was made.
    CloneInfo {
        #[prost(int32, tag = "3")]
        created_thread_id: i32,
        #[prost(int32, tag = "4")]
        created_thread_group_id: i32,
        #[prost(int64, tag = "5")]
        created_thread_start_time_ns: i64,
        #[prost(uint64, tag = "6")]
        flags: u64,
    }
}

event! {
    /// A program was executed.
    ExecveInfo {
        #[prost(string, tag = "2")]
        binary_path: String,
        #[prost(string, repeated, tag = "3")]
        argv: Vec<String>,
        #[prost(string, repeated, tag = "4")]
        env: Vec<String>,
        #[prost(uint32, tag = "5")]
        binary_mode: u32,
        #[prost(uint32, tag = "6")]
        binary_uid: u32,
        #[prost(uint32, tag = "7")]
        binary_gid: u32,
        #[prost(uint64, tag = "10")]
        binary_ino: u64,
        #[prost(message, optional, tag = "11")]
        binary_ctime: Option<Timespec>,
        #[prost(string, tag = "17")]
        execfn: String,
        #[prost(int64, tag = "18")]
        binary_size: i64,
        #[prost(uint32, tag = "19")]
        binary_nlink: u32,
    }
}

event! {
    /// A process has ended.
    ExitNotifyParentInfo {
        #[prost(int32, tag = "2")]
        exit_status: i32,
    }
}

event! {
    /// A task ends.
    TaskExit {
        #[prost(int32, tag = "2")]
        exit_status: i32,
    }
}

event! {
    /// Any system call.
    Syscall {
        #[prost(message, optional, tag = "2")]
        #[serde(skip_serializing_if = "Option::is_none")]
        exit: Option<Exit>,
        #[prost(uint64, tag = "4")]
        sysno: u64,
        #[prost(uint64, tag = "5")]
        arg1: u64,
        #[prost(uint64, tag = "6")]
        arg2: u64,
        #[prost(uint64, tag = "7")]
        arg3: u64,
        #[prost(uint64, tag = "8")]
        arg4: u64,
        #[prost(uint64, tag = "9")]
        arg5: u64,
        #[prost(uint64, tag = "10")]
        arg6: u64,
    }
}

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

/// Declares [`Event`]: each message with its number in the protocol.
macro_rules! events {
    ($($name:ident($message:ident) = $number:literal,)*) => {
        /// Something that is told.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        #[serde(untagged)]
        #[allow(missing_docs)]
        pub enum Event {
            $($name($message),)*
        }

        impl Event {
            /// The number of its message (`MessageType`).
            #[must_use]
            pub fn message_type(&self) -> u16 {
                match self {
                    $(Event::$name(_) => $number,)*
                }
            }

            /// Says who did it, and how it ended; what is no system call has no end.
            pub fn dress(&mut self, context_data: Option<ContextData>, exit: Option<Exit>) {
                match self {
                    $(Event::$name(message) => message.dress(context_data, exit),)*
                }
            }

            /// Appends its message to `to`.
            pub(crate) fn encode(&self, to: &mut Vec<u8>) {
                match self {
                    // Without a limit of the buffer nothing can fail.
                    $(Event::$name(message) => drop(message.encode(to)),)*
                }
            }
        }
    };
}

events! {
    ContainerStart(Start) = 1,
    SentryClone(CloneInfo) = 2,
    SentryExec(ExecveInfo) = 3,
    ExitNotifyParent(ExitNotifyParentInfo) = 4,
    SentryTaskExit(TaskExit) = 5,
    Raw(Syscall) = 6,
    Open(Open) = 7,
    Close(Close) = 8,
    Read(Read) = 9,
    Connect(Connect) = 10,
    Execve(Execve) = 11,
    Socket(Socket) = 12,
    Chdir(Chdir) = 13,
    Setid(Setid) = 14,
    Setresid(Setresid) = 15,
    Prlimit(Prlimit) = 16,
    Pipe(Pipe) = 17,
    Fcntl(Fcntl) = 18,
    Dup(Dup) = 19,
    Signalfd(Signalfd) = 20,
    Chroot(Chroot) = 21,
    Eventfd(Eventfd) = 22,
    Clone(Clone) = 23,
    Bind(Bind) = 24,
    Accept(Accept) = 25,
    TimerfdCreate(TimerfdCreate) = 26,
    TimerfdSetTime(TimerfdSetTime) = 27,
    TimerfdGetTime(TimerfdGetTime) = 28,
    Fork(Fork) = 29,
    InotifyInit(InotifyInit) = 30,
    InotifyAddWatch(InotifyAddWatch) = 31,
    InotifyRmWatch(InotifyRmWatch) = 32,
    SocketPair(SocketPair) = 33,
    Write(Write) = 34,
    Mmap(Mmap) = 36,
    Listen(Listen) = 37,
    Ptrace(Ptrace) = 38,
}

/// A line of JSON: the point, and the message.
#[derive(Serialize)]
struct Line<'a> {
    point: String,
    #[serde(flatten)]
    event: &'a Event,
}

impl Event {
    /// As a line of JSON.
    pub(crate) fn line(&self, point: Point) -> Vec<u8> {
        // Strings, numbers and structs: nothing can fail.
        let mut line = serde_json::to_vec(&Line { point: point.name(), event: self }).unwrap_or_default();
        line.push(b'\n');
        line
    }
}
