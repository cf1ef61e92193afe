//! [`SavedNamespaces`]: those that processes have made, into an image. Where one has no name, it is the container's: of several containers, that
//! of the one whose processes are being saved.

use std::sync::Arc;

use moat_identity::user_ns::{IdRange, Setfcap};
use moat_identity::{
    CgroupNamespace, IpcNamespace, Namespaces, NetNamespace, PidNamespace, UserNamespace, UtsNamespace,
};
use moat_image::state::{
    CgroupNamespaceState, ContainerIndex, IpcNamespaceState, NetNamespaceState, PidNamespaceState, SandboxState,
    SettingState, UserNamespaceState, UtsNamespaceState,
};
use moat_image::{ImageError, Interner, Met, Ref, Refusal};

fn address<T: ?Sized>(object: &Arc<T>) -> usize {
    Arc::as_ptr(object).addr()
}

/// Those that a container was made with.
pub struct OwnNamespaces {
    /// All but the two below.
    pub namespaces: Arc<Namespaces>,
    /// The one that its processes are in.
    pub pids: Arc<PidNamespace>,
    /// The number of its mount namespace.
    pub mounts: u64,
}

/// Namespaces that were met.
pub struct SavedNamespaces {
    /// Of each container.
    own: Vec<OwnNamespaces>,
    /// The one whose processes are being saved.
    container: ContainerIndex,
    own_user: Arc<UserNamespace>,
    numbers: Arc<PidNamespace>,
    users: Interner<UserNamespaceState>,
    uts: Interner<UtsNamespaceState>,
    pids: Interner<PidNamespaceState>,
    ipcs: Interner<IpcNamespaceState>,
    cgroups: Interner<CgroupNamespaceState>,
    nets: Interner<NetNamespaceState>,
    known_ipcs: Vec<Arc<IpcNamespace>>,
    /// What is known by its address stays alive.
    kept: Vec<Kept>,
}

#[allow(dead_code, reason = "each is held, and never looked at")]
enum Kept {
    User(Arc<UserNamespace>),
    Uts(Arc<UtsNamespace>),
    Pid(Arc<PidNamespace>),
    Cgroup(Arc<CgroupNamespace>),
    Net(Arc<NetNamespace>),
}

/// A map as the image has it.
fn ranges(map: Option<Vec<IdRange>>) -> Option<Vec<(u32, u32, u32)>> {
    Some(map?.iter().map(|r| (r.inside, r.outside, r.count)).collect())
}

impl SavedNamespaces {
    /// Those of containers, of which the first has `first`; all of them are in the user namespace `own_user`, and have numbers in `outermost`.
    #[must_use]
    pub fn new(
        first: OwnNamespaces,
        later: Vec<OwnNamespaces>,
        own_user: Arc<UserNamespace>,
        outermost: Arc<PidNamespace>,
    ) -> SavedNamespaces {
        // Containers may have pid namespaces of their own, and what remembers a process may be any's.
        let numbers = if later.is_empty() { first.pids.clone() } else { outermost };
        SavedNamespaces {
            own: std::iter::once(first).chain(later).collect(),
            container: 0,
            own_user,
            numbers,
            users: Interner::default(),
            uts: Interner::default(),
            pids: Interner::default(),
            ipcs: Interner::default(),
            cgroups: Interner::default(),
            nets: Interner::default(),
            known_ipcs: Vec::new(),
            kept: Vec::new(),
        }
    }

    /// Says whose processes are saved from here on.
    pub fn enter(&mut self, container: ContainerIndex) {
        self.container = container;
    }

    /// Whose processes are being saved.
    #[must_use]
    pub fn container(&self) -> ContainerIndex {
        self.container
    }

    /// Where every process has the number that it is remembered by: the container's pid namespace; of several, the outermost.
    #[must_use]
    pub fn numbers(&self) -> &Arc<PidNamespace> {
        &self.numbers
    }

    /// Whether `id` is the own namespace of the container whose processes are being saved.
    ///
    /// # Errors
    /// With several containers, any other one.
    fn is_own(&self, what: &str, id: u64, own: impl Fn(&OwnNamespaces) -> u64) -> Result<bool, Refusal> {
        let entered = usize::try_from(self.container).ok().and_then(|at| self.own.get(at));
        if entered.is_some_and(|entered| own(entered) == id) {
            return Ok(true);
        }
        if self.own.len() == 1 {
            return Ok(false);
        }
        // Whether its maker could make it, is for one configuration to say; and each has its own.
        let others = self.own.iter().any(|other| own(other) == id);
        let whose = if others { "of another container" } else { "of the guest's own, in a pod," };
        Err(Refusal::new(format!("a {what} namespace {whose}")))
    }

