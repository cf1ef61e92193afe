//! fanotify(7): what becomes of files of the host, and whether a process of this sandbox did it.
//!
//! A group of an unprivileged process (Linux 5.13) tells of files and directories that were marked by descriptor, in terms of file
//! handles: [`FileHandle`]. It says the process that did it only if that is the one that reads, which is what tells a sandbox's own
//! changes from those of others; inotify(7) does not say it at all.

use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use moat_abi::{Errno, Result};
use zerocopy::FromBytes;

use crate::result::{check, retry};

/// What [`group`] asks for, and no filter need let pass more: events by handles of the directory with a name, and of the file.
pub const GROUP_FLAGS: u32 =
    libc::FAN_CLASS_NOTIF | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK | libc::FAN_REPORT_DFID_NAME | libc::FAN_REPORT_FID;

/// What [`mark`] and [`unmark`] ask for: the file itself, never a mount or a file system.
pub const MARK_FLAGS: [u32; 2] = [libc::FAN_MARK_ADD, libc::FAN_MARK_REMOVE];

/// AT_HANDLE_FID of name_to_handle_at(2) (Linux 6.5): a handle that nothing can be opened by.
const AT_HANDLE_FID: libc::c_int = 0x200;

/// What [`handle_of`] asks for: with a handle that names only, and before there were any.
pub const HANDLE_FLAGS: [libc::c_int; 2] = [libc::AT_EMPTY_PATH | AT_HANDLE_FID, libc::AT_EMPTY_PATH];

/// Both names of a rename in one event (Linux 5.17).
pub const RENAME: u64 = libc::FAN_RENAME;
/// About a directory; asks for events about directories at all.
pub const ONDIR: u64 = libc::FAN_ONDIR;
/// Asks for the events of a directory's entries.
pub const EVENT_ON_CHILD: u64 = libc::FAN_EVENT_ON_CHILD;
/// Events were lost.
pub const OVERFLOW: u64 = libc::FAN_Q_OVERFLOW;

/// Bytes of the longest handle: MAX_HANDLE_SZ.
const MOST_BYTES: usize = 128;

/// What tells a file from all others of the host: its file system, and its handle there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FileHandle {
    fsid: [u8; 8],
    kind: i32,
    bytes: Box<[u8]>,
}

impl FileHandle {
    /// Id of the file system, kind and bytes of the handle.
    #[must_use]
    pub fn parts(&self) -> ([u8; 8], i32, &[u8]) {
        (self.fsid, self.kind, &self.bytes)
    }

    /// What [`FileHandle::parts`] gave in another process.
    #[must_use]
    pub fn from_parts(fsid: [u8; 8], kind: i32, bytes: &[u8]) -> FileHandle {
        FileHandle { fsid, kind, bytes: bytes.into() }
    }
}

/// An entry of a directory.
pub type Entry = (FileHandle, Box<[u8]>);

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The bits of inotify(7), and those above.
    pub mask: u64,
    /// Done in the pid namespace of who reads.
    pub own: bool,
    /// The entry that it is about, as far as its directory is marked.
    pub entry: Option<Entry>,
    /// The new entry of a rename, as far as that one's directory is marked.
    pub renamed: Option<Entry>,
    /// The file that it is about.
    pub file: Option<FileHandle>,
}

