//! The waiter: a small host process that stands for a process in a sandbox that has none of its own.
//!
//! Clients follow the host process whose pid is in a pid file: they signal it and reap it. A detached `exec`, and a
//! container that is not the first of its sandbox, get a waiter for that: this program, executed again with a control
//! connection. It passes on what signals it gets, and ends with the exit code of what it stands for. When a waiter of an
//! `exec` is killed, its connection closes, and with that the sandbox kills the process.
//!
//! With a terminal the waiter is the leader of the terminal's session, so that it gets the signals of ^C and of new sizes.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};

use moat_abi::{SigSet, Signal};
use moat_control::{Connection, Request, Response, SignalTarget};
use moat_host::signals;
use moat_host::spawn::{Credentials, Donation, Joins, Namespaces, ParentDeath, Spawn};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use crate::cgroup::Entrances;
use crate::error::{Context, Result};
use crate::process_id::ProcessId;
use crate::sandbox::{Link, c_strings, spawn_error};

/// `argv[0]` of a waiter.
pub const PROCESS_NAME: &str = "moat-waiter";

/// Exit code when the sandbox ended without a word: that of a process killed by SIGKILL.
const EXIT_KILLED: u8 = 137;

/// `si_code` of signals that come from the terminal.
const SI_KERNEL: i32 = 0x80;

/// What a waiter stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaiterTarget {
    /// The container.
    pub id: String,
    /// The process in it; its init if none.
    pub pid: Option<i32>,
}

impl WaiterTarget {
    fn wait_request(&self) -> Request {
        match self.pid {
            None => Request::Wait(self.id.clone()),
            Some(pid) => Request::WaitProcess { id: self.id.clone(), pid },
        }
    }

    fn signal_request(&self, signal: i32, code: i32) -> Request {
        let target = match (self.pid, code == SI_KERNEL) {
            (None, false) => SignalTarget::Init,
            (None, true) => SignalTarget::Foreground,
            (Some(pid), false) => SignalTarget::Process(pid),
            (Some(pid), true) => SignalTarget::ForegroundOf(pid),
        };
        Request::Signal { id: self.id.clone(), signal, target }
    }
}

/// Starts a waiter; `link` becomes its connection and `terminal` that of its session, and `entrances` lead to its cgroup.
///
/// `prepare` is called when its process exists but does not run yet. Returns when the waiter is ready for signals.
///
/// # Errors
/// Of clone(2); those of `prepare`.
pub(crate) fn start(
    target: &WaiterTarget,
    link: &Link,
    terminal: Option<OwnedFd>,
    entrances: &Entrances,
    prepare: impl FnOnce(ProcessId) -> Result<()>,
) -> Result<ProcessId> {
    let duplicate = |fd: &dyn AsFd| fd.as_fd().try_clone_to_owned().context(|| "duplicating a descriptor".into());
    let (ready, ready_write) = pipe_with(PipeFlags::CLOEXEC).context(|| "creating a pipe".into())?;
    let mut donation = Donation::default();
    // In the order in which `stand_for` claims them.
    donation.add(duplicate(link)?);
    donation.add(ready_write);
    let controlling_terminal = terminal.map(|terminal| donation.add(terminal));
    let mut args = vec![PROCESS_NAME.to_owned(), donation.len().to_string(), target.id.clone()];
    args.extend(target.pid.map(|pid| pid.to_string()));
    let mut id = None;
    let child = Spawn {
        args: &c_strings(args)?,
        env: &[],
        namespaces: Namespaces::empty(),
        joins: Joins::default(),
        id_maps: None,
        cgroups: entrances.for_spawn(),
        credentials: Credentials::Keep,
        controlling_terminal,
        // It outlives this command: clients wait for it.
        parent_death: ParentDeath::Ignore,
    }
    .run_prepared(donation, |pid| {
        let process = ProcessId::of(pid).context(|| "looking at the waiter".into())?;
        id = Some(process);
        prepare(process)
    })
    .map_err(spawn_error("starting a waiter"))?;
    // It says nothing, but closes its end when it is ready; so does the host if it dies.
    let _ = File::from(ready).read(&mut [0]);
    match (child.early_error(), id) {
        (None, Some(id)) => Ok(id),
        (error, _) => {
            Err(error.unwrap_or_else(|| std::io::ErrorKind::Other.into())).context(|| "starting a waiter".into())
        }
    }
}

