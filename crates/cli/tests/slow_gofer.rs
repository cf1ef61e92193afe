//! A host call that sleeps holds up nobody but its caller: the gofer is stopped, and other processes of the guest go on.
//!
//! Takes root and perl; says so where it has to be skipped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

/// More callers than there are CPUs go to the gofer at once, while one process only sleeps, over and over, and prints the longest gap.
const SCRIPT: &str = r#"
use Time::HiRes qw(time sleep);
$| = 1;
my ($last, $gap, $end) = (time, 0, time + 6);
if (!fork) {
    print "ready\n";
    while (time < $end) {
        sleep 0.001;
        my $now = time;
        $gap = $now - $last if $now - $last > $gap;
        $last = $now;
    }
    print "gap $gap\n";
    exit;
}
<STDIN>;
for my $i (1 .. 8) {
    next if fork;
    my $start = time;
    stat "/mnt/$i";
    print "stat ", time - $start, "\n";
    exit;
}
1 while wait > 0;
"#;

/// How long the gofer is stopped, and what nobody else may notice of it.
const STOPPED: Duration = Duration::from_secs(3);
const MOST: f64 = 0.5;

/// The processes below `pid`, itself included.
fn descendants(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let below = children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(descendants);
    std::iter::once(pid).chain(below).collect()
}

fn is_gofer(pid: &i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == "moat-gofer")
}

#[test]
fn a_stopped_gofer_stops_only_those_who_ask_it() {
    if !rustix::process::geteuid().is_root() || !Path::new("/usr/bin/perl").exists() {
        eprintln!("skipped: takes root and perl");
        return;
    }
    let dir = std::env::temp_dir().join(format!("moat-slow-{}", std::process::id()));
    fs::create_dir_all(dir.join("tree")).unwrap();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/usr/bin/perl", "-e", SCRIPT], "cwd": "/",
            "env": ["PATH=/usr/bin:/bin"]},
        "root": {"path": "/", "readonly": true},
        "mounts": [{"destination": "/mnt", "type": "bind", "source": dir.join("tree"), "options": ["rbind"]}],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
    });
    fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
    command.arg("--root").arg(dir.join("state")).args(["--network=none", "--ignore-cgroups", "--directfs=false"]);
    command.args(["run", "--bundle"]).arg(&dir).arg("c").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let gofer = descendants(child.id().cast_signed()).into_iter().find(is_gofer).and_then(Pid::from_raw);
    let gofer = gofer.expect("a gofer below the command");
    kill_process(gofer, Signal::STOP).unwrap();
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    std::thread::sleep(STOPPED);
    kill_process(gofer, Signal::CONT).unwrap();
    let lines: Vec<String> = lines.collect();
    assert!(child.wait().unwrap().success(), "{lines:?}");
    let times = |what: &str| -> Vec<f64> {
        lines.iter().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).collect()
    };
    let (stats, gaps) = (times("stat "), times("gap "));
    println!("{lines:?}");
    assert_eq!((stats.len(), gaps.len()), (8, 1), "{lines:?}");
    assert!(stats.iter().all(|time| *time > 2.0), "the gofer was stopped: {lines:?}");
    assert!(gaps[0] < MOST, "{lines:?}");
    fs::remove_dir_all(dir).unwrap();
}
