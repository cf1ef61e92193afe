//! The monotonic clocks of a restored sandbox go on from where they were, on this host or on one that has run for less or longer.
//!
//! `restored_clocks.c` says what they show. Takes root, and a host with time_namespaces(7); says so where it has to be skipped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use moat_image::ClockState;
use moat_image::directory::{self, Image};
use moat_image::header::{self, KERNEL};
use serde_json::json;

/// Between a checkpoint and its restore.
const PAUSE: Duration = Duration::from_millis(700);
/// What the commands themselves take at most, on a busy machine.
const SLACK_MS: i64 = 10_000;

/// A bundle with the program, and an image beside it; removed with the value.
struct Bundle {
    directory: PathBuf,
    platform: &'static str,
}

impl Bundle {
    fn new(platform: &'static str) -> Bundle {
        let directory = std::env::temp_dir().join(format!("moat-clocks-{platform}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
        fs::create_dir_all(directory.join("bundle/rootfs/proc")).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/restored_clocks.c");
        let program = directory.join("bundle/rootfs/program");
        assert!(
            Command::new("cc").args(["-O1", "-static", "-o"]).args([&program, &source]).status().unwrap().success()
        );
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/program"], "cwd": "/"},
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "network"}]},
        });
        fs::write(directory.join("bundle/config.json"), config.to_string()).unwrap();
        Bundle { directory, platform }
    }

    fn path(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    fn moat(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
        command.args([
            "--root",
            &self.path("state"),
            "--network=none",
            "--ignore-cgroups",
            "--platform",
            self.platform,
        ]);
        command.args(arguments);
        command
    }

    fn run(&self) -> Running {
        Running::start(&mut self.moat(&["run", "--bundle", &self.path("bundle"), "c"]))
    }

    fn restore(&self) -> Command {
        self.moat(&["restore", "--image-path", &self.path("image"), "--bundle", &self.path("bundle"), "c"])
    }

    /// Saves the container, which ends.
    fn save(&self, mut running: Running) {
        let _ = fs::remove_dir_all(self.path("image"));
        let status = self.moat(&["checkpoint", "--image-path", &self.path("image"), "c"]).status();
        assert!(status.unwrap().success());
        running.child.wait().unwrap();
    }

    /// Changes the clocks of the image.
    fn change(&self, change: impl FnOnce(&mut ClockState)) {
        let place = self.directory.join("image");
        let Image { mut header, mut state, .. } = Image::read(directory::open(&place).unwrap()).unwrap();
        change(&mut state.clocks);
        header.clocks = Some(state.clocks);
        let file = header::encode(header, &[(KERNEL, state.encode().unwrap())]).unwrap();
        fs::write(place.join(directory::STATE), file).unwrap();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.moat(&["delete", "--force", "c"]).stderr(Stdio::null()).status();
        let _ = fs::remove_dir_all(&self.directory);
    }
}

struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

/// What the program has said, in milliseconds.
#[derive(Debug)]
struct Times {
    monotonic: i64,
    boottime: i64,
    uptime: i64,
    realtime: i64,
}

impl Running {
    fn start(command: &mut Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Running { child, stdin, stdout }
    }

    fn ask(&mut self) -> Times {
        self.stdin.write_all(b"now\n").unwrap();
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        let said: Vec<i64> = line.split_whitespace().map(|n| n.parse().unwrap()).collect();
        let [monotonic, called, boottime, uptime, realtime, sleep, timer, boot_timer] = said[..] else {
            panic!("{line:?}")
        };
        // The vDSO and the sentry agree, and so do those who wait for a time.
        assert!((0..SLACK_MS).contains(&(monotonic - called)), "{line}");
        for waited in [sleep, timer, boot_timer] {
            assert!((49..SLACK_MS).contains(&waited), "{line}");
        }
        Times { monotonic, boottime, uptime, realtime }
    }

    fn end(mut self) {
        drop(self.stdin);
        assert!(self.child.wait().unwrap().success());
    }
}

/// Between two answers with a checkpoint in between: the day's clock has gone on all the time, the others have not.
fn goes_on(before: &Times, after: &Times, ahead_ms: i64) {
    let real = after.realtime - before.realtime;
    assert!(real >= 700, "{before:?} {after:?}");
    let steps = [after.monotonic - before.monotonic, after.boottime - before.boottime, after.uptime - before.uptime];
    for step in steps {
        let step = step - ahead_ms;
        // What /proc/uptime says is cut off at hundredths of a second.
        assert!(step >= -20 && step <= real - 680, "{step} of {real} ms: {before:?} {after:?}");
    }
}

fn clocks(platform: &'static str) {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return;
    }
    if !fs::exists("/proc/self/ns/time").unwrap() {
        eprintln!("skipped: the host has no time namespaces");
        return;
    }
    let bundle = Bundle::new(platform);
    let mut running = bundle.run();
    let mut before = running.ask();
    // Twice: offsets are those of the host's clock, not of the sandbox's.
    for _ in 0..2 {
        bundle.save(running);
        std::thread::sleep(PAUSE);
        running = Running::start(&mut bundle.restore());
        let after = running.ask();
        goes_on(&before, &after, 0);
        before = after;
    }
    bundle.save(running);
    std::thread::sleep(PAUSE);
    // As if the image were from a host that has run for longer, as any host is after its next start.
    let ahead_ns = 1_000_000_000_000_000;
    bundle.change(|clocks| {
        clocks.monotonic_ns += ahead_ns;
        clocks.boottime_ns += ahead_ns;
    });
    let mut running = Running::start(&mut bundle.restore());
    goes_on(&before, &running.ask(), 1_000_000_000);
    running.end();
    // And from one that has just started.
    bundle.change(|clocks| {
        let less = clocks.monotonic_ns - 5_000_000_000;
        clocks.monotonic_ns -= less;
        clocks.boottime_ns -= less;
        clocks.booted_boottime_ns = 0;
    });
    let mut running = Running::start(&mut bundle.restore());
    let early = running.ask();
    assert!((5000..5000 + SLACK_MS).contains(&early.monotonic) && early.uptime >= 5000, "{early:?}");
    running.end();
    // No clock shows that.
    bundle.change(|clocks| clocks.monotonic_ns = u64::MAX);
    let refused = bundle.restore().stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("monotonic clock is behind"), "{said}");
}

#[test]
fn clocks_go_on_systrap() {
    clocks("systrap");
}

#[test]
fn clocks_go_on_ptrace() {
    clocks("ptrace");
}
