//! [`Kicker`]: a guest thread for others than its owner.
//!
//! A kick asks the thread to stop, and the guest can see to it that it doesn't (rt_sigreturn(2) through the stub with the
//! kick's signal blocked; an order that it never carries out). What must not fail acts on the host process, by its pidfd.

use std::sync::Arc;

use moat_platform::Kick;
use rustix::process::Signal;

use crate::state::HostThread;

pub(crate) struct Kicker {
    host: Arc<HostThread>,
    /// What a kept thread used for its owner before this one.
    before_ns: u64,
}

impl Kicker {
    /// For the owner that `host` has.
    pub(crate) fn new(host: &Arc<HostThread>) -> Kicker {
        Kicker { host: host.clone(), before_ns: host.last_cpu_time_ns() }
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.host.kick();
    }

    fn cpu_time_ns(&self) -> u64 {
        self.host.cpu_time_ns().saturating_sub(self.before_ns)
    }

    fn is_away(&self) -> bool {
        self.host.is_away()
    }

    fn end(&self) {
        if self.host.is_away() {
            self.host.space.kill();
        }
    }

    fn hold(&self) -> bool {
        if self.host.is_away() {
            self.host.space.signal(Signal::STOP);
        }
        true
    }

    fn release(&self) {
        self.host.space.signal(Signal::CONT);
    }
}
