//! `struct sockaddr` from and to guest memory.

use moat_abi::socket::SOCKADDR_STORAGE_SIZE;
use moat_abi::{Errno, Result};
use moat_kernel::CurrentTask;
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::socket::SockAddr;

/// Reads an address (`move_addr_to_kernel`).
///
/// # Errors
/// EINVAL for a length below 0 or above 128; EFAULT.
pub(super) fn read(t: &CurrentTask, addr: UserAddr, len: i32) -> Result<SockAddr> {
    let len = usize::try_from(len).ok().filter(|n| *n <= SOCKADDR_STORAGE_SIZE).ok_or(Errno::EINVAL)?;
    let mut bytes = [0; SOCKADDR_STORAGE_SIZE];
    let bytes = bytes.get_mut(..len).ok_or(Errno::EINVAL)?;
    t.mm().read_bytes(addr, bytes)?;
    Ok(SockAddr::new(bytes))
}

/// Writes as much of an address as the guest has room for, and its whole length (`move_addr_to_user`).
///
/// # Errors
/// EINVAL for a negative length; EFAULT.
pub(super) fn write(t: &CurrentTask, addr: UserAddr, len: UserPtr<i32>, value: &SockAddr) -> Result<()> {
    // The room is read before the name is asked for, and a negative one refused.
    let room = usize::try_from(t.mm().read(len)?).map_err(|_| Errno::EINVAL)?;
    let bytes = value.as_bytes();
    t.mm().write_bytes(addr, bytes.get(..room).unwrap_or(bytes))?;
    t.mm().write(len, &i32::try_from(bytes.len()).unwrap_or(i32::MAX))
}
