//! Starting a sandbox process and knowing when it is up, or why not.

use std::ffi::CString;
use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use moat_abi::Errno;
use moat_control::spec::{DonatedFds, FdNumber, FileAccess, Lifetime, SessionSpec};
use moat_control::start::STEPS;
use moat_control::{Connection, Listener, SandboxSpec};
use moat_host::spawn::{Donation, ParentDeath, Spawn, SpawnError};
use oci_spec::runtime::LinuxResources;
use rustix::fs::MemfdFlags;
use rustix::pipe::{PipeFlags, pipe_with};

use super::child::Helpers;
use super::{ChildSandbox, Link, Sandbox};
use crate::blueprint::Stdio;
use crate::cgroup::{Cgroup, Cloning};
use crate::error::{Context, Result};
use crate::gofer::{Exports, Served};
use crate::host_tree::Opener;
use crate::monitor::{self, OpenSession};
use crate::namespaces::Plan;
use crate::node_maker;
use crate::process_id::ProcessId;
use crate::{Blueprint, Config, Error, oom_score};

/// Descriptors that the command gives to a new sandbox.
#[derive(Debug)]
pub struct SandboxFiles {
    /// The guest init's stdin, stdout and stderr, and more.
    pub stdio: InitFiles,
    /// The socket at which the sandbox is to be reached, and its directory.
    pub listener: Option<(Listener, PathBuf)>,
    /// Where the sandbox logs, if it does.
    pub debug_log: Option<OwnedFd>,
    /// Where a sandbox that breaks down says why, besides the error; open for reading too.
    pub panic_log: Option<File>,
    /// Messages for the user.
    pub user_log: Option<OwnedFd>,
}

/// What a process in a sandbox has open when it starts.
#[derive(Debug)]
pub struct InitFiles {
    /// Stdin, stdout and stderr.
    pub stdio: [OwnedFd; 3],
    /// Its descriptors 3, 4, ...
    pub preserved: Vec<OwnedFd>,
    /// Whether stdin is a terminal for this container alone, which then becomes the controlling one of the host process
    /// that stands for it.
    pub terminal: Terminal,
}

/// Whose a container's terminal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Terminal {
    /// Nobody's, or the caller's.
    Shared,
    /// The container's own.
    Own,
}

/// How far Yama restricts ptrace(2), on hosts that have it.
const YAMA: &str = "/proc/sys/kernel/yama/ptrace_scope";

/// A sandbox reads and writes the memory of its guests' processes, which are its descendants, by process_vm_readv(2). Yama
/// lets it from 2 on only with a capability, which no sandbox has, or not at all.
fn check_yama(scope: Option<&str>) -> Result<()> {
    let why = match scope.map(str::trim) {
        Some("2") => "sysctl -w kernel.yama.ptrace_scope=1",
        // Nobody can lower it.
        Some("3") => "boot with kernel.yama.ptrace_scope=1",
        _ => return Ok(()),
    };
    let field = format!("kernel.yama.ptrace_scope = {}", scope.unwrap_or_default().trim());
    Err(Error::unsupported(field, format!("a sandbox can't reach its guests' memory then: {why}")))
}

/// Code that is made while it runs, a guest's or the platform's own, is memory that no file stands behind.
fn check_executable(tried: moat_abi::Result<()>) -> Result<()> {
    if tried != Err(Errno::EACCES) {
        return Ok(());
    }
    let why = "SELinux keeps its programs from code that is made while they run: setsebool -P allow_execmem 1 \
               (with Fedora's policy: deny_execmem 0)";
    Err(Error::unsupported("a host without execmem", why))
}

/// What stays with the creator while the rest is donated.
struct Ends {
    start: OwnedFd,
    status: OwnedFd,
    control: Connection,
    panic_log: File,
    panic_log_start: u64,
}

