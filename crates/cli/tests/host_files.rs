//! Files of a bind mount whose rules and limits are the host's file system's: the same script on the host and in a container.
//!
//! Takes root; says so where it has to be skipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

/// A directory, removed with the value.
struct Place {
    dir: PathBuf,
    mounted: bool,
}

impl Place {
    fn new(name: &str) -> Option<Place> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: takes root");
            return None;
        }
        let dir = std::env::temp_dir().join(format!("moat-files-{name}-{}", std::process::id()));
        fs::create_dir_all(dir.join("tree")).unwrap();
        Some(Place { dir, mounted: false })
    }

    fn tree(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// What the script, in which TREE is the directory, prints on the host.
    fn natively(&self, script: &str) -> String {
        let script = script.replace("TREE", self.tree().to_str().unwrap());
        output(Command::new("/bin/sh").args(["-c", &script]))
    }

    /// What it prints in a container that has the directory at /mnt.
    fn inside(&self, flag: &str, script: &str) -> String {
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/bin/sh", "-c", script.replace("TREE", "/mnt")], "cwd": "/",
                "env": ["PATH=/usr/bin:/bin"]},
            "root": {"path": "/", "readonly": true},
            "mounts": [{"destination": "/mnt", "type": "bind", "source": self.tree(), "options": ["rbind"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}]},
        });
        fs::write(self.dir.join("config.json"), config.to_string()).unwrap();
        let root = self.dir.join("state");
        let flags = ["--root", root.to_str().unwrap(), "--network=none", "--ignore-cgroups", flag];
        let run = ["run", "--bundle", self.dir.to_str().unwrap(), "c"];
        output(Command::new(env!("CARGO_BIN_EXE_moat")).args(flags).args(run).stdin(Stdio::null()))
    }

    fn compare(&self, script: &str) {
        let native = self.natively(script);
        assert!(native.lines().count() > 3, "{native}");
        for flag in ["--directfs=true", "--directfs=false"] {
            for file in fs::read_dir(self.tree()).unwrap() {
                fs::remove_file(file.unwrap().path()).unwrap();
            }
            assert_eq!(self.inside(flag, script), native, "{flag}");
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.mounted {
            let _ = rustix::mount::unmount(self.tree(), rustix::mount::UnmountFlags::empty());
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// Transfers with O_DIRECT that are cut to the disk's blocks, and others.
#[test]
fn direct_transfers() {
    let Some(place) = Place::new("direct") else { return };
    place.compare(
        "t() { LC_ALL=C dd status=none \"$@\" 2>&1 | grep -o 'Invalid argument'; stat -c %s TREE/f; }
        t if=/dev/zero of=TREE/f bs=512 count=3 oflag=direct
        t if=/dev/zero of=TREE/f bs=100 count=1 oflag=direct
        t if=/dev/zero of=TREE/f bs=512 count=1 seek=100 oflag=direct,seek_bytes conv=notrunc
        t if=/dev/zero of=TREE/f bs=300100 count=1 oflag=direct conv=notrunc
        t if=/dev/zero of=TREE/f bs=512 count=2 oflag=direct,append conv=notrunc
        t if=TREE/f of=/dev/null bs=100 iflag=direct
        t if=TREE/f of=/dev/null bs=512 skip=100 iflag=direct,skip_bytes
        t if=TREE/f of=/dev/null bs=100 skip=999999 iflag=direct,skip_bytes
        truncate -s 700 TREE/f; t if=TREE/f of=TREE/g bs=4096 iflag=direct; stat -c %s TREE/g
        t if=/dev/zero of=TREE/f bs=512 count=1 oflag=direct,append conv=notrunc",
    );
}

/// A file system without room: what fits is written.
#[test]
fn a_full_file_system() {
    let Some(mut place) = Place::new("full") else { return };
    let mounted = rustix::mount::mount(
        c"none",
        Path::new(&place.tree()),
        c"tmpfs",
        rustix::mount::MountFlags::empty(),
        c"size=256k,nr_inodes=5",
    );
    if let Err(error) = mounted {
        eprintln!("skipped: mounting a tmpfs: {error}");
        return;
    }
    place.mounted = true;
    place.compare(
        "t() { LC_ALL=C \"$@\" 2>&1 | grep -o 'No space left on device'; stat -c '%n %s' TREE/* | sed 's/.*\\///'; }
        t dd if=/dev/zero of=TREE/a bs=100000 status=none
        t dd if=/dev/zero of=TREE/a bs=1M count=1 conv=notrunc oflag=append status=none
        rm TREE/a; t dd if=/dev/zero of=TREE/b bs=1M count=1 status=none
        t fallocate -l 1M TREE/c; rm TREE/b; t fallocate -l 200K TREE/c
        t cp TREE/c TREE/d; for i in 1 2 3 4; do t touch TREE/i$i; done
        stat -f -c '%b %f %c %d' TREE",
    );
}

/// Moves TREE/d to TREE/e when TREE/ready is there, puts another directory in its place, and says so by removing that.
fn move_when_ready(tree: PathBuf) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        while !tree.join("ready").exists() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        fs::rename(tree.join("d"), tree.join("e")).unwrap();
        fs::create_dir(tree.join("d")).unwrap();
        fs::remove_file(tree.join("ready")).unwrap();
    })
}

/// A working directory that the host moves is where it is, and not where it was.
#[test]
fn a_directory_that_the_host_moves() {
    let Some(place) = Place::new("moved") else { return };
    let script = "mkdir TREE/d; cd TREE/d; touch before; touch TREE/ready; while [ -e TREE/ready ]; do sleep 0.02; done
        touch after; mkdir sub; echo text > sub/f; cat sub/f; mv before renamed; ls; ls TREE/e; ls TREE/d";
    let mut seen = Vec::new();
    for flag in [None, Some("--directfs=true"), Some("--directfs=false")] {
        let moves = move_when_ready(place.tree());
        seen.push(match flag {
            None => place.natively(script),
            Some(flag) => place.inside(flag, script),
        });
        moves.join().unwrap();
        for name in ["d", "e"] {
            fs::remove_dir_all(place.tree().join(name)).unwrap();
        }
    }
    assert_eq!(seen[0], "text\nafter\nrenamed\nsub\nafter\nrenamed\nsub\n");
    assert_eq!(seen[1], seen[0], "directly");
    assert_eq!(seen[2], seen[0], "by a gofer");
}
