//! /proc/sys: the settings of the kernel, proc_sys(5).
//!
//! Most of them are facts here: a write of what a container may set is kept where it has an effect, and refused elsewhere.

mod conf;
mod net;
mod tree;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use moat_abi::cap::Cap;
use moat_abi::prctl::UTS_LEN;
use moat_abi::{Errno, Result};
use moat_identity::{Namespaces, Setting};
use moat_ipc::{MqueueSettings, SystemV};
use moat_kernel::kernel::{Kernel, RELEASE, VERSION};
use moat_kernel::process::core_pattern::CorePattern;
use moat_kernel::quotas::NamespaceQuotas;
use moat_sync::{LockClass, Mutex};
use moat_vfs::AioLimits;
use moat_vfs::cred::Credentials;
use moat_vfs::inotify::Watches;

pub(crate) use tree::root;

/// What the settings of one proc belong to.
pub struct Scope {
    namespaces: Arc<Namespaces>,
    system_v: Arc<SystemV>,
    mqueue: Arc<MqueueSettings>,
    kept: Arc<Kept>,
    watches: Arc<Watches>,
    aio: Arc<AioLimits>,
    core: Arc<CorePattern>,
    lease_break_time: Arc<Setting>,
    quotas: Arc<NamespaceQuotas>,
    boot_id: [u8; 16],
}

impl Scope {
    /// The settings of a task with these namespaces.
    #[must_use]
    pub fn new(kernel: &Kernel, namespaces: &Arc<Namespaces>) -> Scope {
        let times = kernel.vfs.leases.break_time.clone();
        let files = (&kernel.vfs.watches, &kernel.vfs.aio, times);
        Scope::of(kernel.boot_id, files, (&kernel.core_pattern, &kernel.quotas), namespaces)
    }

    fn of(
        boot_id: [u8; 16],
        (watches, aio, lease_break_time): (&Arc<Watches>, &Arc<AioLimits>, Arc<Setting>),
        (core, quotas): (&Arc<CorePattern>, &Arc<NamespaceQuotas>),
        namespaces: &Arc<Namespaces>,
    ) -> Scope {
        Scope {
            namespaces: namespaces.clone(),
            system_v: SystemV::of(&namespaces.ipc),
            mqueue: MqueueSettings::of(&namespaces.ipc),
            kept: namespaces.net.extensions.get_or_init(Kept::default),
            watches: watches.clone(),
            aio: aio.clone(),
            core: core.clone(),
            lease_break_time,
            quotas: quotas.clone(),
            boot_id,
        }
    }
}

/// What a network namespace only keeps: what [`Value::Kept`] was set to, and settings of devices.
struct Kept {
    values: Mutex<BTreeMap<&'static str, String>>,
    devices: Mutex<conf::Values>,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept {
            values: Mutex::new(LockClass::Leaf, BTreeMap::new()),
            devices: Mutex::new(LockClass::Leaf, conf::Values::default()),
        }
    }
}

