//! [`JobControl`]: the part of a terminal that knows sessions. Source: tty_ioctl(4), `drivers/tty/tty_jobctrl.c`.
//!
//! A terminal embeds a [`JobControl`] and calls its methods; the session points back at the terminal.

mod persist;

use std::sync::{Arc, Weak};

use moat_abi::cap::Cap;
use moat_abi::siginfo::{SI_KERNEL, SigInfo};
use moat_abi::signal::Signal;
use moat_abi::{Errno, Result};
use moat_identity::session::JobMember;
use moat_identity::{Credentials, ProcessGroup, Session};
use moat_sync::{LockClass, Mutex};

use crate::terminal::Terminal;

pub use persist::{hung_up_foreground, lost, set_hung_up_foreground};

#[derive(Default)]
struct Control {
    session: Option<Weak<Session>>,
    /// The id of the foreground group, which stays when the group is gone; 0 for none.
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

/// The controlling terminal of a session.
#[derive(Default)]
struct SessionTty {
    tty: Option<Arc<dyn Terminal>>,
    /// The foreground group when the terminal was hung up: it is told when the leader goes too.
    old_foreground: u64,
}

struct SessionState(Mutex<SessionTty>);

fn state_of(session: &Session) -> Arc<SessionState> {
    session.extensions.get_or_init(|| SessionState(Mutex::new(LockClass::Process, SessionTty::default())))
}

/// The controlling terminal of a session.
#[must_use]
pub fn terminal_of(session: &Session) -> Option<Arc<dyn Terminal>> {
    session.extensions.get::<SessionState>()?.0.lock().tty.clone()
}

fn set_terminal(session: &Session, tty: Option<Arc<dyn Terminal>>) {
    let state = state_of(session);
    let had = std::mem::replace(&mut state.0.lock().tty, tty);
    // Dropped unlocked: it may be the last reference to a pty.
    drop(had);
}

/// The controlling terminal of the caller's session.
#[must_use]
pub fn controlling_terminal(t: &dyn JobMember) -> Option<Arc<dyn Terminal>> {
    terminal_of(&t.process_group().ok()?.session)
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
        let (session, id) = {
            let s = self.state.lock();
            (s.session.as_ref().and_then(Weak::upgrade)?, s.foreground)
        };
        session.process_group(id)
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
    pub fn acquire(tty: &Arc<dyn Terminal>, t: &dyn JobMember, creds: &Credentials, steal: Steal) -> Result<()> {
        let pgrp = t.process_group()?;
        let session = &pgrp.session;
        let control = tty.job_control();
        let served = control.session();
        let leads = session.is_led_by(t.process_pid());
        // It has it already.
        if leads && served.as_ref().is_some_and(|s| s.id() == session.id()) {
            return Ok(());
        }
        if !leads || terminal_of(session).is_some() {
            return Err(Errno::EPERM);
        }
        if let Some(other) = served {
            if steal == Steal::No || !creds.has_root_cap(Cap::SYS_ADMIN) {
                return Err(Errno::EPERM);
            }
            // The other session loses it without a signal.
            set_terminal(&other, None);
        }
        control.set(Some(session), pgrp.id());
        set_terminal(session, Some(tty.clone()));
        Ok(())
    }

    /// TIOCNOTTY: the caller gives its terminal up; a session leader takes it from the whole session.
    ///
    /// # Errors
    /// ENOTTY if `self` is not the caller's controlling terminal.
    pub fn release(&self, t: &dyn JobMember) -> Result<()> {
        let session = t.process_group()?.session.clone();
        if !self.controls(&session) {
            return Err(Errno::ENOTTY);
        }
        // The terminal is the session's: others have none of their own to give up.
        if session.is_led_by(t.process_pid()) {
            disassociate(&session, Leave::Asked);
        }
        Ok(())
    }

    fn controls(&self, session: &Session) -> bool {
        terminal_of(session).is_some_and(|tty| std::ptr::addr_eq(tty.job_control(), self))
    }

    /// TIOCGPGRP: the foreground group in the caller's pid namespace.
    ///
    /// # Errors
    /// ENOTTY if `self` is not the caller's controlling terminal.
    pub fn get_foreground(&self, t: &dyn JobMember) -> Result<i32> {
        if !self.controls(&t.process_group()?.session) {
            return Err(Errno::ENOTTY);
        }
        Ok(self.foreground().map_or(0, |p| p.pid().number_in(t.process_pid().namespace())))
    }

    /// TIOCGSID: the session in the caller's pid namespace.
    ///
    /// # Errors
    /// ENOTTY if `self` is not the caller's controlling terminal.
    pub fn get_session(&self, t: &dyn JobMember) -> Result<i32> {
        let session = t.process_group()?.session.clone();
        if !self.controls(&session) {
            return Err(Errno::ENOTTY);
        }
        Ok(session.pid().number_in(t.process_pid().namespace()))
    }

    /// TIOCSPGRP, after [`JobControl::check`] with [`TtyAccess::Change`].
    ///
    /// # Errors
    /// ENOTTY; EINVAL for a negative id; ESRCH for no such group; EPERM for a group of another session.
    pub fn set_foreground(&self, t: &dyn JobMember, pgrp: i32) -> Result<()> {
        let session = t.process_group()?.session.clone();
        if !self.controls(&session) {
            return Err(Errno::ENOTTY);
        }
        if pgrp < 0 {
            return Err(Errno::EINVAL);
        }
        let group = t.find_process_group(pgrp).ok_or(Errno::ESRCH)?;
        if group.session.id() != session.id() {
            return Err(Errno::EPERM);
        }
        self.state.lock().foreground = group.id();
        Ok(())
    }

    /// Whether the caller may use its terminal at this moment (`__tty_check_change`).
    #[must_use]
    pub fn check(&self, t: &dyn JobMember, access: TtyAccess) -> TtyCheck {
        let Ok(pgrp) = t.process_group() else { return TtyCheck::Allowed };
        if !self.controls(&pgrp.session) {
            return TtyCheck::Allowed;
        }
        let foreground = self.state.lock().foreground;
        // 0: without a foreground group nobody is in the background.
        if foreground == pgrp.id() || foreground == 0 {
            return TtyCheck::Allowed;
        }
        let signal = if access == TtyAccess::Read { Signal::SIGTTIN } else { Signal::SIGTTOU };
        if t.ignores(signal) {
            // A change goes ahead then; a read would never end (`__tty_check_change`).
            return if access == TtyAccess::Read { TtyCheck::Refused } else { TtyCheck::Allowed };
        }
        // Stopped, it could not be continued by anybody.
        if pgrp.is_orphaned() {
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
        let state = state_of(&session);
        let had = std::mem::replace(&mut *state.0.lock(), SessionTty { tty: None, old_foreground });
        drop(had);
        self.set(None, 0);
        session.signal_leader(SigInfo::new(Signal::SIGHUP, SI_KERNEL));
        session.signal_leader(SigInfo::new(Signal::SIGCONT, SI_KERNEL));
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

/// A session leader gives its terminal up (`disassociate_ctty`). The process tables must not be locked.
///
/// The foreground group is sent the signals. The terminal itself stays usable: a pty is not hung up by its session's end.
pub fn disassociate(session: &Arc<Session>, leave: Leave) {
    let Some(state) = session.extensions.get::<SessionState>() else { return };
    let had = std::mem::take(&mut *state.0.lock());
    let (group, signals): (_, &[Signal]) = match (had.tty, leave) {
        (Some(tty), _) => {
            let control = tty.job_control();
            let foreground = control.foreground();
            control.set(None, 0);
            // At an exit without SIGCONT, as `disassociate_ctty`.
            (foreground, if leave == Leave::Exits { &[Signal::SIGHUP] } else { &[Signal::SIGHUP, Signal::SIGCONT] })
        }
        (None, Leave::Exits) => (session.process_group(had.old_foreground), &[Signal::SIGHUP, Signal::SIGCONT]),
        (None, Leave::Asked) => return,
    };
    for signal in signals {
        if let Some(p) = &group {
            p.send(SigInfo::new(*signal, SI_KERNEL));
        }
    }
}
