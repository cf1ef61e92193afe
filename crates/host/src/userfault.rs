//! [`WriteWatch`]: which pages of another process have been written to.
//!
//! By userfaultfd(2) with asynchronous write protection, and PAGEMAP_SCAN of `/proc/PID/pagemap` (both Linux 6.7). A process makes the
//! descriptor for its own memory, and who has it protects pages there. The first write to a protected page takes the protection away,
//! which nobody waits for and the process does not notice; the scan tells which pages are protected still.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use moat_abi::{Errno, Result};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::procfs;
use crate::result::check;

/// What userfaultfd(2) is called with: O_CLOEXEC | `UFFD_USER_MODE_ONLY`, for which no privilege is needed.
pub const FLAGS: u64 = 0o2_000_000 | 1;

/// Requests of ioctl(2) that a [`WriteWatch`] makes (linux/userfaultfd.h, linux/fs.h), for seccomp filters.
pub const REQUESTS: [u64; 5] = [UFFDIO_API, UFFDIO_REGISTER, UFFDIO_UNREGISTER, UFFDIO_WRITEPROTECT, PAGEMAP_SCAN];

const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_UNREGISTER: u64 = 0x8010_aa01;
const UFFDIO_WRITEPROTECT: u64 = 0xc018_aa06;
const PAGEMAP_SCAN: u64 = 0xc060_6610;

const UFFD_API: u64 = 0xaa;
const UFFD_FEATURE_WP_ASYNC: u64 = 1 << 15;
const UFFDIO_REGISTER_MODE_WP: u64 = 2;
const UFFDIO_WRITEPROTECT_MODE_WP: u64 = 1;

/// Bits of [`Region::categories`](RawRegion): `PAGE_IS_*`.
const WATCHED: u64 = 1;
const WRITTEN: u64 = 1 << 1;
const PRESENT: u64 = 1 << 3;
const SWAPPED: u64 = 1 << 4;

/// Regions that one scan tells of.
const REGIONS: usize = 2048;
const REGIONS_U64: u64 = 2048;

