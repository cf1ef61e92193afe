//! [`Sandbox`]: starting a sandbox process and knowing when it is up, or why not.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};

use moat_abi::Signal;
use moat_control::spec::{DonatedFds, Lifetime};
use moat_control::start::StartOutcome;
use moat_control::{Connection, Request, Response, SandboxSpec};
use moat_host::spawn::{Child, Donation, ParentDeath, Spawn};
use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{WaitId, WaitIdOptions};

use crate::error::{Context, Result};
use crate::host_tree::Opener;
use crate::namespaces::Plan;
use crate::{Blueprint, Config, Error};

/// Bytes of the panic log that a report quotes.
const PANIC_LOG_TAIL_BYTES: u64 = 8 << 10;

/// Descriptors that the command gives to a new sandbox.
#[derive(Debug)]
pub struct SandboxFiles {
    /// The guest init's stdin, stdout and stderr.
    pub stdio: [OwnedFd; 3],
    /// Where the sandbox logs, if it does.
    pub debug_log: Option<OwnedFd>,
    /// Messages for the user.
    pub user_log: Option<OwnedFd>,
}

/// A sandbox that this process started.
#[derive(Debug)]
pub struct Sandbox {
    /// The id of its first container.
    pub id: String,
    /// The control connection.
    pub control: Connection,
    /// Stdio is a terminal.
    pub terminal: bool,
    pub(crate) child: Child,
    pub(crate) status: OwnedFd,
    panic_log: File,
}

/// What stays with the creator while the rest is donated.
struct Ends {
    start: OwnedFd,
    status: OwnedFd,
    control: Connection,
    panic_log: File,
}

impl Sandbox {
    /// Starts a sandbox and lets its init run.
    ///
    /// The caller must have one thread, and in attached mode that thread must outlive the sandbox.
    ///
    /// # Errors
    /// [`Error::Boot`] with the sandbox's own words; [`Error::Died`] if it had none.
    pub fn start(config: &Config, blueprint: Blueprint, files: SandboxFiles) -> Result<Self> {
        let plan = blueprint.plan.clone();
        let plan = plan.unwrap_or_else(|| Plan::without_spec(config, blueprint.process.capabilities.permitted));
        let host = plan.prepare()?;
        let opener = Opener::choose();
        let oom_score_adj = blueprint.process.oom_score_adj;
        let mut donation = Donation::default();
        let spec_file = File::from(memfd("moat-spec")?);
        let spec_fd = donation.add(spec_file.try_clone().context(|| "duplicating a memfd".into())?.into());
        let stdio = files.stdio.map(|fd| donation.add(fd));
        let (ends, own_flags, fds) = donate_common(files.debug_log, files.user_log, &mut donation)?;
        let spec = blueprint.into_spec(config, opener, stdio, fds, &mut donation)?;
        write_spec(spec_file, &spec)?;

        let mut args = vec!["moat-sandbox".to_owned(), "boot".into(), format!("--spec-fd={spec_fd}")];
        args.extend(own_flags);
        args.push(format!("--donated={}", donation.len()));
        args.extend(host.boot_flags());
        args.push(opener.flag().into());
        args.push(spec.container.id.clone());
        let child = Spawn {
            args: &c_strings(args)?,
            env: &environment(config),
            namespaces: host.namespaces,
            joins: host.joins(),
            id_maps: host.identity.maps.as_ref(),
            credentials: host.identity.credentials,
            controlling_terminal: None,
            parent_death: match spec.lifetime {
                Lifetime::Attached => ParentDeath::Kill,
                Lifetime::Detached => ParentDeath::Ignore,
            },
        }
        .run(donation)
        .context(|| "creating the sandbox process (user namespaces may be restricted here)".into())?;
        if let Some(score) = oom_score_adj {
            set_oom_score_adj(child.pid, score);
        }
        let Ends { start, status, control, panic_log } = ends;
        let mut sandbox = Sandbox {
            id: spec.container.id,
            control,
            terminal: spec.container.process.terminal,
            child,
            status,
            panic_log,
        };
        sandbox.wait_until_booted(start)?;
        sandbox.start_root()?;
        Ok(sandbox)
    }

