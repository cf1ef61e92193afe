//! What is looked at. Each check reads files of the host's and changes nothing.

use std::fs;
use std::path::{Path, PathBuf};

use moat_abi::Errno;
use moat_host::features::{Entry, OLDEST, TABLE, Version, Without, lacking};

use super::{Finding, Grade};
use crate::configuration::Configuration;

/// The host, or a directory that looks like one.
pub(super) struct Host {
    root: PathBuf,
    release: String,
    uid: u32,
    user: String,
    is_filtered: bool,
    lacking: Vec<&'static Entry>,
}

impl Host {
    pub(super) fn real() -> Host {
        Host {
            root: "/".into(),
            release: rustix::system::uname().release().to_string_lossy().into_owned(),
            uid: rustix::process::geteuid().as_raw(),
            user: std::env::var("USER").unwrap_or_default(),
            is_filtered: moat_host::seccomp::is_filtered(),
            lacking: lacking().collect(),
        }
    }

    /// The text of a file, without white space at its ends.
    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn is_moat(&self) -> bool {
        self.release.ends_with("-moat")
    }

    fn is_root(&self) -> bool {
        self.uid == 0
    }
}

pub(super) fn all(host: &Host) -> Vec<Finding> {
    let mut findings = of_sandboxes(host);
    findings.extend([
        id_maps(host),
        cgroups(host),
        yama(host),
        lsm(host),
        executable(moat_host::memory::try_executable()),
        configuration(),
    ]);
    findings.extend(clients(host));
    findings
}

/// What no sandbox can be made without, and what makes one slower.
pub(super) fn of_sandboxes(host: &Host) -> Vec<Finding> {
    let mut findings = vec![kernel(host)];
    // Whatever else a sandbox lacks does not matter.
    if host.is_moat() {
        return findings;
    }
    findings.extend(features(host));
    findings.extend([seccomp(host), user_namespaces(host), procfs(host), cpu(host)]);
    findings
}

fn kernel(host: &Host) -> Finding {
    if host.is_moat() {
        let seen = format!("{}: this is a sandbox of moat's, in which no other can be made", host.release);
        return Finding::poor("kernel", Grade::Missing, seen, "run moat outside, beside this sandbox");
    }
    if Version::parse(&host.release) >= OLDEST {
        return Finding::ok("kernel", host.release.clone());
    }
    Finding::poor("kernel", Grade::Missing, host.release.clone(), format!("install Linux {OLDEST} or newer"))
}

fn features(host: &Host) -> Vec<Finding> {
    if host.lacking.is_empty() {
        return vec![Finding::ok("features", format!("all {} that moat uses", TABLE.len()))];
    }
    let finding = |entry: &&'static Entry| {
        let (grade, effect) = match entry.without {
            Without::Another(text) => (Grade::Slower, text),
            Without::Nothing(text) => (Grade::Missing, text),
        };
        // A kernel that is new enough and still lacks it has been told to refuse the call, as containers' filters do.
        let mend = match entry.since > Version::parse(&host.release) {
            true => format!("Linux {} or newer", entry.since),
            false => "a filter of system calls refuses it; in a container: --privileged, or \
                --security-opt seccomp=unconfined --security-opt apparmor=unconfined --cap-add SYS_ADMIN"
                .into(),
        };
        Finding::poor("features", grade, format!("no {}: {effect}", entry.name), mend)
    };
    host.lacking.iter().map(finding).collect()
}

/// Without one of its own pid namespace a sandbox works, but says less of what it uses.
fn procfs(host: &Host) -> Finding {
    let what = "procfs";
    let text = host.read("/proc/self/mountinfo").unwrap_or_default();
    // The fifth field is where it is mounted, proc_pid_mountinfo(5).
    let points = || text.lines().filter_map(|line| line.split(' ').nth(4));
    // binfmt_misc covers nothing: it is mounted on an empty directory that is made for it.
    match points().filter(|point| point.starts_with("/proc/")).find(|point| *point != "/proc/sys/fs/binfmt_misc") {
        Some(point) if points().any(|point| point == "/proc") => Finding::poor(
            what,
            Grade::Slower,
            format!("{point} is covered, so that no other can be mounted: use of memory and CPU is not known"),
            "in a container: --privileged, or --security-opt systempaths=unconfined",
        ),
        _ => Finding::ok(what, "not covered"),
    }
}