impl ChildSandbox {
    /// Starts a sandbox and waits until its init is ready to run.
    ///
    /// It runs in `cgroup`. `prepare` is called when the process exists, but does not run anything yet: what it notes can be found by those
    /// who clean up. If this process is killed before that, the new one ends by itself. The caller must have one thread,
    /// and in attached mode that thread must outlive the sandbox.
    ///
    /// # Errors
    /// Those of `prepare`; [`Error::Command`] if the init can't be executed; [`Error::Boot`] with the sandbox's own words;
    /// [`Error::Died`] if it had none. The process is gone then.
    pub fn start(
        config: &Config,
        blueprint: Blueprint,
        files: SandboxFiles,
        cgroup: Option<(&Cgroup, Option<&LinuxResources>)>,
        prepare: impl FnOnce(&Sandbox) -> Result<()>,
    ) -> Result<Self> {
        check_yama(std::fs::read_to_string(YAMA).ok().as_deref())?;
        check_executable(moat_host::memory::try_executable())?;
        tracing::info!(target: STEPS, "the container is described");
        let plan = blueprint.plan.clone();
        let plan = plan.unwrap_or_else(|| Plan::without_spec(config, blueprint.process.capabilities.permitted));
        let host = plan.prepare_namespaces()?;
        // Whether this process may copy mounts: if not, the sandbox makes the copies in its own mount namespace.
        let opener = Opener::choose();
        let (node_maker, nodes) = node_maker::start(&blueprint, opener).unzip();
        let oom_score_adj = blueprint.process.oom_score_adj;
        let mut donation = Donation::default();
        // Made first and written last: the spec names descriptors that are only known when all have been donated, and is to be found
        // under a number that the command line can name.
        let spec_file = File::from(memfd("moat-spec")?);
        let spec_fd = donation.add(spec_file.try_clone().context(|| "duplicating a memfd".into())?.into());
        let own_terminal = files.stdio.terminal == Terminal::Own;
        let stdio = Stdio {
            stdio: files.stdio.stdio.map(|fd| donation.add(fd)),
            preserved: files.stdio.preserved.into_iter().map(|fd| donation.add(fd)).collect(),
        };
        // The sandbox leads the session of a terminal that is its own, so that ^C and new sizes reach it as signals.
        let controlling_terminal = own_terminal.then_some(stdio.stdio[0]);
        let (listener, directory) = match files.listener {
            Some((listener, directory)) => {
                (Some(listener.into_socket().context(|| "duplicating a socket".into())?), directory)
            }
            None => (None, PathBuf::new()),
        };
        let (ends, own_flags, fds) =
            donate_common(listener, files.debug_log, files.panic_log, files.user_log, &mut donation)?;
        let fds = DonatedFds { startup_log: startup_log(config)?.map(|fd| donation.add(fd)), ..fds };
        let session = match &config.pod_init_config {
            Some(path) => {
                let OpenSession { config, files } = monitor::open(monitor::read_config(path)?)?;
                Some(SessionSpec { config, files: files.into_iter().map(|fd| donation.add(fd)).collect() })
            }
            None => None,
        };
        let mut exports = Exports::default();
        let mut spec = match config.files {
            FileAccess::Direct => blueprint.into_spec(config, opener, stdio, nodes, fds, &mut donation)?,
            FileAccess::Gofer => {
                let mut served = Served { descriptors: &mut donation, exports: &mut exports };
                blueprint.into_spec(config, opener, stdio, nodes, fds, &mut served)?
            }
        };
        tracing::info!(target: STEPS, "its trees are open");
        spec.session = session;
        spec.jail = host.jail(opener.trees());
        write_spec(spec_file, &spec)?;
        // Before the sandbox exists, so that it never waits for a gofer that could not be started.
        let gofer =
            exports.start(config, &plan, opener, spec.lifetime, spec.container.host_nodes, &spec.container.id)?;

        let mut args = vec!["moat-sandbox".to_owned(), "boot".into(), format!("--spec-fd={spec_fd}")];
        args.extend(own_flags);
        args.push(format!("--donated={}", donation.len()));
        args.push(spec.container.id.clone());
        // Joining namespaces takes a process in between, which can't be born in a cgroup.
        let cloning = if host.joins().is_empty() { Cloning::choose() } else { Cloning::Plain };
        let entrances = cgroup.map(|(cgroup, _)| cgroup.entrances(cloning)).transpose()?.unwrap_or_default();
        let mut started = None;
        let child = Spawn {
            args: &c_strings(args)?,
            env: &environment(config),
            namespaces: host.namespaces,
            joins: host.joins(),
            id_maps: host.identity.maps.as_ref(),
            cgroups: entrances.for_spawn(),
            credentials: host.identity.credentials,
            controlling_terminal,
            parent_death: match spec.lifetime {
                Lifetime::Attached => ParentDeath::Kill,
                Lifetime::Detached => ParentDeath::Ignore,
            },
        }
        .run_prepared(donation, |pid| {
            let sandbox = Sandbox {
                id: spec.container.id.clone(),
                process: ProcessId::of(pid).context(|| "looking at the sandbox process".into())?,
                directory,
                network: spec.network,
                files: spec.files,
                host_nodes: spec.container.host_nodes,
            };
            // The state file names the process before it is in any cgroup: whoever cleans up after a crash finds both.
            prepare(&sandbox)?;
            if let Some(score) = oom_score_adj {
                oom_score::set(pid, score);
            }
            if let Some((cgroup, resources)) = cgroup {
                cgroup.join_rest(pid, resources, &entrances)?;
            }
            started = Some(sandbox);
            Ok(())
        })
        .map_err(spawn_error("creating the sandbox process (user namespaces may be restricted here)"))?;
        let sandbox = started.ok_or_else(|| Error::Invalid("the sandbox process was not prepared".into()))?;
        tracing::info!(target: STEPS, "the sandbox process executes");
        let Ends { start, status, control, panic_log, panic_log_start } = ends;
        let terminal = spec.container.process.terminal;
        let link = Link::new(control);
        let helpers = Helpers { gofer, node_maker };
        let mut sandbox = ChildSandbox { sandbox, link, terminal, child, status, panic_log, panic_log_start, helpers };
        let command = spec.container.process.args.first().map_or("", |arg| arg);
        sandbox.wait_until_booted(start, command)?;
        tracing::info!(target: STEPS, "the sandbox is up");
        Ok(sandbox)
    }
}