    /// The sandbox process.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.child.pid
    }

    /// Lets the root container's init run, which is ready.
    fn start_root(&mut self) -> Result<()> {
        match self.control.call(&Request::StartRoot, &[]) {
            Ok(Response::Done) => Ok(()),
            Ok(Response::Error(error)) => Err(Error::Invalid(error.to_string())),
            Ok(_) => Err(Error::Invalid("the sandbox answered something else than it was asked".into())),
            Err(_) => Err(self.death("before its init was started")),
        }
    }

    fn wait_until_booted(&mut self, start: OwnedFd) -> Result<()> {
        match StartOutcome::read_from(File::from(start)).context(|| "waiting for the sandbox to start".into())? {
            StartOutcome::Booted => Ok(()),
            StartOutcome::Failed(error) => {
                self.reap();
                Err(error.into())
            }
            StartOutcome::Died => match self.child.early_error() {
                Some(error) => {
                    self.reap();
                    Err(Error::Host { what: "executing the sandbox process".into(), error })
                }
                None => Err(self.death("while it started")),
            },
        }
    }

    /// The error that says how the sandbox died. Waits until it has.
    pub(crate) fn death(&mut self, when: &'static str) -> Error {
        let how = self.reap();
        Error::Died { when, how, panic_log: self.panic_log_tail().unwrap_or_default() }
    }

    /// Waits for the sandbox process to end; says how it did.
    pub(crate) fn reap(&mut self) -> String {
        loop {
            return match rustix::process::waitid(WaitId::PidFd(self.child.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(rustix::io::Errno::INTR) => continue,
                Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => format!("exit code {code}"),
                    (_, Some(signal)) => signal_text(signal),
                    _ => "unknown status".into(),
                },
                Ok(None) | Err(_) => "unknown status".into(),
            };
        }
    }

    fn panic_log_tail(&mut self) -> io::Result<String> {
        let length = self.panic_log.seek(SeekFrom::End(0))?;
        self.panic_log.seek(SeekFrom::Start(length.saturating_sub(PANIC_LOG_TAIL_BYTES)))?;
        let mut tail = Vec::new();
        (&self.panic_log).take(PANIC_LOG_TAIL_BYTES).read_to_end(&mut tail)?;
        Ok(String::from_utf8_lossy(&tail).into_owned())
    }
}

/// Donates what every sandbox has; gives the creator's ends and the flags that name what boot needs first.
fn donate_common(
    debug_log: Option<OwnedFd>,
    user_log: Option<OwnedFd>,
    donation: &mut Donation,
) -> Result<(Ends, [String; 2], DonatedFds)> {
    let (start, start_write) = new_pipe()?;
    let (status, status_write) = new_pipe()?;
    let (control, control_other) = Connection::pair().context(|| "creating a socket pair".into())?;
    let panic_log = File::from(memfd("moat-panic-log")?);
    let panic_log_other = panic_log.try_clone().context(|| "duplicating a memfd".into())?;
    let flags = [
        format!("--start-sync-fd={}", donation.add(start_write)),
        format!("--panic-log-fd={}", donation.add(panic_log_other.into())),
    ];
    let fds = DonatedFds {
        control: donation.add(control_other),
        listener: None,
        status: donation.add(status_write),
        debug_log: debug_log.map(|fd| donation.add(fd)),
        user_log: user_log.map(|fd| donation.add(fd)),
    };
    Ok((Ends { start, status, control, panic_log }, flags, fds))
}

fn new_pipe() -> Result<(OwnedFd, OwnedFd)> {
    pipe_with(PipeFlags::CLOEXEC).context(|| "creating a pipe".into())
}

fn memfd(name: &str) -> Result<OwnedFd> {
    rustix::fs::memfd_create(name, MemfdFlags::CLOEXEC).context(|| "creating a memfd".into())
}

fn write_spec(mut file: File, spec: &SandboxSpec) -> Result<()> {
    let bytes = spec.encode().map_err(|e| Error::Invalid(e.to_string()))?;
    file.write_all(&bytes).and_then(|()| file.rewind()).context(|| "writing the sandbox spec".into())
}

fn c_strings(strings: Vec<String>) -> Result<Vec<CString>> {
    strings
        .into_iter()
        .map(|s| CString::new(s).map_err(|e| Error::Invalid(format!("an argument has a NUL byte: {e}"))))
        .collect()
}

/// The sandbox's environment is empty, but for backtraces when debugging.
fn environment(config: &Config) -> Vec<CString> {
    if config.debug { vec![c"RUST_BACKTRACE=1".to_owned()] } else { Vec::new() }
}

fn signal_text(number: i32) -> String {
    let name = Signal::new(number).and_then(Signal::name).unwrap_or("unknown");
    match number {
        libc::SIGSYS => format!("{name}: it made a host call that its filter refuses; --debug names it"),
        libc::SIGKILL => format!("{name}: by hand, or for want of memory"),
        _ => name.to_owned(),
    }
}

/// Best effort: lowering the score takes a privilege that a sandbox's creator need not have.
fn set_oom_score_adj(pid: i32, score: i32) {
    if let Err(error) = std::fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()) {
        tracing::warn!(%error, score, "cannot set oom_score_adj of the sandbox");
    }
}
