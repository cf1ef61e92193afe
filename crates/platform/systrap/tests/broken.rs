//! The host kills the template: a loss of service, not a hang and not a busy loop.

use std::sync::Arc;
use std::time::Duration;

use moat_platform::Platform;
use moat_platform::conformance::Rig;
use moat_platform_systrap::Systrap;

/// The children of this process, oldest first.
fn children() -> Vec<i32> {
    let text = std::fs::read_to_string("/proc/thread-self/children").expect("children");
    text.split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

#[test]
fn death_of_the_template_is_an_error() {
    let platform: Arc<dyn Platform> = Arc::new(Systrap::new().expect("systrap starts"));
    let rig = Rig::new(platform.clone());
    let guest = rig.run(rig.guest(&[0x0f, 0x05]));
    let all = children();
    let template = rustix::process::Pid::from_raw(*all.first().expect("the template")).expect("a pid");
    assert_ne!(template.as_raw_nonzero().get(), guest.space.host_pid());
    rustix::process::kill_process(template, rustix::process::Signal::KILL).expect("kill");
    rig.dispatch_for(Duration::from_millis(50));
    // What is at hand is handed out, then there is an error.
    let mut guests = vec![guest.space];
    let error = rig.run(async {
        loop {
            match platform.stock().new_process().await {
                Ok(new) => guests.push(new.space),
                Err(errno) => break errno,
            }
            assert!(guests.len() < 8);
        }
    });
    assert_eq!(error, moat_abi::Errno::ESRCH);
    drop(guests);
    let mut looks = 0..2500;
    while platform.event_fd().is_some() {
        assert!(looks.next().is_some(), "a hung-up descriptor is still to be polled");
        std::thread::sleep(Duration::from_millis(2));
    }
}
