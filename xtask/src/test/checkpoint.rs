//! `tests/checkpoint`: small static guest programs that are saved, ended and restored in the middle of their checks.
//!
//! A program sets up what its checks are about, prints `ready`, and sleeps for a second. It is then saved with `moat checkpoint`, and goes on
//! in a new sandbox by `moat restore`. On the host it runs through, and must give the same.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::abi::{Verdict, each_area, parse};
use super::job::{Prepared, supervise, tail, wait};
use super::{Files, Job, Network, Options, Outcome, Place, Platform, Report, Runner};

/// For a program from its start to its end.
const TIMEOUT: Duration = Duration::from_secs(60);

/// From one platform to another, besides each to itself.
const CROSSINGS: [(Platform, Platform); 4] = [
    (Platform::Systrap, Platform::Systrap),
    (Platform::Ptrace, Platform::Ptrace),
    (Platform::Systrap, Platform::Ptrace),
    (Platform::Ptrace, Platform::Systrap),
];

/// The program that also crosses from one platform to the other.
const CROSSES: &str = "tasks";

/// Builds and runs the programs that the options ask for.
pub fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    each_area("checkpoint", options, |root, area, names| run_area(options, runner, report, root, area, names))
}

fn run_area(
    options: &Options,
    runner: &mut Runner,
    report: &mut Report,
    root: &Path,
    area: &str,
    names: &[String],
) -> Result<()> {
    let start = Instant::now();
    let mut arguments = vec![format!("/bin/{area}")];
    arguments.extend(names.iter().cloned());
    let job = Job { name: area, root, arguments, network: Network::Sandbox, files: options.files(), timeout: TIMEOUT };
    let outcome = runner.run(Place::Host, &Job { arguments: job.arguments.clone(), files: Files::default(), ..job })?;
    let expected = parse(&String::from_utf8_lossy(&outcome.stdout));
    judge(report, "host", area, names, &expected, &outcome, start);
    if options.native {
        return Ok(());
    }
    let platforms = options.platforms(&Platform::ALL);
    for (from, to) in CROSSINGS {
        if !platforms.contains(&from) || !platforms.contains(&to) || (from != to && area != CROSSES) {
            continue;
        }
        let start = Instant::now();
        let place = if from == to { from.name().to_owned() } else { format!("{}-to-{}", from.name(), to.name()) };
        match through_an_image(runner, &job, from, to) {
            Ok((stdout, outcome)) => judge(report, &place, area, names, &parse(&stdout), &outcome, start),
            Err(error) => report.fail(&format!("checkpoint/{place}/{area}"), format!("{error:#}")),
        }
    }
    Ok(())
}

fn judge(
    report: &mut Report,
    place: &str,
    area: &str,
    names: &[String],
    verdicts: &BTreeMap<String, Verdict>,
    outcome: &Outcome,
    start: Instant,
) {
    let mut passed = 0;
    for name in names {
        let full = format!("checkpoint/{place}/{area}/{name}");
        match verdicts.get(name) {
            Some(Verdict::Ok) => passed += 1,
            Some(Verdict::Skip(why)) => report.skip(&full, why),
            Some(Verdict::Fail(why)) => report.fail(&full, why),
            None => report.fail(&full, format!("no result: {}{}", outcome.ending, tail(&outcome.stderr, 6))),
        }
    }
    if !outcome.leftovers.is_empty() {
        report.fail(&format!("checkpoint/{place}/{area}"), format!("left behind: {:?}", outcome.leftovers));
    }
    report.pass_many(&format!("checkpoint/{place}/{area}"), passed, start.elapsed());
}

/// Runs a job until it says that it is ready, saves it, and runs it to its end out of the image; gives all that it has printed.
fn through_an_image(runner: &mut Runner, job: &Job, from: Platform, to: Platform) -> Result<(String, Outcome)> {
    let prepared = runner.prepare(Place::Sandbox(from), job)?;
    let image = prepared.directory.join("image");
    let before = until_saved(&prepared, &image)?;
    let mut command = as_restore(&prepared.command, from, to, &image);
    let mut outcome = supervise(&mut command, TIMEOUT)?;
    outcome.leftovers.extend(super::leftovers::on_host(&prepared.id, &prepared.directory));
    let directory = &prepared.directory;
    fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    let text = before + &String::from_utf8_lossy(&outcome.stdout);
    Ok((text, outcome))
}

/// Saves the job when it says that it is ready; gives what it had printed.
fn until_saved(prepared: &Prepared, image: &Path) -> Result<String> {
    let mut run = copy_of(&prepared.command, |arguments| arguments);
    let mut child = run.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let stdout = child.stdout.take().context("its output is a pipe")?;
    let (said, told) = mpsc::channel();
    // Its end closes the channel.
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let _ = said.send(line);
        }
    });
    let deadline = Instant::now() + TIMEOUT;
    let mut text = String::new();
    loop {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) if line == "ready" => break,
            Ok(line) => text += &format!("{line}\n"),
            Err(_) => {
                let _ = child.kill();
                let output = child.wait_with_output()?;
                bail!("it did not get ready: {text}{}", tail(&output.stderr, 6));
            }
        }
    }
    let mut save = copy_of(&prepared.command, |mut arguments| {
        let at = arguments.iter().position(|a| a == "run").unwrap_or(arguments.len());
        arguments.truncate(at);
        arguments.extend(["checkpoint".into(), "--image-path".into(), image.into(), (&prepared.id).into()]);
        arguments
    });
    let output = save.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let _ = child.kill();
        let _ = child.wait();
        bail!("it could not be saved: {}", tail(&output.stderr, 6));
    }
    if wait(&mut child, deadline)?.is_none() {
        let _ = child.kill();
        bail!("it was saved and did not end");
    }
    Ok(text)
}

/// The command that restores what `run` was to run.
fn as_restore(run: &Command, from: Platform, to: Platform, image: &Path) -> Command {
    copy_of(run, |arguments| {
        let mut restore = Vec::new();
        for argument in arguments {
            if argument == "run" {
                restore.extend(["restore".into(), "--image-path".into(), OsString::from(image)]);
            } else if argument == from.name() {
                restore.push(to.name().into());
            } else {
                restore.push(argument);
            }
        }
        restore
    })
}

fn copy_of(command: &Command, change: impl FnOnce(Vec<OsString>) -> Vec<OsString>) -> Command {
    let arguments = command.get_args().map(OsString::from).collect();
    let mut copy = Command::new(PathBuf::from(command.get_program()));
    copy.args(change(arguments));
    copy
}
