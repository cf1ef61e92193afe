//! Guests that use the sandbox's own code in their processes against it (`tests/hardening/attacks.c`).
//!
//! Those in [`INSIDE`] judge themselves; those in [`OUTSIDE`] are looked at, and acted on by commands, from the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::super::job::tail;
use super::super::{Ending, Files, Job, Network, Options, Place, Platform, Report, Runner, leftovers};
use super::{Scratch, build, make_root, on_each_platform};

const INSIDE: [&str; 9] = [
    "cpu-sleep",
    "kill-blocked",
    "kill-ordered",
    "exec-blocked",
    "exec-ordered",
    "end-blocked",
    "end-ordered",
    "foreign",
    "foreign-made",
];
const OUTSIDE: [&str; 4] = ["descriptors", "stay-blocked", "stay-ordered", "hidden"];

/// Far more than any of it takes; what hangs does so for ever.
const TIMEOUT: Duration = Duration::from_secs(60);
/// How many descriptors those sandboxes may have that are looked at from outside.
const DESCRIPTORS: u32 = 4096;
/// What a program says, by its exit status, where it finds none of the code that it uses.
const NOT_ARMED: i32 = 3;

pub(super) fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    for attack in INSIDE.into_iter().chain(OUTSIDE) {
        on_each_platform(options, report, &format!("attacks/{attack}"), |platform| {
            let judge = if INSIDE.contains(&attack) { judged_inside } else { judged_outside };
            judge(runner, platform, attack).map(Into::into)
        })?;
    }
    Ok(())
}

fn job<'a>(root: &'a Path, attack: &str) -> Job<'a> {
    Job {
        name: "attacks",
        root,
        arguments: vec!["/bin/attacks".into(), attack.into()],
        network: Network::default(),
        files: Files::default(),
        timeout: TIMEOUT,
    }
}

fn judged_inside(runner: &mut Runner, platform: Platform, attack: &str) -> Result<Option<String>> {
    let scratch = Scratch::new("attacks")?;
    let root = scratch.0.join("root");
    make_root(&root, &build("attacks")?, "attacks")?;
    let outcome = runner.run(Place::Sandbox(platform), &job(&root, attack))?;
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    let contained = outcome.ending == Ending::Exited(0) && stdout.lines().any(|line| line == "contained");
    let none = platform == Platform::Ptrace && outcome.ending == Ending::Exited(NOT_ARMED);
    if !contained && !none {
        return Ok(Some(format!("{}: {stdout}{}", outcome.ending, tail(&outcome.stderr, 12))));
    }
    Ok((!outcome.leftovers.is_empty()).then(|| format!("left behind: {:?}", outcome.leftovers)))
}

fn judged_outside(runner: &mut Runner, platform: Platform, attack: &str) -> Result<Option<String>> {
    let scratch = Scratch::new("attacks")?;
    let root = scratch.0.join("root");
    make_root(&root, &build("attacks")?, "attacks")?;
    let prepared = runner.prepare(Place::Sandbox(platform), &job(&root, attack))?;
    let moat = PathBuf::from(prepared.command.get_program());
    let container = Container { moat, state: scratch.0.join("state"), platform };
    let why = container.attack(&prepared.directory, attack, &scratch.0.join("output"));
    // Whatever came of it.
    let _ = container.command(&["delete", "--force", "attacked"]);
    fs::remove_dir_all(&prepared.directory)?;
    let left = leftovers::reap_descendants();
    Ok(why?.or_else(|| (!left.is_empty()).then(|| format!("left behind: {left:?}"))))
}

struct Container {
    moat: PathBuf,
    state: PathBuf,
    platform: Platform,
}

