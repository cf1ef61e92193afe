//! Copies between the sentry and guest memory.
//!
//! All are synchronous and hold no lock. Few bytes of the call that is just being made travel with it ([`moat_platform::parcel`]);
//! all others are copied by the host. EFAULT comes from the host process's page tables, so a copy sees exactly the
//! protections that the guest does. A range that leaves user space fails as a whole, as access_ok() has it.

use moat_abi::{Errno, Result};
use moat_platform::{GUEST_TOP, parcel};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use moat_abi::mman::ProtFlags;

use crate::{MemoryManager, PAGE_SIZE, UserAddr, UserPtr};

/// Bytes of a path-like string taken at a time.
const CSTR_CHUNK: usize = 256;

/// Reads NUL-terminated strings, each with what was copied for the one before if it lies there: the strings of an
/// environment cost a copy a page.
///
/// Memory is taken in aligned chunks of `CHUNK` bytes, a power of two up to the page size, so that a short string at the
/// end of a page costs one copy without a fault.
pub struct StringReader<'a, const CHUNK: usize> {
    mm: &'a MemoryManager,
    /// What was copied last: `buf[..len]`, from `start`.
    buf: [u8; CHUNK],
    start: u64,
    len: usize,
}

impl<'a, const CHUNK: usize> StringReader<'a, CHUNK> {
    /// Reads from `mm`.
    #[must_use]
    pub fn new(mm: &'a MemoryManager) -> Self {
        StringReader { mm, buf: [0; CHUNK], start: 0, len: 0 }
    }

    /// As [`MemoryManager::read_cstr`].
    ///
    /// # Errors
    /// As there.
    pub fn read(&mut self, addr: UserAddr, max: usize) -> Result<Vec<u8>> {
        // Apart from what is kept: the strings of an environment come by the hundred.
        let mut brought = [0; CSTR_CHUNK];
        let len = parcel::bytes_from(self.mm.space().host_pid(), addr.get(), &mut brought).min(max);
        if let Some(len) = brought.iter().take(len).position(|&b| b == 0) {
            // A thread can bring along what is above its memory, too: its own stub.
            check_range(addr, len)?;
            return Ok(brought[..len].to_vec());
        }
        let mut string = Vec::new();
        while string.len() < max {
            let left = max.saturating_sub(string.len());
            let chunk = self.from(addr.add(string.len() as u64)?)?;
            // The chunk may reach beyond what the caller allows.
            let chunk = chunk.get(..left).unwrap_or(chunk);
            if let Some(len) = chunk.iter().position(|&b| b == 0) {
                string.extend_from_slice(&chunk[..len]);
                return Ok(string);
            }
            string.extend_from_slice(chunk);
        }
        Err(Errno::ENAMETOOLONG)
    }

    /// The bytes from `at` to the end of its chunk, or of what of it can be read; at least one.
    fn from(&mut self, at: UserAddr) -> Result<&[u8]> {
        let size = CHUNK as u64;
        let start = at.get() & !(size - 1);
        let skip = usize::try_from(at.get() - start).map_err(|_| Errno::EFAULT)?;
        // Where a chunk ended early its rest is tried again: it may have been mapped since.
        if start != self.start || skip >= self.len {
            // Nothing is kept if the read fails.
            self.len = 0;
            self.len = self.mm.read_partial(UserAddr::new(start), &mut self.buf)?;
            self.start = start;
        }
        self.buf.get(skip..self.len).filter(|bytes| !bytes.is_empty()).ok_or(Errno::EFAULT)
    }
}

