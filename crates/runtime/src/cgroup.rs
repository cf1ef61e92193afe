//! [`Cgroup`]: the host resources that a container may use.
//!
//! A container's cgroup holds its sandbox's processes, the guest's among them, so the host's kernel enforces the limits.
//! Whoever makes a container first [plans](Cgroup::plan) its cgroup and notes the plan in its state, so that it is
//! deleted whatever happens; then [makes](Cgroup::make) it, and puts the sandbox process into it before that runs.
//! Nothing else in this crate touches cgroupfs.

mod entrances;
mod files;
mod hierarchy;
mod limits;
mod oom;
mod path;
mod properties;
mod removal;
mod seen;
mod stats;
mod systemd;
mod v1;
mod v2;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use oci_spec::runtime::{LinuxRdma, LinuxResources};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::Config;
use crate::error::{Context, Error, Result};
use files::{PROCS, try_write};
use hierarchy::{Hierarchies, Hierarchy};
use removal::{Waiting, occupants, remove};
use systemd::Unit;

pub(crate) use entrances::{Cloning, Entrances};
pub(crate) use limits::task_limit;
pub use oom::{OomEvent, OomWatch};
pub use path::{Base, CgroupPath};
pub(crate) use seen::shares_of_host;
pub use seen::{PodSize, shares};
pub use stats::{BlockIoEntry, MemoryEntry, Pids, Stats};

/// Tries to move a process that is so new that the host's kernel answers EINVAL.
const JOIN_ATTEMPTS: u32 = 5;

/// Rounds of killing all processes of a cgroup, some of which may be making others.
const KILL_ROUNDS: u32 = 100;

/// The cgroup of a container, or the plan for it. It is part of the container's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroup {
    layout: Layout,
    /// The unit of systemd's that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    unit: Option<Unit>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Layout {
    /// A directory for each hierarchy.
    V1(Vec<V1Dir>),
    /// One directory.
    V2 { mount: PathBuf, path: PathBuf },
}

/// A version of cgroups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Version {
    V1,
    V2,
}

/// A directory in a hierarchy of version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct V1Dir {
    controllers: Vec<String>,
    mount: PathBuf,
    path: PathBuf,
}

impl Cgroup {
    /// Decides where the cgroup is to be. Makes nothing.
    ///
    /// There is none with --ignore-cgroups, and where none can be made if no limits are asked for.
    ///
    /// # Errors
    /// Limits are asked for but there are no cgroups; --systemd-cgroup without systemd, or on version 1.
    pub fn plan(path: &CgroupPath, config: &Config, resources: Option<&LinuxResources>) -> Result<Option<Self>> {
        if config.ignore_cgroups {
            return Ok(None);
        }
        // Limits that can't hold are an error; a cgroup that only counts is done without.
        let asked = Self::limits_asked_for(resources);
        let Some(hierarchies) = Hierarchies::of_host()? else {
            return match asked {
                true => Err(Error::unsupported("linux.resources", "the host has no cgroups mounted")),
                false => Ok(None),
            };
        };
        let cgroup = Self::plan_in(&hierarchies, path)?;
        if !asked && cgroup.unit.is_none() && !cgroup.can_be_made() {
            tracing::debug!("the container has no cgroup: none can be made here, and it needs none");
            return Ok(None);
        }
        Ok(Some(cgroup))
    }

    fn plan_in(hierarchies: &Hierarchies, path: &CgroupPath) -> Result<Self> {
        match (hierarchies, path) {
            (Hierarchies::V2(unified), CgroupPath::Systemd { slice, prefix, name }) => {
                let (unit, path) = Unit::plan(slice, prefix, name, unified)?;
                Ok(Cgroup { layout: Layout::V2 { mount: unified.mount.clone(), path }, unit: Some(unit) })
            }
            (Hierarchies::V1(_), CgroupPath::Systemd { .. }) => Err(Error::unsupported(
                "--systemd-cgroup",
                "the host has version 1 of cgroups, which moat manages by itself only",
            )),
            (Hierarchies::V2(unified), CgroupPath::Cgroupfs { path, base }) => {
                let path = match base {
                    Base::Root => unified.mount.join(path),
                    Base::Creator => parent_in(&unified.own, &unified.mount).join(path),
                };
                Ok(Cgroup { layout: Layout::V2 { mount: unified.mount.clone(), path }, unit: None })
            }
            (Hierarchies::V1(all), CgroupPath::Cgroupfs { path, base }) => {
                let dir = |hierarchy: &Hierarchy| V1Dir {
                    controllers: hierarchy.controllers.clone(),
                    mount: hierarchy.mount.clone(),
                    path: match base {
                        Base::Root => hierarchy.mount.join(path),
                        Base::Creator => hierarchy.own.join(path),
                    },
                };
                Ok(Cgroup { layout: Layout::V1(all.iter().map(dir).collect()), unit: None })
            }
        }
    }

