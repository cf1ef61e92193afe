//! Sessions, process groups and controlling terminals: job control.
//!
//! A terminal embeds a [`JobControl`] and calls its methods; the session points back at the terminal.
//! Source: credentials(7), tty_ioctl(4), `drivers/tty/tty_jobctrl.c`, setsid(2), setpgid(2).

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use moat_abi::cap::Cap;
use moat_abi::siginfo::{SI_KERNEL, SigInfo};
use moat_abi::signal::Signal;
use moat_abi::tty::{Termios2, Winsize};
use moat_abi::{Errno, Result};
use moat_host::tty::When;
use moat_sync::{LockClass, Mutex};
use moat_vfs::file::File;
use moat_vfs::inode::OpenContext;

use crate::kernel::kernel;
use crate::process::group::{GroupId, ThreadGroup};
use crate::process::pid::Pid;
use crate::signal::send::send_to_process;
use crate::task::CurrentTask;

/// A session.
pub struct Session {
    pid: Arc<Pid>,
    /// The process that made it.
    pub leader: GroupId,
    tty: Mutex<SessionTty>,
}

#[derive(Default)]
struct SessionTty {
    tty: Option<Arc<dyn Terminal>>,
    /// The foreground group when the terminal was hung up: it is told when the leader goes too.
    old_foreground: u64,
}

impl Session {
    /// The session that the process `leader`, whose pid is `pid`, founds.
    #[must_use]
    pub fn new(pid: Arc<Pid>, leader: GroupId) -> Arc<Session> {
        Arc::new(Session { pid, leader, tty: Mutex::new(LockClass::Process, SessionTty::default()) })
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

    /// The controlling terminal.
    #[must_use]
    pub fn tty(&self) -> Option<Arc<dyn Terminal>> {
        self.tty.lock().tty.clone()
    }

    fn set_tty(&self, tty: Option<Arc<dyn Terminal>>) -> Option<Arc<dyn Terminal>> {
        std::mem::replace(&mut self.tty.lock().tty, tty)
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

    /// Sends `info` to all members. The family must not be locked.
    pub fn send(&self, info: SigInfo) {
        let members = kernel().family.lock().members(self.id());
        for m in members {
            send_to_process(&m, info);
        }
    }
}

/// A terminal that can control a session.
pub trait Terminal: Send + Sync {
    /// Its job-control state.
    fn job_control(&self) -> &JobControl;
    /// `tty_nr` of /proc/PID/stat.
    fn device_number(&self) -> u64;
    /// Opens it anew, without making it anybody's controlling terminal: /dev/tty, /dev/console.
    ///
    /// # Errors
    /// EIO.
    fn open(self: Arc<Self>, ctx: &OpenContext<'_>) -> Result<Arc<dyn File>>;
    /// Its settings.
    ///
    /// # Errors
    /// EIO.
    fn termios(&self) -> Result<Termios2>;
    /// Changes its settings.
    ///
    /// # Errors
    /// EIO, EINTR.
    fn set_termios(&self, new: Termios2, when: When) -> Result<()>;
    /// The size of its window.
    ///
    /// # Errors
    /// EIO.
    fn winsize(&self) -> Result<Winsize>;
    /// Changes the size of its window; if that is a change, the foreground group gets SIGWINCH.
    ///
    /// # Errors
    /// EIO.
    fn set_winsize(&self, new: Winsize) -> Result<()>;
}

#[derive(Default)]
struct Control {
    session: Option<Weak<Session>>,
    foreground: u64,
}

/// The part of a terminal that knows sessions.
pub struct JobControl {
    state: Mutex<Control>,
}

impl Default for JobControl {
    fn default() -> Self {
        JobControl { state: Mutex::new(LockClass::Process, Control::default()) }
    }
}

/// What a background process wants of its terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtyAccess {
    /// To read: SIGTTIN.
    Read,
    /// To write with TOSTOP, or to change settings: SIGTTOU.
    Change,
}

/// The answer to [`JobControl::check`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TtyCheck {
    /// Go on.
    Allowed,
    /// EIO.
    Refused,
    /// A signal has been sent: the call ends with ERESTARTSYS.
    Signalled,
}

/// Whether TIOCSCTTY takes a terminal from another session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steal {
    /// Only a free terminal.
    No,
    /// With CAP_SYS_ADMIN, any.
    Yes,
}

