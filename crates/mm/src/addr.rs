//! Addresses as guests allege them.
//!
//! Nothing here can be dereferenced: only [`crate::MemoryManager`] reads and writes what they name, and says EFAULT.

use std::fmt;
use std::marker::PhantomData;

use moat_abi::{Errno, Result};

/// An address in a guest's memory, unchecked.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserAddr(u64);

impl UserAddr {
    /// The null pointer.
    pub const NULL: UserAddr = UserAddr(0);

    /// An address from a register or a struct.
    #[must_use]
    pub const fn new(addr: u64) -> UserAddr {
        UserAddr(addr)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Whether it is the null pointer.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address `bytes` further.
    ///
    /// # Errors
    /// EFAULT where it wraps: no such address can be mapped.
    #[allow(clippy::should_implement_trait, reason = "fails with an errno, as addresses from guests do")]
    pub fn add(self, bytes: u64) -> Result<UserAddr> {
        self.0.checked_add(bytes).map(UserAddr).ok_or(Errno::EFAULT)
    }

    /// The same address as a pointer to `T`.
    #[must_use]
    pub const fn cast<T>(self) -> UserPtr<T> {
        UserPtr::new(self)
    }
}

impl fmt::Debug for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_null() { f.write_str("NULL") } else { write!(f, "{:#x}", self.0) }
    }
}

impl fmt::Display for UserAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl From<u64> for UserAddr {
    fn from(addr: u64) -> UserAddr {
        UserAddr(addr)
    }
}

/// A guest's pointer to a `T`, unchecked and of any alignment.
pub struct UserPtr<T> {
    addr: UserAddr,
    pointee: PhantomData<fn() -> T>,
}

impl<T> UserPtr<T> {
    /// A pointer to `addr`.
    #[must_use]
    pub const fn new(addr: UserAddr) -> UserPtr<T> {
        UserPtr { addr, pointee: PhantomData }
    }

    /// The address.
    #[must_use]
    pub const fn addr(self) -> UserAddr {
        self.addr
    }

    /// Whether it is the null pointer.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.addr.is_null()
    }

    /// None for the null pointer: for arguments that are optional.
    #[must_use]
    pub const fn non_null(self) -> Option<UserPtr<T>> {
        if self.is_null() { None } else { Some(self) }
    }

    /// A pointer to the element `index` of an array that starts here.
    ///
    /// # Errors
    /// EFAULT where the address wraps.
    pub fn index(self, index: u64) -> Result<UserPtr<T>> {
        let bytes = index.checked_mul(size_of::<T>() as u64).ok_or(Errno::EFAULT)?;
        Ok(UserPtr::new(self.addr.add(bytes)?))
    }

    /// The same address as a pointer to `U`.
    #[must_use]
    pub const fn cast<U>(self) -> UserPtr<U> {
        UserPtr::new(self.addr)
    }
}

impl<T> Clone for UserPtr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for UserPtr<T> {}

impl<T> Default for UserPtr<T> {
    fn default() -> Self {
        UserPtr::new(UserAddr::NULL)
    }
}

impl<T> PartialEq for UserPtr<T> {
    fn eq(&self, other: &Self) -> bool {
        self.addr == other.addr
    }
}

impl<T> Eq for UserPtr<T> {}

impl<T> fmt::Debug for UserPtr<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.addr, f)
    }
}

impl<T> From<UserAddr> for UserPtr<T> {
    fn from(addr: UserAddr) -> Self {
        UserPtr::new(addr)
    }
}

/// A guest's buffer: an address and a length in bytes, unchecked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserSlice {
    /// The first byte.
    pub addr: UserAddr,
    /// Bytes.
    pub len: usize,
}

impl UserSlice {
    /// A buffer.
    #[must_use]
    pub const fn new(addr: UserAddr, len: usize) -> UserSlice {
        UserSlice { addr, len }
    }
}
