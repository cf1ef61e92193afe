//! A guest thread for those that are not its owner: [`HostThread::kicker`].

use std::sync::Arc;

use moat_platform::{Answers, Kick};

use crate::state::HostThread;

/// A guest thread for others than its owner. A kick asks the thread to stop, and the guest can see to it that it doesn't: what must
/// not fail acts on the host process.
struct Kicker {
    host: Arc<HostThread>,
    /// What a kept thread used for its owner before this one.
    before_ns: u64,
}

impl HostThread {
    /// For the owner that it has.
    pub fn kicker(self: &Arc<Self>) -> Arc<dyn Kick> {
        Arc::new(Kicker { host: self.clone(), before_ns: self.last_cpu_time_ns() })
    }
}

impl Kick for Kicker {
    fn kick(&self) {
        self.host.kick();
    }

    fn cpu_time_ns(&self) -> u64 {
        self.host.cpu_time_ns().saturating_sub(self.before_ns)
    }

    fn forget(&self) {
        self.host.area.write_answers(&Answers::default());
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
            self.host.space.signal(rustix::process::Signal::STOP);
        }
        true
    }

    fn release(&self) {
        self.host.space.signal(rustix::process::Signal::CONT);
    }
}
