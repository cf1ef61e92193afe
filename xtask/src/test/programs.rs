//! `tests/programs`: real programs on a Debian root, one shell script a case.
//!
//! A script starts with its data, as comments of the form `# key: value`:
//! - `root`: base, full or desk (default full)
//! - `platforms`: those it must work on (default systrap)
//! - `timeout`: seconds in the sandbox (default 120); the host has the same
//! - `shell`: the interpreter (default /bin/sh)
//! - `gofer`: yes, if it is to be run with a gofer too, with /tmp and /root on the host
//! - `status`: the exit status that it has on Linux (default 0)
//!
//! It must print the same each time; what has to differ (times, pids) it filters itself, and says why.
//!
//! Some are saved in their middle besides, and go on in another sandbox; with `--checkpointed` all are ([`checkpointed`]).

mod checkpointed;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::job::tail;
use super::{
    Ending, FileServer, Files, Job, Network, Options, Outcome, Place, Platform, Report, RootKind, Runner, Writable,
    ensure_root,
};
use crate::paths;

struct Case {
    name: String,
    root: RootKind,
    platforms: Vec<Platform>,
    timeout: Duration,
    shell: String,
    gofer: bool,
    status: i32,
    script: String,
}

/// Runs the cases that the options ask for.
pub fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    for case in load_all()? {
        if !options.wants_case(&case.name) {
            continue;
        }
        if options.list {
            println!("programs/{}", case.name);
            continue;
        }
        let root = ensure_root(case.root)?;
        run_case(options, runner, report, &case, &root)?;
    }
    Ok(())
}

fn run_case(options: &Options, runner: &mut Runner, report: &mut Report, case: &Case, root: &Path) -> Result<()> {
    let mut job = Job {
        name: &case.name,
        root,
        arguments: vec![case.shell.clone(), "-c".into(), case.script.clone(), case.name.clone()],
        network: Network::default(),
        files: options.files(),
        timeout: case.timeout,
    };
    let host_name = format!("programs/host/{}", case.name);
    let expected = runner.run(Place::Host, &job)?;
    if expected.ending != Ending::Exited(case.status) {
        let stderr = tail(&expected.stderr, 10);
        report.fail(&host_name, format!("{} (a bug of the test){stderr}", expected.ending));
        return Ok(());
    }
    if checkpointed::wants(options, case) {
        checkpointed::run(options, runner, report, (case, &job), &expected);
    }
    if options.checkpointed {
        return Ok(());
    }
    let places: Vec<Place> = if options.native {
        vec![Place::Host]
    } else {
        options.platforms(&case.platforms).into_iter().map(Place::Sandbox).collect()
    };
    for place in places {
        let name = format!("programs/{}/{}", place.name(), case.name);
        compare(runner, report, &expected, (place, &job), &name)?;
    }
    if case.gofer && !options.native {
        job.files = Files { server: FileServer::Gofer, writable: Writable::Homes };
        for platform in options.platforms(&case.platforms) {
            let name = format!("programs/{}/{}@gofer", platform.name(), case.name);
            compare(runner, report, &expected, (Place::Sandbox(platform), &job), &name)?;
        }
    }
    Ok(())
}

/// Runs the job, which must give what is expected.
fn compare(
    runner: &mut Runner,
    report: &mut Report,
    expected: &Outcome,
    (place, job): (Place, &Job),
    name: &str,
) -> Result<()> {
    let outcome = runner.run(place, job)?;
    match difference(expected, &outcome) {
        None => report.pass(name, outcome.elapsed),
        Some(why) => report.fail(name, why),
    }
    Ok(())
}

/// None if the two runs gave the same and the second left nothing behind.
pub(super) fn difference(expected: &Outcome, outcome: &Outcome) -> Option<String> {
    let stderr = || tail(&outcome.stderr, 12);
    if status(outcome.ending) != status(expected.ending) {
        let stdout = tail(&outcome.stdout, 5);
        return Some(format!("{}, want {}{stdout}{}", outcome.ending, expected.ending, stderr()));
    }
    if outcome.stdout != expected.stdout {
        let line = first_difference(&expected.stdout, &outcome.stdout);
        return Some(format!("{line}{}", stderr()));
    }
    if !outcome.leftovers.is_empty() {
        return Some(format!("left behind: {}", outcome.leftovers.join("; ")));
    }
    None
}