    /// Whether a configuration asks for any limits.
    #[must_use]
    pub fn limits_asked_for(resources: Option<&LinuxResources>) -> bool {
        resources.is_some_and(limits::any)
    }

    /// Its directories with the mounts that they are in.
    fn dirs(&self) -> Vec<(&Path, &Path)> {
        match &self.layout {
            Layout::V1(dirs) => dirs.iter().map(|dir| (dir.mount.as_path(), dir.path.as_path())).collect(),
            Layout::V2 { mount, path } => vec![(mount.as_path(), path.as_path())],
        }
    }

    /// Whether all directories exist and take processes, or can be made.
    fn can_be_made(&self) -> bool {
        self.dirs().into_iter().all(|(_, path)| {
            let Some(existing) = path.ancestors().find(|path| path.exists()) else { return false };
            let target = if existing == path { path.join(PROCS) } else { existing.to_owned() };
            accessat(CWD, target, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
        })
    }

    /// Makes the cgroup and applies limits; what is there already is taken over.
    ///
    /// A unit of systemd's can't be empty: it is made, and limited, by [`Self::join`].
    ///
    /// # Errors
    /// A limit that can't be applied, by name; the host's errors.
    pub fn make(&self, resources: Option<&LinuxResources>) -> Result<()> {
        if self.unit.is_none() {
            match &self.layout {
                Layout::V1(dirs) => dirs.iter().try_for_each(make_v1)?,
                Layout::V2 { mount, path } => v2::make(mount, path)?,
            }
            self.apply(resources)?;
        }
        Ok(())
    }

    fn apply(&self, resources: Option<&LinuxResources>) -> Result<()> {
        let Some(resources) = resources.map(limits::asked_for) else { return Ok(()) };
        match (&self.layout, &self.unit) {
            (Layout::V1(dirs), _) => v1::apply(dirs, &resources),
            (Layout::V2 { mount, path }, None) => v2::apply(mount, path, &resources),
            (Layout::V2 { mount, path }, Some(unit)) => {
                unit.apply(mount, path, &resources)?;
                // Not each limit has a property of a unit's.
                v2::apply(mount, path, &resources)
            }
        }
    }

    /// Puts a process into the cgroup. `resources` are those of [`Self::make`].
    ///
    /// # Errors
    /// The host's, with the directory.
    pub fn join(&self, pid: i32, resources: Option<&LinuxResources>) -> Result<()> {
        if let (Layout::V2 { mount, .. }, Some(unit)) = (&self.layout, &self.unit) {
            unit.join(mount, pid)?;
            return self.apply(resources);
        }
        self.dirs().into_iter().try_for_each(|(_, path)| {
            move_process(path, pid).context(|| format!("moving a process into the cgroup {}", path.display()))
        })
    }

    /// Moves another process of the container, its gofer or its waiter, to the one that has joined.
    ///
    /// # Errors
    /// Of writing cgroup.procs.
    pub fn adopt(&self, pid: i32) -> Result<()> {
        self.dirs().into_iter().try_for_each(|(_, path)| {
            move_process(path, pid).context(|| format!("moving a process into the cgroup {}", path.display()))
        })
    }

    /// Changes limits; what `resources` does not name stays as it is.
    ///
    /// # Errors
    /// As [`Self::make`].
    pub fn update(&self, resources: &LinuxResources) -> Result<()> {
        self.apply(Some(resources))
    }

    /// What its processes use.
    ///
    /// # Errors
    /// It is gone.
    pub fn stats(&self) -> Result<Stats> {
        match &self.layout {
            Layout::V1(dirs) => stats::v1(dirs),
            Layout::V2 { path, .. } => stats::v2(path),
        }
    }

    /// How many of its processes the host has killed for want of memory; `None` if nobody counts them.
    #[must_use]
    pub fn oom_kills(&self) -> Option<u64> {
        match &self.layout {
            Layout::V1(dirs) => oom::kills_v1(v1::find(dirs, "memory")?),
            Layout::V2 { path, .. } => oom::kills(path),
        }
    }

    /// How often memory ran short, by the names of memory.events, or of memory.oom_control on version 1; `None` if nobody counts.
    #[must_use]
    pub fn memory_events(&self) -> Option<BTreeMap<String, u64>> {
        match &self.layout {
            Layout::V1(dirs) => oom::all_v1(v1::find(dirs, "memory")?),
            Layout::V2 { path, .. } => oom::all(path),
        }
    }

    /// The version of the host's cgroups.
    #[must_use]
    pub fn version(&self) -> Version {
        match &self.layout {
            Layout::V1(_) => Version::V1,
            Layout::V2 { .. } => Version::V2,
        }
    }

    /// Tells of processes killed for want of memory from now on.
    ///
    /// # Errors
    /// The memory controller is not there.
    pub fn oom_events(&self) -> Result<OomWatch> {
        match &self.layout {
            Layout::V1(dirs) => {
                let dir = v1::find(dirs, "memory");
                OomWatch::v1(dir.ok_or_else(|| Error::Invalid("the container has no memory cgroup".into()))?)
            }
            Layout::V2 { path, .. } => OomWatch::v2(path),
        }
    }

    /// Whether it exists.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.dirs().into_iter().any(|(_, path)| path.exists())
    }

