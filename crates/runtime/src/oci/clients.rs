//! Configurations as clients write them: all of them have to be accepted.
//!
//! They are written after what Docker 20.10 to 28, containerd 1.6, Podman 4.3 and runc 1.1 make; sources of mounts
//! are directories that every host has.

use std::path::Path;

use moat_control::spec::{Lifetime, MountKind, NetworkMode};

use crate::blueprint::{Blueprint, MountSource};
use crate::error::Result;
use crate::identity::UserNamespace;
use crate::namespaces::NetworkNamespace;
use crate::{Config, oci};

/// What most clients say of the process.
const PROCESS: &str = r#""process":{"user":{"uid":0,"gid":0,"umask":18,"additionalGids":[0,1,2]},"args":["true"],
    "env":["PATH=/bin","HOME=/root"],"cwd":"/","oomScoreAdj":0,"noNewPrivileges":false,
    "capabilities":{"bounding":["CAP_CHOWN","CAP_NET_RAW"],"effective":["CAP_CHOWN","CAP_NET_RAW"],"permitted":["CAP_CHOWN","CAP_NET_RAW"]},
    "rlimits":[{"type":"RLIMIT_NOFILE","hard":1048576,"soft":1048576},{"type":"RLIMIT_NPROC","hard":32768,"soft":32768}]}"#;

const MOUNTS: &str = r#"{"destination":"/proc","type":"proc","source":"proc","options":["nosuid","noexec","nodev"]},
    {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
    {"destination":"/dev/pts","type":"devpts","source":"devpts","options":["nosuid","noexec","newinstance","ptmxmode=0666","mode=0620","gid=5"]},
    {"destination":"/dev/mqueue","type":"mqueue","source":"mqueue","options":["nosuid","noexec","nodev"]}"#;

const PATHS: &str = r#""maskedPaths":["/proc/acpi","/proc/kcore","/sys/firmware","/sys/devices/virtual/powercap"],
    "readonlyPaths":["/proc/bus","/proc/fs","/proc/irq","/proc/sys","/proc/sysrq-trigger"]"#;

fn accept(network: NetworkMode, mounts: &str, linux: &str, more: &str) -> Result<Blueprint> {
    let json = format!(
        r#"{{"ociVersion":"1.0.2-dev",{PROCESS},"root":{{"path":"rootfs"}},"hostname":"h",{more}
            "mounts":[{MOUNTS},{mounts}],"linux":{{{linux},{PATHS}}}}}"#
    );
    let spec = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let config = Config { network, ..Config::default() };
    oci::from_spec(&config, "c1".parse().unwrap(), Path::new("/usr"), &spec, Lifetime::Detached)
}

fn plan(blueprint: &Blueprint) -> (&UserNamespace, &NetworkNamespace) {
    let plan = blueprint.plan.as_ref().unwrap();
    (&plan.user, &plan.network)
}

const DOCKER_MOUNTS: &str = r#"{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
    {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["ro","nosuid","noexec","nodev"]},
    {"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=67108864"]},
    {"destination":"/etc","type":"bind","source":"/etc","options":["rbind","rprivate"]},
    {"destination":"/data","type":"bind","source":"/usr","options":["rbind","ro","rslave"]}"#;

const DOCKER_RESOURCES: &str = r#""cgroupsPath":"/docker/abc","resources":{"devices":[{"allow":false,"access":"rwm"},
    {"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"},{"allow":true,"type":"c","major":136,"minor":-1,"access":"rwm"}],
    "memory":{"limit":67108864,"swap":134217728,"swappiness":18446744073709551615,"disableOOMKiller":false},
    "cpu":{"shares":0,"quota":50000,"period":100000},"pids":{"limit":-1},"blockIO":{"weight":0}},
    "sysctl":{"net.ipv4.ip_unprivileged_port_start":"0","net.ipv4.ping_group_range":"0 2147483647"},
    "seccomp":{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":1,"architectures":["SCMP_ARCH_X86_64","SCMP_ARCH_X86","SCMP_ARCH_X32"],
    "syscalls":[{"names":["read","write"],"action":"SCMP_ACT_ALLOW"}]}"#;

