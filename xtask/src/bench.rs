//! `cargo x bench`: native, moat on each platform, and runsc if it is installed, compared in one run.
//!
//! Rounds are interleaved, so that a change of the machine's mood meets all alike, and the median counts.
//! Only the ratios to native, or to runc where containers are compared, mean something on another machine.

mod checkpoint;
mod docker;
mod idle;
mod lifecycle;
mod net;
mod profile;
mod scale;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::paths;
use crate::test::{Ending, Files, Job, Network, Outcome, Place, Platform, RootKind, Runner, ensure_root};
use table::Table;

const TIMEOUT: Duration = Duration::from_secs(300);

struct Options {
    groups: Vec<String>,
    /// The kinds of things whose growth is asked for.
    scale: Option<Vec<String>>,
    rounds: usize,
    write: bool,
    /// The only one to be measured.
    platform: Option<String>,
    moat: Option<PathBuf>,
    /// Starts are measured without the features of newer kernels, too.
    older: bool,
    /// The one row of `micro` that is looked into.
    profile: Option<String>,
}

/// Where `--write` puts the table.
const RECORD: &str = "docs/performance.md";

/// Runs the groups that the arguments name (start, idle, micro, programs, lifecycle, docker), or all of these; or `scale`, which takes
/// long and asks another question, with the kinds that are named after it or all; or `--profile ROW`, which says what an operation of a
/// row of `micro` consists of. `--write` puts the table into
/// docs/performance.md as well; `--platform` leaves the other one out. `checkpoint` and `net` are only measured if they are named.
pub fn run(arguments: &[String]) -> Result<()> {
    let options = parse(arguments)?;
    if !rustix::process::geteuid().is_root() {
        bail!("the benches need root: the runs on the host use chroot and namespaces");
    }
    let moat = match options.moat {
        Some(path) => std::fs::canonicalize(path)?,
        None => paths::build_moat("release")?,
    };
    let older = if options.older { Some(Runner::new(older(&moat)?)?) } else { None };
    let mut bench = Bench { runner: Runner::new(moat.clone())?, older, places: places(), table: Table::default() };
    if let Some(name) = &options.platform {
        let wanted = Platform::ALL.into_iter().find(|p| p.name() == name).context("no such platform")?;
        bench.places.retain(|place| !matches!(place, Place::Sandbox(p) if *p != wanted));
    }
    if let Some(row) = &options.profile {
        bench.places.retain(|&place| place != Place::Runsc);
        return profile::run(&mut bench.runner, &moat, &bench.places, row);
    }
    if let Some(kinds) = options.scale {
        bench.places.retain(|&place| place != Place::Sandbox(Platform::Ptrace));
        return scale::run(&mut bench.runner, &bench.places, &kinds);
    }
    let wants = |name: &str| options.groups.is_empty() || options.groups.iter().any(|g| g == name);
    for _ in 0..options.rounds {
        if wants("start") {
            bench.start()?;
        }
        if wants("micro") {
            bench.micro()?;
        }
    }
    if wants("idle") {
        bench.idle()?;
    }
    // Each of these takes a while and is the best of three already.
    for _ in 0..options.rounds.div_ceil(3) {
        if wants("programs") {
            bench.programs()?;
        }
    }
    let columns: Vec<&str> = bench.places.iter().map(|place| place.name()).collect();
    bench.table.print(&columns);
    if options.write {
        let path = paths::repository().join(RECORD);
        let text = std::fs::read_to_string(&path)?;
        std::fs::write(&path, table::replace(&text, &bench.table.markdown(&columns))?)?;
    }
    if wants("lifecycle") {
        lifecycle::run(&moat, options.rounds)?;
    }
    // Takes minutes, and is about nothing else.
    if options.groups.iter().any(|g| g == "checkpoint") {
        checkpoint::run(&mut bench.runner, &moat, options.rounds)?;
    }
    if options.groups.iter().any(|g| g == "net") {
        net::run(&moat, options.rounds)?;
    }
    if wants("docker") {
        docker::run(&moat, options.rounds)?;
    }
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Options> {
    let mut options = Options {
        groups: Vec::new(),
        scale: None,
        rounds: 7,
        write: false,
        platform: None,
        moat: None,
        older: false,
        profile: None,
    };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--rounds" => options.rounds = rest.next().context("--rounds needs a value")?.parse()?,
            "--write" => options.write = true,
            "--older" => options.older = true,
            "--profile" => options.profile = Some(rest.next().context("--profile needs a row of micro")?.clone()),
            "--platform" => options.platform = Some(rest.next().context("--platform needs a value")?.clone()),
            "--moat" => options.moat = Some(rest.next().context("--moat needs a value")?.into()),
            "scale" => options.scale = Some(Vec::new()),
            kind if options.scale.is_some() => options.scale.get_or_insert_default().push(kind.to_string()),
            "start" | "idle" | "micro" | "programs" | "lifecycle" | "docker" | "checkpoint" | "net" => {
                options.groups.push(argument.clone());
            }
            other => {
                bail!("no bench '{other}': start, idle, micro, programs, lifecycle, docker, checkpoint, net or scale")
            }
        }
    }
    Ok(options)
}