impl MemoryManager {
    /// Copies `buf.len()` bytes from `addr`.
    ///
    /// # Errors
    /// EFAULT if not all could be read; `buf` then holds a prefix.
    pub fn read_bytes(&self, addr: UserAddr, buf: &mut [u8]) -> Result<()> {
        let n = self.read_partial(addr, buf)?;
        if n == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies from `addr` up to the first byte that can't be read; gives the bytes copied.
    ///
    /// # Errors
    /// EFAULT if there was not one.
    pub fn read_partial(&self, addr: UserAddr, buf: &mut [u8]) -> Result<usize> {
        check_range(addr, buf.len())?;
        if buf.is_empty() {
            return Ok(0);
        }
        if parcel::read(self.space().host_pid(), addr.get(), buf) {
            return Ok(buf.len());
        }
        self.space().read(addr.get(), buf).map_err(gone_is_fault)
    }

    /// Copies from `addr` what the call has brought along of it, if that is `least` bytes, and what can be read else; gives the bytes copied.
    ///
    /// # Errors
    /// EFAULT if there was not one.
    pub fn read_known(&self, addr: UserAddr, buf: &mut [u8], least: usize) -> Result<usize> {
        let brought = parcel::bytes_from(self.space().host_pid(), addr.get(), buf);
        if brought < least.max(1) {
            return self.read_partial(addr, buf);
        }
        // A thread can bring along what is above its memory, too: its own stub.
        check_range(addr, brought)?;
        Ok(brought)
    }

    /// Copies `buf` to `addr`.
    ///
    /// # Errors
    /// EFAULT if not all could be written; a prefix then has been.
    pub fn write_bytes(&self, addr: UserAddr, buf: &[u8]) -> Result<()> {
        let n = self.write_partial(addr, buf)?;
        if n == buf.len() { Ok(()) } else { Err(Errno::EFAULT) }
    }

    /// Copies to `addr` up to the first byte that can't be written; gives the bytes copied.
    ///
    /// # Errors
    /// EFAULT if there was not one.
    pub fn write_partial(&self, addr: UserAddr, buf: &[u8]) -> Result<usize> {
        check_range(addr, buf.len())?;
        if buf.is_empty() {
            return Ok(0);
        }
        let pid = self.space().host_pid();
        if parcel::has_room(pid, buf.len())
            && self.writable_prefix(addr, buf.len()) == buf.len()
            && parcel::give(pid, addr.get(), buf)
        {
            return Ok(buf.len());
        }
        parcel::written(pid, addr.get(), buf.len());
        self.space().write(addr.get(), buf).map_err(gone_is_fault)
    }

    /// Copies from one range after the other, address and length, up to the first byte that can't be read; gives the bytes copied.
    #[must_use]
    pub fn read_ranges(&self, ranges: &[(u64, usize)], buf: &mut [u8]) -> usize {
        // One host call for all of them, if nothing is wrong; else one by one from where that has come to.
        let at_once = match ranges {
            [] | [_] => 0,
            several => {
                several.iter().for_each(|(addr, len)| parcel::settle(self.space().host_pid(), *addr, *len));
                self.space().read_ranges(ranges, buf).unwrap_or(0)
            }
        };
        copy_rest(ranges, at_once.min(buf.len()), buf.len(), |addr, from, to| {
            let part = buf.get_mut(from..to).ok_or(Errno::EFAULT)?;
            self.read_partial(addr, part)
        })
    }

    /// Copies to one range after the other, address and length, up to the first byte that can't be written; gives the bytes copied.
    #[must_use]
    pub fn write_ranges(&self, ranges: &[(u64, usize)], buf: &[u8]) -> usize {
        let at_once = match ranges {
            [] | [_] => 0,
            several => {
                several.iter().for_each(|(addr, len)| parcel::written(self.space().host_pid(), *addr, *len));
                self.space().write_ranges(ranges, buf).unwrap_or(0)
            }
        };
        copy_rest(ranges, at_once.min(buf.len()), buf.len(), |addr, from, to| {
            let part = buf.get(from..to).ok_or(Errno::EFAULT)?;
            self.write_partial(addr, part)
        })
    }

    /// Copies to `addr` whatever the protections, as ptrace(PTRACE_POKEDATA) and /proc/PID/mem do.
    ///
    /// # Errors
    /// As [`MemoryManager::write_partial`].
    pub fn write_forced(&self, addr: UserAddr, buf: &[u8]) -> Result<usize> {
        check_range(addr, buf.len())?;
        if buf.is_empty() {
            return Ok(0);
        }
        parcel::written(self.space().host_pid(), addr.get(), buf.len());
        self.space().write_forced(addr.get(), buf).map_err(gone_is_fault)
    }

    /// Reads a value.
    ///
    /// # Errors
    /// EFAULT.
    pub fn read<T: FromBytes + IntoBytes>(&self, ptr: UserPtr<T>) -> Result<T> {
        let mut value = T::new_zeroed();
        self.read_bytes(ptr.addr(), value.as_mut_bytes())?;
        Ok(value)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write<T: IntoBytes + Immutable>(&self, ptr: UserPtr<T>, value: &T) -> Result<()> {
        self.write_bytes(ptr.addr(), value.as_bytes())
    }

    /// Reads the NUL-terminated string at `addr`, without the NUL, which must come within `max` bytes.
    ///
    /// # Errors
    /// ENAMETOOLONG if it does not; EFAULT.
    pub fn read_cstr(&self, addr: UserAddr, max: usize) -> Result<Vec<u8>> {
        StringReader::<CSTR_CHUNK>::new(self).read(addr, max)
    }

    /// Reads `count` values, at most `max`.
    ///
    /// # Errors
    /// EINVAL if there are more than `max`; EFAULT.
    pub fn read_array<T: FromBytes + IntoBytes>(&self, addr: UserAddr, count: usize, max: usize) -> Result<Vec<T>> {
        if count > max {
            return Err(Errno::EINVAL);
        }
        // A range outside of user space fails before memory is taken for it.
        check_range(addr, count.checked_mul(size_of::<T>()).ok_or(Errno::EFAULT)?)?;
        let mut values: Vec<T> = (0..count).map(|_| T::new_zeroed()).collect();
        self.read_bytes(addr, values.as_mut_slice().as_mut_bytes())?;
        Ok(values)
    }

    /// Writes all of `values` as an array.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write_array<T: IntoBytes + Immutable>(&self, addr: UserAddr, values: &[T]) -> Result<()> {
        self.write_bytes(addr, values.as_bytes())
    }

    /// Writes zeros to `len` bytes at `addr`.
    ///
    /// # Errors
    /// EFAULT.
    pub fn write_zeros(&self, addr: UserAddr, len: u64) -> Result<()> {
        static ZEROS: [u8; PAGE_SIZE as usize] = [0; PAGE_SIZE as usize];
        let mut done = 0;
        while done < len {
            let n = (len - done).min(PAGE_SIZE);
            let zeros = ZEROS.get(..usize::try_from(n).unwrap_or(0)).ok_or(Errno::EFAULT)?;
            self.write_bytes(addr.add(done)?, zeros)?;
            done += n;
        }
        Ok(())
    }

    /// How many of `len` bytes at `addr` the tree says can be read: a stream is not consumed into a bad buffer.
    #[must_use]
    pub fn readable_prefix(&self, addr: UserAddr, len: usize) -> usize {
        self.prefix(addr, len, ProtFlags::READ)
    }

    /// How many of `len` bytes at `addr` the tree says can be written.
    #[must_use]
    pub fn writable_prefix(&self, addr: UserAddr, len: usize) -> usize {
        self.prefix(addr, len, ProtFlags::WRITE)
    }

    fn prefix(&self, addr: UserAddr, len: usize, need: ProtFlags) -> usize {
        if check_range(addr, len).is_err() {
            return 0;
        }
        let (start, end) = (addr.get(), addr.get().saturating_add(len as u64));
        let mut at = start;
        let state = self.state();
        for vma in state.tree.overlapping(start, end) {
            // On x86 writable and executable memory is readable, see `effective_prot`.
            if vma.start > at || !effective_prot(vma.prot).contains(need) {
                break;
            }
            at = vma.end;
        }
        usize::try_from(at.min(end).saturating_sub(start)).unwrap_or(len)
    }
}

/// What the processor allows in an area of protection `prot`: anything implies reading.
pub(crate) fn effective_prot(prot: ProtFlags) -> ProtFlags {
    if prot.intersects(ProtFlags::RWX) { prot | ProtFlags::READ } else { prot }
}

/// EFAULT for a range that leaves user space (`access_ok`).
pub(crate) fn check_range(addr: UserAddr, len: usize) -> Result<()> {
    let end = addr.get().checked_add(len as u64).ok_or(Errno::EFAULT)?;
    if end > GUEST_TOP { Err(Errno::EFAULT) } else { Ok(()) }
}

/// Memory of a process that is gone is not there.
fn gone_is_fault(errno: Errno) -> Errno {
    if errno == Errno::ESRCH { Errno::EFAULT } else { errno }
}
/// Goes on with a copy of `len` bytes of which `done` have been copied; gives how far it comes. `copy` takes an address, and from
/// where to where in the bytes.
fn copy_rest(
    ranges: &[(u64, usize)],
    mut done: usize,
    len: usize,
    mut copy: impl FnMut(UserAddr, usize, usize) -> Result<usize>,
) -> usize {
    let mut start = 0_usize;
    for (addr, size) in ranges {
        let end = start.saturating_add(*size).min(len);
        let within = done.saturating_sub(start);
        start = end;
        if done >= end {
            continue;
        }
        let addr = UserAddr::new(addr.saturating_add(u64::try_from(within).unwrap_or(u64::MAX)));
        let n = copy(addr, done, end).unwrap_or(0);
        done = done.saturating_add(n);
        if done < end {
            break;
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_goes_on_where_it_was_and_ends_where_a_range_does() {
        let ranges = [(100, 3), (200, 0), (300, 4), (400, 2)];
        let run = |done, len, good: u64| {
            let mut calls = Vec::new();
            let copied = copy_rest(&ranges, done, len, |addr, from, to| {
                calls.push((addr.get(), from, to));
                match usize::try_from(good.saturating_sub(addr.get() % 100)).unwrap().min(to - from) {
                    0 => Err(Errno::EFAULT),
                    n => Ok(n),
                }
            });
            (copied, calls)
        };
        assert_eq!(run(0, 9, 50), (9, vec![(100, 0, 3), (300, 3, 7), (400, 7, 9)]));
        assert_eq!(run(4, 9, 50), (9, vec![(301, 4, 7), (400, 7, 9)]));
        assert_eq!(run(4, 6, 50), (6, vec![(301, 4, 6)]));
        assert_eq!(run(9, 9, 50), (9, vec![]));
        assert_eq!(run(0, 9, 3), (6, vec![(100, 0, 3), (300, 3, 7)]), "three bytes of the third range");
        assert_eq!(run(0, 9, 0), (0, vec![(100, 0, 3)]));
        assert_eq!(run(0, 20, 50), (9, vec![(100, 0, 3), (300, 3, 7), (400, 7, 9)]), "more than they hold");
    }
}
