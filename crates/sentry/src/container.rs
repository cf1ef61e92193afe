//! [`GuestContainer`]: one container in the sandbox, from the moment that its init is ready to run until it is forgotten.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};

use moat_abi::Errno;
use moat_abi::clone::WaitStatus;
use moat_abi::fs::FileType;
use moat_abi::ptrace::SockFilter;
use moat_abi::signal::Signal;
use moat_control::spec::{
    BpfInstruction, ContainerSpec, DeviceRule, FdNumber, InitSignals, ProcessSpec, RuleDevices, SeccompSpec,
    SharesSpec, TaskLimit,
};
use moat_control::start::STEPS;
use moat_control::{BootError, ContainerStatus, ControlError};
use moat_fs_proc::sysctl;
use moat_identity::Namespaces;
use moat_identity::namespaces::UtsNames;
use moat_image::Refusal;
use moat_image::state::SettingState;
use moat_kernel::checkpoint::{Configured, KnownProcesses};
use moat_kernel::process::allowance::{Allowance, Shares};
use moat_kernel::process::container::ContainerGroup;
use moat_kernel::seccomp::{Filter, Logged};
use moat_kernel::spawn::{ContainerPlace, PreparedProcess, Process, Shared, prepare_process};
use moat_kernel::{Kernel, monitor};
use moat_net_inet::shape::Shape;
use moat_platform::Stock;
use moat_sync::async_mutex::AsyncMutex;
use moat_sync::{LockClass, Mutex, block_in_place};
use moat_vfs::device_rules::{DeviceAccess, DeviceRules, Devices, Verdict};
use moat_vfs::{FsContext, MountNamespace, OpenFile};

use crate::beginning::{Beginning, Wanted};
use crate::followers::Followers;
use crate::mounts::layout::Layout;
use crate::process::{self, StartError};
use crate::restore::{self, Arrived, OpenImage, RestoredContainer};
use crate::{console, mounts};
use moat_jail::DonatedFiles;

/// What a process needs to be one of a container's.
#[derive(Clone)]
pub(crate) struct Membership {
    /// Namespaces.
    pub(crate) place: ContainerPlace,
    /// Mounts; at the root of them.
    pub(crate) fs: FsContext,
    /// The container's processes.
    pub(crate) processes: Arc<ContainerGroup>,
    /// Its seccomp profile.
    pub(crate) profile: Option<Arc<Filter>>,
}

impl Membership {
    /// What a checkpoint and a restore go by.
    pub(crate) fn configured(&self) -> Configured {
        Configured {
            processes: self.processes.clone(),
            place: self.place.clone(),
            mounts: self.fs.namespace.clone(),
            profile: self.profile.clone(),
        }
    }
}

/// What monitors are told of a container.
struct Announcement {
    args: Vec<String>,
    env: Vec<String>,
    cwd: String,
    terminal: bool,
}

/// One container.
pub(crate) struct GuestContainer {
    pub(crate) id: String,
    /// What its pod calls it.
    pub(crate) name: String,
    pub(crate) member: Membership,
    /// Its init, once it has one.
    beginning: Beginning,
    /// When it was made, in nanoseconds of the boot clock.
    pub(crate) made_boot_ns: u64,
    /// Processes of [`moat_control::Request::Execute`] that nobody has waited for, by their numbers.
    pub(crate) executed: Mutex<BTreeMap<i32, Process>>,
    /// The host processes that stand for such.
    pub(crate) followers: Followers,
    /// Held while it is saved.
    pub(crate) saving: AsyncMutex,
    /// Held by who freezes it, lets it go on, or brings a process into it: a save is to find all processes at rest, and no others.
    pub(crate) turn: AsyncMutex,
    /// What is told of it when it is started.
    announcement: Announcement,
    /// Its init, until it is started.
    prepared: Mutex<Option<PreparedProcess>>,
    /// What the init was started with, by number.
    donated: OnceLock<Vec<Weak<OpenFile>>>,
    /// The settings of /proc/sys as its configuration has them.
    settings: BTreeMap<String, String>,
    /// Its mounts as its configuration has them.
    mounts: Layout,
    /// Its network when it was started.
    network: OnceLock<Shape>,
}

