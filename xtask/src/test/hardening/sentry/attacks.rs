//! What an attacker would try from inside of the sentry.

use std::path::PathBuf;

use serde_json::{Value, json};

/// What is outside and must not be reached.
pub(super) struct Surroundings {
    /// A directory of the host with a file `marker`.
    pub(super) outside: PathBuf,
    /// A process of the host.
    pub(super) victim: i64,
    /// A TCP port of the host's loopback.
    pub(super) port: u16,
    /// The abstract address of a datagram socket.
    pub(super) mailbox: &'static str,
}

/// Calls that the sentry is to make, one after the other.
pub(super) struct Attack {
    pub(super) name: String,
    pub(super) calls: Vec<Value>,
    pub(super) goal: Goal,
}

/// When an attack has succeeded.
#[derive(Clone, Copy)]
pub(super) enum Goal {
    /// One of the calls has.
    Any,
    /// The last of them has; the others are harmless.
    Last,
    /// What is outside has changed: the calls may succeed on what is the sandbox's own.
    Outside,
}

/// Descriptors that a sandbox may have.
const DESCRIPTORS: std::ops::Range<i64> = 0..40;

const AT_FDCWD: i64 = -100;
const O_WRONLY_CREAT: i64 = 0o101;
const O_NOFOLLOW: i64 = 0o400_000;
const O_DIRECTORY: i64 = 0o200_000;
const O_PATH: i64 = 0o10_000_000;

/// An iovec of eight bytes, wherever.
const EIGHT_BYTES: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0];

fn call<const N: usize>(number: i64, arguments: [Value; N]) -> Value {
    json!({"number": number, "arguments": arguments.as_slice()})
}

fn n(number: i64) -> Value {
    json!({"Number": number})
}

fn text(text: &str) -> Value {
    json!({"Text": text})
}

fn bytes(bytes: &[u8]) -> Value {
    json!({"Bytes": bytes})
}

/// The result of an earlier call.
fn result(index: usize) -> Value {
    json!({"Result": index})
}

/// getpid, which every sentry may call.
pub(super) fn own_pid() -> Vec<Value> {
    vec![call(39, [])]
}

/// Opens what lies in the container's root, by whatever descriptor it may be.
pub(super) fn inside() -> Vec<Value> {
    DESCRIPTORS.map(|fd| call(257, [n(fd), text("inside"), n(O_NOFOLLOW), n(0)])).collect()
}

/// All of them.
pub(super) fn all(around: &Surroundings) -> Vec<Attack> {
    let mut all = refused();
    all.extend(by_path(around));
    all.extend(DESCRIPTORS.flat_map(|fd| by_descriptor(fd, around)));
    all.extend(on_processes(around));
    all.extend(on_network(around));
    all
}

fn attack(name: impl Into<String>, goal: Goal, calls: Vec<Value>) -> Attack {
    Attack { name: name.into(), calls, goal }
}

