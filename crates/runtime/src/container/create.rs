//! Creating containers.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use moat_control::spec::{FileAccess, Lifetime, NetworkMode, SharedNamespaces, SharesSpec};
use moat_control::start::STEPS;
use moat_control::{ExitStatus, Listener, Request};
use oci_spec::runtime::{LinuxNamespaceType, LinuxResources, Spec};

use super::{Container, neighbour};
use crate::attach::SignalForwarder;
use crate::blueprint::ImageSource;
use crate::blueprint::{Descriptors, Stdio};
use crate::cgroup::{self, Cgroup, CgroupPath, Cloning, PodSize};
use crate::console::{Console, check_attached, check_detached};
use crate::error::{Context, Result};
use crate::gofer::{Exports, Gofer, Served};
use crate::hooks::HookKind;
use crate::host_tree::Opener;
use crate::namespaces::Role;
use crate::node_maker;
use crate::oci::Bundle;
use crate::overlay::OverlayDirectory;
use crate::sandbox::{CONTROL_SOCKET, ChildSandbox, InitFiles, Message, PANIC_LOG, Sandbox, SandboxFiles, Terminal};
use crate::store::{self, ContainerState, Entry, Status};
use crate::waiter::{self, WaiterTarget};
use crate::{Blueprint, Config, ContainerId, Error, Store, oom_score};

/// What `create` and `run` were asked for.
#[derive(Debug)]
pub struct CreateOptions {
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// Whether the container outlives this command.
    pub lifetime: Lifetime,
    /// The caller's stdin, stdout and stderr.
    pub stdio: [OwnedFd; 3],
    /// Further descriptors for the init.
    pub preserved: Vec<OwnedFd>,
    /// How many of them, from the first on, are sockets that the container listens on by sd_listen_fds(3).
    pub listening: usize,
    /// Where the terminal's master goes.
    pub console_socket: Option<PathBuf>,
    /// Where the pid of the host process that stands for the container is written at last.
    pub pid_file: Option<PathBuf>,
    /// Where the sandbox logs.
    pub debug_log: Option<OwnedFd>,
    /// Where a sandbox that breaks down says why.
    pub panic_log: Option<File>,
    /// Messages for the user.
    pub user_log: Option<OwnedFd>,
    /// The image that its processes come out of, if it is not to begin anew.
    pub image: Option<ImageSource>,
}

/// A container that this process created.
#[derive(Debug)]
pub struct Created {
    /// The container.
    pub container: Container,
    /// Its sandbox, if it was made for it.
    pub child: Option<ChildSandbox>,
    /// Its init has a terminal.
    pub terminal: bool,
}

/// A container that is being made: all that there is of it already is in its state file.
struct Creation<'a> {
    config: &'a Config,
    store: Store,
    entry: Entry,
    state: ContainerState,
    /// The sandbox whose network it shares.
    neighbour: Option<Sandbox>,
}

impl Container {
    /// Makes a container, whose init is then ready to run. If that fails nothing is left of it.
    ///
    /// # Errors
    /// [`Error::Exists`]; a configuration that can't be honoured; [`Error::Command`] if the init can't be executed.
    pub fn create(config: &Config, id: &ContainerId, options: CreateOptions) -> Result<Created> {
        let bundle = Bundle::open(&options.bundle)?;
        tracing::info!(target: STEPS, "config.json is read");
        let mut blueprint = bundle.blueprint(config, id.clone(), options.lifetime)?;
        // sd_listen_fds(3) checks that LISTEN_PID is its reader: as with runc, the init counts as pid 1.
        if options.listening > 0 {
            blueprint.process.env.extend([format!("LISTEN_FDS={}", options.listening), "LISTEN_PID=1".into()]);
        }
        blueprint.image.clone_from(&options.image);
        for warning in &blueprint.warnings {
            tracing::warn!("{warning}");
        }
        let terminal = blueprint.process.terminal;
        if options.console_socket.is_none() {
            // The caller's own terminal has the size that it has.
            blueprint.process.console_size = None;
        }
        // Before anything is made, so that a wrong flag leaves nothing behind.
        match options.lifetime {
            Lifetime::Detached => check_detached(terminal, options.console_socket.as_deref())?,
            Lifetime::Attached => check_attached(options.console_socket.as_deref())?,
        }
        let store = Store::new(config.root.clone());
        let neighbour = match (&blueprint.plan, config.network) {
            (Some(plan), NetworkMode::Sandbox) => neighbour::find(&store, plan)?,
            _ => None,
        };
        // The id is taken from here on, and whatever fails below has to give it back.
        let entry = store.create(id)?;
        let mut state = ContainerState::new(id, &bundle.path, &bundle.rootfs(), SystemTime::now());
        state.annotations = bundle.spec.annotations().clone().unwrap_or_default().into_iter().collect();
        if let Some(flag) = &config.overlay {
            // For whoever asks why the root on the host does not change.
            state.annotations.insert("moat.overlay2".into(), flag.to_string());
        }
        state.hooks = bundle.spec.hooks().clone();
        state.role = Role::of(&bundle.spec);
        // The network namespace is the neighbour's then: there is none to plan.
        if neighbour.is_some() {
            state.role = Role::Member;
            blueprint.plan = None;
        }
        state.terminal = terminal;
        let mut creation = Creation { config, store: store.clone(), entry, state, neighbour };
        match creation.make(blueprint, &bundle.spec, options) {
            Ok(child) => {
                let container = Container { store, id: id.clone(), state: creation.state };
                Ok(Created { container, child, terminal })
            }
            Err(error) => {
                // The first error is the caller's to see.
                if let Err(error) = super::delete::clean_up(creation.entry, &creation.state) {
                    tracing::warn!("{error}");
                }
                Err(error)
            }
        }
    }
}

