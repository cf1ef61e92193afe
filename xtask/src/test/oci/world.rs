//! The world of the real clients: namespaces with containerd, dockerd and Podman in them.
//!
//! `tests/oci/world.sh` makes and removes it; this side starts that keeper, reads which services came up, and runs
//! scripts inside. The keeper ends the world when its stdin closes, so also when this program is killed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};

use crate::paths;
use crate::test::job::{OUTPUT_LIMIT, ending_of, wait};
use crate::test::{Ending, Outcome};

/// A client that cases need.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Service {
    /// containerd and its client `ctr`.
    Containerd,
    /// A containerd of its own with the plugin for Kubernetes (CRI), and network plugins.
    Cri,
    /// dockerd, over containerd.
    Docker,
    /// docker-compose, a client of dockerd.
    Compose,
    /// Podman as root.
    Podman,
    /// Podman as an ordinary user.
    Rootless,
}

impl Service {
    /// All, in the order in which they can be started.
    pub const ALL: [Service; 6] =
        [Service::Containerd, Service::Cri, Service::Docker, Service::Compose, Service::Podman, Service::Rootless];

    /// The word for it in the cases' headers and in `inside.sh`.
    pub fn name(self) -> &'static str {
        match self {
            Service::Containerd => "containerd",
            Service::Cri => "cri",
            Service::Docker => "docker",
            Service::Compose => "compose",
            Service::Podman => "podman",
            Service::Rootless => "rootless",
        }
    }

    /// The service of that name.
    pub fn parse(name: &str) -> Result<Service> {
        let found = Service::ALL.into_iter().find(|s| s.name() == name);
        found.with_context(|| format!("no service '{name}'"))
    }
}

/// A running world; dropping it removes it.
pub struct World {
    keeper: Child,
    init: String,
    scratch: PathBuf,
    /// For each service that could not be started, why.
    missing: BTreeMap<Service, String>,
}

impl World {
    /// Makes a world with these services, for this `moat` and the image of this root.
    pub fn start(moat: &Path, root: &Path, services: &[Service]) -> Result<World> {
        let scratch = paths::target().join("tests").join(format!("oci-{}", std::process::id()));
        fs::create_dir_all(&scratch)?;
        let scratch = fs::canonicalize(scratch)?;
        let mut keeper = Command::new("unshare");
        keeper
            .args(["--mount", "--propagation", "private"])
            .arg(script("world.sh"))
            .args([&scratch, moat, root])
            .args(services.iter().map(|s| s.name()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of reach of the terminal's ^C.
            .process_group(0);
        let mut keeper = keeper.spawn().context("cannot run unshare")?;
        let words = keeper.stdout.take();
        let mut world = World { keeper, init: String::new(), scratch, missing: BTreeMap::new() };
        let lines = words.into_iter().flat_map(|w| BufReader::new(w).lines());
        for line in lines {
            let line = line?;
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("done", _) => return Ok(world),
                ("init", pid) => world.init = pid.to_string(),
                ("world", reason) => bail!("{reason}"),
                (_, "ok") => {}
                (service, reason) => {
                    world.missing.insert(Service::parse(service)?, reason.to_string());
                }
            }
        }
        bail!("the world of the real clients ended before it was ready")
    }

    /// Why this service is not there, if it isn't.
    pub fn missing(&self, service: Service) -> Option<&str> {
        self.missing.get(&service).map(String::as_str)
    }

    /// Runs a shell script inside, with these variables; at the deadline its process group is killed.
    pub fn run(&self, script: &str, variables: &[(&str, &str)], timeout: Duration) -> Result<Outcome> {
        let start = Instant::now();
        // Files, because a pipe has no end while a survivor holds it.
        let (stdout, stderr) = (self.scratch.join("stdout"), self.scratch.join("stderr"));
        let mut child = self
            .enter()
            .args(["sh", "-c", script])
            .envs(variables.iter().copied())
            .stdout(File::create(&stdout)?)
            .stderr(File::create(&stderr)?)
            .spawn()
            .context("cannot run nsenter")?;
        let ending = match wait(&mut child, start + timeout)? {
            Some(status) => ending_of(status),
            None => {
                let group = Pid::from_child(&child);
                // It may have ended since.
                let _ = kill_process_group(group, Signal::KILL);
                child.wait()?;
                Ending::TimedOut
            }
        };
        let elapsed = start.elapsed();
        let leftovers = Vec::new();
        Ok(Outcome { ending, stdout: read(&stdout)?, stderr: read(&stderr)?, elapsed, leftovers })
    }

    /// What is there of processes, mounts, cgroups, sockets and state, as sorted lines.
    pub fn residue(&self) -> Result<Vec<String>> {
        let output = self.enter().arg(script("residue.sh")).arg(&self.scratch).output()?;
        let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(String::from).collect();
        lines.sort();
        Ok(lines)
    }

    /// Removes all containers.
    pub fn clean(&self) -> Result<()> {
        let mut command = self.enter();
        command.arg(script("clean.sh")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        if wait(&mut child, Instant::now() + Duration::from_secs(60))?.is_none() {
            let _ = kill_process_group(Pid::from_child(&child), Signal::KILL);
            child.wait()?;
        }
        Ok(())
    }

    /// A command in the world's namespaces and in a process group of its own, to be completed.
    fn enter(&self) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.init])
            .args(["--mount", "--pid", "--net", "--ipc", "--uts", "--cgroup", "--"])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", "/root")
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .process_group(0);
        command
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The end of its stdin is the keeper's order to clean up.
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

fn script(name: &str) -> PathBuf {
    paths::repository().join("tests/oci").join(name)
}

fn read(file: &Path) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut bytes = Vec::new();
    File::open(file)?.take(OUTPUT_LIMIT).read_to_end(&mut bytes)?;
    Ok(bytes)
}