    /// The processes in it and in cgroups below it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        // On version 1 somebody may have moved them in one hierarchy only.
        let mut all = BTreeSet::new();
        for (mount, path) in self.dirs() {
            if path != mount {
                collect_processes(path, &mut all);
            }
        }
        all.into_iter().collect()
    }

    /// Kills all processes in it, and waits until they are gone.
    pub fn kill_all(&self) {
        for _ in 0..KILL_ROUNDS {
            let processes = self.processes();
            if processes.is_empty() {
                return;
            }
            // New ones may be forked while the list is read, so it is read until it is empty. The command itself may be
            // in there.
            for pid in processes.into_iter().filter(|&pid| u32::try_from(pid) != Ok(std::process::id())) {
                if let Some(pid) = Pid::from_raw(pid) {
                    let _ = kill_process(pid, Signal::KILL);
                }
            }
            sleep(Duration::from_millis(5));
        }
    }

    /// Deletes the cgroup and those below it. What is not there is no error, so that it can be repeated. Waits for two seconds at
    /// most: a zombie whose parent does not reap it may stay for ever.
    ///
    /// # Errors
    /// EBUSY: there are processes in it, which are named.
    pub fn delete(&self) -> Result<()> {
        if let (Layout::V2 { mount, .. }, Some(unit)) = (&self.layout, &self.unit) {
            // The directory is systemd's: it goes with the scope. What is left of it goes below.
            unit.stop(mount)?;
        }
        let mut result = Ok(());
        let mut waiting = Waiting::new();
        for (mount, path) in self.dirs() {
            // A path out of the state file never leads to the hierarchy's root, or out of it. One that fails does not
            // keep the others.
            if path != mount && path.starts_with(mount) {
                let removed = remove(path, &mut waiting)
                    .context(|| format!("removing the cgroup {}{}", path.display(), occupants(path)));
                result = result.and(removed);
            }
        }
        result
    }
}

/// The cgroup above the creator's, where there is one.
fn parent_in(own: &Path, mount: &Path) -> PathBuf {
    match own.parent() {
        Some(parent) if own != mount && parent.starts_with(mount) => parent.to_owned(),
        _ => mount.to_owned(),
    }
}

fn make_v1(dir: &V1Dir) -> Result<()> {
    fs::create_dir_all(&dir.path).context(|| format!("making the cgroup {}", dir.path.display()))?;
    if dir.controllers.iter().any(|name| name == "cpuset") {
        v1::fill_cpuset(&dir.mount, &dir.path)?;
    }
    Ok(())
}

fn move_process(dir: &Path, pid: i32) -> io::Result<()> {
    let mut attempt = 1;
    loop {
        match try_write(dir, PROCS, &pid.to_string()) {
            // It may not have been scheduled yet.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && attempt < JOIN_ATTEMPTS => {
                attempt += 1;
                sleep(Duration::from_millis(30));
            }
            result => return result,
        }
    }
}

/// `rdma.max` is the same on both versions.
fn set_rdma(dir: &Path, devices: &HashMap<String, LinuxRdma>) -> Result<()> {
    for (device, limit) in devices {
        let mut line = device.clone();
        if let Some(handles) = limit.hca_handles() {
            line += &format!(" hca_handle={handles}");
        }
        if let Some(objects) = limit.hca_objects() {
            line += &format!(" hca_object={objects}");
        }
        files::write(dir, "rdma.max", line)?;
    }
    Ok(())
}

