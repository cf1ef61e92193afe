//! What /dev of a fresh container holds (OCI runtime specification, "Default Devices" and "Dev symbolic links").

use moat_abi::Result;
use moat_abi::fs::FileType;
use moat_abi::stat::DeviceId;
use moat_vfs::inode::{Inode, NewNode, NodeKind};

/// Name, major and minor number of the devices.
pub const NODES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// Name and target of the links.
pub const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Makes the nodes and links in `dir`, the root of an empty tmpfs, and the directories that get mounts of their own.
///
/// # Errors
/// Those of the file system; an entry that exists is left alone.
pub fn populate(dir: &dyn Inode) -> Result<()> {
    let make = |name: &str, mode, kind| match dir.create(name.as_bytes(), &NewNode { mode, uid: 0, gid: 0, kind }) {
        Ok(_) | Err(moat_abi::Errno::EEXIST) => Ok(()),
        Err(e) => Err(e),
    };
    for (name, major, minor) in NODES {
        let rdev = DeviceId::new(major, minor);
        make(name, 0o666, NodeKind::Device { file_type: FileType::CharDevice, rdev })?;
    }
    for (name, target) in LINKS {
        make(name, 0o777, NodeKind::Symlink(target.as_bytes()))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        make(name, 0o755, NodeKind::Dir)?;
    }
    Ok(())
}
