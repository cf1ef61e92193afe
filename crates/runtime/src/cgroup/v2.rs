//! Limits on version 2, by libcgroups: Documentation/admin-guide/cgroup-v2.rst of the kernel.

use std::fs;
use std::path::{Path, PathBuf};

use libcgroups::common::{CgroupManager, ControllerOpt};
use libcgroups::v2::manager::Manager;
use oci_spec::runtime::{LinuxBlockIo, LinuxResources};

use super::files::{read_if_there, try_write};
use crate::error::{Context, Error, Result};

/// Makes the cgroup and what is above it, and has each level pass all controllers on to the next.
pub(super) fn make(mount: &Path, dir: &Path) -> Result<()> {
    let below = dir.strip_prefix(mount).unwrap_or(Path::new(""));
    let mut current = mount.to_owned();
    for component in below.components() {
        // A child has the controllers that its parent passes on, so the way is made from the top.
        pass_on_controllers(&current);
        current.push(component);
        match fs::create_dir(&current) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            result => result.context(|| format!("making the cgroup {}", current.display()))?,
        }
    }
    Ok(())
}

/// Best effort, one by one: what is not passed on is missed when a limit needs it, and then named.
fn pass_on_controllers(dir: &Path) {
    let available = read_if_there(dir, "cgroup.controllers").unwrap_or_default();
    let passed = read_if_there(dir, "cgroup.subtree_control").unwrap_or_default();
    for controller in available.split_whitespace() {
        if !passed.split_whitespace().any(|other| other == controller) {
            let _ = try_write(dir, "cgroup.subtree_control", &format!("+{controller}"));
        }
    }
}

/// Applies what `resources` asks for, which [`super::limits::asked_for`] has gone over.
pub(super) fn apply(mount: &Path, dir: &Path, resources: &LinuxResources) -> Result<()> {
    check(resources)?;
    if let Some(rdma) = resources.rdma() {
        super::set_rdma(dir, rdma)?;
    }
    if let Some(weight) = resources.block_io().as_ref().and_then(LinuxBlockIo::weight) {
        set_io_weight(dir, weight)?;
    }
    let below: PathBuf = dir.strip_prefix(mount).unwrap_or(dir).into();
    let manager = Manager::new(mount.to_owned(), below).map_err(|error| Error::Invalid(error.to_string()))?;
    // One by one, for the library's errors do not say which it was.
    for (name, section) in sections(resources) {
        manager
            .apply(&options(&section))
            .map_err(|error| Error::Invalid(format!("linux.resources.{name} can't be applied: {error}")))?;
    }
    Ok(())
}

/// The library computes it in 16 bits, which are too few.
fn set_io_weight(dir: &Path, weight: u16) -> Result<()> {
    // BFQ's own scale is that of version 1; the other's is 1 to 10000.
    let (file, value) = match dir.join("io.bfq.weight").exists() {
        true => ("io.bfq.weight", u32::from(weight)),
        false => ("io.weight", io_weight(weight)),
    };
    try_write(dir, file, &value.to_string())
        .map_err(|error| Error::Invalid(format!("linux.resources.blockIO.weight can't be applied: {file}: {error}")))
}

/// 10 to 1000 of version 1 as 1 to 10000.
fn io_weight(weight: u16) -> u32 {
    (u32::from(weight).saturating_sub(10).saturating_mul(9999) / 990).saturating_add(1)
}

/// The sections by name, each alone.
fn sections(resources: &LinuxResources) -> Vec<(&'static str, LinuxResources)> {
    let mut nothing = LinuxResources::default();
    nothing.set_devices(None);
    let mut sections = Vec::new();
    let mut add = |name, given: bool, fill: &dyn Fn(&mut LinuxResources)| {
        if given {
            // One at a time, so that an error can name the field: the library's names none.
            let mut section = nothing.clone();
            fill(&mut section);
            sections.push((name, section));
        }
    };
    add("memory", resources.memory().is_some(), &|section| {
        section.set_memory(*resources.memory());
    });
    add("cpu", resources.cpu().is_some(), &|section| {
        section.set_cpu(resources.cpu().clone());
    });
    add("pids", resources.pids().is_some(), &|section| {
        section.set_pids(*resources.pids());
    });
    add("blockIO", resources.block_io().is_some(), &|section| {
        let mut io = resources.block_io().clone();
        if let Some(io) = &mut io {
            io.set_weight(None);
        }
        section.set_block_io(io);
    });
    add("hugepageLimits", resources.hugepage_limits().is_some(), &|section| {
        section.set_hugepage_limits(resources.hugepage_limits().clone());
    });
    add("unified", resources.unified().is_some(), &|section| {
        section.set_unified(resources.unified().clone());
    });
    sections
}

