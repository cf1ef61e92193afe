//! Import of `struct iovec` arrays.

use moat_abi::fs::{Iovec, MAX_RW_COUNT, UIO_MAXIOV};
use moat_abi::{Errno, Result};

use crate::copy::check_range;
use crate::{MemoryManager, UserAddr, UserSlice};

/// The buffers of a vectored call, checked: together at most [`MAX_RW_COUNT`] bytes, none outside of user space.
#[derive(Clone, Debug, Default)]
pub struct IoVec {
    /// The buffers in order; some may be empty.
    pub slices: Vec<UserSlice>,
    /// Bytes in all.
    pub total: usize,
}

impl IoVec {
    /// One buffer, its length capped at [`MAX_RW_COUNT`].
    ///
    /// # Errors
    /// EFAULT outside of user space, which a length that is negative as `ssize_t` always reaches.
    pub fn single(addr: UserAddr, len: usize) -> Result<IoVec> {
        if isize::try_from(len).is_err() {
            return Err(Errno::EFAULT);
        }
        let len = len.min(MAX_RW_COUNT);
        check_range(addr, len)?;
        Ok(IoVec { slices: vec![UserSlice::new(addr, len)], total: len })
    }
}

impl MemoryManager {
    /// Reads an array of `count` iovecs (`import_iovec`).
    ///
    /// # Errors
    /// EINVAL for more than [`UIO_MAXIOV`], or a length that is negative as `ssize_t`; EFAULT for the array or a buffer outside
    /// of user space.
    pub fn read_iovecs(&self, addr: UserAddr, count: usize) -> Result<IoVec> {
        let raw: Vec<Iovec> = self.read_array(addr, count, UIO_MAXIOV)?;
        // All lengths before any address: EINVAL wins over EFAULT, as in `import_iovec`.
        if raw.iter().any(|v| i64::try_from(v.iov_len).is_err()) {
            return Err(Errno::EINVAL);
        }
        let mut vec = IoVec { slices: Vec::with_capacity(raw.len()), total: 0 };
        for v in raw {
            let len = usize::try_from(v.iov_len).unwrap_or(usize::MAX);
            // In full length, and only then cut: a buffer that leaves user
            // space fails even where the cut would save it.
            check_range(UserAddr::new(v.iov_base), len)?;
            let len = len.min(MAX_RW_COUNT.saturating_sub(vec.total));
            vec.slices.push(UserSlice::new(UserAddr::new(v.iov_base), len));
            vec.total = vec.total.saturating_add(len);
        }
        Ok(vec)
    }
}
