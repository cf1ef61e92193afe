//! The wall time of a container's life by the command line: create, start, wait, delete, as a shim does it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, WaitOptions, waitpid};

use super::table::Table;
use crate::paths;
use crate::test::{RootKind, ensure_root};

/// More than any step should need.
const LIMIT: Duration = Duration::from_secs(10);

/// The steps that are shown one by one, and the whole.
const STEPS: [&str; 5] = ["create", "start", "wait", "delete", "all"];

/// Measures `true` with runc, moat and runsc, and prints the table.
pub fn run(moat: &Path, rounds: usize) -> Result<()> {
    let root = ensure_root(RootKind::Base)?;
    // The parent of containers, as shims are.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let bundle = paths::target().join("bench").join(format!("moat-life-{}", std::process::id()));
    let mut maker = Command::new("python3");
    maker.arg(paths::repository().join("tests/oci/bundle.py")).arg(&bundle).args(["{}", "/bin/true"]);
    paths::run(maker.env("ROOT", &root))?;
    let bundle = fs::canonicalize(bundle)?;
    let mut runtimes = vec![("runc", PathBuf::from("runc"), vec![]), ("moat", moat.to_path_buf(), vec![])];
    if super::has_runsc() {
        runtimes.push(("runsc", PathBuf::from("runsc"), vec!["--network=none", "--ignore-cgroups"]));
    }
    let mut table = Table::default();
    for round in 0..rounds {
        for (name, program, flags) in &runtimes {
            let life = Life { program, flags, id: format!("life-{}-{round}", std::process::id()), directory: &bundle };
            match life.live() {
                Ok(times) => {
                    for (step, time) in STEPS.iter().zip(times) {
                        table.add(&format!("lifecycle-{step}"), name, time.as_nanos() as f64);
                    }
                }
                Err(error) => {
                    eprintln!("{name}: {error:#}");
                    life.end();
                }
            }
        }
    }
    fs::remove_dir_all(&bundle)?;
    let columns: Vec<&str> = runtimes.iter().map(|(name, ..)| *name).collect();
    table.print(&columns);
    Ok(())
}

/// Waits for the other processes that the runtime has left to its caller: runsc looks for the gofer's end.
fn reap_others(deadline: Instant) -> Result<()> {
    loop {
        match waitpid(None, WaitOptions::NOHANG) {
            Ok(Some(_)) => {}
            Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_micros(100)),
            Ok(None) => bail!("a process of the container does not end"),
            Err(rustix::io::Errno::CHILD) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// One container of one runtime.
struct Life<'a> {
    program: &'a Path,
    flags: &'a [&'static str],
    id: String,
    /// The bundle.
    directory: &'a Path,
}

impl Life<'_> {
    /// How long each of the steps took.
    fn live(&self) -> Result<[Duration; STEPS.len()]> {
        let pid_file = self.directory.join("pid");
        let begin = Instant::now();
        let create = ["create", "--bundle"];
        self.finish(self.command().args(create).arg(self.directory).arg("--pid-file").arg(&pid_file))?;
        let created = Instant::now();
        self.finish(self.command().arg("start"))?;
        let started = Instant::now();
        let pid = fs::read_to_string(&pid_file)?.trim().parse().ok().and_then(Pid::from_raw);
        waitpid(Some(pid.context("no pid in the pid file")?), WaitOptions::empty())?;
        reap_others(started + LIMIT)?;
        let ended = Instant::now();
        self.finish(self.command().arg("delete"))?;
        let deleted = Instant::now();
        Ok([created - begin, started - created, ended - started, deleted - ended, deleted - begin])
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program);
        command.arg("--root").arg(self.directory.join("state")).args(self.flags);
        command
    }

    fn finish(&self, command: &mut Command) -> Result<()> {
        command.arg(&self.id).stdin(Stdio::null()).stdout(Stdio::null());
        let log = self.directory.join("stderr");
        let status = command.stderr(fs::File::create(&log)?).status()?;
        if !status.success() {
            bail!("{command:?}: {status}: {}", fs::read_to_string(&log)?.trim());
        }
        Ok(())
    }

    /// Removes what is left after an error.
    fn end(&self) {
        // It may not exist.
        let _ = self.finish(self.command().args(["delete", "--force"]));
    }
}
