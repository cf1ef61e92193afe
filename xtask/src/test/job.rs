//! Runs one command in a root directory, on the host or in the sandbox, under the same conditions.
//!
//! On the host that is a root in fresh namespaces over an overlay (`tests/roots/in-root.sh`), in the
//! sandbox an OCI bundle over the same directory ([`bundle`]). Neither changes the directory.
//! The runner is a child subreaper, so that whatever a run leaves behind becomes visible as its child.

pub mod bundle;

use std::fs;
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::leftovers;
use crate::paths;

/// A platform of the sandbox.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Platform {
    /// The default.
    Systrap,
    /// The oracle.
    Ptrace,
}

impl Platform {
    /// Both, in the order in which they are tested.
    pub const ALL: [Platform; 2] = [Platform::Systrap, Platform::Ptrace];

    /// The name that `--platform` takes.
    pub fn name(self) -> &'static str {
        match self {
            Platform::Systrap => "systrap",
            Platform::Ptrace => "ptrace",
        }
    }

    /// The platform of that name.
    pub fn parse(name: &str) -> Result<Platform> {
        match Platform::ALL.into_iter().find(|p| p.name() == name) {
            Some(platform) => Ok(platform),
            None => bail!("no platform '{name}': systrap or ptrace"),
        }
    }
}

/// Where a job runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Place {
    /// In a root of its own, on Linux itself.
    Host,
    /// In moat.
    Sandbox(Platform),
    /// In the rival, for benches.
    Runsc,
}

impl Place {
    /// A word for names of results.
    pub fn name(self) -> &'static str {
        match self {
            Place::Host => "host",
            Place::Sandbox(platform) => platform.name(),
            Place::Runsc => "runsc",
        }
    }
}

/// What the command's network is in the sandbox. On the host it is always a new namespace with the loopback device up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Network {
    /// The sandbox's own (`--network none`).
    #[default]
    Sandbox,
    /// As on the host, and the sandbox uses that (`--network host`).
    Host,
}

/// The sandbox's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Files {
    /// Who opens the host's.
    pub server: FileServer,
    /// What of the host the command can change.
    pub writable: Writable,
}

/// Who opens the host's files.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum FileServer {
    /// The sandbox itself.
    #[default]
    Sandbox,
    /// A gofer.
    Gofer,
}

/// What of the host a command in the sandbox can change.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Writable {
    /// Nothing: the root is below an overlay in memory, /tmp is in memory.
    #[default]
    Nothing,
    /// /tmp and /root, which are directories of the host that go with the job.
    Homes,
    /// The root, which has no overlay.
    Root,
    /// As `Root`, while others may change it, too.
    SharedRoot,
}

/// One command to run.
pub struct Job<'a> {
    /// For the names of files and containers: letters, digits, `-`.
    pub name: &'a str,
    /// The root directory; it is not changed but by [`Writable::Root`].
    pub root: &'a Path,
    /// The program, absolute inside the root, and its arguments.
    pub arguments: Vec<String>,
    /// Its network.
    pub network: Network,
    /// Its way to the host's files.
    pub files: Files,
    /// After this time everything is killed.
    pub timeout: Duration,
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// By exit; 128+n says that signal n killed the program in the sandbox or below the shell.
    Exited(i32),
    /// The command on the host was itself killed by this signal.
    Killed(i32),
    /// The runner killed it.
    TimedOut,
}

impl std::fmt::Display for Ending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Ending::Exited(status) => write!(f, "exit status {status}"),
            Ending::Killed(signal) => write!(f, "killed by signal {signal}"),
            Ending::TimedOut => write!(f, "timed out"),
        }
    }
}

/// What a run gave.
pub struct Outcome {
    /// How it ended.
    pub ending: Ending,
    /// All of its standard output.
    pub stdout: Vec<u8>,
    /// All of its standard error output, for people.
    pub stderr: Vec<u8>,
    /// Wall time.
    pub elapsed: Duration,
    /// What it left behind on the host: processes, mounts, cgroups.
    pub leftovers: Vec<String>,
}

/// Runs jobs one after another; owns a scratch directory that goes with it.
pub struct Runner {
    moat: PathBuf,
    scratch: PathBuf,
    sequence: u32,
}

/// A job that is ready to run.
pub struct Prepared {
    /// What runs it, its stdio not chosen yet.
    pub command: Command,
    /// The container's id, which is also part of the names of what it makes on the host.
    pub id: String,
    /// The bundle, or the scratch space of a run on the host; goes with the [`Runner`].
    pub directory: PathBuf,
}

/// More output than this is cut off: a runaway program must not fill the memory.
pub(super) const OUTPUT_LIMIT: u64 = 64 << 20;