#[test]
fn docker() {
    let hooks = r#""hooks":{"prestart":[{"path":"/proc/7/exe","args":["libnetwork-setkey","-exec-root=/var/run/docker","abc","def"]}]},"#;
    let namespaces = r#""namespaces":[{"type":"mount"},{"type":"network"},{"type":"uts"},{"type":"pid"},{"type":"ipc"},{"type":"cgroup"}]"#;
    let linux = format!("{namespaces},{DOCKER_RESOURCES}");
    for network in [NetworkMode::None, NetworkMode::Sandbox, NetworkMode::Host] {
        let blueprint = accept(network, DOCKER_MOUNTS, &linux, hooks).unwrap();
        assert_eq!(plan(&blueprint).1, &NetworkNamespace::New);
        let cgroup = blueprint.mounts.iter().find(|mount| mount.destination == "/sys/fs/cgroup").unwrap();
        assert_eq!(cgroup.source, MountSource::Kernel(MountKind::Cgroup));
    }
}

#[test]
fn docker_with_the_hosts_network_or_another_containers() {
    for path in ["/var/run/docker/netns/default", "/proc/7/ns/net"] {
        let linux = format!(
            r#""namespaces":[{{"type":"mount"}},{{"type":"network","path":"{path}"}},{{"type":"uts"}},{{"type":"pid"}},{{"type":"ipc"}}],{DOCKER_RESOURCES}"#
        );
        let blueprint = accept(NetworkMode::Host, DOCKER_MOUNTS, &linux, "").unwrap();
        assert_eq!(plan(&blueprint).1, &NetworkNamespace::Join(path.into()));
    }
}

#[test]
fn docker_with_remapped_users() {
    let linux = r#""uidMappings":[{"containerID":0,"hostID":231072,"size":65536}],"gidMappings":[{"containerID":0,"hostID":231072,"size":65536}],
        "namespaces":[{"type":"mount"},{"type":"network"},{"type":"uts"},{"type":"pid"},{"type":"ipc"},{"type":"user"}]"#;
    let blueprint = accept(NetworkMode::Sandbox, DOCKER_MOUNTS, linux, "").unwrap();
    assert!(matches!(plan(&blueprint).0, UserNamespace::Mapped { .. }));
}

#[test]
fn containerd_and_kubernetes() {
    let mounts = r#"{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
        {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]},
        {"destination":"/run","type":"tmpfs","source":"tmpfs","options":["nosuid","strictatime","mode=755","size=65536k"]},
        {"destination":"/dev/termination-log","type":"bind","source":"/etc/hosts","options":["rbind","rprivate","rw"]},
        {"destination":"/dev/shm","type":"bind","source":"/tmp","options":["rbind","ro"]},
        {"destination":"/vol","type":"bind","source":"/tmp","options":["rbind","rslave","rw"]}"#;
    let sandbox = r#""namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"network","path":"/var/run/netns/cni-1"}],
        "cgroupsPath":"/k8s.io/abc","resources":{"devices":[{"allow":false,"access":"rwm"}],"cpu":{"shares":2}}"#;
    let annotations =
        r#""annotations":{"io.kubernetes.cri.container-type":"sandbox","io.kubernetes.cri.sandbox-id":"c1"},"#;
    let blueprint = accept(NetworkMode::Sandbox, mounts, sandbox, annotations).unwrap();
    assert_eq!(plan(&blueprint).1, &NetworkNamespace::Join("/var/run/netns/cni-1".into()));

    // A container of that pod joins what is the sandbox's.
    let member = r#""namespaces":[{"type":"pid"},{"type":"ipc","path":"/proc/7/ns/ipc"},{"type":"uts","path":"/proc/7/ns/uts"},{"type":"mount"},
        {"type":"network","path":"/proc/7/ns/net"}],"rootfsPropagation":"rslave","cgroupsPath":"/k8s.io/def",
        "resources":{"memory":{"limit":134217728,"swap":134217728},"cpu":{"shares":102,"quota":10000,"period":100000},"hugepageLimits":[{"pageSize":"2MB","limit":0}],
        "unified":{"memory.oom.group":"1"}}"#;
    let annotations =
        r#""annotations":{"io.kubernetes.cri.container-type":"container","io.kubernetes.cri.sandbox-id":"c1"},"#;
    accept(NetworkMode::Sandbox, mounts, member, annotations).unwrap();
    assert!(accept(NetworkMode::Sandbox, mounts, member, "").unwrap_err().to_string().contains("/proc/7/ns/ipc"));
    let shared = member.replace("rslave", "rshared");
    assert!(
        accept(NetworkMode::Sandbox, mounts, &shared, annotations).unwrap_err().to_string().contains("Propagation")
    );
}

