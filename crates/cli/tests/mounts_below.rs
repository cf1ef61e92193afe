//! A volume in which the host has mounted another file system: guests see two, as programs of the host do.
//!
//! Takes root, for the mount; says so where it has to be skipped. The same commands run natively first.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// In the volume: a directory `d` on a small tmpfs, and files on either. Names, numbers of blocks and errors are the same everywhere.
const PROGRAM: &str = r#"
cd "$1"
stat -f -c '%n %T %b' . d d/b
[ "$(stat -c %d .)" = "$(stat -c %d a)" ] && [ "$(stat -c %d d)" = "$(stat -c %d d/b)" ] && [ "$(stat -c %d .)" != "$(stat -c %d d)" ] && echo two devices
find . -xdev | sort
ln a d/a 2>&1
mv -n a d/c && mv -n d/c a && sync -f d/b && sync d && sync && ls . d
head -c 2000000 /dev/zero > d/b; cat d/b | wc -c; stat -c %s d/b
"#;

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What the program says, run by `command`, with `$PLACE` as the volume.
fn run(place: &Path, command: &str) -> String {
    let script = format!(
        "mount -t tmpfs outer $PLACE && mkdir $PLACE/d && mount -t tmpfs -o size=1m small $PLACE/d && \
         touch $PLACE/a $PLACE/d/b && exec {command}"
    );
    let output = Command::new("unshare")
        .args(["--mount", "sh", "-c", &script])
        .env("PLACE", place)
        .env("PROGRAM", PROGRAM)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{command}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn a_mount_in_a_volume_is_a_file_system_of_its_own() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return;
    }
    let dir = Directory(std::env::temp_dir().join(format!("moat-below-{}", std::process::id())));
    std::fs::create_dir_all(&dir.0).unwrap();
    let natively = run(&dir.0, "sh -c \"$PROGRAM\" sh $PLACE");
    assert!(natively.contains("d tmpfs 256\nd/b tmpfs 256\ntwo devices\n.\n./a\n./d\nln: "), "{natively}");
    let moat = env!("CARGO_BIN_EXE_moat");
    for files in ["--directfs=true", "--directfs=false"] {
        let sandboxed = format!("{moat} {files} do --volume=$PLACE:/mnt --env LC_ALL=C -- sh -c \"$PROGRAM\" sh /mnt");
        assert_eq!(run(&dir.0, &sandboxed), natively, "{files}");
    }
}
