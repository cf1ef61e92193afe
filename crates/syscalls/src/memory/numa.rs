//! NUMA policies: guests see one node, so that every policy means the same.
//!
//! Source: `mm/mempolicy.c`.

use moat_abi::mman::{
    MPOL_F_ADDR, MPOL_F_MEMS_ALLOWED, MPOL_F_NODE, MPOL_F_RELATIVE_NODES, MPOL_F_STATIC_NODES, MPOL_WEIGHTED_INTERLEAVE,
};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{UserAddr, is_page_aligned};

/// Bits that a node mask may have at most (a page of them).
const MAX_NODES: u64 = 4096 * 8;

fn check_mode(mode: u32) -> Result<()> {
    // How nodes are counted makes no difference with one.
    let kind = mode & !(MPOL_F_STATIC_NODES | MPOL_F_RELATIVE_NODES);
    if kind > MPOL_WEIGHTED_INTERLEAVE { Err(Errno::EINVAL) } else { Ok(()) }
}

/// Reads a node mask; EINVAL for any node but the first.
fn check_mask(t: &CurrentTask, mask: UserAddr, max_node: u64) -> Result<()> {
    // Linux counts from one here (`get_nodes`).
    let bits = max_node.saturating_sub(1);
    if mask.is_null() || bits == 0 {
        return Ok(());
    }
    if bits > MAX_NODES {
        return Err(Errno::EINVAL);
    }
    let words = usize::try_from(bits.div_ceil(64)).map_err(|_| Errno::EINVAL)?;
    let nodes: Vec<u64> = t.mm().read_array(mask, words, words)?;
    // Bits of nodes that don't exist are refused, wherever they are in the mask.
    let foreign = nodes.iter().enumerate().any(|(i, &w)| if i == 0 { w & !1 != 0 } else { w != 0 });
    if foreign { Err(Errno::EINVAL) } else { Ok(()) }
}

pub(super) fn sys_mbind(
    t: &mut CurrentTask,
    addr: u64,
    len: u64,
    mode: u32,
    mask: UserAddr,
    max_node: u64,
    flags: u32,
) -> SyscallResult {
    // MPOL_MF_STRICT, MPOL_MF_MOVE, MPOL_MF_MOVE_ALL.
    if flags & !7 != 0 || !is_page_aligned(addr) || addr.checked_add(len).is_none() {
        return Err(Errno::EINVAL.into());
    }
    check_mode(mode)?;
    check_mask(t, mask, max_node)?;
    Ok(0)
}

pub(super) fn sys_set_mempolicy(t: &mut CurrentTask, mode: u32, mask: UserAddr, max_node: u64) -> SyscallResult {
    check_mode(mode)?;
    check_mask(t, mask, max_node)?;
    Ok(0)
}

pub(super) fn sys_get_mempolicy(
    t: &mut CurrentTask,
    mode: UserAddr,
    mask: UserAddr,
    max_node: u64,
    addr: u64,
    flags: u32,
) -> SyscallResult {
    let known = MPOL_F_NODE | MPOL_F_ADDR | MPOL_F_MEMS_ALLOWED;
    let both = flags & MPOL_F_MEMS_ALLOWED != 0 && flags & (MPOL_F_NODE | MPOL_F_ADDR) != 0;
    if flags & !known != 0 || both || (flags & MPOL_F_ADDR == 0 && addr != 0) || (!mask.is_null() && max_node < 1) {
        return Err(Errno::EINVAL.into());
    }
    // The address must be mapped; the policy is the same everywhere, since guests see one node.
    if flags & MPOL_F_ADDR != 0 && t.mm().is_free(addr & !4095, 4096) {
        return Err(Errno::EFAULT.into());
    }
    if !mode.is_null() {
        // MPOL_DEFAULT, or node 0: the same number.
        t.mm().write_bytes(mode, &0u32.to_ne_bytes())?;
    }
    if !mask.is_null() {
        if max_node > MAX_NODES {
            return Err(Errno::EINVAL.into());
        }
        let words = usize::try_from(max_node.div_ceil(64)).map_err(|_| Errno::EINVAL)?;
        let mut nodes = vec![0u64; words];
        if flags & MPOL_F_MEMS_ALLOWED != 0
            && let Some(first) = nodes.first_mut()
        {
            *first = 1;
        }
        t.mm().write_array(mask, &nodes)?;
    }
    Ok(0)
}
