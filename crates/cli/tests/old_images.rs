//! Images of earlier versions restore: those of `tests/checkpoint/images`, and one that is made here.
//!
//! Each is of `program.c` there, which looks at all that it had. What ties an image to the host that it was made on (features of the
//! processor, the clock, the vDSO, which the program does not use) is replaced; everything else is as the earlier version wrote it.
//! `MOAT_KEEP_IMAGE=NAME` keeps the new image there under that name: for when the schema changes.
//!
//! Takes root; says so where it has to be skipped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use moat_image::directory::{self, Image};
use moat_image::header::{self, KERNEL};
use moat_image::state::VdsoState;
use serde_json::json;

/// Where the images are kept.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoint/images")
}

/// A bundle with the program alone; removed with the value.
struct Bundle(PathBuf);

impl Bundle {
    fn new() -> Bundle {
        let dir = std::env::temp_dir().join(format!("moat-old-images-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        // Others may not add to what is run as root.
        fs::DirBuilder::new().mode(0o700).create(&dir).unwrap();
        fs::create_dir_all(dir.join("bundle/rootfs/tmp")).unwrap();
        let built = Command::new("cc")
            .args([
                "-Os",
                "-ffreestanding",
                "-fno-builtin",
                "-fno-stack-protector",
                "-fno-pie",
                "-fcf-protection=none",
                "-nostdlib",
            ])
            .args(["-static", "-no-pie", "-s", "-fno-asynchronous-unwind-tables"])
            .arg("-Wl,-z,norelro,-z,noseparate-code,--build-id=none")
            .arg("-o")
            .args([dir.join("bundle/rootfs/program"), kept().join("program.c")])
            .status();
        assert!(built.unwrap().success());
        let config = json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/program"], "cwd": "/",
                "capabilities": {"bounding": [], "effective": [], "permitted": []}},
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "network"}]},
        });
        fs::write(dir.join("bundle/config.json"), config.to_string()).unwrap();
        Bundle(dir)
    }

    fn moat(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
        command.args(["--root", self.0.join("state").to_str().unwrap(), "--network=none", "--ignore-cgroups"]);
        command.args(arguments);
        command
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.moat(&["delete", "--force", "c"]).status();
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A container that runs, and who talks to it.
struct Running {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Running { child, stdin, stdout }
    }

    /// Lets the program look at what it has; what it says.
    fn verdict(mut self) -> String {
        // One that could not be started does not read.
        let _ = self.stdin.write_all(b"go\n");
        let mut said = String::new();
        self.stdout.read_to_string(&mut said).unwrap();
        let status = self.child.wait().unwrap();
        format!("{said}{}", if status.success() { "" } else { "it failed" })
    }
}

/// The files of a kept image.
const FILES: [&str; 2] = [directory::STATE, directory::PAGES];

/// Has the image at `place` restored as if it had been made on this host.
fn restore(bundle: &Bundle, place: &str, vdso: VdsoState) -> String {
    let Image { mut header, mut state, pages } = Image::read(directory::open(Path::new(place)).unwrap()).unwrap();
    state.stored().for_each(|stored| pages.verify(&stored).unwrap());
    header.cpu_features = Vec::new();
    state.clocks.monotonic_ns = 1;
    state.vdso = vdso;
    let bytes = header::encode(header, &[(KERNEL, state.encode().unwrap())]).unwrap();
    fs::write(Path::new(place).join(directory::STATE), bytes).unwrap();
    let arguments = ["restore", "--image-path", place, "--bundle", &bundle.path("bundle"), "c"];
    Running::start(bundle.moat(&arguments)).verdict()
}

/// Saves the program while it waits, ended or not.
fn save(bundle: &Bundle, name: &str, flags: &[&str]) {
    let image = bundle.path(name);
    let status = bundle.moat(&["checkpoint", "--image-path", &image]).args(flags).arg("c").status();
    assert!(status.unwrap().success());
}

#[test]
fn images_of_all_versions_restore() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return;
    }
    let bundle = Bundle::new();
    let mut running = Running::start(bundle.moat(&["run", "--bundle", &bundle.path("bundle"), "c"]));
    let mut ready = [0; 6];
    running.stdout.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    // It may not read yet; what it has made is all there.
    save(&bundle, "small", &["--leave-running", "--compression", "zstd"]);
    save(&bundle, "plain", &["--leave-running"]);
    assert_eq!(running.verdict(), "ok\n");
    let vdso = Image::read(directory::open(Path::new(&bundle.path("plain"))).unwrap()).unwrap().state.vdso;
    if let Some(name) = std::env::var_os("MOAT_KEEP_IMAGE") {
        let directory = kept().join(name);
        fs::create_dir(&directory).unwrap();
        for file in FILES {
            let bytes = fs::read(bundle.0.join("small").join(file)).unwrap();
            let kept = File::create(directory.join(file.to_owned() + ".gz")).unwrap();
            let mut kept = GzEncoder::new(kept, Compression::best());
            kept.write_all(&bytes).unwrap();
            kept.finish().unwrap();
        }
    }
    for name in ["plain", "small"] {
        assert_eq!(restore(&bundle, &bundle.path(name), vdso), "ok\n", "{name}");
    }
    let mut restored = 0;
    for entry in fs::read_dir(kept()).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let place = bundle.0.join(entry.file_name());
        fs::create_dir(&place).unwrap();
        for file in FILES {
            let packed = File::open(entry.path().join(file.to_owned() + ".gz")).unwrap();
            std::io::copy(&mut GzDecoder::new(packed), &mut File::create(place.join(file)).unwrap()).unwrap();
        }
        assert_eq!(restore(&bundle, place.to_str().unwrap(), vdso), "ok\n", "{:?}", entry.file_name());
        restored += 1;
    }
    assert!(restored > 0, "there are none in {:?}", kept());
}
