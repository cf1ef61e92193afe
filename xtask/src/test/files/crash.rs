//! Kills sandboxes and gofers at random moments, while programs inside report what they have committed
//! (`tests/files/crash.py`); afterwards nothing that was reported may be missing.
//!
//! Half of the times the host looks first, else the next sandbox: it finds what a crash has left, as a database's journal.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use super::super::job::{tail, wait};
use super::super::{
    FileServer, Files, Job, Network, Options, Place, Platform, Report, RootKind, Runner, Writable, bundle, ensure_root,
    leftovers,
};
use super::is_to_run;
use super::sequence::Scratch;
use crate::paths;

/// What is killed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Victim {
    Sandbox,
    Gofer,
}

/// A case: a name, how the tree is reached, what is killed.
struct Case {
    name: &'static str,
    server: FileServer,
    kind: As,
    victim: Victim,
}

/// How the sandbox has the tree.
#[derive(Clone, Copy, PartialEq, Eq)]
enum As {
    /// A directory of the root, which nobody else changes. The root is an overlay of the host, as Docker makes it.
    Root,
    /// A bind mount.
    Bind,
}

const CASES: [Case; 5] = [
    Case { name: "root", server: FileServer::Sandbox, kind: As::Root, victim: Victim::Sandbox },
    Case { name: "root@gofer", server: FileServer::Gofer, kind: As::Root, victim: Victim::Sandbox },
    Case { name: "bind", server: FileServer::Sandbox, kind: As::Bind, victim: Victim::Sandbox },
    Case { name: "bind@gofer", server: FileServer::Gofer, kind: As::Bind, victim: Victim::Sandbox },
    Case { name: "bind@killed-gofer", server: FileServer::Gofer, kind: As::Bind, victim: Victim::Gofer },
];

/// Kills of each case.
const SHORT: usize = 2;
const LONG: usize = 40;

/// How long a sandbox may take until it has reported something, and until it has ended.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs the cases that the options ask for.
pub(super) fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    for case in CASES {
        let name = format!("crash/{}", case.name);
        if !is_to_run(options, &name) {
            continue;
        }
        for platform in options.platforms(&[Platform::Systrap]) {
            let start = Instant::now();
            let kills = if options.long { LONG } else { SHORT };
            let mut chance = Chance(options.seed.unwrap_or(u64::from(std::process::id())) | 1);
            match rounds(runner, platform, &case, kills, &mut chance)? {
                Ok(commits) => {
                    println!("      {kills} kills of {name}: {commits}");
                    report.pass(&format!("files/{name}"), start.elapsed());
                }
                Err(why) => report.fail(&format!("files/{name}"), why),
            }
        }
    }
    Ok(())
}

/// A generator of moments (xorshift).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// What all the rounds have committed, or what is missing.
fn rounds(
    runner: &mut Runner,
    platform: Platform,
    case: &Case,
    kills: usize,
    chance: &mut Chance,
) -> Result<Result<String, String>> {
    let scratch = Scratch::new("crash")?;
    let data = match case.kind {
        As::Bind => scratch.0.join("data"),
        As::Root => scratch.0.join("upper/data"),
    };
    for directory in [&data, &scratch.0.join("work"), &scratch.0.join("root")] {
        fs::create_dir_all(directory)?;
    }
    let reports = scratch.0.join("reports");
    File::create(&reports)?;
    let mut verdict = Ok(String::new());
    for round in 0..kills {
        let before = fs::metadata(&reports)?.len();
        let moment = Duration::from_millis(chance.below(1200));
        kill_once(runner, platform, case, &scratch, moment)?;
        if fs::metadata(&reports)?.len() == before {
            return Ok(Err(format!("round {round}: nothing was reported")));
        }
        // Every other crash is left for the next sandbox to recover from.
        if round % 2 == 0 || round + 1 == kills {
            verdict = verify(&data, &reports).map_err(|why| format!("after kill {}: {why}", round + 1));
        }
        if verdict.is_err() {
            break;
        }
    }
    Ok(verdict)
}