fn own_pgrp(t: &CurrentTask) -> Result<Arc<ProcessGroup>> {
    kernel().family.lock().node(t.group.id).map(|n| n.pgrp.clone()).ok_or(Errno::ESRCH)
}

/// The controlling terminal of the caller's session.
#[must_use]
pub fn controlling_terminal(t: &CurrentTask) -> Option<Arc<dyn Terminal>> {
    own_pgrp(t).ok()?.session.tty()
}

impl JobControl {
    /// The session that it controls.
    #[must_use]
    pub fn session(&self) -> Option<Arc<Session>> {
        self.state.lock().session.as_ref().and_then(Weak::upgrade)
    }

    /// The foreground process group.
    #[must_use]
    pub fn foreground(&self) -> Option<Arc<ProcessGroup>> {
        let id = self.state.lock().foreground;
        kernel().family.lock().pgrp(id)
    }

    fn set(&self, session: Option<&Arc<Session>>, foreground: u64) {
        let mut s = self.state.lock();
        s.session = session.map(Arc::downgrade);
        s.foreground = foreground;
    }

    /// Makes `tty` the controlling terminal of the caller's session (TIOCSCTTY, and open(2) without O_NOCTTY).
    ///
    /// # Errors
    /// EPERM if the caller is no session leader, has a terminal already, or the terminal serves another session.
    pub fn acquire(tty: &Arc<dyn Terminal>, t: &CurrentTask, steal: Steal) -> Result<()> {
        let pgrp = own_pgrp(t)?;
        let session = &pgrp.session;
        let control = tty.job_control();
        let served = control.session();
        if session.leader == t.group.id && served.as_ref().is_some_and(|s| s.id() == session.id()) {
            return Ok(());
        }
        if session.leader != t.group.id || session.tty().is_some() {
            return Err(Errno::EPERM);
        }
        if let Some(other) = served {
            if steal == Steal::No || !t.creds().has_root_cap(Cap::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            other.set_tty(None);
        }
        control.set(Some(session), pgrp.id());
        session.set_tty(Some(tty.clone()));
        Ok(())
    }

    /// TIOCNOTTY: the caller gives its terminal up; a session leader takes it from the whole session.
    ///
    /// # Errors
    /// ENOTTY if `self` is not the caller's controlling terminal.
    pub fn release(&self, t: &CurrentTask) -> Result<()> {
        let session = own_pgrp(t)?.session.clone();
        if !self.controls(&session) {
            return Err(Errno::ENOTTY);
        }
        if session.leader == t.group.id {
            disassociate(&session, Leave::Asked);
        }
        Ok(())
    }

    fn controls(&self, session: &Session) -> bool {
        session.tty().is_some_and(|tty| std::ptr::addr_eq(tty.job_control(), self))
    }

    /// TIOCGPGRP: the foreground group in the caller's pid namespace.
    ///
    /// # Errors
    /// ENOTTY if `self` is not the caller's controlling terminal.
    pub fn get_foreground(&self, t: &CurrentTask) -> Result<i32> {
        if !self.controls(&own_pgrp(t)?.session) {
            return Err(Errno::ENOTTY);
        }
        Ok(self.foreground().map_or(0, |p| p.pid().number_in(&t.pid_ns())))
    }

    /// TIOCGSID: the session in the caller's pid namespace.
    ///
    /// # Errors
    /// ENOTTY if `self` is not the caller's controlling terminal.
    pub fn get_session(&self, t: &CurrentTask) -> Result<i32> {
        let session = own_pgrp(t)?.session.clone();
        if !self.controls(&session) {
            return Err(Errno::ENOTTY);
        }
        Ok(session.pid().number_in(&t.pid_ns()))
    }

    /// TIOCSPGRP, after [`JobControl::check`] with [`TtyAccess::Change`].
    ///
    /// # Errors
    /// ENOTTY; EINVAL for a negative id; ESRCH for no such group; EPERM for a group of another session.
    pub fn set_foreground(&self, t: &CurrentTask, pgrp: i32) -> Result<()> {
        let session = own_pgrp(t)?.session.clone();
        if !self.controls(&session) {
            return Err(Errno::ENOTTY);
        }
        if pgrp < 0 {
            return Err(Errno::EINVAL);
        }
        let pid = t.pid_ns().lookup(pgrp).ok_or(Errno::ESRCH)?;
        let group = kernel().family.lock().pgrp(pid.id).ok_or(Errno::ESRCH)?;
        if group.session.id() != session.id() {
            return Err(Errno::EPERM);
        }
        self.state.lock().foreground = group.id();
        Ok(())
    }

    /// Whether the caller may use its terminal at this moment (`__tty_check_change`).
    #[must_use]
    pub fn check(&self, t: &CurrentTask, access: TtyAccess) -> TtyCheck {
        let Ok(pgrp) = own_pgrp(t) else { return TtyCheck::Allowed };
        if !self.controls(&pgrp.session) {
            return TtyCheck::Allowed;
        }
        let foreground = self.state.lock().foreground;
        if foreground == pgrp.id() || foreground == 0 {
            return TtyCheck::Allowed;
        }
        let signal = if access == TtyAccess::Read { Signal::SIGTTIN } else { Signal::SIGTTOU };
        let ignored = t.blocked().contains(signal) || t.group.signals.lock().sighand.ignores(signal);
        if ignored {
            return if access == TtyAccess::Read { TtyCheck::Refused } else { TtyCheck::Allowed };
        }
        if kernel().family.lock().is_orphaned(&pgrp, None) {
            return TtyCheck::Refused;
        }
        pgrp.send(SigInfo::new(signal, SI_KERNEL));
        TtyCheck::Signalled
    }

    /// Sends `signal` to the foreground group: ^C, ^Z, a change of the window size. Must be called unlocked.
    pub fn signal_foreground(&self, signal: Signal) {
        if let Some(p) = self.foreground() {
            p.send(SigInfo::new(signal, SI_KERNEL));
        }
    }

    /// The other end is gone: SIGHUP and SIGCONT to the session leader, which loses the terminal (`__tty_hangup`).
    ///
    /// The foreground group gets them when the leader goes: it is up to that one to pass the news on before.
    pub fn hang_up(&self) {
        let Some(session) = self.session() else { return };
        let old_foreground = self.state.lock().foreground;
        let had = std::mem::replace(&mut *session.tty.lock(), SessionTty { tty: None, old_foreground });
        drop(had);
        self.set(None, 0);
        let leader = kernel().family.lock().node(session.leader).map(|n| n.group.clone());
        if let Some(l) = leader {
            send_to_process(&l, SigInfo::new(Signal::SIGHUP, SI_KERNEL));
            send_to_process(&l, SigInfo::new(Signal::SIGCONT, SI_KERNEL));
        }
    }
}

/// Why a session leader gives its terminal up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// TIOCNOTTY.
    Asked,
    /// It exits.
    Exits,
}

