//! [`Plan`]: the host's namespaces that a sandbox process is in.
//!
//! Mount, IPC, UTS and pid namespaces are always new and nothing in them matters to the guest, which has its own. The
//! network namespace is what the mode of the network says, and the user namespace follows from it.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use moat_control::spec::{IdView, JailSpec, NetworkMode, NetworkOrigin, Trees};
use moat_host::spawn::{IdMap, Joins, Namespaces};
use oci_spec::runtime::{LinuxIdMapping, LinuxNamespace, LinuxNamespaceType, Spec};
use rustix::fs::{CWD, Mode, OFlags};
use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::identity::{Identity, UserNamespace, contains, own_maps};
use crate::{Config, oci};

/// The capabilities over a network namespace that a guest's sockets can need, as a mask: NET_BIND_SERVICE, NET_RAW.
const NETWORK_CAPABILITIES: u64 = 1 << 10 | 1 << 13;

/// Devices that the host's kernel makes in every new network namespace if their modules are loaded; all are down.
const FALLBACK_DEVICES: &[&str] =
    &["lo", "tunl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "sit0", "ip6tnl0", "ip6gre0", "teql0"];

/// The namespaces that a sandbox process will be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Its user namespace.
    pub user: UserNamespace,
    /// Its network namespace.
    pub network: NetworkNamespace,
    /// The capabilities over its network namespace that it keeps, as a mask.
    pub capabilities: u64,
}

/// The network namespace of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NetworkNamespace {
    /// A new, empty one.
    #[default]
    New,
    /// The creator's.
    Current,
    /// An existing one.
    Join(PathBuf),
}

/// A plan whose namespaces are open.
#[derive(Debug)]
pub(crate) struct PreparedNamespaces {
    /// To make.
    pub(crate) namespaces: Namespaces,
    /// Whom the sandbox runs as.
    pub(crate) identity: Identity,
    network: Option<OwnedFd>,
    capabilities: u64,
}

/// Which container of a sandbox a configuration is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// The first, for which the sandbox is made.
    Root,
    /// One that is put into a sandbox and shares its namespaces.
    Member,
}

impl Role {
    /// What the annotations of containerd, CRI-O and Podman say.
    #[must_use]
    pub fn of(spec: &Spec) -> Self {
        let says = |key: &str| spec.annotations().as_ref().and_then(|all| all.get(key)).map(String::as_str);
        let kind = says("io.kubernetes.cri.container-type").or_else(|| says("io.kubernetes.cri-o.ContainerType"));
        if kind == Some("container") { Role::Member } else { Role::Root }
    }
}

impl Plan {
    /// The plan for the root container of a bundle.
    ///
    /// # Errors
    /// Namespaces or id maps that moat can't honour, by name.
    pub fn from_spec(spec: &Spec, config: &Config) -> Result<Self> {
        let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
        let network = network_namespace(find(namespaces, LinuxNamespaceType::Network), config.network)?;
        let user = match find(namespaces, LinuxNamespaceType::User) {
            Some(namespace) => user_namespace(spec, namespace)?,
            None => {
                refuse_mappings(spec)?;
                default_user_namespace(config.network)
            }
        };
        // The permitted set: a process may make any of it effective.
        let permitted = spec.process().as_ref().and_then(|process| process.capabilities().as_ref());
        let permitted = permitted.map_or(0, |sets| oci::capability_mask(sets.permitted().as_ref()));
        Ok(Plan { user, network, capabilities: network_capabilities(config.network, permitted) })
    }

    /// The plan for a container that has no configuration, whose init has the capabilities `permitted`.
    #[must_use]
    pub fn without_spec(config: &Config, permitted: u64) -> Self {
        Plan {
            user: default_user_namespace(config.network),
            network: match config.network {
                NetworkMode::None | NetworkMode::Sandbox => NetworkNamespace::New,
                NetworkMode::Host => NetworkNamespace::Current,
            },
            capabilities: network_capabilities(config.network, permitted),
        }
    }

