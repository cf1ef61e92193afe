//! What is asked of a sandbox while a guest does its worst in it: does it answer, how large is it, does it die.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::test::wait;

/// In this time a sandbox answers, whatever its guest does: the build is slow, and the guest takes all CPUs.
const ANSWER: Duration = Duration::from_secs(30);

/// Resident memory of the sandbox process that is too much when the guest's processes are gone, in MiB.
const IDLE_MEMORY: u64 = 512;

/// The same while they are at work.
const MOST_MEMORY: u64 = 4096;

/// Descriptors that the sandbox may have more than at first when the guest's processes are gone: blank processes, areas, caches of names.
const IDLE_DESCRIPTORS: usize = 3000;

/// A sandbox under watch.
pub(super) struct Watch {
    moat: PathBuf,
    id: String,
    /// The sandbox process, once it is known.
    pid: Option<u64>,
    descriptors: usize,
    /// Resident memory in MiB: the most, and when all was over.
    pub(super) most: u64,
    pub(super) idle: u64,
}

impl Watch {
    pub(super) fn new(moat: &Path, id: &str) -> Watch {
        Watch { moat: moat.into(), id: id.into(), pid: None, descriptors: 0, most: 0, idle: 0 }
    }

    /// Runs a command of moat's; says what went wrong.
    fn command(&self, arguments: &[&str]) -> Result<Result<Vec<u8>, String>> {
        let mut command = Command::new(&self.moat);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        if wait(&mut child, Instant::now() + ANSWER)?.is_none() {
            child.kill()?;
            child.wait()?;
            return Ok(Err(format!("no answer to {arguments:?}")));
        }
        let output = child.wait_with_output()?;
        if output.status.success() {
            return Ok(Ok(output.stdout));
        }
        let why = String::from_utf8_lossy(&output.stderr);
        Ok(Err(format!("{arguments:?}: {}: {}", output.status, why.trim())))
    }

    /// Commands that need the sandbox: `state`, `ps`, and a program that ends at once.
    pub(super) fn ask(&mut self) -> Result<Result<(), String>> {
        let id = self.id.clone();
        let state = match self.command(&["state", &id])? {
            Ok(state) => state,
            Err(why) => return Ok(Err(why)),
        };
        if self.pid.is_none() {
            self.pid = serde_json::from_slice::<serde_json::Value>(&state)?["pid"].as_u64();
            self.descriptors = self.count_descriptors();
        }
        // The guest may kill what is executed: that is an answer as well.
        let probe = self.command(&["exec", &id, "/bin/probe", "exit"])?;
        if let Err(why) = probe
            && !why.contains("exit status: 1")
        {
            return Ok(Err(why));
        }
        Ok(self.command(&["ps", &id])?.map(drop))
    }

    /// Kills the container; says what went wrong.
    pub(super) fn kill(&self) -> Result<Option<String>> {
        Ok(self.command(&["kill", &self.id, "KILL"])?.err())
    }

    /// What every task and every thread of the sandbox does, or what the host knows of them.
    pub(super) fn stacks(&self) -> Result<String> {
        let mut out = String::new();
        for what in ["--ps", "--stacks"] {
            let shown = self.command(&["debug", what, &self.id])?;
            out += &shown.map_or_else(|why| why, |text| String::from_utf8_lossy(&text).into_owned());
        }
        Ok(out)
    }

    fn count_descriptors(&self) -> usize {
        self.pid.and_then(|pid| fs::read_dir(format!("/proc/{pid}/fd")).ok()).map_or(0, Iterator::count)
    }

    /// Looks at its size; says if it is too large.
    pub(super) fn measure(&mut self, is_idle: bool) -> Option<String> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid?)).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))?;
        let resident = resident.parse::<u64>().ok()? / 1024;
        self.most = self.most.max(resident);
        if !is_idle {
            return (resident > MOST_MEMORY).then(|| format!("the sandbox has {resident} MiB of memory"));
        }
        self.idle = resident;
        let descriptors = self.count_descriptors();
        if resident > IDLE_MEMORY || descriptors > self.descriptors + IDLE_DESCRIPTORS {
            return Some(format!(
                "without a guest the sandbox has {resident} MiB of memory, {descriptors} descriptors"
            ));
        }
        None
    }
}
