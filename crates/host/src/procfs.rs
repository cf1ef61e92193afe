//! The procfs of the sandbox's own pid namespace, by a donated descriptor: the host's word about guest processes.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use moat_abi::{Errno, Result};
use rustix::fs::{Mode, OFlags, openat};

use crate::spawn::IdMap;

/// The directory, or what is remembered of one that will not be there: see [`go_without`].
static DIR: OnceLock<Result<OwnedFd, String>> = OnceLock::new();

/// Sets the directory; to be called before anything here is asked. Without a call it is /proc as this process sees it.
pub fn set_dir(dir: OwnedFd) {
    // A second one would be the same file system.
    let _ = DIR.set(Ok(dir));
}

/// Says that there will be none, and remembers of /proc what is needed all the same and does not change.
pub fn go_without() {
    let _ = DIR.set(Err(special_mappings().unwrap_or_default()));
}

/// Lines of /proc/self/maps about this process's `[vdso]` and `[vvar]`, which stay where they are.
///
/// # Errors
/// Those of open(2), if nothing is remembered.
pub fn special_mappings() -> io::Result<String> {
    if let Some(Err(text)) = DIR.get()
        && !text.is_empty()
    {
        return Ok(text.clone());
    }
    let text = std::fs::read_to_string("/proc/self/maps")?;
    Ok(text.lines().filter(|line| line.contains("[v")).flat_map(|line| [line, "\n"]).collect())
}

pub(crate) fn dir() -> Option<&'static OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let open = || rustix::fs::open("/proc", flags, Mode::empty()).map_err(|_| String::new());
    DIR.get_or_init(open).as_ref().ok()
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

/// What the host knows of the pages of process `pid`: a word for each (/proc/PID/pagemap), see [`page`].
///
/// # Errors
/// As [`open_memory`].
pub fn open_pagemap(pid: i32) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(dir().ok_or(Errno::EFAULT)?, format!("{pid}/pagemap"), flags, Mode::empty())?.into())
}

/// Bits of a word of [`open_pagemap`].
pub mod page {
    /// It is in memory.
    pub const PRESENT: u64 = 1 << 63;
    /// It is in swap.
    pub const SWAPPED: u64 = 1 << 62;
    /// It is a file's, or shared memory.
    pub const FILE: u64 = 1 << 61;
}

/// Opens the memory of process `pid` (/proc/PID/mem) for reading, whatever its protection.
///
/// # Errors
/// As [`open_memory`].
pub fn open_memory_to_read(pid: i32) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    Ok(openat(dir().ok_or(Errno::EFAULT)?, format!("{pid}/mem"), flags, Mode::empty())?.into())
}

/// Resident bytes of process `pid`, and those of them that show files (proc_pid_statm(5)).
///
/// `None` if the process is gone or the sandbox has no procfs.
#[must_use]
pub fn resident_bytes(pid: i32) -> Option<(u64, u64)> {
    let text = read(&format!("{pid}/statm"))?;
    let mut pages = text.split_ascii_whitespace().map(str::parse::<u64>);
    let (_size, resident, files) = (pages.next()?, pages.next()?.ok()?, pages.next()?.ok()?);
    Some((resident.checked_mul(4096)?, files.checked_mul(4096)?))
}

/// Opens what the scheduler has counted of thread `tid` (/proc/TID/schedstat). The file stays that thread's, whoever has the number
/// later; `None` if the thread is gone, or the sandbox has no procfs.
#[must_use]
pub fn open_schedstat(tid: i32) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    openat(dir()?, format!("{tid}/schedstat"), flags, Mode::empty()).ok().map(File::from)
}