    /// Which ids its guest has: those of a user namespace that somebody has chosen for it.
    pub(crate) fn id_view(&self) -> IdView {
        match &self.user {
            UserNamespace::New | UserNamespace::Current => creator_view(),
            // As `identity` has it: what can't be joined again is as if nobody had asked for it.
            UserNamespace::Join(path) if is_same(path, Path::new("/proc/self/ns/user")) => creator_view(),
            UserNamespace::Mapped { .. } | UserNamespace::Join(_) => IdView::Namespace,
        }
    }

    /// Opens the namespaces that are joined and chooses the sandbox's ids.
    pub(crate) fn prepare_namespaces(&self) -> Result<PreparedNamespaces> {
        let mut namespaces = Namespaces::MOUNT | Namespaces::PID | Namespaces::IPC | Namespaces::UTS;
        let network = match &self.network {
            NetworkNamespace::New => {
                namespaces |= Namespaces::NET;
                None
            }
            NetworkNamespace::Current => None,
            NetworkNamespace::Join(path) => Some(open("linux.namespaces: network", path)?),
        };
        let identity = self.user.identity()?;
        // One that is joined has its maps already.
        namespaces.set(Namespaces::USER, identity.maps.is_some());
        Ok(PreparedNamespaces { namespaces, identity, network, capabilities: self.capabilities })
    }
}

impl PreparedNamespaces {
    /// What is joined.
    pub(crate) fn joins(&self) -> Joins<'_> {
        Joins {
            user: self.identity.join.as_ref().map(OwnedFd::as_fd),
            network: self.network.as_ref().map(OwnedFd::as_fd),
        }
    }

    /// What the process makes of itself in them.
    pub(crate) fn jail(&self, trees: Trees) -> JailSpec {
        let network = match self.namespaces.contains(Namespaces::NET) {
            true => NetworkOrigin::New,
            false => NetworkOrigin::Existing,
        };
        JailSpec { run_as: self.identity.run_as, capabilities: self.capabilities, network, trees }
    }
}

/// Whether a configuration puts the container into a user namespace.
pub(crate) fn has_user_namespace(spec: &Spec) -> bool {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    find(namespaces, LinuxNamespaceType::User).is_some()
}

/// Checks the namespaces of a configuration; warns of what is not as asked for but harmless.
pub(crate) fn check(spec: &Spec, role: Role, network: NetworkMode, warnings: &mut Vec<String>) -> Result<()> {
    let namespaces = spec.linux().as_ref().and_then(|linux| linux.namespaces().as_deref()).unwrap_or_default();
    for (index, namespace) in namespaces.iter().enumerate() {
        let kind = namespace.typ();
        if kind == LinuxNamespaceType::Time {
            return Err(Error::unsupported("linux.namespaces: time", "guests see the host's clocks"));
        }
        // Which of two paths would be meant?
        if namespaces.iter().take(index).any(|other| other.typ() == kind) {
            return Err(Error::Invalid(format!("linux.namespaces: {kind} is given twice")));
        }
        let joined = matches!(kind, LinuxNamespaceType::Network | LinuxNamespaceType::User);
        // The paths of a member name what its sandbox has.
        if let (Some(path), Role::Root, false) = (path_of(namespace), role, joined) {
            return Err(Error::unsupported(
                format!("linux.namespaces: {kind} with path {}", path.display()),
                "the guest's namespaces are always new ones",
            ));
        }
    }
    let has = |kind| find(namespaces, kind).is_some();
    // A network or IPC namespace less shows the guest less than was asked for; a pid namespace less would have to show
    // more.
    if !has(LinuxNamespaceType::Pid) {
        let why = "the host's processes can't be shown to a guest";
        return Err(Error::unsupported("linux.namespaces without pid", why));
    }
    if !has(LinuxNamespaceType::Network) && network == NetworkMode::None {
        warnings.push("linux.namespaces has no network: the guest still has a loopback device only".into());
    }
    if !has(LinuxNamespaceType::Ipc) {
        warnings.push("linux.namespaces has no ipc: the guest still has IPC objects of its own".into());
    }
    Ok(())
}

fn find(namespaces: &[LinuxNamespace], kind: LinuxNamespaceType) -> Option<&LinuxNamespace> {
    namespaces.iter().find(|namespace| namespace.typ() == kind)
}

/// The path of a namespace; some clients write an empty one for a new namespace.
fn path_of(namespace: &LinuxNamespace) -> Option<&PathBuf> {
    namespace.path().as_ref().filter(|path| !path.as_os_str().is_empty())
}

