//! Every point that has a message of its own, decoded: calls.c makes each of the calls, and the monitor is told of it with its arguments, before and
//! after. Numbers of messages and fields are the public protocol's.

use std::path::Path;
use std::process::Command;

use moat_abi::nr;
use serde_json::{Value, json};

use crate::bundle::{Bundle, is_root, wait_for};
use crate::reader::{Fields, Monitor};

/// What a field of a message is to be.
#[derive(Clone, Copy, Debug)]
enum Want {
    /// This number; 0 is left out.
    Number(i64),
    /// One above 0.
    Positive,
    Text(&'static str),
    Texts(&'static [&'static str]),
    /// A socket address of this family, port and IPv4 address.
    Address,
    /// Any address of IPv4.
    Peer,
    /// A message with these numbers.
    Pair(i64, i64),
    /// A message with a message in its second field, with these numbers.
    Timer(i64, i64),
}
use Want::{Address, Number, Pair, Peer, Positive, Text, Texts, Timer};

/// Fields that a call writes: they are there at its end.
type At = (u64, Want);

/// Call, number of its message, fields at its beginning and end, more fields at its end, and its result if it is an error.
type Row = (&'static str, u16, &'static [At], &'static [At], i64);

const HOSTNAME: At = (5, Text("/etc/hostname"));
const FILE: At = (5, Text("/tmp/w"));
const EPERM: i64 = 1;
const ESRCH_OR_NONE: i64 = 0;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("open", 7, &[(4, Number(-100)), (6, Text("/etc/hostname")), (7, Number(0o2000000))], &[], 0),
    ("creat", 7, &[(4, Number(-100)), (6, Text("/tmp/w")), (7, Number(0o1101)), (8, Number(0o600))], &[], 0),
    ("openat", 7, &[(4, Number(-100)), (6, Text("/tmp/w")), (7, Number(0o102)), (8, Number(0o640))], &[], 0),
    ("close", 8, &[(4, Number(37)), (5, Text("/usr/bin/true"))], &[], 0),
    ("read", 9, &[(4, Number(30)), HOSTNAME, (6, Number(5))], &[], 0),
    ("pread64", 9, &[(4, Number(30)), HOSTNAME, (6, Number(6)), (7, Number(1)), (8, Number(1))], &[], 0),
    ("readv", 9, &[(4, Number(30)), HOSTNAME, (6, Number(24))], &[], 0),
    ("preadv", 9, &[(4, Number(30)), HOSTNAME, (6, Number(24)), (7, Number(1)), (8, Number(2))], &[], 0),
    ("preadv2", 9, &[(4, Number(30)), HOSTNAME, (6, Number(24)), (7, Number(1)), (8, Number(3))], &[], 0),
    ("write", 34, &[(4, Number(32)), FILE, (6, Number(3))], &[], 0),
    ("pwrite64", 34, &[(4, Number(32)), FILE, (6, Number(4)), (7, Number(1)), (8, Number(1))], &[], 0),
    ("writev", 34, &[(4, Number(32)), FILE, (6, Number(24))], &[], 0),
    ("pwritev", 34, &[(4, Number(32)), FILE, (6, Number(24)), (7, Number(1)), (8, Number(2))], &[], 0),
    ("pwritev2", 34, &[(4, Number(32)), FILE, (6, Number(24)), (7, Number(1)), (8, Number(3))], &[], 0),
    ("connect", 10, &[(4, Number(40)), (5, Positive), (6, Address)], &[], 0),
    ("execve", 11, &[(4, Number(-100)), (6, Text("/bin/true")), (7, Texts(&["true", "argument"])), (8, Texts(&["X=y"]))], &[], 0),
    ("execveat", 11, &[(4, Number(37)), (7, Texts(&["true", "argument"])), (8, Texts(&["X=y"])), (9, Number(0x1000))], &[], 0),
    ("socket", 12, &[(4, Number(2)), (5, Number(1)), (6, Number(6))], &[], 0),
    ("chdir", 13, &[(4, Number(-100)), (6, Text("/tmp"))], &[], 0),
    ("fchdir", 13, &[(4, Number(33)), (5, Text("/proc"))], &[], 0),
    ("setuid", 14, &[(4, Number(0))], &[], 0),
    ("setgid", 14, &[(4, Number(0))], &[], 0),
    ("setsid", 14, &[], &[], 0),
    ("setresuid", 15, &[(4, Number(0)), (5, Number(0)), (6, Number(0))], &[], 0),
    ("setresgid", 15, &[(4, Number(0)), (5, Number(0)), (6, Number(0))], &[], 0),
    ("prlimit64", 16, &[(5, Number(4)), (6, Pair(100, 200))], &[(7, Positive)], 0),
    ("pipe", 17, &[], &[(5, Positive), (6, Positive)], 0),
    ("pipe2", 17, &[(4, Number(0o2000000))], &[(5, Positive), (6, Positive)], 0),
    ("fcntl", 18, &[(4, Number(30)), HOSTNAME, (6, Number(2)), (7, Number(1))], &[], 0),
    ("dup", 19, &[(4, Number(30)), (6, Text("/etc/hostname"))], &[], 0),
    ("dup2", 19, &[(5, Number(30)), (6, Text("/etc/hostname"))], &[], 0),
    ("dup3", 19, &[(4, Number(30)), (5, Number(31)), (6, Text("/etc/hostname")), (7, Number(0o2000000))], &[], 0),
    ("signalfd", 20, &[(4, Number(-1)), (6, Number(1 << 9))], &[], 0),
    ("signalfd4", 20, &[(4, Number(-1)), (6, Number(1 << 9)), (7, Number(0o2000000))], &[], 0),
    ("chroot", 21, &[(4, Text("/tmp"))], &[], EPERM),
    ("eventfd", 22, &[(4, Number(7))], &[], 0),
    ("eventfd2", 22, &[(4, Number(8)), (5, Number(0o2000000))], &[], 0),
    ("clone", 23, &[(4, Number(17))], &[], 0),
    ("bind", 24, &[(4, Number(34)), (6, Address)], &[], 0),
    ("accept", 25, &[(4, Number(34))], &[(6, Peer)], 0),
    ("accept4", 25, &[(4, Number(34)), (7, Number(0o2000000))], &[(6, Peer)], 0),
    ("timerfd_create", 26, &[(4, Number(1)), (5, Number(0o2000000))], &[], 0),
    ("timerfd_settime", 27, &[(4, Number(35)), (7, Timer(100, 5))], &[(8, Positive)], 0),
    ("timerfd_gettime", 28, &[(4, Number(35))], &[(6, Positive)], 0),
    ("fork", 29, &[], &[], 0),
    ("vfork", 29, &[], &[], 0),
    ("inotify_init", 30, &[], &[], 0),
    ("inotify_init1", 30, &[(4, Number(0o2000000))], &[], 0),
    ("inotify_add_watch", 31, &[(4, Number(36)), (6, Text("/tmp")), (7, Number(0x100))], &[], 0),
    ("inotify_rm_watch", 32, &[(4, Number(36)), (6, Number(1))], &[], 0),
    ("socketpair", 33, &[(4, Number(1)), (5, Number(2))], &[(7, Positive), (8, Positive)], 0),
    ("mmap", 36, &[(4, Number(30)), HOSTNAME, (7, Number(8192)), (8, Number(1)), (9, Number(2)), (10, Number(4096))], &[], 0),
    ("listen", 37, &[(4, Number(34)), (6, Number(5))], &[], 0),
    ("ptrace", 38, &[(5, Number(77))], &[], ESRCH_OR_NONE),
];

