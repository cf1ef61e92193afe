//! [`ProcessGroup`] and [`Session`]: what job control groups processes by. Source: credentials(7), setpgid(2), setsid(2).

use std::sync::{Arc, Weak};

use moat_abi::Result;
use moat_abi::siginfo::SigInfo;
use moat_abi::signal::Signal;

use crate::extensions::Extensions;
use crate::pid::Pid;

/// The kernel's side of job control: it knows the members of groups, and how to send them signals.
///
/// The methods take the locks of the process tables: no lock of a terminal or a process may be held.
pub trait JobSignals: Send + Sync {
    /// Sends `info` to all members of a process group.
    fn signal_group(&self, group: &ProcessGroup, info: SigInfo);

    /// Sends `info` to the process that leads a session, if it lives.
    fn signal_leader(&self, session: &Session, info: SigInfo);

    /// The process group with this id, if it has members.
    fn process_group(&self, id: u64) -> Option<Arc<ProcessGroup>>;

    /// Whether no living member of the group has a parent in another group of the same session
    /// (`is_current_pgrp_orphaned`).
    fn is_orphaned(&self, group: &ProcessGroup) -> bool;
}

/// The calling task as a member of a process group: what a terminal asks before it serves it.
pub trait JobMember {
    /// The pid of its process.
    fn process_pid(&self) -> &Arc<Pid>;

    /// The process group of its process.
    ///
    /// # Errors
    /// ESRCH for a process that has been reaped.
    fn process_group(&self) -> Result<Arc<ProcessGroup>>;

    /// The process group that has this number in its pid namespace, if it has members.
    fn find_process_group(&self, number: i32) -> Option<Arc<ProcessGroup>>;

    /// Whether it blocks or ignores `signal`.
    fn ignores(&self, signal: Signal) -> bool;
}

/// A session.
pub struct Session {
    pid: Arc<Pid>,
    signals: Weak<dyn JobSignals>,
    /// What subsystems keep with it: its controlling terminal.
    pub extensions: Extensions,
}

impl Session {
    /// The session that the process named `pid` founds and leads.
    #[must_use]
    pub fn new(pid: Arc<Pid>, signals: Weak<dyn JobSignals>) -> Arc<Session> {
        Arc::new(Session { pid, signals, extensions: Extensions::default() })
    }

    /// Names it inside the sentry.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.pid.id
    }

    /// The pid that names it: that of its leader.
    #[must_use]
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }

    /// Whether the process named `pid` leads it.
    #[must_use]
    pub fn is_led_by(&self, pid: &Pid) -> bool {
        self.pid.id == pid.id
    }

    /// The process group with this id, if it has members; see [`JobSignals`] for locks.
    #[must_use]
    pub fn process_group(&self, id: u64) -> Option<Arc<ProcessGroup>> {
        self.signals.upgrade()?.process_group(id)
    }

    /// Sends `info` to its leader; see [`JobSignals`] for locks.
    pub fn signal_leader(&self, info: SigInfo) {
        if let Some(signals) = self.signals.upgrade() {
            signals.signal_leader(self, info);
        }
    }
}

/// A process group.
pub struct ProcessGroup {
    pid: Arc<Pid>,
    /// Its session.
    pub session: Arc<Session>,
}

impl ProcessGroup {
    /// The group named `pid` in `session`.
    #[must_use]
    pub fn new(pid: Arc<Pid>, session: Arc<Session>) -> Arc<ProcessGroup> {
        Arc::new(ProcessGroup { pid, session })
    }

    /// Names it inside the sentry.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.pid.id
    }

    /// The pid that names it.
    #[must_use]
    pub fn pid(&self) -> &Arc<Pid> {
        &self.pid
    }

    /// Sends `info` to all members; see [`JobSignals`] for locks.
    pub fn send(&self, info: SigInfo) {
        if let Some(signals) = self.session.signals.upgrade() {
            signals.signal_group(self, info);
        }
    }

    /// Whether nobody is left who could continue it if it stops; see [`JobSignals`] for locks.
    #[must_use]
    pub fn is_orphaned(&self) -> bool {
        self.session.signals.upgrade().is_none_or(|signals| signals.is_orphaned(self))
    }
}
