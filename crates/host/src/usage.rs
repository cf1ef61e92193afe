//! Memory in use, by the host's word: of processes in the sandbox's procfs, and of files in memory that this process holds.

use std::collections::BTreeSet;

use libc::c_int;
use rustix::fs::{OFlags, openat};

use crate::procfs;

/// Bytes of memory of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// Anonymous memory; its part of what it shares with others since a fork.
    pub anonymous: u64,
    /// Mapped files; its part.
    pub file: u64,
    /// Mapped files in memory; its part.
    pub shared: u64,
    /// Swapped out; its part.
    pub swap: u64,
    /// Page tables.
    pub page_tables: u64,
}

impl ProcessMemory {
    /// Adds another process's.
    pub fn add(&mut self, other: &ProcessMemory) {
        self.anonymous = self.anonymous.saturating_add(other.anonymous);
        self.file = self.file.saturating_add(other.file);
        self.shared = self.shared.saturating_add(other.shared);
        self.swap = self.swap.saturating_add(other.swap);
        self.page_tables = self.page_tables.saturating_add(other.page_tables);
    }
}

/// What process `pid` has in memory (smaps_rollup and VmPTE, proc_pid_smaps(5), proc_pid_status(5)). Takes the host as long as the process
/// has pages.
///
/// `None` if the process is gone or the sandbox has no procfs.
#[must_use]
pub fn memory_of(pid: i32) -> Option<ProcessMemory> {
    let status = procfs::read(&format!("{pid}/status"))?;
    let of_status = |key| kib_field(&status, key);
    // A zombie has no memory, and no such lines.
    let page_tables = of_status("VmPTE:").unwrap_or(0);
    let rollup = procfs::read(&format!("{pid}/smaps_rollup")).unwrap_or_default();
    let of_rollup = |key| kib_field(&rollup, key);
    Some(match of_rollup("Pss_Anon:") {
        Some(anonymous) => ProcessMemory {
            anonymous,
            file: of_rollup("Pss_File:").unwrap_or(0),
            shared: of_rollup("Pss_Shmem:").unwrap_or(0),
            swap: of_rollup("SwapPss:").unwrap_or(0),
            page_tables,
        },
        // Shared pages then count in each.
        None => ProcessMemory {
            anonymous: of_status("RssAnon:").unwrap_or(0),
            file: of_status("RssFile:").unwrap_or(0),
            shared: of_status("RssShmem:").unwrap_or(0),
            swap: of_status("VmSwap:").unwrap_or(0),
            page_tables,
        },
    })
}

/// The bytes of a line "KEY   N kB".
fn kib_field(text: &str, key: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(key))?;
    value.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// Bytes of the files without a name in memory, memfds and their like, that this process has open, each counted once.
///
/// `None` if the sandbox has no procfs.
#[must_use]
pub fn memfd_bytes() -> Option<u64> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = format!("{}/fd", rustix::process::getpid().as_raw_nonzero());
    let dir = openat(procfs::dir()?, path, flags, rustix::fs::Mode::empty()).ok()?;
    let (mut seen, mut sum) = (BTreeSet::new(), 0u64);
    for entry in rustix::fs::Dir::new(dir).ok()? {
        let Some(fd) = entry.ok().and_then(|e| e.file_name().to_str().ok()?.parse().ok()) else { continue };
        if let Some((file, bytes)) = memfd(fd)
            && seen.insert(file)
        {
            sum = sum.saturating_add(bytes);
        }
    }
    Some(sum)
}

/// Device, inode number and bytes of what descriptor `fd` is, if it is such a file. It may have been closed, or be another's by now:
/// then that one is looked at.
fn memfd(fd: c_int) -> Option<((u64, u64), u64)> {
    // SAFETY: plain data, for which zeros are a value; the calls below fill it in.
    let (mut stat, mut fs) = unsafe { (std::mem::zeroed::<libc::stat>(), std::mem::zeroed::<libc::statfs>()) };
    // SAFETY: `stat` is exclusively borrowed and of the type that the call writes; the number need not be open.
    if unsafe { libc::fstat(fd, &raw mut stat) } != 0
        || stat.st_nlink != 0
        || stat.st_mode & libc::S_IFMT != libc::S_IFREG
    {
        return None;
    }
    // SAFETY: as above.
    if unsafe { libc::fstatfs(fd, &raw mut fs) } != 0 || fs.f_type != libc::TMPFS_MAGIC {
        return None;
    }
    Some(((stat.st_dev, stat.st_ino), u64::try_from(stat.st_blocks).ok()?.checked_mul(512)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_memory_and_memfds_are_seen() {
        let own = std::process::id().cast_signed();
        let before = memory_of(own).unwrap();
        let block = std::hint::black_box(vec![1u8; 32 << 20]);
        let after = memory_of(own).unwrap();
        assert!(after.anonymous >= before.anonymous + (30 << 20), "{after:?} after {before:?}");
        assert!(after.page_tables > 0 && after.file > 0, "{after:?}");
        drop(block);
        assert_eq!(memory_of(i32::MAX), None);

        let before = memfd_bytes().unwrap();
        let fd = rustix::fs::memfd_create("usage", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let twice = fd.try_clone().unwrap();
        rustix::io::pwrite(&fd, &[1; 1 << 20], 0).unwrap();
        assert!(memfd_bytes().unwrap() >= before + (1 << 20));
        drop((fd, twice));
    }

    #[test]
    fn fields_are_found_or_not() {
        let text = "Rss:   12 kB\nPss_Anon:     3 kB\nBad: x kB\nBig: 99999999999999999999 kB\n";
        assert_eq!(
            ["Pss_Anon:", "Rss:", "Bad:", "Big:", "No:"].map(|key| kib_field(text, key)),
            [Some(3072), Some(12288), None, None, None]
        );
    }
}