impl Runner {
    /// A runner for this `moat` binary, which is not looked at before the first sandboxed job.
    pub fn new(moat: PathBuf) -> Result<Runner> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let scratch = paths::target().join("tests").join(std::process::id().to_string());
        fs::create_dir_all(&scratch)?;
        let scratch = fs::canonicalize(scratch)?;
        Ok(Runner { moat, scratch, sequence: 0 })
    }

    /// Runs the job and waits for its end, or ends it.
    pub fn run(&mut self, place: Place, job: &Job) -> Result<Outcome> {
        let prepared = self.prepare(place, job)?;
        self.run_prepared(prepared, job.timeout)
    }

    /// The rest of [`Runner::run`].
    pub fn run_prepared(&mut self, mut prepared: Prepared, timeout: Duration) -> Result<Outcome> {
        let mut outcome = supervise(&mut prepared.command, timeout)?;
        outcome.leftovers.extend(leftovers::on_host(&prepared.id, &prepared.directory));
        fs::remove_dir_all(&prepared.directory).with_context(|| prepared.directory.display().to_string())?;
        Ok(outcome)
    }

    /// Makes the bundle and the command of a job, for callers that run it themselves.
    pub fn prepare(&mut self, place: Place, job: &Job) -> Result<Prepared> {
        self.sequence += 1;
        let id = format!("moat-test-{}-{}-{}", std::process::id(), self.sequence, job.name);
        let directory = self.scratch.join(&id);
        fs::create_dir_all(&directory)?;
        let command = match place {
            Place::Host => host_command(job, &directory),
            Place::Sandbox(platform) => {
                bundle::write(&directory, job)?;
                if job.files.writable == Writable::Homes {
                    bundle::bind_homes(&directory)?;
                }
                let mut command = match job.network {
                    Network::Sandbox => Command::new(&self.moat),
                    Network::Host => self.in_network_namespace(),
                };
                if job.files.server == FileServer::Gofer {
                    command.arg("--directfs=false");
                }
                command.arg(match job.files.writable {
                    Writable::Nothing | Writable::Homes => "--overlay2=root:memory",
                    Writable::Root | Writable::SharedRoot => "--overlay2=none",
                });
                if job.files.writable == Writable::SharedRoot {
                    command.arg("--file-access=shared");
                }
                command.args(["--platform", platform.name(), "run", "--bundle"]);
                command.args([directory.as_os_str(), id.as_ref()]);
                command
            }
            Place::Runsc => {
                bundle::write(&directory, job)?;
                let mut command = Command::new("runsc");
                command.arg("--root").arg(directory.join("state"));
                command.args(["--network=none", "--ignore-cgroups", "run", "--bundle"]);
                command.args([directory.as_os_str(), id.as_ref()]);
                command
            }
        };
        Ok(Prepared { command, id, directory })
    }

    /// moat with `--network host` in a new network namespace, which goes with it.
    fn in_network_namespace(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"]);
        command.arg(&self.moat).args(["--network", "host"]);
        command
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        // What could not be removed was reported with the job that left it.
        let _ = fs::remove_dir_all(&self.scratch);
    }
}

/// The command of this program by which a job comes into its root.
pub const ENTER_ROOT: &str = "enter-root";

/// Makes the current directory the root of the mount namespace, with nothing of the old one left, and executes a command there.
/// In a mere chroot(2) no process may make a user namespace.
pub fn enter_root(command: &[String]) -> Result<()> {
    rustix::process::pivot_root(".", ".").context("pivot_root")?;
    // The old root lies on top of the new one.
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).context("unmounting the old root")?;
    std::env::set_current_dir("/")?;
    let (program, arguments) = command.split_first().context("no command")?;
    Err(Command::new(program).args(arguments).exec()).with_context(|| format!("executing {program}"))
}

fn host_command(job: &Job, directory: &Path) -> Command {
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--pid", "--ipc", "--uts", "--net", "--fork", "--kill-child"])
        .args(["--propagation", "private"])
        .arg(paths::repository().join("tests/roots/in-root.sh"))
        .args([job.root, directory])
        .args(bundle::ENVIRONMENT)
        .arg(std::env::current_exe().unwrap_or_else(|_| "xtask".into()))
        .arg(ENTER_ROOT)
        .args(&job.arguments);
    command
}

/// Starts the command, collects its output, and sees to it that nothing of it survives.
pub(super) fn supervise(command: &mut Command, timeout: Duration) -> Result<Outcome> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {:?}", command.get_program()))?;
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let ending = match wait(&mut child, start + timeout)? {
        Some(status) => ending_of(status),
        None => {
            leftovers::kill_descendants();
            // Killing may have reaped it as well.
            let _ = child.wait();
            Ending::TimedOut
        }
    };
    let elapsed = start.elapsed();
    // Only now: a survivor may hold the pipes open, and would keep the readers from ending.
    let leftovers = leftovers::reap_descendants();
    let read = |reader: std::thread::JoinHandle<Vec<u8>>| reader.join().unwrap_or_default();
    Ok(Outcome { ending, stdout: read(stdout), stderr: read(stderr), elapsed, leftovers })
}

pub(super) fn collect(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // An error ends the output like its end does; the comparison shows what is missing.
            let _ = pipe.by_ref().take(OUTPUT_LIMIT).read_to_end(&mut bytes);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        bytes
    })
}

/// How many times its patience a run may take besides, on a machine on which there is more to do than CPUs to do it.
const MOST_PATIENCE: u32 = 4;

/// For how long, in all, somebody on this machine has waited for a CPU; zero where the kernel does not say.
fn stalled() -> Duration {
    // "some avg10=0.00 avg60=0.00 avg300=0.00 total=MICROSECONDS"
    let text = fs::read_to_string("/proc/pressure/cpu").unwrap_or_default();
    let total =
        text.lines().next().and_then(|line| line.split_once("total=")).and_then(|(_, total)| total.parse().ok());
    Duration::from_micros(total.unwrap_or_default())
}

/// None once the deadline has passed, and besides it the time in which the machine had too few CPUs.
pub fn wait(child: &mut Child, deadline: Instant) -> Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(200);
    let (patience, stalled) = (deadline.saturating_duration_since(Instant::now()), stalled());
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        // What makes the machine busy may be the child itself, in an endless loop.
        let busy = self::stalled().saturating_sub(stalled).min(patience * MOST_PATIENCE);
        if Instant::now() >= deadline + busy {
            return Ok(None);
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

pub(super) fn ending_of(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exited(code),
        (None, signal) => Ending::Killed(signal.unwrap_or_default()),
    }
}

/// Shows the end of a text of unknown encoding, indented, for a failure message.
pub fn tail(bytes: &[u8], lines: usize) -> String {
    let text = String::from_utf8_lossy(bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..].iter().map(|line| format!("\n        | {line}")).collect()
}
