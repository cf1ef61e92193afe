//! What checkpoints, restores and clones take, by the size of what is saved.
//!
//! A program says when it has not run for a while (`benches/heap.c`): so a restore is measured up to the moment at which the program
//! goes on, and a checkpoint of one that goes on also by how long it stood still.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::table::Table;
use super::{guest_root, idle};
use crate::test::{Files, Job, Network, Place, Platform, Prepared, RootKind, Runner, ensure_root, leftovers};

/// MiB.
const HEAPS: [u64; 3] = [16, 256, 2048];
/// MB that a writer dirties in a second.
const WRITES: u64 = 100;
const LIMIT: Duration = Duration::from_secs(100);
const COLUMN: &str = "systrap";
const RIVAL: &str = "runsc";

/// Answers on a connection of its own, each millisecond, and says when an answer was long in coming.
const REDIS: &str = "cd /tmp; redis-server --port 6379 --save '' --loglevel warning > /dev/null &
exec python3 -c '
import socket, time
while True:
    try: s = socket.create_connection((\"127.0.0.1\", 6379)); break
    except OSError: time.sleep(0.05)
def ask():
    s.sendall(b\"PING\\r\\n\"); return s.recv(100)
ask(); print(\"ready\", flush=True)
last = time.time()
while True:
    ask(); at = time.time()
    if at - last > 0.02: print(\"gap\", int((at - last) * 1e9), flush=True)
    last = at; time.sleep(0.001)
'";

/// A server of HTTP in a Python that has loaded numpy, and who asks it.
const PYTHON: &str = "
import numpy, http.server, http.client, threading, time
a = numpy.arange(1000000).reshape(1000, 1000)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        body = str(int(a[3].sum())).encode()
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(('127.0.0.1', 8000), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = http.client.HTTPConnection('127.0.0.1', 8000)
def ask():
    client.request('GET', '/'); return client.getresponse().read()
ask(); print('ready', flush=True)
last = time.time()
while True:
    ask(); at = time.time()
    if at - last > 0.02: print('gap', int((at - last) * 1e9), flush=True)
    last = at; time.sleep(0.001)
";

/// A Python that waits.
const WARM: &str = "
import json, numpy, re, sqlite3, time
print('ready', flush=True)
while True: time.sleep(3600)
";

/// Measures everything and prints the table.
pub fn run(runner: &mut Runner, moat: &Path, rounds: usize) -> Result<()> {
    let mut table = Table::default();
    let root = guest_root("heap")?;
    for mib in HEAPS {
        for _ in 0..rounds {
            let heap = || vec!["/bin/heap".to_string(), mib.to_string()];
            measure(runner, moat, &root, heap(), &format!("heap-{mib}M"), &mut table)?;
            let writing = [heap(), vec![WRITES.to_string()]].concat();
            pause(runner, moat, &root, writing, &format!("heap-{mib}M-written"), &mut table)?;
            if super::has_runsc() {
                rival(runner, &root, heap(), &format!("heap-{mib}M"), &mut table)?;
            }
        }
    }
    let full = ensure_root(RootKind::Full)?;
    for _ in 0..rounds {
        let redis = ["/bin/bash", "-c", REDIS].map(String::from).to_vec();
        measure(runner, moat, &full, redis, "redis", &mut table)?;
        let python = ["/usr/bin/python3", "-c", PYTHON].map(String::from).to_vec();
        measure(runner, moat, &full, python, "python-http-numpy", &mut table)?;
        for number in [1, 100] {
            clones(runner, moat, &full, number, &mut table)?;
        }
    }
    let columns = if super::has_runsc() { &[COLUMN, RIVAL][..] } else { &[COLUMN] };
    table.print(columns);
    println!("\n{}", table.markdown(columns));
    Ok(())
}

fn prepare(runner: &mut Runner, root: &Path, arguments: Vec<String>) -> Result<Prepared> {
    prepare_at(runner, Place::Sandbox(Platform::Systrap), root, arguments)
}

fn prepare_at(runner: &mut Runner, place: Place, root: &Path, arguments: Vec<String>) -> Result<Prepared> {
    let job =
        Job { name: "saved", root, arguments, network: Network::default(), files: Files::default(), timeout: LIMIT };
    runner.prepare(place, &job)
}

/// Saves the program while it goes on, and once more when it ends; restores it.
fn measure(
    runner: &mut Runner,
    moat: &Path,
    root: &Path,
    arguments: Vec<String>,
    name: &str,
    table: &mut Table,
) -> Result<()> {
    let prepared = prepare(runner, root, arguments)?;
    let mut running = Running::start(prepared.command)?;
    running.until("ready")?;
    let mut add = |what: &str, value: f64| table.add(&format!("{name}-{what}"), COLUMN, value);
    let kept = prepared.directory.join("kept");
    let took = checkpoint(moat, &prepared.id, &kept, &["--leave-running"])?;
    add("save-running", nanoseconds(took));
    add("pause", running.longest_gap(Duration::from_millis(300))?);
    let image = prepared.directory.join("image");
    let took = checkpoint(moat, &prepared.id, &image, &[])?;
    add("save", nanoseconds(took));
    add("image-bytes", bytes(size(&image)?));
    running.end();
    let mut restore = Command::new(moat);
    restore.args(["--overlay2=root:memory", "--platform", "systrap", "restore", "--image-path"]).arg(&image);
    restore.arg("--bundle").arg(&prepared.directory).arg(&prepared.id);
    let start = Instant::now();
    let mut restored = Running::start(restore)?;
    restored.until("gap")?;
    add("restore", nanoseconds(start.elapsed()));
    restored.kill(moat, &prepared.id)?;
    Ok(fs::remove_dir_all(&prepared.directory)?)
}

/// The same by runsc, which is older than saving a program that goes on.
fn rival(runner: &mut Runner, root: &Path, arguments: Vec<String>, name: &str, table: &mut Table) -> Result<()> {
    let prepared = prepare_at(runner, Place::Runsc, root, arguments)?;
    let runsc = |command: &str, more: &[&Path]| {
        let mut runsc = Command::new(RIVAL);
        runsc.arg("--root").arg(prepared.directory.join("state"));
        runsc.args(["--network=none", "--ignore-cgroups", command]).args(more).arg(&prepared.id);
        runsc
    };
    let mut running = Running::start(prepared.command)?;
    running.until("ready")?;
    let image = prepared.directory.join("image");
    let start = Instant::now();
    let status = runsc("checkpoint", &[Path::new("--image-path"), &image]).status()?;
    let took = start.elapsed();
    if !status.success() {
        bail!("runsc: checkpoint: {status}");
    }
    table.add(&format!("{name}-save"), RIVAL, nanoseconds(took));
    table.add(&format!("{name}-image-bytes"), RIVAL, bytes(size(&image)?));
    // It looks for the end of processes that are this one's to wait for.
    let delete = || {
        leftovers::reap_descendants();
        runsc("delete", &[Path::new("--force")]).status()
    };
    running.end();
    delete()?;
    let from = [Path::new("--image-path"), &image, Path::new("--bundle"), &prepared.directory];
    let start = Instant::now();
    let mut restored = Running::start(runsc("restore", &from))?;
    restored.until("gap")?;
    table.add(&format!("{name}-restore"), RIVAL, nanoseconds(start.elapsed()));
    runsc("kill", &[]).arg("KILL").status()?;
    restored.end();
    delete()?;
    Ok(fs::remove_dir_all(&prepared.directory)?)
}

/// Saves a program that writes, which goes on.
fn pause(
    runner: &mut Runner,
    moat: &Path,
    root: &Path,
    arguments: Vec<String>,
    name: &str,
    table: &mut Table,
) -> Result<()> {
    let prepared = prepare(runner, root, arguments)?;
    let mut running = Running::start(prepared.command)?;
    running.until("ready")?;
    checkpoint(moat, &prepared.id, &prepared.directory.join("kept"), &["--leave-running"])?;
    table.add(&format!("{name}-pause"), COLUMN, running.longest_gap(Duration::from_millis(300))?);
    running.kill(moat, &prepared.id)?;
    Ok(fs::remove_dir_all(&prepared.directory)?)
}

/// Makes clones of a Python that has loaded what it needs.
fn clones(runner: &mut Runner, moat: &Path, root: &Path, number: u32, table: &mut Table) -> Result<()> {
    let count = f64::from(number);
    let prepared = prepare(runner, root, ["/usr/bin/python3", "-c", WARM].map(String::from).to_vec())?;
    let mut running = Running::start(prepared.command)?;
    running.until("ready")?;
    let before = idle::pss_of_all();
    let clone = format!("{}-clone", prepared.id);
    let mut command = Command::new(moat);
    command.args(["--overlay2=root:memory", "--platform", "systrap", "clone", "--count", &number.to_string()]);
    let start = Instant::now();
    // Not to a pipe of this program's: the clones hold it open.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.args([&prepared.id, &clone]).status()?;
    let took = start.elapsed();
    if !status.success() {
        bail!("clone: {status}");
    }
    table.add(&format!("clones-{number}-each"), COLUMN, nanoseconds(took) / count);
    std::thread::sleep(Duration::from_secs(1));
    let more = idle::pss_of_all().saturating_sub(before);
    table.add(&format!("clones-{number}-pss-bytes-each"), COLUMN, bytes(more) / count);
    for n in 1..=number {
        let id = if number == 1 { clone.clone() } else { format!("{clone}-{n}") };
        delete(moat, &id)?;
    }
    running.kill(moat, &prepared.id)?;
    Ok(fs::remove_dir_all(&prepared.directory)?)
}

fn checkpoint(moat: &Path, id: &str, image: &PathBuf, flags: &[&str]) -> Result<Duration> {
    let mut command = Command::new(moat);
    command.arg("checkpoint").args(flags).arg("--image-path").arg(image).arg(id);
    let start = Instant::now();
    let output = command.stdin(Stdio::null()).output()?;
    let took = start.elapsed();
    if !output.status.success() {
        bail!("checkpoint: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(took)
}

fn delete(moat: &Path, id: &str) -> Result<()> {
    let output = Command::new(moat).args(["delete", "--force", id]).output()?;
    if output.status.success() { Ok(()) } else { bail!("delete: {}", String::from_utf8_lossy(&output.stderr)) }
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e9
}

/// To the KiB.
fn bytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) * 1024.0
}

/// What an image takes on the disk.
fn size(image: &Path) -> Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(image)? {
        let path = entry?.path();
        all += fs::symlink_metadata(&path)?.blocks() * 512;
    }
    Ok(all)
}

/// A program that says what it sees.
struct Running {
    child: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Result<Running> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (said, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = said.send(line);
            }
        });
        Ok(Running { child, lines })
    }

    fn until(&mut self, word: &str) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            let line = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()));
            let line = line.with_context(|| format!("no {word}"))?;
            if line.starts_with(word) {
                return Ok(());
            }
        }
    }

    /// The longest that it has said, or says in so much time.
    fn longest_gap(&mut self, time: Duration) -> Result<f64> {
        std::thread::sleep(time);
        let gaps = self.lines.try_iter().filter_map(|line| line.strip_prefix("gap ")?.parse::<u64>().ok());
        Ok(nanoseconds(Duration::from_nanos(gaps.max().unwrap_or(0))))
    }

    /// It has been ended by a checkpoint.
    fn end(mut self) {
        let _ = self.child.wait();
    }

    fn kill(mut self, moat: &Path, id: &str) -> Result<()> {
        delete(moat, id).or_else(|error| match self.child.try_wait()? {
            Some(_) => Ok(()),
            None => Err(error),
        })?;
        let _ = self.child.wait();
        leftovers::reap_descendants();
        Ok(())
    }
}
