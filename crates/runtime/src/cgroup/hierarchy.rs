//! The cgroup hierarchies that are mounted on the host, and where this process is in them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::{Context, Result};

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Hierarchies {
    /// One hierarchy for each controller or several, and perhaps a unified one without controllers beside them.
    V1(Vec<Hierarchy>),
    /// One for all.
    V2(Hierarchy),
}

/// A mounted hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The controllers, "name=systemd" or the like for one without, "" for a unified one.
    pub(super) controllers: Vec<String>,
    /// Where it is mounted.
    pub(super) mount: PathBuf,
    /// The directory of this process's cgroup in it.
    pub(super) own: PathBuf,
}

/// Where systemd and others mount a unified hierarchy if it is the only one.
const UNIFIED_MOUNT: &str = "/sys/fs/cgroup";

impl Hierarchies {
    /// What this host has; `None` if nothing is mounted.
    pub(super) fn of_host() -> Result<Option<Self>> {
        let read = |path: &str| fs::read_to_string(path).context(|| format!("reading {path}"));
        Ok(Self::parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
    }

    /// From the texts of /proc/self/mountinfo and /proc/self/cgroup.
    pub(super) fn parse(mountinfo: &str, own: &str) -> Option<Self> {
        let mut v1: Vec<Hierarchy> = Vec::new();
        let mut unified: Option<Hierarchy> = None;
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let Some(hierarchy) = mount.hierarchy(own) else { continue };
            if hierarchy.controllers == [""] {
                // It may be mounted again elsewhere; the usual place is the one that others use too.
                if unified.is_none() || hierarchy.mount == Path::new(UNIFIED_MOUNT) {
                    unified = Some(hierarchy);
                }
            } else if !v1.iter().any(|known| known.controllers == hierarchy.controllers) {
                v1.push(hierarchy);
            }
        }
        match unified {
            // A hybrid host has version 2 at another place, without controllers: limits are those of version 1 there.
            Some(unified) if v1.is_empty() || unified.mount == Path::new(UNIFIED_MOUNT) => {
                Some(Hierarchies::V2(unified))
            }
            unified => {
                v1.extend(unified);
                (!v1.is_empty()).then_some(Hierarchies::V1(v1))
            }
        }
    }
}

/// A cgroup mount of /proc/PID/mountinfo.
struct Mount<'a> {
    root: &'a str,
    point: PathBuf,
    options: &'a str,
    unified: bool,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, source) = line.split_once(" - ")?;
        // `proc(5)`: id, parent and device come first; optional fields end at the dash.
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let mut fields = source.split(' ');
        let unified = match fields.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        Some(Mount { root, point: PathBuf::from(unescape(point)), options: fields.nth(1).unwrap_or_default(), unified })
    }

    /// Finds it in /proc/self/cgroup, whose lines are "ID:CONTROLLERS:PATH".
    fn hierarchy(&self, own: &str) -> Option<Hierarchy> {
        own.lines().find_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (names, path) = (fields.next()?, fields.next()?);
            let controllers: Vec<&str> = names.split(',').collect();
            // The unified hierarchy is the line without names; one of version 1 names its controllers, which are mount
            // options too.
            let found = if self.unified {
                names.is_empty()
            } else {
                !names.is_empty()
                    && controllers.iter().all(|name| self.options.split(',').any(|option| option == *name))
            };
            found.then(|| Hierarchy {
                controllers: controllers.into_iter().map(str::to_owned).collect(),
                mount: self.point.clone(),
                own: self.point.join(below(path, self.root)),
            })
        })
    }
}

/// `path` relative to the directory of the hierarchy that is mounted; its root if the process is outside.
fn below(path: &str, root: &str) -> PathBuf {
    Path::new(path).strip_prefix(root).map(Path::to_owned).unwrap_or_default()
}

/// Undoes mountinfo's octal escapes of blanks and backslashes.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn v1_with_a_unified_hierarchy_beside() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            31 30 0:27 / /sys/fs/cgroup/systemd rw shared:9 - cgroup cgroup rw,xattr,name=systemd\n\
            32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            33 30 0:29 /docker/1 /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            34 30 0:29 / /mnt/my\\040memory rw - cgroup cgroup rw,memory\n\
            35 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let own = "4:memory:/docker/1/init\n2:cpu,cpuacct:/a\n1:name=systemd:/\n0::/user.slice\n";
        let Some(Hierarchies::V1(all)) = Hierarchies::parse(mounts, own) else { panic!() };
        let shown: Vec<_> = all.iter().map(|h| (h.controllers.join(","), h.own.to_str().unwrap().to_owned())).collect();
        let expected = [
            ("name=systemd", "/sys/fs/cgroup/systemd/"),
            ("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct/a"),
            ("memory", "/sys/fs/cgroup/memory/init"),
            ("", "/sys/fs/cgroup/unified/user.slice"),
        ];
        assert_eq!(shown, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn v2_only_and_nothing() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let Some(Hierarchies::V2(unified)) = Hierarchies::parse(mounts, "0::/system.slice/x.service\n") else {
            panic!()
        };
        assert_eq!(unified.own, Path::new("/sys/fs/cgroup/system.slice/x.service"));
        assert_eq!(Hierarchies::parse("", "0::/\n"), None);
    }
}
