//! membarrier(2).
//!
//! All barriers are those of the host: of all CPUs that run a guest process, by its expedited command, or of all CPUs, which takes
//! as long as it takes every one of them to come by its scheduler. The commands that also synchronise instruction streams or
//! restart sequences are not offered.

use moat_abi::Errno;
use moat_abi::futex::{
    MEMBARRIER_CMD_GLOBAL, MEMBARRIER_CMD_GLOBAL_EXPEDITED, MEMBARRIER_CMD_PRIVATE_EXPEDITED, MEMBARRIER_CMD_QUERY,
    MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED,
};
use moat_kernel::{CurrentTask, SyscallResult};
use rustix::thread::{MembarrierCommand, MembarrierQuery, membarrier, membarrier_query};

const OFFERED: u32 = MEMBARRIER_CMD_GLOBAL
    | MEMBARRIER_CMD_GLOBAL_EXPEDITED
    | MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED
    | MEMBARRIER_CMD_PRIVATE_EXPEDITED
    | MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED;

pub(super) fn sys_membarrier(t: &mut CurrentTask, command: u32, flags: u32, _cpu: i32) -> SyscallResult {
    let there = membarrier_query().contains(MembarrierQuery::GLOBAL);
    if flags != 0 || (command != MEMBARRIER_CMD_QUERY && !there) {
        return Err(Errno::EINVAL.into());
    }
    match command {
        MEMBARRIER_CMD_QUERY => return Ok(if there { u64::from(OFFERED) } else { 0 }),
        MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED => t.mm().register_private_barrier(),
        MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED => {}
        MEMBARRIER_CMD_PRIVATE_EXPEDITED if !t.mm().has_private_barrier() => return Err(Errno::EPERM.into()),
        MEMBARRIER_CMD_GLOBAL | MEMBARRIER_CMD_GLOBAL_EXPEDITED | MEMBARRIER_CMD_PRIVATE_EXPEDITED => {
            if t.mm().pass_barrier().is_err() {
                moat_sync::block_in_place(|| membarrier(MembarrierCommand::Global)).map_err(|_| Errno::EINVAL)?;
            }
        }
        _ => return Err(Errno::EINVAL.into()),
    }
    Ok(0)
}