impl GuestContainer {
    /// Builds namespaces and mounts and loads the init's program into a process of `stock`; nothing of it runs yet. One out of an image
    /// with several containers waits for the others: it comes with the image, and has no processes.
    ///
    /// # Errors
    /// The mount or file that failed, by name; ENOENT, EACCES, ENOEXEC of the command.
    pub(crate) async fn create(
        kernel: &Arc<Kernel>,
        stock: Arc<dyn Stock>,
        mut spec: ContainerSpec,
        mut files: DonatedFiles,
        root: Option<&GuestContainer>,
    ) -> Result<(Arc<GuestContainer>, Option<(OpenImage, Arrived)>), BootError> {
        let place = place(kernel, &spec, root)?;
        let allowance = Allowance::new(shares(&spec.shares));
        let processes = ContainerGroup::new(spec.id.clone(), kernel.clone(), stock, allowance);
        limit_tasks(&processes, spec.shares.tasks);
        processes.show_in(&place.namespaces.cgroup);
        configure(kernel, &spec, &place)?;
        let settings = sysctl::values(&sysctl::Scope::new(kernel, &place.namespaces));
        let mut build = || mounts::build(kernel, &spec, &place, &mut files);
        // There is nobody to hold up yet when the root container is made.
        let namespace = if root.is_some() { block_in_place(build) } else { build() }?;
        tracing::info!(target: STEPS, "file systems are mounted");
        let layout = Layout::of(&namespace);
        let fs = FsContext::new(namespace.clone());
        let profile = spec.seccomp.take().map(profile).transpose()?;
        if let Some(rules) = device_rules(&spec.device_rules) {
            processes.set_device_rules(rules);
        }
        let member = Membership { place, fs, processes, profile };
        let fds = take(&mut files, spec.stdio.iter().chain(&spec.preserved))?;
        let image = spec.restore.take().map(|image| OpenImage::read(image, &mut files)).transpose()?;
        let (mut made, mut waits) = (None, None);
        match image {
            Some(image) => {
                let arrived = Arrived { process: spec.process.clone(), member: member.clone(), fds };
                // A later container of an image is never alone in it.
                if root.is_none() && image.containers().len() <= 1 {
                    made = restore::containers(kernel, &image, vec![arrived]).await?.pop();
                } else {
                    waits = Some((image, arrived));
                }
            }
            None => {
                made = Some(first_process(&spec.process, &member, &namespace, fds).await?);
                // Whatever changes in file systems from here on is the guest's doing.
                namespace.mounts().iter().for_each(|mount| mount.fs().made());
            }
        };
        let container = Arc::new(GuestContainer {
            id: spec.id,
            name: spec.name,
            member,
            beginning: Beginning::default(),
            announcement: Announcement {
                args: spec.process.args,
                env: spec.process.env,
                cwd: spec.process.cwd,
                terminal: spec.process.terminal,
            },
            made_boot_ns: moat_host::clock::boottime_ns(),
            executed: Mutex::new(LockClass::Control, BTreeMap::new()),
            followers: Followers::default(),
            saving: AsyncMutex::new(),
            turn: AsyncMutex::new(),
            prepared: Mutex::new(LockClass::Control, None),
            donated: OnceLock::new(),
            settings,
            mounts: layout,
            network: OnceLock::new(),
        });
        if let Some(made) = made {
            container.begin(made);
        }
        Ok((container, waits))
    }

    /// Gives it its processes.
    pub(crate) fn begin(&self, made: RestoredContainer) {
        let RestoredContainer { prepared, known, donated } = made;
        self.executed.lock().extend(known.executed.into_iter().map(|process| (process.pid(), process)));
        let _ = self.donated.set(donated.iter().map(Arc::downgrade).collect());
        *self.prepared.lock() = Some(prepared);
        // Everything else is there: from here on others may ask for the init.
        match self.beginning.begin(known.init) {
            Wanted::Nothing => {}
            Wanted::Start => drop(self.start()),
            Wanted::End => drop(self.abort(Signal::SIGKILL)),
        }
    }

    /// Its init; none while it waits for the other containers of its image.
    pub(crate) fn init(&self) -> Option<&Process> {
        self.beginning.init()
    }

    /// Waits for the end of its init.
    pub(crate) async fn ended(&self) -> WaitStatus {
        self.beginning.ended().await
    }

    /// Whether it waits for the other containers of its image, and nobody has given it up.
    pub(crate) fn is_awaiting(&self) -> bool {
        self.beginning.is_open()
    }

    /// Ends it, if it has no processes yet.
    pub(crate) fn give_up(&self, signal: Signal) -> bool {
        self.beginning.give_up(signal)
    }

    /// What its init was started with and is still open, by number.
    pub(crate) fn donated(&self) -> Vec<(u32, Arc<OpenFile>)> {
        (0..)
            .zip(self.donated.get().into_iter().flatten())
            .filter_map(|(number, file)| Some((number, file.upgrade()?)))
            .collect()
    }