impl Created {
    /// Starts the container and stays with it until its init has ended.
    ///
    /// # Errors
    /// As [`Container::start`]; [`Error::Died`].
    pub fn run(&mut self, signals: &SignalForwarder) -> Result<ExitStatus> {
        self.container.start_with(self.child.as_ref())?;
        // A member's sandbox is no child of this process: it is asked for the exit status.
        match self.child.take() {
            Some(child) => child.attend(signals),
            None => self.container.wait(),
        }
    }
}

impl Creation<'_> {
    /// Every step notes what it makes before that is there.
    fn make(&mut self, blueprint: Blueprint, spec: &Spec, options: CreateOptions) -> Result<Option<ChildSandbox>> {
        let pid_file = options.pid_file.clone();
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let mut path = CgroupPath::from_spec(spec, self.entry.id(), self.config)?;
        // The configuration is that of the original, which goes on in its cgroup.
        if let Some(ImageSource::Memory(..)) = options.image {
            path = path.beside(self.entry.id());
        }
        self.state.cgroup = Cgroup::plan(&path, self.config, resources)?;
        // By names that nobody else has: one that was noted and never made can be removed all the same.
        self.state.overlays = blueprint.overlay_directories().map(|directory| directory.path.clone()).collect();
        self.save()?;
        blueprint.overlay_directories().try_for_each(OverlayDirectory::make)?;
        self.make_cgroup(resources)?;
        tracing::info!(target: STEPS, "state, overlays and cgroup are made");
        let child = match self.state.role {
            Role::Root => Some(self.make_root(blueprint, resources, options)?),
            Role::Member => {
                self.make_member(blueprint, spec, resources, options)?;
                None
            }
        };
        let container = Container { store: self.store.clone(), id: self.entry.id().clone(), state: self.state.clone() };
        // Docker's prestart hook puts interfaces into the sandbox's
        // network namespace, which exists now; the init does not run yet.
        for kind in [HookKind::Prestart, HookKind::CreateRuntime, HookKind::CreateContainer] {
            container.run_hooks(kind, Status::Creating)?;
        }
        tracing::info!(target: STEPS, "hooks have run");
        // What is found before is "creating", and can only be deleted.
        self.state.status = Status::Created;
        self.save()?;
        // Last: clients take the file for the sign that the container can be started.
        if let Some(path) = pid_file {
            store::write_pid_file(&path, container.pid())?;
        }
        Ok(child)
    }

    fn make_cgroup(&mut self, resources: Option<&LinuxResources>) -> Result<()> {
        let Some(cgroup) = &self.state.cgroup else { return Ok(()) };
        match cgroup.make(resources) {
            // As with runc an ordinary user's container runs without a cgroup, rather than not at all.
            Err(Error::Host { what, error }) if self.config.is_rootless() && is_refusal(&error) => {
                tracing::warn!("the container has no cgroup: {what}: {error}");
                let _ = cgroup.delete();
                self.state.cgroup = None;
                self.save()
            }
            other => other,
        }
    }

    fn make_root(
        &mut self,
        mut blueprint: Blueprint,
        resources: Option<&LinuxResources>,
        options: CreateOptions,
    ) -> Result<ChildSandbox> {
        // After its cgroup is made: these are the limits that the host applies.
        blueprint.shares = self.shares(self.state.pod_size(), resources);
        let stdio = init_files(&blueprint, options.stdio, options.preserved, options.console_socket.as_deref())?;
        let directory = self.entry.path().to_owned();
        // Bound here, because the sandbox can reach no directory of the host.
        let listener = Listener::bind(&directory, CONTROL_SOCKET).context(|| "making the control socket".into())?;
        let panic_log = match options.panic_log {
            Some(file) => file,
            // Where those look who find the sandbox dead.
            None => File::options()
                .create(true)
                .append(true)
                .read(true)
                .mode(0o600)
                .open(directory.join(PANIC_LOG))
                .context(|| "making the panic log".into())?,
        };
        let files = SandboxFiles {
            stdio,
            listener: Some((listener, directory)),
            debug_log: options.debug_log,
            panic_log: Some(panic_log),
            user_log: options.user_log,
        };
        let cgroup = self.state.cgroup.clone();
        let cgroup = cgroup.as_ref().map(|cgroup| (cgroup, resources));
        let child = ChildSandbox::start(self.config, blueprint, files, cgroup, |sandbox| {
            self.state.sandbox = Some(sandbox.clone());
            self.entry.save(&self.state)
        })?;
        // It started outside of the cgroup.
        self.adopt(child.gofer_pid())?;
        Ok(child)
    }

    /// What the container is shown of its cgroup, in a pod of this size.
    fn shares(&self, pod: PodSize, resources: Option<&LinuxResources>) -> SharesSpec {
        let size = resources.map_or(pod, |resources| pod.at_most(resources));
        let shares = cgroup::shares(self.state.cgroup.as_ref(), size, self.config);
        SharesSpec { tasks: cgroup::task_limit(resources), ..shares }
    }

    /// What a gofer uses counts as the container's.
    fn adopt(&self, gofer: Option<i32>) -> Result<()> {
        match (&self.state.cgroup, gofer) {
            (Some(cgroup), Some(pid)) => cgroup.adopt(pid),
            _ => Ok(()),
        }
    }

    fn make_member(
        &mut self,
        mut blueprint: Blueprint,
        spec: &Spec,
        resources: Option<&LinuxResources>,
        options: CreateOptions,
    ) -> Result<()> {
        let sandbox = match self.neighbour.take() {
            Some(sandbox) => sandbox,
            None => find_sandbox(&self.store, spec)?,
        };
        // The mounts have to travel to a sandbox whose mount namespace is closed: only detached copies can.
        if Opener::choose() == Opener::Attached {
            return Err(Error::unsupported(
                "a container in a sandbox that runs already",
                "its mounts can't be copied without CAP_SYS_ADMIN",
            ));
        }
        // Noted before anything is asked of the sandbox: a crash from here on leaves a state that `delete` can undo.
        self.state.sandbox = Some(sandbox.clone());
        self.save()?;
        let (link, template) = sandbox.reserve_container(&self.state.id)?;
        // Without a score in the configuration it is this command's, as fork(2) would pass it on.
        let (cgroup, score) = (&self.state.cgroup, blueprint.process.oom_score_adj.or_else(oom_score::own));
        // Before the container has any other process: all of them
        // descend from the template, and are born where it is.
        template.act(|pid| {
            if let Some(score) = score {
                oom_score::set(pid, score);
            }
            cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.join(pid, resources))
        })?;
        // The filters of the sandbox are as they are.
        blueprint.host_nodes = sandbox.host_nodes;
        blueprint.shares = self.shares(super::pod_size(&self.store, &self.state), resources);
        let stdio = init_files(&blueprint, options.stdio, options.preserved, options.console_socket.as_deref())?;
        let terminal = stdio.own_terminal()?;
        // The numbers are places in the message that makes the container.
        let mut fds: Vec<OwnedFd> = Vec::new();
        let stdio = Stdio {
            stdio: stdio.stdio.map(|fd| fds.add(fd)),
            preserved: stdio.preserved.into_iter().map(|fd| fds.add(fd)).collect(),
        };
        let (opener, shared, lifetime) = (Opener::choose(), shared_namespaces(spec), blueprint.lifetime);
        let plan = blueprint.plan.clone().unwrap_or_default();
        // Nobody waits for the node maker: whoever adopts it when this command ends reaps it.
        let nodes = node_maker::start(&blueprint, opener).map(|(_, socket)| socket);
        let mut exports = Exports::default();
        let spec = match sandbox.files {
            FileAccess::Direct => blueprint.into_container_spec(opener, stdio, nodes, shared, &mut fds)?,
            FileAccess::Gofer => {
                let mut served = Served { descriptors: &mut fds, exports: &mut exports };
                blueprint.into_container_spec(opener, stdio, nodes, shared, &mut served)?
            }
        };
        let mut gofer = exports.start(self.config, &plan, opener, lifetime, spec.host_nodes, &spec.id)?;
        // The gofer starts meanwhile; what the sandbox asks it for stays in the sockets until it serves.
        let created = link.create_container(&Message { request: Request::CreateContainer(Box::new(spec)), fds });
        // If the gofer could not start, that is why the container could not be made.
        gofer.as_mut().map_or(Ok(()), Gofer::wait_until_ready)?;
        if let (Err(_), Some(gofer)) = (&created, &gofer) {
            // It ends when the sandbox lets go of it, or ends itself: until then its cgroup could not be removed.
            gofer.wait_for_end();
        }
        created?;
        let target = WaiterTarget { id: self.state.id.clone(), pid: None };
        // With the container's processes: clients find the cgroup by the waiter's pid.
        let cgroup = self.state.cgroup.clone();
        let entrances = cgroup.as_ref().map(|cgroup| cgroup.entrances(Cloning::choose())).transpose()?;
        let entrances = entrances.unwrap_or_default();
        waiter::start(&target, &link, terminal, &entrances, |process| {
            // Noted before the waiter runs, as the sandbox process is.
            self.state.waiter = Some(process);
            self.entry.save(&self.state)?;
            cgroup.as_ref().map_or(Ok(()), |cgroup| cgroup.join_rest_later(process.pid, &entrances))
        })?;
        self.adopt(gofer.as_ref().map(Gofer::pid))
    }

    fn save(&self) -> Result<()> {
        self.entry.save(&self.state)
    }
}

