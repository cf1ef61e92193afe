//! The procfs of the sandbox's own pid namespace, by a donated descriptor: the host's word about guest processes.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use moat_abi::{Errno, Result};
use rustix::fs::{Mode, OFlags, openat};

static DIR: OnceLock<Option<OwnedFd>> = OnceLock::new();

/// Sets the directory; to be called before anything here is asked. Without a call it is /proc as this process sees it.
pub fn set_dir(dir: OwnedFd) {
    // A second one would be the same file system.
    let _ = DIR.set(Some(dir));
}

fn dir() -> Option<&'static OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    DIR.get_or_init(|| rustix::fs::open("/proc", flags, Mode::empty()).ok()).as_ref()
}

/// The number of the directory's descriptor, if there is one.
#[must_use]
pub fn dir_number() -> Option<RawFd> {
    dir().map(AsRawFd::as_raw_fd)
}

/// Opens the memory of process `pid` (/proc/PID/mem) for writing, whatever its protection.
///
/// # Errors
/// EFAULT if there is no procfs; those of open(2).
pub fn open_memory(pid: i32) -> Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(dir().ok_or(Errno::EFAULT)?, format!("{pid}/mem"), flags, Mode::empty())?)
}

/// Resident bytes of process `pid`, and those of them that show files (proc_pid_statm(5)).
///
/// `None` if the process is gone or the sandbox has no procfs.
#[must_use]
pub fn resident_bytes(pid: i32) -> Option<(u64, u64)> {
    let path = format!("{pid}/statm");
    let fd = openat(dir()?, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    let mut buf = [0; 256];
    let n = rustix::io::read(fd, &mut buf).ok()?;
    let text = std::str::from_utf8(buf.get(..n)?).ok()?;
    let mut pages = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (_size, resident, files) = (pages.next()?, pages.next()?.ok()?, pages.next()?.ok()?);
    Some((resident.checked_mul(4096)?, files.checked_mul(4096)?))
}