/// What libcgroups is told.
pub(super) fn options(resources: &LinuxResources) -> ControllerOpt<'_> {
    let memory = resources.memory().as_ref();
    ControllerOpt {
        resources,
        disable_oom_killer: memory.and_then(|memory| memory.disable_oom_killer()).unwrap_or(false),
        oom_score_adj: None,
        freezer_state: None,
    }
}

/// Refuses what version 2 has no notion of.
pub(super) fn check(resources: &LinuxResources) -> Result<()> {
    let refuse = |field: &str| Err(Error::unsupported(field, "version 2 of cgroups has no such limit"));
    if let Some(network) = resources.network() {
        return refuse(if network.class_id().is_some() {
            "linux.resources.network.classID"
        } else {
            "linux.resources.network.priorities"
        });
    }
    for name in resources.unified().iter().flat_map(|unified| unified.keys()) {
        check_file(name)?;
    }
    for limit in resources.hugepage_limits().iter().flatten() {
        if !limit.page_size().bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            let size = limit.page_size();
            return Err(Error::Invalid(format!("linux.resources.hugepageLimits: {size:?} is no size of pages")));
        }
    }
    match resources.memory() {
        Some(memory) if memory.disable_oom_killer().is_some() => refuse("linux.resources.memory.disableOOMKiller"),
        Some(memory) if memory.swap().is_some_and(|swap| swap > 0) && memory.limit().is_none() => {
            Err(Error::Invalid("linux.resources.memory.swap needs a limit of memory beside it".into()))
        }
        _ => Ok(()),
    }
}

/// The name of a limit's file becomes a path, which must not lead out of the cgroup; and what is done with processes is no limit.
fn check_file(name: &str) -> Result<()> {
    const DEEDS: [&str; 4] = ["cgroup.procs", "cgroup.threads", "cgroup.freeze", "cgroup.kill"];
    let is_file = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    match is_file && !DEEDS.contains(&name) {
        true => Ok(()),
        false => Err(Error::Invalid(format!("linux.resources.unified: {name:?} is not the name of a limit's file"))),
    }
}

#[cfg(test)]
mod tests {
    use super::{check, io_weight};
    use oci_spec::runtime::LinuxResources;

    #[test]
    fn names_of_files_lead_nowhere_else() {
        let of = |json: &str| check(&serde_json::from_str::<LinuxResources>(json).unwrap());
        let unified = |name: &str| of(&serde_json::json!({ "unified": { name: "1" } }).to_string());
        for fine in ["memory.high", "cpu.weight", "hugetlb.2MB.max", "cgroup.max.depth", "memory..high"] {
            unified(fine).unwrap();
        }
        for bad in [
            "",
            "..",
            ".",
            "/proc/sys/kernel/core_pattern",
            "../cgroup.procs",
            "a/b",
            "a\0b",
            "cgroup.procs",
            "cgroup.kill",
        ] {
            let error = unified(bad).unwrap_err().to_string();
            assert!(error.contains("linux.resources.unified"), "{bad}: {error}");
        }
        let pages =
            |size: &str| of(&serde_json::json!({ "hugepageLimits": [{ "pageSize": size, "limit": 1 }] }).to_string());
        pages("2MB").unwrap();
        assert!(pages("2MB/../../x").unwrap_err().to_string().contains("hugepageLimits"));
    }

    #[test]
    fn weights_are_those_of_the_other_scale() {
        assert_eq!([10, 100, 200, 500, 1000].map(io_weight), [1, 910, 1920, 4950, 10000]);
    }
}
