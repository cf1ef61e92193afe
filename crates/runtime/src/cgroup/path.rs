//! [`CgroupPath`]: where a container's cgroup is to be, from `linux.cgroupsPath`.

use std::path::{Component, Path, PathBuf};

use oci_spec::runtime::Spec;

use crate::error::{Error, Result};
use crate::{Config, ContainerId};

/// Where a cgroup is to be; the rules are runc's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupPath {
    /// A directory.
    Cgroupfs {
        /// Relative, without `..`.
        path: PathBuf,
        /// To what.
        base: Base,
    },
    /// A unit of systemd's.
    Systemd {
        /// The slice that it is in; the default one if empty.
        slice: String,
        /// What its name begins with.
        prefix: String,
        /// The rest of its name.
        name: String,
    },
}

/// What a path is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// The root of the hierarchy.
    Root,
    /// On version 1 the creator's cgroup of the controller. On version 2 the one above the creator's, which has processes
    /// and thus can't have children with limits.
    Creator,
}

impl CgroupPath {
    /// The path that the configuration names, or else one made from the container's id.
    ///
    /// # Errors
    /// A path that is not of the form that the driver takes.
    pub fn from_spec(spec: &Spec, id: &ContainerId, config: &Config) -> Result<Self> {
        let path = spec.linux().as_ref().and_then(|linux| linux.cgroups_path().as_deref());
        let path = path.filter(|path| !path.as_os_str().is_empty());
        if config.systemd_cgroup { systemd(path, id) } else { plain(path.unwrap_or(Path::new(id.as_str()))) }
    }
}

impl CgroupPath {
    /// The one beside it that is named after the container `id`: for one whose configuration names the cgroup of another one.
    #[must_use]
    pub fn beside(self, id: &ContainerId) -> Self {
        match self {
            CgroupPath::Cgroupfs { path, base } => {
                CgroupPath::Cgroupfs { path: path.with_file_name(id.as_str()), base }
            }
            CgroupPath::Systemd { slice, prefix, .. } => {
                CgroupPath::Systemd { slice, prefix, name: id.as_str().to_owned() }
            }
        }
    }
}

/// A path with `..` is refused: it could only name a cgroup that is not below the one that it seems to be in.
fn plain(path: &Path) -> Result<CgroupPath> {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            // It would lead out of the cgroups that the caller was given.
            Component::ParentDir => {
                return Err(Error::Invalid(format!("linux.cgroupsPath: {:?} has a component \"..\"", path.display())));
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(CgroupPath::Cgroupfs { path: clean, base: if path.is_absolute() { Base::Root } else { Base::Creator } })
}

fn systemd(path: Option<&Path>, id: &ContainerId) -> Result<CgroupPath> {
    let Some(path) = path else {
        // As runc: the default slice, and a scope with the name of the runtime.
        return Ok(CgroupPath::Systemd { slice: String::new(), prefix: "moat".into(), name: id.as_str().to_owned() });
    };
    let text = path.to_string_lossy();
    let parts: Vec<&str> = text.split(':').collect();
    match parts[..] {
        [slice, prefix, name]
            if !name.is_empty()
                && !text.contains('/')
                && (slice.is_empty() || slice.strip_suffix(".slice").is_some_and(|stem| !stem.is_empty())) =>
        {
            Ok(CgroupPath::Systemd { slice: slice.to_owned(), prefix: prefix.to_owned(), name: name.to_owned() })
        }
        _ => Err(Error::Invalid(format!(
            "linux.cgroupsPath: expected \"slice:prefix:name\" with --systemd-cgroup, got {text:?}"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: Option<&str>, systemd_cgroup: bool) -> Result<CgroupPath> {
        let path = text.map_or("null".to_owned(), |text| format!("{text:?}"));
        let spec = format!(r#"{{"ociVersion":"1.0.2","linux":{{"cgroupsPath":{path}}}}}"#);
        let config = Config { systemd_cgroup, ..Config::default() };
        CgroupPath::from_spec(&serde_json::from_str(&spec).unwrap(), &"c1".parse().unwrap(), &config)
    }

    #[test]
    fn plain_paths() {
        let relative = |path: &str| CgroupPath::Cgroupfs { path: path.into(), base: Base::Creator };
        let absolute = |path: &str| CgroupPath::Cgroupfs { path: path.into(), base: Base::Root };
        for (text, expected) in [
            (None, relative("c1")),
            (Some(""), relative("c1")),
            (Some("/docker/abc"), absolute("docker/abc")),
            (Some("a/b"), relative("a/b")),
            (Some("/./a//b/"), absolute("a/b")),
            (Some("system.slice:docker:abc"), relative("system.slice:docker:abc")),
        ] {
            assert_eq!(path(text, false).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn beside_another_ones() {
        let beside = |text, systemd| path(Some(text), systemd).unwrap().beside(&"c2".parse().unwrap());
        assert_eq!(beside("/docker/abc", false), CgroupPath::Cgroupfs { path: "docker/c2".into(), base: Base::Root });
        assert_eq!(beside("c1", false), CgroupPath::Cgroupfs { path: "c2".into(), base: Base::Creator });
        let unit = CgroupPath::Systemd { slice: "a.slice".into(), prefix: "docker".into(), name: "c2".into() };
        assert_eq!(beside("a.slice:docker:abc", true), unit);
    }

    #[test]
    fn paths_that_lead_up_are_refused() {
        for text in ["/x/../../victim", "..", "a/../b", "/..", "a/.."] {
            let error = path(Some(text), false).unwrap_err().to_string();
            assert!(error.contains("linux.cgroupsPath") && error.contains(text), "{error}");
        }
    }

    #[test]
    fn systemd_paths() {
        let unit = |slice: &str, prefix: &str, name: &str| CgroupPath::Systemd {
            slice: slice.into(),
            prefix: prefix.into(),
            name: name.into(),
        };
        assert_eq!(path(None, true).unwrap(), unit("", "moat", "c1"));
        assert_eq!(path(Some("system.slice:docker:abc"), true).unwrap(), unit("system.slice", "docker", "abc"));
        assert_eq!(path(Some(":docker:abc"), true).unwrap(), unit("", "docker", "abc"));
        for bad in ["/docker/abc", "a:b", "a:b:c:d", "a:b:c", ".slice:b:c", "a.slice:b/x:c", "a.slice:b:"] {
            assert!(path(Some(bad), true).unwrap_err().to_string().contains("slice:prefix:name"), "{bad}");
        }
    }
}
