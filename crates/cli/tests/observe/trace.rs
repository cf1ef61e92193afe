//! Sessions of security events: what monitors are told, and that slow and dead ones hold up nobody.

use serde_json::{Value, json};

use crate::bundle::{Bundle, is_root, wait_for};
use crate::reader::{self, Fields, Monitor};

/// Kinds of messages, by their numbers in the protocol.
const START: u16 = 1;
const CLONE: u16 = 2;
const EXEC: u16 = 3;
const EXIT_NOTIFY: u16 = 4;
const TASK_EXIT: u16 = 5;
const RAW: u16 = 6;
const OPEN: u16 = 7;
const CONNECT: u16 = 10;
const EXECVE: u16 = 11;
const PIPE: u16 = 17;

const CONTEXT: [&str; 11] = [
    "time",
    "thread_id",
    "task_start_time",
    "group_id",
    "thread_group_start_time",
    "container_id",
    "credentials",
    "cwd",
    "process_name",
    "parent_thread_group_id",
    "is_exec_session",
];

fn session(bundle: &Bundle, points: &[&str], sinks: Value) -> String {
    let point = |name: &&str| {
        let optional: &[&str] = match *name {
            "container/start" => &["env"],
            "sentry/execve" => &["binary_info", "env"],
            _ => &[],
        };
        let context: Vec<&str> =
            CONTEXT.into_iter().filter(|field| *field != "cwd" || *name != "sentry/exit_notify_parent").collect();
        json!({"name": name, "optional_fields": optional, "context_fields": context})
    };
    let points: Vec<Value> = points.iter().map(point).collect();
    let config = json!({"trace_session": {"name": "Default", "points": points, "sinks": sinks}});
    let path = bundle.dir.join("session.json");
    std::fs::write(&path, config.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_monitor_is_told_what_a_container_does() {
    if !is_root() {
        return;
    }
    const SCRIPT: &str = "echo hi > /tmp/x; cat /tmp/x | cat; cat /tmp/none; (exit 3); \
        bash -c ': > /dev/tcp/127.0.0.1/9'; exit 0";
    for platform in ["systrap", "ptrace"] {
        let bundle =
            Bundle::new(&format!("told-{platform}"), &["--platform", platform, "--ignore-cgroups"], SCRIPT, |_| {});
        let (socket, lines) = (bundle.dir.join("monitor.sock"), bundle.dir.join("events.json"));
        let monitor = Monitor::start(&socket);
        let points = [
            "container/start",
            "sentry/clone",
            "sentry/execve",
            "sentry/exit_notify_parent",
            "sentry/task_exit",
            "syscall/openat/enter",
            "syscall/openat/exit",
            "syscall/execve/enter",
            "syscall/execve/exit",
            "syscall/connect/exit",
            "syscall/pipe/exit",
            "syscall/pipe2/exit",
            "syscall/sysno/61/exit",
        ];
        let sinks = json!([
            {"name": "remote", "config": {"endpoint": socket}},
            {"name": "file", "config": {"path": lines}},
            {"name": "remote", "config": {"endpoint": "/nowhere"}, "ignore_setup_error": true},
        ]);
        let config = session(&bundle, &points, sinks);
        let path = bundle.dir.join("bundle");
        bundle.text(&["--pod-init-config", &config, "run", "--bundle", path.to_str().unwrap(), &bundle.id]);
        let ended = |monitor: &Monitor| monitor.of(EXIT_NOTIFY).len() >= 6;
        wait_for("the last event", || ended(&monitor).then_some(()));

        let [start] = &monitor.of(START)[..] else { panic!("{:?}", monitor.of(START)) };
        assert_eq!((start.text(2), start.text(3)), (bundle.id.clone(), "/".into()));
        assert_eq!(start.texts(4), ["/bin/sh", "-c", SCRIPT]);
        assert_eq!(start.texts(5), ["PATH=/usr/bin:/bin"]);
        let context = |event: &Fields| event.inner(1).unwrap();
        let who = context(start);
        assert_eq!((who.text(6), who.text(8), who.text(9)), (bundle.id.clone(), "/".into(), "sh".into()));
        assert!(who.number(1) > 1_700_000_000_000_000_000 && who.number(2) > 0 && who.number(4) == who.number(2));

        let exec = monitor.of(EXEC);
        let cat = exec.iter().find(|event| event.texts(3) == ["cat", "/tmp/x"]).unwrap();
        assert!(cat.text(2).ends_with("/cat") && cat.text(17).ends_with("/cat") && cat.texts(4).len() >= 2, "{cat:?}");
        assert!(cat.number(5) & 0o111 == 0o111 && cat.number(18) > 1000, "{cat:?}");
        assert_eq!(context(cat).number(10), who.number(2), "its parent is the shell");
        // Each task that was made ends; one process with 3.
        let made: Vec<i64> = monitor.of(CLONE).iter().map(|event| event.number(3)).collect();
        let gone: Vec<i64> = monitor.of(TASK_EXIT).iter().map(|event| context(event).number(2)).collect();
        assert!(made.len() >= 5 && made.iter().all(|tid| gone.contains(tid)), "{made:?} {gone:?}");
        let status = |event: &Fields| event.number(2);
        assert!(monitor.of(EXIT_NOTIFY).iter().any(|event| status(event) == 3 << 8));

        let opens = monitor.of(OPEN);
        let of = |path: &str| opens.iter().filter(|event| event.text(6) == path).collect::<Vec<_>>();
        let results: Vec<Option<(i64, i64)>> =
            of("/tmp/none").iter().map(|event| event.inner(2).map(|exit| (exit.number(1), exit.number(2)))).collect();
        assert_eq!(results, [None, Some((-1, 2))]);
        assert!(of("/tmp/x").len() >= 4 && of("/tmp/x").iter().any(|event| event.number(7) & 0o101 == 0o101));
        let connect = monitor.of(CONNECT);
        let refused = connect.iter().find(|event| event.bytes(6)[0][..2] == [2, 0]).unwrap();
        assert_eq!(refused.bytes(6)[0][2..8], [0, 9, 127, 0, 0, 1]);
        assert_eq!(refused.inner(2).unwrap().number(2), 111);
        // What execve was asked for is told at its end too, when the old memory is gone.
        let calls = monitor.of(EXECVE);
        let cats = calls.iter().filter(|event| event.texts(7) == ["cat", "/tmp/x"] && event.text(6).ends_with("/cat"));
        assert_eq!(cats.filter(|event| event.inner(2).is_some_and(|exit| exit.number(2) == 0)).count(), 1);
        let pipe = monitor.of(PIPE);
        assert!(pipe.iter().any(|event| event.number(5) >= 3 && event.number(6) > event.number(5)), "{pipe:?}");
        assert!(monitor.of(RAW).iter().all(|event| event.number(4) == 61 && event.inner(2).is_some()));
        assert!(!monitor.of(RAW).is_empty());
        assert_eq!(monitor.dropped(), 0);

        // The file has the same, one JSON object a line.
        let text = std::fs::read_to_string(&lines).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let count = |point: &str| lines.iter().filter(|line| line["point"] == point).count();
        assert_eq!((count("container/start"), count("sentry/execve")), (1, exec.len()));
        assert_eq!(count("syscall/openat/enter") + count("syscall/openat/exit"), opens.len());
        assert_eq!(count("sentry/exit_notify_parent"), monitor.of(EXIT_NOTIFY).len(), "the last lines are there");
        let line = lines.iter().find(|line| {
            line["point"] == "syscall/connect/exit" && line["address"].as_str().unwrap().starts_with("0200")
        });
        assert_eq!(line.unwrap()["exit"]["errorno"], 111);
    }
}

#[test]
fn slow_and_dead_monitors_hold_up_nobody() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("slow", &["--ignore-cgroups"], "while :; do sleep 0.05; done", |_| {});
    bundle.start();
    let id = bundle.id.as_str();
    let socket = bundle.dir.join("monitor.sock");
    let listener = reader::listen(&socket);
    let sinks = json!([{"name": "remote", "config": {"endpoint": socket}}]);
    let config = session(&bundle, &["syscall/sysno/0/enter", "syscall/read/exit", "sentry/execve"], sinks);
    let create = |flags: &[&str]| bundle.moat(&[&["trace", "create", "--config", &config], flags, &[id]].concat());
    // It accepts, and never reads.
    let slow = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| reader::accept(&listener));
        assert!(create(&[]).0);
        accepting.join().unwrap()
    });
    let list = || bundle.text(&["trace", "list", id]);
    assert!(list().starts_with("SESSIONS (1)\n\"Default\"\n\tSink: \"remote\", dropped: 0"), "{}", list());
    // Comes to an end, although nobody takes its events.
    let reads = || bundle.text(&["exec", id, "dd", "if=/dev/zero", "of=/dev/null", "bs=1", "count=3000"]);
    reads();
    let dropped = || -> u64 {
        let list = list();
        let number = list.split("dropped: ").nth(1).unwrap();
        number.split(',').next().unwrap().parse().unwrap()
    };
    let lost = dropped();
    assert!(lost > 1000, "{lost}");
    // It dies.
    drop(slow);
    reads();
    assert!(dropped() > lost + 5000);
    // One of the same name takes its place only if it is told to.
    let (success, _, error) = std::thread::scope(|scope| {
        scope.spawn(|| reader::accept(&listener));
        create(&[])
    });
    assert!(!success && error.contains("there is a trace session \"Default\" already"), "{error}");
    let _reads = std::thread::scope(|scope| {
        let accepting = scope.spawn(|| reader::accept(&listener));
        assert!(create(&["--force"]).0);
        accepting.join().unwrap()
    });
    assert_eq!(dropped(), 0);
    bundle.text(&["trace", "delete", "--name", "Default", id]);
    assert_eq!(list(), "SESSIONS (0)\n");
    let (success, _, error) = bundle.moat(&["trace", "delete", id]);
    assert!(!success && error.contains("there is no trace session"), "{error}");
    // Nobody listens.
    drop(listener);
    let (success, _, error) = create(&[]);
    assert!(!success && error.contains("connecting to the monitor at"), "{error}");
    assert_eq!(list(), "SESSIONS (0)\n");
}

#[test]
fn points_are_listed() {
    let bundle = Bundle::new("points", &[], "true", |_| {});
    let text = bundle.text(&["trace", "metadata"]);
    let count: usize =
        text.lines().next().unwrap().strip_prefix("POINTS (").unwrap().trim_end_matches(')').parse().unwrap();
    assert_eq!(
        text.lines().filter(|line| line.starts_with("Name: ") && line.contains("context fields: [")).count(),
        count
    );
    for point in ["container/start", "sentry/clone", "syscall/openat/enter", "syscall/sysno/0/exit"] {
        assert!(text.contains(&format!("\nName: {point}, ")), "{point}");
    }
}
