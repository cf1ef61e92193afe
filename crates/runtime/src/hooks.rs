//! Programs of the bundle's owner that run at points of a container's life: config.json's `hooks`.
//!
//! A hook gets the container's state as JSON on its stdin, and exactly the arguments and environment that the
//! configuration gives. No shell has a part in it. All of them run in the runtime's namespaces: a guest's processes have
//! none on the host that a program could be run in.

use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Hooks};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use serde::Serialize;

use crate::error::{Context, Error, Result};

/// Bytes of a hook's output that its error quotes.
const OUTPUT_TAIL_BYTES: usize = 2 << 10;

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookKind {
    /// After the sandbox is up, before `create` returns. Deprecated, but what Docker's networking uses.
    Prestart,
    /// Likewise.
    CreateRuntime,
    /// Likewise, after `CreateRuntime`.
    CreateContainer,
    /// Before the container's process starts.
    StartContainer,
    /// After it has started.
    Poststart,
    /// After the container is deleted.
    Poststop,
}

impl HookKind {
    /// All of them, in the order of a container's life.
    pub const ALL: [HookKind; 6] = [
        HookKind::Prestart,
        HookKind::CreateRuntime,
        HookKind::CreateContainer,
        HookKind::StartContainer,
        HookKind::Poststart,
        HookKind::Poststop,
    ];

