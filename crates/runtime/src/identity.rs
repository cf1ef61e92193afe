//! Whom the sandbox runs as: its user namespace and its ids in there.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use moat_control::spec::RunAs;
use moat_host::spawn::{Credentials, IdMap, IdMaps, MapWriter, user_namespace_maps};
use rustix::thread::CapabilitySet;

use crate::error::{Context, Error, Result};
use crate::namespaces::open;

/// uid and gid of "nobody".
const NOBODY: u32 = 65534;

/// The user namespace of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum UserNamespace {
    /// A new one. Root maps all ids that it has to themselves; an ordinary user maps itself to root and nothing else.
    #[default]
    New,
    /// A new one with the maps of a configuration.
    Mapped {
        /// User ids.
        uid: Vec<IdMap>,
        /// Group ids.
        gid: Vec<IdMap>,
    },
    /// An existing one.
    Join(PathBuf),
    /// The creator's, so that capabilities hold over the network namespace that is the creator's too.
    Current,
}

/// The sandbox's identity, ready for use.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The user namespace to join.
    pub(crate) join: Option<OwnedFd>,
    /// The maps of a new user namespace.
    pub(crate) maps: Option<IdMaps>,
    /// Ids at the time of execution.
    pub(crate) credentials: Credentials,
    /// Whom its process runs as in there.
    pub(crate) run_as: RunAs,
}

impl UserNamespace {
    /// [`Self::Current`] if a process in it can be shut in, which takes CAP_SYS_ADMIN, else [`Self::New`].
    #[must_use]
    pub fn current_if_privileged() -> Self {
        match rustix::thread::capabilities(None) {
            Ok(sets) if sets.effective.contains(CapabilitySet::SYS_ADMIN) => UserNamespace::Current,
            _ => UserNamespace::New,
        }
    }

    /// Decides, and opens what is to be joined.
    pub(crate) fn identity(&self) -> Result<Identity> {
        match self {
            UserNamespace::New => new_namespace(),
            UserNamespace::Mapped { uid, gid } => Ok(mapped(uid.clone(), gid.clone())),
            UserNamespace::Join(path) => join(path),
            UserNamespace::Current => {
                let (uid, gid) = own_maps()?;
                Ok(Identity { join: None, maps: None, credentials: Credentials::Keep, run_as: run_as(&uid, &gid) })
            }
        }
    }
}

fn new_namespace() -> Result<Identity> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // user_namespaces(7): without a privilege a process may map its own ids only.
    if !uid.is_root() {
        let own = |id| vec![IdMap { inside: 0, outside: id, count: 1 }];
        let maps = IdMaps { uid: own(uid.as_raw()), gid: own(gid.as_raw()), writer: MapWriter::Ordinary };
        return Ok(Identity { join: None, maps: Some(maps), credentials: Credentials::Keep, run_as: RunAs::Creator });
    }
    let (uid, gid) = own_maps()?;
    let run_as = run_as(&uid, &gid);
    let maps = IdMaps { uid: identity(&uid), gid: identity(&gid), writer: MapWriter::Privileged };
    Ok(Identity { join: None, maps: Some(maps), credentials: Credentials::Keep, run_as })
}

fn mapped(uid: Vec<IdMap>, gid: Vec<IdMap>) -> Identity {
    let (own_uid, own_gid) = (rustix::process::geteuid(), rustix::process::getegid());
    // Also the only map that an ordinary user may write without newuidmap(1).
    let only = |maps: &[IdMap], id| matches!(maps, [map] if map.outside == id && map.count == 1);
    let writer = if own_uid.is_root() {
        MapWriter::Privileged
    } else if only(&uid, own_uid.as_raw()) && only(&gid, own_gid.as_raw()) {
        MapWriter::Ordinary
    } else {
        MapWriter::Programs
    };
    let run_as = run_as(&uid, &gid);
    let maps = Some(IdMaps { uid, gid, writer });
    Identity { join: None, maps, credentials: Credentials::NamespaceRoot, run_as }
}

fn join(path: &std::path::Path) -> Result<Identity> {
    let namespace = open("linux.namespaces: user", path)?;
    let own = open("the own user namespace", std::path::Path::new("/proc/self/ns/user"))?;
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
    if inode(&namespace).ok() == inode(&own).ok() {
        // It can't be joined again, and a namespace of its own below it is what a sandbox has without a configuration.
        return new_namespace();
    }
    let (uid, gid) = user_namespace_maps(namespace.as_fd())
        .context(|| format!("joining linux.namespaces: user with path {}", path.display()))?;
    // The sandbox sets itself up as root of its namespace.
    if !contains(&uid, 0) || !contains(&gid, 0) {
        return Err(Error::Invalid(format!("the user namespace {} has no root", path.display())));
    }
    let run_as = run_as(&uid, &gid);
    Ok(Identity { join: Some(namespace), maps: None, credentials: Credentials::NamespaceRoot, run_as })
}

/// Nobody, if there is such a user.
fn run_as(uid: &[IdMap], gid: &[IdMap]) -> RunAs {
    if contains(uid, NOBODY) && contains(gid, NOBODY) { RunAs::Nobody } else { RunAs::Creator }
}

/// The maps of this process's user namespace.
pub(crate) fn own_maps() -> Result<(Vec<IdMap>, Vec<IdMap>)> {
    let read = |path: &str| fs::read_to_string(path).context(|| format!("reading {path}"));
    Ok((IdMap::parse_all(&read("/proc/self/uid_map")?), IdMap::parse_all(&read("/proc/self/gid_map")?)))
}

/// Whether `id` is mapped.
pub(crate) fn contains(maps: &[IdMap], id: u32) -> bool {
    maps.iter().any(|map| map.contains(id))
}

/// The same ids, mapped to themselves.
fn identity(maps: &[IdMap]) -> Vec<IdMap> {
    maps.iter().map(|map| IdMap { outside: map.inside, ..*map }).collect()
}

/// Whether this process is in another user namespace than the host's first.
#[must_use]
pub fn in_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    !map.split_whitespace().eq(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_turned_to_identity() {
        let host = IdMap::parse_all("         0          0 4294967295\n");
        assert!(contains(&host, NOBODY));
        assert_eq!(identity(&host), host);
        let nested = IdMap::parse_all("0 1000 1\n1 100000 65535\n");
        assert_eq!(run_as(&nested, &host), RunAs::Nobody);
        assert_eq!(identity(&nested), IdMap::parse_all("0 0 1\n1 1 65535\n"));
        assert_eq!(run_as(&nested, &IdMap::parse_all("0 1000 1\n")), RunAs::Creator);
    }

    #[test]
    fn who_writes_the_maps() {
        let remapped = IdMap::parse_all("0 100000 65536\n");
        let identity = mapped(remapped.clone(), remapped);
        assert_eq!(identity.credentials, Credentials::NamespaceRoot);
        let writer = identity.maps.unwrap().writer;
        if rustix::process::geteuid().is_root() {
            assert_eq!(writer, MapWriter::Privileged);
        } else {
            assert_eq!(writer, MapWriter::Programs);
        }
    }
}
