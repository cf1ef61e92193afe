//! Namespaces that processes have made, in an image and out of it.

use std::sync::Arc;

use moat_abi::clone::CloneFlags;
use moat_abi::prctl::UTS_LEN;
use moat_abi::ptrace::SeccompData;
use moat_abi::{Errno, nr};
use moat_identity::namespaces::UtsNames;
use moat_identity::{CgroupNamespace, IpcNamespace, Namespaces, NetNamespace, PidNamespace, UtsNamespace};
use moat_image::refs::find;
use moat_image::state::{
    ContainerIndex, NamespaceRef, PidNamespaceState, SandboxState, TaskState as SavedTask, of_container,
};
use moat_image::{ImageError, Ref, Refusal};
use moat_vfs::persist::{Restorer, SavedNamespaces};

use super::Configured;
use crate::nsfs::Namespace;
use crate::quotas::number;
use crate::seccomp::Filter;
use crate::spawn::ContainerPlace;
use crate::task::Task;

/// The IPC and network namespaces that the containers' processes are in, beside their own, the eldest first: whoever keeps objects in one
/// says what is to be saved of them.
#[must_use]
pub fn kept_apart(containers: &[Configured]) -> (Vec<Arc<IpcNamespace>>, Vec<Arc<NetNamespace>>) {
    let groups = containers.iter().flat_map(|container| container.processes.processes());
    let all: Vec<_> = groups.flat_map(|group| group.threads()).map(|task| task.namespaces()).collect();
    let own = |id: fn(&Namespaces) -> u64, other: u64| {
        containers.iter().any(|container| id(&container.place.namespaces) == other)
    };
    // Most processes share theirs: each is given once.
    let mut ipcs: Vec<_> = all.iter().map(|n| n.ipc.clone()).filter(|ns| !own(|n| n.ipc.id, ns.id)).collect();
    ipcs.sort_by_key(|ns| ns.id);
    ipcs.dedup_by_key(|ns| ns.id);
    let mut nets: Vec<_> = all.iter().map(|n| n.net.clone()).filter(|ns| !own(|n| n.net.id, ns.id)).collect();
    nets.sort_by_key(|ns| ns.id);
    nets.dedup_by_key(|ns| ns.id);
    (ipcs, nets)
}

/// Puts the names of a task's namespaces into `state`.
pub(super) fn save(task: &Task, names: &mut SavedNamespaces, state: &mut SavedTask) -> Result<(), Refusal> {
    let namespaces = task.namespaces();
    state.net = names.net(&namespaces.net)?;
    state.uts = names.uts(&namespaces.uts)?;
    state.pid_for_children = names.pid(&namespaces.pid_for_children)?;
    state.cgroup = names.cgroup(&namespaces.cgroup)?;
    state.ipc = names.ipc(&namespaces.ipc)?;
    Ok(())
}

/// Those of an image, by their numbers there.
pub struct MadeNamespaces {
    /// Of each container.
    own: Vec<ContainerPlace>,
    uts: Vec<Arc<UtsNamespace>>,
    pids: Vec<Arc<PidNamespace>>,
    ipcs: Vec<Arc<IpcNamespace>>,
    nets: Vec<Arc<NetNamespace>>,
    cgroups: Vec<Arc<CgroupNamespace>>,
}

