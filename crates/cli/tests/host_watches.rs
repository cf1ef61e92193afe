//! inotify in a volume: what a process of the host does there, and what the guest does, each told once.
//!
//! The watcher runs on the host first, and then in a sandbox; what it is told has to be the same. Takes root and python3 (in the
//! container, whose root is the host's); says so where it has to be skipped.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Watches `tree`, `tree/file` and `tree/sub`, writes down each event, and runs the lines that it reads, with its own hands.
const WATCHER: &str = r#"
import ctypes, os, select, struct, sys
c = ctypes.CDLL(None, use_errno=True)
os.chdir(sys.argv[1])
fd = c.inotify_init1(os.O_NONBLOCK)
all_events = 0xfff
watches = {c.inotify_add_watch(fd, name.encode(), all_events): name for name in (".", "file", "sub")}
names = ("access modify attrib close_write close_nowrite open moved_from moved_to create delete delete_self "
         "move_self").split() + [""] * 2 + ["overflow", "ignored"]
cookies = {}
def text(wd, mask, cookie, name):
    words = [names[bit] for bit in range(16) if mask & 1 << bit] + ["dir"] * (mask >> 30 & 1)
    pair = f" #{cookies.setdefault(cookie, len(cookies) + 1)}" if cookie else ""
    return f"{watches[wd]}: {'+'.join(words)} {name}{pair}".rstrip()
print("ready", flush=True)
while True:
    ready = select.select([fd, 0], [], [])[0]
    if fd in ready:
        data = os.read(fd, 65536)
        while data:
            wd, mask, cookie, length = struct.unpack_from("iIII", data)
            print(text(wd, mask, cookie, data[16:16 + length].rstrip(b"\0").decode()), flush=True)
            data = data[16 + length:]
    elif 0 in ready:
        line = os.read(0, 4096)
        if not line:
            break
        exec(line)
"#;

/// What the host's process does, and in the place of `-` what the watcher does itself; each is seen to its end before the next.
const STEPS: &[&str] = &[
    "mkdir made",
    "echo 1 > new",
    "echo 2 >> file",
    "cat file > /dev/null",
    "chmod 600 file",
    "-open('own', 'w').write('x')",
    "-os.rename('own', 'own2')",
    "mv new newer",
    "mv newer ../outside",
    "mv ../outside back",
    "ln file link",
    "ln -s nowhere symlink",
    "-os.mkdir('mine')",
    "-os.mknod('device', 0o20600, os.makedev(1, 3))",
    "mknod device2 c 1 3",
    "-os.chmod('file', 0o644)",
    "-open('file').read()",
    "rmdir made",
    "echo 3 > sub/inner",
    "truncate -s 0 sub/inner",
    "rm sub/inner",
    "rmdir sub",
    "-os.unlink('own2')",
    "echo 4 > other; mv other file",
    "rm link file",
    "-os.rmdir('mine')",
];

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What `watcher` writes while all that is done in `tree`, step by step.
fn watched(mut watcher: Command, tree: &Path) -> Vec<String> {
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(tree.join("file"), "").unwrap();
    let mut child = watcher.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.next().as_deref(), Some("ready"));
    let mut told = Vec::new();
    for step in STEPS {
        told.push(format!("# {step}"));
        match step.strip_prefix('-') {
            Some(own) => input.write_all(format!("{own}; open('done', 'w')\n").as_bytes()).unwrap(),
            None => {
                let script = format!("cd {} && {step} && : > done", tree.display());
                assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success(), "{step}");
            }
        }
        // The end of the step is an event itself, of whoever did it.
        let end = ".: close_write done";
        told.extend(lines.by_ref().take_while(|line| line != end).filter(|line| !line.ends_with(" done")));
        let script = format!("rm {}/done", tree.display());
        assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
        let rest: Vec<String> = lines.by_ref().take_while(|line| line != ".: delete done").collect();
        // Nothing comes late.
        assert_eq!(rest, Vec::<String>::new(), "{step}");
    }
    drop(input);
    child.wait().unwrap();
    told
}

fn compare(flags: &[&str]) {
    if !rustix::process::geteuid().is_root() || Command::new("python3").arg("-V").output().is_err() {
        eprintln!("skipped: takes root and python3");
        return;
    }
    let dir = Directory(std::env::temp_dir().join(format!("moat-watches-{}{}", std::process::id(), flags.concat())));
    let mut native = Command::new("python3");
    native.args(["-c", WATCHER]).arg(dir.0.join("native/tree"));
    let expected = watched(native, &dir.0.join("native/tree"));
    assert!(expected.len() > STEPS.len().saturating_mul(2), "{expected:#?}");
    let mut sandbox = Command::new(env!("CARGO_BIN_EXE_moat"));
    let volume = format!("--volume={}:/mnt", dir.0.join("moat/tree").display());
    sandbox.args(flags).args(["do", &volume, "--", "python3", "-c", WATCHER, "/mnt"]);
    let told = watched(sandbox, &dir.0.join("moat/tree"));
    assert_eq!(told, expected);
}

#[test]
fn what_the_host_does_in_a_volume_is_an_event() {
    compare(&[]);
}

#[test]
fn what_the_host_does_in_a_volume_that_a_gofer_serves_is_an_event() {
    compare(&["--directfs=false"]);
}
