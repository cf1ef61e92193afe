//! System calls with a message of their own: what their arguments mean.

use moat_abi::{fs::OpenFlags, nr};
use moat_mm::{UserAddr, UserPtr};
use moat_monitor::messages::{self as m, Timespec};
use moat_monitor::{Event, Fields};
use moat_vfs::{Fd, FdTable};

use super::context::text;
use super::{MAX_STRING, MAX_STRINGS, MAX_STRINGS_BYTES, bounded};
use crate::task::CurrentTask;

/// AT_FDCWD, for calls without a directory.
const CWD: i64 = -100;
/// Bytes of the longest socket address (`struct sockaddr_storage`).
const MAX_ADDRESS: usize = 128;

/// An argument's low half, as a call with a 32-bit parameter takes it.
fn low(arg: u64) -> u32 {
    u32::try_from(arg & 0xffff_ffff).unwrap_or(0)
}

fn int(arg: u64) -> i32 {
    low(arg).cast_signed()
}

/// The message of a call that is about to be made, but for who makes it; nothing if it has none.
pub(super) fn event(t: &CurrentTask, call: u32, args: &[u64; 6], fields: Fields) -> Option<Event> {
    let a = args;
    let sysno = u64::from(call);
    let reader = Reader { t, fields };
    let (fd, fd_path) = (i64::from(int(a[0])), reader.fd_path(a[0]));
    Some(match call {
        nr::OPEN | nr::CREAT => {
            let (flags, mode) = if call == nr::OPEN { (low(a[1]), low(a[2])) } else { (0o1101, low(a[1])) };
            Event::Open(m::Open { sysno, fd: CWD, pathname: reader.string(a[0]), flags, mode, ..Default::default() })
        }
        nr::OPENAT => {
            // Without O_CREAT there is no fourth argument: the register has whatever was in it.
            let mode = if low(a[2]) & OpenFlags::CREAT.bits() != 0 { low(a[3]) } else { 0 };
            let pathname = reader.string(a[1]);
            Event::Open(m::Open { sysno, fd, fd_path, pathname, flags: low(a[2]), mode, ..Default::default() })
        }
        nr::CLOSE => Event::Close(m::Close { sysno, fd, fd_path, ..Default::default() }),
        nr::READ | nr::PREAD64 | nr::READV | nr::PREADV | nr::PREADV2 => {
            let Transfer { count, has_offset, offset, flags } = reader.transfer(call, a);
            Event::Read(m::Read { sysno, fd, fd_path, count, has_offset, offset, flags, ..Default::default() })
        }
        nr::WRITE | nr::PWRITE64 | nr::WRITEV | nr::PWRITEV | nr::PWRITEV2 => {
            let Transfer { count, has_offset, offset, flags } = reader.transfer(call, a);
            Event::Write(m::Write { sysno, fd, fd_path, count, has_offset, offset, flags, ..Default::default() })
        }
        nr::EXECVE => {
            let (argv, envv) = (reader.strings(a[1]), reader.environment(a[2]));
            Event::Execve(m::Execve { sysno, fd: CWD, pathname: reader.string(a[0]), argv, envv, ..Default::default() })
        }
        nr::EXECVEAT => {
            let (argv, envv) = (reader.strings(a[2]), reader.environment(a[3]));
            let (pathname, flags) = (reader.string(a[1]), low(a[4]));
            Event::Execve(m::Execve { sysno, fd, fd_path, pathname, argv, envv, flags, ..Default::default() })
        }
        nr::CHDIR => Event::Chdir(m::Chdir { sysno, fd: CWD, pathname: reader.string(a[0]), ..Default::default() }),
        nr::FCHDIR => Event::Chdir(m::Chdir { sysno, fd, fd_path, ..Default::default() }),
        nr::CHROOT => Event::Chroot(m::Chroot { sysno, pathname: reader.string(a[0]), ..Default::default() }),
        nr::MMAP => Event::Mmap(m::Mmap {
            sysno,
            fd: i64::from(int(a[4])),
            fd_path: reader.fd_path(a[4]),
            addr: a[0],
            length: a[1],
            prot: low(a[2]),
            flags: low(a[3]),
            offset: a[5].cast_signed(),
            ..Default::default()
        }),
        nr::FCNTL => {
            let (cmd, args) = (int(a[1]), a[2].cast_signed());
            Event::Fcntl(m::Fcntl { sysno, fd: int(a[0]), fd_path, cmd, args, ..Default::default() })
        }
        nr::DUP | nr::DUP2 | nr::DUP3 => {
            let new_fd = if call == nr::DUP { 0 } else { int(a[1]) };
            let flags = if call == nr::DUP3 { low(a[2]) } else { 0 };
            Event::Dup(m::Dup { sysno, old_fd: int(a[0]), new_fd, fd_path, flags, ..Default::default() })
        }
        nr::PIPE | nr::PIPE2 => {
            let flags = if call == nr::PIPE2 { low(a[1]) } else { 0 };
            Event::Pipe(m::Pipe { sysno, flags, ..Default::default() })
        }
        _ => {
            return socket_event(&reader, call, a, sysno, fd_path.clone())
                .or_else(|| other_event(&reader, call, a, sysno, fd_path));
        }
    })
}