fn seccomp(host: &Host) -> Finding {
    let what = "seccomp";
    match host.read("/proc/sys/kernel/seccomp/actions_avail") {
        // One that lets all unknown calls through does no harm.
        Some(actions) if host.is_filtered && actions.split(' ').any(|action| action == "user_notif") => Finding::poor(
            what,
            Grade::Slower,
            "a filter of system calls is in force here: what it refuses never reaches --platform=systrap",
            "--platform=ptrace, or in a container: --security-opt seccomp=unconfined",
        ),
        Some(actions) if actions.split(' ').any(|action| action == "user_notif") => Finding::ok(what, actions),
        Some(actions) => Finding::poor(
            what,
            Grade::Missing,
            actions,
            "a kernel with SECCOMP_RET_USER_NOTIF; until then --platform=ptrace",
        ),
        None => Finding::poor(what, Grade::Missing, "no filters", "a kernel with CONFIG_SECCOMP_FILTER"),
    }
}

fn user_namespaces(host: &Host) -> Finding {
    let what = "user namespaces";
    let missing = |seen: String, mend: &str| Finding::poor(what, Grade::Missing, seen, mend);
    let number = |path: &str| host.read(path).and_then(|text| text.parse::<u64>().ok());
    if !host.path("/proc/self/ns/user").exists() {
        return missing("none".into(), "a kernel with CONFIG_USER_NS");
    }
    match number("/proc/sys/user/max_user_namespaces") {
        Some(0) => return missing("user.max_user_namespaces = 0".into(), "sysctl -w user.max_user_namespaces=15000"),
        // What follows is refused to ordinary users only; the number counts for root as well.
        _ if host.is_root() => return Finding::ok(what, "as root"),
        _ => {}
    }
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        let seen = "kernel.unprivileged_userns_clone = 0";
        return missing(seen.into(), "sysctl -w kernel.unprivileged_userns_clone=1, or run moat as root");
    }
    if number("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        let seen = "kernel.apparmor_restrict_unprivileged_userns = 1";
        let mend = "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, an AppArmor profile with userns for moat, or root";
        return missing(seen.into(), mend);
    }
    Finding::ok(what, "also for ordinary users")
}

/// More ids than its own an ordinary user maps by newuidmap(1) and the ranges that it was given.
fn id_maps(host: &Host) -> Finding {
    let what = "id maps";
    if host.is_root() {
        return Finding::ok(what, "root maps any ids");
    }
    let helper = ["/usr/bin/newuidmap", "/bin/newuidmap"].iter().any(|path| host.path(path).exists());
    if !helper {
        return Finding::poor(what, Grade::Slower, "no newuidmap: one id only", "apt-get install uidmap");
    }
    // subuid(5): a line may name the user either way.
    let (by_name, by_uid) = (format!("{}:", host.user), format!("{}:", host.uid));
    let given = |path| {
        let text = host.read(path).unwrap_or_default();
        text.lines().any(|line| line.starts_with(&by_uid) || !host.user.is_empty() && line.starts_with(&by_name))
    };
    match given("/etc/subuid") && given("/etc/subgid") {
        true => Finding::ok(what, "newuidmap, and ranges in /etc/subuid and /etc/subgid"),
        false => Finding::poor(
            what,
            Grade::Slower,
            "no range in /etc/subuid or /etc/subgid: one id only",
            format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {}", host.user),
        ),
    }
}

fn cgroups(host: &Host) -> Finding {
    let what = "cgroups";
    match host.read("/sys/fs/cgroup/cgroup.controllers") {
        Some(controllers) if host.is_root() => Finding::ok(what, format!("version 2: {controllers}")),
        Some(controllers) => Finding::ok(what, format!("version 2: {controllers}; an ordinary user's by systemd")),
        // Version 1 has a mount for each controller, and memory is the one that is always wanted.
        None if host.path("/sys/fs/cgroup/memory").exists() => {
            Finding::ok(what, "version 1 (--systemd-cgroup is for version 2 only)")
        }
        None => Finding::poor(
            what,
            Grade::Missing,
            "none mounted: no limits",
            "mount -t cgroup2 none /sys/fs/cgroup, or --ignore-cgroups",
        ),
    }
}

