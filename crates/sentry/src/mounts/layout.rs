//! [`Layout`]: where a container's mounts are. A restore makes those of the configuration, so what processes have changed is to be found
//! before anything is stopped.

use moat_vfs::Path;
use moat_vfs::mount::{MountFlags, MountNamespace};

/// The mounts of a namespace at some time.
pub(crate) struct Layout(Vec<Placed>);

struct Placed {
    id: u64,
    fs_type: String,
    place: Vec<u8>,
    flags: MountFlags,
}

impl Layout {
    /// Those that are there.
    pub(crate) fn of(namespace: &MountNamespace) -> Layout {
        let placed = namespace.mounts().into_iter().map(|mount| Placed {
            id: mount.id(),
            fs_type: mount.fs().name().to_owned(),
            // Locks are for namespaces that are copied from this one.
            flags: mount.flags().difference(MountFlags::LOCKS),
            place: Path::root_of(mount).text(None),
        });
        Layout(placed.collect())
    }

    /// What `now` has otherwise.
    pub(crate) fn difference(&self, now: &Layout) -> Option<String> {
        let by_id = |of: &'_ Layout, id| of.0.iter().position(|mount| mount.id == id);
        let said = |mount: &Placed, what: &str| {
            let (kind, place) = (&mount.fs_type, String::from_utf8_lossy(&mount.place));
            format!("the {kind} at {place}, which a process has {what},")
        };
        if let Some(new) = now.0.iter().find(|mount| by_id(self, mount.id).is_none()) {
            return Some(said(new, "mounted"));
        }
        self.0.iter().find_map(|before| {
            // Ids are not given twice.
            let Some(mount) = by_id(now, before.id).and_then(|at| now.0.get(at)) else {
                return Some(said(before, "unmounted"));
            };
            if mount.place != before.place {
                return Some(said(mount, "moved"));
            }
            (mount.flags != before.flags).then(|| said(mount, "mounted again with other flags"))
        })
    }
}