    /// A user namespace.
    ///
    /// # Errors
    /// One that is not below the container's.
    pub fn user(&mut self, ns: &Arc<UserNamespace>) -> Result<Option<Ref<UserNamespaceState>>, Refusal> {
        let own = self.own_user.id;
        if self.is_own("user", ns.id, |_| own)? {
            return Ok(None);
        }
        // Those above it that have no name yet, the innermost first.
        let mut unnamed = Vec::new();
        let mut at = ns.clone();
        let mut name = None;
        while !Arc::ptr_eq(&at, &self.own_user) {
            if let Some(known) = self.users.name_of(address(&at)) {
                name = Some(known);
                break;
            }
            let above = at.parent.clone().ok_or_else(|| Refusal::new("a user namespace of another container"))?;
            unnamed.push(std::mem::replace(&mut at, above));
        }
        for ns in unnamed.into_iter().rev() {
            // One that has not been written yet is, by whoever may, when it is restored.
            let maps = ns.maps();
            let state = UserNamespaceState {
                parent: name,
                owner: ns.owner,
                setfcap: ns.maker == Setfcap::Held,
                uids: ranges(maps.uid),
                gids: ranges(maps.gid),
                setgroups_denied: maps.setgroups_denied,
            };
            let (Met::First(new) | Met::Before(new)) = self.users.meet(address(&ns));
            self.users.fill(new, state);
            self.kept.push(Kept::User(ns));
            name = Some(new);
        }
        Ok(name)
    }

    /// A UTS namespace.
    ///
    /// # Errors
    /// Its owner is not below the container's.
    pub fn uts(&mut self, ns: &Arc<UtsNamespace>) -> Result<Option<Ref<UtsNamespaceState>>, Refusal> {
        if self.is_own("UTS", ns.id, |own| own.namespaces.uts.id)? {
            return Ok(None);
        }
        let user = self.user(&ns.user_ns)?;
        // The interner knows it by its address.
        self.kept.push(Kept::Uts(ns.clone()));
        let names = ns.names();
        let state = UtsNamespaceState { hostname: names.host, domainname: names.domain, user };
        self.uts.save(address(ns), || Ok(state)).map(Some)
    }

    /// A pid namespace.
    ///
    /// # Errors
    /// One that is not below the container's.
    pub fn pid(&mut self, ns: &Arc<PidNamespace>) -> Result<Option<Ref<PidNamespaceState>>, Refusal> {
        if self.is_own("pid", ns.id, |own| own.pids.id)? {
            return Ok(None);
        }
        // As with user namespaces: each behind the one that it was made in.
        let mut unnamed = Vec::new();
        let own = self.own.first().map_or(0, |own| own.pids.id);
        let mut at = ns.clone();
        let mut name = None;
        while at.id != own {
            if let Some(known) = self.pids.name_of(address(&at)) {
                name = Some(known);
                break;
            }
            let above = at.parent.clone().ok_or_else(|| Refusal::new("a pid namespace of another container"))?;
            unnamed.push(std::mem::replace(&mut at, above));
        }
        for ns in unnamed.into_iter().rev() {
            let user = self.user(&ns.user_ns)?;
            let state = PidNamespaceState { parent: name, user, last_pid: ns.last_pid(), closed: ns.is_closed() };
            let (Met::First(new) | Met::Before(new)) = self.pids.meet(address(&ns));
            self.pids.fill(new, state);
            self.kept.push(Kept::Pid(ns));
            name = Some(new);
        }
        Ok(name)
    }

    /// The pid namespace of a process, whichever container's that is; and that container.
    ///
    /// # Errors
    /// As [`SavedNamespaces::pid`].
    pub fn pid_of_any(
        &mut self,
        ns: &Arc<PidNamespace>,
    ) -> Result<(ContainerIndex, Option<Ref<PidNamespaceState>>), Refusal> {
        match (0..).zip(&self.own).find(|(_, own)| own.pids.id == ns.id) {
            Some((container, _)) => Ok((container, None)),
            None => Ok((self.container, self.pid(ns)?)),
        }
    }

