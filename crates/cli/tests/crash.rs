//! A `moat create` that is killed at any system call leaves nothing that `moat delete --force` does not clean up.
//!
//! strace(1) kills it: each run at another call.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Only each so many-th call, so that the test takes seconds.
const STEP: usize = 5;

const ID: &str = "crash-test";

struct Test {
    dir: PathBuf,
}

impl Test {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("moat-crash-{}", std::process::id()));
        fs::create_dir_all(dir.join("bundle")).unwrap();
        let config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/"},
            "root": {"path": "/usr", "readonly": true},
            "mounts": [{"destination": "/bin", "type": "bind", "source": "/bin", "options": ["rbind", "ro"]}],
            "linux": {
                "namespaces": [{"type": "pid"}, {"type": "network"}],
                "cgroupsPath": format!("/moat-crash-{}", std::process::id()),
            }
        });
        fs::write(dir.join("bundle/config.json"), config.to_string()).unwrap();
        Test { dir }
    }

    fn root(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Runs a command; stdio is no pipe, which a sandbox would keep open.
    fn run(&self, program: &str, flags: &[&str], moat: &[&str]) -> (bool, String) {
        let errors = self.dir.join("stderr");
        let status = Command::new(program)
            .args(flags)
            .args(["--root", self.root().to_str().unwrap()])
            .args(moat)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&errors).unwrap())
            .status()
            .unwrap();
        (status.success(), fs::read_to_string(&errors).unwrap_or_default())
    }

    fn create_under_strace(&self, flags: &[&str]) -> bool {
        let mut all = vec!["-qq"];
        all.extend(flags);
        all.push(env!("CARGO_BIN_EXE_moat"));
        let bundle = self.dir.join("bundle");
        self.run("strace", &all, &["create", "--bundle", bundle.to_str().unwrap(), ID]).0
    }

    fn delete(&self) {
        let (success, errors) = self.run(env!("CARGO_BIN_EXE_moat"), &[], &["delete", "--force", ID]);
        assert!(success, "{errors}");
    }

    /// What there is of a container.
    fn leftovers(&self) -> Vec<String> {
        let names = |dir: &Path| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut found: Vec<String> = names(&self.root()).map(|path| format!("{path:?}")).collect();
        let cgroup = format!("moat-crash-{}", std::process::id());
        for top in [Path::new("/sys/fs/cgroup").to_owned()].into_iter().chain(names(Path::new("/sys/fs/cgroup"))) {
            if top.join(&cgroup).exists() {
                found.push(format!("{:?}", top.join(&cgroup)));
            }
        }
        for process in names(Path::new("/proc")) {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            if command.windows(ID.len()).any(|part| part == ID.as_bytes()) {
                found.push(String::from_utf8_lossy(&command).replace('\0', " "));
            }
        }
        found
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn whatever_a_killed_create_leaves_is_cleaned_up() {
    let strace = Command::new("strace").arg("-V").output();
    if strace.is_err() || fs::metadata("/proc/self").unwrap().uid() != 0 {
        println!("skipped: it takes strace and root");
        return;
    }
    let test = Test::new();
    let trace = test.dir.join("trace");
    assert!(test.create_under_strace(&["-o", trace.to_str().unwrap()]), "a create that nobody disturbs");
    test.delete();
    let text = fs::read_to_string(&trace).unwrap();
    let mut counts: HashMap<&str, usize> = HashMap::new();
    // The first call is strace's own execve.
    let calls: Vec<String> = text
        .lines()
        .filter_map(|line| Some(line.split_once('(')?.0))
        .map(|name| {
            let count = counts.entry(name).or_default();
            *count += 1;
            format!("inject={name}:signal=KILL:when={count}")
        })
        .skip(1)
        .collect();
    assert!(calls.len() > 100);
    for call in calls.iter().step_by(STEP) {
        assert!(!test.create_under_strace(&["-o", "/dev/null", "-e", call]), "{call}: not killed");
        test.delete();
        // What is orphaned by a kill needs a moment to notice.
        let mut looks = 0..2000;
        while !test.leftovers().is_empty() {
            assert!(looks.next().is_some(), "{call}: {:?}", test.leftovers());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
