//! [`ProcessId`]: a host process that can't be mistaken for a later one with the same number.

use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use moat_abi::Signal;
use moat_host::signals;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::{Deserialize, Serialize};

/// A host process, which may have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its pid.
    pub pid: i32,
    /// When it started, in clock ticks after the host did: field 22 of /proc/PID/stat.
    pub start_time: u64,
}

/// What /proc/PID/stat says.
struct Stat {
    state: char,
    start_time: u64,
}

impl ProcessId {
    /// The process that has this pid now.
    ///
    /// # Errors
    /// NotFound if there is none.
    pub fn of(pid: i32) -> io::Result<Self> {
        Ok(ProcessId { pid, start_time: read_stat(pid)?.start_time })
    }

    /// Whether it runs; a zombie does not.
    #[must_use]
    pub fn is_alive(self) -> bool {
        read_stat(self.pid).is_ok_and(|stat| stat.start_time == self.start_time && !matches!(stat.state, 'Z' | 'X'))
    }

    /// Waits until its parent has taken notice of its end, or until `patience` is over.
    pub fn wait_reaped(self, patience: Duration) {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline && read_stat(self.pid).is_ok_and(|stat| stat.start_time == self.start_time) {
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Sends it a signal; an ended process needs none.
    ///
    /// # Errors
    /// EPERM.
    pub fn signal(self, signal: Signal) -> io::Result<()> {
        let Some(pidfd) = self.pidfd()? else { return Ok(()) };
        match signals::pidfd_send_signal(pidfd.as_fd(), signal) {
            // It has ended since.
            Err(moat_abi::Errno::ESRCH) | Ok(()) => Ok(()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno.raw())),
        }
    }

    /// Kills it and waits until it has ended, or until `patience` is over.
    ///
    /// # Errors
    /// EPERM; TimedOut.
    pub fn kill(self, patience: Duration) -> io::Result<()> {
        self.signal(Signal::SIGKILL)?;
        if self.wait(Some(patience))? { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) }
    }

    /// Waits for its end, for ever if no limit is given; false if the time was over first.
    ///
    /// # Errors
    /// Of poll(2).
    pub fn wait(self, limit: Option<Duration>) -> io::Result<bool> {
        let Some(pidfd) = self.pidfd()? else { return Ok(true) };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        loop {
            // A pidfd is readable when its process is a zombie, too.
            match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], limit.as_ref()) {
                Err(rustix::io::Errno::INTR) => {}
                other => return Ok(other? > 0),
            }
        }
    }

    /// `None` if it has ended.
    fn pidfd(self) -> io::Result<Option<std::os::fd::OwnedFd>> {
        let Some(pid) = Pid::from_raw(self.pid) else { return Ok(None) };
        match pidfd_open(pid, PidfdFlags::empty()) {
            // The pidfd holds whoever has the number; looked at afterwards, it is known to be the right one.
            Ok(pidfd) => Ok(self.is_alive().then_some(pidfd)),
            // EINVAL: by now the number is one of a thread.
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::INVAL) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

fn read_stat(pid: i32) -> io::Result<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn parse_stat(text: &str) -> Option<Stat> {
    // comm, in parentheses, may have anything in it.
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // The state is field 3.
    let start_time = fields.nth(22 - 4)?.parse().ok()?;
    Some(Stat { state, start_time })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_strange_name() {
        let stat = parse_stat("7 (a) b) S 1 7 7 0 -1 4 1 0 0 0 0 0 0 0 20 0 1 0 4242 3 4 5").unwrap();
        assert_eq!((stat.state, stat.start_time), ('S', 4242));
        assert!(parse_stat("7 (x) S 1").is_none());
    }

    #[test]
    fn alive_until_killed_and_never_another() {
        let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(id.is_alive());
        assert!(!id.wait(Some(Duration::ZERO)).unwrap());
        let impostor = ProcessId { start_time: id.start_time + 1, ..id };
        assert!(!impostor.is_alive());
        impostor.kill(Duration::from_secs(5)).unwrap();
        assert!(id.is_alive());
        id.kill(Duration::from_secs(5)).unwrap();
        assert!(!id.is_alive(), "a zombie does not count");
        child.wait().unwrap();
        assert!(ProcessId::of(id.pid).is_err());
    }
}
