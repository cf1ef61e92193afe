//! `tests/abi`: small static guest programs, one per area, each a list of named checks.
//!
//! A program prints `ok NAME`, `FAIL NAME: why` or `skip NAME: why` for each check. It runs on the host
//! first: a check that does not pass there is a bug of the test. Then the sandbox must give the same.
//! Where the program ends early (a crash of the sandbox, a hang), the check that was under way fails
//! and a new run goes on with the next one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, bail};

use super::job::tail;
use super::{FileServer, Files, Job, Network, Options, Outcome, Place, Platform, Report, Runner, Writable};
use crate::paths;

/// A check has 30 s by the program's own clock; a whole program may take this long.
const TIMEOUT: Duration = Duration::from_secs(150);

/// After so many ends in one program the rest counts as failed: each may cost a whole timeout.
const MAX_DEATHS: u32 = 5;

/// Directories of the root that the programs run in.
const ROOT_DIRECTORIES: [&str; 7] = ["bin", "dev", "etc", "proc", "root", "sys", "tmp"];

/// Checks that a platform can't pass, and why. They are not run there, and shown as skipped.
const OUT_OF_REACH: [(Platform, &str, &str); 2] = [
    (
        Platform::Ptrace,
        "faults/unmapped_write",
        "ptrace(2) does not tell a tracer the error code of a page fault, so its write bit is not known",
    ),
    (
        Platform::Ptrace,
        "threads/rseq_is_registered_by_libc",
        "rseq(2) is refused on ptrace: a registered area could divert a thread out of the stub",
    ),
];

/// The checks' own directories are on the host, and a gofer serves them.
const IN_HOST_TREES: Files = Files { server: FileServer::Gofer, writable: Writable::Homes };

/// As above, but the sandbox reaches them itself.
const IN_HOST_TREES_DIRECTLY: Files = Files { server: FileServer::Sandbox, writable: Writable::Homes };

/// What the sandbox is given of the host.
#[derive(Clone, Copy)]
struct Setting {
    network: Network,
    files: Files,
}

impl Setting {
    /// The name of an area in this setting.
    fn label(self, area: &str) -> String {
        let network = if self.network == Network::Host { "@host" } else { "" };
        let files = match self.files {
            IN_HOST_TREES => "@gofer",
            IN_HOST_TREES_DIRECTLY => "@direct",
            _ => "",
        };
        format!("{area}{network}{files}")
    }
}

/// The settings that an area is tried in, in the sandbox.
fn settings(area: &str, options: &Options) -> Vec<Setting> {
    let usual = Setting { network: Network::Sandbox, files: options.files() };
    let host = Setting { network: Network::Host, ..usual };
    let direct = Setting { files: IN_HOST_TREES_DIRECTLY, ..usual };
    let gofer = Setting { files: IN_HOST_TREES, ..usual };
    match area {
        "inet" => vec![usual, host],
        "hostnet" => vec![host],
        "files" | "names" | "permissions" | "locks" | "exec" | "memory" | "objects" | "random" | "inotify" => {
            vec![usual, direct, gofer]
        }
        _ => vec![usual],
    }
}

/// Checks that need more of a file system than a tree of the host gives.
const NOT_IN_HOST_TREES: [(&str, &str); 1] = [("files/statfs_of_places", "it expects /tmp to be a tmpfs")];

fn out_of_reach(platform: Platform, setting: Setting, check: &str) -> Option<&'static str> {
    let in_host_tree = matches!(setting.files, IN_HOST_TREES | IN_HOST_TREES_DIRECTLY);
    if let Some((_, why)) = NOT_IN_HOST_TREES.iter().find(|(c, _)| in_host_tree && *c == check) {
        return Some(why);
    }
    OUT_OF_REACH.iter().find(|(p, c, _)| *p == platform && *c == check).map(|(.., why)| *why)
}

/// What a program printed about one check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    Ok,
    Skip(String),
    Fail(String),
}

/// Builds and runs the programs that the options ask for.
pub fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    each_area("abi", options, |root, area, names| run_area(options, runner, report, root, area, names))
}

