//! The memory of another process: process_vm_readv(2) and process_vm_writev(2).
//!
//! The host copies up to the first page that it can't reach. So a count below the length that was asked for is exact:
//! the byte after it is inaccessible. Both calls honour the protections of the other process's mappings.

use libc::{iovec, pid_t};
use moat_abi::{Errno, Result};
use rustix::mm::{MapFlags, ProtFlags};

/// Most ranges in one host call (`UIO_MAXIOV`).
pub const MAX_RANGES: usize = 1024;

/// A range of the other process's address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemoteRange {
    /// First address.
    pub addr: u64,
    /// Bytes.
    pub len: usize,
}

/// Copies from `addr` in process `pid` to `buf`; gives the bytes before the first inaccessible one.
///
/// # Errors
/// EFAULT if not one byte could be read, ESRCH if the process is gone, EPERM if it may not be traced by the caller.
pub fn read(pid: pid_t, addr: u64, buf: &mut [u8]) -> Result<usize> {
    transfer(buf.len(), |done| {
        let rest = &mut buf[done..];
        let local = iovec { iov_base: rest.as_mut_ptr().cast(), iov_len: rest.len() };
        let remote = remote(addr, done, rest.len())?;
        // SAFETY: `local` is the live, exclusively borrowed `rest`; `remote` is only interpreted in the other process.
        Ok(unsafe { libc::process_vm_readv(pid, &raw const local, 1, &raw const remote, 1, 0) })
    })
}

/// Copies `buf` to `addr` in process `pid`; gives the bytes before the first inaccessible one.
///
/// # Errors
/// As [`read`].
pub fn write(pid: pid_t, addr: u64, buf: &[u8]) -> Result<usize> {
    transfer(buf.len(), |done| {
        let rest = &buf[done..];
        let local = iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
        let remote = remote(addr, done, rest.len())?;
        // SAFETY: `local` is the live `rest`, which the call only reads; `remote` is only interpreted in the other
        // process.
        Ok(unsafe { libc::process_vm_writev(pid, &raw const local, 1, &raw const remote, 1, 0) })
    })
}

/// Copies from several ranges of process `pid` to `buf`, one after the other; gives the bytes before the first
/// inaccessible one.
///
/// # Errors
/// As [`read`]; EINVAL for more than [`MAX_RANGES`] ranges.
pub fn read_ranges(pid: pid_t, ranges: &[RemoteRange], buf: &mut [u8]) -> Result<usize> {
    let remote = remote_ranges(ranges, buf.len())?;
    let local = iovec { iov_base: buf.as_mut_ptr().cast(), iov_len: buf.len() };
    // SAFETY: `local` is the live, exclusively borrowed `buf`; `remote` holds as many elements as said and is only
    // interpreted in the other process.
    let n = unsafe { libc::process_vm_readv(pid, &raw const local, 1, remote.as_ptr(), remote.len() as u64, 0) };
    crate::result::check(n as i64).map(|n| n as usize)
}

/// Copies `buf` to several ranges of process `pid`, one after the other; gives the bytes before the first
/// inaccessible one.
///
/// # Errors
/// As [`read_ranges`].
pub fn write_ranges(pid: pid_t, ranges: &[RemoteRange], buf: &[u8]) -> Result<usize> {
    let remote = remote_ranges(ranges, buf.len())?;
    let local = iovec { iov_base: buf.as_ptr().cast_mut().cast(), iov_len: buf.len() };
    // SAFETY: `local` is the live `buf`, which the call only reads; `remote` holds as many elements as said and is only
    // interpreted in the other process.
    let n = unsafe { libc::process_vm_writev(pid, &raw const local, 1, remote.as_ptr(), remote.len() as u64, 0) };
    crate::result::check(n as i64).map(|n| n as usize)
}

/// Calls `step` with the bytes done until all are, or one fails.
fn transfer(len: usize, mut step: impl FnMut(usize) -> Result<isize>) -> Result<usize> {
    let mut done = 0;
    while done < len {
        match step(done).and_then(|n| usize::try_from(n).map_err(|_| crate::result::last_errno())) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(Errno::EINTR) => {}
            Err(e) if done == 0 => return Err(e),
            Err(_) => break,
        }
    }
    Ok(done)
}