enum Value {
    Fixed(&'static str),
    Made(fn(&Scope) -> String),
    /// Read and set by functions.
    Set(fn(&Scope) -> String, fn(&Scope, &str) -> Result<()>),
    /// A number with an effect.
    Number(for<'a> fn(&'a Scope) -> &'a Setting),
    /// Kept and shown; this kernel has nothing that it could change. The default is given.
    Kept(&'static str),
}

/// All settings.
fn all() -> impl Iterator<Item = &'static Entry> {
    SETTINGS.iter().chain(net::SETTINGS)
}

/// Path below /proc/sys and value.
type Entry = (&'static str, Value);

/// A setting that there is.
#[derive(Clone, Copy)]
enum Which {
    Entry(&'static Entry),
    /// One of a network device.
    Device(conf::Place),
}

/// The setting at a path below /proc/sys, of the namespaces of `scope`.
fn find(path: &str, namespaces: &Namespaces) -> Option<Which> {
    let entry = all().find(|(p, _)| *p == path).map(Which::Entry);
    entry.or_else(|| conf::find(&namespaces.net, path).map(Which::Device))
}

impl Which {
    fn get(self, scope: &Scope) -> String {
        match self {
            Which::Entry(entry) => get(entry, scope),
            Which::Device(place) => scope.device_value(place).to_string(),
        }
    }

    fn set(self, scope: &Scope, text: &str) -> Result<()> {
        match self {
            Which::Entry(entry) => set(entry, scope, text),
            Which::Device(place) => scope.set_device(place, text),
        }
    }

    fn can_be_set(self) -> bool {
        match self {
            Which::Entry(entry) => entry.1.can_be_set(),
            Which::Device(place) => place.can_be_set(),
        }
    }
}

/// Bytes of the longest value of [`Value::Kept`].
const LONGEST: usize = 256;

const SETTINGS: &[Entry] = &[
    // Counted by requests that contexts may have, not by those under way.
    ("fs/aio-max-nr", Value::Number(|s| &s.aio.most)),
    ("fs/aio-nr", Value::Made(|s| s.aio.used.load(Ordering::Relaxed).to_string())),
    ("fs/file-max", Value::Fixed("9223372036854775807")),
    ("fs/file-nr", Value::Fixed("0\t0\t9223372036854775807")),
    ("fs/inotify/max_queued_events", Value::Number(|s| &s.watches.max_queued_events)),
    ("fs/inotify/max_user_instances", Value::Number(|s| &s.watches.max_user_instances)),
    ("fs/inotify/max_user_watches", Value::Number(|s| &s.watches.max_user_watches)),
    ("fs/lease-break-time", Value::Number(|s| &s.lease_break_time)),
    ("fs/leases-enable", Value::Fixed("1")),
    ("fs/mqueue/msg_max", Value::Number(|s| &s.mqueue.messages)),
    ("fs/mqueue/msgsize_max", Value::Number(|s| &s.mqueue.message_bytes)),
    ("fs/mqueue/queues_max", Value::Fixed("256")),
    ("fs/nr_open", Value::Fixed("1048576")),
    ("fs/pipe-max-size", Value::Fixed("1048576")),
    ("fs/pipe-user-pages-hard", Value::Fixed("0")),
    ("fs/pipe-user-pages-soft", Value::Fixed("16384")),
    // As link(2) does it, always.
    ("fs/protected_hardlinks", Value::Fixed("1")),
    ("fs/protected_symlinks", Value::Fixed("0")),
    ("kernel/cap_last_cap", Value::Fixed("40")),
    ("kernel/core_pattern", Value::Set(|s| s.core.get(), |s, v| s.core.set(v))),
    ("kernel/core_uses_pid", Value::Number(|s| &s.core.uses_pid)),
    (
        "kernel/domainname",
        Value::Set(
            |s| lossy(s.namespaces.uts.domain_name()),
            |s, v| {
                s.namespaces.uts.set_domain_name(name(v)?);
                Ok(())
            },
        ),
    ),
    (
        "kernel/hostname",
        Value::Set(
            |s| lossy(s.namespaces.uts.host_name()),
            |s, v| {
                s.namespaces.uts.set_host_name(name(v)?);
                Ok(())
            },
        ),
    ),
    ("kernel/kptr_restrict", Value::Fixed("1")),
    ("kernel/msgmax", Value::Number(|s| &s.system_v.msg.max_message)),
    ("kernel/msgmnb", Value::Number(|s| &s.system_v.msg.max_queue)),
    ("kernel/msgmni", Value::Number(|s| &s.system_v.msg.max_count)),
    ("kernel/ngroups_max", Value::Fixed("65536")),
    ("kernel/osrelease", Value::Fixed(RELEASE)),
    ("kernel/ostype", Value::Fixed("Linux")),
    ("kernel/overflowgid", Value::Fixed("65534")),
    ("kernel/overflowuid", Value::Fixed("65534")),
    ("kernel/perf_event_paranoid", Value::Fixed("3")),
    ("kernel/pid_max", Value::Fixed("4194304")),
    ("kernel/printk", Value::Fixed("4\t4\t1\t7")),
    ("kernel/random/boot_id", Value::Made(|s| uuid(s.boot_id))),
    ("kernel/random/entropy_avail", Value::Fixed("256")),
    ("kernel/random/poolsize", Value::Fixed("256")),
    (
        "kernel/random/uuid",
        Value::Made(|_| {
            let mut bytes = [0; 16];
            moat_host::random::fill(&mut bytes);
            uuid(bytes)
        }),
    ),
    ("kernel/randomize_va_space", Value::Fixed("2")),
    ("kernel/sem", Value::Set(|s| join(sem(s).map(Setting::get)), |s, v| set_all(sem(s), v))),
    ("kernel/shm_rmid_forced", Value::Fixed("0")),
    ("kernel/shmall", Value::Number(|s| &s.system_v.shm.max_pages)),
    ("kernel/shmmax", Value::Number(|s| &s.system_v.shm.max_bytes)),
    ("kernel/shmmni", Value::Number(|s| &s.system_v.shm.max_count)),
    ("kernel/threads-max", Value::Fixed("126864")),
    ("kernel/unprivileged_userns_clone", Value::Fixed("1")),
    ("kernel/version", Value::Fixed(VERSION)),
    ("kernel/yama/ptrace_scope", Value::Fixed("0")),
    ("net/unix/max_dgram_qlen", Value::Fixed("10")),
    ("user/max_cgroup_namespaces", Value::Number(|s| &s.quotas.cgroup.most)),
    ("user/max_ipc_namespaces", Value::Number(|s| &s.quotas.ipc.most)),
    ("user/max_mnt_namespaces", Value::Number(|s| &s.quotas.mount.most)),
    ("user/max_net_namespaces", Value::Number(|s| &s.quotas.net.most)),
    ("user/max_pid_namespaces", Value::Number(|s| &s.quotas.pid.most)),
    ("user/max_user_namespaces", Value::Number(|s| &s.quotas.user.most)),
    ("user/max_uts_namespaces", Value::Number(|s| &s.quotas.uts.most)),
    ("vm/max_map_count", Value::Fixed("65530")),
    ("vm/mmap_min_addr", Value::Fixed("524288")),
    ("vm/overcommit_memory", Value::Fixed("0")),
    ("vm/overcommit_ratio", Value::Fixed("50")),
    ("vm/swappiness", Value::Fixed("60")),
];

fn lossy(name: Vec<u8>) -> String {
    String::from_utf8_lossy(&name).into_owned()
}

/// A host or domain name: at most 64 bytes.
fn name(text: &str) -> Result<Vec<u8>> {
    let text = text.trim_end_matches('\n');
    if text.len() >= UTS_LEN { Err(Errno::EINVAL) } else { Ok(text.as_bytes().to_vec()) }
}

fn uuid(mut b: [u8; 16]) -> String {
    // Version 4 and variant of a random UUID (RFC 9562).
    b[6] = (b[6] & 0x0f) | 0x40;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|x| format!("{x:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn sem(scope: &Scope) -> [&Setting; 4] {
    let sem = &scope.system_v.sem;
    [&sem.max_in_set, &sem.max_of_all, &sem.max_operations, &sem.max_sets]
}

fn join<const N: usize>(numbers: [u64; N]) -> String {
    numbers.map(|n| n.to_string()).join("\t")
}

fn numbers(text: &str) -> Result<Vec<u64>> {
    text.split_ascii_whitespace().map(|word| word.parse().map_err(|_| Errno::EINVAL)).collect()
}

/// Sets as many as there are numbers, as Linux does.
fn set_all<const N: usize>(settings: [&Setting; N], text: &str) -> Result<()> {
    let numbers = numbers(text)?;
    if numbers.is_empty() || numbers.len() > N {
        return Err(Errno::EINVAL);
    }
    settings.iter().zip(numbers).try_for_each(|(setting, number)| setting.set(number))
}

fn get(entry: &Entry, scope: &Scope) -> String {
    match &entry.1 {
        Value::Fixed(text) => (*text).to_owned(),
        Value::Made(make) => make(scope),
        Value::Set(get, _) => get(scope),
        Value::Number(setting) => setting(scope).get().to_string(),
        Value::Kept(default) => scope.kept.values.lock().get(entry.0).map_or(*default, |v| v).to_owned(),
    }
}

fn set(entry: &Entry, scope: &Scope, text: &str) -> Result<()> {
    match &entry.1 {
        Value::Fixed(_) | Value::Made(_) => Err(Errno::EPERM),
        Value::Set(_, set) => set(scope, text),
        Value::Number(setting) => setting(scope).set(text.trim().parse().map_err(|_| Errno::EINVAL)?),
        Value::Kept(_) => {
            // What is only kept for whoever reads it back is memory of the sentry's all the same.
            if text.len() > LONGEST {
                return Err(Errno::EINVAL);
            }
            scope.kept.values.lock().insert(entry.0, join_words(text));
            Ok(())
        }
    }
}

fn join_words(text: &str) -> String {
    text.split_ascii_whitespace().collect::<Vec<_>>().join("\t")
}

/// Sets a setting for a container that starts; `name` is dotted ("kernel.shmmax") or a path below /proc/sys.
///
/// # Errors
/// ENOENT if there is no such setting; EPERM if it can't have another value than it has; EINVAL for a bad value.
pub fn configure(name: &str, value: &str, scope: &Scope) -> Result<()> {
    let path = if name.contains('/') { name.to_owned() } else { name.replace('.', "/") };
    let setting = find(&path, &scope.namespaces).ok_or(Errno::ENOENT)?;
    // The value that it has may be asked for even if it can't be changed.
    if join_words(&setting.get(scope)) == join_words(value) {
        return Ok(());
    }
    if setting.can_be_set() { setting.set(scope, value) } else { Err(Errno::EPERM) }
}

/// All values that can be set, but for the names of the host, which are its namespace's, and settings of devices that come from outside.
#[must_use]
pub fn values(scope: &Scope) -> BTreeMap<String, String> {
    let entries =
        all().filter(|entry| !NAMES.contains(&entry.0)).map(|entry| (entry.0.to_owned(), Which::Entry(entry)));
    let net = &scope.namespaces.net;
    let of_devices = conf::lasting_paths().filter_map(|path| conf::find(net, &path).map(|s| (path, Which::Device(s))));
    let settable = entries.chain(of_devices).filter(|(_, setting)| setting.can_be_set());
    settable.map(|(path, setting)| (path, setting.get(scope))).collect()
}

/// The names of a UTS namespace.
const NAMES: [&str; 2] = ["kernel/hostname", "kernel/domainname"];

/// Sets a setting again that `caller` could have set; `path` is below /proc/sys.
///
/// # Errors
/// ENOENT if there is no such setting; EPERM if it can't be set, or not by `caller`; EINVAL for a bad value.
pub fn set_again(path: &str, value: &str, scope: &Scope, caller: &Credentials) -> Result<()> {
    let setting = find(path, &scope.namespaces).filter(|_| !NAMES.contains(&path)).ok_or(Errno::ENOENT)?;
    if !setting.can_be_set() || !scope.may_set(path, caller) {
        return Err(Errno::EPERM);
    }
    setting.set(scope, value)
}

impl Value {
    fn can_be_set(&self) -> bool {
        !matches!(self, Value::Fixed(_) | Value::Made(_))
    }
}

impl Scope {
    fn device_value(&self, place: conf::Place) -> i64 {
        let (_, loopback) = conf::devices(&self.namespaces.net);
        self.kept.devices.lock().get(loopback, place)
    }

    fn set_device(&self, place: conf::Place, text: &str) -> Result<()> {
        let (devices, loopback) = conf::devices(&self.namespaces.net);
        self.kept.devices.lock().set(&devices, loopback, place, text)
    }

    /// Whether `caller` may change the setting at `path`: the owner of the namespace that it belongs to decides
    /// (`net_ctl_permissions`, `ipc_permissions`). What belongs to none is the machine's.
    fn may_set(&self, path: &str, caller: &Credentials) -> bool {
        let namespaces = &self.namespaces;
        let owned = match () {
            () if path.starts_with("net/") => caller.has_cap_in(&namespaces.net.user_ns, Cap::NET_ADMIN),
            () if OF_IPC.iter().any(|p| path.starts_with(p)) => {
                caller.has_cap_in(&namespaces.ipc.user_ns, Cap::SYS_ADMIN)
            }
            () => false,
        };
        owned || caller.has_root_cap(Cap::SYS_ADMIN)
    }
}

/// Where the settings of an IPC namespace are.
const OF_IPC: [&str; 4] = ["fs/mqueue/", "kernel/msg", "kernel/sem", "kernel/shm"];

#[cfg(test)]
mod tests {
    use super::*;
    use moat_identity::namespaces::UtsNames;
    use moat_identity::{CgroupNamespace, IpcNamespace, NetNamespace, PidNamespace, UserNamespace, UtsNamespace};

    fn scope() -> Scope {
        let user_ns = UserNamespace::root();
        let names = UtsNames { host: b"host".to_vec(), domain: b"domain".to_vec() };
        let namespaces = Namespaces {
            uts: UtsNamespace::new(1, user_ns.clone(), names),
            pid_for_children: PidNamespace::new(2, user_ns.clone(), None).unwrap(),
            ipc: IpcNamespace::new(3, user_ns.clone()),
            net: NetNamespace::new(4, user_ns.clone()),
            cgroup: CgroupNamespace::new(5, user_ns),
        };
        let files = (&Arc::new(Watches::new(1 << 30)), &Arc::default(), Arc::new(Setting::new(45, 0, 100)));
        Scope::of([0; 16], files, (&Arc::default(), &Arc::default()), &Arc::new(namespaces))
    }

    #[test]
    fn what_was_set_can_be_set_again_by_who_may() {
        let (from, to) = (scope(), scope());
        let before = values(&from);
        for (name, value) in [
            ("fs.inotify.max_user_watches", "77"),
            ("kernel.core_pattern", "core.%p"),
            ("kernel.sem", "100 200 30 40"),
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.ping_group_range", "1 0"),
            ("net.ipv4.ip_local_port_range", "2000 3000"),
            ("user.max_net_namespaces", "3"),
            ("kernel.hostname", "no setting"),
        ] {
            configure(name, value, &from).unwrap();
        }
        let after = values(&from);
        let changed: Vec<_> = after.iter().filter(|(path, value)| before.get(*path) != Some(value)).collect();
        // The groups of ping were nobody's before; forwarding is that of all devices and of those to come.
        assert_eq!(changed.len(), 8);
        let nobody =
            Credentials { effective: moat_abi::cap::CapSet::EMPTY, ..Credentials::root(UserNamespace::root()) };
        for (path, value) in &changed {
            assert_eq!(set_again(path, value, &to, &nobody), Err(Errno::EPERM), "{path}");
            let root = Credentials::root(to.namespaces.net.user_ns.clone());
            assert_eq!(set_again(path, value, &to, &root), Ok(()), "{path}");
        }
        assert_eq!(values(&to), after);
        let root = Credentials::root(to.namespaces.net.user_ns.clone());
        for (path, value, errno) in [
            ("kernel/nonesuch", "1", Errno::ENOENT),
            ("kernel/hostname", "x", Errno::ENOENT),
            ("../kernel/msgmax", "1", Errno::ENOENT),
            ("kernel/pid_max", "1", Errno::EPERM),
            ("kernel/msgmax", "-1", Errno::EINVAL),
            ("net/ipv4/ip_forward", &"1".repeat(100_000), Errno::EINVAL),
            ("kernel/core_pattern", &"c".repeat(100_000), Errno::EINVAL),
        ] {
            assert_eq!(set_again(path, value, &to, &root), Err(errno), "{path}");
        }
        assert_eq!(values(&to), after);
    }

    #[test]
    fn known_settings_of_a_container() {
        let (n, other) = (scope(), scope());
        assert_eq!(configure("kernel.shmmax", "4096", &n), Ok(()));
        assert_eq!((n.system_v.shm.max_bytes.get(), other.system_v.shm.max_bytes.get() > 4096), (4096, true));
        assert_eq!(configure("kernel/hostname", "other", &n), Ok(()));
        assert_eq!(n.namespaces.uts.host_name(), b"other");
        assert_eq!(configure("kernel.sem", "100 200 30 40", &n), Ok(()));
        assert_eq!(sem(&n).map(Setting::get), [100, 200, 30, 40]);
        assert_eq!(configure("net.ipv4.ping_group_range", "0 2147483647", &n), Ok(()));
        assert_eq!(configure("net.ipv4.ping_group_range", "1 0", &n), Ok(()));
        assert_eq!(configure("vm.swappiness", "60", &n), Ok(()), "what it is anyway");
        assert_eq!(configure("vm.swappiness", "10", &n), Err(Errno::EPERM));
        assert_eq!(configure("kernel.nonesuch", "10", &n), Err(Errno::ENOENT));
        assert_eq!(configure("fs.mqueue.msg_max", "0", &n), Err(Errno::EINVAL));
        assert_eq!(configure("net.ipv4.ip_local_port_range", "40000 30000", &n), Err(Errno::EINVAL));
    }
}