/// Builds the programs of `tests/KIND` and calls `run` for each with checks that the options ask for: with the root that it is in, its
/// name, and theirs. Only names them if that is what is asked for.
pub(super) fn each_area(
    kind: &str,
    options: &Options,
    mut run: impl FnMut(&Path, &str, &[String]) -> Result<()>,
) -> Result<()> {
    let root = paths::target().join(kind).join("root");
    for area in build_all(&paths::repository().join("tests").join(kind), &root)? {
        let names = list(&root, &area)?;
        let names: Vec<_> = names.into_iter().filter(|name| options.wants_case(&format!("{area}/{name}"))).collect();
        if options.list {
            names.iter().for_each(|name| println!("{kind}/{area}/{name}"));
        } else if !names.is_empty() {
            run(&root, &area, &names)?;
        }
    }
    Ok(())
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
    let on_host = Setting { network: Network::Sandbox, files: Files::default() };
    let expected = collect(runner, Place::Host, on_host, root, area, names)?;
    let mut good = Vec::new();
    for name in names {
        match expected.get(name) {
            Some(Verdict::Ok) => good.push(name.clone()),
            Some(Verdict::Skip(why)) => report.skip(&format!("abi/{area}/{name}"), why),
            Some(Verdict::Fail(why)) => {
                report.fail(&format!("abi/host/{area}/{name}"), format!("{why} (a bug of the test)"));
            }
            None => report.fail(&format!("abi/host/{area}/{name}"), "no result (a bug of the test)"),
        }
    }
    if options.native {
        report.pass_many(&format!("abi/host/{area}"), good.len(), start.elapsed());
        return Ok(());
    }
    let platforms = options.platforms(&Platform::ALL);
    let settings = settings(area, options);
    for (platform, setting) in platforms.iter().flat_map(|p| settings.iter().map(|s| (*p, *s))) {
        let start = Instant::now();
        let place = Place::Sandbox(platform);
        let label = setting.label(area);
        let mut wanted = good.clone();
        wanted.retain(|name| match out_of_reach(platform, setting, &format!("{area}/{name}")) {
            Some(why) => {
                report.skip(&full_name(place, &label, name), why);
                false
            }
            None => true,
        });
        let results = collect(runner, place, setting, root, area, &wanted)?;
        let mut passed = 0;
        for name in &wanted {
            match results.get(name) {
                Some(Verdict::Ok) => passed += 1,
                Some(Verdict::Skip(why)) => {
                    report.fail(&full_name(place, &label, name), format!("skipped in the sandbox only: {why}"));
                }
                Some(Verdict::Fail(why)) => report.fail(&full_name(place, &label, name), why),
                None => report.fail(&full_name(place, &label, name), "not run: too many ends before it"),
            }
        }
        report.pass_many(&format!("abi/{}/{label}", place.name()), passed, start.elapsed());
    }
    Ok(())
}

fn full_name(place: Place, area: &str, name: &str) -> String {
    format!("abi/{}/{area}/{name}", place.name())
}

/// Runs the named checks in one place, in as many runs as it takes.
fn collect(
    runner: &mut Runner,
    place: Place,
    setting: Setting,
    root: &Path,
    area: &str,
    names: &[String],
) -> Result<BTreeMap<String, Verdict>> {
    let mut verdicts = BTreeMap::new();
    let mut remaining: Vec<String> = names.to_vec();
    for _ in 0..MAX_DEATHS {
        if remaining.is_empty() {
            break;
        }
        let mut arguments = vec![format!("/bin/{area}")];
        arguments.extend(remaining.iter().cloned());
        let Setting { network, files } = setting;
        let job = Job { name: area, root, arguments, network, files, timeout: TIMEOUT };
        let outcome = runner.run(place, &job)?;
        verdicts.extend(parse(&String::from_utf8_lossy(&outcome.stdout)));
        remaining.retain(|name| !verdicts.contains_key(name));
        if let Some(name) = remaining.first().cloned() {
            verdicts.insert(name.clone(), Verdict::Fail(early_end(&outcome)));
            remaining.remove(0);
        } else if !outcome.leftovers.is_empty() {
            // Not the fault of any one check, so it must not hide behind one.
            verdicts.insert(names[0].clone(), Verdict::Fail(format!("left behind: {:?}", outcome.leftovers)));
        }
    }
    Ok(verdicts)
}

