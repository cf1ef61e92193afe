//! [`AtimeRule`]: when a read is an access.

use moat_abi::time::Timespec;

/// Whether a read sets the access time (`atime_needs_update`): by O_NOATIME and the flags of the mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtimeRule {
    /// It does not.
    Never,
    /// If the file was changed since it was last read, or that is a day ago: relatime.
    Relative,
    /// Always: strictatime.
    Always,
}

impl AtimeRule {
    /// Whether a read at `now` sets the access time of a file with these times.
    #[must_use]
    pub fn wants(self, atime: Timespec, mtime: Timespec, ctime: Timespec, now: Timespec) -> bool {
        let key = |t: Timespec| (t.tv_sec, t.tv_nsec);
        match self {
            AtimeRule::Never => false,
            AtimeRule::Always => key(atime) != key(now),
            AtimeRule::Relative => {
                key(atime) <= key(mtime)
                    || key(atime) <= key(ctime)
                    || now.tv_sec.saturating_sub(atime.tv_sec) >= 24 * 3600
            }
        }
    }
}