    /// What its processes have set below /proc/sys.
    pub(crate) fn changed_settings(&self) -> Vec<SettingState> {
        let now = sysctl::values(&sysctl::Scope::new(self.member.processes.kernel(), &self.member.place.namespaces));
        let changed = now.into_iter().filter(|(path, value)| self.settings.get(path) != Some(value));
        changed.map(|(path, value)| SettingState { path, value }).collect()
    }

    /// Those of namespaces that a process has made, which `new` ones do not have.
    pub(crate) fn settings_besides(&self, made: Namespaces, new: Namespaces) -> Vec<SettingState> {
        let kernel = self.member.processes.kernel();
        let values = |namespaces| sysctl::values(&sysctl::Scope::new(kernel, &Arc::new(namespaces)));
        let new = values(new);
        let changed = values(made).into_iter().filter(|(path, value)| new.get(path) != Some(value));
        changed.map(|(path, value)| SettingState { path, value }).collect()
    }

    /// Refuses to be saved with other mounts than those that a restore makes.
    ///
    /// # Errors
    /// What its processes have changed.
    pub(crate) fn refuse_changed_mounts(&self) -> Result<(), Refusal> {
        match self.mounts.difference(&Layout::of(&self.member.fs.namespace)) {
            Some(what) => Err(Refusal::new(what)),
            None => Ok(()),
        }
    }

    /// Refuses to be saved with another network than the one that a restore makes.
    ///
    /// # Errors
    /// What its processes have changed.
    pub(crate) fn refuse_changed_network(&self) -> Result<(), Refusal> {
        let now = Shape::of(&self.member.place.namespaces.net);
        match self.network.get().and_then(|before| now.difference(before)) {
            Some(what) => Err(Refusal::new(format!("what the container has changed of its network ({what})"))),
            None => Ok(()),
        }
    }

    /// Lets the init run.
    ///
    /// # Errors
    /// It was started before.
    pub(crate) fn start(&self) -> Result<(), ControlError> {
        // Its client is not kept waiting for the others, which it may be about to make.
        if self.beginning.start_later() {
            return Ok(());
        }
        // Paused before its start, it stays unstarted.
        let prepared = if self.member.processes.is_frozen() { None } else { self.prepared.lock().take() };
        match prepared.zip(self.init()) {
            Some((prepared, init)) => {
                let Announcement { args, env, cwd, terminal } = &self.announcement;
                // Before that there is nobody to change it, and it may not be complete.
                self.network.get_or_init(|| Shape::of(&self.member.place.namespaces.net));
                monitor::container_start(&self.id, init, args, env, cwd, *terminal);
                prepared.start();
                Ok(())
            }
            None => Err(self.wrong_state("it cannot be started")),
        }
    }

    /// Ends an init that was not started, if `signal` would have ended the runtime's process that stands for it.
    /// False if it was started, or the signal can wait.
    pub(crate) fn abort(&self, signal: Signal) -> bool {
        const DEADLY: [Signal; 5] = [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT];
        if !DEADLY.contains(&signal) {
            return false;
        }
        if self.give_up(signal) {
            return true;
        }
        let prepared = self.prepared.lock().take();
        prepared.map(|p| p.abort(signal)).is_some()
    }

    /// What state it is in.
    pub(crate) fn status(&self) -> ContainerStatus {
        if self.beginning.has_ended() {
            ContainerStatus::Stopped
        } else if self.member.processes.is_frozen() {
            ContainerStatus::Paused
        } else if self.init().is_none() || self.prepared.lock().is_some() {
            ContainerStatus::Created
        } else {
            ContainerStatus::Running
        }
    }

    /// Changes what it is shown of its cgroup, and its limit of tasks.
    pub(crate) fn update(&self, spec: &SharesSpec) {
        self.member.processes.allowance().set_shares(shares(spec));
        limit_tasks(&self.member.processes, spec.tasks);
    }

    /// Forgets a process that was started in it.
    pub(crate) fn forget(&self, process: &Process) {
        let mut executed = self.executed.lock();
        // The number may belong to another process by now.
        if executed.get(&process.pid()).is_some_and(|p| Arc::ptr_eq(p.group(), process.group())) {
            executed.remove(&process.pid());
        }
    }

    /// The error that says that `what` can't be done in its present state.
    pub(crate) fn wrong_state(&self, what: &str) -> ControlError {
        ControlError::State { id: self.id.clone(), status: self.status(), what: what.to_owned() }
    }
}