/// Calls that no sentry ever makes.
fn refused() -> Vec<Attack> {
    let shell = || text("/bin/sh");
    let one = |name: &str, number, arguments: &[Value]| {
        attack(name, Goal::Any, vec![json!({"number": number, "arguments": arguments})])
    };
    let mut all = vec![
        one("execve", 59, &[shell(), n(0), n(0)]),
        one("execveat", 322, &[n(AT_FDCWD), shell(), n(0), n(0), n(0)]),
        one("fork", 57, &[]),
        one("vfork", 58, &[]),
        one("fork by clone", 56, &[n(17), n(0), n(0), n(0), n(0)]),
        one("clone with a user namespace", 56, &[n(0x1000_0011), n(0), n(0), n(0), n(0)]),
        one("fork by clone3", 435, &[bytes(&clone_args(17)), n(88)]),
        one("unshare a user namespace", 272, &[n(0x1000_0000)]),
        one("unshare a mount namespace", 272, &[n(0x2_0000)]),
        one("chroot", 161, &[text("/")]),
        one("pivot_root", 155, &[text("."), text(".")]),
        one("mount a tmpfs", 165, &[text("x"), text("/"), text("tmpfs"), n(0), n(0)]),
        one("remount the root writable", 165, &[text(""), text("/"), text(""), n(0x1020), n(0)]),
        one("umount2", 166, &[text("/proc"), n(2)]),
        one("open_tree", 428, &[n(AT_FDCWD), text("/"), n(1)]),
        one("fsopen", 430, &[text("proc"), n(0)]),
        one("mount_setattr", 442, &[n(AT_FDCWD), text("/"), n(0), bytes(&[0; 32]), n(32)]),
        one("bpf", 321, &[n(0), bytes(&[0; 64]), n(64)]),
        one("perf_event_open", 298, &[bytes(&[0; 128]), n(0), n(-1), n(-1), n(0)]),
        one("fanotify_init that may hold up others", 300, &[n(4), n(0)]),
        one("fanotify_mark PATH", 301, &[n(3), n(1), n(2), n(AT_FDCWD), text("/")]),
        one("open_by_handle_at", 304, &[n(3), bytes(&[8, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]), n(0)]),
        one("userfaultfd", 323, &[n(0)]),
        one("userfaultfd for user mode", 323, &[n(1)]),
        one("io_uring_setup", 425, &[n(4), bytes(&[0; 120])]),
        one("keyctl", 250, &[n(0), n(-3), n(0), n(0), n(0)]),
        one("add_key", 248, &[text("user"), text("x"), text("x"), n(1), n(-3)]),
        one("ptrace traceme", 101, &[n(0), n(0), n(0), n(0)]),
        one("init_module", 175, &[bytes(&[0; 8]), n(8), text("")]),
        one("kexec_load", 246, &[n(0), n(0), n(0), n(0)]),
        one("a timer whose signal is not that of profiles", 38, &[n(0), bytes(&[0; 32]), n(0)]),
        one("reboot", 169, &[n(0xfee1_dead), n(672_274_793), n(0), n(0)]),
        one("setuid", 105, &[n(0)]),
        one("setgroups", 116, &[n(0), n(0)]),
        one("capset", 126, &[bytes(&capability_header()), bytes(&[0xff; 24])]),
        one("prctl to be dumpable", 157, &[n(4), n(1), n(0), n(0), n(0)]),
        one("prctl of a filter", 157, &[n(22), n(2), n(0), n(0), n(0)]),
        one("personality", 135, &[n(0x40_0000)]),
        one("iopl", 172, &[n(3)]),
        one("ioperm", 173, &[n(0), n(1), n(1)]),
        one("modify_ldt", 154, &[n(1), bytes(&[0; 16]), n(16)]),
        one("sethostname", 170, &[text("x"), n(1)]),
        one("settimeofday", 164, &[bytes(&[0; 16]), n(0)]),
        one("swapon", 167, &[text("/x"), n(0)]),
        one("syslog", 103, &[n(3), bytes(&[0; 64]), n(64)]),
        one("fanotify_init", 300, &[n(0), n(0)]),
        one("inotify_init1", 294, &[n(0)]),
        one("memory to execute", 9, &[n(0), n(4096), n(7), n(0x22), n(-1), n(0)]),
        one("memory read and executed", 9, &[n(0), n(4096), n(5), n(0x22), n(-1), n(0)]),
        one("pkey_mprotect", 329, &[n(0x1000), n(4096), n(5), n(-1)]),
        one("shmget", 29, &[n(0), n(4096), n(0o1600)]),
        one("mq_open", 240, &[text("x"), n(0o102), n(0o600), n(0)]),
        one("setrlimit", 160, &[n(7), bytes(&[0xff; 16])]),
        one("a limit of another process", 302, &[n(1), n(7), bytes(&[0xff; 16]), n(0)]),
        one("quotactl", 179, &[n(0), n(0), n(0), n(0)]),
        one("acct", 163, &[text("/x")]),
        one("typing into the terminal", 16, &[n(0), n(0x5412), text("x")]),
        one("pasting into the console", 16, &[n(0), n(0x541c), bytes(&[3])]),
        one("the calls of x32", 0x4000_0000 + 39, &[]),
    ];
    // Memory that was written and is then executed; a program that was.
    all.push(attack(
        "mprotect to execute",
        Goal::Last,
        vec![call(9, [n(0), n(4096), n(3), n(0x22), n(-1), n(0)]), call(10, [result(0), n(4096), n(5)])],
    ));
    all.push(attack(
        "execute a memfd",
        Goal::Last,
        vec![call(319, [text("x"), n(0)]), call(322, [result(0), text(""), n(0), n(0), n(0x1000)])],
    ));
    all.push(attack(
        "map a memfd to execute",
        Goal::Last,
        vec![call(319, [text("x"), n(0)]), call(9, [n(0), n(4096), n(5), n(1), result(0), n(0)])],
    ));
    all
}

