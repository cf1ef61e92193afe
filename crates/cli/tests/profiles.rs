//! `moat debug --profile-*`, traces and summaries: what is in the files, read by the decoder of another program, for containers that do little else than
//! one thing.
//!
//! The test program runs itself with [`ROLE`] set, as the container's init.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use pprof::protos::{Message, Profile};
use serde_json::{Value, json};

const ROLE: &str = "MOAT_PROFILES_TEST_ROLE";

/// The container's part. Without [`ROLE`] it is a test that passes.
#[test]
fn role() {
    match std::env::var(ROLE).as_deref() {
        Ok("zeros") => loop {
            File::open("/dev/zero").unwrap().take(64 << 20).read_exact(&mut vec![0; 64 << 20]).unwrap();
        },
        Ok("own-code") => spin_in_own_code(u64::MAX),
        Ok("overflow") => assert!(overflow(1) > 0),
        Ok("brief") => {
            // By its own clock: other tests may have the CPUs.
            while rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime).tv_sec < 1 {
                spin_in_own_code(1_000_000);
                File::open("/dev/zero").unwrap().take(16 << 20).read_exact(&mut vec![0; 16 << 20]).unwrap();
            }
            thread::sleep(Duration::from_millis(300));
        }
        Ok("reader") => {
            let (mut ours, _theirs) = UnixStream::pair().unwrap();
            ours.read_exact(&mut [0]).unwrap();
        }
        Ok("allocations") => {
            let (mut ours, mut theirs) = UnixStream::pair().unwrap();
            let bytes = vec![1; 64 << 10];
            loop {
                ours.write_all(&bytes).unwrap();
                theirs.read_exact(&mut vec![0; 64 << 10]).unwrap();
            }
        }
        Ok("one-position") => {
            let mut file =
                File::options().read(true).write(true).create(true).truncate(true).open("/tmp/file").unwrap();
            file.write_all(&vec![1; 8 << 20]).unwrap();
            let file = Arc::new(file);
            let readers = [file.clone(), file].map(|file| {
                thread::spawn(move || {
                    let mut bytes = vec![0; 8 << 20];
                    loop {
                        (&*file).seek(SeekFrom::Start(0)).unwrap();
                        let _ = (&*file).read(&mut bytes).unwrap();
                    }
                })
            });
            readers.into_iter().for_each(|reader| reader.join().unwrap());
        }
        _ => {}
    }
}

#[inline(never)]
fn spin_in_own_code(times: u64) {
    for n in 0..times {
        std::hint::black_box(n);
    }
}

/// Runs into the page below the stack.
#[expect(unconditional_recursion)]
fn overflow(n: u64) -> u64 {
    std::hint::black_box([n; 100])[1] + overflow(n + 1)
}

/// A container whose init plays a role; removed when dropped.
struct Container {
    directory: PathBuf,
    id: String,
}