fn socket_event(reader: &Reader<'_>, call: u32, a: &[u64; 6], sysno: u64, fd_path: String) -> Option<Event> {
    let fd = int(a[0]);
    Some(match call {
        nr::SOCKET => {
            let (domain, r#type, protocol) = (int(a[0]), int(a[1]), int(a[2]));
            Event::Socket(m::Socket { sysno, domain, r#type, protocol, ..Default::default() })
        }
        nr::SOCKETPAIR => {
            let (domain, r#type, protocol) = (int(a[0]), int(a[1]), int(a[2]));
            Event::SocketPair(m::SocketPair { sysno, domain, r#type, protocol, ..Default::default() })
        }
        nr::CONNECT => {
            let address = reader.address(a[1], low(a[2]));
            Event::Connect(m::Connect { sysno, fd: fd.into(), fd_path, address, ..Default::default() })
        }
        nr::BIND => {
            let address = reader.address(a[1], low(a[2]));
            Event::Bind(m::Bind { sysno, fd, fd_path, address, ..Default::default() })
        }
        nr::ACCEPT | nr::ACCEPT4 => {
            let flags = if call == nr::ACCEPT4 { int(a[3]) } else { 0 };
            Event::Accept(m::Accept { sysno, fd, fd_path, flags, ..Default::default() })
        }
        nr::LISTEN => Event::Listen(m::Listen { sysno, fd, fd_path, backlog: int(a[1]), ..Default::default() }),
        _ => return None,
    })
}

fn other_event(reader: &Reader<'_>, call: u32, a: &[u64; 6], sysno: u64, fd_path: String) -> Option<Event> {
    let fd = int(a[0]);
    Some(match call {
        nr::CLONE => {
            let (flags, stack, tls) = (a[0], a[1], a[4]);
            Event::Clone(m::Clone { sysno, flags, stack, tls, ..Default::default() })
        }
        nr::FORK | nr::VFORK => Event::Fork(m::Fork { sysno, ..Default::default() }),
        nr::SETUID | nr::SETGID => Event::Setid(m::Setid { sysno, id: low(a[0]), ..Default::default() }),
        nr::SETSID => Event::Setid(m::Setid { sysno, ..Default::default() }),
        nr::SETRESUID | nr::SETRESGID => {
            let (rid, eid, sid) = (low(a[0]), low(a[1]), low(a[2]));
            Event::Setresid(m::Setresid { sysno, rid, eid, sid, ..Default::default() })
        }
        nr::PRLIMIT64 => Event::Prlimit(m::Prlimit {
            sysno,
            pid: int(a[0]),
            resource: i64::from(low(a[1])),
            new_limit: reader.limit(a[2]),
            ..Default::default()
        }),
        nr::SIGNALFD | nr::SIGNALFD4 => {
            let sigset = reader.value::<u64>(a[1]).unwrap_or(0);
            let flags = if call == nr::SIGNALFD4 { int(a[3]) } else { 0 };
            Event::Signalfd(m::Signalfd { sysno, fd, fd_path, sigset, flags, ..Default::default() })
        }
        nr::EVENTFD | nr::EVENTFD2 => {
            let flags = if call == nr::EVENTFD2 { low(a[1]) } else { 0 };
            Event::Eventfd(m::Eventfd { sysno, val: int(a[0]), flags, ..Default::default() })
        }
        nr::TIMERFD_CREATE => {
            let (clock_id, flags) = (int(a[0]), int(a[1]));
            Event::TimerfdCreate(m::TimerfdCreate { sysno, clock_id, flags, ..Default::default() })
        }
        nr::TIMERFD_SETTIME => {
            let (flags, new_value) = (int(a[1]), reader.timer(a[2]));
            Event::TimerfdSetTime(m::TimerfdSetTime { sysno, fd, fd_path, flags, new_value, ..Default::default() })
        }
        nr::TIMERFD_GETTIME => Event::TimerfdGetTime(m::TimerfdGetTime { sysno, fd, fd_path, ..Default::default() }),
        nr::INOTIFY_INIT => Event::InotifyInit(m::InotifyInit { sysno, ..Default::default() }),
        nr::INOTIFY_INIT1 => Event::InotifyInit(m::InotifyInit { sysno, flags: int(a[0]), ..Default::default() }),
        nr::INOTIFY_ADD_WATCH => {
            let (pathname, mask) = (reader.string(a[1]), low(a[2]));
            Event::InotifyAddWatch(m::InotifyAddWatch { sysno, fd, fd_path, pathname, mask, ..Default::default() })
        }
        nr::INOTIFY_RM_WATCH => {
            Event::InotifyRmWatch(m::InotifyRmWatch { sysno, fd, fd_path, wd: int(a[1]), ..Default::default() })
        }
        nr::PTRACE => {
            Event::Ptrace(m::Ptrace { sysno, request: a[0].cast_signed(), pid: int(a[1]), ..Default::default() })
        }
        _ => return None,
    })
}

/// Adds to a message what the call has written.
pub(super) fn complete(t: &CurrentTask, a: &[u64; 6], event: &mut Event) {
    let reader = Reader { t, fields: Fields::empty() };
    match event {
        Event::Pipe(pipe) => [pipe.reader, pipe.writer] = reader.value::<[i32; 2]>(a[0]).unwrap_or_default(),
        Event::SocketPair(pair) => {
            [pair.socket1, pair.socket2] = reader.value::<[i32; 2]>(a[3]).unwrap_or_default();
        }
        Event::Accept(accept) => {
            let len = reader.value::<u32>(a[2]).unwrap_or(0);
            accept.address = reader.address(a[1], len);
        }
        Event::Prlimit(limit) => limit.old_limit = reader.limit(a[3]),
        Event::TimerfdSetTime(timer) => timer.old_value = reader.timer(a[3]),
        Event::TimerfdGetTime(timer) => timer.cur_value = reader.timer(a[1]),
        Event::Clone(clone) => {
            clone.new_tid = reader.value::<u32>(a[2]).map_or(0, u64::from);
        }
        _ => {}
    }
}

/// How much is read or written, and where.
struct Transfer {
    count: u64,
    has_offset: bool,
    offset: i64,
    flags: u32,
}

/// Reads what arguments point to; what can't be read is empty.
struct Reader<'a> {
    t: &'a CurrentTask,
    fields: Fields,
}

impl Reader<'_> {
    fn value<T: zerocopy::FromBytes + zerocopy::IntoBytes>(&self, at: u64) -> Option<T> {
        self.t.mm().read(UserPtr::<T>::new(UserAddr::new(at))).ok()
    }

    fn string(&self, at: u64) -> String {
        self.t.mm().read_cstr(UserAddr::new(at), MAX_STRING).map(|bytes| text(&bytes)).unwrap_or_default()
    }

    fn strings(&self, array: u64) -> Vec<String> {
        let (mut strings, mut bytes) = (Vec::new(), 0);
        let mut at = UserAddr::new(array);
        while array != 0 && strings.len() < MAX_STRINGS && bytes < MAX_STRINGS_BYTES {
            let Ok(pointer) = self.t.mm().read(UserPtr::<u64>::new(at)) else { break };
            let Ok(next) = at.add(8) else { break };
            at = next;
            if pointer == 0 {
                break;
            }
            let string = self.t.mm().read_cstr(UserAddr::new(pointer), MAX_STRING).unwrap_or_default();
            bytes = string.len().saturating_add(bytes);
            strings.push(string);
        }
        bounded(strings.iter().map(Vec::as_slice))
    }

    fn environment(&self, array: u64) -> Vec<String> {
        if self.fields.contains(Fields::ENVV) { self.strings(array) } else { Vec::new() }
    }

    /// The path of a descriptor's file, if it is asked for.
    fn fd_path(&self, fd: u64) -> String {
        let file = |fds: &FdTable| fds.get_any(Fd(int(fd))).ok();
        if !self.fields.contains(Fields::FD_PATH) || int(fd) < 0 {
            return String::new();
        }
        let Some(file) = file(self.t.fds()) else { return "[err: FD not found]".into() };
        let root = self.t.fs().lock().root.clone();
        text(&file.path().text(Some(&root)))
    }

    fn address(&self, at: u64, len: u32) -> Vec<u8> {
        let len = usize::try_from(len).unwrap_or(0).min(MAX_ADDRESS);
        self.t.mm().read_array::<u8>(UserAddr::new(at), len, MAX_ADDRESS).unwrap_or_default()
    }

    fn limit(&self, at: u64) -> Option<m::StructRlimit> {
        let [cur, max] = self.value::<[u64; 2]>(at).filter(|_| at != 0)?;
        Some(m::StructRlimit { cur, max })
    }

    fn timer(&self, at: u64) -> Option<m::ItimerSpec> {
        let [interval_sec, interval_nsec, sec, nsec] = self.value::<[i64; 4]>(at).filter(|_| at != 0)?;
        let interval = Timespec { sec: interval_sec, nsec: interval_nsec };
        Some(m::ItimerSpec { interval: Some(interval), value: Some(Timespec { sec, nsec }) })
    }

    fn transfer(&self, call: u32, a: &[u64; 6]) -> Transfer {
        let vectored = matches!(call, nr::READV | nr::WRITEV | nr::PREADV | nr::PWRITEV | nr::PREADV2 | nr::PWRITEV2);
        let has_offset = !matches!(call, nr::READ | nr::WRITE | nr::READV | nr::WRITEV);
        let flags = if matches!(call, nr::PREADV2 | nr::PWRITEV2) { low(a[5]) } else { 0 };
        let count = if vectored { self.vector_length(a[1], a[2]) } else { a[2] };
        Transfer { count, has_offset, offset: if has_offset { a[3].cast_signed() } else { 0 }, flags }
    }

    /// The bytes of all buffers of an array of `struct iovec`.
    fn vector_length(&self, at: u64, count: u64) -> u64 {
        let count = usize::try_from(count).unwrap_or(0);
        let buffers = self.t.mm().read_array::<[u64; 2]>(UserAddr::new(at), count, 1024).unwrap_or_default();
        buffers.iter().fold(0, |sum, [_, len]| len.saturating_add(sum))
    }
}