fn holds(event: &Fields, (field, want): At) -> bool {
    match want {
        Number(number) => event.number(field) == number,
        Positive => event.number(field) > 0 || !event.bytes(field).is_empty(),
        Text(text) => event.text(field) == text,
        Texts(texts) => event.texts(field) == texts,
        Address => event.bytes(field).first().is_some_and(|bytes| bytes[..8] == [2, 0, 0x10, 0xe1, 127, 0, 0, 1]),
        Peer => event.bytes(field).first().is_some_and(|bytes| bytes[..2] == [2, 0] && bytes[4..8] == [127, 0, 0, 1]),
        Pair(first, second) => {
            event.inner(field).is_some_and(|pair| (pair.number(1), pair.number(2)) == (first, second))
        }
        Timer(seconds, ns) => {
            let value = event.inner(field).and_then(|timer| timer.inner(2));
            value.is_some_and(|value| (value.number(1), value.number(2)) == (seconds, ns))
        }
    }
}

/// The points with messages of their own that there are, with their optional fields.
fn points(metadata: &str) -> Vec<(String, Vec<String>)> {
    let named = metadata.lines().filter_map(|line| line.strip_prefix("Name: "));
    let of = |line: &str| {
        let (name, rest) = line.split_once(", ")?;
        let optional = rest.split_once("optional fields: [").map_or("", |(_, rest)| rest.split(']').next().unwrap());
        let fields = optional.split(['|', ',', ' ']).filter(|field| !field.is_empty());
        Some((name.to_owned(), fields.map(str::to_owned).collect()))
    };
    // Sinks have names too, and no fields.
    named.filter_map(of).filter(|(name, _): &(String, _)| !name.contains("/sysno/")).collect()
}

