//! Application code that makes host calls by itself, from wherever in its process there is an instruction for it.

use std::fs;
use std::time::Duration;

use anyhow::Result;

use super::super::job::tail;
use super::super::{Ending, Files, Job, Network, Options, Outcome, Place, Platform, Report, Runner};
use super::{Scratch, Verdict, build, make_root, on_each_platform};

/// Where the calls come from; what each is, the guest program says.
const ROUTES: [&str; 5] = ["own", "x32", "int80", "vsyscall", "stub"];

const TIMEOUT: Duration = Duration::from_secs(150);

pub(super) fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    for route in ROUTES {
        on_each_platform(options, report, &format!("guest/{route}"), |platform| {
            if route == "stub" && platform == Platform::Ptrace {
                let why = "a guest of ptrace has no code of the sandbox's: every call stops for the tracer";
                return Ok(Verdict::Skipped(why));
            }
            attack(runner, platform, route).map(Into::into)
        })?;
    }
    Ok(())
}

/// One run; says what went wrong.
fn attack(runner: &mut Runner, platform: Platform, route: &str) -> Result<Option<String>> {
    let scratch = Scratch::new("guest")?;
    let (root, outside) = (scratch.0.join("root"), scratch.0.join("outside"));
    make_root(&root, &build("guest")?, "guest")?;
    fs::create_dir(&outside)?;
    fs::write(outside.join("marker"), "MARKER")?;
    let job = Job {
        name: "guest",
        root: &root,
        // The process that must not be killed is this one.
        arguments: vec![
            "/bin/guest".into(),
            route.into(),
            std::process::id().to_string(),
            outside.display().to_string(),
        ],
        network: Network::default(),
        files: Files::default(),
        timeout: TIMEOUT,
    };
    let outcome = runner.run(Place::Sandbox(platform), &job)?;
    let unchanged = fs::read_dir(&outside)?.count() == 1 && fs::read(outside.join("marker"))? == b"MARKER";
    Ok(verdict(&outcome, unchanged))
}

fn verdict(outcome: &Outcome, unchanged: bool) -> Option<String> {
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    if !unchanged {
        return Some("what is outside has changed".into());
    }
    if outcome.ending != Ending::Exited(0) || !stdout.lines().any(|line| line == "contained") {
        return Some(format!("{}: {stdout}{}", outcome.ending, tail(&outcome.stderr, 12)));
    }
    (!outcome.leftovers.is_empty()).then(|| format!("left behind: {:?}", outcome.leftovers))
}
