//! A sandbox with nothing to do burns no CPU, also right after it was busy.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use moat_platform::conformance::Rig;
use moat_platform::{Event, Platform};
use moat_platform_systrap::Systrap;
use moat_sync::executor::{self, EventSource};

struct Source(Arc<Systrap>);

impl EventSource for Source {
    fn event_fd(&self) -> Option<BorrowedFd<'_>> {
        self.0.event_fd()
    }
    fn dispatch(&self) {
        self.0.dispatch();
    }
    fn spin(&self) -> bool {
        self.0.spin()
    }
}

/// User and system time of this process.
fn cpu_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(used.tv_sec.cast_unsigned(), u32::try_from(used.tv_nsec).expect("nanoseconds"))
}

#[test]
fn an_idle_sandbox_sleeps() {
    let platform = Arc::new(Systrap::new().expect("systrap starts"));
    executor::init().expect("executor");
    executor::set_source(Box::new(Source(platform.clone()))).expect("source");
    executor::spawn(async move {
        let rig = Rig::new(platform);
        let mut guest = rig.guest(&[0x0f, 0x05, 0xeb, 0xfc]).await; // 1: syscall; jmp 1b
        for _ in 0..2000 {
            let event = guest.go().await;
            assert!(matches!(event, Event::Syscall { .. }), "{event:?}");
            guest.thread.set_ret(1000);
        }
        // The guest now waits in a syscall for something that does not come.
        let before = cpu_time();
        moat_sync::timer::sleep_until(std::time::Instant::now() + Duration::from_millis(500)).await;
        let used = cpu_time() - before;
        executor::stop();
        assert!(used < Duration::from_millis(25), "{used:?} of 500 ms");
    });
    executor::run(1);
}
