//! `cargo x fuzz guest`: random system calls in a sandbox (`tests/hardening/fuzz.c`), round after round, each with a sandbox and a
//! seed of its own.
//!
//! A finding is a sandbox that stops, that does not answer, does not die, leaves something behind, or keeps memory or descriptors when
//! its guest is gone. The same seed and platform draw the same calls again.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};

use super::ring::Ring;
use super::watch::Watch;
use crate::test::{
    FileServer, Files, Job, Network, Options, Place, Platform, Runner, Writable, bundle, guest_program, leftovers,
    make_root, tail, wait,
};
use crate::{check, paths};

/// How long a sandbox is used.
const ROUND: Duration = Duration::from_secs(60);

/// The memory of a container: what its files in memory take is not the machine's.
const MEMORY: u64 = 4 << 30;

/// How often it is asked whether it still answers.
const PAUSE: Duration = Duration::from_secs(4);

/// How often its size is looked at.
const LOOK: Duration = Duration::from_millis(500);

/// What its end may take: hundreds of processes die, in a slow build.
const END: Duration = Duration::from_secs(90);

/// The trees, by the seed: below an overlay, and of the host, reached by the sandbox itself and by a gofer.
const TREES: [Files; 3] = [
    Files { server: FileServer::Sandbox, writable: Writable::Nothing },
    Files { server: FileServer::Sandbox, writable: Writable::Homes },
    Files { server: FileServer::Gofer, writable: Writable::Homes },
];

/// What a round was.
pub struct Seen {
    /// Calls that were made.
    pub calls: u64,
    /// Processes that made them.
    pub workers: u64,
    /// The most and the last resident memory of the sandbox, in MiB.
    pub memory: (u64, u64),
    /// What should not have happened, with all that is known of it.
    pub finding: Option<String>,
}

/// Runs rounds until the time is over.
pub(super) fn run(arguments: &[String]) -> Result<()> {
    let options = Options::parse(arguments)?;
    let moat = match &options.moat {
        Some(path) => fs::canonicalize(path)?,
        None => paths::build_moat("dev")?,
    };
    let length = Duration::from_secs(options.minutes.unwrap_or(1) * 60);
    let first = match options.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
    };
    let (start, mut findings, mut calls) = (Instant::now(), 0, 0);
    let mut runner = Runner::new(moat.clone())?;
    for seed in first.. {
        for platform in options.platforms(&Platform::ALL) {
            let left = length.saturating_sub(start.elapsed());
            if left < Duration::from_secs(5) {
                println!("{calls} calls, {findings} findings");
                if findings > 0 {
                    bail!("{findings} findings");
                }
                return Ok(());
            }
            let seen = round(&mut runner, &moat, platform, left.min(ROUND), seed)?;
            calls += seen.calls;
            let (most, idle) = seen.memory;
            let (name, workers) = (platform.name(), seen.workers);
            println!("seed {seed} {name}: {} calls of {workers} workers; {most} MiB, {idle} in the end", seen.calls);
            if let Some(finding) = seen.finding {
                findings += 1;
                println!("FINDING seed {seed} {name}: {finding}");
            }
        }
    }
    Ok(())
}