/// Lets the programs run for a moment after the first report, and kills.
fn kill_once(runner: &mut Runner, platform: Platform, case: &Case, scratch: &Scratch, moment: Duration) -> Result<()> {
    let reports = scratch.0.join("reports");
    let full = ensure_root(RootKind::Full)?;
    let root = if case.kind == As::Root { scratch.0.join("root") } else { full.clone() };
    let writable = if case.kind == As::Root { Writable::Root } else { Writable::Nothing };
    let files = Files { server: case.server, writable };
    let arguments = ["/usr/bin/python3", "-c", include_str!("../../../../tests/files/crash.py"), "commit", "/data"];
    let arguments = arguments.map(String::from).to_vec();
    let job = Job { name: "crash", root: &root, arguments, network: Network::Sandbox, files, timeout: TIMEOUT };
    let prepared = runner.prepare(Place::Sandbox(platform), &job)?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    match case.kind {
        As::Root => command.arg(format!(
            "mount -t overlay -o lowerdir={},upperdir={},workdir={} overlay {} && exec \"$@\"",
            full.display(),
            scratch.0.join("upper").display(),
            scratch.0.join("work").display(),
            root.display()
        )),
        As::Bind => {
            bundle::bind(&prepared.directory, &scratch.0.join("data"), "/data")?;
            command.arg("exec \"$@\"")
        }
    };
    command.arg("sh").arg(prepared.command.get_program()).args(prepared.command.get_args());
    let before = fs::metadata(&reports)?.len();
    let output = File::options().append(true).open(&reports)?;
    let errors = scratch.0.join("errors");
    let mut child = command.stdin(Stdio::null()).stdout(output).stderr(File::create(&errors)?).spawn()?;
    let deadline = Instant::now() + TIMEOUT;
    while fs::metadata(&reports)?.len() == before && child.try_wait()?.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(moment);
    let name = if case.victim == Victim::Gofer { "moat-gofer" } else { "moat-sandbox" };
    let victim = named(name);
    if let Some(pid) = victim {
        // It may have ended by itself; then nothing was reported, or the rest is checked all the same.
        let _ = kill_process(pid, Signal::KILL);
    }
    if case.victim == Victim::Gofer {
        // What is open goes on without a gofer.
        std::thread::sleep(Duration::from_millis(200));
        if let Some(pid) = named("moat-sandbox") {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    // An error says that it has ended and was reaped with the rest.
    let ended = wait(&mut child, deadline).unwrap_or(Some(ExitStatus::default()));
    leftovers::kill_descendants();
    leftovers::reap_descendants();
    fs::remove_dir_all(&prepared.directory)?;
    if ended.is_none() || victim.is_none() {
        bail!("no {name} to kill, or it did not end:{}", tail(&fs::read(&errors)?, 10));
    }
    Ok(())
}

/// The descendant of that name.
fn named(name: &str) -> Option<Pid> {
    let is = |text: &str| text.split(' ').nth(1) == Some(name);
    leftovers::living().into_iter().find(|(_, text)| is(text)).map(|(pid, _)| pid)
}

/// The last numbers, or what is missing.
fn verify(data: &Path, reports: &Path) -> Result<String, String> {
    let check = || -> Result<(bool, String)> {
        let output = Command::new("python3")
            .arg(paths::repository().join("tests/files/crash.py"))
            .arg("verify")
            .arg(data)
            .stdin(File::open(reports)?)
            .output()
            .context("python3")?;
        let mut text = String::from_utf8_lossy(&output.stdout).trim_end().to_string();
        if !output.status.success() {
            text.push_str(&tail(&output.stderr, 4));
        }
        Ok((output.status.success(), text))
    };
    match check() {
        Ok((true, text)) => Ok(text),
        Ok((false, text)) => Err(text),
        Err(error) => Err(format!("{error:#}")),
    }
}
