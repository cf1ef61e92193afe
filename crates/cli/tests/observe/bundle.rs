//! [`Bundle`]: a container over the host's root with a script, and the program's commands about it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// A bundle; its container and everything else of it go with the value.
pub(crate) struct Bundle {
    pub(crate) dir: PathBuf,
    flags: Vec<String>,
    pub(crate) id: String,
}

impl Bundle {
    /// A container `id` that runs a shell script; `change` changes its configuration.
    pub(crate) fn new(id: &str, flags: &[&str], script: &str, change: impl FnOnce(&mut Value)) -> Bundle {
        let dir = std::env::temp_dir().join(format!("moat-observe-{id}-{}", std::process::id()));
        fs::create_dir_all(dir.join("bundle")).unwrap();
        let mut config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script], "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"],
                "capabilities": {"bounding": [], "effective": [], "permitted": []}},
            "root": {"path": "/", "readonly": true},
            "mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                {"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
        });
        change(&mut config);
        fs::write(dir.join("bundle/config.json"), config.to_string()).unwrap();
        Bundle { dir, flags: flags.iter().map(|flag| (*flag).to_owned()).collect(), id: id.to_owned() }
    }

    /// The program with the flags of this bundle.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
        command.args(["--root", self.dir.join("state").to_str().unwrap(), "--network=none"]).args(&self.flags);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a command of the program; what it wrote to its standard output and error.
    pub(crate) fn moat(&self, arguments: &[&str]) -> (bool, String, String) {
        let (out, errors) = (self.dir.join("out"), self.dir.join("errors"));
        // Files, for a sandbox would keep pipes open.
        let status = self
            .command()
            .args(arguments)
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&errors).unwrap())
            .status()
            .unwrap();
        (status.success(), fs::read_to_string(out).unwrap(), fs::read_to_string(errors).unwrap())
    }

    /// As [`Bundle::moat`], for a command that must work.
    pub(crate) fn text(&self, arguments: &[&str]) -> String {
        let (success, out, errors) = self.moat(arguments);
        assert!(success, "{arguments:?}: {errors}");
        out
    }

    /// Starts the container.
    pub(crate) fn start(&self) {
        self.text(&["run", "--detach", "--bundle", self.dir.join("bundle").to_str().unwrap(), &self.id]);
    }

    /// Starts a command that stays, with its standard output in a file.
    pub(crate) fn spawn(&self, arguments: &[&str], out: &str) -> Running {
        let out = fs::File::create(self.dir.join(out)).unwrap();
        Running(self.command().args(arguments).stdout(out).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The text of a file in the bundle's directory.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.join(name)).unwrap_or_default()
    }
}

/// A command that stays; it is killed when the test is over, however that ends.
pub(crate) struct Running(pub(crate) Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.moat(&["delete", "--force", &self.id]);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Whether the tests can be run; says so if not.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: takes root");
    }
    root
}

/// Looks until there is something; panics after a thousand looks, 20 ms and more apart.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let mut looks = 0..1000;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(looks.next().is_some(), "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