    /// The name in config.json.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            HookKind::Prestart => "prestart",
            HookKind::CreateRuntime => "createRuntime",
            HookKind::CreateContainer => "createContainer",
            HookKind::StartContainer => "startContainer",
            HookKind::Poststart => "poststart",
            HookKind::Poststop => "poststop",
        }
    }

    /// The hooks of this kind.
    #[must_use]
    #[allow(deprecated)]
    pub fn of(self, hooks: &Hooks) -> &[Hook] {
        let list = match self {
            HookKind::Prestart => hooks.prestart(),
            HookKind::CreateRuntime => hooks.create_runtime(),
            HookKind::CreateContainer => hooks.create_container(),
            HookKind::StartContainer => hooks.start_container(),
            HookKind::Poststart => hooks.poststart(),
            HookKind::Poststop => hooks.poststop(),
        };
        list.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for HookKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Checks all hooks before anything is made: paths absolute, timeouts positive.
///
/// # Errors
/// The first hook that can't be run, by name.
pub fn check(hooks: &Hooks) -> Result<()> {
    for kind in HookKind::ALL {
        for (index, hook) in kind.of(hooks).iter().enumerate() {
            let invalid =
                |why: &str| Error::Invalid(format!("hooks.{kind}[{index}]: {}: {why}", hook.path().display()));
            if !hook.path().is_absolute() {
                return Err(invalid("the path must be absolute"));
            }
            if hook.timeout().is_some_and(|seconds| seconds <= 0) {
                return Err(invalid("the timeout must be greater than zero"));
            }
        }
    }
    Ok(())
}

/// Runs hooks in order; `state` is the container's, as JSON.
///
/// # Errors
/// The first hook that could not be run, failed or took too long: its kind, path, exit status and last words. Those after
/// it have not run.
pub fn run<S: Serialize + ?Sized>(kind: HookKind, hooks: &[Hook], state: &S) -> Result<()> {
    if hooks.is_empty() {
        return Ok(());
    }
    let state = serde_json::to_vec(state).map_err(|error| Error::Invalid(format!("the container's state: {error}")))?;
    hooks.iter().try_for_each(|hook| run_one(kind, hook, &state))
}

/// Runs hooks whose failure does not matter to the container; failures are in the log.
pub fn run_all<S: Serialize + ?Sized>(kind: HookKind, hooks: &[Hook], state: &S) {
    for hook in hooks {
        if let Err(error) = run(kind, std::slice::from_ref(hook), state) {
            tracing::warn!(%error, "a hook failed");
        }
    }
}

fn run_one(kind: HookKind, hook: &Hook, state: &[u8]) -> Result<()> {
    let name = || format!("{kind} hook {}", hook.path().display());
    // Those of a state file were checked by the command that wrote it, which may have been another version.
    if !hook.path().is_absolute() {
        return Err(Error::Invalid(format!("{}: the path must be absolute", name())));
    }
    let deadline = match hook.timeout().map(u64::try_from) {
        None => None,
        // One that is too far away to be a time never comes.
        Some(Ok(seconds @ 1..)) => Instant::now().checked_add(Duration::from_secs(seconds)).map(|at| (seconds, at)),
        Some(_) => return Err(Error::Invalid(format!("{}: the timeout must be greater than zero", name()))),
    };
    let (output, theirs) = pipe_with(PipeFlags::CLOEXEC).context(|| "creating a pipe".into())?;
    // The writing end goes to the hook alone, so that end-of-file comes when nobody writes any more.
    let mut child = spawn(hook, state, theirs).context(name)?;
    let result = wait(&mut child, &output, deadline.map(|(_, at)| at));
    // It took too long, or waiting failed: nothing of it may run on.
    if !matches!(result, Ok(Outcome::Exited(..))) {
        stop(&mut child);
    }
    let failed = |how: &str, words: &[u8]| {
        let words = String::from_utf8_lossy(words);
        Err(Error::Hook { hook: name(), how: how.to_owned(), output: words.trim_end().to_owned() })
    };
    match result.context(|| format!("waiting for the {}", name()))? {
        Outcome::Exited(status, _) if status.success() => Ok(()),
        Outcome::Exited(status, words) => failed(&status.to_string(), &words),
        Outcome::TimedOut(words) => {
            failed(&format!("killed after its timeout of {} s", deadline.map_or(0, |(seconds, _)| seconds)), &words)
        }
    }
}

/// How a hook ended, and the end of its output.
enum Outcome {
    Exited(ExitStatus, Vec<u8>),
    TimedOut(Vec<u8>),
}

fn spawn(hook: &Hook, state: &[u8], output: OwnedFd) -> io::Result<Child> {
    // A file, so that a hook that does not read it can't hold anybody up.
    let mut stdin = File::from(rustix::fs::memfd_create("moat-hook-state", MemfdFlags::CLOEXEC)?);
    stdin.write_all(state)?;
    stdin.rewind()?;
    let mut command = Command::new(hook.path());
    // As in execv(3): args[0] is argv[0], not the path.
    if let Some((first, rest)) = hook.args().as_deref().and_then(<[String]>::split_first) {
        command.arg0(first).args(rest);
    }
    let variables = hook.env().as_deref().unwrap_or_default().iter();
    command
        .env_clear()
        .envs(variables.map(|variable| variable.split_once('=').unwrap_or((variable, ""))))
        .stdin(stdin)
        .stdout(output.try_clone()?)
        .stderr(Stdio::from(output))
        // A group of its own, so that what it started is killed with it.
        .process_group(0)
        .spawn()
}

fn wait(child: &mut Child, output: &OwnedFd, deadline: Option<Instant>) -> io::Result<Outcome> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
    // The child is not reaped before the pidfd is open, so the number is still its own.
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    fcntl_setfl(output, OFlags::NONBLOCK)?;
    let mut words = Vec::new();
    let mut open = true;
    loop {
        // Computed anew each time: a hook that writes all the while must not put the deadline off.
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        if left == Some(Duration::ZERO) {
            return Ok(Outcome::TimedOut(words));
        }
        let mut fds = vec![PollFd::from_borrowed_fd(pidfd.as_fd(), PollFlags::IN)];
        if open {
            fds.push(PollFd::new(output, PollFlags::IN));
        }
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = !fds.first().is_none_or(|fd| fd.revents().is_empty());
        // Also at its end: what it wrote last is still in the pipe.
        open = open && read_some(output, &mut words)?;
        if ended {
            // What it started may hold the pipe; only what is in it already counts.
            return Ok(Outcome::Exited(child.wait()?, words));
        }
    }
}