/// As a shell sees it, so that a death by signal compares equal whoever reports it.
fn status(ending: Ending) -> Option<i32> {
    match ending {
        Ending::Exited(status) => Some(status),
        Ending::Killed(signal) => Some(128 + signal),
        Ending::TimedOut => None,
    }
}

fn first_difference(expected: &[u8], got: &[u8]) -> String {
    let (expected, got) = (String::from_utf8_lossy(expected), String::from_utf8_lossy(got));
    let (mut want_lines, mut got_lines) = (expected.lines(), got.lines());
    let mut number = 0;
    loop {
        number += 1;
        match (want_lines.next(), got_lines.next()) {
            (None, None) => return "output differs in its line ends".to_string(),
            (want, got) if want == got => {}
            (want, got) => {
                let show = |line: Option<&str>| line.map_or("end of output".into(), |l| format!("'{l}'"));
                return format!("line {number} of stdout: {}, want {}", show(got), show(want));
            }
        }
    }
}

fn load_all() -> Result<Vec<Case>> {
    let directory = paths::repository().join("tests/programs");
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory)?.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|e| e == "sh"));
    files.sort();
    files.iter().map(|file| load(file)).collect()
}

fn load(file: &Path) -> Result<Case> {
    let script = fs::read_to_string(file)?;
    let name = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    parse(name, script).with_context(|| file.display().to_string())
}

/// The data of a script: the first comment block; the first line without `key: value` ends it.
pub(super) fn header(script: &str) -> impl Iterator<Item = (&str, &str)> {
    script.lines().map_while(|line| line.strip_prefix("# ")?.split_once(": "))
}

fn parse(name: &str, script: String) -> Result<Case> {
    let mut case = Case {
        name: name.to_string(),
        root: RootKind::Full,
        platforms: vec![Platform::Systrap],
        timeout: Duration::from_secs(120),
        shell: "/bin/sh".to_string(),
        gofer: false,
        status: 0,
        script: String::new(),
    };
    for (key, value) in header(&script) {
        match key {
            "root" if value == "base" => case.root = RootKind::Base,
            "root" if value == "full" => case.root = RootKind::Full,
            "root" if value == "desk" => case.root = RootKind::Desk,
            "platforms" => {
                case.platforms = value.split(' ').map(Platform::parse).collect::<Result<_>>()?;
            }
            "timeout" => case.timeout = Duration::from_secs(value.parse()?),
            "shell" => case.shell = value.to_string(),
            "gofer" if value == "yes" => case.gofer = true,
            "status" => case.status = value.parse()?,
            _ => bail!("'{key}: {value}' is not known"),
        }
    }
    case.script = script;
    Ok(case)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_data_of_a_case() {
        let script = "# root: base\n# platforms: systrap ptrace\n# timeout: 5\n# Prose: with a colon after it\n";
        assert!(parse("x", script.to_string()).is_err(), "an unknown key is refused");
        let script = "# root: base\n# platforms: systrap ptrace\n# timeout: 5\n\n# Prose: is free here\n";
        let case = parse("x", script.to_string()).unwrap();
        assert_eq!((case.root, case.platforms.len()), (RootKind::Base, 2));
        assert_eq!(case.timeout, Duration::from_secs(5));
    }

    #[test]
    fn names_the_first_line_that_differs() {
        assert_eq!(first_difference(b"a\nb\n", b"a\nc\n"), "line 2 of stdout: 'c', want 'b'");
        assert_eq!(first_difference(b"a\n", b""), "line 1 of stdout: end of output, want 'a'");
    }

    #[test]
    fn a_death_by_signal_compares_as_the_shell_sees_it() {
        assert_eq!(status(Ending::Killed(9)), status(Ending::Exited(137)));
        assert_eq!(status(Ending::TimedOut), None);
    }
}