/// Makes a group that does not block.
///
/// # Errors
/// EPERM before Linux 5.13; EMFILE beyond `fs.fanotify.max_user_groups`.
pub fn group() -> Result<OwnedFd> {
    // SAFETY: two numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_fanotify_init, GROUP_FLAGS, libc::O_RDONLY) })?;
    let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the call has just made it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn change(group: impl AsFd, flags: u32, file: impl AsFd, mask: u64) -> Result<()> {
    let (group, file) = (group.as_fd().as_raw_fd(), file.as_fd().as_raw_fd());
    let path = std::ptr::null::<libc::c_char>();
    // SAFETY: descriptors that are open, numbers and no path.
    check(unsafe { libc::syscall(libc::SYS_fanotify_mark, group, flags, mask, file, path) }).map(drop)
}

/// Adds `mask` to what is told of `file`, which is open for more than its path.
///
/// # Errors
/// ENOSPC beyond `fs.fanotify.max_user_marks`; EINVAL for bits that the host does not know; ENODEV, EOPNOTSUPP, EXDEV where its file
/// system can't; EACCES.
pub fn mark(group: impl AsFd, file: impl AsFd, mask: u64) -> Result<()> {
    change(group, libc::FAN_MARK_ADD, file, mask)
}

/// As [`mark`]; gives what is told: before Linux 5.17 the two names of a rename are events by themselves.
///
/// # Errors
/// As there.
pub fn mark_as_known(group: impl AsFd, file: impl AsFd, mask: u64) -> Result<u64> {
    match self::mark(&group, &file, mask) {
        Ok(()) => Ok(mask),
        // Two events then, which nothing holds together.
        Err(_) if mask & RENAME != 0 => {
            let mask = mask & !RENAME | libc::FAN_MOVED_FROM | libc::FAN_MOVED_TO;
            self::mark(group, file, mask).map(|()| mask)
        }
        Err(errno) => Err(errno),
    }
}

/// Takes `mask` from what is told of `file`.
///
/// # Errors
/// ENOENT if nothing is told.
pub fn unmark(group: impl AsFd, file: impl AsFd, mask: u64) -> Result<()> {
    change(group, libc::FAN_MARK_REMOVE, file, mask)
}

/// `struct file_handle` with room.
#[repr(C)]
struct RawHandle {
    len: u32,
    kind: i32,
    bytes: [u8; MOST_BYTES],
}

/// The handle of an open file.
///
/// # Errors
/// EOPNOTSUPP where its file system has none.
pub fn handle_of(file: impl AsFd) -> Result<FileHandle> {
    let stat = rustix::fs::fstatfs(&file)?;
    let mut fsid = [0; 8];
    // SAFETY: f_fsid is eight bytes without padding.
    let of_stat: [u8; 8] = unsafe { std::mem::transmute_copy(&stat.f_fsid) };
    fsid.copy_from_slice(&of_stat);
    let fd = file.as_fd().as_raw_fd();
    // A handle that names only is to be had of every file system; the other only of those that NFS can export.
    let mut failed = Errno::EOPNOTSUPP;
    for flags in HANDLE_FLAGS {
        let mut raw = RawHandle { len: u32::try_from(MOST_BYTES).unwrap_or(0), kind: 0, bytes: [0; MOST_BYTES] };
        let mut mount: libc::c_int = 0;
        let path = c"".as_ptr();
        // SAFETY: the path is a C string, the handle has the room that it says, both results are exclusively borrowed.
        let done = unsafe { libc::syscall(libc::SYS_name_to_handle_at, fd, path, &raw mut raw, &raw mut mount, flags) };
        match check(done) {
            Ok(_) => {
                let len = usize::try_from(raw.len).unwrap_or(usize::MAX);
                let bytes = raw.bytes.get(..len).ok_or(Errno::EOVERFLOW)?;
                return Ok(FileHandle { fsid, kind: raw.kind, bytes: bytes.into() });
            }
            Err(e) => failed = e,
        }
    }
    Err(failed)
}

/// Reads events into `buf` and gives them; none if nothing waits.
///
/// # Errors
/// Those of read(2).
pub fn read(group: impl AsFd, buf: &mut [u8]) -> Result<Vec<Event>> {
    read_raw(group, buf).map(parse)
}

fn read_raw(group: impl AsFd, buf: &mut [u8]) -> Result<&[u8]> {
    let fd = group.as_fd().as_raw_fd();
    // SAFETY: `buf` is exclusively borrowed and as long as it says.
    let got = retry(|| unsafe { libc::syscall(libc::SYS_read, fd, buf.as_mut_ptr(), buf.len()) });
    match got {
        Ok(len) => Ok(buf.get(..usize::try_from(len).unwrap_or(0)).unwrap_or_default()),
        Err(Errno::EAGAIN) => Ok(&[]),
        Err(e) => Err(e),
    }
}

/// Reads events into `buf` and gives those that this process has not done itself, for [`parse`] in another process; `None` if
/// nothing waits.
///
/// # Errors
/// Those of read(2).
pub fn read_of_others(group: impl AsFd, buf: &mut [u8]) -> Result<Option<Vec<u8>>> {
    let mut rest = read_raw(group, buf)?;
    if rest.is_empty() {
        return Ok(None);
    }
    let mut others = Vec::new();
    while let Some(len) = number::<u32>(rest, 0).and_then(|len| usize::try_from(len).ok()) {
        let Some(event) = rest.get(..len).filter(|_| len >= METADATA) else { break };
        // The host names nobody but the one who reads.
        if number::<i32>(event, PROCESS) == Some(0) {
            others.extend_from_slice(event);
        }
        rest = rest.get(len..).unwrap_or_default();
    }
    Ok(Some(others))
}

/// Bytes of `struct fanotify_event_metadata`.
const METADATA: usize = 24;
/// Where the process is in it.
const PROCESS: usize = 20;
/// Bytes of `struct fanotify_event_info_header`, of that with a file system's id, of the head of a `struct file_handle`.
const INFO_HEADER: usize = 4;
const INFO_FID: usize = INFO_HEADER + 8;
const HANDLE_HEADER: usize = 8;

fn number<T: FromBytes>(bytes: &[u8], at: usize) -> Option<T> {
    T::read_from_bytes(bytes.get(at..at.checked_add(size_of::<T>())?)?).ok()
}

/// What the host has written, as far as it can be read.
#[must_use]
pub fn parse(mut rest: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(len) = number::<u32>(rest, 0).and_then(|len| usize::try_from(len).ok()) {
        let Some(event) = rest.get(..len).filter(|_| len >= METADATA) else { break };
        events.extend(parse_event(event));
        rest = rest.get(len..).unwrap_or_default();
    }
    events
}

fn parse_event(bytes: &[u8]) -> Option<Event> {
    // Newer kernels may have longer heads.
    let head = usize::from(number::<u16>(bytes, 6)?);
    let mask = number::<u64>(bytes, 8)?;
    let own = number::<i32>(bytes, PROCESS)? != 0;
    let mut event = Event { mask, own, entry: None, renamed: None, file: None };
    let mut rest = bytes.get(head.max(METADATA)..)?;
    while let Some(len) = number::<u16>(rest, 2).map(usize::from) {
        let Some(info) = rest.get(..len).filter(|_| len >= INFO_HEADER) else { break };
        // What is of no kind known here says nothing that is asked for.
        if let Some((handle, name)) = parse_handle(info) {
            let name: Box<[u8]> = name.split(|b| *b == 0).next().unwrap_or_default().into();
            match *info.first()? {
                // The directory itself, which has no name there.
                libc::FAN_EVENT_INFO_TYPE_DFID_NAME if &*name == b"." => event.file = Some(handle),
                libc::FAN_EVENT_INFO_TYPE_DFID_NAME | libc::FAN_EVENT_INFO_TYPE_OLD_DFID_NAME => {
                    event.entry = Some((handle, name));
                }
                libc::FAN_EVENT_INFO_TYPE_NEW_DFID_NAME => event.renamed = Some((handle, name)),
                libc::FAN_EVENT_INFO_TYPE_FID | libc::FAN_EVENT_INFO_TYPE_DFID => event.file = Some(handle),
                _ => {}
            }
        }
        rest = rest.get(len..)?;
    }
    Some(event)
}

/// The handle of an information record, and what comes after it.
fn parse_handle(info: &[u8]) -> Option<(FileHandle, &[u8])> {
    let fsid = number(info, INFO_HEADER)?;
    let raw = info.get(INFO_FID..)?;
    let len = usize::try_from(number::<u32>(raw, 0)?).ok()?;
    let kind = number(raw, 4)?;
    let (bytes, name) = raw.get(HANDLE_HEADER..)?.split_at_checked(len)?;
    Some((FileHandle { fsid, kind, bytes: bytes.into() }, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Natively: own changes are told apart from those of a child, and names and handles are what they were.
    #[test]
    fn who_did_it_and_to_which_file() {
        let dir = std::env::temp_dir().join(format!("moat-fanotify-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let open = OwnedFd::from(std::fs::File::open(&dir).unwrap());
        let group = match group() {
            Ok(group) => group,
            Err(errno) => {
                eprintln!("skipped: {errno}");
                return;
            }
        };
        let create = u64::from(libc::IN_CREATE);
        mark(&group, &open, create | RENAME | ONDIR | EVENT_ON_CHILD).unwrap();
        let there = handle_of(&open).unwrap();
        std::fs::write(dir.join("own"), "").unwrap();
        std::fs::remove_file(dir.join("own")).unwrap();
        let mut buf = vec![0; 4096];
        let own = read(&group, &mut buf).unwrap();
        assert_eq!(own.len(), 1, "{own:?}");
        assert_eq!((own[0].mask, own[0].own), (create, true), "{own:?}");
        assert_eq!(own[0].entry, Some((there.clone(), b"own"[..].into())), "{own:?}");
        let script = format!("cd {} && mkdir a && mv a b && rmdir b", dir.display());
        assert!(std::process::Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
        let other = read(&group, &mut buf).unwrap();
        assert_eq!(other.len(), 2, "{other:?}");
        assert_eq!(other[1].mask, RENAME | ONDIR, "{other:?}");
        assert_eq!(other[1].renamed, Some((there, b"b"[..].into())), "{other:?}");
        unmark(&group, &open, create | RENAME).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn nonsense_is_no_event() {
        assert_eq!(parse(&[]), []);
        assert_eq!(parse(&[0; 64]), []);
        assert_eq!(parse(&[255; 64]), []);
        let mut short = [0_u8; METADATA];
        short[0] = 24;
        assert_eq!(parse(&short).len(), 1);
        // An information record that is longer than the event.
        let mut long = [0_u8; 40];
        (long[0], long[6], long[24], long[26]) = (40, 24, 2, 200);
        assert_eq!(parse(&long).len(), 1);
    }
}