/// Names of files of the host, from the working directory and the root.
fn by_path(around: &Surroundings) -> Vec<Attack> {
    let marker = around.outside.join("marker").display().to_string();
    let made = around.outside.join("made").display().to_string();
    let mut all = Vec::new();
    let mut add = |name: String, calls| all.push(attack(name, Goal::Any, calls));
    for path in [marker.as_str(), "/etc/passwd", "/bin/sh", "/proc/sys/kernel/core_pattern", "/dev/null", "/sys"] {
        add(format!("open {path}"), vec![call(2, [text(path), n(0), n(0)])]);
        add(format!("openat {path}"), vec![call(257, [n(AT_FDCWD), text(path), n(0), n(0)])]);
        add(format!("openat {path} by no descriptor"), vec![call(257, [n(-1), text(path), n(O_NOFOLLOW), n(0)])]);
        add(format!("openat2 {path}"), vec![call(437, [n(AT_FDCWD), text(path), bytes(&[0; 24]), n(24)])]);
        add(
            format!("open by handle {path}"),
            vec![call(303, [n(AT_FDCWD), text(path), bytes(&[128, 0, 0, 0, 0, 0, 0, 0]), bytes(&[0; 8]), n(0)])],
        );
    }
    for path in [&marker, "/etc/passwd"] {
        add(format!("stat {path}"), vec![call(262, [n(AT_FDCWD), text(path), bytes(&[0; 256]), n(0)])]);
        add(format!("statx {path}"), vec![call(332, [n(AT_FDCWD), text(path), n(0), n(0xfff), bytes(&[0; 256])])]);
        add(format!("access {path}"), vec![call(21, [text(path), n(0)])]);
        add(format!("readlink {path}"), vec![call(89, [text(path), bytes(&[0; 256]), n(256)])]);
        add(format!("truncate {path}"), vec![call(76, [text(path), n(0)])]);
        add(format!("chmod {path}"), vec![call(90, [text(path), n(0o777)])]);
        add(format!("unlink {path}"), vec![call(87, [text(path)])]);
        add(format!("unlinkat {path}"), vec![call(263, [n(AT_FDCWD), text(path), n(0)])]);
    }
    add("creat".into(), vec![call(85, [text(&made), n(0o666)])]);
    add("mkdir".into(), vec![call(83, [text(&made), n(0o777)])]);
    add("mkdirat".into(), vec![call(258, [n(AT_FDCWD), text(&made), n(0o777)])]);
    add("symlink".into(), vec![call(88, [text("x"), text(&made)])]);
    add("rename".into(), vec![call(82, [text(&marker), text(&made)])]);
    add("chdir".into(), vec![call(80, [text(&around.outside.display().to_string())])]);
    all
}