impl InitFiles {
    /// A copy of the terminal that is the process's own.
    pub(crate) fn own_terminal(&self) -> Result<Option<OwnedFd>> {
        match self.terminal {
            Terminal::Shared => Ok(None),
            Terminal::Own => self.stdio[0].try_clone().map(Some).context(|| "duplicating a terminal".into()),
        }
    }
}

/// The caller's stdio, or a new terminal.
fn init_files(
    blueprint: &Blueprint,
    stdio: [OwnedFd; 3],
    preserved: Vec<OwnedFd>,
    console_socket: Option<&Path>,
) -> Result<InitFiles> {
    match console_socket {
        None => Ok(InitFiles { stdio, preserved, terminal: Terminal::Shared }),
        Some(socket) => {
            // The client holds the master; the container has the other side as all three.
            let stdio = Console::new(blueprint.process.console_size)?.hand_over(socket)?;
            Ok(InitFiles { stdio, preserved, terminal: Terminal::Own })
        }
    }
}

/// What an ordinary user gets in the cgroups of others.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

/// The annotations by which a later container names its sandbox.
pub(super) const SANDBOX_ID: [&str; 2] = ["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"];

/// The sandbox that the annotations of a later container name.
fn find_sandbox(store: &Store, spec: &Spec) -> Result<Sandbox> {
    // containerd and CRI-O have an annotation each.
    let says = |key: &str| spec.annotations().as_ref().and_then(|all| all.get(key));
    let id = SANDBOX_ID.iter().find_map(|key| says(key));
    let id = id.ok_or_else(|| Error::Invalid("the annotations of the container do not name its sandbox".into()))?;
    let id: ContainerId = id.parse()?;
    let root = match Container::load(store, &id) {
        Err(Error::NoContainer(_)) => return Err(Error::State(format!("the sandbox {id} does not exist"))),
        other => other?,
    };
    match root.sandbox() {
        Ok(sandbox) if root.state.role == Role::Root && sandbox.is_running() => Ok(sandbox.clone()),
        _ => Err(Error::State(format!("the sandbox {id} is not running"))),
    }
}

