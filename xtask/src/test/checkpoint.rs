//! `tests/checkpoint`: small static guest programs that are saved, ended and restored in the middle of their checks.
//!
//! A program sets up what its checks are about, prints `ready`, and sleeps for a second. It is then saved with `moat checkpoint`, and goes on
//! in a new sandbox by `moat restore`. On the host it runs through, and must give the same.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::abi::{Verdict, each_area, parse};
use super::job::{Ending, Prepared, supervise, tail, wait};
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

/// The programs that also cross from one platform to the other.
const CROSS: [&str; 2] = ["tasks", "namespaces"];

/// The program whose checks can't be saved: each says why, and goes on.
const REFUSED: &str = "refused";

/// The program that is saved while it goes on, and ends by itself as well as out of the image.
const RUNNING: &str = "running";

/// How an image is written.
enum Way {
    /// All of it, with these flags.
    Whole(&'static [&'static str]),
    /// What the third image lacks the second has, or the first.
    Chain,
}

/// Those besides the plain one.
const WAYS: [(&str, Way); 3] = [
    ("lz4", Way::Whole(&["--compression", "lz4"])),
    ("zstd", Way::Whole(&["--compression", "zstd"])),
    ("chain", Way::Chain),
];

/// Programs whose memory and files are worth it.
const WRITTEN_IN_ALL_WAYS: [&str; 4] = ["memory", "trees", "ipc", "anonymous"];

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
    if area == REFUSED {
        return run_refused(options, runner, report, &job, names);
    }
    let platforms = options.platforms(&Platform::ALL);
    if area == RUNNING {
        for platform in platforms {
            let name = platform.name();
            for (ending, place) in while_it_runs(runner, &job, platform, names.len())?
                .into_iter()
                .zip([name.to_owned(), format!("{name}-restored")])
            {
                judge(report, &place, area, names, &parse(&String::from_utf8_lossy(&ending.stdout)), &ending, start);
            }
        }
        return Ok(());
    }
    for (from, to) in CROSSINGS {
        if !platforms.contains(&from) || !platforms.contains(&to) || (from != to && !CROSS.contains(&area)) {
            continue;
        }
        let start = Instant::now();
        let place = if from == to { from.name().to_owned() } else { format!("{}-to-{}", from.name(), to.name()) };
        match through_an_image(runner, &job, from, to, &Way::Whole(&[])) {
            Ok((stdout, outcome)) => judge(report, &place, area, names, &parse(&stdout), &outcome, start),
            Err(error) => report.fail(&format!("checkpoint/{place}/{area}"), format!("{error:#}")),
        }
    }
    for (name, way) in WAYS.iter().filter(|_| WRITTEN_IN_ALL_WAYS.contains(&area)) {
        let platform = Platform::Systrap;
        if !platforms.contains(&platform) {
            continue;
        }
        let (start, place) = (Instant::now(), format!("{}-{name}", platform.name()));
        match through_an_image(runner, &job, platform, platform, way) {
            Ok((stdout, outcome)) => judge(report, &place, area, names, &parse(&stdout), &outcome, start),
            Err(error) => report.fail(&format!("checkpoint/{place}/{area}"), format!("{error:#}")),
        }
    }
    Ok(())
}

/// Asks for each check of a program to be saved, which is to be refused as it says.
fn run_refused(options: &Options, runner: &mut Runner, report: &mut Report, job: &Job, names: &[String]) -> Result<()> {
    for platform in options.platforms(&Platform::ALL) {
        let start = Instant::now();
        let mut passed = 0;
        for name in names {
            let arguments = vec![job.arguments[0].clone(), name.clone()];
            let job = Job { arguments, files: options.files(), ..*job };
            match is_refused(runner, &job, platform, name) {
                Ok(()) => passed += 1,
                Err(error) => {
                    report.fail(&format!("checkpoint/{}/{REFUSED}/{name}", platform.name()), format!("{error:#}"))
                }
            }
        }
        report.pass_many(&format!("checkpoint/{}/{REFUSED}", platform.name()), passed, start.elapsed());
    }
    Ok(())
}

