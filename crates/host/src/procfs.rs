//! The procfs of the sandbox's own pid namespace, by a donated descriptor: the host's word about guest processes.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::OnceLock;

use rustix::fs::{Mode, OFlags, openat};

static DIR: OnceLock<OwnedFd> = OnceLock::new();

/// Sets the directory; once, before the sandbox starts. Without one nothing is known.
pub fn set_dir(dir: OwnedFd) {
    // A second one would be the same file system.
    let _ = DIR.set(dir);
}

/// Resident bytes of process `pid`, and those of them that show files (proc_pid_statm(5)).
///
/// `None` if the process is gone or the sandbox has no procfs.
#[must_use]
pub fn resident_bytes(pid: i32) -> Option<(u64, u64)> {
    let path = format!("{pid}/statm");
    let fd = openat(DIR.get()?, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    let mut buf = [0; 256];
    let n = rustix::io::read(fd, &mut buf).ok()?;
    let text = std::str::from_utf8(buf.get(..n)?).ok()?;
    let mut pages = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (_size, resident, files) = (pages.next()?, pages.next()?.ok()?, pages.next()?.ok()?);
    Some((resident.checked_mul(4096)?, files.checked_mul(4096)?))
}

/// Most bytes of a file of /proc/net.
const MOST_NET_BYTES: u64 = 16 << 20;

/// A file of the network namespace that the sandbox process lives in, proc_pid_net(5).
///
/// `None` if there is no such file or the sandbox has no procfs.
#[must_use]
pub fn net_file(name: &str) -> Option<Vec<u8>> {
    let path = format!("self/net/{name}");
    let fd = openat(DIR.get()?, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    let mut text = Vec::new();
    File::from(fd).take(MOST_NET_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}