/// What a user of a client can do who has asked that for the host's network, which is not the runtime's flag.
const FOR_HOST_NETWORK: &str = "the container asks for the host's network, and moat itself was started with \
    --network=sandbox: it has to be given --network=host (network = \"host\" in /etc/moat/config.toml, runtimeArgs in \
    Docker's daemon.json, --runtime-flag network=host of Podman)";

fn network_namespace(namespace: Option<&LinuxNamespace>, mode: NetworkMode) -> Result<NetworkNamespace> {
    let path = namespace.and_then(path_of);
    match (mode, namespace, path) {
        (NetworkMode::None, _, _) => Ok(NetworkNamespace::New),
        // So says Docker of --network=host.
        (NetworkMode::Sandbox, _, Some(path)) if is_same(path, Path::new("/proc/self/ns/net")) => {
            Err(Error::unsupported(format!("linux.namespaces: network with path {}", path.display()), FOR_HOST_NETWORK))
        }
        (NetworkMode::Sandbox | NetworkMode::Host, _, Some(path)) => Ok(NetworkNamespace::Join(path.clone())),
        // In mode `host` a hook of the container's engine puts interfaces into it, for the host's sockets in there.
        (NetworkMode::Sandbox | NetworkMode::Host, Some(_), None) => Ok(NetworkNamespace::New),
        (NetworkMode::Host, None, None) => Ok(NetworkNamespace::Current),
        (NetworkMode::Sandbox, None, None) => {
            Err(Error::unsupported("linux.namespaces without network", FOR_HOST_NETWORK))
        }
    }
}

/// The ids of who makes a sandbox without a user namespace of its configuration. As root of one that has not all ids, like that of
/// rootless Podman, it has no others to give; an ordinary user's guest has ids that are its own kernel's alone.
fn creator_view() -> IdView {
    let lines = |maps: Vec<IdMap>| maps.into_iter().map(|m| [m.inside, m.outside, m.count]).collect::<Vec<_>>();
    match own_maps() {
        Ok((uid, gid)) if rustix::process::geteuid().is_root() => {
            let (uid, gid) = (lines(uid), lines(gid));
            let all = [[0, 0, u32::MAX]];
            if uid == all && gid == all { IdView::All } else { IdView::Creator(uid, gid) }
        }
        _ => IdView::All,
    }
}

/// Whether two files are those of one namespace.
pub(crate) fn is_same(path: &Path, other: &Path) -> bool {
    let inode = |path: &Path| rustix::fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino)).ok();
    let wanted = inode(path);
    wanted.is_some() && wanted == inode(other)
}

fn default_user_namespace(mode: NetworkMode) -> UserNamespace {
    match mode {
        NetworkMode::None | NetworkMode::Sandbox => UserNamespace::New,
        // The network namespace belongs to it, and with it the right to privileged ports and raw sockets.
        NetworkMode::Host => UserNamespace::current_if_privileged(),
    }
}

fn network_capabilities(mode: NetworkMode, permitted: u64) -> u64 {
    match mode {
        NetworkMode::None | NetworkMode::Sandbox => 0,
        // Capabilities that this process lacks can't be passed on.
        NetworkMode::Host => permitted & NETWORK_CAPABILITIES & own_capabilities(),
    }
}

fn own_capabilities() -> u64 {
    // An ordinary user has all of them in the user namespace that is made for it.
    match rustix::thread::capabilities(None) {
        Ok(sets) if rustix::process::geteuid().is_root() => sets.permitted.bits(),
        _ => u64::MAX,
    }
}

fn user_namespace(spec: &Spec, namespace: &LinuxNamespace) -> Result<UserNamespace> {
    if let Some(path) = path_of(namespace) {
        // The maps of an existing namespace are fixed; clients repeat them for information.
        return Ok(UserNamespace::Join(path.clone()));
    }
    let Some(linux) = spec.linux() else { return Ok(UserNamespace::New) };
    let uid = id_maps("linux.uidMappings", linux.uid_mappings().as_deref().unwrap_or_default())?;
    let gid = id_maps("linux.gidMappings", linux.gid_mappings().as_deref().unwrap_or_default())?;
    match (uid.is_empty(), gid.is_empty()) {
        (true, true) => Ok(UserNamespace::New),
        (false, false) => Ok(UserNamespace::Mapped { uid, gid }),
        _ => Err(Error::Invalid("linux.uidMappings and linux.gidMappings must be given both or not at all".into())),
    }
}

