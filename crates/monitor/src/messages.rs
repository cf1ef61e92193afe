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
            pub(crate) fn set_context(&mut self, context_data: Option<ContextData>, _: Option<Exit>) {
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
            pub(crate) fn set_context(&mut self, context_data: Option<ContextData>, exit: Option<Exit>) {
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

// Behind the macros that it uses.
mod calls;

pub use calls::*;

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
            pub fn set_context(&mut self, context_data: Option<ContextData>, exit: Option<Exit>) {
                match self {
                    $(Event::$name(message) => message.set_context(context_data, exit),)*
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
