//! `cargo x test hosts`: `tests/hosts` on stock kernels, in virtual machines.
//!
//! Each case is a script that runs as root in a Debian with systemd, cgroup v2, AppArmor, Docker, containerd and Podman; the kernels
//! are those of several Debian releases. Without acceleration a machine boots in half a minute and a step takes seconds,
//! so this area is only run when it is named.

mod images;
mod machine;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernels::Kernel;
use super::{Options, Report};
use crate::paths;
use images::Images;
use machine::Machine;

/// A script in `tests/hosts/cases`.
struct Case {
    name: String,
    script: String,
    /// Its own machine: it changes what others would see.
    alone: bool,
    timeout: Duration,
}

/// Runs the cases that are asked for on the kernels that are.
pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let cases: Vec<Case> = cases()?.into_iter().filter(|case| options.wants_case(&case.name)).collect();
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        report.skip("hosts", "needs root: it makes a Debian root");
        return Ok(());
    }
    let images = Images::ensure(options.kernels())?;
    let disk = images.disk(&options.moat()?)?;
    for &kernel in options.kernels() {
        let (alone, shared): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.alone);
        let together = (!shared.is_empty()).then_some(shared);
        for group in together.into_iter().chain(alone.into_iter().map(|case| vec![case])) {
            let start = Instant::now();
            let mut machine = Machine::boot(&images, kernel.suite, &disk)
                .with_context(|| format!("booting Linux {}", kernel.version))?;
            println!("Linux {} is up after {} s", kernel.version, start.elapsed().as_secs());
            for case in group {
                run_case(&mut machine, kernel, case, report)?;
            }
        }
    }
    Ok(())
}

fn run_case(machine: &mut Machine, kernel: Kernel, case: &Case, report: &mut Report) -> Result<()> {
    let name = format!("hosts/{}/{}", kernel.version, case.name);
    let start = Instant::now();
    match machine.run(&case.script, case.timeout)? {
        Some((0, _)) => report.pass(&name, start.elapsed()),
        Some((77, output)) => report.skip(&name, output.trim()),
        Some((status, output)) => report.fail(&name, format!("status {status}\n{output}")),
        None => {
            report.fail(&name, format!("no end after {} s", case.timeout.as_secs()));
            bail!("the machine does not answer any more");
        }
    }
    Ok(())
}

fn cases() -> Result<Vec<Case>> {
    let directory = paths::repository().join("tests/hosts/cases");
    let entries = fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| case(file)).collect()
}

/// Words in the first line's comment: "alone", and "SECONDS s" where it takes long.
fn case(file: &std::path::Path) -> Result<Case> {
    const TIMEOUT: Duration = Duration::from_secs(180);
    let text = fs::read_to_string(file)?;
    let head = text.lines().next().unwrap_or_default().trim_start_matches("# ");
    let mut words = head.split_whitespace();
    let alone = words.clone().any(|word| word == "alone");
    let seconds = words.find_map(|word| word.strip_suffix("s").and_then(|n| n.parse().ok()));
    Ok(Case {
        name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        script: text,
        alone,
        timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
    })
}
