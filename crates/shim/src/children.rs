//! [`Children`]: the only place that reaps.
//!
//! The shim is the parent of the commands that it runs and, as a subreaper, of what those leave behind: sandboxes and waiters. One
//! thread waits for all of them; whoever has started a command is given its end, and the ends of others go to whom [`Children::reap`] was told.

use std::collections::HashMap;
use std::io;
use std::process::Command;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustix::process::{WaitOptions, WaitStatus, wait};

/// What is added to the number of a deadly signal, as shells do.
const SIGNALLED: u32 = 128;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) status: u32,
    pub(crate) at: SystemTime,
}

impl Exit {
    /// That of a process that nobody knows more of than that it is gone.
    pub(crate) fn killed() -> Self {
        Exit { status: 137, at: SystemTime::now() }
    }

    fn of(status: WaitStatus) -> Self {
        let number = |n: i32| u32::try_from(n).unwrap_or(0);
        let status = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => number(code),
            (None, Some(signal)) => number(signal).saturating_add(SIGNALLED),
            (None, None) => 0,
        };
        Exit { status, at: SystemTime::now() }
    }
}

/// The children of this process.
#[derive(Debug, Default)]
pub(crate) struct Children {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Table {
    /// Commands that somebody waits for, and their ends.
    commands: HashMap<i32, Option<Exit>>,
    /// How many were started.
    started: u64,
}

/// A command that runs.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) pid: i32,
}

impl Children {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a command. What it was given of descriptors is closed here when this returns.
    ///
    /// # Errors
    /// Of fork(2) and execve(2).
    pub(crate) fn start(&self, mut command: Command) -> io::Result<Running> {
        // Its end can't be taken for somebody else's: the reaper needs the table for that.
        let mut table = self.table();
        let pid = i32::try_from(command.spawn()?.id()).unwrap_or(0);
        table.commands.insert(pid, None);
        table.started = table.started.wrapping_add(1);
        self.changed.notify_all();
        Ok(Running { pid })
    }

    /// Waits for a command.
    pub(crate) fn wait(&self, running: &Running) -> Exit {
        let mut table = self.table();
        loop {
            match table.commands.get(&running.pid) {
                Some(None) => table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner),
                Some(Some(exit)) => {
                    let exit = *exit;
                    table.commands.remove(&running.pid);
                    return exit;
                }
                None => return Exit::killed(),
            }
        }
    }

    /// Whether a command has ended.
    pub(crate) fn has_ended(&self, running: &Running) -> bool {
        self.table().commands.get(&running.pid).is_none_or(Option::is_some)
    }

    /// Reaps for ever; `orphan` is told of all ends that are no command's.
    pub(crate) fn reap(&self, orphan: impl Fn(i32, Exit)) {
        loop {
            let started = self.table().started;
            match wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) => {
                    let (pid, exit) = (pid.as_raw_nonzero().get(), Exit::of(status));
                    let mut table = self.table();
                    if let Some(end) = table.commands.get_mut(&pid) {
                        *end = Some(exit);
                        self.changed.notify_all();
                    } else {
                        drop(table);
                        orphan(pid, exit);
                    }
                }
                // No children: there will be some only when another command has been started.
                Err(rustix::io::Errno::CHILD) => {
                    let mut table = self.table();
                    while table.started == started {
                        table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                    }
                }
                _ => {}
            }
        }
    }
}
