//! What one operation of a row of `micro` consists of: switches of the sandbox's threads, host calls of the sentry, and where CPU time goes.
//!
//! Each question has a run of its own, since the answers disturb each other: strace(1) stops every thread at every call, so that nobody
//! waits awake in its run. Its counts are those of such a sandbox; the switches are those of one that is left alone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{guest_root, job};
use crate::paths;
use crate::test::{Place, Runner, leftovers};

/// From when the program says that it will begin to when strace has to be there; it sleeps for two seconds.
const SETTLE: Duration = Duration::from_secs(1);

/// Looks into the row at each place.
pub fn run(runner: &mut Runner, moat: &Path, places: &[Place], row: &str) -> Result<()> {
    for &place in places {
        let program = program_of(runner, place, row)?;
        let mut run = Run::start(runner, place, program, row)?;
        std::thread::sleep(SETTLE);
        let before = switches();
        let (operations, ns) = run.result()?;
        let after = switches();
        run.end();
        println!("{row} on {}: {} ns", place.name(), ns.checked_div(operations).unwrap_or(0));
        for (who, now) in after {
            let then = before.get(&who).copied().unwrap_or_default();
            let voluntary = each(now.0.saturating_sub(then.0), operations);
            let forced = each(now.1.saturating_sub(then.1), operations);
            println!("  switches per operation, {who}: {voluntary} voluntary, {forced} involuntary");
        }
        println!("  host calls per operation, under strace: {}", host_calls(runner, place, program, row)?.join(", "));
        if let Place::Sandbox(_) = place {
            println!("  CPU time: {}", flame_graph(runner, moat, place, program, row)?.display());
        }
    }
    Ok(())
}

/// So many for each operation, to three places.
fn each(count: u64, operations: u64) -> String {
    let thousandths = count.saturating_mul(1000).checked_div(operations).unwrap_or(0);
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

/// Which of the programs has the row.
fn program_of(runner: &mut Runner, place: Place, row: &str) -> Result<&'static str> {
    for program in ["micro", "calls"] {
        let run = Run::start(runner, place, program, row)?;
        let begins = run.begun;
        run.end();
        if begins {
            return Ok(program);
        }
    }
    bail!("micro has no row '{row}'")
}

/// A program that measures one row.
struct Run {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    id: String,
    directory: PathBuf,
    /// It has said that it will begin, and has not ended without that.
    begun: bool,
}

impl Run {
    fn start(runner: &mut Runner, place: Place, program: &str, row: &str) -> Result<Run> {
        let root = guest_root(program)?;
        let mut prepared = runner.prepare(place, &job(&root, &[&format!("/bin/{program}"), "--profile", row]))?;
        let command = prepared.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("no output")?).lines();
        let begun = lines.next().transpose()?.is_some_and(|line| line == "begins");
        Ok(Run { child, lines, id: prepared.id, directory: prepared.directory, begun })
    }

    /// Operations and nanoseconds, when they are known.
    fn result(&mut self) -> Result<(u64, u64)> {
        let line = self.lines.next().transpose()?.context("it ended early")?;
        let mut fields = line.split(' ').skip(1).map(str::parse::<u64>);
        let mut next = || fields.next().context("too few fields").and_then(|field| Ok(field?));
        Ok((next()?.max(1), next()?))
    }

    fn end(mut self) {
        leftovers::kill_descendants();
        // Killing may have reaped it as well.
        let _ = self.child.wait();
        // What is left goes with the runner.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

fn is_sentry(name: &str) -> bool {
    name.contains("moat-sandbox boot")
}

/// Voluntary and involuntary switches of all threads so far, of the sandbox process and of all others.
fn switches() -> BTreeMap<&'static str, (u64, u64)> {
    let mut sums = BTreeMap::new();
    for (pid, name) in leftovers::living() {
        let who = if is_sentry(&name) { "the sentry" } else { "the others" };
        let sum: &mut (u64, u64) = sums.entry(who).or_default();
        for task in fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).into_iter().flatten().flatten() {
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            let field = |name: &str| {
                let value = status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
                value.and_then(|value| value.parse::<u64>().ok()).unwrap_or(0)
            };
            sum.0 += field("voluntary_ctxt_switches:");
            sum.1 += field("nonvoluntary_ctxt_switches:");
        }
    }
    sums
}

/// The host calls of all threads by name, the most frequent first.
fn host_calls(runner: &mut Runner, place: Place, program: &str, row: &str) -> Result<Vec<String>> {
    let mut run = Run::start(runner, place, program, row)?;
    let counts = paths::target().join("bench/strace");
    let _ = fs::remove_file(&counts);
    let mut strace = Command::new("strace");
    strace.args(["-qq", "-f", "-c", "-o"]).arg(&counts);
    // Guests' processes are not stopped: what they ask of the host is the other end of what the sentry does.
    let looked_at = |name: &str| place == Place::Host || is_sentry(name);
    for (pid, _) in leftovers::living().into_iter().filter(|(_, name)| looked_at(name)) {
        strace.args(["-p", &pid.as_raw_pid().to_string()]);
    }
    let mut strace = strace.stdin(Stdio::null()).stderr(Stdio::null()).spawn().context("strace(1) is needed")?;
    let result = run.result();
    let pid = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    strace.wait()?;
    run.end();
    let (operations, _) = result?;
    let table = fs::read_to_string(&counts)?;
    // % time, seconds, usecs/call, calls, then errors if there are any, and the name.
    let rows = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let calls: u64 = fields.get(3)?.parse().ok()?;
        fields.last().filter(|name| **name != "total").map(|name| (calls, name.to_string()))
    });
    let mut rows: Vec<_> = rows.filter(|(calls, _)| calls.saturating_mul(100) >= operations).collect();
    rows.sort_by_key(|(calls, _)| std::cmp::Reverse(*calls));
    Ok(rows.into_iter().map(|(calls, name)| format!("{name} {}", each(calls, operations))).collect())
}

/// Where the sandbox's CPU time goes meanwhile.
fn flame_graph(runner: &mut Runner, moat: &Path, place: Place, program: &str, row: &str) -> Result<PathBuf> {
    let run = Run::start(runner, place, program, row)?;
    std::thread::sleep(SETTLE * 2);
    let file = paths::target().join("bench").join(format!("{row}-{}.svg", place.name()));
    let mut debug = Command::new(moat);
    debug.arg("debug").arg("--flamegraph").arg(&file).args(["--duration", "1s", &run.id]);
    let done = debug.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    run.end();
    ensure!(done.status.success(), "moat debug: {}", String::from_utf8_lossy(&done.stderr));
    Ok(file)
}
