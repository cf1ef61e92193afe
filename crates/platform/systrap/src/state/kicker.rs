//! A guest thread for those that are not its owner: [`HostThread::kicker`]; and its parcel, for whoever carries out its call.

use std::sync::Arc;

use moat_host::clock;
use moat_platform::{Answers, Kick, ParcelMemory};
use moat_stub::layout::{PARCEL, PARCEL_LEN};

use crate::state::HostThread;

/// A guest thread for others than its owner. A kick asks the thread to stop, and the guest can see to it that it doesn't: what must
/// not fail acts on the host process.
struct Kicker {
    host: Arc<HostThread>,
    /// What a kept thread used for its owner before this one.
    before_ns: u64,
}

impl HostThread {
    /// CPU time of the host thread since it was made, in nanoseconds.
    pub fn cpu_time_ns(&self) -> u64 {
        let now = match self.is_dead() {
            true => None,
            // The process's clock is the thread's.
            false if self.tid == self.space.pid && self.space.is_single() => clock::process_cpu_ns(self.tid),
            false => self.cpu_time.by_file(self.tid, &self.core.open_times),
        };
        self.cpu_time.note(now)
    }

    /// For the owner that it has.
    pub fn kicker(self: &Arc<Self>) -> Arc<dyn Kick> {
        Arc::new(Kicker { host: self.clone(), before_ns: self.cpu_time.last_ns() })
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

    fn rests(&self) -> bool {
        self.host.rests()
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

impl ParcelMemory for HostThread {
    fn capacity(&self) -> usize {
        usize::try_from(PARCEL_LEN).unwrap_or(0)
    }

    fn read(&self, at: usize, buf: &mut [u8]) {
        self.area.read_unaligned(PARCEL, at, buf);
    }

    fn write(&self, at: usize, bytes: &[u8]) {
        self.area.write_unaligned(PARCEL, at, bytes);
    }
}
