//! A sandbox that hangs, looked at from outside; and tables that are drawn again and again.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::bundle::{Bundle, is_root, wait_for};

#[test]
fn a_sandbox_that_hangs_is_looked_at_from_outside() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("hangs", &["--ignore-cgroups"], "exec sleep 1000", |_| {});
    bundle.start();
    let id = bundle.id.as_str();
    // The shell may not have become the command yet.
    let mut looks = 0..500;
    while !bundle.text(&["debug", "--stacks", id]).contains(" sleep ") {
        assert!(looks.next().is_some());
    }
    let state: Value = serde_json::from_str(&bundle.text(&["state", id])).unwrap();
    let pid = Pid::from_raw(i32::try_from(state["pid"].as_i64().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::STOP).unwrap();
    // It comes to an end, which is what this is about.
    let text = bundle.text(&["debug", "--stacks", id]);
    kill_process(pid, Signal::CONT).unwrap();
    assert!(text.contains("does not answer") && text.contains(&format!("sandbox process {}", pid.as_raw_nonzero())));
    // Its own threads are stopped; the host process that is the guest's has the guest's name.
    let line = |name: &str| text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    assert!(line("moat-sandbox").contains(" T "), "{text}");
    assert!(line(" sleep ").split_whitespace().count() >= 6, "{text}");
}

#[test]
fn what_containers_use_is_shown_again_and_again() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("top", &["--ignore-cgroups"], "while :; do read line < /proc/self/comm; done", |_| {});
    bundle.start();
    let text = bundle.text(&["top", "--interval", "1s", "--iterations", "2"]);
    let rows: Vec<Vec<&str>> =
        text.lines().filter(|line| line.starts_with("top ")).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((rows.len(), rows[0].len(), rows[0][1], rows[0][2]), (2, 10, "running", "-"), "{text}");
    let (cpu, calls): (f64, f64) = (rows[1][2].parse().unwrap(), rows[1][6].parse().unwrap());
    assert!(cpu > 0.0 && calls > 10.0, "{text}");
}

#[test]
fn one_process_is_logged_and_no_other() {
    if !is_root() {
        return;
    }
    let script = "sh -c 'while :; do cat /etc/hostname >/dev/null; sleep 0.05; done' & while :; do : < /dev/null; sleep 0.05; done";
    let bundle = Bundle::new("strace", &["--ignore-cgroups"], script, |_| {});
    bundle.start();
    let (id, log) = (bundle.id.as_str(), bundle.dir.join("strace.log"));
    let debug_log = format!("--debug-log={}", log.display());
    let (success, _, error) = bundle.moat(&["debug", "--strace=openat", id]);
    assert!(!success && error.contains("--debug-log"), "{error}");
    bundle.text(&["debug", &debug_log, "--strace=openat", "--pid", "1", id]);
    let calls = |text: &str| text.lines().filter(|line| line.contains("strace: [")).count();
    let logged = || std::fs::read_to_string(&log).unwrap_or_default();
    wait_for("calls in the log", || (calls(&logged()) > 2).then_some(()));
    bundle.text(&["debug", "--strace=off", "--pid", "1", id]);
    let first = logged();
    assert!(
        calls(&first) > 2
            && first.lines().all(|line| !line.contains("strace: [") || line.contains("strace: [1] openat(")),
        "{first}"
    );
    // The whole container, then nothing again.
    bundle.text(&["debug", "--strace=openat,execve", id]);
    let has_all = |text: &str| text.contains("/etc/hostname") && text.contains("execve(");
    wait_for("calls of all processes", || has_all(&logged()).then_some(()));
    bundle.text(&["debug", "--strace=off", id]);
    // What was under way.
    std::thread::sleep(Duration::from_millis(300));
    let (before, after) = (calls(&std::fs::read_to_string(&log).unwrap()), {
        std::thread::sleep(Duration::from_millis(500));
        calls(&std::fs::read_to_string(&log).unwrap())
    });
    assert_eq!(before, after);
}
