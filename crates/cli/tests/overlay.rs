//! Overlays whose files are on the host: `--overlay2=root:dir=PATH`, `all:self`, with their limits, direct and by a gofer.
//!
//! Takes root; says so where it has to be skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// A bundle over the host's root, with a tree of its own at /mnt; removed with the value.
struct Bundle {
    dir: PathBuf,
    flags: Vec<String>,
}

impl Bundle {
    fn new(name: &str, flags: &[&str], readonly: bool, script: &str) -> Bundle {
        let dir = std::env::temp_dir().join(format!("moat-overlay-{name}-{}", std::process::id()));
        for made in ["bundle", "tree", "medium"] {
            fs::create_dir_all(dir.join(made)).unwrap();
        }
        fs::write(dir.join("tree/old"), "old\n").unwrap();
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script], "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"],
                "capabilities": {"bounding": [], "effective": [], "permitted": []}},
            "root": {"path": "/", "readonly": readonly},
            "mounts": [{"destination": "/mnt", "type": "bind", "source": dir.join("tree"), "options": ["rbind"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
        });
        fs::write(dir.join("bundle/config.json"), config.to_string()).unwrap();
        Bundle { flags: flags.iter().map(|flag| flag.replace("DIR", dir.to_str().unwrap())).collect(), dir }
    }

    /// Runs a command; its output and what it complained of.
    fn moat(&self, arguments: &[&str]) -> (String, String) {
        let (out, errors) = (self.dir.join("out"), self.dir.join("errors"));
        // Files, for a sandbox would keep pipes open.
        Command::new(env!("CARGO_BIN_EXE_moat"))
            .args(["--root", self.dir.join("state").to_str().unwrap(), "--network=none", "--ignore-cgroups"])
            .args(&self.flags)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(fs::File::create(&out).unwrap())
            .stderr(fs::File::create(&errors).unwrap())
            .status()
            .unwrap();
        (fs::read_to_string(out).unwrap(), fs::read_to_string(errors).unwrap())
    }

    fn path(&self) -> String {
        self.dir.join("bundle").to_str().unwrap().to_owned()
    }

    fn state(&self) -> Value {
        serde_json::from_str(&self.moat(&["state", "c"]).0).unwrap_or_default()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        self.moat(&["delete", "--force", "c"]);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: takes root");
    }
    root
}

fn entries(dir: &Path) -> Vec<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// What a guest sees of a tree whose changes are in the tree itself, and what of it the host sees.
fn tree_below_its_own_changes(name: &str, files: &str) {
    if !is_root() {
        return;
    }
    let script = "ls -A /mnt; echo new > /mnt/old; cat /mnt/old
        head -c 200000 /dev/zero | tr '\\0' x > /mnt/big; cat /mnt/big /mnt/big > /mnt/two; wc -c < /mnt/two
        tail -c 3 /mnt/two; echo; (head -c 3000000 /dev/zero > /mnt/full) 2>&1 | grep -o 'No space left'
        rm /mnt/two /mnt/full; stat -f -c '%b %S' /mnt
        i=0; while true > /mnt/f$i; do i=$((i + 1)); done 2>/dev/null; echo $((i < 50))";
    let flags = ["--overlay2=all:self,size=1m,nr_inodes=50", "--log=DIR/log", files];
    let bundle = Bundle::new(name, &flags, true, script);
    let (out, errors) = bundle.moat(&["run", "--bundle", &bundle.path(), "c"]);
    assert_eq!(out, "old\nnew\n400000\nxxx\nNo space left\n256 4096\n1\n", "{errors}");
    let log = fs::read_to_string(bundle.dir.join("log")).unwrap();
    assert!(log.contains("is lost when it ends: --overlay2=all:self,size=1048576,nr_inodes=50"), "{log}");
    assert_eq!(entries(&bundle.dir.join("tree")), ["old"]);
    assert_eq!(fs::read_to_string(bundle.dir.join("tree/old")).unwrap(), "old\n");
}

#[test]
fn changes_are_in_the_tree_itself() {
    tree_below_its_own_changes("self", "--directfs=true");
}

#[test]
fn a_gofer_makes_the_files() {
    tree_below_its_own_changes("gofer", "--directfs=false");
}

/// The root has its changes in a directory, which is there as long as the container.
#[test]
fn changes_are_in_a_directory() {
    if !is_root() {
        return;
    }
    let script = "head -c 500000 /dev/zero > /overlay-test && echo reached > /mnt/old && exec sleep 1000";
    let bundle = Bundle::new("dir", &["--overlay2=root:dir=DIR/medium"], false, script);
    let medium = bundle.dir.join("medium");
    bundle.moat(&["create", "--bundle", &bundle.path(), "c"]);
    let made = entries(&medium);
    assert!(matches!(&made[..], [one] if one.starts_with(".moat.overlay.c.")), "{made:?}");
    let state = bundle.state();
    let shown = format!("root:dir={}", medium.display());
    assert_eq!(state["annotations"]["moat.overlay2"], Value::from(shown));
    bundle.moat(&["start", "c"]);
    let held = || {
        let descriptors = fs::read_dir(format!("/proc/{}/fd", state["pid"])).unwrap().flatten();
        let mut links = descriptors.flat_map(|fd| fs::read_link(fd.path()));
        links.any(|link| link.to_string_lossy().ends_with("(deleted)") && link.to_string_lossy().contains("/#"))
    };
    let mut looks = 0..2000;
    while fs::read_to_string(bundle.dir.join("tree/old")).unwrap() != "reached\n" && looks.next().is_some() {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(held(), "the file is not in the directory");
    assert!(!Path::new("/overlay-test").exists());
    assert_eq!(entries(&medium.join(&made[0])), [""; 0]);
    bundle.moat(&["delete", "--force", "c"]);
    assert_eq!(entries(&medium), [""; 0]);
}

/// What can't be made is said, and nothing is left.
#[test]
fn a_directory_that_does_not_exist() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("none", &["--overlay2=root:dir=DIR/nothing"], false, "true");
    let (_, errors) = bundle.moat(&["create", "--bundle", &bundle.path(), "c"]);
    assert!(errors.contains("making the overlay's directory") && errors.contains("/nothing/"), "{errors}");
    assert_eq!(bundle.state(), Value::Null);
}