/// Ways out of each directory that the sandbox may have open, through `..`, links and procfs.
fn by_descriptor(fd: i64, around: &Surroundings) -> Vec<Attack> {
    let up = "../".repeat(30);
    let outside = around.outside.display().to_string();
    let below = outside.trim_start_matches('/');
    let marker = format!("{up}{below}/marker");
    let paths = [
        marker.clone(),
        "out/marker".into(),
        "rel/marker".into(),
        "../outside/marker".into(),
        format!("self/root{outside}/marker"),
        format!("self/cwd/{marker}"),
        format!("1/root/{marker}"),
        format!("thread-self/root{outside}/marker"),
        format!("self/fd/{fd}/{marker}"),
        format!("self/fd/{fd}/../{marker}"),
        format!("2/root{outside}/marker"),
        format!("2/cwd/{marker}"),
        format!("{}/root{outside}/marker", around.victim),
        "sys/kernel/core_pattern".into(),
        "kcore".into(),
        "sysrq-trigger".into(),
    ];
    let mut open: Vec<Value> = paths.iter().map(|path| call(257, [n(fd), text(path), n(O_NOFOLLOW), n(0)])).collect();
    open.push(call(257, [n(fd), text(&format!("{up}{below}")), n(O_DIRECTORY | O_PATH), n(0)]));
    // Up step by step, with a descriptor for each: the first that leaves the tree has the marker below it.
    let mut climb = vec![call(257, [n(fd), text(".."), n(O_DIRECTORY | O_PATH | O_NOFOLLOW), n(0)])];
    for step in 0..8 {
        climb.push(call(257, [result(step), text(".."), n(O_DIRECTORY | O_PATH | O_NOFOLLOW), n(0)]));
    }
    climb.push(call(257, [result(8), text(&format!("{below}/marker")), n(O_NOFOLLOW), n(0)]));
    let write = vec![
        call(257, [n(fd), text(&format!("{up}{below}/made")), n(O_WRONLY_CREAT | O_NOFOLLOW), n(0o666)]),
        call(257, [n(fd), text("out/made"), n(O_WRONLY_CREAT | O_NOFOLLOW), n(0o666)]),
        call(257, [n(fd), text("rel/made"), n(O_WRONLY_CREAT | O_NOFOLLOW), n(0o666)]),
        call(258, [n(fd), text(&format!("{up}{below}/made")), n(0o777)]),
        call(263, [n(fd), text(&marker), n(0)]),
        call(263, [n(fd), text("rel/marker"), n(0)]),
        call(316, [n(fd), text("inside"), n(fd), text(&format!("{up}{below}/made")), n(0)]),
        call(316, [n(fd), text(&marker), n(fd), text("stolen"), n(0)]),
        call(265, [n(fd), text(&marker), n(fd), text("stolen"), n(0)]),
        call(266, [text("x"), n(fd), text(&format!("{up}{below}/made"))]),
        call(259, [n(fd), text("disk"), n(0o60_666), n(0x800)]),
        call(260, [n(fd), text(&marker), n(1), n(1), n(0)]),
        call(280, [n(fd), text(&marker), n(0), n(0)]),
    ];
    vec![
        attack(format!("open outside from descriptor {fd}"), Goal::Any, open),
        attack(format!("climb from descriptor {fd}"), Goal::Last, climb),
        attack(format!("change what is outside from descriptor {fd}"), Goal::Any, write),
        // A node that is in the tree, as if the node maker had made it.
        attack(
            format!("open the device below descriptor {fd}"),
            Goal::Any,
            [0, 1, 2].map(|access| call(257, [n(fd), text("device"), n(O_NOFOLLOW | access), n(0)])).into(),
        ),
        attack(format!("chdir to descriptor {fd}"), Goal::Any, vec![call(81, [n(fd)])]),
        attack(format!("setns to descriptor {fd}"), Goal::Any, vec![call(308, [n(fd), n(0)])]),
    ]
}