impl MadeNamespaces {
    pub(super) fn restore(containers: &[Configured], files: &Restorer<'_>) -> Result<MadeNamespaces, ImageError> {
        let state = files.state();
        // Only with one container there are any but its own.
        let container = of_container(containers, 0)?;
        let kernel = container.processes.kernel();
        check_profile(state, container.profile.as_deref())?;
        // They count as those that unshare(2) makes.
        let (ids, quotas) = (&kernel.ids.namespaces, &kernel.quotas);
        let failed = |errno| ImageError::Unfit(format!("a namespace: {errno}"));
        // From what refers to nothing up: their owners are there already.
        let mut made = MadeNamespaces {
            own: containers.iter().map(|container| container.place.clone()).collect(),
            uts: Vec::new(),
            pids: Vec::new(),
            ipcs: Vec::new(),
            nets: Vec::new(),
            cgroups: Vec::new(),
        };
        for saved in state.uts_namespaces.iter() {
            check_names(&saved.hostname, &saved.domainname)?;
            let names = UtsNames { host: saved.hostname.clone(), domain: saved.domainname.clone() };
            let id = number(ids, &quotas.uts).map_err(failed)?;
            made.uts.push(UtsNamespace::new(id, files.owner(saved.user)?, names));
        }
        for saved in state.pid_namespaces.iter() {
            // Only what stands before it is there: a circle of parents would have no end.
            let (parent, id) = (made.pid(0, saved.parent)?, number(ids, &quotas.pid).map_err(failed)?);
            let ns = PidNamespace::new(id, files.owner(saved.user)?, Some(parent.clone())).map_err(failed)?;
            ns.set_last_pid(saved.last_pid);
            made.pids.push(ns);
        }
        for saved in state.ipc_namespaces.iter() {
            let id = number(ids, &quotas.ipc).map_err(failed)?;
            made.ipcs.push(IpcNamespace::new(id, files.owner(saved.user)?));
        }
        for saved in state.net_namespaces.iter() {
            // With the host's network there can be no other.
            let make = kernel.vfs.registry.network_maker().ok_or_else(|| failed(Errno::EPERM))?;
            let ns = NetNamespace::new(number(ids, &quotas.net).map_err(failed)?, files.owner(saved.user)?);
            make(&ns);
            made.nets.push(ns);
        }
        // There is no cgroup below the container's: each shows the same.
        for saved in state.cgroup_namespaces.iter() {
            let id = number(ids, &quotas.cgroup).map_err(failed)?;
            let ns = CgroupNamespace::new(id, files.owner(saved.user)?);
            container.processes.show_in(&ns);
            made.cgroups.push(ns);
        }
        Ok(made)
    }

    /// Lets nobody into pid namespaces whose init had ended. For when all pids are there.
    pub(super) fn close_pids(&self, state: &SandboxState) {
        let closed = self.pids.iter().zip(state.pid_namespaces.iter()).filter(|(_, saved)| saved.closed);
        closed.for_each(|(ns, _)| ns.close());
    }

    /// A pid namespace; where none is named, that of the container.
    ///
    /// # Errors
    /// One that is not there.
    pub fn pid(
        &self,
        container: ContainerIndex,
        name: Option<Ref<PidNamespaceState>>,
    ) -> Result<&Arc<PidNamespace>, ImageError> {
        match name {
            None => Ok(&of_container(&self.own, container)?.pid_ns),
            Some(name) => find(&self.pids, name),
        }
    }

    /// The namespaces that a container was made with.
    ///
    /// # Errors
    /// A container that is not there.
    pub(super) fn own(&self, container: ContainerIndex) -> Result<&ContainerPlace, ImageError> {
        of_container(&self.own, container)
    }

    /// The IPC namespaces that processes had made, in the image's order.
    #[must_use]
    pub fn ipcs(&self) -> &[Arc<IpcNamespace>] {
        &self.ipcs
    }

    /// The network namespaces that processes had made, in the image's order. Their loopback devices are down.
    #[must_use]
    pub fn nets(&self) -> &[Arc<NetNamespace>] {
        &self.nets
    }

