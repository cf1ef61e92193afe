//! Id-mapped mounts: `uidMappings` and `gidMappings` of a mount, and the options `idmap` and `ridmap`.

use moat_host::mounts::IdMapped;
use moat_host::spawn::IdMap;
use oci_spec::runtime::{Linux, LinuxIdMapping, Mount};

use crate::error::{Error, Result};
use crate::host_tree::MountIds;

/// How a bind mount is to show ids; `option` is what its options say. Without maps of its own it has the container's.
pub(super) fn of(mount: &Mount, option: Option<IdMapped>, linux: Option<&Linux>) -> Result<Option<MountIds>> {
    let own = (maps(mount.uid_mappings()), maps(mount.gid_mappings()));
    let of_container = || linux.map(|linux| (maps(linux.uid_mappings()), maps(linux.gid_mappings())));
    let shown = mount.destination().display();
    let (uid, gid) = match (own, option) {
        ((uid, gid), None) if uid.is_empty() && gid.is_empty() => return Ok(None),
        ((uid, gid), Some(_)) if uid.is_empty() && gid.is_empty() => of_container().unwrap_or_default(),
        (own, _) => own,
    };
    if uid.is_empty() || gid.is_empty() {
        let why = "an id-mapped mount needs uidMappings and gidMappings, its own or the container's";
        return Err(Error::Invalid(format!("mounts: {shown}: {why}")));
    }
    Ok(Some(MountIds { uid, gid, how_far: option.unwrap_or(IdMapped::Mount) }))
}

fn maps(mappings: &Option<Vec<LinuxIdMapping>>) -> Vec<IdMap> {
    let of = |m: &LinuxIdMapping| IdMap { inside: m.container_id(), outside: m.host_id(), count: m.size() };
    mappings.iter().flatten().map(of).filter(|map| map.count > 0).collect()
}
