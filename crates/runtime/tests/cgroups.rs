//! Real cgroups of the host: made, limited, joined, measured and deleted.
//!
//! Takes root and mounted cgroups; says so where it has to be skipped.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use moat_runtime::Config;
use moat_runtime::cgroup::{self, Base, Cgroup, CgroupPath, OomEvent, PodSize};
use oci_spec::runtime::LinuxResources;

/// A cgroup that is deleted at the end of a test, however that ends.
struct Scratch(Cgroup);

impl Drop for Scratch {
    fn drop(&mut self) {
        self.0.kill_all();
        let _ = self.0.delete();
    }
}

fn resources(json: &str) -> LinuxResources {
    serde_json::from_str(json).unwrap()
}

/// Makes a cgroup, unless the host has none with these controllers.
fn scratch(name: &str, json: &str, controllers: &[&str]) -> Option<(Scratch, LinuxResources)> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: takes root");
        return None;
    }
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let unified =
        mounts.contains(" /sys/fs/cgroup rw") && mounts.contains("- cgroup2 ") && !mounts.contains("- cgroup ");
    for controller in controllers {
        let mounted = mounts
            .lines()
            .any(|line| line.contains("- cgroup ") && line.rsplit([' ', ',']).any(|option| option == *controller));
        let known =
            own.lines().any(|line| line.split(':').nth(1).is_some_and(|l| l.split(',').any(|c| c == *controller)));
        if !(unified || mounted && known) {
            eprintln!("skipped: the host has no cgroup controller {controller:?} mounted");
            return None;
        }
    }
    let path =
        CgroupPath::Cgroupfs { path: format!("moat-test-{name}-{}", std::process::id()).into(), base: Base::Root };
    let resources = resources(json);
    let cgroup = Cgroup::plan(&path, &Config::default(), Some(&resources)).unwrap().unwrap();
    let scratch = Scratch(cgroup);
    scratch.0.make(Some(&resources)).unwrap();
    Some((scratch, resources))
}

/// Starts a shell that waits for a line before it runs `script`.
fn waiting_shell(script: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &format!("read -r go; {script}")]).stdin(Stdio::piped()).stdout(Stdio::null());
    command.process_group(0).spawn().unwrap()
}

fn pid(child: &Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

const LIMITS: &str =
    r#"{"memory":{"limit":67108864},"cpu":{"shares":512,"quota":150000,"period":100000},"pids":{"limit":50}}"#;

#[test]
fn limits_processes_and_the_end() {
    let Some((scratch, resources)) = scratch("life", LIMITS, &["cpu", "memory", "pids"]) else { return };
    let cgroup = &scratch.0;
    // Making it again is no error, as after a crash.
    cgroup.make(Some(&resources)).unwrap();
    assert_eq!((cgroup.memory_limit(), cgroup.cpu_max_us()), (Some(64 << 20), Some((150_000, 100_000))));
    let config = Config { cpu_num_from_quota: true, ..Config::default() };
    let shares = cgroup::shares(Some(cgroup), PodSize::default(), &config);
    assert!(shares.cpu_count <= 2);
    assert_eq!(shares.total_memory_bytes, 64 << 20);

    let mut child = waiting_shell("sleep 60");
    cgroup.join(pid(&child), Some(&resources)).unwrap();
    assert_eq!(cgroup.processes(), [pid(&child)]);
    assert!(cgroup.delete().is_err(), "there is a process in it");
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.memory.usage.limit, stats.pids.limit, stats.pids.current), (64 << 20, 692, 1));
    assert!(stats.memory.raw.len() > 10);

    cgroup.update(&self::resources(r#"{"memory":{"limit":33554432},"pids":{"limit":-1}}"#)).unwrap();
    let stats = cgroup.stats().unwrap();
    assert_eq!((stats.memory.usage.limit, stats.pids.limit), (32 << 20, 0));
    assert_eq!(cgroup.cpu_max_us(), Some((150_000, 100_000)));

    cgroup.kill_all();
    child.wait().unwrap();
    cgroup.delete().unwrap();
    assert!(!cgroup.exists());
    cgroup.delete().unwrap();
    assert!(cgroup.stats().is_err());
}

#[test]
fn running_out_of_memory_is_heard_of() {
    let Some((scratch, resources)) = scratch("oom", r#"{"memory":{"limit":16777216}}"#, &["memory"]) else { return };
    let cgroup = &scratch.0;
    let mut watch = cgroup.oom_events().unwrap();
    assert_eq!(watch.read(), OomEvent::Nothing);
    let mut child = waiting_shell("head -c 100000000 /dev/zero | tail -c 90000000");
    cgroup.join(pid(&child), Some(&resources)).unwrap();
    drop(child.stdin.take());
    let mut looks = 0..3000;
    let mut event = OomEvent::Nothing;
    while event == OomEvent::Nothing && looks.next().is_some() {
        std::thread::sleep(Duration::from_millis(10));
        event = watch.read();
    }
    assert_eq!(event, OomEvent::Oom);
    cgroup.kill_all();
    child.wait().unwrap();
    cgroup.delete().unwrap();
    let mut looks = 0..3000;
    while watch.read() != OomEvent::Gone {
        assert!(looks.next().is_some());
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_can_not_be_had_is_named() {
    let Some((scratch, _)) = scratch("refused", "{}", &["cpu", "memory"]) else { return };
    let v1 = !Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    for (json, part) in [
        (r#"{"unified":{"memory.high":"1000000"}}"#, "unified"),
        (r#"{"rdma":{"mlx5_0":{"hcaHandles":3}}}"#, "rdma"),
        (r#"{"hugepageLimits":[{"pageSize":"2XB/../","limit":1}]}"#, "hugepageLimits"),
        (r#"{"memory":{"swappiness":101}}"#, "swappiness"),
        (r#"{"cpu":{"shares":1}}"#, "cpu-shares"),
        (r#"{"cpu":{"cpus":"4000"}}"#, "cpuset.cpus"),
    ] {
        if !v1 {
            continue;
        }
        let error = scratch.0.update(&resources(json)).unwrap_err().to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
}

#[test]
fn without_cgroups_there_is_none() {
    let config = Config { ignore_cgroups: true, ..Config::default() };
    let path = CgroupPath::Cgroupfs { path: "moat-test-none".into(), base: Base::Root };
    assert_eq!(Cgroup::plan(&path, &config, Some(&resources(LIMITS))).unwrap(), None);
    let unit = CgroupPath::Systemd { slice: String::new(), prefix: "moat".into(), name: "x".into() };
    if !Path::new("/run/systemd/system").exists() && Path::new("/proc/self/cgroup").exists() {
        let refused = Cgroup::plan(&unit, &Config { systemd_cgroup: true, ..Config::default() }, None);
        // None at all if the host has no cgroups mounted.
        assert!(refused.as_ref().map_or_else(|e| e.to_string().contains("--systemd-cgroup"), Option::is_none));
    }
}
