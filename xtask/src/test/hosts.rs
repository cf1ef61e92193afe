//! `cargo x test hosts`: `tests/hosts` on stock kernels, in virtual machines.
//!
//! Each case is a script that runs as root in a Debian with systemd, cgroup v2, AppArmor, Docker, containerd and Podman; the kernels
//! are those of several Debian releases. Without acceleration a machine boots in half a minute and a step takes seconds,
//! so this area is only run when it is named. Its short form (`--short`) has the oldest kernel, and the cases that need nothing but
//! a Debian root without systemd: `.ci/run` has it beside all other areas.

mod images;
mod machine;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::kernels::Kernel;
use super::{Options, Report};
use crate::paths;
use images::{Form, Images, Unavailable};
use machine::{Machine, Processors};

/// A script in `tests/hosts/cases`.
struct Case {
    name: String,
    script: String,
    /// Its own machine: it changes what others would see.
    alone: bool,
    /// The short form has it, too.
    is_short: bool,
    processors: Processors,
    /// It goes on after a reboot, with `rebooted=1`.
    reboots: bool,
    timeout: Duration,
}

/// Runs the cases that are asked for on the kernels that are.
pub fn run(options: &Options, report: &mut Report) -> Result<()> {
    let wants = |case: &Case| options.wants_case(&case.name) && (case.is_short || !options.short);
    let cases: Vec<Case> = cases()?.into_iter().filter(wants).collect();
    if options.list {
        cases.iter().for_each(|case| println!("{}", case.name));
        return Ok(());
    }
    if !rustix::process::geteuid().is_root() {
        report.skip("hosts", "needs root: it makes a Debian root");
        return Ok(());
    }
    let (kernels, form) = match options.short {
        true => (options.kernels().get(..1).unwrap_or_default(), Form::Short),
        false => (options.kernels(), Form::Whole),
    };
    let images = match Images::ensure(kernels, form) {
        Err(error) if options.short && error.is::<Unavailable>() => {
            report.skip("hosts", &format!("{error:#}"));
            return Ok(());
        }
        result => result?,
    };
    let disk = images.disk(&options.moat()?)?;
    for &kernel in kernels {
        let (alone, shared): (Vec<&Case>, Vec<&Case>) = cases.iter().partition(|case| case.alone);
        let together = (!shared.is_empty()).then_some(shared);
        for group in together.into_iter().chain(alone.into_iter().map(|case| vec![case])) {
            let start = Instant::now();
            let processors = &group.first().context("a group has a case")?.processors;
            let mut machine = Machine::boot(&images, kernel.suite, &disk, processors)
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
    let mut outcome = machine.run(&case.script, case.timeout)?;
    if case.reboots && matches!(outcome, Some((0, _))) {
        machine.reboot().context("rebooting")?;
        outcome = machine.run(&format!("rebooted=1\n{}", case.script), case.timeout)?;
    }
    match outcome {
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

/// Words in the first line's comment: "alone", "short" for what the short form has, "SECONDS s" where it takes long, "reboots", "cpus=N", "without=FEATURE,FEATURE"; the
/// last three have a machine of their own.
fn case(file: &std::path::Path) -> Result<Case> {
    const TIMEOUT: Duration = Duration::from_secs(180);
    let text = fs::read_to_string(file)?;
    let head = text.lines().next().unwrap_or_default().trim_start_matches("# ");
    let words: Vec<&str> = head.split_whitespace().collect();
    let value = |name: &str| words.iter().find_map(|word| word.strip_prefix(name));
    let seconds = words.iter().find_map(|word| word.strip_suffix("s").and_then(|n| n.parse().ok()));
    let (count, features) = (value("cpus="), value("without="));
    let without = features.map(|all| all.split(',').map(|name| format!(",{name}=off")).collect());
    let reboots = words.contains(&"reboots");
    Ok(Case {
        name: file.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
        alone: words.contains(&"alone") || reboots || count.is_some() || features.is_some(),
        processors: Processors {
            count: count.map_or(Ok(2), str::parse).context("cpus=")?,
            without: without.unwrap_or_default(),
        },
        is_short: words.contains(&"short"),
        reboots,
        timeout: seconds.map_or(TIMEOUT, Duration::from_secs),
        script: text,
    })
}
