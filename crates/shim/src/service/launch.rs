//! Commands of the runtime that leave a process behind: `create`, `restore`, `exec`.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Service, State};
use crate::log;
use crate::runtime::Runtime;
use crate::stdio::{ConsoleSocket, Named, Owner, Streams};
use crate::ttrpc::server::spawn;
use crate::ttrpc::{Code, Status};

/// A process that is to be started.
pub(super) struct Launch<'a> {
    pub(super) runtime: &'a Runtime,
    pub(super) bundle: &'a Path,
    /// The container.
    pub(super) id: &'a str,
    /// The command and its own flags.
    pub(super) arguments: Vec<OsString>,
    pub(super) named: &'a Named,
    /// What files of it in the bundle are called.
    pub(super) name: &'a str,
    /// What is said if it fails.
    pub(super) what: &'a str,
}

/// What came of it.
pub(super) struct Launched {
    /// The host process that stands for it.
    pub(super) pid: i32,
    pub(super) streams: Arc<Streams>,
}

/// While there is one, ends of unknown processes are kept.
pub(super) struct Starting<'a>(&'a Service);

impl<'a> Starting<'a> {
    pub(super) fn new(service: &'a Service) -> Self {
        let mut state = service.state();
        state.starting = state.starting.saturating_add(1);
        Starting(service)
    }
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        let State { starting, early, .. } = &mut *self.0.state();
        *starting = starting.saturating_sub(1);
        // Nobody will ask for them.
        if *starting == 0 {
            early.clear();
        }
    }
}

impl Service {
    /// Runs the command, and begins to copy what the process says.
    ///
    /// To be called while there is a [`Starting`], under which the pid is noted, too: the process may end at any time.
    pub(super) fn launch(&self, launch: Launch<'_>) -> Result<Launched, Status> {
        let Launch { runtime, bundle, id, arguments, named, name, what } = launch;
        let failed = |error: std::io::Error| Code::Unknown.because(format_args!("{what}: {error}"));
        let owner = Owner { namespace: &self.namespace, id, uid: runtime.io_uid, gid: runtime.io_gid };
        let (streams, pending, given) = Streams::open(named, owner, &self.children)?;
        let streams = Arc::new(streams);
        let pid_file = bundle.join(format!("{name}.pid"));
        let attempt = || {
            let socket = match named.terminal {
                true => Some(ConsoleSocket::bind(bundle, &format!("{name}.sock")).map_err(failed)?),
                false => None,
            };
            runtime.run(&self.children, &bundle.join(format!("{name}-log.json")), what, |command| {
                command.args(arguments).arg("--pid-file").arg(&pid_file);
                if let Some(socket) = &socket {
                    command.arg("--console-socket").arg(socket.path());
                }
                command.arg(id).stdin(given.stdin).stdout(given.stdout).stderr(given.stderr);
            })?;
            let master = socket.map(ConsoleSocket::receive).transpose().map_err(failed)?;
            let pid = fs::read_to_string(&pid_file).map_err(failed)?;
            let pid = pid.trim().parse().map_err(|error| Code::Unknown.because(format_args!("{what}: {error}")))?;
            streams.begin(pending, master)?;
            Ok(Launched { pid, streams: Arc::clone(&streams) })
        };
        attempt().inspect_err(|_| streams.finish(&self.children))
    }

    /// Tells containerd each time that a container's memory runs out, by a thread that ends with the container's cgroup.
    pub(super) fn watch_memory(self: &Arc<Self>, id: &str, runtime: &Runtime) {
        let container = match runtime.container(id) {
            Ok(container) => container,
            Err(status) => return log::warning(format_args!("no events of memory: {}", status.message)),
        };
        // Without a cgroup, or a controller of memory, nothing runs out.
        let Some(watch) = container.state.cgroup.and_then(|cgroup| cgroup.oom_events().ok()) else { return };
        let (service, id) = (Arc::clone(self), id.to_owned());
        if let Err(error) = spawn("memory", move || service.tell_of_memory(&id, watch)) {
            log::warning(format_args!("no events of memory: {error}"));
        }
    }
}

/// Words of a command, and a path after them.
pub(super) fn words<const N: usize>(words: [&str; N], path: &Path) -> Vec<OsString> {
    words.iter().map(OsString::from).chain([PathBuf::from(path).into_os_string()]).collect()
}