fn id_maps(field: &str, mappings: &[LinuxIdMapping]) -> Result<Vec<IdMap>> {
    let maps: Vec<IdMap> = mappings
        .iter()
        .map(|m| IdMap { inside: m.container_id(), outside: m.host_id(), count: m.size() })
        .filter(|map| map.count > 0)
        .collect();
    // Files that the guest's root makes need an owner on the host.
    if !mappings.is_empty() && !contains(&maps, 0) {
        return Err(Error::unsupported(field, "it does not map the container's root"));
    }
    Ok(maps)
}

fn refuse_mappings(spec: &Spec) -> Result<()> {
    let Some(linux) = spec.linux() else { return Ok(()) };
    let given = |mappings: &Option<Vec<LinuxIdMapping>>| mappings.as_ref().is_some_and(|all| !all.is_empty());
    if given(linux.uid_mappings()) || given(linux.gid_mappings()) {
        return Err(Error::Invalid(
            "linux.uidMappings and linux.gidMappings need a user namespace in linux.namespaces".into(),
        ));
    }
    Ok(())
}

/// Opens a namespace's file.
pub(crate) fn open(what: &str, path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .context(|| format!("{what}: opening {}", path.display()))
}

/// The network interfaces of the process's network namespace that somebody put there: all but the loopback and what
/// the host's kernel makes by itself.
///
/// # Errors
/// The process is gone.
pub fn foreign_interfaces(pid: i32) -> Result<Vec<String>> {
    let path = format!("/proc/{pid}/net/dev");
    let text = fs::read_to_string(&path).context(|| format!("reading {path}"))?;
    Ok(interfaces(&text).filter(|name| !FALLBACK_DEVICES.contains(name)).map(str::to_owned).collect())
}

