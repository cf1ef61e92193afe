//! A sandbox whose kernel fails, or whose threads are held: what is said of it, and where. Its mishaps are asked for by `MOAT_MISHAP`, which only
//! builds with debug assertions know, as the program of these tests is.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use moat_profile::image::Image;
use moat_profile::symbols::Symbols;

use crate::bundle::{Bundle, is_root, wait_for};

/// Makes some calls, and then the one that goes wrong.
const SCRIPT: &str = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); cat /etc/hostname >/dev/null; done; exec sync";

fn moat_do(platform: &str, mishap: &str, flags: &[&str], script: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
    command.args(["--platform", platform]).args(flags).args(["do", "sh", "-c", script]).env("MOAT_MISHAP", mishap);
    command.output().unwrap()
}

/// The file that an error names.
fn named(text: &str) -> PathBuf {
    let (_, rest) = text.split_once("the report is in ").unwrap_or_else(|| panic!("no place: {text}"));
    rest.lines().next().unwrap().into()
}

/// That `text` is a report of the panic in sync(2).
fn check_report(text: &str) {
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("moat {} failed", env!("CARGO_PKG_VERSION")), "{text}");
    let busy = lines[1].strip_prefix("busy with thread ").unwrap_or_else(|| panic!("{text}"));
    let (thread, process) = busy.split_once(" of process ").unwrap();
    let (thread, process): (i32, i32) = (thread.parse().unwrap(), process.parse().unwrap());
    assert!(thread > 0 && thread == process, "{text}");
    // One worker may have had few of the calls; 100 are the most.
    let calls: Vec<&str> = lines.iter().skip(3).take_while(|line| line.starts_with("  [")).copied().collect();
    assert_eq!(lines[2], format!("its last {} system calls, the newest last:", calls.len()), "{text}");
    assert!((1..=100).contains(&calls.len()), "{text}");
    assert!(calls.last().unwrap().starts_with(&format!("  [{process}/{thread}] sync(")), "{text}");
    // The addresses are those of this program: its symbols name who panicked.
    let id = lines.iter().find_map(|line| line.strip_prefix("calls, in the program with build id ")).unwrap();
    let id = id.trim_end_matches(':');
    let id: Vec<u8> = (0..id.len() / 2).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
    let image = Image::read(Path::new(env!("CARGO_BIN_EXE_moat")), &id, None).expect("another build id");
    let symbols = Symbols::of(&image);
    let addresses = lines.iter().filter_map(|line| line.strip_prefix("  moat 0x"));
    let places: Vec<_> = addresses.flat_map(|address| symbols.at(u64::from_str_radix(address, 16).unwrap())).collect();
    for (function, file) in
        [("meet", "kernel/src/mishap.rs"), ("async_fn", "task/run.rs"), ("work", "sync/src/executor.rs")]
    {
        let found = places.iter().any(|place| place.function.contains(function) && place.file.ends_with(file));
        assert!(found, "{function}: {:#?}", places.iter().map(|p| (&p.function, &p.file)).collect::<Vec<_>>());
    }
    assert!(text.contains("a mishap that was asked for") && text.contains("crates/kernel/src/mishap.rs:"), "{text}");
    assert!(text.contains("in thread "), "{text}");
}

#[test]
fn a_panic_leaves_a_report_where_the_error_says() {
    for platform in ["systrap", "ptrace"] {
        let output = moat_do(platform, "panic:sync", &[], SCRIPT);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success(), "{text}");
        assert!(text.contains("the sandbox died while it ran: exit code "), "{text}");
        // The error has the end of it, Rust's words.
        assert!(text.contains("\npanicked at crates/kernel/src/mishap.rs:"), "{text}");
        assert!(text.contains("a mishap that was asked for") && !text.contains("  ["), "{text}");
        let path = named(&text);
        let report = fs::read_to_string(&path).unwrap();
        fs::remove_file(&path).unwrap();
        check_report(&report);
    }
}

#[test]
fn a_report_is_where_the_caller_wants_it() {
    let path = std::env::temp_dir().join(format!("moat-report-{}", std::process::id()));
    fs::write(&path, "what was there before\n").unwrap();
    let flag = format!("--panic-log={}", path.display());
    let output = moat_do("systrap", "panic:sync", &[&flag], SCRIPT);
    let text = String::from_utf8(output.stderr).unwrap();
    let report = fs::read_to_string(&path).unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(named(&text), path, "{text}");
    assert!(!text.contains("what was there before"), "{text}");
    check_report(report.strip_prefix("what was there before\n").unwrap());
}

#[test]
fn a_container_that_has_failed_says_where_its_report_is() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("failed", &["--ignore-cgroups"], "sleep 0.3; exec sync", |_| {});
    let path = bundle.dir.join("bundle");
    let mut run = bundle.command();
    run.args(["run", "--detach", "--bundle", path.to_str().unwrap(), &bundle.id]).env("MOAT_MISHAP", "panic:sync");
    let output = fs::File::create(bundle.dir.join("run")).unwrap();
    assert!(run.stdout(output.try_clone().unwrap()).stderr(output).status().unwrap().success());
    let error = wait_for("the end", || {
        let (success, _, error) = bundle.moat(&["debug", "--stacks", &bundle.id]);
        (!success).then_some(error)
    });
    let (_, place) = error.split_once("its kernel failed, see ").unwrap_or_else(|| panic!("{error}"));
    let place = place.trim().trim_end_matches('"');
    check_report(&fs::read_to_string(place).unwrap_or_else(|why| panic!("{place}: {why}")));
    assert!(bundle.text(&["state", &bundle.id]).contains("\"stopped\""));
}

#[test]
fn a_task_that_holds_a_worker_is_named() {
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped: with one CPU there is one worker, and nobody to look at it");
        return;
    }
    let log = std::env::temp_dir().join(format!("moat-held-{}", std::process::id()));
    let flag = format!("--debug-log={}", log.display());
    let output = moat_do("systrap", "hold:sync", &[&flag], "echo $$; exec sync");
    let text = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("a task holds a thread of the executor")).collect();
    let [line] = &lines[..] else { panic!("{text}") };
    let pid = String::from_utf8(output.stdout).unwrap();
    assert!(line.contains("ERROR") && line.contains(&format!("process={}", pid.trim())), "{line}");
}
