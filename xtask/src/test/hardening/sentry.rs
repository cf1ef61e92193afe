//! A sentry in the hands of an attacker: host calls of the test's choice, made by the sandbox process itself.
//!
//! The binary is a build of its own ([`build_checked`]), whose feature `host-calls` makes the sentry do what it is asked to. Every attack must end
//! in an error or in the end of the sandbox, and nothing outside may have changed.

mod attacks;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use self::attacks::{Attack, Goal, Surroundings};
use super::super::{FileServer, Files, Job, Network, Options, Place, Platform, Report, Runner, Writable, leftovers};
use super::{Scratch, build, build_checked, make_root, on_each_platform};

/// How long a sandbox may take to be gone after what ended it.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// In an abstract address: what a sentry that had the host's network could write to.
const MAILBOX: &str = "moat-hardening-mailbox";

pub(super) fn run(options: &Options, runner: &mut Runner, report: &mut Report) -> Result<()> {
    let mut attacker = None;
    for (server, word) in [(FileServer::Sandbox, "direct"), (FileServer::Gofer, "gofer")] {
        on_each_platform(options, report, &format!("sentry/{word}"), |platform| {
            let binary = match &attacker {
                Some(binary) => binary,
                None => attacker.insert(build_checked()?),
            };
            let outcome = attack_all(runner, binary, platform, server);
            // Sandboxes that ended in whatever way take their gofers with them.
            let survivors = leftovers::reap_descendants().into_iter().map(|process| format!("left behind: {process}"));
            let failures: Vec<String> = outcome?.into_iter().chain(survivors).collect();
            Ok((!failures.is_empty()).then(|| failures.join("\n        ")).into())
        })?;
    }
    Ok(())
}

/// All attacks on one kind of sandbox; what succeeded.
fn attack_all(runner: &mut Runner, binary: &Path, platform: Platform, server: FileServer) -> Result<Vec<String>> {
    let scratch = Scratch::new("sentry")?;
    let (root, outside) = (scratch.0.join("root"), scratch.0.join("outside"));
    make_root(&root, &build("guest")?, "guest")?;
    fs::write(root.join("inside"), "inside")?;
    std::os::unix::fs::symlink(&outside, root.join("out"))?;
    if !Command::new("mknod").arg(root.join("device")).args(["c", "1", "3", "-m", "666"]).status()?.success() {
        bail!("no node of a device can be made in {}", root.display());
    }
    std::os::unix::fs::symlink("../outside", root.join("rel"))?;
    fs::create_dir(&outside)?;
    fs::write(outside.join("marker"), "MARKER")?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let mailbox = mailbox()?;
    let surroundings = Surroundings {
        outside: outside.clone(),
        victim: std::process::id().into(),
        port: listener.local_addr()?.port(),
        mailbox: MAILBOX,
    };

    let job = Job {
        name: "sentry",
        root: &root,
        arguments: vec!["/bin/guest".into(), "pause".into()],
        network: Network::default(),
        files: Files { server, writable: Writable::Root },
        timeout: Duration::from_secs(60),
    };
    let bundle = runner.prepare(Place::Sandbox(platform), &job)?.directory;
    let mut sandbox = Sandbox { binary, bundle, state: scratch.0.join("state"), platform, server, alive: false };
    let mut failures = Vec::new();
    // Without these the rest would prove nothing.
    match sandbox.call(&attacks::own_pid(), Goal::Last)?.as_deref() {
        Some([1]) => {}
        other => failures.push(format!("the sentry does not do what it is asked to: {other:?}")),
    }
    let found = sandbox.call(&attacks::inside(), Goal::Any)?.unwrap_or_default().iter().any(|result| *result >= 0);
    if found != (server == FileServer::Sandbox) {
        failures.push(format!("the sandbox has a directory descriptor: {found}"));
    }
    let attacks = attacks::all(&surroundings);
    let mut ended = 0;
    for attack in &attacks {
        let results = sandbox.call(&attack.calls, attack.goal)?;
        ended += usize::from(results.is_none());
        if let Some(why) = success(attack, results.as_deref()) {
            failures.push(why);
        }
        let changed = fs::read_dir(&outside)?.count() != 1 || fs::read(outside.join("marker"))? != b"MARKER";
        if changed {
            bail!("{}: what is outside has changed", attack.name);
        }
    }
    sandbox.delete()?;
    if attacks.len() < 100 || ended < 40 {
        failures.push(format!("only {} attacks, {ended} of which ended the sandbox", attacks.len()));
    }
    if listener.accept().map_err(|e| e.kind()).err() != Some(ErrorKind::WouldBlock) {
        failures.push("a connection to the host's network was made".into());
    }
    if mailbox.recv(&mut [0; 16]).map_err(|e| e.kind()).err() != Some(ErrorKind::WouldBlock) {
        failures.push("a message to a socket of the host arrived".into());
    }
    Ok(failures)
}