/// A session leader gives its terminal up (`disassociate_ctty`). The family must not be locked.
///
/// The foreground group hears of it. The terminal itself stays usable: a pty is not hung up by its session's end.
pub fn disassociate(session: &Arc<Session>, leave: Leave) {
    let had = std::mem::take(&mut *session.tty.lock());
    let (group, signals): (_, &[Signal]) = match (had.tty, leave) {
        (Some(tty), _) => {
            let control = tty.job_control();
            let foreground = control.foreground();
            control.set(None, 0);
            (foreground, if leave == Leave::Exits { &[Signal::SIGHUP] } else { &[Signal::SIGHUP, Signal::SIGCONT] })
        }
        (None, Leave::Exits) => (kernel().family.lock().pgrp(had.old_foreground), &[Signal::SIGHUP, Signal::SIGCONT]),
        (None, Leave::Asked) => return,
    };
    for signal in signals {
        if let Some(p) = &group {
            p.send(SigInfo::new(*signal, SI_KERNEL));
        }
    }
}

/// setsid(2).
///
/// # Errors
/// EPERM if the caller leads a process group.
pub fn set_sid(t: &CurrentTask) -> Result<i32> {
    let pid = t.group.pid().clone();
    let mut family = kernel().family.lock();
    if family.pgrp(pid.id).is_some() {
        return Err(Errno::EPERM);
    }
    let session = Session::new(pid.clone(), t.group.id);
    let pgrp = ProcessGroup::new(pid.clone(), session);
    family.change_pgrp(t.group.id, pgrp);
    Ok(pid.number())
}

