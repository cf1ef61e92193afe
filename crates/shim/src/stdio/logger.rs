//! [`Logger`]: a program of the client's that takes what a process says.
//!
//! By containerd's convention it has stdout as its descriptor 3, stderr as 4, and closes 5 when it is ready.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, Signal, kill_process};

use super::place::Program;
use super::{Owner, failed};
use crate::children::{Children, Running};
use crate::ttrpc::Status;

/// How often it is looked at when it is to end.
const STEP: Duration = Duration::from_millis(10);

/// Such a program.
#[derive(Debug)]
pub(super) struct Logger(Running);

impl Logger {
    /// Starts it and waits until it is ready. Gives what the process's stdout and stderr are to be.
    pub(super) fn start(
        program: &Program,
        owner: Owner<'_>,
        children: &Children,
    ) -> Result<(Logger, [OwnedFd; 2]), Status> {
        let shown = program.path.display().to_string();
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(&shown, error));
        let ((stdout, to_stdout), (stderr, to_stderr), (ready, readiness)) = (pipe()?, pipe()?, pipe()?);
        let mut command = Command::new(&program.path);
        command.args(&program.arguments).env_clear();
        command.env("CONTAINER_ID", owner.id).env("CONTAINER_NAMESPACE", owner.namespace);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        moat_host::command::give(&mut command, vec![stdout, stderr, readiness])
            .map_err(|error| failed(&shown, error))?;
        // Starting it closes these ends here, so that the last one of them is its own.
        let running = children.start(command).map_err(|error| failed(&shown, error))?;
        let _ = File::from(ready).read(&mut [0]);
        Ok((Logger(running), [to_stdout, to_stderr]))
    }

    /// Waits for its end, which follows that of its input; after `patience` it is told to end, and later killed.
    pub(super) fn finish(&self, children: &Children, patience: Duration) {
        let pid = Pid::from_raw(self.0.pid);
        for signal in [Signal::TERM, Signal::KILL] {
            let deadline = Instant::now().checked_add(patience);
            while !children.has_ended(&self.0) && deadline.is_some_and(|deadline| Instant::now() < deadline) {
                std::thread::sleep(STEP);
            }
            if let Some(pid) = pid.filter(|_| !children.has_ended(&self.0)) {
                let _ = kill_process(pid, signal);
            }
        }
        children.wait(&self.0);
    }
}