fn places() -> Vec<Place> {
    let mut places = vec![Place::Host];
    places.extend(Platform::ALL.map(Place::Sandbox));
    if has_runsc() {
        places.push(Place::Runsc);
    }
    places
}

/// Whether the rival is installed.
fn has_runsc() -> bool {
    Command::new("runsc").arg("--version").output().is_ok_and(|o| o.status.success())
}

struct Bench {
    runner: Runner,
    /// Of the same program as on Linux 5.10.
    older: Option<Runner>,
    places: Vec<Place>,
    table: Table,
}

impl Bench {
    /// The wall time of a whole run of `true`.
    fn start(&mut self) -> Result<()> {
        let root = ensure_root(RootKind::Base)?;
        for place in self.places.clone() {
            let outcome = self.job(place, &root, &["/bin/true"])?;
            self.add_start("run-true", place, &outcome);
            if let (Some(older), Place::Sandbox(_)) = (&mut self.older, place) {
                let outcome = run_job(older, place, &root, &["/bin/true"])?;
                self.add_start("run-true-5.10", place, &outcome);
            }
        }
        Ok(())
    }

    fn add_start(&mut self, name: &str, place: Place, outcome: &Outcome) {
        if outcome.ending == Ending::Exited(0) {
            self.table.add(name, place.name(), outcome.elapsed.as_nanos() as f64);
        }
    }

    /// What an idle sandbox costs while it holds `sleep`.
    fn idle(&mut self) -> Result<()> {
        let root = ensure_root(RootKind::Base)?;
        for place in self.places.clone() {
            let job = job(&root, &["/bin/sleep", "60"]);
            let prepared = self.runner.prepare(place, &job)?;
            let usage = idle::measure(prepared.command).with_context(|| format!("idle on {}", place.name()))?;
            self.table.add("idle-pss-bytes", place.name(), usage.pss_bytes as f64);
            self.table.add("idle-cpu-ns-per-s", place.name(), usage.cpu_ns_per_s as f64);
        }
        Ok(())
    }

    /// System calls and processes, timed by a static program inside.
    fn micro(&mut self) -> Result<()> {
        for program in ["micro", "calls"] {
            let root = guest_root(program)?;
            for place in self.places.clone() {
                let outcome = self.job(place, &root, &[&format!("/bin/{program}")])?;
                self.add_lines(place, &outcome);
            }
        }
        Ok(())
    }

    /// Programs of the full root, timed by a shell inside.
    fn programs(&mut self) -> Result<()> {
        let root = ensure_root(RootKind::Full)?;
        let script = std::fs::read_to_string(paths::repository().join("benches/programs.sh"))?;
        for place in self.places.clone() {
            let outcome = self.job(place, &root, &["/bin/bash", "-c", &script])?;
            self.add_lines(place, &outcome);
        }
        Ok(())
    }

    fn job(&mut self, place: Place, root: &Path, arguments: &[&str]) -> Result<Outcome> {
        run_job(&mut self.runner, place, root, arguments)
    }

    /// Takes in the lines `NAME NANOSECONDS` of a run, which may have ended early.
    fn add_lines(&mut self, place: Place, outcome: &Outcome) {
        for line in String::from_utf8_lossy(&outcome.stdout).lines() {
            if let Some((name, Ok(value))) = line.split_once(' ').map(|(n, v)| (n, v.parse())) {
                self.table.add(name, place.name(), value);
            }
        }
    }
}

/// Runs a program once, and shows why if it fails.
fn run_job(runner: &mut Runner, place: Place, root: &Path, arguments: &[&str]) -> Result<Outcome> {
    let outcome = runner.run(place, &job(root, arguments))?;
    if outcome.ending != Ending::Exited(0) {
        let stderr = String::from_utf8_lossy(&outcome.stderr);
        eprintln!("{}: {}: {}\n{stderr}", place.name(), arguments[0], outcome.ending);
    }
    Ok(outcome)
}

fn job<'a>(root: &'a Path, arguments: &[&str]) -> Job<'a> {
    let arguments = arguments.iter().map(|a| a.to_string()).collect();
    Job { name: "bench", root, arguments, network: Network::default(), files: Files::default(), timeout: TIMEOUT }
}

/// A program that runs `moat` without what came after Linux 5.10.
fn older(moat: &Path) -> Result<PathBuf> {
    let program = paths::target().join("bench/older");
    std::fs::create_dir_all(paths::target().join("bench"))?;
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-Wall", "-Wextra"]).arg(format!("-DPROGRAM=\"{}\"", moat.display()));
    paths::run(compiler.arg("-o").arg(&program).arg(paths::repository().join("benches/older.c")))?;
    Ok(std::fs::canonicalize(program)?)
}

/// A root that holds nothing but the static program of that name.
fn guest_root(program: &str) -> Result<PathBuf> {
    let root = paths::target().join("bench/root");
    for directory in ["bin", "dev", "proc", "root", "sys", "tmp"] {
        std::fs::create_dir_all(root.join(directory))?;
    }
    let mut compiler = Command::new("cc");
    compiler.args(["-static", "-O1", "-Wall", "-Wextra", "-pthread", "-o"]);
    let source = paths::repository().join(format!("benches/{program}.c"));
    paths::run(compiler.args([root.join("bin").join(program), source]))?;
    Ok(std::fs::canonicalize(root)?)
}