/// One sandbox with one seed.
pub fn round(runner: &mut Runner, moat: &Path, platform: Platform, length: Duration, seed: u64) -> Result<Seen> {
    let scratch = Scratch::new()?;
    let (root, log, ring) = (scratch.0.join("root"), scratch.0.join("log"), scratch.0.join("log/ring"));
    let program = guest_program("fuzz")?;
    make_root(&root, &program, "fuzz")?;
    // One that no call names.
    fs::copy(&program, root.join("bin/probe"))?;
    fs::create_dir(root.join("log"))?;
    fs::create_dir(&log)?;
    let table = check::syscall_lines()?;
    fs::write(root.join("etc/calls"), &table)?;
    Ring::create(&ring)?;
    let files = TREES[usize::try_from(seed % 3)?];
    let job = Job {
        name: "fuzz",
        root: &root,
        arguments: vec!["/bin/fuzz".into(), length.as_secs().to_string(), seed.to_string()],
        network: Network::default(),
        files,
        timeout: length + END,
    };
    let mut prepared = runner.prepare(Place::Sandbox(platform), &job)?;
    bundle::bind(&prepared.directory, &log, "/log")?;
    bundle::limit_memory(&prepared.directory, MEMORY)?;
    let (stdout, stderr) = (scratch.0.join("stdout"), scratch.0.join("stderr"));
    prepared.command.stdin(Stdio::null()).stdout(File::create(&stdout)?).stderr(File::create(&stderr)?);
    let mut watch = Watch::new(moat, &prepared.id);
    let mut finding = until_its_end(&mut prepared.command, &job, &mut watch, &ring)?;
    let mut left = leftovers::reap_descendants();
    left.extend(leftovers::on_host(&prepared.id, &prepared.directory));
    if finding.is_none() && !left.is_empty() {
        finding = Some(format!("left behind: {left:?}"));
    }
    let ring = Ring::read(&ring)?;
    if finding.is_none() && !ring.is_over() {
        finding = Some("the guest's program did not come to its end".into());
    }
    let finding = match finding {
        Some(why) => Some(format!("{why}{}{}\n{}", shown(&stdout, 5)?, shown(&stderr, 150)?, ring.last_calls(&table))),
        None => None,
    };
    fs::remove_dir_all(&prepared.directory)?;
    Ok(Seen { calls: ring.calls(), workers: ring.generations(), memory: (watch.most, watch.idle), finding })
}

/// Starts the sandbox, watches it and sees to it that it ends.
fn until_its_end(
    command: &mut std::process::Command,
    job: &Job,
    watch: &mut Watch,
    ring: &Path,
) -> Result<Option<String>> {
    let mut child = command.spawn()?;
    let deadline = Instant::now() + job.timeout;
    let pause = PAUSE.min(job.timeout.saturating_sub(END) / 3);
    let (mut is_over, mut finding, mut asked) = (false, None, Instant::now());
    loop {
        std::thread::sleep(LOOK);
        if let Some(status) = child.try_wait()? {
            let died = (!status.success()).then(|| format!("the sandbox has died: {status}"));
            return Ok(died.or(finding));
        }
        let now_over = Ring::read(ring)?.is_over();
        if !now_over && finding.is_none() && asked.elapsed() > pause {
            asked = Instant::now();
            // It may come to its end just when it is asked.
            finding = watch.ask()?.err().filter(|_| matches!(child.try_wait(), Ok(None)));
        }
        // The first look after the end is too early: what has died is still taken apart.
        finding = finding.or_else(|| watch.measure(now_over && is_over));
        is_over = now_over;
        if Instant::now() >= deadline || (finding.is_some() && !is_over) {
            let why = finding.unwrap_or_else(|| "it does not end".into());
            let why = format!("{why}\n{}", watch.stacks()?);
            return Ok(Some(match end(&mut child, watch)? {
                Some(more) => format!("{why}; and {more}"),
                None => why,
            }));
        }
    }
}

/// Kills what has gone wrong; says if that goes wrong, too.
fn end(child: &mut std::process::Child, watch: &Watch) -> Result<Option<String>> {
    let why = watch.kill()?;
    if wait(child, Instant::now() + END)?.is_none() {
        leftovers::kill_descendants();
        let _ = child.wait();
        return Ok(Some(format!("it can't be killed: {}", why.unwrap_or_default())));
    }
    Ok(why)
}

/// The end of what was printed. The guest's calls write there, too, whatever bytes.
fn shown(file: &Path, lines: usize) -> Result<String> {
    let text = fs::read(file)?;
    let printable = |line: &[u8]| String::from_utf8_lossy(&line[..line.len().min(400)]).escape_debug().to_string();
    let text: Vec<String> = text.split(|b| *b == b'\n').map(printable).collect();
    Ok(tail(text.join("\n").as_bytes(), lines))
}

/// A directory that goes with the round.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Result<Scratch> {
        let path = paths::target().join("fuzz").join(std::process::id().to_string());
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path)?;
        Ok(Scratch(fs::canonicalize(path)?))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