fn yama(host: &Host) -> Finding {
    let what = "Yama";
    match host.read("/proc/sys/kernel/yama/ptrace_scope").as_deref() {
        None => Finding::ok(what, "not there"),
        // 1 lets a parent trace its children, which is all that sandboxes need.
        Some("2") => Finding::poor(
            what,
            Grade::Missing,
            "kernel.yama.ptrace_scope = 2: no sandbox can reach its guests' memory",
            "sysctl -w kernel.yama.ptrace_scope=1",
        ),
        Some("3") => Finding::poor(
            what,
            Grade::Missing,
            "kernel.yama.ptrace_scope = 3: no sandbox can reach its guests' memory",
            "boot with kernel.yama.ptrace_scope=1: it can't be lowered",
        ),
        Some(scope) => Finding::ok(what, format!("kernel.yama.ptrace_scope = {scope}")),
    }
}

fn lsm(host: &Host) -> Finding {
    let list = host.read("/sys/kernel/security/lsm").unwrap_or_else(|| "not known: no securityfs".into());
    Finding::ok("security modules", list)
}

/// Whether memory that is no file's may be executed.
fn executable(tried: moat_abi::Result<()>) -> Finding {
    let what = "executable memory";
    if tried != Err(Errno::EACCES) {
        return Finding::ok(what, "may be executed");
    }
    let mend = "setsebool -P allow_execmem 1 (with Fedora's policy: deny_execmem 0)";
    Finding::poor(what, Grade::Missing, "refused by SELinux (execmem): no sandbox can be made", mend)
}

fn cpu(host: &Host) -> Finding {
    let what = "processor";
    let text = host.read("/proc/cpuinfo").unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    // By whole words: xsave is also the beginning of xsaveopt.
    let lacks_flag = |flag: &str| !flags.split(' ').any(|other| other == flag);
    // The stub keeps extended state by XSAVE alone.
    if !flags.is_empty() && lacks_flag("xsave") {
        let mend = "--platform=ptrace, or a processor, or a model of one (-cpu host), that has it";
        return Finding::poor(what, Grade::Missing, "no xsave: no --platform=systrap", mend);
    }
    // Without these the stub asks the host for the base of %fs and for its CPU.
    let lacks: Vec<&str> = ["fsgsbase", "rdpid"].into_iter().filter(|flag| lacks_flag(flag)).collect();
    match lacks.is_empty() {
        true => Finding::ok(what, "fsgsbase, rdpid"),
        false => {
            let mend = "in a virtual machine: give it the host's processor model (-cpu host)";
            Finding::poor(what, Grade::Slower, format!("no {}: system calls take longer", lacks.join(", no ")), mend)
        }
    }
}

fn configuration() -> Finding {
    let what = "configuration";
    match Configuration::load().and_then(|configuration| configuration.check()) {
        Ok(()) => Finding::ok(what, "/etc/moat/config.toml is right, or not there"),
        Err(error) => Finding::poor(what, Grade::Missing, format!("{error:#}"), "correct the file"),
    }
}

