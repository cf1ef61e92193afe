//! System V IPC: the calls of sysvipc(7).
//!
//! - [`shm`]: shmget(2), shmat(2), shmdt(2), shmctl(2).
//! - [`sem`]: semget(2), semop(2), semctl(2).
//! - [`msg`]: msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

pub mod msg;
pub mod sem;
pub mod shm;

use moat_abi::ipc::Ipc64Perm;
use moat_abi::time::Timespec;
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, UserPtr};

syscalls! { pub static TABLE;
    29 shmget(key: i32, size: u64, flags: i32) shm::sys_shmget, partial("no huge pages");
    30 shmat(id: i32, addr: u64, flags: i32) async shm::sys_shmat, full;
    31 shmctl(id: i32, command: i32, buf: UserAddr) shm::sys_shmctl, partial("SHM_LOCK only marks; an exit doesn't set shm_dtime");
    67 shmdt(addr: u64) async shm::sys_shmdt, full;
    64 semget(key: i32, count: i32, flags: i32) sem::sys_semget, full;
    65 semop(id: i32, ops: UserAddr, count: u32) async sem::sys_semop, full;
    66 semctl(id: i32, number: i32, command: i32, arg: u64) sem::sys_semctl, full;
    220 semtimedop(id: i32, ops: UserAddr, count: u32, timeout: UserPtr<Timespec>) async sem::sys_semtimedop, full;
    68 msgget(key: i32, flags: i32) msg::sys_msgget, full;
    69 msgsnd(id: i32, message: UserAddr, len: i64, flags: i32) async msg::sys_msgsnd, full;
    70 msgrcv(id: i32, message: UserAddr, len: i64, kind: i64, flags: i32) async msg::sys_msgrcv, full;
    71 msgctl(id: i32, command: i32, buf: UserAddr) msg::sys_msgctl, full;
}

/// An id or index, which is never negative, as a call returns it.
fn give(id: i32) -> SyscallResult {
    Ok(u64::try_from(id).unwrap_or(0))
}

/// Owners as the caller's user namespace has them.
fn show_ids(t: &CurrentTask, perm: &mut Ipc64Perm) {
    let ns = &t.creds().user_ns;
    (perm.uid, perm.gid) = (ns.show_uid(perm.uid), ns.show_gid(perm.gid));
    (perm.cuid, perm.cgid) = (ns.show_uid(perm.cuid), ns.show_gid(perm.cgid));
}

/// A new owner, from the caller's user namespace: EINVAL if it has no such ids.
fn know_ids(t: &CurrentTask, perm: &mut Ipc64Perm) -> Result<()> {
    let ns = &t.creds().user_ns;
    perm.uid = ns.kernel_uid(perm.uid).ok_or(Errno::EINVAL)?;
    perm.gid = ns.kernel_gid(perm.gid).ok_or(Errno::EINVAL)?;
    Ok(())
}

/// A count in a field of 32 bits.
fn count_i32(count: impl TryInto<i32>) -> i32 {
    count.try_into().unwrap_or(i32::MAX)
}
