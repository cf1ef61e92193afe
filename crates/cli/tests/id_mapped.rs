//! Id-mapped bind mounts, as a configuration asks for them.
//!
//! Takes root; says so where it has to be skipped.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

struct Bundle(PathBuf);

impl Bundle {
    /// A container over the host's root with a tree at /mnt, in which a file is root's.
    fn new(name: &str, user: (u32, u32), mount: Value, script: &str) -> Bundle {
        let dir = std::env::temp_dir().join(format!("moat-ids-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("tree")).unwrap();
        fs::set_permissions(dir.join("tree"), Permissions::from_mode(0o777)).unwrap();
        fs::write(dir.join("tree/file"), "x").unwrap();
        chown(dir.join("tree/file"), Some(0), Some(5)).unwrap();
        let mut bind = json!({"destination": "/mnt", "type": "bind", "source": dir.join("tree")});
        bind.as_object_mut().unwrap().extend(mount.as_object().unwrap().clone());
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": user.0, "gid": user.1}, "args": ["/bin/sh", "-c", script], "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"]},
            "root": {"path": "/", "readonly": true},
            "mounts": [bind],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
        });
        fs::write(dir.join("config.json"), config.to_string()).unwrap();
        Bundle(dir)
    }

    fn run(&self, flag: &str) -> (String, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_moat"))
            .args(["--root", self.0.join("state").to_str().unwrap(), "--network=none", "--ignore-cgroups", flag])
            .args(["run", "--bundle", self.0.to_str().unwrap(), "c"])
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        (text(&output.stdout), text(&output.stderr))
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("skipped: takes root");
    }
    root
}

/// 0 and up on the disk are 1000 and up in the container, and the other way round for what is made there.
#[test]
fn ids_are_shown_and_stored_as_mapped() {
    if !is_root() {
        return;
    }
    let maps = json!([{"containerID": 0, "hostID": 1000, "size": 65536}]);
    let mount = json!({"options": ["rbind", "idmap"], "uidMappings": maps, "gidMappings": maps});
    let script = "stat -c '%u %g' /mnt/file; true > /mnt/new && stat -c '%u %g' /mnt/new";
    for flag in ["--directfs=true", "--directfs=false"] {
        let bundle = Bundle::new("shown", (1007, 1009), mount.clone(), script);
        let (out, errors) = bundle.run(flag);
        if errors.contains("the host may not be able to") {
            eprintln!("skipped: {errors}");
            return;
        }
        assert_eq!(out, "1000 1005\n1007 1009\n", "{flag}: {errors}");
        let made = fs::metadata(bundle.0.join("tree/new")).unwrap();
        assert_eq!((made.uid(), made.gid()), (7, 9));
        // A user whom the maps leave out can make nothing (EOVERFLOW).
        let bundle = Bundle::new("left-out", (5, 5), mount.clone(), script);
        let (out, errors) = bundle.run(flag);
        assert!(out == "1000 1005\n" && errors.contains("Value too large"), "{flag}: {out} {errors}");
    }
}

#[test]
fn what_can_not_be_mapped_is_named() {
    if !is_root() {
        return;
    }
    let maps = json!([{"containerID": 0, "hostID": 1000, "size": 1}]);
    let half = Bundle::new("half", (0, 0), json!({"options": ["bind"], "uidMappings": maps}), "true");
    assert!(half.run("--directfs").1.contains("/mnt: an id-mapped mount needs uidMappings and gidMappings"));
}