fn early_end(outcome: &Outcome) -> String {
    let stderr = tail(&outcome.stderr, 6);
    format!("the run ended during or before this check: {}{stderr}", outcome.ending)
}

pub(super) fn parse(stdout: &str) -> BTreeMap<String, Verdict> {
    let mut verdicts = BTreeMap::new();
    for (name, verdict) in stdout.lines().filter_map(parse_line) {
        // The first line is the cause; a parent may add one about its child.
        verdicts.entry(name).or_insert(verdict);
    }
    verdicts
}

fn parse_line(line: &str) -> Option<(String, Verdict)> {
    let (word, rest) = line.split_once(' ')?;
    if word == "ok" {
        return Some((rest.to_string(), Verdict::Ok));
    }
    let (name, why) = rest.split_once(": ")?;
    match word {
        "skip" => Some((name.to_string(), Verdict::Skip(why.to_string()))),
        "FAIL" => Some((name.to_string(), Verdict::Fail(why.to_string()))),
        _ => None,
    }
}

/// The names of a program's checks, in its order.
fn list(root: &Path, area: &str) -> Result<Vec<String>> {
    let output = Command::new(root.join("bin").join(area)).arg("--list").output()?;
    let text = String::from_utf8(output.stdout).context("names of checks are ASCII")?;
    Ok(text.lines().map(String::from).collect())
}

/// Compiles every program of `directory` whose source is newer than its binary; returns the areas.
fn build_all(directory: &Path, root: &Path) -> Result<Vec<String>> {
    for directory in ROOT_DIRECTORIES {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nnogroup:x:65534:\n")?;
    // Its own, and the one that it shares with others.
    let headers = newest(directory, "h")?.max(newest(&paths::repository().join("tests"), "h")?);
    let mut areas = Vec::new();
    for source in files(directory, "c")? {
        let Some(area) = source.file_stem().and_then(|s| s.to_str()) else {
            continue;
        };
        let binary = root.join("bin").join(area);
        let built = fs::metadata(&binary).and_then(|m| m.modified());
        let changed = fs::metadata(&source)?.modified()?.max(headers);
        if !built.is_ok_and(|built| built > changed) {
            compile(&source, &binary)?;
        }
        areas.push(area.to_string());
    }
    areas.sort();
    Ok(areas)
}

pub(super) fn compile(source: &Path, binary: &Path) -> Result<()> {
    let mut compiler = Command::new("cc");
    compiler
        .args(["-static", "-O1", "-g", "-std=gnu11", "-pthread", "-Wall", "-Wextra", "-Werror"])
        .args(["-Wno-cast-function-type", "-Wno-unused-result", "-Wno-stringop-overflow"])
        .args(["-Wno-stringop-overread", "-Wno-nonnull", "-Wno-infinite-recursion", "-o"])
        .args([binary, source]);
    paths::run(&mut compiler)
}

fn files(directory: &Path, extension: &str) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    Ok(found)
}

fn newest(directory: &Path, extension: &str) -> Result<SystemTime> {
    let mut newest = SystemTime::UNIX_EPOCH;
    for file in files(directory, extension)? {
        newest = newest.max(fs::metadata(&file)?.modified()?);
    }
    if newest == SystemTime::UNIX_EPOCH {
        bail!("{} has no .{extension} file", directory.display());
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_lines_of_a_program() {
        let results = parse("ok a\nFAIL b: x: y\nnoise\nskip c: no pty\n");
        assert_eq!(results.len(), 3);
        assert_eq!(results["a"], Verdict::Ok);
        assert_eq!(results["b"], Verdict::Fail("x: y".to_string()));
    }
}
