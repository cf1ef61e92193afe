//! A racing load over all of the system-call interface, under a build that checks the order of its locks.
//!
//! A few seconds find little that is new, but fail when a common path goes wrong. `--minutes N` is for the long run, with a
//! seed of its own each time.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;

use super::super::job::tail;
use super::super::{
    Ending, FileServer, Files, Job, Network, Options, Outcome, Place, Platform, Report, Runner, Writable,
};
use super::{Scratch, build, build_checked, make_root};

/// How long the load goes on where no `--minutes` are given.
const SHORT: Duration = Duration::from_secs(3);

/// What the end of the load may take: hundreds of processes die, in a slow build.
const END: Duration = Duration::from_secs(60);

/// The host's trees: below an overlay, and as directories of the host that a gofer serves.
const TREES: [(&str, Files); 2] = [
    ("overlay", Files { server: FileServer::Sandbox, writable: Writable::Nothing }),
    ("gofer", Files { server: FileServer::Gofer, writable: Writable::Homes }),
];

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    let length = options.minutes.map_or(SHORT, |minutes| Duration::from_secs(minutes * 60));
    let seed = match options.minutes {
        Some(_) => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
        None => 1,
    };
    let wanted: Vec<_> = TREES.into_iter().filter(|(word, _)| options.wants_case(&format!("load/{word}"))).collect();
    if options.list {
        wanted.iter().for_each(|(word, _)| println!("hardening/load/{word}"));
        return Ok(());
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let mut runner = Runner::new(build_checked()?)?;
    let scratch = Scratch::new("load")?;
    let root = scratch.0.join("root");
    make_root(&root, &build("load")?, "load")?;
    let mut one = |report: &mut Report, place: Place, files: Files, length: Duration, name: &str| -> Result<()> {
        let start = Instant::now();
        match verdict(&runner.run(place, &job(&root, files, length, seed))?) {
            None => report.pass(name, start.elapsed()),
            Some(why) => report.fail(name, format!("seed {seed}: {why}")),
        }
        Ok(())
    };
    // What the host does not survive would say nothing about the sandbox.
    one(report, Place::Host, Files::default(), SHORT, "hardening/host/load")?;
    for platform in options.platforms(&Platform::ALL) {
        for (word, files) in &wanted {
            let name = format!("hardening/{}/load/{word}", platform.name());
            one(report, Place::Sandbox(platform), *files, length, &name)?;
        }
    }
    Ok(())
}

fn job(root: &Path, files: Files, length: Duration, seed: u64) -> Job<'_> {
    Job {
        name: "load",
        root,
        arguments: vec!["/bin/load".into(), length.as_secs().to_string(), seed.to_string()],
        network: Network::default(),
        files,
        timeout: length + END,
    }
}

fn verdict(outcome: &Outcome) -> Option<String> {
    let stdout = String::from_utf8_lossy(&outcome.stdout);
    // The load writes to whatever is open, also there.
    if outcome.ending != Ending::Exited(0) || !stdout.ends_with("survived\n") {
        return Some(format!("{}: {}{}", outcome.ending, tail(&outcome.stdout, 12), tail(&outcome.stderr, 12)));
    }
    (!outcome.leftovers.is_empty()).then(|| format!("left behind: {:?}", outcome.leftovers))
}