#[test]
fn podman() {
    let mounts = r#"{"destination":"/sys","type":"sysfs","source":"sysfs","options":["nosuid","noexec","nodev","ro"]},
        {"destination":"/etc/hosts","type":"bind","source":"/etc/hosts","options":["bind","rprivate"]},
        {"destination":"/dev/shm","type":"bind","source":"/tmp","options":["bind","rprivate","nosuid","noexec","nodev"]},
        {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["rprivate","nosuid","noexec","nodev","relatime","ro"]}"#;
    let annotations = r#""annotations":{"io.container.manager":"libpod","io.podman.annotations.init":"FALSE","org.opencontainers.image.stopSignal":"15"},"#;
    let linux = r#""sysctl":{"net.ipv4.ping_group_range":"0 0"},"cgroupsPath":"/libpod_parent/libpod-abc",
        "resources":{"devices":[{"allow":false,"access":"rwm"}],"pids":{"limit":2048}},
        "namespaces":[{"type":"pid"},{"type":"network","path":"/run/netns/netns-1"},{"type":"ipc"},{"type":"uts"},{"type":"mount"}]"#;
    accept(NetworkMode::Sandbox, mounts, linux, annotations).unwrap();

    // Podman leaves the network namespace out for --network=host.
    let host = linux.replace(r#"{"type":"network","path":"/run/netns/netns-1"},"#, "");
    let error = accept(NetworkMode::Sandbox, mounts, &host, annotations).unwrap_err().to_string();
    assert!(error.contains("--network=host"), "{error}");
    assert_eq!(plan(&accept(NetworkMode::Host, mounts, &host, annotations).unwrap()).1, &NetworkNamespace::Current);

    // Rootless, in the user namespace that Podman has made for itself: /sys is the host's, devices are its own.
    let mounts = r#"{"destination":"/sys","type":"bind","source":"/sys","options":["rprivate","nosuid","noexec","nodev","ro","rbind"]},
        {"destination":"/dev/shm","type":"bind","source":"/tmp","options":["bind","rprivate","nosuid","noexec","nodev"]},
        {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["rprivate","nosuid","noexec","nodev","relatime","ro"]}"#;
    let linux = r#""uidMappings":[{"containerID":0,"hostID":0,"size":1},{"containerID":1,"hostID":1,"size":65536}],
        "gidMappings":[{"containerID":0,"hostID":0,"size":1},{"containerID":1,"hostID":1,"size":65536}],"cgroupsPath":"user.slice:libpod:abc",
        "devices":[{"path":"/dev/null","type":"c","major":1,"minor":3,"fileMode":8630,"uid":65534,"gid":65534}],
        "namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"user"},{"type":"cgroup"}]"#;
    accept(NetworkMode::Sandbox, mounts, linux, annotations).unwrap();

    // With --privileged it lists all devices of the host.
    let devices = linux.replace("/dev/null", "/dev/kvm");
    let blueprint = accept(NetworkMode::Sandbox, mounts, &devices, annotations).unwrap();
    assert_eq!(blueprint.devices[0].path, "/dev/kvm");
}

#[test]
fn runc_spec() {
    let mounts = r#"{"destination":"/dev/shm","type":"tmpfs","source":"shm","options":["nosuid","noexec","nodev","mode=1777","size=65536k"]},
        {"destination":"/sys","type":"none","source":"/sys","options":["rbind","nosuid","noexec","nodev","ro"]},
        {"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["nosuid","noexec","nodev","relatime","ro"]}"#;
    let linux = r#""resources":{"devices":[{"allow":false,"access":"rwm"}]},
        "namespaces":[{"type":"pid"},{"type":"network"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"cgroup"}]"#;
    accept(NetworkMode::Sandbox, mounts, linux, "").unwrap();
    let rootless = r#""uidMappings":[{"containerID":0,"hostID":1000,"size":1}],"gidMappings":[{"containerID":0,"hostID":1000,"size":1}],
        "namespaces":[{"type":"pid"},{"type":"ipc"},{"type":"uts"},{"type":"mount"},{"type":"user"}]"#;
    accept(NetworkMode::None, mounts, rootless, "").unwrap();
}