fn collect_processes(dir: &Path, all: &mut BTreeSet<i32>) {
    let text = files::read_if_there(dir, PROCS).unwrap_or_default();
    all.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    for child in children(dir) {
        collect_processes(&child, all);
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(path: &str, base: Base) -> CgroupPath {
        CgroupPath::Cgroupfs { path: path.into(), base }
    }

    #[test]
    fn plans_follow_the_version() {
        let mounts =
            "33 30 0:29 / /c/memory rw - cgroup cgroup rw,memory\n34 30 0:30 / /c/cpu rw - cgroup cgroup rw,cpu\n";
        let v1 = Hierarchies::parse(mounts, "2:memory:/own\n3:cpu:/\n").unwrap();
        let dirs = |path| {
            let cgroup = Cgroup::plan_in(&v1, &path).unwrap();
            cgroup.dirs().into_iter().map(|(_, path)| path.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(dirs(place("a/b", Base::Root)), ["/c/memory/a/b", "/c/cpu/a/b"]);
        assert_eq!(dirs(place("a", Base::Creator)), ["/c/memory/own/a", "/c/cpu/a"]);
        let unit = CgroupPath::Systemd { slice: "a.slice".into(), prefix: "b".into(), name: "c".into() };
        assert!(Cgroup::plan_in(&v1, &unit).unwrap_err().to_string().contains("--systemd-cgroup"));

        let v2 = Hierarchies::parse("33 30 0:29 / /c rw - cgroup2 cgroup rw\n", "0::/x/y.service\n").unwrap();
        let dir = |path| Cgroup::plan_in(&v2, &path).unwrap().dirs()[0].1.display().to_string();
        assert_eq!(dir(place("a", Base::Root)), "/c/a");
        assert_eq!(dir(place("a", Base::Creator)), "/c/x/a");
        let top = Hierarchies::parse("33 30 0:29 / /c rw - cgroup2 cgroup rw\n", "0::/\n").unwrap();
        let cgroup = Cgroup::plan_in(&top, &place("a", Base::Creator)).unwrap();
        assert_eq!(cgroup.dirs()[0].1, Path::new("/c/a"));
        let text = serde_json::to_string(&cgroup).unwrap();
        assert_eq!(serde_json::from_str::<Cgroup>(&text).unwrap(), cgroup);
    }

    /// The unified hierarchy, wherever it is mounted, with the controllers that version 1 has left it.
    #[test]
    fn version_2_for_real() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let unified: String =
            mounts.lines().filter(|line| line.contains(" - cgroup2 ")).map(|l| format!("{l}\n")).collect();
        let Some(hierarchies @ Hierarchies::V2(_)) = Hierarchies::parse(&unified, "0::/\n") else {
            return eprintln!("skipped: no unified hierarchy is mounted");
        };
        let name = format!("moat-v2-{}", std::process::id());
        let cgroup = Cgroup::plan_in(&hierarchies, &place(&format!("{name}/b"), Base::Root)).unwrap();
        if !cgroup.can_be_made() {
            return eprintln!("skipped: the unified hierarchy can't be written to");
        }
        struct Guard<'a>(&'a Cgroup);
        impl Drop for Guard<'_> {
            fn drop(&mut self) {
                self.0.kill_all();
                let _ = self.0.dirs()[0].1.parent().map(|parent| remove(parent, &mut Waiting::new()));
            }
        }
        let _guard = Guard(&cgroup);
        cgroup.make(None).unwrap();
        let (mount, dir) = cgroup.dirs()[0];
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        cgroup.join(pid, None).unwrap();
        assert_eq!(cgroup.processes(), [pid]);
        let stats = cgroup.stats();
        let available = files::read(mount, "cgroup.controllers").unwrap();
        for (controller, json, file, expected) in [
            ("hugetlb", r#"{"hugepageLimits":[{"pageSize":"2MB","limit":4194304}]}"#, "hugetlb.2MB.max", "4194304"),
            ("memory", r#"{"memory":{"limit":33554432}}"#, "memory.max", "33554432"),
            ("pids", r#"{"pids":{"limit":17}}"#, "pids.max", "362"),
            ("cpu", r#"{"cpu":{"quota":50000,"period":100000}}"#, "cpu.max", "50000 100000"),
        ] {
            let result = cgroup.update(&serde_json::from_str(json).unwrap());
            if available.split_whitespace().any(|name| name == controller) && dir.join(file).exists() {
                result.unwrap();
                assert_eq!(files::read(dir, file).unwrap(), expected);
            } else {
                let error = result.unwrap_err().to_string();
                assert!(error.contains("linux.resources."), "{error}");
            }
        }
        cgroup.kill_all();
        child.wait().unwrap();
        cgroup.delete().unwrap();
        assert!(!cgroup.exists());
        stats.unwrap();
    }
}
