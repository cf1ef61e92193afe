//! [`Template`]: the host process that all processes of a container descend from, as the sandbox shows it.
//!
//! A sandbox knows no pid of the host and can't reach a cgroup; it passes a pidfd, and whoever made it puts the process
//! where the container's processes are to be, before there is another one.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use super::Sandbox;
use crate::Error;
use crate::error::{Context, Result};

/// A host process of a sandbox.
#[derive(Debug)]
pub(crate) struct Template {
    pidfd: OwnedFd,
    sandbox: i32,
}

impl Template {
    pub(super) fn new(pidfd: OwnedFd, sandbox: &Sandbox) -> Self {
        Template { pidfd, sandbox: sandbox.process.pid }
    }

    /// Does something to the process by its pid, which is then known to have been its own.
    ///
    /// # Errors
    /// Those of `act`; a descriptor of anything but a child of the sandbox process.
    pub(crate) fn act(&self, act: impl FnOnce(i32) -> Result<()>) -> Result<()> {
        let pid = self.pid()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"));
        let parent = status.ok().and_then(|text| number(&text, "PPid:"));
        // A number is given away again only when the process is gone, which its pidfd would tell.
        if parent != Some(self.sandbox) || self.pid()? != pid {
            return Err(Error::Invalid("the sandbox showed a process that is not its own".into()));
        }
        act(pid)?;
        if self.pid()? == pid { Ok(()) } else { Err(Error::State("the container's first process has ended".into())) }
    }

    /// Its pid as this process's /proc has it.
    fn pid(&self) -> Result<i32> {
        let path = format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd());
        let text = fs::read_to_string(&path).context(|| format!("reading {path}"))?;
        number(&text, "Pid:")
            .filter(|&pid| pid > 0)
            .ok_or_else(|| Error::Invalid("the sandbox showed no process that runs here".into()))
    }
}

fn number(text: &str, key: &str) -> Option<i32> {
    text.lines().find_map(|line| line.strip_prefix(key))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    fn template(pid: u32, sandbox: u32) -> Template {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        Template { pidfd, sandbox: i32::try_from(sandbox).unwrap() }
    }

    #[test]
    fn only_a_child_of_the_sandbox_is_touched() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let own = template(child.id(), std::process::id());
        let mut seen = 0;
        own.act(|pid| {
            seen = pid;
            Ok(())
        })
        .unwrap();
        assert_eq!(u32::try_from(seen), Ok(child.id()));
        let nobody_else = |_| panic!("touched");
        template(child.id(), std::process::id() + 1).act(nobody_else).unwrap_err();
        template(std::process::id(), std::process::id()).act(nobody_else).unwrap_err();
        let not_a_pidfd = Template { pidfd: fs::File::open("/dev/null").unwrap().into(), sandbox: own.sandbox };
        not_a_pidfd.act(nobody_else).unwrap_err();
        child.kill().unwrap();
        child.wait().unwrap();
        own.act(nobody_else).unwrap_err();
    }

    #[test]
    fn one_that_ends_meanwhile_is_an_error() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let own = template(child.id(), std::process::id());
        let ended = own.act(|_| {
            child.kill().unwrap();
            child.wait().unwrap();
            Ok(())
        });
        assert!(ended.is_err());
    }
}