/// CPU time in nanoseconds by a file of [`open_schedstat`] (its first word).
///
/// While the thread runs the host brings it up to date at its timer's ticks. `None` if the thread is gone, or the host counts no such
/// times.
#[must_use]
pub fn scheduled_ns(schedstat: &File) -> Option<u64> {
    let mut buf = [0; 64];
    let n = schedstat.read_at(&mut buf, 0).ok()?;
    str::from_utf8(buf.get(..n)?).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

/// CPU time of thread `tid` in nanoseconds, as [`scheduled_ns`].
#[must_use]
pub fn cpu_time_ns(tid: i32) -> Option<u64> {
    scheduled_ns(&open_schedstat(tid)?)
}

/// The most bytes that process `pid` has had resident at a time (VmHWM of proc_pid_status(5)).
///
/// `None` if the process is gone or the sandbox has no procfs.
#[must_use]
pub fn peak_resident_bytes(pid: i32) -> Option<u64> {
    let text = read(&format!("{pid}/status"))?;
    let kib = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?.split_ascii_whitespace().next()?;
    kib.parse::<u64>().ok()?.checked_mul(1024)
}

/// A map of this process's user namespace, `uid_map` or `gid_map`: the ids outside are those of the namespace above.
#[must_use]
pub fn own_id_map(file: &str) -> Option<Vec<IdMap>> {
    read(&format!("self/{file}")).map(|text| IdMap::parse_all(&text))
}

/// Whether the process of a pidfd is no more: it has ended, and its parent has reaped it (`Pid: -1`, proc_pid_fdinfo(5)). It may be
/// of any pid namespace. A sandbox without a procfs can't know, and takes it for gone.
#[must_use]
pub fn is_reaped(pidfd: BorrowedFd<'_>) -> bool {
    let text = read(&format!("self/fdinfo/{}", pidfd.as_raw_fd()));
    text.is_none_or(|text| text.lines().any(|line| line.strip_prefix("Pid:").is_some_and(|pid| pid.trim() == "-1")))
}

/// Most bytes of a file of /proc/net.
const MOST_NET_BYTES: u64 = 16 << 20;

/// A file of the network namespace that the sandbox process lives in, proc_pid_net(5).
///
/// `None` if there is no such file or the sandbox has no procfs.
#[must_use]
pub fn net_file(name: &str) -> Option<Vec<u8>> {
    let path = format!("self/net/{name}");
    let fd = openat(dir()?, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    let mut text = Vec::new();
    File::from(fd).take(MOST_NET_BYTES).read_to_end(&mut text).ok()?;
    Some(text)
}

/// A thread of the calling process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnThread {
    /// Its id.
    pub tid: i32,
    /// Its name.
    pub name: String,
    /// One letter, as ps(1) has it.
    pub state: char,
    /// What it sleeps in, as far as the host tells.
    pub wchan: String,
}

/// The threads of the calling process; none if the sandbox has no procfs.
#[must_use]
pub fn own_threads() -> Vec<OwnThread> {
    list_own_threads().unwrap_or_default()
}

fn list_own_threads() -> Option<Vec<OwnThread>> {
    let tasks = format!("{}/task", rustix::process::getpid().as_raw_nonzero());
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let dir = openat(dir()?, &tasks, flags, Mode::empty()).ok()?;
    let mut threads = Vec::new();
    for entry in rustix::fs::Dir::new(dir).ok()? {
        let Some(tid) = entry.ok().and_then(|e| e.file_name().to_str().ok()?.parse().ok()) else { continue };
        let of = |file: &str| read(&format!("{tasks}/{tid}/{file}")).map(|text| text.trim_end().to_owned());
        let state = of("stat").and_then(|s| s.rsplit_once(") ")?.1.chars().next()).unwrap_or('?');
        let (name, wchan) = (of("comm").unwrap_or_default(), of("wchan").unwrap_or_default());
        threads.push(OwnThread { tid, name, state, wchan });
    }
    Some(threads)
}

/// The processes of the sandbox's pid namespace; none if it has no procfs.
#[must_use]
pub fn processes() -> Vec<i32> {
    let list = || {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let root = openat(dir()?, ".", flags, Mode::empty()).ok()?;
        let names = rustix::fs::Dir::new(root).ok()?.filter_map(|entry| Some(entry.ok()?.file_name().to_owned()));
        Some(names.filter_map(|name| name.to_str().ok()?.parse().ok()).collect())
    };
    list().unwrap_or_default()
}

/// The text of a small file.
pub(crate) fn read(path: &str) -> Option<String> {
    let fd = openat(dir()?, path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty()).ok()?;
    let mut buf = [0; 4096];
    let n = rustix::io::read(fd, &mut buf).ok()?;
    Some(String::from_utf8_lossy(buf.get(..n)?).into_owned())
}