/// Clients that are installed, and whether they know of moat.
fn clients(host: &Host) -> Vec<Finding> {
    let installed =
        |program: &str| ["usr/bin", "usr/sbin", "usr/local/bin"].iter().any(|d| host.path(d).join(program).exists());
    // Good enough for a hint: each client has a syntax of its own, and the runtime may have any name.
    let mentions = |path: &Path| fs::read_to_string(path).is_ok_and(|text| text.contains("moat"));
    let any = |directory: &str| {
        let entries = fs::read_dir(host.path(directory)).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).any(|path| mentions(&path))
    };
    let grade = |what: &'static str, knows: bool, client: &str| match knows {
        true => Finding::ok(what, "knows the runtime moat"),
        false => {
            Finding::poor(what, Grade::Slower, "does not know of moat", format!("moat install --clients {client}"))
        }
    };
    let mut findings = Vec::new();
    // A client that is not there is no finding at all.
    if installed("dockerd") {
        findings.push(grade("Docker", mentions(&host.path("/etc/docker/daemon.json")), "docker"));
    }
    if installed("containerd") {
        let knows = any("/etc/containerd/conf.d") || mentions(&host.path("/etc/containerd/config.toml"));
        findings.push(grade("containerd", knows, "containerd"));
    }
    if installed("podman") {
        let knows = any("/etc/containers/containers.conf.d") || mentions(&host.path("/etc/containers/containers.conf"));
        findings.push(grade("Podman", knows, "podman"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A host with these files; removed by the caller.
    fn host(name: &str, uid: u32, release: &str, files: &[(&str, &str)]) -> Host {
        let root = std::env::temp_dir().join(format!("moat-doctor-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let lacking = TABLE.iter().filter(|entry| entry.since > Version::parse(release)).collect();
        Host { root, release: release.into(), uid, user: "user".into(), is_filtered: false, lacking }
    }

    fn grade(host: &Host, what: &str) -> Grade {
        all(host).into_iter().find(|finding| finding.what == what).unwrap().grade
    }

    #[test]
    fn a_good_host() {
        let host = host(
            "good",
            1000,
            "6.18.1-amd64",
            &[
                ("proc/sys/kernel/seccomp/actions_avail", "kill_process user_notif allow\n"),
                ("proc/self/ns/user", ""),
                ("proc/sys/user/max_user_namespaces", "15000\n"),
                ("proc/sys/kernel/unprivileged_userns_clone", "1\n"),
                ("usr/bin/newuidmap", ""),
                ("etc/subuid", "user:100000:65536\n"),
                ("etc/subgid", "1000:100000:65536\n"),
                ("sys/fs/cgroup/cgroup.controllers", "cpu memory pids\n"),
                ("proc/cpuinfo", "processor : 0\nflags\t\t: fpu xsave fsgsbase rdpid\n"),
                ("proc/self/mountinfo", "22 1 0:5 / /proc rw - proc proc rw\n"),
                ("usr/bin/podman", ""),
                ("etc/containers/containers.conf.d/moat.conf", "moat = [\"/usr/bin/moat\"]\n"),
            ],
        );
        let findings: Vec<Finding> = all(&host).into_iter().filter(|f| f.what != "configuration").collect();
        assert!(findings.iter().all(|finding| finding.grade == Grade::Ok), "{findings:?}");
        fs::remove_dir_all(&host.root).unwrap();
    }

    #[test]
    fn a_poor_one_says_what_mends_it() {
        let host = host(
            "poor",
            1000,
            "4.19.0-25-amd64",
            &[
                ("proc/self/ns/user", ""),
                ("proc/sys/kernel/unprivileged_userns_clone", "0\n"),
                ("usr/sbin/dockerd", ""),
            ],
        );
        for what in ["kernel", "features", "seccomp", "user namespaces", "cgroups"] {
            assert_eq!(grade(&host, what), Grade::Missing, "{what}");
        }
        for what in ["id maps", "processor", "Docker"] {
            assert_eq!(grade(&host, what), Grade::Slower, "{what}");
        }
        for finding in all(&host) {
            assert_eq!(finding.mend.is_none(), finding.grade == Grade::Ok, "{finding:?}");
        }
        fs::remove_dir_all(&host.root).unwrap();
    }

    #[test]
    fn selinux_can_be_in_the_way() {
        assert_eq!(executable(moat_host::memory::try_executable()).grade, Grade::Ok);
        let refused = executable(Err(Errno::EACCES));
        assert!(refused.grade == Grade::Missing && refused.mend.is_some_and(|mend| mend.contains("allow_execmem")));
    }

    #[test]
    fn a_sandbox_of_moats_is_named_alone() {
        let host = host("nested", 0, "6.12.0-moat", &[("proc/sys/kernel/yama/ptrace_scope", "2\n")]);
        let findings = of_sandboxes(&host);
        assert!(findings.len() == 1 && findings[0].seen.contains("sandbox of moat"), "{findings:?}");
        assert_eq!(grade(&host, "Yama"), Grade::Missing);
        fs::remove_dir_all(&host.root).unwrap();
    }

    #[test]
    fn the_oldest_kernel_is_slower_but_lacks_nothing() {
        let host = host("oldest", 0, "5.10.0-32-amd64", &[("proc/self/ns/user", "")]);
        let findings: Vec<Finding> = [vec![kernel(&host)], features(&host)].concat();
        assert!(findings.len() > 3 && findings.iter().all(|finding| finding.grade != Grade::Missing), "{findings:?}");
        assert!(findings.iter().any(|finding| finding.seen.contains("mount_setattr(2)")), "{findings:?}");
        fs::remove_dir_all(&host.root).unwrap();
    }
}