/// The names in /proc/net/dev, which has two lines of headings.
fn interfaces(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .skip(2)
        .filter_map(|line| line.rsplit_once(": ").or_else(|| line.split_once(':')))
        .map(|(n, _)| n.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(namespaces: &str, more: &str) -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.0.2","process":{{"cwd":"/","user":{{"uid":0,"gid":0}},"capabilities":{{"permitted":["CAP_NET_RAW","CAP_KILL"]}}}},
                "linux":{{"namespaces":{namespaces}{more}}}}}"#
        ))
        .unwrap()
    }

    fn plan(namespaces: &str, network: NetworkMode) -> Result<Plan> {
        Plan::from_spec(&spec(namespaces, ""), &Config { network, ..Config::default() })
    }

    #[test]
    fn the_network_mode_decides_the_namespace() {
        use NetworkMode::{Host, None, Sandbox};
        let path = NetworkNamespace::Join("/run/netns/a".into());
        let (with_path, new, without) =
            (r#"[{"type":"network","path":"/run/netns/a"}]"#, r#"[{"type":"network"}]"#, "[]");
        for (namespaces, mode, expected) in [
            (with_path, None, NetworkNamespace::New),
            (with_path, Sandbox, path.clone()),
            (with_path, Host, path),
            (new, None, NetworkNamespace::New),
            (new, Sandbox, NetworkNamespace::New),
            (new, Host, NetworkNamespace::New),
            (without, None, NetworkNamespace::New),
            (without, Host, NetworkNamespace::Current),
            (r#"[{"type":"network","path":""}]"#, Sandbox, NetworkNamespace::New),
        ] {
            assert_eq!(plan(namespaces, mode).unwrap().network, expected, "{namespaces} {mode:?}");
        }
        let own = r#"[{"type":"network","path":"/proc/self/ns/net"}]"#;
        assert!(plan(own, Sandbox).unwrap_err().to_string().contains("--network=host"));
        assert_eq!(plan(own, Host).unwrap().network, NetworkNamespace::Join("/proc/self/ns/net".into()));
        let error = plan(without, Sandbox).unwrap_err().to_string();
        assert!(error.contains("linux.namespaces without network") && error.contains("--network=host"), "{error}");
    }

    #[test]
    fn only_capabilities_over_the_network_are_kept_and_only_in_host_mode() {
        assert_eq!(plan("[]", NetworkMode::None).unwrap().capabilities, 0);
        if rustix::process::geteuid().is_root() {
            let plan = plan("[]", NetworkMode::Host).unwrap();
            assert_eq!((plan.capabilities, &plan.user), (1 << 13, &UserNamespace::Current));
            let jail = plan.prepare_namespaces().unwrap().jail(Trees::Detached);
            assert_eq!((jail.capabilities, jail.network), (1 << 13, NetworkOrigin::Existing));
        }
    }

    #[test]
    fn user_namespaces() {
        let config = Config::default();
        let user = |namespaces: &str, more: &str| Plan::from_spec(&spec(namespaces, more), &config).map(|p| p.user);
        let maps = r#","uidMappings":[{"containerID":0,"hostID":100000,"size":65536}],"gidMappings":[{"containerID":0,"hostID":100000,"size":65536}]"#;
        let expected = vec![IdMap { inside: 0, outside: 100_000, count: 65536 }];
        assert_eq!(
            user(r#"[{"type":"user"}]"#, maps).unwrap(),
            UserNamespace::Mapped { uid: expected.clone(), gid: expected }
        );
        assert_eq!(user(r#"[{"type":"user"}]"#, "").unwrap(), UserNamespace::New);
        let joined = UserNamespace::Join("/proc/7/ns/user".into());
        assert_eq!(user(r#"[{"type":"user","path":"/proc/7/ns/user"}]"#, maps).unwrap(), joined);
        assert!(user("[]", maps).unwrap_err().to_string().contains("need a user namespace"));
        let no_root = r#","uidMappings":[{"containerID":1,"hostID":1,"size":1}],"gidMappings":[]"#;
        assert!(user(r#"[{"type":"user"}]"#, no_root).unwrap_err().to_string().contains("linux.uidMappings"));
    }

    #[test]
    fn namespaces_are_refused_by_name() {
        let check = |namespaces: &str, role| check(&spec(namespaces, ""), role, NetworkMode::None, &mut Vec::new());
        for (namespaces, part) in [
            (r#"[{"type":"pid"},{"type":"time"}]"#, "linux.namespaces: time"),
            (r#"[{"type":"pid"},{"type":"ipc","path":"/proc/7/ns/ipc"}]"#, "ipc with path /proc/7/ns/ipc"),
            (r#"[{"type":"pid","path":"/proc/7/ns/pid"}]"#, "pid with path"),
            (r#"[{"type":"mount"}]"#, "linux.namespaces without pid"),
            (r#"[{"type":"pid"},{"type":"pid"}]"#, "given twice"),
        ] {
            let error = check(namespaces, Role::Root).unwrap_err().to_string();
            assert!(error.contains(part), "{namespaces}: {error}");
        }
        check(r#"[{"type":"pid"},{"type":"ipc","path":"/proc/7/ns/ipc"}]"#, Role::Member).unwrap();
    }

    #[test]
    fn roles_come_from_annotations() {
        let with = |json: &str| {
            Role::of(&serde_json::from_str(&format!(r#"{{"ociVersion":"1.0.2","annotations":{json}}}"#)).unwrap())
        };
        assert_eq!(with("{}"), Role::Root);
        assert_eq!(with(r#"{"io.kubernetes.cri.container-type":"sandbox"}"#), Role::Root);
        assert_eq!(with(r#"{"io.kubernetes.cri.container-type":"container"}"#), Role::Member);
        assert_eq!(with(r#"{"io.kubernetes.cri-o.ContainerType":"container"}"#), Role::Member);
    }

    #[test]
    fn interface_names_are_read() {
        let text = "Inter-|   Receive\n face |bytes\n    lo: 1 2 3\n  eth0:12345 0\ntunl0: 0 0\n";
        assert_eq!(interfaces(text).collect::<Vec<_>>(), ["lo", "eth0", "tunl0"]);
        assert!(foreign_interfaces(i32::try_from(std::process::id()).unwrap()).is_ok());
        assert!(foreign_interfaces(i32::MAX).is_err());
    }
}