/// setpgid(2).
///
/// # Errors
/// EINVAL, ESRCH, EACCES (the child has called execve), EPERM.
pub fn set_pgid(t: &CurrentTask, pid: i32, pgid: i32) -> Result<()> {
    let ns = t.pid_ns();
    let target = if pid == 0 { t.group.clone() } else { ns.process(pid).ok_or(Errno::ESRCH)? };
    let target_pid = if pid == 0 { t.group.pid().number_in(&ns) } else { pid };
    let pgid = if pgid == 0 { target_pid } else { pgid };
    if pgid < 0 {
        return Err(Errno::EINVAL);
    }
    let wanted = if pgid == target_pid { target.pid().clone() } else { ns.lookup(pgid).ok_or(Errno::EPERM)? };
    let mut family = kernel().family.lock();
    let own = family.session_of(t.group.id).ok_or(Errno::ESRCH)?;
    let node = family.node(target.id).ok_or(Errno::ESRCH)?;
    if target.id != t.group.id {
        if node.parent != Some(t.group.id) {
            return Err(Errno::ESRCH);
        }
        if node.pgrp.session.id() != own.id() {
            return Err(Errno::EPERM);
        }
        if target.did_exec.load(Ordering::Relaxed) {
            return Err(Errno::EACCES);
        }
    }
    if node.pgrp.session.leader == target.id {
        return Err(Errno::EPERM);
    }
    let pgrp = match family.pgrp(wanted.id) {
        Some(p) if p.session.id() == own.id() => p,
        Some(_) => return Err(Errno::EPERM),
        None if wanted.id == target.pid().id => ProcessGroup::new(wanted, own),
        None => return Err(Errno::EPERM),
    };
    family.change_pgrp(target.id, pgrp);
    Ok(())
}

/// What becomes stopped and orphaned when a process leaves its group gets SIGHUP and SIGCONT (`kill_orphaned_pgrp`).
///
/// The link that is lost was to a process of `parent`: only one of another group in the same session kept the group from
/// being orphaned. The family must not be locked.
pub fn hang_up_if_orphaned(pgrp: &Arc<ProcessGroup>, parent: Option<&Arc<ProcessGroup>>, leaving: Option<GroupId>) {
    if parent.is_none_or(|p| p.id() == pgrp.id() || p.session.id() != pgrp.session.id()) {
        return;
    }
    let members = {
        let family = kernel().family.lock();
        if !family.is_orphaned(pgrp, leaving) {
            return;
        }
        family.members(pgrp.id())
    };
    let stopped = |g: &Arc<ThreadGroup>| g.signals.lock().stop.complete;
    if members.iter().any(stopped) {
        pgrp.send(SigInfo::new(Signal::SIGHUP, SI_KERNEL));
        pgrp.send(SigInfo::new(Signal::SIGCONT, SI_KERNEL));
    }
}
