//! Whose terminal it is, in an image and out of it.

use std::sync::Arc;

use moat_abi::siginfo::{SI_KERNEL, SigInfo};
use moat_abi::signal::Signal;
use moat_identity::{PidNamespace, Session};
use moat_image::ImageError;
use moat_image::state::ForegroundState;

use super::{JobControl, SessionTty, state_of, terminal_of};
use crate::terminal::Terminal;

/// No process group has this id.
const GONE: u64 = u64::MAX;

impl JobControl {
    /// Who is in the foreground, by the number in `ns`.
    #[must_use]
    pub fn save_foreground(&self, ns: &PidNamespace) -> ForegroundState {
        if self.state.lock().foreground == 0 {
            return ForegroundState::None;
        }
        // The id stays when the group is gone: all others are in the background then.
        self.foreground().map_or(ForegroundState::Gone, |group| ForegroundState::Group(group.pid().number_in(ns)))
    }

    /// Makes `tty` the controlling terminal of `session` as it was.
    ///
    /// # Errors
    /// One of the two has another; a foreground group that is not there.
    pub fn restore(
        tty: &Arc<dyn Terminal>,
        session: &Arc<Session>,
        foreground: ForegroundState,
        find: impl Fn(i32) -> Option<u64>,
    ) -> Result<(), ImageError> {
        let control = tty.job_control();
        if control.session().is_some() || terminal_of(session).is_some() {
            return Err(ImageError::state("a terminal of two sessions"));
        }
        let foreground = match foreground {
            ForegroundState::None => 0,
            ForegroundState::Gone => GONE,
            ForegroundState::Group(number) => {
                let id = find(number).filter(|id| session.process_group(*id).is_some());
                id.ok_or_else(|| ImageError::state(format!("the foreground process group {number}")))?
            }
        };
        control.set(Some(session), foreground);
        super::set_terminal(session, Some(tty.clone()));
        Ok(())
    }
}

/// The group that was in the foreground when the session's terminal was hung up, by its number in `ns`.
#[must_use]
pub fn hung_up_foreground(session: &Session, ns: &PidNamespace) -> Option<i32> {
    let state = session.extensions.get::<super::SessionState>()?;
    let old = state.0.lock().old_foreground;
    session.process_group(old).map(|group| group.pid().number_in(ns))
}

/// Takes the terminal, which is gone, from a session whose `foreground` group is this: its leader is told, and the group when that one
/// ends, as of any hang-up.
pub fn lost(session: &Arc<Session>, foreground: Option<u64>) {
    set_hung_up_foreground(session, foreground.unwrap_or_default());
    session.signal_leader(SigInfo::new(Signal::SIGHUP, SI_KERNEL));
    session.signal_leader(SigInfo::new(Signal::SIGCONT, SI_KERNEL));
}

/// Says which group was in the foreground when the session's terminal was hung up.
pub fn set_hung_up_foreground(session: &Session, group: u64) {
    let state = state_of(session);
    let mut state = state.0.lock();
    // There is none to be dropped: the terminal is gone.
    if state.tty.is_none() {
        *state = SessionTty { tty: None, old_foreground: group };
    }
}