/// Takes what is in the pipe, and keeps its end. False at end-of-file.
fn read_some(output: &OwnedFd, words: &mut Vec<u8>) -> io::Result<bool> {
    let mut reader = File::from(output.try_clone()?);
    let mut buf = [0; OUTPUT_TAIL_BYTES];
    // Bounded, for a hook that writes faster than this reads must not outlive its timeout.
    for _ in 0..64 {
        match reader.read(&mut buf) {
            Ok(0) => return Ok(false),
            Ok(n) => words.extend_from_slice(buf.get(..n).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        words.drain(..words.len().saturating_sub(OUTPUT_TAIL_BYTES));
    }
    Ok(true)
}

fn stop(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = child.kill();
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(json: &str) -> Hook {
        serde_json::from_str(json).unwrap()
    }

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let args = serde_json::to_string(&["sh", "-c", script]).unwrap();
        let timeout = timeout.map_or("null".into(), |seconds| seconds.to_string());
        hook(&format!(r#"{{"path":"/bin/sh","args":{args},"env":["A=1","B=x=y"],"timeout":{timeout}}}"#))
    }

    #[test]
    fn state_arguments_and_environment_are_exact() {
        let state = serde_json::json!({"id": "c1", "pid": 7, "status": "created"});
        let script = r#"read -r line; [ "$line" = '{"id":"c1","pid":7,"status":"created"}' ] || { echo "$line" >&2; exit 3; }
            [ "$A$B" = "1x=y" ] && [ -z "$HOME" ] && [ "$0" = sh ]"#;
        run(HookKind::Prestart, &[shell(script, None)], &state).unwrap_or_else(|e| panic!("{e}"));
    }

    #[test]
    fn a_failure_is_named_and_ends_the_row() {
        let mark = std::env::temp_dir().join(format!("moat-hook-{}", std::process::id()));
        let second = shell(&format!("touch {}", mark.display()), None);
        let error = run(HookKind::CreateRuntime, &[shell("echo no luck >&2; exit 7", None), second], "").unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("createRuntime hook /bin/sh") && text.contains('7') && text.contains("no luck"),
            "{text}"
        );
        assert!(!mark.exists());
    }

    #[test]
    fn a_slow_hook_is_killed_with_what_it_started() {
        let mark = std::env::temp_dir().join(format!("moat-slow-hook-{}", std::process::id()));
        let script = format!("sleep 1000 & echo $! > {0}.new; mv {0}.new {0}; sleep 1000", mark.display());
        let error = run(HookKind::Prestart, &[shell(&script, Some(2))], "").unwrap_err().to_string();
        assert!(error.contains("timeout of 2 s"), "{error}");
        let started = std::fs::read_to_string(&mark).unwrap();
        let mut looks = 0..5000;
        // A zombie has no command line.
        while std::fs::read(format!("/proc/{}/cmdline", started.trim())).is_ok_and(|line| !line.is_empty()) {
            assert!(looks.next().is_some(), "what the hook has started goes on");
            std::thread::sleep(Duration::from_millis(2));
        }
        std::fs::remove_file(&mark).unwrap();
    }

    #[test]
    fn a_flood_of_output_and_a_held_pipe_are_no_trouble() {
        run(HookKind::Poststart, &[shell("head -c 3000000 /dev/zero; sleep 3 & exit 0", Some(20))], "").unwrap();
    }

    #[test]
    fn unusable_hooks_are_refused() {
        let relative = hook(r#"{"path":"bin/true"}"#);
        assert!(run(HookKind::Poststop, &[relative], "").unwrap_err().to_string().contains("absolute"));
        let missing = hook(r#"{"path":"/does/not/exist"}"#);
        let error = run(HookKind::Poststop, &[missing], "").unwrap_err().to_string();
        assert!(error.contains("poststop hook /does/not/exist"), "{error}");
        let hooks: Hooks = serde_json::from_str(r#"{"poststop":[{"path":"/bin/true","timeout":0}]}"#).unwrap();
        assert!(check(&hooks).unwrap_err().to_string().contains("hooks.poststop[0]"));
    }
}