/// What the attack got, if it got anything.
fn success(attack: &Attack, results: Option<&[i64]>) -> Option<String> {
    let results = results?;
    let got = match attack.goal {
        Goal::Any => results.iter().any(|result| *result >= 0),
        Goal::Last => results.last().is_some_and(|result| *result >= 0),
        Goal::Outside => false,
    };
    got.then(|| format!("{} succeeded: {results:?}", attack.name))
}

fn mailbox() -> Result<UnixDatagram> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(MAILBOX)?;
    let socket = UnixDatagram::bind_addr(&address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// A sandbox that is started anew whenever an attack has ended it.
struct Sandbox<'a> {
    binary: &'a Path,
    bundle: PathBuf,
    state: PathBuf,
    platform: Platform,
    server: FileServer,
    alive: bool,
}

impl Sandbox<'_> {
    /// Has the sentry make the calls; nothing if that was its end, and no results if it did not give them.
    fn call(&mut self, calls: &[serde_json::Value], goal: Goal) -> Result<Option<Vec<i64>>> {
        if !self.alive {
            self.run(&["create", "--bundle", &self.bundle.display().to_string(), "attacked"])?;
            self.run(&["start", "attacked"])?;
            self.alive = true;
        }
        let output = self.output(&["host-calls", "attacked", &serde_json::to_string(calls)?])?;
        if output.status.success() {
            return Ok(Some(serde_json::from_slice(&output.stdout)?));
        }
        let stderr = String::from_utf8_lossy(&output.stderr);
        if matches!(goal, Goal::Outside) && !stderr.contains("ended before") {
            // It may have written to this very connection.
            return Ok(Some(Vec::new()));
        }
        // The connection is closed a moment before the process is gone.
        let deadline = Instant::now() + END_TIMEOUT;
        while !self.has_ended()? {
            if Instant::now() > deadline {
                bail!(
                    "{}: {stderr}; {}",
                    serde_json::to_string(calls)?,
                    String::from_utf8_lossy(&self.output(&["state", "attacked"])?.stdout)
                );
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        self.delete()?;
        Ok(None)
    }

    fn has_ended(&self) -> Result<bool> {
        let state: serde_json::Value = serde_json::from_slice(&self.output(&["state", "attacked"])?.stdout)?;
        Ok(state["status"] == "stopped")
    }

    fn delete(&mut self) -> Result<()> {
        self.alive = false;
        self.run(&["delete", "--force", "attacked"])
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let output = self.output(arguments)?;
        if !output.status.success() {
            bail!("moat {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn output(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(self.binary);
        command.arg("--root").arg(&self.state);
        command.args(["--network=none", "--ignore-cgroups", "--overlay2=none", "--platform", self.platform.name()]);
        if self.server == FileServer::Gofer {
            command.arg("--directfs=false");
        }
        // A sandbox inherits standard output and error, which must not keep this from seeing their end.
        let own = arguments[0] != "create";
        let pipe = || if own { Stdio::piped() } else { Stdio::null() };
        command.args(arguments).stdin(Stdio::null()).stdout(pipe()).stderr(pipe());
        command.output().with_context(|| format!("{command:?}"))
    }
}
