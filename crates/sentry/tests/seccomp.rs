//! The sandbox process's seccomp filter, tried out in a child of the test.
//!
//! The test program runs itself with [`MODE`] set; that run goes under the filter and does what the mode says.

use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

use moat_control::SandboxSpec;

const MODE: &str = "MOAT_SECCOMP_TEST_MODE";
const SIGSYS: i32 = 31;

/// The child's part. Without [`MODE`] it is a test that passes.
#[test]
fn child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    rustix::thread::set_no_new_privs(true).unwrap();
    moat_sentry::boot::seccomp::install(&spec()).unwrap();
    let refused = match mode.as_str() {
        "thread" => std::thread::spawn(|| vec![1u8; 4 << 20].len()).join().unwrap() != 4 << 20,
        "exec" => Command::new("/bin/true").status().is_err(),
        "socket" => std::net::TcpStream::connect("127.0.0.1:9").is_err(),
        "open" => std::fs::File::open("/etc/passwd").is_err(),
        "mount" => rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty()).is_err(),
        other => panic!("unknown mode {other}"),
    };
    std::process::exit(i32::from(refused));
}

fn run(mode: &str) -> ExitStatus {
    let program = std::env::current_exe().unwrap();
    Command::new(program).args(["--exact", "child", "--test-threads=1"]).env(MODE, mode).status().unwrap()
}

#[test]
fn threads_and_memory_work() {
    assert_eq!(run("thread").code(), Some(0));
}

#[test]
fn what_an_attacker_wants_kills() {
    for mode in ["exec", "socket", "mount"] {
        assert_eq!(run(mode).signal(), Some(SIGSYS), "{mode}");
    }
}

/// It fails rather than kills: the C library looks for a file of /proc now and then.
#[test]
fn files_cannot_be_opened_by_path() {
    assert_eq!(run("open").code(), Some(1));
}

fn spec() -> SandboxSpec {
    let json = r#"{
        "version": 1, "id": "t", "hostname": "", "domainname": "", "platform": "systrap", "network": "none",
        "process": {"args": ["x"], "env": [], "cwd": "/", "uid": 0, "gid": 0, "additional_gids": [], "umask": null,
            "capabilities": {"effective": 0, "permitted": 0, "inheritable": 0, "bounding": 0, "ambient": 0},
            "rlimits": [], "no_new_privs": false, "oom_score_adj": null, "init": "protected", "terminal": false, "console_size": null},
        "root": {"backing": {"directory": 9}, "readonly": false, "overlay": "memory"},
        "mounts": [], "masked_paths": [], "readonly_paths": [], "sysctls": {}, "cpu_count": 1,
        "total_memory_bytes": 1, "lifetime": "attached",
        "logging": {"debug": false, "json": false, "strace": false, "strace_syscalls": [], "strace_log_size": 0},
        "fds": {"stdio": [0, 1, 2], "control": 3, "status": 4, "debug_log": null, "user_log": null}}"#;
    SandboxSpec::decode(json.as_bytes()).unwrap()
}