/// Says what was tried when a process was not started.
pub(crate) fn spawn_error(what: &str) -> impl FnOnce(SpawnError<Error>) -> Error {
    move |error| match error {
        SpawnError::Spawn(error) => Error::Host { what: what.to_owned(), error },
        SpawnError::Prepare(error) => error,
    }
}

/// Donates what every sandbox has; gives the creator's ends and the flags that name what boot needs first.
fn donate_common(
    listener: Option<OwnedFd>,
    debug_log: Option<OwnedFd>,
    panic_log: Option<File>,
    user_log: Option<OwnedFd>,
    donation: &mut Donation,
) -> Result<(Ends, [String; 2], DonatedFds)> {
    let (start, start_write) = new_pipe()?;
    // How the init ended outlives the control connection: whoever has the pipe reads it when the sandbox is gone.
    let (status, status_write) = new_pipe()?;
    let (control, control_other) = Connection::pair().context(|| "creating a socket pair".into())?;
    let panic_log = match panic_log {
        Some(file) => file,
        None => File::from(memfd("moat-panic-log")?),
    };
    // The caller's file may have older reports in it.
    let panic_log_start = panic_log.metadata().context(|| "looking at the panic log".into())?.len();
    let panic_log_other = panic_log.try_clone().context(|| "duplicating a memfd".into())?;
    let flags = [
        format!("--start-sync-fd={}", donation.add(start_write)),
        format!("--panic-log-fd={}", donation.add(panic_log_other.into())),
    ];
    let mut add = |fd: Option<OwnedFd>| -> Option<FdNumber> { fd.map(|fd| donation.add(fd)) };
    let (listener, debug_log, user_log) = (add(listener), add(debug_log), add(user_log));
    let fds = DonatedFds {
        control: donation.add(control_other),
        listener,
        status: donation.add(status_write),
        debug_log,
        user_log,
        startup_log: None,
    };
    Ok((Ends { start, status, control, panic_log, panic_log_start }, flags, fds))
}

/// Where the sandbox says what its start takes its time for, if that is wanted.
fn startup_log(config: &Config) -> Result<Option<OwnedFd>> {
    if config.startup_began_ns.is_none() {
        return Ok(None);
    }
    std::io::stderr().as_fd().try_clone_to_owned().map(Some).context(|| "duplicating standard error".into())
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

pub(crate) fn c_strings(strings: Vec<String>) -> Result<Vec<CString>> {
    strings
        .into_iter()
        .map(|s| CString::new(s).map_err(|e| Error::Invalid(format!("an argument has a NUL byte: {e}"))))
        .collect()
}

/// The sandbox's environment is empty, but for backtraces when debugging and, in builds for tests, what is to go wrong.
fn environment(config: &Config) -> Vec<CString> {
    let mut environment = Vec::new();
    if config.debug {
        environment.push(c"RUST_BACKTRACE=1".to_owned());
    }
    #[cfg(debug_assertions)]
    environment
        .extend(std::env::var("MOAT_MISHAP").ok().and_then(|text| CString::new(format!("MOAT_MISHAP={text}")).ok()));
    environment
}

#[cfg(test)]
mod tests {
    use moat_abi::Errno;

    use super::{check_executable, check_yama};

    #[test]
    fn what_selinux_forbids_is_said_with_what_mends_it() {
        check_executable(moat_host::memory::try_executable()).unwrap();
        let said = check_executable(Err(Errno::EACCES)).unwrap_err().to_string();
        assert!(said.contains("setsebool -P allow_execmem 1"), "{said}");
    }

    #[test]
    fn what_yama_forbids_is_said_with_what_mends_it() {
        for fine in [None, Some("0\n"), Some("1\n")] {
            check_yama(fine).unwrap();
        }
        let said = |scope| check_yama(Some(scope)).unwrap_err().to_string();
        assert!(said("2\n").contains("sysctl -w kernel.yama.ptrace_scope=1"), "{}", said("2\n"));
        assert!(said("3\n").starts_with("kernel.yama.ptrace_scope = 3 is not supported"), "{}", said("3\n"));
    }
}
