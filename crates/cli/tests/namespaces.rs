//! The host's namespaces that a sandbox is in, as a configuration names them.
//!
//! Takes root and unshare(1); says so where it has to be skipped.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// A container that is created, and removed with the value.
struct Created {
    dir: PathBuf,
    pid: i64,
}

/// What a test runs with, or why it can't.
fn requirements() -> Option<()> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return None;
    }
    if Command::new("unshare").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: takes unshare(1)");
        return None;
    }
    Some(())
}

fn moat(dir: &Path, arguments: &[&str]) -> (bool, String, String) {
    let (out, errors) = (dir.join("out"), dir.join("errors"));
    // Files, for a sandbox would keep pipes open.
    let status = Command::new(env!("CARGO_BIN_EXE_moat"))
        .arg("--root")
        .arg(dir.join("state"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(fs::File::create(&out).unwrap())
        .stderr(fs::File::create(&errors).unwrap())
        .status()
        .unwrap();
    (status.success(), fs::read_to_string(out).unwrap(), fs::read_to_string(errors).unwrap())
}

fn bundle(name: &str, linux: Value) -> PathBuf {
    let dir = std::env::temp_dir().join(format!("moat-ns-{name}-{}", std::process::id()));
    fs::create_dir_all(dir.join("bundle")).unwrap();
    let config = json!({
        "ociVersion": "1.0.2",
        "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"]},
        "root": {"path": "/", "readonly": true},
        "linux": linux,
    });
    fs::write(dir.join("bundle/config.json"), config.to_string()).unwrap();
    dir
}

fn create(name: &str, network: &str, linux: Value) -> Created {
    let dir = bundle(name, linux);
    let bundle = dir.join("bundle");
    let create = [network, "--ignore-cgroups", "create", "--bundle", bundle.to_str().unwrap(), "ns"];
    let (ok, _, errors) = moat(&dir, &create);
    let created = Created { pid: state(&dir), dir };
    assert!(ok, "{errors}");
    created
}

fn state(dir: &Path) -> i64 {
    let (_, out, _) = moat(dir, &["state", "ns"]);
    serde_json::from_str::<Value>(&out).ok().and_then(|state| state["pid"].as_i64()).unwrap_or(0)
}

impl Created {
    /// The inode of a namespace of the sandbox.
    fn namespace(&self, kind: &str) -> u64 {
        namespace(&self.pid.to_string(), kind)
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{name}", self.pid)).unwrap()
    }

    /// Lets it run to its end.
    fn run(&self) {
        let (ok, _, errors) = moat(&self.dir, &["start", "ns"]);
        assert!(ok, "{errors}");
        let mut looks = 0..2000;
        while state(&self.dir) != 0 && looks.next().is_some() {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(state(&self.dir), 0);
    }
}

impl Drop for Created {
    fn drop(&mut self) {
        moat(&self.dir, &["delete", "--force", "ns"]);
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn namespace(pid: &str, kind: &str) -> u64 {
    fs::metadata(format!("/proc/{pid}/ns/{kind}")).unwrap().ino()
}

/// A process in namespaces of its own, to be joined.
struct Holder(Child);

impl Holder {
    fn start(flags: &[&str]) -> Self {
        let mut command = Command::new("unshare");
        let child = command.args(flags).args(["sleep", "1000"]).stdin(Stdio::null()).spawn().unwrap();
        let holder = Holder(child);
        let mut looks = 0..4000;
        while fs::read_to_string(format!("/proc/{}/comm", holder.0.id())).unwrap_or_default() != "sleep\n" {
            assert!(looks.next().is_some());
            std::thread::sleep(Duration::from_millis(5));
        }
        holder
    }

    fn path(&self, kind: &str) -> String {
        format!("/proc/{}/ns/{kind}", self.0.id())
    }

    fn namespace(&self, kind: &str) -> u64 {
        namespace(&self.0.id().to_string(), kind)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_network_namespace_is_joined_by_path() {
    let Some(()) = requirements() else { return };
    let holder = Holder::start(&["--net"]);
    let linux = json!({"namespaces": [{"type": "pid"}, {"type": "network", "path": holder.path("net")}]});
    let created = create("net", "--network=sandbox", linux.clone());
    assert_eq!(created.namespace("net"), holder.namespace("net"));
    assert_ne!(created.namespace("user"), namespace("self", "user"));
    assert_eq!(
        created.file("status").lines().find(|l| l.starts_with("Uid:")),
        Some("Uid:\t65534\t65534\t65534\t65534")
    );
    created.run();
    let created = create("net-none", "--network=none", linux);
    assert_ne!(created.namespace("net"), holder.namespace("net"));
    assert_ne!(created.namespace("net"), namespace("self", "net"));
}

#[test]
fn a_user_namespace_is_joined_by_path() {
    let Some(()) = requirements() else { return };
    let holder = Holder::start(&["--user", "--map-root-user", "--net"]);
    let linux = json!({"namespaces": [
        {"type": "pid"}, {"type": "network", "path": holder.path("net")}, {"type": "user", "path": holder.path("user")},
    ]});
    let created = create("user", "--network=sandbox", linux);
    assert_eq!(created.namespace("user"), holder.namespace("user"));
    assert_eq!(created.namespace("net"), holder.namespace("net"));
    created.run();
}

#[test]
fn id_mappings_are_those_of_the_configuration() {
    let Some(()) = requirements() else { return };
    let maps = json!([{"containerID": 0, "hostID": 231_072, "size": 65536}]);
    let linux = json!({
        "namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "user"}], "uidMappings": maps, "gidMappings": maps,
    });
    let created = create("maps", "--network=sandbox", linux);
    let map: Vec<String> = created.file("uid_map").split_ascii_whitespace().map(str::to_owned).collect();
    assert_eq!(map, ["0", "231072", "65536"]);
    // Nobody in there.
    let uid = 231_072 + 65_534;
    assert!(created.file("status").contains(&format!("Uid:\t{uid}\t{uid}")));
    created.run();
}

#[test]
fn in_mode_host_it_stays_in_the_creators_namespaces_with_fewer_capabilities() {
    let Some(()) = requirements() else { return };
    let created = create("host", "--network=host", json!({"namespaces": [{"type": "pid"}]}));
    assert_eq!(created.namespace("net"), namespace("self", "net"));
    assert_eq!(created.namespace("user"), namespace("self", "user"));
    assert_ne!(created.namespace("pid"), namespace("self", "pid"));
    let status = created.file("status");
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:\t")).unwrap();
    // CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID and SETFCAP; the container's init has none over the network.
    assert_eq!(u64::from_str_radix(effective, 16), Ok(0x8000_001f));
    created.run();
}

#[test]
fn what_can_not_be_had_is_named() {
    for (name, network, namespaces, part) in [
        ("a", "--network=sandbox", json!([{"type": "pid"}]), "--network=host"),
        ("b", "--network=none", json!([{"type": "pid"}, {"type": "time"}]), "linux.namespaces: time"),
        (
            "c",
            "--network=none",
            json!([{"type": "pid"}, {"type": "uts", "path": "/proc/self/ns/uts"}]),
            "uts with path",
        ),
    ] {
        let dir = bundle(&format!("refused-{name}"), json!({"namespaces": namespaces}));
        let bundle = dir.join("bundle");
        let (ok, _, errors) = moat(&dir, &[network, "create", "--bundle", bundle.to_str().unwrap(), "ns"]);
        assert!(!ok && errors.contains(part), "{errors}");
        fs::remove_dir_all(dir).unwrap();
    }
}