/// A namespace is the sandbox's if the configuration names an existing one, or none.
fn shared_namespaces(spec: &Spec) -> SharedNamespaces {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    let shared = |kind| {
        let own = namespaces.iter().find(|namespace| namespace.typ() == kind);
        own.is_none_or(|namespace| namespace.path().as_ref().is_some_and(|path| !path.as_os_str().is_empty()))
    };
    SharedNamespaces {
        pid: shared(LinuxNamespaceType::Pid),
        ipc: shared(LinuxNamespaceType::Ipc),
        uts: shared(LinuxNamespaceType::Uts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_with_a_path_are_shared() {
        let spec: Spec = serde_json::from_str(
            r#"{"ociVersion":"1.0.2","linux":{"namespaces":[{"type":"pid"},{"type":"ipc","path":"/proc/7/ns/ipc"}]}}"#,
        )
        .unwrap();
        assert_eq!(shared_namespaces(&spec), SharedNamespaces { pid: false, ipc: true, uts: true });
    }

    #[test]
    fn a_sandbox_has_to_exist() {
        let store = Store::new("/does/not/exist".into());
        let find = |annotations: &str| {
            let json = format!(r#"{{"ociVersion":"1.0.2","annotations":{annotations}}}"#);
            find_sandbox(&store, &serde_json::from_str(&json).unwrap()).unwrap_err().to_string()
        };
        assert!(find("{}").contains("do not name"));
        assert!(find(r#"{"io.kubernetes.cri.sandbox-id":"s1"}"#).contains("s1 does not exist"));
        assert!(find(r#"{"io.kubernetes.cri-o.SandboxID":"../x"}"#).contains("container id"));
    }
}