/// Loads the init's program into a process.
async fn first_process(
    process: &ProcessSpec,
    member: &Membership,
    namespace: &MountNamespace,
    fds: Vec<OwnedFd>,
) -> Result<RestoredContainer, BootError> {
    let set_up = |files: &mut [_], creds: &_| {
        console::set_up(files, namespace, &member.processes, creds);
    };
    let request = process::request(process, member, fds, set_up).map_err(|e| e.into_boot(process))?;
    // Known by number: a restore gets others in their place.
    let donated = request.fds.snapshot().into_iter().map(|(_, file, _)| file).collect();
    let prepared = prepare_process(request).await.map_err(|e| StartError::Command(e).into_boot(process))?;
    let init = prepared.process();
    // A command of `do` is to die of signals that an init would not be told of.
    if process.init == InitSignals::Ordinary {
        init.group().make_killable();
    }
    Ok(RestoredContainer { prepared, known: KnownProcesses { init, executed: Vec::new() }, donated })
}

fn place(kernel: &Kernel, spec: &ContainerSpec, root: Option<&GuestContainer>) -> Result<ContainerPlace, BootError> {
    let names = UtsNames { host: spec.hostname.clone().into_bytes(), domain: spec.domainname.clone().into_bytes() };
    let root = root.map(|r| &r.member.place);
    let when = |shares: bool| root.filter(|_| shares);
    let shared = Shared { pid: when(spec.shared.pid), uts: when(spec.shared.uts), ipc: when(spec.shared.ipc) };
    ContainerPlace::new_container(kernel, names, &shared)
        .map_err(|e| BootError { errno: Some(e.raw()), ..BootError::new("making a pid namespace") })
}

fn profile(spec: SeccompSpec) -> Result<Arc<Filter>, BootError> {
    let program = spec.program.into_iter().map(|BpfInstruction(code, jt, jf, k)| SockFilter { code, jt, jf, k });
    let logged = if spec.log { Logged::All } else { Logged::Default };
    Filter::new(program.collect(), logged, None)
        .map_err(|e| BootError { errno: Some(e.raw()), ..BootError::new("the seccomp profile") })
}

fn shares(spec: &SharesSpec) -> Shares {
    Shares {
        cpu_count: usize::try_from(spec.cpu_count).unwrap_or(1),
        total_memory: spec.total_memory_bytes,
        cpu_max: spec.cpu_max_us,
        memory_max: spec.memory_max_bytes,
    }
}

fn limit_tasks(processes: &ContainerGroup, limit: TaskLimit) {
    match limit {
        TaskLimit::Kept => {}
        TaskLimit::Unlimited => processes.allowance().set_tasks_max(None),
        TaskLimit::Max(max) => processes.allowance().set_tasks_max(Some(max)),
    }
}

/// Sets what the container wants of /proc/sys.
fn configure(kernel: &Kernel, spec: &ContainerSpec, place: &ContainerPlace) -> Result<(), BootError> {
    let scope = sysctl::Scope::new(kernel, &place.namespaces);
    for (name, value) in &spec.sysctls {
        sysctl::configure(name, value, &scope).map_err(|errno| match errno {
            Errno::ENOENT => BootError::new(format!("sysctl {name:?} is not supported")),
            Errno::EPERM => BootError::new(format!("sysctl {name:?} cannot be changed to {value:?}")),
            _ => BootError {
                errno: Some(errno.raw()),
                ..BootError::new(format!("setting sysctl {name:?} to {value:?}"))
            },
        })?;
    }
    Ok(())
}

/// The rules about devices, if there are any.
fn device_rules(spec: &[DeviceRule]) -> Option<DeviceRules> {
    let mut rules = DeviceRules::new(Verdict::Allow);
    for rule in spec {
        let verdict = if rule.allow { Verdict::Allow } else { Verdict::Deny };
        let (file_type, (major, minor)) = match rule.devices {
            RuleDevices::All => {
                // It says of every device what holds: whatever came before it counts no more.
                rules = DeviceRules::new(verdict);
                continue;
            }
            RuleDevices::Char(major, minor) => (FileType::CharDevice, (major, minor)),
            RuleDevices::Block(major, minor) => (FileType::BlockDevice, (major, minor)),
        };
        let mut access = DeviceAccess::empty();
        access.set(DeviceAccess::READ, rule.read);
        access.set(DeviceAccess::WRITE, rule.write);
        access.set(DeviceAccess::MAKE, rule.make);
        rules.add(verdict, Devices { file_type, major, minor }, access);
    }
    if spec.is_empty() { None } else { Some(rules) }
}

fn take<'a>(files: &mut DonatedFiles, numbers: impl Iterator<Item = &'a FdNumber>) -> Result<Vec<OwnedFd>, BootError> {
    numbers.map(|fd| files.take(*fd)).collect()
}
