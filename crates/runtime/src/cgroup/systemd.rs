//! Cgroups that are units of systemd's, by libcgroups' D-Bus client.
//!
//! A scope exists only with a process in it, so it is made, and limited, when the sandbox joins. Only version 2 is
//! supported: on version 1 systemd leaves most controllers alone.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use libcgroups::common::CgroupManager;
use libcgroups::systemd::manager::{Manager, PROCESS_IN_CGROUP_TIMEOUT_DURATION, SystemdManagerError};
use nix::unistd::Pid;
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};

use super::files::read_if_there;
use super::hierarchy::Hierarchy;
use super::properties::Told;
use super::v2;
use crate::error::{Error, Result};

/// A unit of systemd's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Unit {
    /// "slice:prefix:name".
    pub(super) path: String,
    /// The container's id, for the unit's description.
    pub(super) container: String,
    /// Whose systemd it is.
    pub(super) bus: Bus,
}

/// Whose systemd.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Bus {
    System,
    User,
}

impl Bus {
    /// Whose systemd a caller speaks to, by the lines of /proc/self/uid_map: who is root of a user namespace only is an
    /// ordinary user for the system's.
    fn of(is_root: bool, id_map: &str) -> Self {
        let all = |line: &str| line.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
        if is_root && id_map.lines().any(all) { Bus::System } else { Bus::User }
    }
}

impl Unit {
    /// The unit "slice:prefix:name", and the directory that its cgroup will have.
    pub(super) fn plan(slice: &str, prefix: &str, name: &str, unified: &Hierarchy) -> Result<(Self, PathBuf)> {
        if !libcgroups::systemd::booted() {
            return Err(Error::unsupported("--systemd-cgroup", "systemd does not run here (no /run/systemd/system)"));
        }
        let id_map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        // Root in a user namespace is no root for the system's manager.
        let bus = Bus::of(rustix::process::geteuid().is_root(), &id_map);
        let slice = match (slice, bus) {
            // The slices that systemd itself puts scopes in (systemd.special(7)).
            ("", Bus::System) => "system.slice",
            ("", Bus::User) => "user.slice",
            (slice, _) => slice,
        };
        let root = match bus {
            Bus::System => unified.mount.clone(),
            Bus::User => user_manager(&unified.own),
        };
        let dir = root.join(expand(slice)?).join(unit_name(prefix, name));
        let container = if name.is_empty() { prefix } else { name };
        Ok((Unit { path: format!("{slice}:{prefix}:{name}"), container: container.to_owned(), bus }, dir))
    }

    fn manager(&self, mount: &Path) -> Result<Manager> {
        let system = self.bus == Bus::System;
        let path = PathBuf::from(&self.path);
        Manager::new(mount.to_owned(), path, self.container.clone(), system, PROCESS_IN_CGROUP_TIMEOUT_DURATION)
            .map_err(|error| failed("talking to systemd", &error))
    }

    /// Makes the unit with a process in it, or adds the process.
    pub(super) fn join(&self, mount: &Path, pid: i32) -> Result<()> {
        self.manager(mount)?.add_task(Pid::from_raw(pid)).map_err(|error| failed("starting a scope", &error))
    }

    /// Sets properties of the unit, which must exist and has the cgroup `dir`.
    pub(super) fn apply(&self, mount: &Path, dir: &Path, resources: &LinuxResources) -> Result<()> {
        v2::check(resources)?;
        let told = Told::of(resources, read_if_there(dir, "cpu.max").as_deref());
        let manager = self.manager(mount)?;
        manager.apply(&v2::options(&told.resources)).map_err(|error| failed("setting linux.resources", &error))?;
        if !told.assignments.is_empty() {
            self.assign(dir, &told.assignments);
        }
        Ok(())
    }

    /// Best effort: what it sets is written to the cgroup as well, and only lost when systemd writes it again.
    fn assign(&self, dir: &Path, assignments: &[String]) {
        let Some(unit) = dir.file_name() else { return };
        let mut command = Command::new("systemctl");
        if self.bus == Bus::User {
            command.arg("--user");
        }
        command.args(["set-property", "--runtime", "--"]).arg(unit).args(assignments).stdin(Stdio::null());
        match command.output() {
            Ok(output) if output.status.success() => {}
            Ok(output) => tracing::warn!("systemctl: {}", String::from_utf8_lossy(&output.stderr).trim()),
            Err(error) => tracing::warn!("systemd is not told {}: systemctl: {error}", assignments.join(" ")),
        }
    }

    /// Stops the unit; one that does not exist is no error.
    pub(super) fn stop(&self, mount: &Path) -> Result<()> {
        self.manager(mount)?.remove().map_err(|error| failed("stopping the scope", &error))
    }
}

fn failed(what: &str, error: &SystemdManagerError) -> Error {
    Error::Invalid(format!("{what}: {error}"))
}

/// The cgroup of the user's systemd, which this process is somewhere below.
fn user_manager(own: &Path) -> PathBuf {
    let is_manager = |dir: &Path| {
        dir.file_name().is_some_and(|name| {
            let name = name.to_string_lossy();
            name.starts_with("user@") && name.ends_with(".service")
        })
    };
    own.ancestors().find(|dir| is_manager(dir)).unwrap_or(own).to_owned()
}

fn unit_name(prefix: &str, name: &str) -> String {
    match (name.ends_with(".slice"), prefix) {
        (true, _) => name.to_owned(),
        (false, "") => format!("{name}.scope"),
        (false, prefix) => format!("{prefix}-{name}.scope"),
    }
}

/// The directory of a slice: "a-b.slice" is "a.slice/a-b.slice".
fn expand(slice: &str) -> Result<PathBuf> {
    let invalid = || Error::Invalid(format!("linux.cgroupsPath: invalid slice name {slice:?}"));
    let stem = slice.strip_suffix(".slice").ok_or_else(invalid)?;
    // `-.slice` is the root of all.
    if stem == "-" {
        return Ok(PathBuf::new());
    }
    let (mut path, mut prefix) = (PathBuf::new(), String::new());
    for part in stem.split('-') {
        if part.is_empty() {
            return Err(invalid());
        }
        // The parent of `a-b.slice` is `a.slice`: a name has the names of all above in it (systemd.slice(5)).
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
        prefix.push('-');
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_of_a_user_namespace_has_the_users_systemd() {
        let whole = "         0          0 4294967295\n";
        assert_eq!(Bus::of(true, whole), Bus::System);
        assert_eq!(Bus::of(false, whole), Bus::User);
        assert_eq!(Bus::of(true, "         0       1000          1\n         1     100000      65536\n"), Bus::User);
    }

    #[test]
    fn slices_are_expanded() {
        assert_eq!(expand("system.slice").unwrap(), Path::new("system.slice"));
        assert_eq!(expand("a-b-c.slice").unwrap(), Path::new("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(expand("-.slice").unwrap(), Path::new(""));
        for bad in ["a--b.slice", ".slice", "a", "-a.slice"] {
            assert!(expand(bad).is_err(), "{bad}");
        }
        assert_eq!(unit_name("docker", "abc"), "docker-abc.scope");
        assert_eq!(unit_name("", "x.slice"), "x.slice");
    }

    #[test]
    fn the_users_manager_is_found() {
        let own = Path::new("/sys/fs/cgroup/user.slice/user-7.slice/user@7.service/app.slice/a.scope");
        let manager = Path::new("/sys/fs/cgroup/user.slice/user-7.slice/user@7.service");
        assert_eq!(user_manager(own), manager);
    }
}