impl Container {
    /// Starts the container, waits until the attack has begun, and sees what can be done about it.
    fn attack(&self, bundle: &Path, attack: &str, output: &Path) -> Result<Option<String>> {
        self.create(bundle, output)?;
        self.expect(&["start", "attacked"])?;
        let deadline = Instant::now() + TIMEOUT;
        while !fs::read_to_string(output)?.contains("armed\n") {
            if Instant::now() > deadline {
                return Ok(Some("the attack did not begin".into()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        if fs::read_to_string(output)?.contains("not armed") {
            return Ok((self.platform != Platform::Ptrace).then(|| "the attack could not be made".into()));
        }
        match attack {
            "hidden" => self.look_for_spinning(),
            "descriptors" => self.control(),
            _ => self.use_commands(),
        }
    }

    /// Whatever a guest has taken: it can be looked at, entered and ended.
    fn control(&self) -> Result<Option<String>> {
        self.expect(&["ps", "attacked"])?;
        self.expect(&["pause", "attacked"])?;
        self.expect(&["resume", "attacked"])?;
        let mut executed = self.arguments(&["exec", "attacked", "/bin/attacks", "executed"]).spawn()?;
        match super::super::job::wait(&mut executed, Instant::now() + TIMEOUT)?.and_then(|status| status.code()) {
            Some(42) => {}
            status => return Ok(Some(format!("exec ended with {status:?}"))),
        }
        self.end()
    }

    /// Pauses, resumes and ends a container in which a guest process answers nothing.
    fn use_commands(&self) -> Result<Option<String>> {
        self.expect(&["pause", "attacked"])?;
        if let Some(process) = spinning() {
            return Ok(Some(format!("it is paused, and {process} goes on")));
        }
        self.expect(&["resume", "attacked"])?;
        // A busy host lets it run but little.
        let deadline = Instant::now() + TIMEOUT;
        while spinning().is_none() {
            if Instant::now() > deadline {
                return Ok(Some("it was resumed, and nothing goes on".into()));
            }
        }
        self.end()
    }

    fn end(&self) -> Result<Option<String>> {
        self.expect(&["kill", "attacked", "KILL"])?;
        let deadline = Instant::now() + TIMEOUT;
        while self.status()? != "stopped" {
            if Instant::now() > deadline {
                return Ok(Some("kill said that all was well, and nothing died".into()));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.expect(&["delete", "attacked"])?;
        Ok(None)
    }

    /// The guest shows no process that uses the CPU: there must be none on the host.
    fn look_for_spinning(&self) -> Result<Option<String>> {
        let deadline = Instant::now() + Duration::from_secs(5);
        while let Some(process) = spinning() {
            if Instant::now() > deadline {
                return Ok(Some(format!("{process} goes on, unknown to the sandbox")));
            }
        }
        Ok(None)
    }

    fn create(&self, bundle: &Path, output: &Path) -> Result<()> {
        let output = fs::File::create(output)?;
        // Few descriptors, so that a guest has taken them all soon.
        let mut command = Command::new("prlimit");
        command.arg(format!("--nofile={DESCRIPTORS}:{DESCRIPTORS}"));
        let create = self.arguments(&["create", "--bundle", &bundle.display().to_string(), "attacked"]);
        command.arg(create.get_program()).args(create.get_args()).stdin(Stdio::null());
        command.stdout(output.try_clone()?).stderr(output);
        finish(command.spawn()?)
    }

    fn expect(&self, arguments: &[&str]) -> Result<()> {
        self.command(arguments).with_context(|| format!("moat {arguments:?}"))
    }

    fn command(&self, arguments: &[&str]) -> Result<()> {
        finish(self.arguments(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?)
    }

    fn status(&self) -> Result<String> {
        let output = self.arguments(&["state", "attacked"]).output()?;
        let state: serde_json::Value = serde_json::from_slice(&output.stdout)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    }

    fn arguments(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.moat);
        command.arg("--root").arg(&self.state);
        command.args(["--network=none", "--ignore-cgroups", "--overlay2=root:memory"]);
        command.args(["--platform", self.platform.name()]).args(arguments).stdin(Stdio::null());
        command
    }
}

/// Waits for a command that must end by itself.
fn finish(mut child: Child) -> Result<()> {
    match super::super::job::wait(&mut child, Instant::now() + TIMEOUT)? {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{status}"),
        None => {
            child.kill()?;
            child.wait()?;
            bail!("it did not end");
        }
    }
}

/// A guest process that uses the CPU.
fn spinning() -> Option<String> {
    let before = leftovers::guest_cpu_ticks();
    std::thread::sleep(Duration::from_millis(300));
    let after = leftovers::guest_cpu_ticks();
    after.into_iter().find_map(|(pid, ticks)| {
        let used = ticks.saturating_sub(*before.get(&pid)?);
        (used >= 3).then(|| format!("process {pid}"))
    })
}
