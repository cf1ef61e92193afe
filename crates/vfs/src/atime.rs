//! [`AtimeRule`]: when a read is an access.

use std::sync::Arc;

use moat_abi::fs::OpenFlags;
use moat_abi::time::Timespec;

use crate::mount::{Mount, MountFlags};

/// Whether a read sets the access time, by O_NOATIME, the mount's flags and the relatime rule (`atime_needs_update`). Outlives the open
/// file: mappings of it go by the same rule.
pub struct AtimeRule {
    flags: OpenFlags,
    mount: Arc<Mount>,
}

impl AtimeRule {
    pub(crate) fn new(flags: OpenFlags, mount: Arc<Mount>) -> AtimeRule {
        AtimeRule { flags, mount }
    }

    /// Whether a read at `now` sets the access time of a file with these times.
    #[must_use]
    pub fn wants(&self, atime: Timespec, mtime: Timespec, ctime: Timespec, now: Timespec) -> bool {
        let flags = self.mount.flags();
        if self.flags.contains(OpenFlags::NOATIME) || flags.intersects(MountFlags::NOATIME | MountFlags::RDONLY) {
            return false;
        }
        let key = |t: Timespec| (t.tv_sec, t.tv_nsec);
        if flags.contains(MountFlags::STRICTATIME) {
            return key(atime) != key(now);
        }
        key(atime) <= key(mtime) || key(atime) <= key(ctime) || now.tv_sec.saturating_sub(atime.tv_sec) >= 24 * 3600
    }
}