    /// A cgroup namespace.
    ///
    /// # Errors
    /// Its owner is not below the container's.
    pub fn cgroup(&mut self, ns: &Arc<CgroupNamespace>) -> Result<Option<Ref<CgroupNamespaceState>>, Refusal> {
        if self.is_own("cgroup", ns.id, |own| own.namespaces.cgroup.id)? {
            return Ok(None);
        }
        // What it shows is the container's.
        let user = self.user(&ns.user_ns)?;
        self.kept.push(Kept::Cgroup(ns.clone()));
        self.cgroups.save(address(ns), || Ok(CgroupNamespaceState { user })).map(Some)
    }

    /// Gives a network namespace a name, if it is not the container's. It has nothing but its loopback device.
    ///
    /// # Errors
    /// Its owner is not below the container's.
    pub fn add_net(
        &mut self,
        ns: &Arc<NetNamespace>,
        loopback_up: bool,
        settings: Vec<SettingState>,
    ) -> Result<(), Refusal> {
        if self.is_own("network", ns.id, |own| own.namespaces.net.id)? {
            return Ok(());
        }
        let user = self.user(&ns.user_ns)?;
        self.kept.push(Kept::Net(ns.clone()));
        self.nets.save(address(ns), || Ok(NetNamespaceState { user, loopback_up, settings })).map(|_| ())
    }

    /// A network namespace, which has been given a name.
    ///
    /// # Errors
    /// One that no process is in.
    pub fn net(&self, ns: &NetNamespace) -> Result<Option<Ref<NetNamespaceState>>, Refusal> {
        // By number: a task's list of namespaces is made anew by each unshare(2), also with the same namespaces in it.
        if self.is_own("network", ns.id, |own| own.namespaces.net.id)? {
            return Ok(None);
        }
        match self.nets.name_of(std::ptr::from_ref(ns).addr()) {
            Some(name) => Ok(Some(name)),
            None => Err(Refusal::new("a network namespace that no process is in")),
        }
    }

    /// Whether a mount namespace is the container's.
    ///
    /// # Errors
    /// One of the guest's own.
    pub fn mounts(&self, number: u64) -> Result<(), Refusal> {
        match self.is_own("mount", number, |own| own.mounts)? {
            true => Ok(()),
            false => Err(Refusal::new("a mount namespace of the guest's own")),
        }
    }

    /// Gives an IPC namespace a name, if it is not the container's: before any of its objects is saved.
    ///
    /// # Errors
    /// Its owner is not below the container's.
    pub fn add_ipc(
        &mut self,
        ns: &Arc<IpcNamespace>,
        settings: Vec<SettingState>,
    ) -> Result<Option<Ref<IpcNamespaceState>>, Refusal> {
        if self.is_own("IPC", ns.id, |own| own.namespaces.ipc.id)? {
            return Ok(None);
        }
        let user = self.user(&ns.user_ns)?;
        if self.ipcs.name_of(address(ns)).is_none() {
            self.known_ipcs.push(ns.clone());
        }
        self.ipcs.save(address(ns), || Ok(IpcNamespaceState { user, settings })).map(Some)
    }

    /// Those that have been given a name, in the order of their names.
    #[must_use]
    pub fn ipcs(&self) -> &[Arc<IpcNamespace>] {
        &self.known_ipcs
    }

    /// An IPC namespace, which has been given a name.
    ///
    /// # Errors
    /// One that no process is in.
    pub fn ipc(&self, ns: &Arc<IpcNamespace>) -> Result<Option<Ref<IpcNamespaceState>>, Refusal> {
        if self.is_own("IPC", ns.id, |own| own.namespaces.ipc.id)? {
            return Ok(None);
        }
        match self.ipcs.name_of(address(ns)) {
            Some(name) => Ok(Some(name)),
            // Its objects would be lost in silence.
            None => Err(Refusal::new("an IPC namespace that no process is in")),
        }
    }

    pub(crate) fn finish(self, state: &mut SandboxState) -> Result<(), ImageError> {
        state.user_namespaces = self.users.finish()?;
        state.uts_namespaces = self.uts.finish()?;
        state.pid_namespaces = self.pids.finish()?;
        state.ipc_namespaces = self.ipcs.finish()?;
        state.net_namespaces = self.nets.finish()?;
        state.cgroup_namespaces = self.cgroups.finish()?;
        Ok(())
    }
}
