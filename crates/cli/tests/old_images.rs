//! Images of earlier versions restore: those of `tests/checkpoint/images`, and one that is made here.
//!
//! Each is of `program.c` there, which looks at all that it had. What ties an image to the host that it was made on (features of the
//! processor, the clock, the vDSO, which the program does not use) is replaced; everything else is as the earlier version wrote it.
//! `MOAT_KEEP_IMAGE=NAME` keeps the new image there under that name: for when the schema changes.
//!
//! And images that somebody has changed (`MOAT_MUTANTS` says how many) break no sandbox, nor give its processes more than config.json does.
//!
//! Takes root; says so where it has to be skipped.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use moat_image::directory::{self, Image};
use moat_image::header::{self, KERNEL};
use moat_image::state::{
    CredentialsState, NetNamespaceState, PidNamespaceState, UserNamespaceState, UtsNamespaceState, VdsoState,
};
use moat_image::{Ref, SandboxState, Table};
use serde_json::json;

/// Where the images are kept.
fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checkpoint/images")
}

/// A bundle with the program alone; removed with the value.
struct Bundle(PathBuf);

impl Bundle {
    fn new(name: &str) -> Bundle {
        let dir = std::env::temp_dir().join(format!("moat-images-{name}-{}", std::process::id()));
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
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/program"], "cwd": "/", "noNewPrivileges": true,
                "capabilities": {"bounding": [], "effective": [], "permitted": []}},
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "network"}]},
        });
        let bundle = Bundle(dir);
        bundle.configure(&config);
        bundle
    }

    fn configure(&self, config: &serde_json::Value) {
        fs::write(self.0.join("bundle/config.json"), config.to_string()).unwrap();
    }

    fn configuration(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.0.join("bundle/config.json")).unwrap()).unwrap()
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

    /// Lets the program look for so long; what it says, and what is said of it.
    fn within(mut self, time: Duration) -> (String, String) {
        let _ = self.stdin.write_all(b"go\n");
        let deadline = Instant::now() + time;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = self.child.kill();
        let mut said = [String::new(), String::new()];
        self.child.wait().unwrap();
        self.stdout.read_to_string(&mut said[0]).unwrap();
        self.child.stderr.take().map(|mut errors| errors.read_to_string(&mut said[1]).unwrap());
        said.into()
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

/// Saves the program as "plain", and lets nothing of it run on.
fn save_plain(bundle: &Bundle) {
    let mut running = Running::start(bundle.moat(&["run", "--bundle", &bundle.path("bundle"), "c"]));
    let mut ready = [0; 6];
    running.stdout.read_exact(&mut ready).unwrap();
    save(bundle, "plain", &[]);
    drop(running.verdict());
}

/// Unpacks a kept image to `place`.
fn unpack(kept: &Path, place: &Path) {
    fs::create_dir(place).unwrap();
    for file in FILES {
        let packed = File::open(kept.join(file.to_owned() + ".gz")).unwrap();
        std::io::copy(&mut GzDecoder::new(packed), &mut File::create(place.join(file)).unwrap()).unwrap();
    }
}

/// Numbers that look random, the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % below
    }
}

/// Whoever makes an image can make its checksums, too. Whatever is in it: the sandbox says what is wrong, or runs what is there; it does not
/// break down, and goes when it is told to.
#[test]
fn changed_images_break_no_sandbox() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return;
    }
    let bundle = Bundle::new("changed");
    save_plain(&bundle);
    let place = bundle.0.join("plain");
    let Image { header, state, .. } = Image::read(directory::open(&place).unwrap()).unwrap();
    let bytes = state.encode().unwrap();
    let count = std::env::var("MOAT_MUTANTS").ok().and_then(|n| n.parse().ok()).unwrap_or(60);
    let mut numbers = Numbers(1);
    let (mut tried, mut refused, mut whole) = (0, 0, 0);
    for number in 0..count * 20 {
        // What is in an image differs from run to run, and with it what becomes of it: until there was one of each kind.
        if number >= count && refused > 0 && whole > 0 {
            break;
        }
        let mut mutant = bytes.clone();
        for _ in 0..=numbers.next(3) {
            let at = numbers.next(mutant.len());
            mutant[at] = match numbers.next(3) {
                0 => u8::try_from(numbers.next(256)).unwrap(),
                1 => mutant[at] ^ 1 << numbers.next(8),
                _ => mutant[at].wrapping_add(1),
            };
        }
        // Most are no state any more, which the reader's own tests are about.
        if moat_image::SandboxState::decode(&mutant).is_err() {
            continue;
        }
        let file = header::encode(header.clone(), &[(KERNEL, mutant)]).unwrap();
        fs::write(place.join(directory::STATE), file).unwrap();
        let arguments = ["restore", "--image-path", &bundle.path("plain"), "--bundle", &bundle.path("bundle"), "c"];
        let mut command = bundle.moat(&arguments);
        command.stderr(Stdio::piped());
        let (said, errors) = Running::start(command).within(Duration::from_secs(2));
        assert!(!errors.contains("panicked") && !errors.contains("broke down"), "mutant {number}: {errors}");
        tried += 1;
        refused += usize::from(errors.contains("restoring: "));
        whole += usize::from(said == "ok\n");
        let _ = bundle.moat(&["delete", "--force", "c"]).stderr(Stdio::null()).status();
        let left = bundle.moat(&["list", "--quiet"]).output().unwrap();
        assert!(left.stdout.is_empty(), "mutant {number}: {left:?}");
    }
    eprintln!("{tried} are a state: {refused} are refused, {whole} run as before");
    assert!(refused > 0 && whole > 0);
}

