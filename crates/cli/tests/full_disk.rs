//! Full file systems of the host below a volume: guests get the errors, and have written the parts, that programs of the host have.
//!
//! Takes root, for the file systems, and python3 (in the container, whose root is the host's); says so where it has to be skipped.
//! `tests/files/full.py` runs natively first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PROGRAM: &str = include_str!("../../../tests/files/full.py");

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Makes the file system at `$PLACE`, in a mount namespace that ends with the command that follows.
const TMPFS: &str = "mount -t tmpfs -o size=1m,nr_inodes=60 small $PLACE";
const EXT4: &str = "truncate -s 4M $IMAGE && mkfs.ext4 -q -m 0 -N 64 $IMAGE && mount -o loop $IMAGE $PLACE";

/// What the program says on a new file system, run by `command`, in which `$PLACE` is the directory.
fn run(dir: &Path, mount: &str, command: &str) -> Option<String> {
    let script = format!("{mount} >&2 || exit 77; exec {command}");
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("PLACE", dir.join("place"))
        .env("IMAGE", dir.join("image"))
        .env("PROGRAM", PROGRAM)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.code() == Some(77) {
        eprintln!("skipped: {}", text(&output.stderr));
        return None;
    }
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    Some(text(&output.stdout))
}

/// As natively on `mount`, directly and by a gofer.
fn same_as_natively(name: &str, mount: &str) {
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    if !rustix::process::geteuid().is_root() || !python.is_ok_and(|status| status.success()) {
        eprintln!("skipped: takes root and python3");
        return;
    }
    let dir = Directory(std::env::temp_dir().join(format!("moat-full-{name}-{}", std::process::id())));
    fs::create_dir_all(dir.0.join("place")).unwrap();
    let Some(natively) = run(&dir.0, mount, "python3 -c \"$PROGRAM\" $PLACE") else { return };
    assert!(natively.contains("one more byte ENOSPC"), "{natively}");
    let moat = env!("CARGO_BIN_EXE_moat");
    for files in ["--directfs=true", "--directfs=false"] {
        let sandboxed = format!("{moat} {files} do --volume=$PLACE:/mnt -- python3 -c \"$PROGRAM\" /mnt");
        let said = run(&dir.0, mount, &sandboxed).expect("mounted before");
        assert_eq!(said, natively, "{files}");
    }
}

#[test]
fn a_full_tmpfs() {
    same_as_natively("tmpfs", TMPFS);
}

#[test]
fn a_full_disk() {
    same_as_natively("ext4", EXT4);
}
