//! `usage`, `export-metrics`, `metric-server` and `events --metrics`, with figures that are known.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use openmetrics_parser::PrometheusValue;
use openmetrics_parser::openmetrics::parse_openmetrics;
use openmetrics_parser::prometheus::parse_prometheus;
use serde_json::{Value, json};

use crate::bundle::{Bundle, is_root, wait_for};

/// Reads 3000 KiB, writes them to a tmpfs, is refused something, and holds 32 MiB.
const SCRIPT: &str = "dd if=/dev/zero of=/tmp/x bs=1024 count=3000 2>/dev/null; cat /etc/shadow_not_there 2>/dev/null; \
    mkdir /tmp/refused 2>/dev/null; \
    exec dd if=/dev/zero of=/dev/stdout bs=32M count=1 iflag=fullblock 2>/dev/null | sleep 1000";

/// A label's value that would be three lines and another sample.
const EVIL: &str = "pod\"} 1\nmoat_evil{a=\"\\";

fn bundle(id: &str, flags: &[&str]) -> Bundle {
    Bundle::new(id, flags, SCRIPT, |config| {
        config["annotations"] = json!({"io.kubernetes.cri.sandbox-name": EVIL});
        config["linux"]["cgroupsPath"] = json!(format!("/moat-observe-{id}-{}", std::process::id()));
        config["linux"]["seccomp"] = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]});
        config["linux"]["resources"] = json!({"memory": {"limit": 500 << 20}, "pids": {"limit": 77}});
    })
}

