//! The terminal of a detached sandbox.

use moat_control::spec::{HostNodes, Lifetime, PlatformKind};
use moat_runtime::adhoc::{self, blueprint};
use moat_runtime::sandbox::{InitFiles, SandboxFiles, Terminal};
use moat_runtime::{ChildSandbox, Config};

/// A detached sandbox has a terminal of its own, whose signals are the guest's.
pub(crate) fn console(platform: PlatformKind) {
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&master).unwrap();
    rustix::pty::unlockpt(&master).unwrap();
    let name = rustix::pty::ptsname(&master, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let slave = || rustix::fs::open(name.as_c_str(), flags, rustix::fs::Mode::empty()).unwrap();
    let script = "trap 'stty size' WINCH; trap 'echo int' INT; trap 'exit 9' HUP; tty; sh -c 'sleep 1000' & echo ready; \
                  while :; do sleep 0.01; done";
    let request = adhoc::Request {
        args: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: Vec::new(),
        cwd: Some("/".into()),
        root: "/".into(),
        uid: 0,
        gid: 0,
        volumes: Vec::new(),
        terminal: true,
        host_nodes: HostNodes::default(),
    };
    let mut blueprint = blueprint(request).unwrap();
    blueprint.lifetime = Lifetime::Detached;
    blueprint.process.console_size = Some((30, 90));
    let stdio = InitFiles { stdio: [slave(), slave(), slave()], preserved: Vec::new(), terminal: Terminal::Own };
    let files = SandboxFiles { stdio, listener: None, debug_log: None, panic_log: None, user_log: None };
    let config = Config { platform, ..Config::default() };
    let sandbox = ChildSandbox::start(&config, blueprint, files, None, |_| Ok(())).unwrap();
    sandbox.start_root().unwrap();
    let expect = |wanted: &str| {
        let mut text = String::new();
        // Ten seconds in which nothing comes.
        let mut silent = 0;
        while !text.contains(wanted) && silent < 10 {
            let mut fds = [rustix::event::PollFd::new(&master, rustix::event::PollFlags::IN)];
            let limit = rustix::event::Timespec { tv_sec: 1, tv_nsec: 0 };
            if rustix::event::poll(&mut fds, Some(&limit)).unwrap() > 0 {
                let mut bytes = [0; 1024];
                let n = rustix::io::read(&master, &mut bytes).unwrap();
                text += &String::from_utf8_lossy(&bytes[..n]);
                silent = 0;
            } else {
                silent += 1;
            }
        }
        assert!(text.contains(wanted), "{wanted:?} in {text:?}");
    };
    expect("/dev/pts/0\r\nready\r\n");
    let mut size = rustix::termios::tcgetwinsize(&master).unwrap();
    assert_eq!((size.ws_row, size.ws_col), (30, 90));
    size.ws_row = 33;
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    expect("33 90\r\n");
    rustix::io::write(&master, b"\x03").unwrap();
    expect("int\r\n");
    let pid = rustix::process::Pid::from_raw(sandbox.pid()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    expect("int\r\n");
    drop(master);
    let (_, status) = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).unwrap().unwrap();
    assert_eq!(status.exit_status(), Some(9));
}
