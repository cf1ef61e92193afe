//! Calls that the filter leaves to the sentry: let through if this thread was told to make them, and then only.

use std::os::fd::AsFd;

use moat_abi::Errno;
use moat_host::seccomp::{Answer, Notification};

use super::{HostThread, Phase};
use crate::births::CloneStage;
use crate::call::{Effect, take_expected};
use crate::space::Stage;

impl HostThread {
    /// The thread makes a call that the filter leaves to the sentry.
    pub fn called(&self, n: &Notification) {
        self.complete();
        let mut s = self.state.lock();
        let call =
            if matches!(s.phase, Phase::Running | Phase::Ordered) { take_expected(&mut s.expected, n) } else { None };
        drop(s);
        let Some(call) = call else {
            // Not what it was told: a guest that tries the stub's system calls on its own.
            self.space.kill();
            return;
        };
        let refused = match call.effect {
            Effect::None | Effect::Map(_) | Effect::Spawn(_) => false,
            Effect::Protect(slot) => self.space.stage(slot) == Some(Stage::Listed),
            Effect::Fork(_) => !self.space.all_protected(),
        };
        let answer = if refused {
            Answer::Fail(Errno::EAGAIN)
        } else if let Some((fd, number)) = &call.fd {
            match self.core.listener.add_fd(n.id, fd.as_fd(), *number) {
                Ok(()) => Answer::Continue,
                Err(errno) => Answer::Fail(errno),
            }
        } else {
            Answer::Continue
        };
        if !refused && matches!(call.effect, Effect::Map(_) | Effect::Protect(_)) {
            self.state.lock().in_flight.push(call.effect);
        }
        if let (false, Effect::Fork(token) | Effect::Spawn(token)) = (refused, call.effect) {
            self.core.births.reached(token, CloneStage::Allowed);
        }
        // The caller may be gone; its end is noticed elsewhere.
        let _ = self.core.listener.answer(n.id, answer);
    }

    /// This thread has made another notification: the calls allowed before are complete.
    pub(super) fn complete(&self) {
        let mut s = self.state.lock();
        if s.in_flight.is_empty() {
            return;
        }
        let effects = std::mem::take(&mut s.in_flight);
        drop(s);
        for effect in effects {
            match effect {
                Effect::Map(slot) => self.space.set_stage(slot, Stage::Mapped),
                Effect::Protect(slot) => self.space.set_stage(slot, Stage::Protected),
                Effect::None | Effect::Fork(_) | Effect::Spawn(_) => {}
            }
        }
    }
}