fn is_refused(runner: &mut Runner, job: &Job, platform: Platform, name: &str) -> Result<()> {
    let prepared = runner.prepare(Place::Sandbox(platform), job)?;
    let mut running = Running::start(&prepared.command)?;
    let text = running.until_ready()?;
    let words = text.lines().find_map(|line| line.strip_prefix("refusal: ")).context("it says no refusal")?;
    let image = prepared.directory.join("image");
    let saved = save(&prepared, &image, &["--leave-running"])?;
    let said = String::from_utf8_lossy(&saved.stderr);
    if saved.status.success() || !said.contains(words) || image.exists() {
        running.kill();
        bail!("saving it ended with {}: {said}, want {words:?}", saved.status);
    }
    let text = running.until_end()?;
    let leftovers = super::leftovers::on_host(&prepared.id, &prepared.directory);
    fs::remove_dir_all(&prepared.directory).with_context(|| prepared.directory.display().to_string())?;
    if !matches!(parse(&text).get(name), Some(Verdict::Ok)) || !leftovers.is_empty() {
        bail!("it did not go on as before: {text} {leftovers:?}");
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
fn through_an_image(
    runner: &mut Runner,
    job: &Job,
    from: Platform,
    to: Platform,
    way: &Way,
) -> Result<(String, Outcome)> {
    let prepared = runner.prepare(Place::Sandbox(from), job)?;
    let image = prepared.directory.join("image");
    let before = until_saved(&prepared, &image, way)?;
    let mut command = as_restore(&prepared.command, from, to, &image);
    let mut outcome = supervise(&mut command, TIMEOUT)?;
    outcome.leftovers.extend(super::leftovers::on_host(&prepared.id, &prepared.directory));
    let directory = &prepared.directory;
    fs::remove_dir_all(directory).with_context(|| directory.display().to_string())?;
    let text = before + &String::from_utf8_lossy(&outcome.stdout);
    Ok((text, outcome))
}

/// Saves a job with so many `large` processes that goes on, and runs it to its end, and once more out of the image.
fn while_it_runs(runner: &mut Runner, job: &Job, platform: Platform, large: usize) -> Result<[Outcome; 2]> {
    let prepared = runner.prepare(Place::Sandbox(platform), job)?;
    let image = prepared.directory.join("image");
    let mut running = Running::start(&prepared.command)?;
    running.until_ready()?;
    let saved = save(&prepared, &image, &["--leave-running"])?;
    if !saved.status.success() {
        running.kill();
        bail!("it could not be saved: {}", tail(&saved.stderr, 6));
    }
    was_written_ahead(&prepared, &image, large)?;
    let start = Instant::now();
    drop(running.child.stdin.take());
    let stdout = running.until_end()?.into_bytes();
    let ending = Ending::Exited(running.child.wait()?.code().unwrap_or(-1));
    let went_on = Outcome { ending, stdout, stderr: Vec::new(), elapsed: start.elapsed(), leftovers: Vec::new() };
    let mut restored = supervise(&mut as_restore(&prepared.command, platform, platform, &image), TIMEOUT)?;
    restored.leftovers.extend(super::leftovers::on_host(&prepared.id, &prepared.directory));
    fs::remove_dir_all(&prepared.directory).with_context(|| prepared.directory.display().to_string())?;
    Ok([went_on, restored])
}

/// Whether so many address spaces of an image were written while they ran, where the host can tell what is written to meanwhile.
fn was_written_ahead(prepared: &Prepared, image: &Path, large: usize) -> Result<()> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
    if (numbers.next(), numbers.next()) < (Some(6), Some(7)) {
        return Ok(());
    }
    let inspect = Command::new(prepared.command.get_program()).args(["image", "inspect"]).arg(image).output()?;
    let said: serde_json::Value = serde_json::from_slice(&inspect.stdout).context("what image inspect says")?;
    match said["addressSpacesWrittenAhead"].as_u64().and_then(|n| usize::try_from(n).ok()) {
        Some(ahead) if ahead == large => Ok(()),
        ahead => bail!("of {large} large processes {ahead:?} were written while they ran"),
    }
}

/// Saves the job when it says that it is ready; gives what it had printed.
fn until_saved(prepared: &Prepared, image: &Path, way: &Way) -> Result<String> {
    let mut running = Running::start(&prepared.command)?;
    let text = running.until_ready()?;
    if let Err(error) = save_as(prepared, image, way) {
        running.kill();
        return Err(error);
    }
    running.until_end().context("it was saved and did not end")?;
    // As after a checkpoint of runc's: to who waits for it, it was killed.
    match running.child.wait()?.code() {
        Some(137) => Ok(text),
        other => bail!("the command that had run it ended with {other:?} when it was saved"),
    }
}

fn save_as(prepared: &Prepared, image: &Path, way: &Way) -> Result<()> {
    let succeed = |image: &Path, flags: &[&str]| {
        let output = save(prepared, image, flags)?;
        match output.status.success() {
            true => Ok(()),
            false => bail!("it could not be saved: {}", tail(&output.stderr, 6)),
        }
    };
    let Way::Whole(flags) = way else {
        let place = |name| prepared.directory.join(name);
        let (first, second) = (place("first"), place("second"));
        let text = |path: &Path| path.to_str().map(str::to_owned).context("a path that is not UTF-8");
        succeed(&first, &["--leave-running"])?;
        succeed(&second, &["--leave-running", "--base", &text(&first)?])?;
        succeed(image, &["--base", &text(&second)?])?;
        let blocks = |image: &Path| anyhow::Ok(fs::metadata(image.join("pages"))?.blocks());
        // The program waits meanwhile: almost all is as it was.
        if blocks(image)?.saturating_mul(2) > blocks(&first)? {
            bail!("{} blocks of pages are based on {}", blocks(image)?, blocks(&first)?);
        }
        return Ok(());
    };
    succeed(image, flags)
}

/// Runs `moat checkpoint`.
pub(super) fn save(prepared: &Prepared, image: &Path, flags: &[&str]) -> Result<Output> {
    let mut arguments: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
    arguments.extend([OsStr::new("--image-path"), image.as_os_str(), OsStr::new(&prepared.id)]);
    Ok(other_command(prepared, "checkpoint", &arguments).output()?)
}

/// Another command of moat's than the one that runs the job, about its container.
pub(super) fn other_command(prepared: &Prepared, name: &str, rest: &[&OsStr]) -> Command {
    let mut command = copy_of(&prepared.command, |mut arguments| {
        let at = arguments.iter().position(|a| a == "run").unwrap_or(arguments.len());
        arguments.truncate(at);
        arguments.push(name.into());
        arguments.extend(rest.iter().map(OsString::from));
        arguments
    });
    command.stdin(Stdio::null());
    command
}

/// A job that runs, and what it prints.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
    deadline: Instant,
}

