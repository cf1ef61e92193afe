//! Random system calls, made of their declarations, for seconds; `cargo x fuzz guest` does the same for as long as one likes.

use std::time::Duration;

use anyhow::Result;

use super::super::{Options, Report, Runner};
use super::{Verdict, build_checked, on_each_platform};
use crate::fuzz::guest;

/// How long each sandbox is used.
const SHORT: Duration = Duration::from_secs(4);

/// Seeds with which the trees are below an overlay, and of the host by a gofer.
const SEEDS: [(&str, u64); 2] = [("fuzz/overlay", 3), ("fuzz/gofer", 5)];

pub(super) fn run(options: &Options, report: &mut Report) -> Result<()> {
    for (case, seed) in SEEDS {
        on_each_platform(options, report, case, |platform| {
            let moat = build_checked()?;
            let seen = guest::round(&mut Runner::new(moat.clone())?, &moat, platform, SHORT, seed)?;
            // A load that makes no calls finds nothing.
            let enough = seen.calls > 1000 && seen.workers > 6;
            let why = (!enough).then(|| format!("{} calls of {} workers only", seen.calls, seen.workers));
            Ok(Verdict::from(seen.finding.or(why)))
        })?;
    }
    Ok(())
}