/// Bytes that are protected, or given up, at a time: meanwhile the process waits where it maps memory or touches a page for the first time.
const PIECE: u64 = 16 << 20;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_writeprotect`.
#[repr(C)]
struct WriteProtect {
    range: Range,
    mode: u64,
}

/// `struct page_region`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct RawRegion {
    start: u64,
    end: u64,
    categories: u64,
}

/// `struct pm_scan_arg`.
#[repr(C)]
struct ScanArg {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    // An address in this process: pointers have the width of the host's `__u64`.
    vec: *mut RawRegion,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// What has become of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// They may have been written to since they were protected, or never were.
    Written,
    /// Nothing is there.
    Absent,
}

/// Sees which pages of a process are written to. Nothing is watched any more when it is dropped.
pub struct WriteWatch {
    faults: OwnedFd,
    map: File,
}

impl WriteWatch {
    /// Takes the descriptor `number` of process `pid`, which has it from userfaultfd(2).
    ///
    /// # Errors
    /// EINVAL from a host before 6.7; EBADF, ENOTTY if the process has something else there; EPERM if it may not be traced.
    pub fn take(pid: i32, number: u32) -> Result<WriteWatch> {
        // By a pidfd alone: there is no file below /proc that opens such a descriptor.
        let process = pidfd_open(Pid::from_raw(pid).ok_or(Errno::ESRCH)?, PidfdFlags::empty())?;
        // SAFETY: the call takes three numbers and touches no memory of this process.
        let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })?;
        let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        // SAFETY: the call has just made the descriptor, and nobody else knows of it.
        let faults = unsafe { OwnedFd::from_raw_fd(fd) };
        // Nothing can be asked of it before. What the host offers besides is not looked at.
        let mut api = Api { api: UFFD_API, features: UFFD_FEATURE_WP_ASYNC, ioctls: 0 };
        request(&faults, UFFDIO_API, &mut api)?;
        // The file stays that of this memory, whatever becomes of the process.
        Ok(WriteWatch { faults, map: procfs::open_pagemap(pid)? })
    }

    /// Makes the areas in `start..end` ones whose pages can be protected.
    ///
    /// # Errors
    /// EINVAL, ENOMEM if there are none; EBUSY if they are watched already.
    pub fn register(&self, start: u64, end: u64) -> Result<()> {
        let mode = UFFDIO_REGISTER_MODE_WP;
        request(&self.faults, UFFDIO_REGISTER, &mut Register { range: range(start, end), mode, ioctls: 0 })
    }

    /// Protects the pages of `start..end`.
    ///
    /// # Errors
    /// ENOENT where nothing was registered; EAGAIN while the process is being copied.
    pub fn protect(&self, start: u64, end: u64) -> Result<()> {
        let mode = UFFDIO_WRITEPROTECT_MODE_WP;
        in_pieces(start, end, |range| request(&self.faults, UFFDIO_WRITEPROTECT, &mut WriteProtect { range, mode }))
    }

    /// Gives `start..end` up.
    ///
    /// # Errors
    /// EINVAL, ENOMEM if nothing is there.
    pub fn unregister(&self, start: u64, end: u64) -> Result<()> {
        in_pieces(start, end, |mut range| request(&self.faults, UFFDIO_UNREGISTER, &mut range))
    }

    /// Tells of the pages of `start..end` that are not protected, in order. Those of which nothing is told are as they were when they
    /// were protected.
    ///
    /// # Errors
    /// ENOTTY, EINVAL from a host before 6.7.
    pub fn scan(&self, start: u64, end: u64, mut tell: impl FnMut(u64, u64, Fate)) -> Result<()> {
        let mut regions = vec![RawRegion::default(); REGIONS];
        let mut at = start;
        while at < end {
            let mut arg = ScanArg {
                // Of this structure, by which the host knows which version it is.
                size: 96,
                flags: 0,
                start: at,
                end,
                walk_end: 0,
                vec: regions.as_mut_ptr(),
                vec_len: REGIONS_U64,
                max_pages: 0,
                // Whatever is written to, is not there, or is no longer in an area that is watched.
                category_inverted: PRESENT | WATCHED,
                category_mask: 0,
                category_anyof_mask: WRITTEN | PRESENT | WATCHED,
                return_mask: WATCHED | WRITTEN | PRESENT | SWAPPED,
            };
            // SAFETY: the request reads and writes a `struct pm_scan_arg`, which lives through the call, and writes at most `vec_len`
            // regions to `vec`, which are live and used by nobody else.
            let told = unsafe { libc::ioctl(self.map.as_raw_fd(), PAGEMAP_SCAN, &raw mut arg) };
            let told = usize::try_from(check(i64::from(told))?).unwrap_or(0);
            for region in regions.iter().take(told) {
                let there = region.categories & (PRESENT | SWAPPED) != 0;
                // What is swapped out keeps its protection.
                let kept = region.categories & WATCHED != 0 && region.categories & WRITTEN == 0;
                match (there, kept) {
                    (false, _) => tell(region.start, region.end, Fate::Absent),
                    (true, false) => tell(region.start, region.end, Fate::Written),
                    (true, true) => {}
                }
            }
            // It got no further, with room for more: this would not end.
            if arg.walk_end <= at {
                return Err(Errno::EIO);
            }
            at = arg.walk_end;
        }
        Ok(())
    }
}

fn range(start: u64, end: u64) -> Range {
    Range { start, len: end.saturating_sub(start) }
}

fn in_pieces(start: u64, end: u64, mut each: impl FnMut(Range) -> Result<()>) -> Result<()> {
    let mut at = start;
    while at < end {
        let next = at.saturating_add(PIECE).min(end);
        each(range(at, next))?;
        at = next;
    }
    Ok(())
}

fn request<T>(fd: &OwnedFd, request: u64, argument: &mut T) -> Result<()> {
    // SAFETY: each request of this module reads and writes the structure that it is made with, which lives through the call.
    check(i64::from(unsafe { libc::ioctl(fd.as_raw_fd(), request, std::ptr::from_mut(argument)) })).map(drop)
}

const _: () = assert!(std::mem::size_of::<ScanArg>() == 96);

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd;

    use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous};

    use super::*;

    const PAGE: u64 = 4096;

    #[test]
    fn what_is_written_and_what_is_gone_is_told() {
        // SAFETY: userfaultfd(2) takes a number.
        let made = check(unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) });
        let Ok(number) = made else { return eprintln!("skipped: userfaultfd(2): {made:?}") };
        // SAFETY: just made.
        let own = unsafe { OwnedFd::from_raw_fd(i32::try_from(number).unwrap()) };
        let pid = rustix::process::getpid().as_raw_nonzero().get();
        let watch = match WriteWatch::take(pid, u32::try_from(own.as_raw_fd()).unwrap()) {
            Err(Errno::EINVAL) => return eprintln!("skipped: the host is older than 6.7"),
            taken => taken.unwrap(),
        };
        drop(own);
        let len = 64 * 4096;
        let flags = MapFlags::PRIVATE;
        // SAFETY: a new mapping, which nothing else uses.
        let memory = unsafe { mmap_anonymous(std::ptr::null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, flags) };
        let memory = memory.unwrap().cast::<u8>();
        let start = memory.expose_provenance() as u64;
        // SAFETY: inside the mapping.
        let write = |page: usize| unsafe { memory.add(page * 4096).write_volatile(1) };
        (0..32).for_each(write);
        watch.register(start, start + 64 * PAGE).unwrap();
        watch.protect(start, start + 32 * PAGE).unwrap();
        let told = || {
            let mut told = Vec::new();
            watch
                .scan(start, start + 64 * PAGE, |from, to, fate| {
                    told.push(((from - start) / PAGE, (to - start) / PAGE, fate));
                })
                .unwrap();
            told
        };
        assert_eq!(told(), [(32, 64, Fate::Absent)]);
        write(5);
        write(6);
        write(40);
        // SAFETY: pages 10 to 12 of the mapping, to which nothing refers.
        unsafe { madvise(memory.add(10 * 4096).cast(), 2 * 4096, Advice::LinuxDontNeed) }.unwrap();
        let want = [
            (5, 7, Fate::Written),
            (10, 12, Fate::Absent),
            (32, 40, Fate::Absent),
            (40, 41, Fate::Written),
            (41, 64, Fate::Absent),
        ];
        assert_eq!(told(), want);
        watch.protect(start + 5 * PAGE, start + 7 * PAGE).unwrap();
        assert_eq!(told()[0], want[1]);
        // What has not been protected for long counts as written.
        watch.unregister(start, start + 64 * PAGE).unwrap();
        assert_eq!(told()[0], (0, 10, Fate::Written));
        assert_eq!(
            WriteWatch::take(pid, u32::try_from(File::open("/dev/null").unwrap().into_raw_fd()).unwrap()).err(),
            Some(Errno::ENOTTY)
        );
    }
}
