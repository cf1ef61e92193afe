//! Files of a bind mount whose rules and limits are the host's file system's: the same script on the host and in a container.
//!
//! Takes root; says so where it has to be skipped.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

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

    fn run(&self, flag: Option<&str>, script: &str) -> String {
        match flag {
            None => self.natively(script),
            Some(flag) => self.inside(flag, script),
        }
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

/// What a thread of the host does while a script runs. Ends with the value, so that nobody waits for what does not come.
struct Meanwhile<T> {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<T>>,
}

impl<T: Send + 'static> Meanwhile<T> {
    /// `act` is to end once it is told true.
    fn new(act: impl FnOnce(&AtomicBool) -> T + Send + 'static) -> Meanwhile<T> {
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        Meanwhile { over, thread: Some(std::thread::spawn(move || act(&told))) }
    }

    fn end(mut self) -> T {
        self.over.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl<T> Drop for Meanwhile<T> {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

/// Does something to the tree when TREE/ready is there, and says so by TREE/moved.
fn when_ready(tree: PathBuf, act: impl FnOnce(&Path) + Send + 'static) -> Meanwhile<()> {
    Meanwhile::new(move |over| {
        while !tree.join("ready").exists() {
            if over.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        act(&tree);
        fs::write(tree.join("moved"), "").unwrap();
    })
}

/// The flags of a native run, of one with the tree used directly, and of one by a gofer.
const WAYS: [Option<&str>; 3] = [None, Some("--directfs=true"), Some("--directfs=false")];

/// A working directory that the host moves is where it is, and not where it was.
#[test]
fn a_directory_that_the_host_moves() {
    let Some(place) = Place::new("moved") else { return };
    let script = "mkdir TREE/d; cd TREE/d; touch before; touch TREE/ready; n=0
        while [ ! -e TREE/moved ] && [ $n -lt 3000 ]; do sleep 0.02; n=$((n+1)); done
        touch after; mkdir sub; echo text > sub/f; cat sub/f; mv before renamed; ls; ls TREE/e; ls TREE/d";
    let mut seen = Vec::new();
    for flag in WAYS {
        let moves = when_ready(place.tree(), |tree| {
            fs::rename(tree.join("d"), tree.join("e")).unwrap();
            fs::create_dir(tree.join("d")).unwrap();
        });
        seen.push(place.run(flag, script));
        moves.end();
        fs::remove_dir_all(place.tree()).unwrap();
        fs::create_dir(place.tree()).unwrap();
    }
    assert_eq!(seen[0], "text\nafter\nrenamed\nsub\nafter\nrenamed\nsub\n");
    assert_eq!(seen[1], seen[0], "directly");
    assert_eq!(seen[2], seen[0], "by a gofer");
}

/// A file that the host removes as soon as it is there was made once, and can be used by who made it.
#[test]
fn a_file_that_the_host_removes_at_once() {
    const FILES: usize = 300;
    let Some(place) = Place::new("removed") else { return };
    let script = format!(
        "n=0; while [ $n -lt {FILES} ]; do {{ echo text; }} > TREE/f || echo refused; n=$((n+1)); done 2>&1; echo end"
    );
    for flag in WAYS {
        let file = place.tree().join("f");
        let removes = Meanwhile::new(move |over| {
            let mut removed = 0;
            while !over.load(Ordering::Relaxed) {
                removed += usize::from(fs::remove_file(&file).is_ok());
            }
            removed
        });
        let said = place.run(flag, &script);
        let removed = removes.end();
        assert_eq!(said, "end\n", "{flag:?}");
        // Fewer where the host was late and the file was opened again.
        assert!((1..=FILES).contains(&removed), "{flag:?}: {removed} removed of {FILES}");
    }
}

/// A name that the host gives to one file after the other always leads to one of them.
#[test]
fn a_name_that_the_host_keeps_replacing() {
    let Some(place) = Place::new("replaced") else { return };
    let script = "t() { n=0; while [ $n -lt 20 ]; do \"$@\" > /dev/null || echo \"$1\"; n=$((n+1)); done 2>&1; }
        reads() { read x < TREE/f; }; writes() { echo : >> TREE/f; }; exists() { [ -r TREE/f ]; }
        t reads; t writes; t exists; t . TREE/f; t cat TREE/f; t sh TREE/f; t stat TREE/f; t chmod 755 TREE/f; t touch TREE/f
        t dd if=TREE/f of=/dev/null status=none; t truncate -s +1 TREE/f; echo end";
    for flag in WAYS {
        let tree = place.tree();
        let make = move |name: &str| {
            let path = tree.join(name);
            fs::write(&path, "x=1\n").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            (path, tree.join("f"))
        };
        let (first, name) = make("first");
        fs::rename(first, name).unwrap();
        let replaces = Meanwhile::new(move |over| {
            let mut replaced = 0;
            while !over.load(Ordering::Relaxed) {
                let (next, name) = make("next");
                fs::rename(next, name).unwrap();
                replaced += 1;
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            replaced
        });
        let said = place.run(flag, script);
        assert!(replaces.end() > 10);
        assert_eq!(said, "end\n", "{flag:?}");
    }
}

/// What is open as a path only is that file, after the host has removed it and put another in its place.
#[test]
fn a_path_descriptor_of_a_file_that_the_host_removes() {
    let Some(place) = Place::new("path") else { return };
    let script = r#"mkdir TREE/dir; echo text > TREE/f; ln -s somewhere TREE/link; mkfifo TREE/pipe; perl -e '
        for $name ("f", "dir", "link", "pipe") { sysopen($held{$name}, "TREE/$name", 010000000 | 0400000) or die "$name: $!"; }
        open(R, ">", "TREE/ready"); close(R);
        for (1..3000) { last if -e "TREE/moved"; select(undef, undef, undef, 0.02); }
        for $name (sort keys %held) {
            @s = stat($held{$name}); printf "%s %o %d %d\n", $name, $s[2], $s[3], $name eq "dir" ? 0 : $s[7];
            printf "%s\n", chmod(0700, "/proc/self/fd/" . fileno($held{$name})) ? "changed" : $! if $name ne "link";
            @s = stat($held{$name}); printf "%o\n", $s[2];
        }' 2>&1; stat -c '%n %a' TREE/f"#;
    let mut seen = Vec::new();
    for flag in WAYS {
        let replaces = when_ready(place.tree(), |tree| {
            for name in ["f", "link", "pipe"] {
                fs::remove_file(tree.join(name)).unwrap();
                fs::write(tree.join(name), "another").unwrap();
            }
            fs::remove_dir(tree.join("dir")).unwrap();
        });
        seen.push(place.run(flag, script).replace(place.tree().to_str().unwrap(), "/mnt"));
        replaces.end();
        fs::remove_dir_all(place.tree()).unwrap();
        fs::create_dir(place.tree()).unwrap();
    }
    assert_eq!(seen[0].lines().count(), 12, "{}", seen[0]);
    assert_eq!(seen[1], seen[0], "directly");
    assert_eq!(seen[2], seen[0], "by a gofer");
}
