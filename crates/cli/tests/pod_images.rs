//! Images of pods that somebody has changed: what one container's configuration allows is nothing for another's processes.
//!
//! Takes root; says so where it has to be skipped.

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use moat_image::directory::{self, Image};
use moat_image::header::{self, KERNEL};
use moat_image::{SandboxState, Table};
use serde_json::{Value, json};

/// Two bundles over the host's own root; removed with the value.
struct Pod(PathBuf);

impl Pod {
    fn new() -> Pod {
        let dir = std::env::temp_dir().join(format!("moat-pod-images-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        // Others may not add to what is run as root.
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        let pod = Pod(dir);
        let all = json!(["CAP_SETUID", "CAP_SETGID", "CAP_SYS_ADMIN", "CAP_NET_RAW"]);
        pod.bundle("first", json!({ "bounding": all, "effective": all, "permitted": all }), json!({}));
        let annotations = json!({
            "io.kubernetes.cri.container-type": "container",
            "io.kubernetes.cri.sandbox-id": "first",
        });
        pod.bundle("later", json!({ "bounding": [], "effective": [], "permitted": [] }), annotations);
        pod
    }

    fn bundle(&self, name: &str, capabilities: Value, annotations: Value) {
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sleep", "100000"], "cwd": "/",
                "noNewPrivileges": true, "capabilities": capabilities},
            "root": {"path": "/", "readonly": true},
            "mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}],
            "annotations": annotations,
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network"}]},
        });
        fs::create_dir(self.0.join(name)).unwrap();
        fs::write(self.0.join(name).join("config.json"), config.to_string()).unwrap();
    }

    fn moat(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
        command.args(["--root", self.0.join("state").to_str().unwrap(), "--network=none", "--ignore-cgroups"]);
        // In a file: a container keeps the pipes that it is made with.
        let errors = self.0.join("errors");
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(&errors).unwrap());
        let status = command.status().unwrap();
        Output { status, stdout: Vec::new(), stderr: fs::read(errors).unwrap() }
    }

    fn done(&self, arguments: &[&str]) {
        let output = self.moat(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn restore(&self, name: &str) -> Output {
        let (image, bundle) = (self.0.join("image"), self.0.join(name));
        let paths = [&image, &bundle].map(|path| path.to_str().unwrap());
        self.moat(&["restore", "--detach", "--image-path", paths[0], "--bundle", paths[1], name])
    }

    fn delete(&self) {
        for name in ["first", "later"] {
            let _ = self.moat(&["delete", "--force", name]);
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.delete();
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn change<T: Clone>(table: &mut Table<T>, change: impl Fn(&mut T)) {
    let mut changed = Table::default();
    for mut object in table.iter().cloned() {
        change(&mut object);
        changed.push(object);
    }
    *table = changed;
}

type Change = fn(&mut SandboxState);

/// What somebody makes of an image, and a part of what is said then; nothing where it restores.
const CHANGES: [(Change, &str); 12] = [
    (|_| (), ""),
    (|s| change(&mut s.processes, |p| p.container = 0), "namespace of another container"),
    (|s| change(&mut s.processes, |p| p.container = 1), "namespace of another container"),
    (|s| change(&mut s.processes, |p| p.container = 7), "container 7"),
    (|s| change(&mut s.credentials, |c| c.container = 0), "the credentials of another container"),
    (|s| change(&mut s.credentials, |c| c.container = 1), "the credentials of another container"),
    (|s| change(&mut s.pids, |p| p.container = 0), "can't be given"),
    (|s| change(&mut s.mounts, |m| m.container = 7), "container 7"),
    (
        |s| {
            let context = s.tasks.iter().next().unwrap().fs_context;
            change(&mut s.tasks, |t| t.fs_context = context);
        },
        "whose root is another container's",
    ),
    (
        |s| {
            let memory = s.tasks.iter().next().unwrap().memory;
            change(&mut s.tasks, |t| t.memory = memory);
        },
        "an address space of two containers",
    ),
    (|s| s.containers[1].shared.pid = true, "in common with the first one"),
    (|s| s.containers[1].init = s.containers[0].init, "with a process of another one"),
];

#[test]
fn images_of_pods_keep_containers_apart() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/sleep").exists() {
        eprintln!("skipped: takes root, and a sleep(1)");
        return;
    }
    let pod = Pod::new();
    for name in ["first", "later"] {
        pod.done(&["create", "--bundle", pod.0.join(name).to_str().unwrap(), name]);
        pod.done(&["start", name]);
    }
    let image = pod.0.join("image");
    pod.done(&["checkpoint", "--image-path", image.to_str().unwrap(), "first"]);
    pod.delete();
    let kept = fs::read(image.join(directory::STATE)).unwrap();
    for (number, (change, refused)) in CHANGES.iter().enumerate() {
        let Image { header, mut state, .. } = Image::read(directory::open(&image).unwrap()).unwrap();
        assert_eq!((state.containers.len(), state.processes.len()), (2, 2));
        change(&mut state);
        let file = header::encode(header, &[(KERNEL, state.encode().unwrap())]).unwrap();
        fs::write(image.join(directory::STATE), file).unwrap();
        // It waits for the other one, whatever there is of that.
        assert!(pod.restore("first").status.success(), "{number}");
        let later = pod.restore("later");
        let said = String::from_utf8_lossy(&later.stderr);
        assert_eq!(later.status.success(), refused.is_empty(), "{number}: {said}");
        assert!(said.contains(refused), "{number}: {said}");
        pod.delete();
        fs::write(image.join(directory::STATE), &kept).unwrap();
    }
}
