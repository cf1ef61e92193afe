//! ioctl(2) of files of every kind, and what is written into the files of /proc that can be written to.

use moat_abi::fs::OpenFlags;
use moat_abi::nr;
use moat_fs_proc::sysctl;

use crate::input::{Input, pick};
use crate::world::{World, address};

/// Where an argument is in memory.
const ARGUMENT: usize = 0x1000;

/// Files of all kinds.
fn files(world: &mut World) -> Vec<u64> {
    let mut files = Vec::new();
    let rw = OpenFlags::RDWR | OpenFlags::NONBLOCK | OpenFlags::NOCTTY;
    for name in ["/dev/ptmx", "/dev/null", "/dev/zero", "/dev/full", "/dev/urandom"] {
        files.extend(world.open(name, rw));
    }
    // The other side of the pseudo-terminal, once it is let.
    if let Some(&master) = files.first() {
        let zero = world.put(ARGUMENT, &[0; 4]);
        let _ = world.call(nr::IOCTL, [master, 0x4004_5431, zero, 0, 0, 0]);
        files.extend(world.open("/dev/pts/0", OpenFlags::RDWR | OpenFlags::NONBLOCK));
    }
    files.extend(world.open("/file", rw | OpenFlags::CREAT));
    for name in ["/", "/proc/self/ns/net", "/proc/self/ns/user", "/proc/self/ns/pid", "/proc/self/mounts"] {
        files.extend(world.open(name, OpenFlags::NONBLOCK));
    }
    let calls: [(u32, [u64; 6]); 12] = [
        (nr::SOCKET, [1, 0o4001, 0, 0, 0, 0]),
        (nr::SOCKET, [2, 0o4001, 0, 0, 0, 0]),
        (nr::SOCKET, [2, 0o4002, 0, 0, 0, 0]),
        (nr::SOCKET, [10, 0o4002, 0, 0, 0, 0]),
        (nr::SOCKET, [16, 0o4003, 0, 0, 0, 0]),
        (nr::SOCKET, [17, 0o4003, 0, 0, 0, 0]),
        (nr::EPOLL_CREATE1, [0; 6]),
        (nr::EVENTFD2, [0, 0o4000, 0, 0, 0, 0]),
        (nr::TIMERFD_CREATE, [0, 0o4000, 0, 0, 0, 0]),
        (nr::INOTIFY_INIT1, [0o4000, 0, 0, 0, 0, 0]),
        (nr::PIDFD_OPEN, [1, 0, 0, 0, 0, 0]),
        (nr::PIPE2, [address(ARGUMENT), 0o4000, 0, 0, 0, 0]),
    ];
    for (nr, args) in calls {
        let made = world.call(nr, args);
        assert!(matches!(made, Some(Ok(_))), "call {nr}: {made:?}");
        files.extend(made.and_then(Result::ok).filter(|fd| *fd > 0));
    }
    // The ends of the pipe.
    let ends = world.get(ARGUMENT, 8);
    files.extend(ends.chunks_exact(4).filter_map(|b| Some(u64::from(u32::from_le_bytes(b.try_into().ok()?)))));
    files
}

/// One byte says which file, others which request: near those of terminals, of network devices and of files, or any.
pub fn ioctl(data: &[u8]) {
    let (mut input, mut world) = (Input(data), World::new());
    let files = files(&mut world);
    let first_free = files.iter().max().map_or(0, |fd| fd.saturating_add(1));
    while let Some(which) = input.byte() {
        let Some(&fd) = files.get(pick(which, files.len())) else { return };
        let (how, low) = (input.byte().unwrap_or_default(), u64::from(input.byte().unwrap_or_default()));
        let request = match how % 8 {
            0 | 1 => 0x5400 | low,
            2 | 3 => 0x8900 | low,
            4 => 0xb700 | low,
            5 => 0x8004_6600 | low,
            6 => 0x4004_5400 | low,
            _ => u64::from(input.short()) << 16 | u64::from(input.short()),
        };
        let n = usize::from(input.byte().unwrap_or_default());
        let argument = input.take(n);
        let argument = if how & 8 == 0 {
            world.put(ARGUMENT, argument)
        } else {
            argument.first_chunk().map_or(u64::from(how), |b| u64::from_le_bytes(*b))
        };
        let _ = world.call(nr::IOCTL, [fd, request, argument, 0, 0, 0]);
        if how & 16 != 0 {
            // What was set has its say.
            let at = address(ARGUMENT);
            let _ = world.call(nr::WRITE, [fd, at, u64::from(how), 0, 0, 0]);
            let _ = world.call(nr::READ, [fd, at, u64::from(how), 0, 0, 0]);
        }
        let _ = world.call(nr::CLOSE_RANGE, [first_free, u64::from(u32::MAX), 0, 0, 0, 0]);
    }
}

/// Files of a process that can be written to.
const OF_PROCESS: [&str; 12] = [
    "oom_score_adj",
    "oom_adj",
    "comm",
    "coredump_filter",
    "timerslack_ns",
    "loginuid",
    "uid_map",
    "gid_map",
    "setgroups",
    "clear_refs",
    "attr/current",
    "mem",
];

/// Writes pieces into settings of the system and of a process; what then stands in the file has an end.
pub fn settings(data: &[u8]) {
    let (mut input, mut world) = (Input(data), World::new());
    let task = world.task();
    let scope = sysctl::Scope::new(task.kernel(), &task.namespaces());
    let mut names: Vec<String> = sysctl::values(&scope).into_keys().map(|name| format!("/proc/sys/{name}")).collect();
    names.extend(["hostname", "domainname"].map(|name| format!("/proc/sys/kernel/{name}")));
    names.extend(OF_PROCESS.map(|name| format!("/proc/self/{name}")));
    drop(scope);
    while let Some(which) = input.byte() {
        let how = input.byte().unwrap_or_default();
        let Some(name) = names.get(pick(which, names.len())) else { return };
        let Some(fd) = world.open(name, OpenFlags::RDWR) else { continue };
        let n = usize::from(input.byte().unwrap_or_default());
        let text = input.take(n);
        let len = text.len().try_into().unwrap_or_default();
        let text = world.put(ARGUMENT, text);
        let offset = if how & 1 == 0 { 0 } else { u64::from(input.short()) };
        let _ = world.call(nr::PWRITE64, [fd, text, len, offset, 0, 0]);
        if !name.ends_with("/mem") {
            let read = world.call(nr::PREAD64, [fd, address(ARGUMENT), 0x8000, 0, 0, 0]);
            assert!(!matches!(read, Some(Ok(0x8000))), "{name} is very long");
        }
        let _ = world.call(nr::CLOSE, [fd, 0, 0, 0, 0, 0]);
        if how == 0xff {
            world.become_user(1000);
        }
    }
}