impl Container {
    fn run(role: &str, platform: &str) -> Container {
        // Several tests may want the same role at a time.
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let id = format!("moat-profiles-{}-{role}-{platform}-{number}", std::process::id());
        let container = Container { directory: std::env::temp_dir().join(&id), id };
        fs::create_dir_all(&container.directory).unwrap();
        let program = std::env::current_exe().unwrap();
        let config = json!({
            "ociVersion": "1.2.0",
            "root": { "path": "/", "readonly": true },
            "process": {
                "args": [program, "--exact", "role", "--nocapture"],
                "cwd": "/",
                "env": [format!("{ROLE}={role}")],
                "user": { "uid": 0, "gid": 0 },
            },
            "mounts": [{ "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" }],
            "linux": { "namespaces": [{ "type": "pid" }, { "type": "network" }, { "type": "mount" }] },
        });
        // Below /tmp, which the container covers, the program would not be found.
        assert!(!program.starts_with("/tmp"), "{}", program.display());
        fs::write(container.directory.join("config.json"), config.to_string()).unwrap();
        let bundle = container.directory.to_str().unwrap().to_owned();
        let output = container.moat(&["--platform", platform, "run", "-d", "--bundle", &bundle, &container.id]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        container
    }

    fn moat(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
        command.arg("--root").arg(self.directory.join("state")).args(args);
        // A detached container keeps what it has got as stdio.
        let log = self.directory.join("log");
        let (out, err) = (File::create(self.directory.join("out")).unwrap(), File::create(&log).unwrap());
        let status = command.stdin(File::open("/dev/null").unwrap()).stdout(out).stderr(err).status().unwrap();
        Output { status, stdout: Vec::new(), stderr: fs::read(log).unwrap() }
    }

    /// Makes a profile; gives what is in the file.
    fn profile(&self, kind: &str) -> Seen {
        let file = self.directory.join(format!("{kind}.pb.gz"));
        let (flag, path) = (format!("--profile-{kind}"), file.to_str().unwrap().to_owned());
        let output = self.moat(&["debug", &flag, &path, "--duration", "1s", &self.id]);
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
        Seen::read(&file)
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.moat(&["delete", "--force", &self.id]);
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A decoded profile.
struct Seen(Profile);

impl Seen {
    fn read(file: &Path) -> Seen {
        let mut bytes = Vec::new();
        flate2::read::GzDecoder::new(File::open(file).unwrap()).read_to_end(&mut bytes).unwrap();
        Seen(Profile::decode(bytes.as_slice()).unwrap())
    }

    fn text(&self, index: i64) -> &str {
        &self.0.string_table[usize::try_from(index).unwrap()]
    }

    fn columns(&self) -> Vec<(&str, &str)> {
        self.0.sample_type.iter().map(|t| (self.text(t.ty), self.text(t.unit))).collect()
    }

    /// The stacks, outermost name first and joined with `;`, and their values.
    fn stacks(&self) -> Vec<(String, Vec<i64>)> {
        let function = |id: u64| self.0.function.iter().find(|f| f.id == id).map(|f| self.text(f.name)).unwrap();
        let names = |id: &u64| {
            let location = self.0.location.iter().find(|l| l.id == *id).unwrap();
            location.line.iter().map(|line| function(line.function_id)).collect::<Vec<_>>()
        };
        let stack = |ids: &[u64]| {
            let mut all: Vec<&str> = ids.iter().flat_map(names).collect();
            all.reverse();
            all.join(";")
        };
        self.0.sample.iter().map(|sample| (stack(&sample.location_id), sample.value.clone())).collect()
    }

    /// The sum of a column over the stacks that have all of `parts`.
    fn sum(&self, column: usize, parts: &[&str]) -> i64 {
        let stacks = self.stacks();
        let wanted = stacks.iter().filter(|(stack, _)| parts.iter().all(|part| stack.contains(part)));
        wanted.map(|(_, values)| values[column]).sum()
    }
}

const PLATFORMS: [&str; 2] = ["systrap", "ptrace"];

fn skipped() -> bool {
    let skipped = !rustix::process::geteuid().is_root();
    if skipped {
        eprintln!("skipped: the mounts of a container take root");
    }
    skipped
}

#[test]
fn a_cpu_profile_has_the_handler_of_the_call_that_is_made() {
    if skipped() {
        return;
    }
    for platform in PLATFORMS {
        let container = Container::run("zeros", platform);
        // Other tests may have the CPUs.
        let mut profiles = (0..10).map(|_| container.profile("cpu"));
        let seen = profiles.find(|seen| seen.sum(1, &[]) > 200_000_000).unwrap();
        assert_eq!(seen.columns(), [("samples", "count"), ("cpu", "nanoseconds")]);
        let (all, reads) = (seen.sum(1, &[]), seen.sum(1, &["moat_syscalls::fs::io::read"]));
        assert!(reads * 2 > all, "{platform}: {reads} of {all}: {:#?}", seen.stacks());
        let file = seen.0.location.iter().flat_map(|l| &l.line).any(|line| line.line > 0);
        assert!(file, "lines are known");
        assert!(seen.0.mapping.iter().any(|m| seen.text(m.filename) == "moat" && m.build_id != 0));
    }
}

#[test]
fn a_cpu_profile_has_the_guest_s_own_functions() {
    if skipped() {
        return;
    }
    for platform in PLATFORMS {
        let container = Container::run("own-code", platform);
        let mut profiles = (0..10).map(|_| container.profile("cpu"));
        let seen = profiles.find(|seen| seen.sum(1, &[]) > 200_000_000).unwrap();
        let (all, own) = (seen.sum(1, &[]), seen.sum(1, &["guest;", "spin_in_own_code"]));
        assert!(own * 3 > all * 2, "{platform}: {own} of {all}: {:#?}", seen.stacks());
        // By the unwind tables of the guest's program.
        assert!(seen.sum(1, &["guest;", "thread_start;", "spin_in_own_code"]) > 0, "{:#?}", seen.stacks());
        let drawn = container.directory.join("cpu.svg");
        let args = ["debug", "--flamegraph", drawn.to_str().unwrap(), "--duration", "1s", &container.id];
        let output = container.moat(&args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let drawn = fs::read_to_string(drawn).unwrap();
        assert!(drawn.contains("<svg") && drawn.contains("spin_in_own_code"));
    }
}

#[test]
fn tasks_and_their_waits_are_named() {
    if skipped() {
        return;
    }
    for platform in PLATFORMS {
        let container = Container::run("reader", platform);
        let waits = container.profile("block");
        assert_eq!(waits.columns(), [("waits", "count"), ("delay", "nanoseconds")]);
        // It has waited for all of the time; the harness's main thread has waited for it.
        let read = waits.sum(1, &["recvfrom"]) + waits.sum(1, &["read"]);
        assert!((200_000_000..10_000_000_000).contains(&read), "{platform}: {:#?}", waits.stacks());
        let tasks = container.profile("tasks");
        assert_eq!(tasks.columns(), [("tasks", "count")]);
        assert!(tasks.sum(0, &["container moat-profiles-", "[1]"]) >= 1, "{platform}: {:#?}", tasks.stacks());
        assert!(tasks.sum(0, &["read"]) + tasks.sum(0, &["recvfrom"]) >= 1, "{platform}: {:#?}", tasks.stacks());
        assert!(tasks.sum(0, &["sentry;executor"]) >= 1);
    }
}

#[test]
fn a_heap_profile_has_what_allocates() {
    if skipped() {
        return;
    }
    let seen = Container::run("allocations", "systrap").profile("heap");
    assert_eq!(seen.columns().last(), Some(&("inuse_space", "bytes")));
    let bytes = seen.sum(1, &["moat_syscalls"]);
    assert!(bytes > 1 << 20, "{bytes}: {:#?}", seen.stacks());
    // What a socket holds is given back when it is read.
    assert!(seen.sum(3, &["moat_syscalls"]) * 2 < bytes, "{:#?}", seen.stacks());
}

#[test]
fn a_mutex_profile_has_class_and_place() {
    if skipped() {
        return;
    }
    if thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("skipped: with one CPU there is one worker, which waits for nobody");
        return;
    }
    let container = Container::run("one-position", "systrap");
    let seen = container.profile("mutex");
    assert_eq!(seen.columns(), [("contentions", "count"), ("delay", "nanoseconds")]);
    let stacks = seen.stacks();
    let contended = stacks.iter().find(|(stack, _)| stack.contains("FilePosition;") && stack.contains(".rs:"));
    assert!(contended.is_some_and(|(_, values)| values[0] > 0 && values[1] > 0), "{stacks:#?}");
    // A trace has the same waits one by one, from 10 us on. On a host that is busy half a second may see none.
    let path = container.directory.join("trace.json");
    let trace = |_| {
        let to = path.to_str().unwrap();
        let output = container.moat(&["debug", "--trace", to, "--duration", "500ms", &container.id]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Trace::read(&path).of("lock").into_iter().cloned().collect::<Vec<Value>>()
    };
    let locks = (0..20).map(trace).find(|locks| locks.iter().any(|lock| lock["name"] == "lock FilePosition"));
    let locks = locks.expect("none of 20 traces has a wait");
    assert!(locks.iter().all(|lock| lock["dur"].as_f64() >= Some(10.0)), "{locks:#?}");
}

/// A directory that goes with the value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("moat-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Directory(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a role by `moat do`.
fn run_role(role: &str, flags: &[&str]) -> Output {
    let program = std::env::current_exe().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_moat"));
    command.arg("do").args(flags).args(["--env", &format!("{ROLE}={role}")]).arg(program);
    command.args(["--exact", "role", "--nocapture"]).output().unwrap()
}

#[test]
fn a_command_is_profiled_from_beginning_to_end() {
    let directory = Directory::new("do-profiles");
    let kinds = ["cpu", "heap", "tasks", "block", "mutex"];
    let path = |kind: &str| directory.0.join(kind);
    let flags: Vec<String> = kinds.iter().map(|kind| format!("--profile-{kind}={}", path(kind).display())).collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let output = run_role("brief", &flags);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let [cpu, heap, tasks, block, mutex] = kinds.map(|kind| Seen::read(&path(kind)));
    assert!(cpu.sum(1, &["guest;", "spin_in_own_code"]) > 100_000_000, "{:#?}", cpu.stacks());
    assert!(cpu.sum(1, &["moat_syscalls::fs::io::read"]) > 0, "{:#?}", cpu.stacks());
    assert_eq!(heap.columns().last(), Some(&("inuse_space", "bytes")));
    // What was seen last: the harness waits for the thread that has the role.
    assert!(tasks.sum(0, &["container do-", "[1]"]) >= 1, "{:#?}", tasks.stacks());
    assert!((300_000_000..20_000_000_000).contains(&block.sum(1, &["nanosleep"])), "{:#?}", block.stacks());
    assert_eq!(mutex.columns(), [("contentions", "count"), ("delay", "nanoseconds")]);
    // A graph, of one of them or of the CPU time.
    let drawn = directory.0.join("cpu.svg");
    let flag = format!("--flamegraph={}", drawn.display());
    let output = run_role("brief", &[&flag]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read_to_string(drawn).unwrap().contains("spin_in_own_code"));
    let output = run_role("brief", &[&flags[..2], &[&flag]].concat());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && text.contains("--flamegraph draws one profile"), "{text}");
}

#[test]
fn a_trace_has_faults_with_their_addresses() {
    let directory = Directory::new("fault-trace");
    let path = directory.0.join("trace.json");
    let output = run_role("overflow", &["--trace", path.to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("overflowed its stack"), "{output:?}");
    let trace = Trace::read(&path);
    let faults = trace.of("fault");
    // 14 is the page fault.
    let fault = faults.iter().find(|fault| fault["args"]["exception"] == 14).unwrap_or_else(|| panic!("{faults:#?}"));
    let address = fault["args"]["address"].as_str().unwrap().strip_prefix("0x").unwrap();
    assert!(u64::from_str_radix(address, 16).unwrap() > 1 << 20, "{fault}");
    assert!(trace.of("signal").iter().any(|signal| signal["name"] == "SIGSEGV"));
}

/// The events of a trace, by category.
struct Trace(Vec<Value>);

impl Trace {
    fn read(path: &Path) -> Trace {
        let mut all: Value = serde_json::from_reader(File::open(path).unwrap()).unwrap();
        let Value::Array(events) = all["traceEvents"].take() else { panic!("no events") };
        Trace(events)
    }

    fn of(&self, category: &str) -> Vec<&Value> {
        self.0.iter().filter(|event| event["cat"] == category).collect()
    }

    /// Spans of one track lie side by side or in each other.
    fn check_nesting(&self) {
        let mut spans: Vec<(u64, u64, u64)> = Vec::new();
        for event in self.0.iter().filter(|event| event["ph"] == "X" && event["cat"] != "worker") {
            // Nanoseconds, since fractions of microseconds are not exact.
            let ns = |field: &str| (event[field].as_f64().unwrap() * 1000.0).round() as u64;
            spans.push((event["tid"].as_u64().unwrap(), ns("ts"), ns("ts") + ns("dur")));
        }
        spans.sort_by_key(|(track, start, end)| (*track, *start, std::cmp::Reverse(*end)));
        let mut open: Vec<(u64, u64, u64)> = Vec::new();
        for span in spans {
            // A float of this size is exact to some ns.
            open.retain(|(track, _, end)| *track == span.0 && *end > span.1 + 100);
            assert!(open.iter().all(|(_, _, end)| span.2 <= end + 100), "{span:?} in {open:?}");
            open.push(span);
        }
    }
}

#[test]
fn a_trace_has_calls_waits_and_who_ended_them() {
    for platform in PLATFORMS {
        let name = format!("moat-trace-{}-{platform}.json", std::process::id());
        let path = std::env::temp_dir().join(name);
        let output = Command::new(env!("CARGO_BIN_EXE_moat"))
            .args(["--platform", platform, "do", "--summary", "--trace", path.to_str().unwrap()])
            .args(["sh", "-c", "sleep 0.05 & wait; kill -CHLD $$; cat /nonexistent"])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let trace = Trace::read(&path);
        fs::remove_file(&path).unwrap();
        let calls = trace.of("syscall");
        assert!(calls.iter().any(|call| call["name"] == "openat" && call["args"]["result"] == "-1 ENOENT"));
        let write = calls.iter().find(|call| call["name"] == "write").unwrap();
        assert!(write["args"]["args"][0] == "0x2" && write["args"]["result"].as_i64() > Some(0), "{write}");
        let waits = trace.of("wait");
        assert!(
            waits.iter().any(|wait| wait["name"] == "do_wait" && !wait["args"]["woken_by"].is_null()),
            "{waits:#?}"
        );
        let slept = waits.iter().find(|wait| wait["name"] == "hrtimer_nanosleep").unwrap();
        assert!(slept["dur"].as_f64() > Some(49_000.0) && slept["args"]["woken_by"].is_null(), "{slept}");
        assert!(trace.of("signal").iter().any(|signal| signal["name"] == "SIGCHLD"));
        let (guest, workers) = (trace.of("guest"), trace.of("worker"));
        assert!(!guest.is_empty());
        // What a worker is busy with is a task of the trace.
        let tasks: Vec<&Value> = guest.iter().map(|span| &span["tid"]).collect();
        assert!(workers.iter().any(|span| tasks.contains(&&span["args"]["task"])), "{workers:#?}");
        // The ways between the code and the sentry, where the platform knows them.
        let ways = trace.of("hand-off");
        if platform == "systrap" {
            let of = |name: &str| ways.iter().filter(|way| way["name"] == name).count();
            let (to, from) = (of("to application code"), of("from application code"));
            assert!(to * 10 > guest.len() * 9 && from * 10 > guest.len() * 9, "{to}, {from} of {}", guest.len());
            assert!(ways.iter().all(|way| way["dur"].as_f64() > Some(0.0)), "{ways:#?}");
            let told = |way: &str| ways.iter().filter(|span| span["args"]["way"] == way).count();
            assert_eq!(told("doorbell") + told("memory"), from);
        } else {
            assert!(ways.is_empty());
        }
        let named =
            |name: &str| trace.0.iter().any(|e| e["args"]["name"].as_str().is_some_and(|n| n.starts_with(name)));
        assert!(named("sh [") && named("sleep [") && named("sentry"));
        trace.check_nesting();
        // The table: a call that fails, its name last; and where the time went.
        let line = |end: &str| text.lines().find(|line| line.ends_with(end)).unwrap_or_else(|| panic!("{end}: {text}"));
        let open: Vec<&str> = line(" openat").split_whitespace().collect();
        let (made, failed): (u64, u64) = (open[3].parse().unwrap(), open[4].parse().unwrap());
        assert!(made > failed && failed >= 1, "{text}");
        let counted = calls.iter().filter(|call| call["name"] == "openat").count() as u64;
        assert_eq!(made, counted);
        let share = |name: &str| {
            let line = text.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().trim_end_matches('%').parse::<f64>().unwrap()
        };
        let shares = ["guest", "hand-off", "sentry", "host"].map(share);
        assert!((99.0..=100.1).contains(&shares.iter().sum::<f64>()), "{shares:?}: {text}");
    }
}

#[test]
fn a_running_container_is_traced_for_a_time() {
    if skipped() {
        return;
    }
    let container = Container::run("allocations", "systrap");
    let path = container.directory.join("trace.json");
    let output = container.moat(&["debug", "--trace", path.to_str().unwrap(), "--duration", "300ms", &container.id]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let trace = Trace::read(&path);
    let calls = trace.of("syscall");
    let written = calls.iter().filter(|call| call["args"]["result"] == 64 << 10).count();
    assert!(written > 10, "{written} of {}", calls.len());
    trace.check_nesting();
}