impl Running {
    fn start(command: &Command) -> Result<Running> {
        let mut run = copy_of(command, |arguments| arguments);
        // Whoever reads it waits until it has been saved.
        let mut child = run.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (said, lines) = mpsc::channel();
        // Its end closes the channel.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        Ok(Running { child, lines, deadline: Instant::now() + TIMEOUT })
    }

    /// What it prints before it is ready.
    fn until_ready(&mut self) -> Result<String> {
        let mut text = String::new();
        loop {
            match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "ready" => return Ok(text),
                Ok(line) => text += &format!("{line}\n"),
                Err(_) => {
                    self.kill();
                    let mut stderr = Vec::new();
                    if let Some(mut pipe) = self.child.stderr.take() {
                        pipe.read_to_end(&mut stderr)?;
                    }
                    bail!("it did not get ready: {text}{}", tail(&stderr, 6));
                }
            }
        }
    }

    /// What it prints until it ends.
    fn until_end(&mut self) -> Result<String> {
        if wait(&mut self.child, self.deadline)?.is_none() {
            self.kill();
            bail!("it does not end");
        }
        Ok(self.lines.iter().map(|line| line + "\n").collect())
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that restores what `run` was to run.
pub(super) fn as_restore(run: &Command, from: Platform, to: Platform, image: &Path) -> Command {
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

pub(super) fn copy_of(command: &Command, change: impl FnOnce(Vec<OsString>) -> Vec<OsString>) -> Command {
    let arguments = command.get_args().map(OsString::from).collect();
    let mut copy = Command::new(PathBuf::from(command.get_program()));
    copy.args(change(arguments));
    copy
}