/// Samples by name and the values of some labels.
fn parse(text: &str) -> BTreeMap<(String, String), f64> {
    const LABELS: [&str; 8] = ["call", "result", "category", "mode", "direction", "operation", "state", "limit"];
    let exposition = parse_prometheus(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let mut samples = BTreeMap::new();
    for (name, family) in exposition.families {
        for sample in family.iter_samples() {
            let labels = sample.get_labelset().unwrap();
            let what: Vec<&str> = LABELS.iter().filter_map(|name| labels.get_label_value(name)).collect();
            let value = match &sample.value {
                PrometheusValue::Counter(counter) => counter.value,
                PrometheusValue::Gauge(value) => *value,
                other => panic!("{name}: {other:?}"),
            };
            samples.insert((name.clone(), what.join(" ")), value.as_f64());
        }
    }
    samples
}

fn get(samples: &BTreeMap<(String, String), f64>, name: &str, what: &str) -> f64 {
    *samples.get(&(name.to_owned(), what.to_owned())).unwrap_or_else(|| panic!("{name} {what}: {samples:?}"))
}

#[test]
fn figures_are_those_of_what_was_done() {
    if !is_root() {
        return;
    }
    for platform in ["systrap", "ptrace"] {
        let log = std::env::temp_dir().join(format!("moat-observe-refused-{platform}-{}", std::process::id()));
        let log_flag = format!("--debug-log={}", log.display());
        let flags = ["--platform", platform, &log_flag, "--strace=mkdir"];
        let bundle = bundle(&format!("figures-{platform}"), &flags);
        bundle.start();
        let id = bundle.id.as_str();
        let export = || parse(&bundle.text(&["export-metrics", id]));
        let anonymous = |samples: &BTreeMap<_, _>| get(samples, "moat_memory_bytes", "anonymous");
        let samples = wait_for("the buffer of 32 MiB", || Some(export()).filter(|s| anonymous(s) > (32 << 20) as f64));
        let calls = |call: &str| get(&samples, "moat_syscalls_total", call);
        assert_eq!(calls("mkdir denied"), 1.0, "what a filter refuses is counted, too");
        let logged = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert!(logged.contains("mkdir(\"/tmp/refused\", 511) = -1 EPERM (by a filter)"), "{logged}");
        assert!(calls("openat error") >= 1.0 && calls("write ok") >= 3000.0 && calls("read ok") >= 3000.0);
        assert!(get(&samples, "moat_io_bytes_total", "written") >= 3000.0 * 1024.0);
        assert!(get(&samples, "moat_fs_reads", "") >= 3000.0 && get(&samples, "moat_fs_opens", "") > 10.0);
        assert!(get(&samples, "moat_file_operations_total", "write") >= 3000.0);
        let tmpfs = get(&samples, "moat_memory_bytes", "tmpfs");
        assert!(tmpfs >= 3000.0 * 1024.0 && tmpfs < (32 << 20) as f64, "{tmpfs}");
        assert!(get(&samples, "moat_memory_bytes", "page_tables") > 0.0);
        assert_eq!(get(&samples, "moat_tasks_limit", ""), 77.0);
        assert_eq!(get(&samples, "moat_container_state", "running"), 1.0);
        assert!(get(&samples, "moat_threads", "") >= 2.0 && get(&samples, "moat_open_descriptors", "") >= 6.0);
        assert!(get(&samples, "moat_uptime_seconds", "") > 0.0);

        // The cgroup's figures are those of the categories, but for files that nobody has mapped and the host's kernel.
        let usage: Value = serde_json::from_str(&bundle.text(&["usage", "--full", id])).unwrap();
        let bytes = |field: &str| usage[field].as_f64().unwrap();
        let ours = bytes("Anonymous") + bytes("SentryHeap") + bytes("Tmpfs");
        let charged = bytes("Cgroup");
        assert!(ours < charged + (2 << 20) as f64 && charged < ours + (64 << 20) as f64, "{usage}");
        let sum: f64 =
            ["System", "Anonymous", "PageCache", "Mapped", "Tmpfs", "Ramdiskfs", "Unknown"].map(bytes).iter().sum();
        assert_eq!(sum, bytes("Total"));
        let brief: Value = serde_json::from_str(&bundle.text(&["usage", id])).unwrap();
        assert_eq!(brief.as_object().unwrap().len(), 8);
        // What the cgroup was charged is what guests and the sandbox process have used.
        let cpu = |name: &str, mode: &str| get(&samples, &format!("moat_{name}_total"), mode);
        let sandbox = cpu("sandbox_cpu_seconds", "user") + cpu("sandbox_cpu_seconds", "system");
        let (ours, charged) = (cpu("cpu_seconds", "user") + sandbox, cpu("cgroup_cpu_seconds", "total"));
        // Processes that end in the moment of the look, and ticks of the host.
        assert!((charged - ours).abs() < 0.15 + charged / 10.0, "{ours} of {charged}: {samples:?}");
        // Most of what the sandbox process does is for this container; on ptrace a thread of its own traces.
        let system = cpu("cpu_seconds", "system");
        assert!(system < sandbox * 1.05 + 0.05 && system > sandbox / 10.0, "{system} of {sandbox}");

        let event: Value = serde_json::from_str(&bundle.text(&["events", "--stats", "--metrics", id])).unwrap();
        assert!(event["metrics"]["moved"]["written"].as_f64().unwrap() >= 3000.0 * 1024.0, "{event}");
        let event: Value = serde_json::from_str(&bundle.text(&["events", "--stats", id])).unwrap();
        assert!(event.get("metrics").is_none() && event["data"]["cpu"].is_object(), "{event}");
        bundle.text(&["kill", id, "KILL"]);
        // Who asks while it ends is told that it did so before it gave an answer.
        wait_for("the end", || {
            let (success, _, error) = bundle.moat(&["export-metrics", id]);
            (!success && error.contains("not running")).then_some(())
        });
    }
}

/// EAGAIN says that some limit of tasks was met; which one, the figures and the log say.
#[test]
fn a_fork_that_is_refused_names_the_limit() {
    if !is_root() {
        return;
    }
    let script = "(for i in 1 2 3 4 5 6 7 8; do sleep 1000 & done) 2>/dev/null; exec sleep 1000";
    for limit in ["pids.max", "RLIMIT_NPROC"] {
        let log = std::env::temp_dir().join(format!("moat-observe-{limit}-{}", std::process::id()));
        let log_flag = format!("--debug-log={}", log.display());
        let bundle = Bundle::new(&format!("forks-{limit}"), &[&log_flag], script, |config| {
            if limit == "pids.max" {
                config["linux"]["resources"] = json!({"pids": {"limit": 5}});
            } else {
                config["process"]["user"] = json!({"uid": 1234, "gid": 1234});
                config["process"]["capabilities"] = json!({});
                config["process"]["rlimits"] = json!([{"type": "RLIMIT_NPROC", "soft": 5, "hard": 5}]);
            }
        });
        bundle.start();
        let name = "moat_forks_refused_total";
        let samples = wait_for("a fork that is refused", || {
            Some(parse(&bundle.text(&["export-metrics", &bundle.id]))).filter(|samples| get(samples, name, limit) > 0.0)
        });
        for other in ["pids.max", "RLIMIT_NPROC", "kernel.pid_max", "host"].into_iter().filter(|other| *other != limit)
        {
            assert_eq!(get(&samples, name, other), 0.0, "{other} as {limit}");
        }
        let logged = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(&log).unwrap();
        assert!(logged.contains(&format!("limit=\"{limit}\" value=5")), "{logged}");
        bundle.text(&["kill", &bundle.id, "KILL"]);
    }
}

/// Status line and body of an answer.
fn ask(mut stream: impl Read + Write, request: &str) -> (String, String) {
    // A server that refuses closes before it has read.
    let _ = stream.write_all(request.as_bytes());
    let mut text = String::new();
    // A server that closes at once resets the connection.
    let _ = stream.read_to_string(&mut text);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.lines().next().unwrap_or_default().to_owned(), body.to_owned())
}

