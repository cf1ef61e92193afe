//! What the caller is told when a container cannot be started.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn moat(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moat")).args(args).output().expect("running moat")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A bundle whose config.json is runc's default one with `change` made to it; removed when dropped.
struct Bundle(PathBuf);

impl Bundle {
    fn new(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> Self {
        let path = std::env::temp_dir().join(format!("moat-test-{name}-{}", std::process::id()));
        fs::create_dir_all(path.join("rootfs")).unwrap();
        let mut config = serde_json::json!({
            "ociVersion": "1.0.2",
            "process": {"user": {"uid": 0, "gid": 0}, "args": ["/no/such/program"], "cwd": "/"},
            "root": {"path": "rootfs", "readonly": true},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}]}
        });
        change(&mut config);
        fs::write(path.join("config.json"), config.to_string()).unwrap();
        Bundle(path)
    }

    fn run(&self, flags: &[&str]) -> Output {
        self.run_configured("", flags)
    }

    /// With that configuration file; an empty name for none.
    fn run_configured(&self, file: &str, flags: &[&str]) -> Output {
        let mut args = flags.to_vec();
        let root = self.0.join("state");
        // The id is also the name of a cgroup, of which there is one on the host.
        let id = self.0.file_name().unwrap().to_str().unwrap();
        args.extend(["--root", root.to_str().unwrap(), "run", "--bundle", self.0.to_str().unwrap(), id]);
        let moat = Command::new(env!("CARGO_BIN_EXE_moat")).args(&args).env("MOAT_CONFIG", file).output();
        let output = moat.expect("running moat");
        // Whatever happened, nothing is left.
        assert_eq!(fs::read_dir(&root).map_or(0, Iterator::count), 0);
        output
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_sandbox_says_itself_why_it_could_not_start() {
    let bundle = Bundle::new("start", |_| ());
    let log = bundle.0.join("log.json");
    let output = bundle.run(&["--log", log.to_str().unwrap(), "--log-format", "json"]);
    let text = stderr(&output);
    assert!(!output.status.success());
    assert!(text.starts_with("moat: unable to start container process: exec: \"/no/such/program\": "), "{text}");
    assert_eq!(output.status.code(), Some(127));
    // The log has the same, as container managers read it.
    let log = fs::read_to_string(&log).unwrap();
    let line: serde_json::Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
    assert_eq!(line["level"], "error");
    assert_eq!(format!("moat: {}\n", line["msg"].as_str().unwrap()), text);
}

#[test]
fn a_missing_interpreter_is_not_a_missing_program() {
    let bundle = Bundle::new("interpreter", |config| config["process"]["args"] = serde_json::json!(["/script"]));
    let script = bundle.0.join("rootfs/script");
    fs::write(&script, "#!/no/such/interpreter\n").unwrap();
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let output = bundle.run(&[]);
    let text = stderr(&output);
    assert!(text.contains("interpreter") && text.contains("no such file or directory"), "{text}");
    assert_eq!(output.status.code(), Some(127));
}

#[test]
fn annotations_set_the_flags_that_the_file_allows() {
    let directory = std::env::temp_dir().join(format!("moat-test-annotated-{}.logs/", std::process::id()));
    let logs = directory.to_str().unwrap().to_owned() + "/";
    let bundle = Bundle::new("annotated", |config| {
        config["annotations"] = serde_json::json!({"dev.moat.flag.debug-log": logs, "dev.moat.flag.debug": "true"});
    });
    let refused = stderr(&bundle.run(&[]));
    assert!(refused.contains("the annotation dev.moat.flag.debug"), "{refused}");
    assert!(!directory.exists());

    let file = bundle.0.join("moat.toml");
    let file = file.to_str().unwrap();
    let allow =
        |flags: &str, names: &str| fs::write(file, format!("[flags]\n{flags}\n[annotations]\nallowed = {names}\n"));
    allow("debug = false", r#"["debug", "debug-log"]"#).unwrap();
    bundle.run_configured(file, &["--log", "/dev/null"]);
    let log = fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
    assert!(fs::read_to_string(log).unwrap().contains("isolated"));
    fs::remove_dir_all(&directory).unwrap();
    // A value that makes no sense is the file's fault, and a flag that does not exist too.
    allow("network = \"frob\"", "[]").unwrap();
    let blamed = stderr(&bundle.run_configured(file, &[]));
    assert!(blamed.contains("moat.toml") && blamed.contains("frob"), "{blamed}");
    allow("frob = 1", "[]").unwrap();
    assert!(stderr(&bundle.run_configured(file, &[])).contains("there is no flag \"frob\""));
    // What others could have written is not read.
    fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let open = stderr(&bundle.run_configured(file, &[]));
    assert!(!rustix::process::geteuid().is_root() || open.contains("chmod go-w"), "{open}");
}

#[test]
fn the_debug_log_is_written_by_the_sandbox() {
    let bundle = Bundle::new("debug", |_| ());
    let log = bundle.0.join("%COMMAND%.log");
    bundle.run(&["--debug", "--debug-log", log.to_str().unwrap(), "--log", "/dev/null"]);
    let text = fs::read_to_string(bundle.0.join("run.log")).unwrap();
    assert!(text.contains("isolated"), "{text}");
}

#[test]
fn a_start_says_what_it_takes_its_time_for() {
    let said = |flags: &[&str]| {
        let text = stderr(&moat(&[flags, &["do", "true"]].concat()));
        text.lines().filter(|line| line.starts_with("start-up ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(said(&["--log", "/dev/null"]), [""; 0]);
    // With and without logs beside them, which get none of them.
    for flags in [&["--trace-startup"][..], &["--trace-startup", "--log", "/dev/null", "--debug-log", "/dev/null"]] {
        let lines = said(flags);
        let place = |process: &str, step: &str| {
            let wanted = format!("  {process}: {step}");
            let found = lines.iter().position(|line| line.ends_with(&wanted));
            found.unwrap_or_else(|| panic!("no {wanted:?} in {lines:#?}"))
        };
        let time = |at: usize| lines[at].split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
        let steps = [
            ("moat", "the command line is read"),
            ("moat", "its trees are open"),
            ("moat-sandbox", "its description is read"),
            ("moat-sandbox", "shut in, without privileges"),
            ("moat-sandbox", "the platform has its template"),
            ("moat-sandbox", "file systems are mounted"),
            ("moat-sandbox", "the init's program is loaded"),
            ("moat", "the sandbox is up"),
            ("moat", "the init runs"),
        ];
        let times = steps.map(|(process, step)| time(place(process, step)));
        assert!(times.is_sorted() && times[8] < 60_000_000, "{times:?}");
    }
}

#[test]
fn what_cannot_be_honoured_is_refused_by_name() {
    type Change = fn(&mut serde_json::Value);
    let cases: &[(&str, Change)] = &[
        ("SCMP_ACT_NOTIFY", |c| c["linux"]["seccomp"] = serde_json::json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
        ("linux.intelRdt", |c| c["linux"]["intelRdt"] = serde_json::json!({})),
        ("linux.namespaces", |c| c["linux"]["namespaces"][1]["path"] = "/run/netns/x".into()),
        ("type \"nfs\"", |c| c["mounts"][0]["type"] = "nfs".into()),
        ("process.args", |c| c["process"]["args"] = serde_json::json!([])),
        ("ociVersion", |c| c["ociVersion"] = "2.0.0".into()),
    ];
    for (index, (name, change)) in cases.iter().enumerate() {
        let output = Bundle::new(&format!("refuse{index}"), change).run(&[]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(stderr(&output).contains(name), "{name}: {}", stderr(&output));
    }
}

#[test]
fn bad_ids_and_bundles() {
    let output = moat(&["run", "--bundle", "/does/not/exist", "c1"]);
    assert!(stderr(&output).contains("/does/not/exist"));
    let output = moat(&["run", "--bundle", "/", "a/b"]);
    assert!(stderr(&output).contains("container id"));
    assert!(!Path::new("/a").exists());
}

#[test]
fn version_is_what_docker_parses() {
    let output = moat(&["--version"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    assert!(lines.next().unwrap().starts_with("moat version "), "{text}");
    assert!(lines.next().unwrap().starts_with("commit: "), "{text}");
    assert_eq!(lines.next(), Some("spec: 1.2.0"));
    assert_eq!(lines.next(), Some("platforms: systrap, ptrace"));
}

/// A client may name this program itself as containerd's shim.
#[test]
fn a_shim_is_known_by_its_command_line() {
    let output = moat(&["-namespace", "moby", "-address", "/nowhere", "-id", "x", "nonsense"]);
    assert_eq!(
        (output.status.code(), stderr(&output).as_str()),
        (Some(1), "containerd-shim-moat-v1: unknown command \"nonsense\"\n")
    );
    // No flag of moat's own is taken for one.
    let output = moat(&["-network", "none", "nonsense"]);
    assert!(!stderr(&output).contains("shim"), "{}", stderr(&output));
}