    /// Those of a thread in the pid namespace `here`.
    pub(super) fn of(
        &self,
        container: ContainerIndex,
        saved: &SavedTask,
        here: &PidNamespace,
    ) -> Result<Arc<Namespaces>, ImageError> {
        let own = &self.own(container)?.namespaces;
        let pid_for_children = self.pid(container, saved.pid_for_children)?.clone();
        // setns(2) and unshare(2) lead down only: a child that its parent has no number for could not be waited for.
        if !here.contains(&pid_for_children) {
            return Err(ImageError::state("a thread whose children are out of its pid namespace"));
        }
        Ok(Arc::new(Namespaces {
            uts: saved.uts.map_or(Ok(&own.uts), |name| find(&self.uts, name))?.clone(),
            pid_for_children,
            ipc: saved.ipc.map_or(Ok(&own.ipc), |name| find(&self.ipcs, name))?.clone(),
            net: saved.net.map_or(Ok(&own.net), |name| find(&self.nets, name))?.clone(),
            cgroup: saved.cgroup.map_or(Ok(&own.cgroup), |name| find(&self.cgroups, name))?.clone(),
        }))
    }

    /// What a file of a namespace is of.
    ///
    /// # Errors
    /// One that is not there.
    pub fn of_file(&self, saved: NamespaceRef, files: &Restorer<'_>) -> Result<Namespace, ImageError> {
        // In a pod nobody else's can be saved.
        let own = &self.own(0)?.namespaces;
        Ok(match saved {
            NamespaceRef::User(name) => Namespace::User(files.user_namespace(name)?),
            NamespaceRef::Uts(name) => Namespace::Uts(name.map_or(Ok(&own.uts), |n| find(&self.uts, n))?.clone()),
            NamespaceRef::Pid(name) => Namespace::Pid(self.pid(0, name)?.clone()),
            NamespaceRef::Ipc(name) => Namespace::Ipc(name.map_or(Ok(&own.ipc), |n| find(&self.ipcs, n))?.clone()),
            NamespaceRef::Cgroup(name) => {
                Namespace::Cgroup(name.map_or(Ok(&own.cgroup), |n| find(&self.cgroups, n))?.clone())
            }
            NamespaceRef::Net(name) => Namespace::Net(name.map_or(Ok(&own.net), |n| find(&self.nets, n))?.clone()),
            NamespaceRef::Mount => Namespace::Mount(files.namespace(0)?.clone()),
            NamespaceRef::Time => Namespace::Time(files.user_namespace(None)?),
        })
    }
}

/// Checks names as sethostname(2) would.
pub(super) fn check_names(host: &[u8], domain: &[u8]) -> Result<(), ImageError> {
    match host.len().max(domain.len()) {
        0..UTS_LEN => Ok(()),
        len => Err(ImageError::state(format!("a host or domain name of {len} bytes"))),
    }
}

/// Whether the container's profile lets processes make the kinds of namespaces that are there.
fn check_profile(state: &SandboxState, profile: Option<&Filter>) -> Result<(), ImageError> {
    let kinds = [
        (!state.user_namespaces.is_empty(), CloneFlags::NEWUSER),
        (!state.uts_namespaces.is_empty(), CloneFlags::NEWUTS),
        (!state.pid_namespaces.is_empty(), CloneFlags::NEWPID),
        (!state.ipc_namespaces.is_empty(), CloneFlags::NEWIPC),
        (!state.net_namespaces.is_empty(), CloneFlags::NEWNET),
        (!state.cgroup_namespaces.is_empty(), CloneFlags::NEWCGROUP),
    ];
    // Without one every call is let through; what takes a capability besides is looked at where owners are.
    let Some(profile) = profile else { return Ok(()) };
    for (_, flag) in kinds.into_iter().filter(|(is_there, _)| *is_there) {
        // A flag of clone3(2) is in memory, which no filter sees.
        let calls = [nr::UNSHARE, nr::CLONE, nr::CLONE3].map(|nr| SeccompData {
            nr: i32::try_from(nr).unwrap_or(-1),
            arch: moat_abi::siginfo::AUDIT_ARCH_X86_64,
            args: [flag.bits(), 0, 0, 0, 0, 0],
            ..SeccompData::default()
        });
        if !calls.iter().any(|call| profile.lets_through(call)) {
            return Err(ImageError::Unfit(
                "a namespace that the container's profile does not let a process make".into(),
            ));
        }
    }
    Ok(())
}
