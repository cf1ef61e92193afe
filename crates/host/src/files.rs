//! Host files: reads that do not wait, directory listings, opening below a directory.

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use moat_abi::fs::{DIRENT64_HEADER, FileType};
use moat_abi::{Errno, Result};
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::{IoSliceMut, ReadWriteFlags};

/// Reads at `offset` what is in the host's page cache.
///
/// # Errors
/// EAGAIN if the read would wait for the disk, or if the file system can't say: read it where blocking is allowed.
pub fn read_at_nowait(fd: impl AsFd, buf: &mut [u8], offset: u64) -> Result<usize> {
    match rustix::io::preadv2(fd, &mut [IoSliceMut::new(buf)], offset, ReadWriteFlags::NOWAIT) {
        Err(rustix::io::Errno::OPNOTSUPP) => Err(Errno::EAGAIN),
        result => Ok(result?),
    }
}

/// How often [`open_beneath`] tries when a rename anywhere on the host raced with its walk.
const OPEN_ATTEMPTS: u32 = 32;

/// Opens `path` below `dir`: no symbolic link, no `..` above `dir`, no magic link and no other mount is passed.
///
/// # Errors
/// ELOOP for a symbolic link, EXDEV for a way out, EAGAIN if renames keep racing with the walk, and those of open(2).
pub fn open_beneath(dir: impl AsFd, path: &CStr, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    for _ in 0..OPEN_ATTEMPTS {
        match rustix::fs::openat2(&dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(rustix::io::Errno::AGAIN) => {}
            result => return Ok(result?),
        }
    }
    Err(Errno::EAGAIN)
}

/// An entry of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// Inode number.
    pub ino: u64,
    /// The position after this entry, for lseek(2) on the directory.
    pub next_offset: i64,
    /// Its type, if the file system says it.
    pub file_type: Option<FileType>,
    /// Its name, without a NUL or a slash; `.` and `..` come too.
    pub name: &'a [u8],
}

/// Fills `buf` with the next entries of directory `dir`; gives the bytes filled, 0 at the end.
///
/// # Errors
/// EINVAL if `buf` is too small for one entry, ENOTDIR if it is no directory, ENOENT if it has been removed.
pub fn getdents(dir: impl AsFd, buf: &mut [u8]) -> Result<usize> {
    use std::os::fd::AsRawFd;
    // SAFETY: `buf` is live and exclusively borrowed, and its length is given.
    let n = unsafe { libc::syscall(libc::SYS_getdents64, dir.as_fd().as_raw_fd(), buf.as_mut_ptr(), buf.len()) };
    crate::result::check(n).map(|n| n as usize)
}

/// The entries in what [`getdents`] filled. Ends at the first record that is malformed.
pub fn entries(filled: &[u8]) -> impl Iterator<Item = DirEntry<'_>> {
    let mut rest = filled;
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(*rest.get(16..18)?.first_chunk()?));
        let record = rest.get(..len).filter(|r| r.len() > DIRENT64_HEADER)?;
        rest = &rest[len..];
        let name = &record[DIRENT64_HEADER..];
        Some(DirEntry {
            ino: u64::from_ne_bytes(*record.first_chunk()?),
            next_offset: i64::from_ne_bytes(*record[8..].first_chunk()?),
            file_type: FileType::from_dirent_type(record[18]),
            name: &name[..name.iter().position(|b| *b == 0)?],
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::fs::File;

    #[test]
    fn listing_agrees_with_std() {
        let dir = File::open("/proc/self/fdinfo/..").expect("open");
        let mut names = BTreeSet::new();
        let mut buf = [0; 256];
        loop {
            let n = getdents(&dir, &mut buf).expect("getdents");
            if n == 0 {
                break;
            }
            names.extend(entries(&buf[..n]).map(|e| e.name.to_vec()));
        }
        assert!(names.remove(&b"."[..]) && names.remove(&b".."[..]));
        let std: BTreeSet<_> = std::fs::read_dir("/proc/self")
            .expect("read_dir")
            .map(|e| e.expect("entry").file_name().into_encoded_bytes())
            .collect();
        assert_eq!(names, std);
    }

    #[test]
    fn malformed_records_end_the_listing() {
        assert_eq!(entries(&[0; 64]).count(), 0);
        assert_eq!(entries(&[0xff; 64]).count(), 0);
        assert_eq!(entries(&[1; 5]).count(), 0);
    }

    #[test]
    fn open_beneath_stays_beneath() {
        let dir = File::open("/proc/self").expect("open");
        let open = |p| open_beneath(&dir, p, OFlags::RDONLY, Mode::empty()).map(drop);
        assert_eq!(open(c"status"), Ok(()));
        assert_eq!(open(c"../self/status"), Err(Errno::EXDEV));
        assert_eq!(open(c"exe"), Err(Errno::ELOOP));
        assert_eq!(open(c"/etc/passwd"), Err(Errno::EXDEV));
    }

    #[test]
    fn nowait_reads_what_is_cached() {
        let file = File::open("/proc/self/exe").expect("open");
        let mut buf = [0; 4];
        std::os::unix::fs::FileExt::read_at(&file, &mut buf, 0).expect("read");
        match read_at_nowait(&file, &mut buf, 0) {
            Ok(4) => assert_eq!(&buf, b"\x7fELF"),
            Err(Errno::EAGAIN) => {}
            other => panic!("{other:?}"),
        }
    }
}