fn on_processes(around: &Surroundings) -> Vec<Attack> {
    let victim = around.victim;
    let one = |name: &str, call| attack(name, Goal::Any, vec![call]);
    vec![
        one("kill a process of the host", call(62, [n(victim), n(9)])),
        one("stop a process of the host", call(62, [n(victim), n(19)])),
        one("kill a process group of the host", call(62, [n(-victim), n(9)])),
        one("tgkill a process of the host", call(234, [n(victim), n(victim), n(9)])),
        one("tkill a process of the host", call(200, [n(victim), n(9)])),
        one("rt_sigqueueinfo to a process of the host", call(129, [n(victim), n(9), bytes(&[0; 128])])),
        one("pidfd_open a process of the host", call(434, [n(victim), n(0)])),
        attack(
            "take a descriptor of a process of the host",
            Goal::Last,
            vec![call(434, [n(victim), n(0)]), call(438, [result(0), n(0), n(0)])],
        ),
        one("ptrace a process of the host", call(101, [n(16), n(victim), n(0), n(0)])),
        one("seize a process of the host", call(101, [n(0x4206), n(victim), n(0), n(0)])),
        one(
            "read the memory of a process of the host",
            call(310, [n(victim), bytes(&EIGHT_BYTES), n(1), bytes(&EIGHT_BYTES), n(1), n(0)]),
        ),
        one(
            "write the memory of a process of the host",
            call(311, [n(victim), bytes(&EIGHT_BYTES), n(1), bytes(&EIGHT_BYTES), n(1), n(0)]),
        ),
        one("kcmp with a process of the host", call(312, [n(victim), n(1), n(0), n(0), n(0)])),
        one("the priority of a process of the host", call(141, [n(0), n(victim), n(19)])),
        one("the CPUs of a process of the host", call(203, [n(victim), n(8), bytes(&[1, 0, 0, 0, 0, 0, 0, 0])])),
        // Of its own processes it may end all: the host's must not be among them.
        attack("kill everything", Goal::Outside, vec![call(62, [n(-1), n(9)])]),
    ]
}

fn on_network(around: &Surroundings) -> Vec<Attack> {
    let mut inet = vec![2, 0];
    inet.extend(around.port.to_be_bytes());
    inet.extend([127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let mut unix = vec![1, 0, 0];
    unix.extend(around.mailbox.bytes());
    let length = i64::try_from(unix.len()).unwrap_or(0);
    let mut all: Vec<Attack> =
        [(1, 1), (1, 2), (1, 5), (2, 1), (2, 2), (2, 3), (10, 1), (16, 3), (17, 3), (38, 5), (40, 1)]
            .into_iter()
            .map(|(family, kind)| {
                let name = format!("socket of family {family} and type {kind}");
                attack(name, Goal::Any, vec![call(41, [n(family), n(kind), n(0)])])
            })
            .collect();
    for fd in DESCRIPTORS {
        let send = call(44, [n(fd), text("x"), n(1), n(0x4040), bytes(&unix), n(length)]);
        all.push(attack(format!("send to the host by descriptor {fd}"), Goal::Outside, vec![send]));
    }
    for fd in DESCRIPTORS.step_by(8) {
        all.push(attack(format!("connect descriptor {fd}"), Goal::Any, vec![call(42, [n(fd), bytes(&inet), n(16)])]));
        all.push(attack(format!("bind descriptor {fd}"), Goal::Any, vec![call(49, [n(fd), bytes(&unix), n(length)])]));
    }
    all
}

/// `struct clone_args` with an exit signal.
fn clone_args(signal: u8) -> [u8; 88] {
    let mut args = [0; 88];
    args[32] = signal;
    args
}

/// `struct __user_cap_header_struct` of version 3.
fn capability_header() -> [u8; 8] {
    [0x22, 0x05, 0x08, 0x20, 0, 0, 0, 0]
}