#[test]
fn every_message_is_decoded() {
    if !is_root() {
        return;
    }
    // Not below /tmp, which the container covers.
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("calls-{}", std::process::id()));
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/observe/calls.c");
    assert!(Command::new("cc").arg("-o").arg(&program).arg(source).status().unwrap().success());
    let bundle = Bundle::new("points-told", &["--ignore-cgroups"], "", |config| {
        config["process"]["args"] = json!([program]);
    });
    let points = points(&bundle.text(&["trace", "metadata"]));
    let calls = points.iter().filter_map(|(name, _)| name.strip_prefix("syscall/")?.strip_suffix("/exit"));
    let (mut calls, mut rows): (Vec<&str>, Vec<&str>) = (calls.collect(), ROWS.iter().map(|row| row.0).collect());
    calls.sort_unstable();
    rows.sort_unstable();
    assert_eq!(calls, rows, "a row for each point");

    let socket = bundle.dir.join("monitor.sock");
    let monitor = Monitor::start(&socket);
    let wanted: Vec<Value> = points
        .iter()
        .map(|(name, optional)| json!({"name": name, "optional_fields": optional, "context_fields": ["container_id"]}))
        .collect();
    let sinks = json!([{"name": "remote", "config": {"endpoint": socket}}]);
    let config = json!({"trace_session": {"name": "Default", "points": wanted, "sinks": sinks}});
    let path = bundle.dir.join("session.json");
    std::fs::write(&path, config.to_string()).unwrap();
    let directory = bundle.dir.join("bundle");
    let flags =
        ["--pod-init-config", path.to_str().unwrap(), "run", "--bundle", directory.to_str().unwrap(), &bundle.id];
    bundle.text(&flags);
    std::fs::remove_file(&program).unwrap();
    // The program and its four children.
    wait_for("the last event", || (monitor.of(4).len() >= 5).then_some(()));
    assert_eq!(monitor.dropped(), 0);
    for &(call, kind, fields, at_end, error) in ROWS {
        let sysno = i64::from(nr::number(call).unwrap());
        let events: Vec<Fields> = monitor.of(kind).into_iter().filter(|event| event.number(3) == sysno).collect();
        let fits = |event: &&Fields| {
            let of_container = event.inner(1).is_some_and(|context| context.text(6) == bundle.id);
            of_container && fields.iter().all(|field| holds(event, *field))
        };
        let (ends, begins): (Vec<&Fields>, Vec<&Fields>) =
            events.iter().filter(fits).partition(|event| event.inner(2).is_some());
        assert!(!begins.is_empty(), "{call} begins: {events:#?}");
        let ended = |event: &&Fields| {
            let exit = event.inner(2).unwrap();
            exit.number(2) == error && at_end.iter().all(|field| holds(event, *field))
        };
        assert!(ends.iter().any(ended), "{call} ends: {events:#?}");
    }
}