fn page(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n")
}

#[test]
fn the_server_serves_all_containers_and_nobody_too_long() {
    if !is_root() {
        return;
    }
    let bundle = bundle("server", &[]);
    let socket = bundle.dir.join("metrics.sock");
    let address = format!("--metric-server={}", socket.display());
    let pid_file = bundle.dir.join("pid");
    let mut server = bundle.spawn(&[&address, "metric-server", "--pid-file", pid_file.to_str().unwrap()], "listening");
    wait_for("the server", || bundle.read("listening").contains("listening on").then_some(()));
    let connect = || UnixStream::connect(&socket).unwrap();
    // Before there is any container; then, with no word to the server, there is one.
    let before = parse(&ask(connect(), &page("/metrics", "")).1);
    assert_eq!(get(&before, "moat_meta_num_sandboxes_running", ""), 0.0);
    bundle.start();
    std::thread::sleep(std::time::Duration::from_millis(150));
    let (status, body) = ask(connect(), &page("/metrics", ""));
    assert_eq!(status, "HTTP/1.1 200 OK");
    let samples = parse(&body);
    assert_eq!(get(&samples, "moat_meta_num_sandboxes_running", ""), 1.0);
    assert_eq!(get(&samples, "moat_meta_num_sandboxes_total", ""), 1.0);
    assert_eq!(get(&samples, "moat_meta_sandbox_running", ""), 1.0);
    assert!(get(&samples, "moat_processes", "") >= 1.0);
    assert!(!samples.keys().any(|(name, _)| name.contains("evil")), "{body}");
    let (_, open) = ask(connect(), &page("/metrics", "Accept: application/openmetrics-text; version=1.0.0\r\n"));
    let open = parse_openmetrics(&open).unwrap_or_else(|error| panic!("{error}: {open}"));
    assert!(open.families["moat_syscalls"].iter_samples().count() > 10);
    assert_eq!(ask(connect(), &page("/runsc-metrics/healthcheck", "")).1, "runsc-metrics:OK");
    assert_eq!(ask(connect(), &page("/healthcheck?root=%2Fnowhere", "")).0, "HTTP/1.1 400 Bad Request");
    assert_eq!(ask(connect(), &page("/nothing", "")).0, "HTTP/1.1 404 Not Found");
    // Whoever says nonsense, or too much, is told so; whoever says nothing holds up nobody else.
    assert_eq!(ask(connect(), "\0\0\r\n\r\n").0, "HTTP/1.1 400 Bad Request");
    assert_eq!(ask(connect(), "POST /metrics HTTP/1.1\r\n\r\n").0, "HTTP/1.1 405 Method Not Allowed");
    let long = page("/metrics", &format!("X: {}\r\n", "x".repeat(20_000)));
    assert!(matches!(ask(connect(), &long).0.as_str(), "HTTP/1.1 431 Request Header Fields Too Large" | ""));
    let silent: Vec<UnixStream> = (0..16).map(|_| connect()).collect();
    wait_for("a refusal", || ask(connect(), &page("/healthcheck", "")).0.starts_with("HTTP/1.1 503").then_some(()));
    drop(silent);
    wait_for("a place", || (ask(connect(), &page("/healthcheck", "")).0 == "HTTP/1.1 200 OK").then_some(()));
    // It ends in order.
    let pid: i32 = std::fs::read_to_string(&pid_file).unwrap().parse().unwrap();
    assert_eq!(pid, server.0.id() as i32);
    rustix::process::kill_process(rustix::process::Pid::from_child(&server.0), rustix::process::Signal::TERM).unwrap();
    assert!(server.0.wait().unwrap().success());
    assert!(!socket.exists() && !pid_file.exists());
}

#[test]
fn the_server_listens_on_tcp() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("tcp", &[], "true", |_| {});
    let server =
        bundle.spawn(&["--metric-server=127.0.0.1:0", "metric-server", "--exporter-prefix=runsc_"], "listening");
    let address = wait_for("the server", || {
        let text = bundle.read("listening");
        Some(text.strip_prefix("listening on ")?.strip_suffix('\n')?.to_owned())
    });
    let (_, body) = ask(TcpStream::connect(address).unwrap(), &page("/metrics", ""));
    assert_eq!(get(&parse(&body), "runsc_meta_metric_server_presence", ""), 1.0);
    drop(server);
    for bad in ["nothing", ":99999"] {
        let (success, _, error) = bundle.moat(&[&format!("--metric-server={bad}"), "metric-server"]);
        assert!(!success && error.contains("neither a path nor HOST:PORT"), "{error}");
    }
}
