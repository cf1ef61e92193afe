//! How long one process's system call holds up another one (`tests/hardening/gaps.c`).
//!
//! It measures time, so it runs with `--long` only, on a machine that does nothing else, and with a build for release.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::super::{Ending, Files, Job, Network, Options, Place, Platform, Report, Runner};
use super::{Scratch, build, make_root};

/// Milliseconds that a process which sleeps for one may take.
const BAR: &str = "20";

const TIMEOUT: Duration = Duration::from_secs(600);

pub(super) fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    if !options.long || !options.wants_case("gaps") {
        return Ok(());
    }
    if options.list {
        println!("hardening/gaps");
        return Ok(());
    }
    let scratch = Scratch::new("gaps")?;
    let root = scratch.0.join("root");
    make_root(&root, &build("gaps")?, "gaps")?;
    for platform in options.platforms(&Platform::ALL) {
        let name = format!("hardening/{}/gaps", platform.name());
        let start = Instant::now();
        let job = Job {
            name: "gaps",
            root: &root,
            arguments: vec!["/bin/gaps".into(), BAR.into()],
            network: Network::default(),
            files: Files::default(),
            timeout: TIMEOUT,
        };
        let outcome = runner.run(Place::Sandbox(platform), &job)?;
        let lines = String::from_utf8_lossy(&outcome.stdout);
        print!("{lines}");
        match outcome.ending {
            Ending::Exited(0) if lines.ends_with("measured\n") => report.pass(&name, start.elapsed()),
            ending => report.fail(&name, format!("{ending}: a process was held up for more than {BAR} ms, see above")),
        }
    }
    Ok(())
}