fn remote(addr: u64, done: usize, len: usize) -> Result<iovec> {
    let addr = addr.checked_add(done as u64).ok_or(Errno::EFAULT)?;
    Ok(iovec { iov_base: std::ptr::without_provenance_mut(addr as usize), iov_len: len })
}

/// The host's ranges, cut where `len` bytes end.
fn remote_ranges(ranges: &[RemoteRange], len: usize) -> Result<Vec<iovec>> {
    if ranges.len() > MAX_RANGES {
        return Err(Errno::EINVAL);
    }
    let mut rest = len;
    let cut = |r: &RemoteRange| {
        let len = r.len.min(rest);
        rest -= len;
        remote(r.addr, 0, len)
    };
    ranges.iter().map(cut).collect()
}

/// Maps a page that is executed and is no file's, as guests do whose code is made while they run, and the platforms before them.
///
/// # Errors
/// EACCES where SELinux does not let this process (`execmem`).
pub fn try_executable() -> Result<()> {
    const PAGE: usize = 4096;
    let prot = ProtFlags::READ | ProtFlags::EXEC;
    // SAFETY: a fresh anonymous mapping at an address that the host picks.
    let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), PAGE, prot, MapFlags::PRIVATE) };
    let page = page?;
    // SAFETY: the mapping just made, which nothing refers to.
    let _ = unsafe { rustix::mm::munmap(page, PAGE) };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::MprotectFlags;

    const PAGE: usize = 4096;

    /// Three pages of this process, the last of which is inaccessible.
    struct Pages(*mut libc::c_void);

    impl Pages {
        fn new() -> Pages {
            // SAFETY: a fresh anonymous mapping at an address that the host picks.
            let p = unsafe {
                rustix::mm::mmap_anonymous(
                    std::ptr::null_mut(),
                    3 * PAGE,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE,
                )
            };
            let p = p.expect("mmap");
            // SAFETY: the last page of the mapping just made; nothing refers to it.
            unsafe { rustix::mm::mprotect(p.byte_add(2 * PAGE), PAGE, MprotectFlags::empty()) }.expect("mprotect");
            Pages(p)
        }

        fn addr(&self) -> u64 {
            self.0 as u64
        }
    }

    impl Drop for Pages {
        fn drop(&mut self) {
            // SAFETY: the mapping made in `new`, which nothing refers to.
            let _ = unsafe { rustix::mm::munmap(self.0, 3 * PAGE) };
        }
    }

    fn me() -> pid_t {
        rustix::process::getpid().as_raw_nonzero().get()
    }

    #[test]
    fn counts_are_exact_up_to_the_first_inaccessible_byte() {
        let pages = Pages::new();
        let end = pages.addr() + 2 * PAGE as u64;
        assert_eq!(write(me(), end - 5, b"hello world"), Ok(5));
        let mut buf = [0; 64];
        assert_eq!(read(me(), end - 5, &mut buf), Ok(5));
        assert_eq!(&buf[..6], b"hello\0");
        let mut large = vec![1; 3 * PAGE];
        assert_eq!(read(me(), pages.addr(), &mut large), Ok(2 * PAGE));
        assert_eq!(read(me(), end, &mut buf), Err(Errno::EFAULT));
        assert_eq!(write(me(), end, b"x"), Err(Errno::EFAULT));
        assert_eq!(read(me(), u64::MAX - 3, &mut buf), Err(Errno::EFAULT));
        assert_eq!(read(me(), end, &mut []), Ok(0));
    }

    #[test]
    fn ranges_are_gathered_in_order() {
        let pages = Pages::new();
        let at = |off: u64, len| RemoteRange { addr: pages.addr() + off, len };
        assert_eq!(write_ranges(me(), &[at(0, 2), at(100, 10)], b"abcdef"), Ok(6));
        let mut buf = [0; 8];
        assert_eq!(read_ranges(me(), &[at(100, 4), at(0, 2), at(2 * PAGE as u64, 2)], &mut buf), Ok(6));
        assert_eq!(&buf, b"cdefab\0\0");
        assert_eq!(read_ranges(me(), &vec![at(0, 0); MAX_RANGES + 1], &mut buf), Err(Errno::EINVAL));
    }

    #[test]
    fn a_process_that_is_gone() {
        let mut child = std::process::Command::new("true").spawn().expect("spawn");
        let pid = child.id() as pid_t;
        child.wait().expect("wait");
        assert_eq!(read(pid, 0x1000, &mut [0; 4]), Err(Errno::ESRCH));
    }
}