/// A user namespace that anybody may make, of the container's root.
fn user_namespace() -> UserNamespaceState {
    UserNamespaceState {
        parent: None,
        owner: (0, 0),
        setfcap: false,
        uids: Some(vec![(0, 0, 1)]),
        gids: Some(vec![(0, 0, 1)]),
        setgroups_denied: true,
    }
}

fn change_credentials(state: &mut SandboxState, change: fn(&mut CredentialsState)) {
    let mut changed = Table::default();
    for saved in state.credentials.iter() {
        let mut saved = saved.clone();
        change(&mut saved);
        changed.push(saved);
    }
    state.credentials = changed;
}

fn uts(user: Option<Ref<UserNamespaceState>>) -> UtsNamespaceState {
    UtsNamespaceState { hostname: b"other".to_vec(), domainname: Vec::new(), user }
}

/// Adds as many pid namespaces, each in the last one.
fn nest_pids(state: &mut SandboxState, count: usize) {
    let user = Some(state.user_namespaces.push(user_namespace()));
    let mut parent = None;
    for _ in 0..count {
        parent = Some(state.pid_namespaces.push(PidNamespaceState { parent, user, last_pid: 0, closed: true }));
    }
}

/// What is done to an image.
type Change = fn(&mut SandboxState);

/// Changes to the image of a program of root without capabilities that can't get any, and what is said of each; nothing where it is to run.
const CHANGES: [(Change, &str); 15] = [
    (|_| (), ""),
    (|s| change_credentials(s, |c| c.fsuid = 1), "does not let it become"),
    (|s| change_credentials(s, |c| c.egid = 1), "does not let it have"),
    (|s| change_credentials(s, |c| c.groups = vec![5]), "does not let it have"),
    // Capabilities are left out without a word.
    (|s| change_credentials(s, |c| c.effective = u64::MAX), ""),
    (|s| _ = s.uts_namespaces.push(uts(None)), "does not let a process make"),
    (|s| _ = s.net_namespaces.push(NetNamespaceState { user: None, loopback_up: false, settings: Vec::new() }), "make"),
    (
        |s| {
            let user = s.user_namespaces.push(user_namespace());
            s.uts_namespaces.push(uts(Some(user)));
        },
        "",
    ),
    (
        |s| {
            let user = s.user_namespaces.push(user_namespace());
            s.uts_namespaces.push(UtsNamespaceState { hostname: vec![b'a'; 65], ..uts(Some(user)) });
        },
        "a host or domain name of 65 bytes",
    ),
    (
        |s| _ = s.user_namespaces.push(UserNamespaceState { owner: (7, 0), ..user_namespace() }),
        "does not let a process be",
    ),
    (
        |s| _ = s.user_namespaces.push(UserNamespaceState { uids: Some(vec![(0, 0, 65536)]), ..user_namespace() }),
        "does not let a process write",
    ),
    (
        |s| _ = s.user_namespaces.push(UserNamespaceState { gids: Some(vec![(0, 5, 1)]), ..user_namespace() }),
        "does not let a process write",
    ),
    // One that is its own parent.
    (
        |s| _ = s.user_namespaces.push(UserNamespaceState { parent: Some(Ref::FIRST), ..user_namespace() }),
        "user namespace",
    ),
    (|s| nest_pids(s, 5), ""),
    (|s| nest_pids(s, 40), "a namespace: "),
];

#[test]
fn images_give_no_more_than_the_configuration() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return;
    }
    let bundle = Bundle::new("bounds");
    let place = bundle.0.join("plain");
    let restore = |change: Change| {
        let Image { header, mut state, .. } = Image::read(directory::open(&place).unwrap()).unwrap();
        let kept = fs::read(place.join(directory::STATE)).unwrap();
        change(&mut state);
        let file = header::encode(header, &[(KERNEL, state.encode().unwrap())]).unwrap();
        fs::write(place.join(directory::STATE), file).unwrap();
        let arguments = ["restore", "--image-path", &bundle.path("plain"), "--bundle", &bundle.path("bundle"), "c"];
        let mut command = bundle.moat(&arguments);
        command.stderr(Stdio::piped());
        let said = Running::start(command).within(Duration::from_secs(20));
        fs::write(place.join(directory::STATE), kept).unwrap();
        said
    };
    save_plain(&bundle);
    for (number, (change, refused)) in CHANGES.iter().enumerate() {
        let (said, errors) = restore(*change);
        if refused.is_empty() {
            assert_eq!(said, "ok\n", "change {number}: {errors}");
        } else {
            assert!(
                said.is_empty() && errors.contains("restoring: ") && errors.contains(refused),
                "{number}: {errors}"
            );
        }
    }
    // What a process may do without a profile it may not where one forbids it.
    let mut config = bundle.configuration();
    config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{"names": ["unshare", "clone3"], "action": "SCMP_ACT_ERRNO"}, {"names": ["clone"], "action": "SCMP_ACT_ERRNO",
            "args": [{"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x1000_0000, "valueTwo": 0x1000_0000}]}],
    });
    bundle.configure(&config);
    fs::remove_dir_all(&place).unwrap();
    save_plain(&bundle);
    let (said, errors) = restore(|_| ());
    assert_eq!(said, "ok\n", "{errors}");
    let (said, errors) = restore(|s| _ = s.user_namespaces.push(user_namespace()));
    assert!(said.is_empty() && errors.contains("profile does not let a process make"), "{errors}");
}

#[test]
fn images_of_all_versions_restore() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return;
    }
    let bundle = Bundle::new("old");
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
        unpack(&entry.path(), &place);
        assert_eq!(restore(&bundle, place.to_str().unwrap(), vdso), "ok\n", "{:?}", entry.file_name());
        restored += 1;
    }
    assert!(restored > 0, "there are none in {:?}", kept());
}