/// The program of a waiter. `args` is argv after the name; gives the exit code.
pub fn main(args: impl Iterator<Item = OsString>) -> u8 {
    let _ = rustix::thread::set_name(c"moat-waiter");
    match parse(args).and_then(|(donated, target)| stand_for(donated, &target)) {
        Some(code) => code,
        None => EXIT_KILLED,
    }
}

fn parse(mut args: impl Iterator<Item = OsString>) -> Option<(usize, WaiterTarget)> {
    let donated = args.next()?.to_str()?.parse().ok()?;
    let id = args.next()?.into_string().ok()?;
    let pid = match args.next() {
        Some(pid) => Some(pid.to_str()?.parse().ok()?),
        None => None,
    };
    Some((donated, WaiterTarget { id, pid }))
}

fn stand_for(donated: usize, target: &WaiterTarget) -> Option<u8> {
    let mut fds = moat_host::inherited::claim(Donation::FIRST, donated).ok()?.into_iter();
    let connection = Connection::new(fds.next()?);
    let ready = fds.next()?;
    // The terminal belongs to the session without being open; open here it would outlive those who use it.
    drop(fds);
    // Before it says that it is ready: from then on no signal may end it, or be lost.
    let all = SigSet::EMPTY.complement();
    signals::set_mask(all).ok()?;
    let signals = signals::signalfd(all).ok()?;
    drop(ready);
    // The sandbox sees to it that this process ends before the one that stands for the container's init.
    let own = target.pid.and_then(|_| pidfd_open(getpid(), PidfdFlags::empty()).ok());
    let own: Vec<_> = own.iter().map(AsFd::as_fd).collect();
    connection.send_request(&target.wait_request(), &own).ok()?;
    loop {
        let mut fds = [PollFd::new(&connection, PollFlags::IN), PollFd::new(&signals, PollFlags::IN)];
        match poll(&mut fds, None) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.ok()?,
        };
        let [answered, signalled] = fds.map(|fd| !fd.revents().is_empty());
        if signalled {
            pass_on(&signals, &connection, target);
        }
        if answered {
            // Others are the answers to signals.
            if let Response::Exited(status) = connection.next_response().ok()?? {
                return Some(status.shell_code());
            }
        }
    }
}

fn pass_on(signals: &OwnedFd, connection: &Connection, target: &WaiterTarget) {
    while let Ok(info) = signals::read_signalfd(signals.as_fd()) {
        let Ok(signal) = i32::try_from(info.ssi_signo) else { continue };
        // SIGCHLD tells of this process's own children.
        if signal != Signal::SIGCHLD.number() {
            // If it can't be sent the sandbox is ending.
            let _ = connection.post(&target.signal_request(signal, info.ssi_code));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let parse = |args: &[&str]| parse(args.iter().map(OsString::from));
        assert_eq!(parse(&["2", "c"]), Some((2, WaiterTarget { id: "c".into(), pid: None })));
        assert_eq!(parse(&["3", "c", "7"]), Some((3, WaiterTarget { id: "c".into(), pid: Some(7) })));
        assert!(parse(&["x", "c"]).is_none() && parse(&["2", "c", "x"]).is_none() && parse(&["2"]).is_none());
    }

    #[test]
    fn signals_of_the_terminal_go_to_the_foreground() {
        let target = |pid, code| {
            let Request::Signal { target, .. } = (WaiterTarget { id: "c".into(), pid }).signal_request(2, code) else {
                panic!("no signal")
            };
            target
        };
        assert_eq!(target(None, 0), SignalTarget::Init);
        assert_eq!(target(None, SI_KERNEL), SignalTarget::Foreground);
        assert_eq!(target(Some(7), 0), SignalTarget::Process(7));
        assert_eq!(target(Some(7), SI_KERNEL), SignalTarget::ForegroundOf(7));
    }
}
