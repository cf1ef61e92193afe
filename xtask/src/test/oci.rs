//! `tests/oci`: Docker, containerd, Podman and the bare command line, one shell script a case.
//!
//! The oracle is runc: a script runs with it first and then with moat, and must print the same, end with the same
//! status, and leave nothing behind. A script starts with its data, as comments of the form `# key: value`:
//! - `needs`: the services it uses, of containerd, cri, docker, compose, podman, rootless
//! - `timeout`: seconds (default 60)
//! - `oracle`: runc (the default); or none, if it is about what moat does otherwise: its status must then be 0
//!
//! `lib.sh` precedes each script. What is not a case in that directory is a part of the [`World`].

pub mod world;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::job::tail;
use super::programs::{difference, header};
use super::{Ending, Options, Outcome, Platform, Report, RootKind, ensure_root, requirements};
use crate::paths;
use world::{Service, World};

/// What the directory holds besides cases.
const NOT_CASES: [&str; 9] = ["as-tester", "clean", "context", "inside", "lib", "pod", "podman", "residue", "world"];

/// How long the traces of containers may stay after a case: clients clean up in the background.
const GRACE: Duration = Duration::from_secs(5);

struct Case {
    name: String,
    needs: Vec<Service>,
    timeout: Duration,
    has_oracle: bool,
    script: String,
}

/// Runs the cases that the options ask for.
pub fn run(options: &Options, moat: &Path, report: &mut Report) -> Result<()> {
    let mut cases = load_all()?;
    cases.retain(|case| options.wants_case(&case.name));
    if options.list {
        cases.iter().for_each(|case| println!("oci/{}", case.name));
        return Ok(());
    }
    // Clients choose no platform; what they get is the default one.
    if cases.is_empty() || options.platforms(&[Platform::Systrap]).is_empty() {
        return Ok(());
    }
    if !requirements::is_installed("runc") {
        report.skip("oci", "runc is not installed, which is the oracle: cargo x test --install");
        return Ok(());
    }
    let mut services: BTreeSet<Service> = cases.iter().flat_map(|case| case.needs.iter().copied()).collect();
    if services.contains(&Service::Docker) {
        services.insert(Service::Containerd);
    }
    let services: Vec<Service> = services.into_iter().collect();
    let root = ensure_root(RootKind::Base)?;
    let world = match World::start(moat, &root, &services) {
        Ok(world) => world,
        Err(error) => {
            report.skip("oci", &format!("{error:#}"));
            return Ok(());
        }
    };
    for case in &cases {
        match case.needs.iter().find_map(|&service| world.missing(service)) {
            Some(reason) => report.skip(&format!("oci/{}", case.name), reason),
            None => run_case(options, &world, &root, report, case)?,
        }
    }
    Ok(())
}

fn run_case(options: &Options, world: &World, root: &Path, report: &mut Report, case: &Case) -> Result<()> {
    let expected = if case.has_oracle {
        let expected = run_with(world, root, "runc", case)?;
        let name = format!("oci/runc/{}", case.name);
        // What does not work with runc either shows nothing.
        if expected.ending != Ending::Exited(0) || !expected.leftovers.is_empty() {
            let leftovers = expected.leftovers.join("; ");
            let output = format!("{}{}", tail(&expected.stdout, 10), tail(&expected.stderr, 10));
            report.fail(&name, format!("{} {leftovers} (a bug of the test){output}", expected.ending));
            return Ok(());
        }
        if options.native {
            println!("{}{}", tail(&expected.stdout, 1000), tail(&expected.stderr, 1000));
            report.pass(&name, expected.elapsed);
        }
        Some(expected)
    } else {
        None
    };
    if options.native {
        return Ok(());
    }
    let name = format!("oci/moat/{}", case.name);
    let outcome = run_with(world, root, "moat", case)?;
    let verdict = match &expected {
        Some(expected) => difference(expected, &outcome),
        None if outcome.ending != Ending::Exited(0) => {
            let output = format!("{}{}", tail(&outcome.stdout, 10), tail(&outcome.stderr, 10));
            Some(format!("{}{output}", outcome.ending))
        }
        None if !outcome.leftovers.is_empty() => Some(format!("left behind: {}", outcome.leftovers.join("; "))),
        None => None,
    };
    match verdict {
        None => report.pass(&name, outcome.elapsed),
        Some(why) => report.fail(&name, why),
    }
    Ok(())
}

fn run_with(world: &World, root: &Path, runtime: &str, case: &Case) -> Result<Outcome> {
    let root = root.to_str().context("the path of the test root is not UTF-8")?;
    let here = paths::repository().join("tests/oci");
    let here = here.to_str().context("the path of the repository is not UTF-8")?;
    let before = world.residue()?;
    let variables = [("RUNTIME", runtime), ("ROOT", root), ("HERE", here)];
    let mut outcome = world.run(&case.script, &variables, case.timeout)?;
    let deadline = Instant::now() + GRACE;
    outcome.leftovers = loop {
        let mut now = world.residue()?;
        now.retain(|line| !before.contains(line));
        if now.is_empty() || Instant::now() >= deadline || outcome.ending == Ending::TimedOut {
            break now;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    if !outcome.leftovers.is_empty() {
        world.clean()?;
    }
    Ok(outcome)
}

fn load_all() -> Result<Vec<Case>> {
    let directory = paths::repository().join("tests/oci");
    let library = fs::read_to_string(directory.join("lib.sh"))?;
    let mut files: Vec<PathBuf> =
        fs::read_dir(&directory)?.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<_>>()?;
    files.sort();
    let mut cases = Vec::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|e| e == "sh")) {
        let name = file.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        if !NOT_CASES.contains(&name) {
            let script = fs::read_to_string(file)?;
            cases.push(parse(name, &library, &script).with_context(|| file.display().to_string())?);
        }
    }
    Ok(cases)
}

fn parse(name: &str, library: &str, script: &str) -> Result<Case> {
    let mut case = Case {
        name: name.to_string(),
        needs: Vec::new(),
        timeout: Duration::from_secs(60),
        has_oracle: true,
        script: format!("{library}\n{script}"),
    };
    for (key, value) in header(script) {
        match key {
            "needs" => case.needs = value.split(' ').map(Service::parse).collect::<Result<_>>()?,
            "timeout" => case.timeout = Duration::from_secs(value.parse()?),
            "oracle" if value == "runc" => case.has_oracle = true,
            "oracle" if value == "none" => case.has_oracle = false,
            _ => bail!("'{key}: {value}' is not known"),
        }
    }
    Ok(case)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_data_of_a_case() {
        let case = parse("x", "lib", "# needs: docker podman\n# oracle: none\n\n# Prose: free\n").unwrap();
        assert_eq!(case.needs, [Service::Docker, Service::Podman]);
        assert!(!case.has_oracle && case.script.starts_with("lib\n"));
        assert!(parse("x", "", "# needs: dockre\n").is_err());
    }

    #[test]
    fn every_case_can_be_read() {
        assert!(load_all().is_ok_and(|cases| !cases.is_empty()));
    }
}
