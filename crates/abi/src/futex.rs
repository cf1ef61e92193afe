//! futex(2) operations, robust lists, rseq(2), membarrier(2).
//!
//! Sources: `linux/{futex,rseq,membarrier}.h`.

consts! { "futex(2) operations.", u32; FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_FD = 2, FUTEX_REQUEUE = 3,
FUTEX_CMP_REQUEUE = 4,
FUTEX_WAKE_OP = 5, FUTEX_LOCK_PI = 6, FUTEX_UNLOCK_PI = 7, FUTEX_TRYLOCK_PI = 8, FUTEX_WAIT_BITSET = 9,
FUTEX_WAKE_BITSET = 10,
FUTEX_WAIT_REQUEUE_PI = 11, FUTEX_CMP_REQUEUE_PI = 12, FUTEX_LOCK_PI2 = 13 }
consts! { "Flags or'ed to futex(2) operations.", u32; FUTEX_PRIVATE_FLAG = 128, FUTEX_CLOCK_REALTIME = 256 }
/// The operation without its flags.
pub const FUTEX_CMD_MASK: u32 = !(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME);
consts! { "Bits of a PI or robust futex word.", u32; FUTEX_WAITERS = 0x8000_0000, FUTEX_OWNER_DIED = 0x4000_0000,
FUTEX_TID_MASK = 0x3fff_ffff }
consts! { "The bitset of a plain wait or wake.", u32; FUTEX_BITSET_MATCH_ANY = 0xffff_ffff }
consts! { "FUTEX_WAKE_OP operations.", u32; FUTEX_OP_SET = 0, FUTEX_OP_ADD = 1, FUTEX_OP_OR = 2, FUTEX_OP_ANDN = 3,
FUTEX_OP_XOR = 4,
FUTEX_OP_OPARG_SHIFT = 8 }
consts! { "FUTEX_WAKE_OP comparisons.", u32; FUTEX_OP_CMP_EQ = 0, FUTEX_OP_CMP_NE = 1, FUTEX_OP_CMP_LT = 2,
FUTEX_OP_CMP_LE = 3,
FUTEX_OP_CMP_GT = 4, FUTEX_OP_CMP_GE = 5 }
consts! { "futex2 flags, futex_waitv(2).", u32; FUTEX2_SIZE_U8 = 0, FUTEX2_SIZE_U16 = 1, FUTEX2_SIZE_U32 = 2,
FUTEX2_SIZE_U64 = 3,
FUTEX2_NUMA = 4, FUTEX2_PRIVATE = 128 }
consts! { "Most futexes of futex_waitv(2).", u32; FUTEX_WAITV_MAX = 128 }
consts! { "Most entries of a robust list that are walked.", usize; ROBUST_LIST_LIMIT = 2048 }

/// The third argument word of FUTEX_WAKE_OP, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WakeOp {
    /// `FUTEX_OP_*`, 0 to 7.
    pub op: u32,
    /// The operand, already shifted if `FUTEX_OP_OPARG_SHIFT` was given (Linux uses its low five bits then).
    pub oparg: u32,
    /// `FUTEX_OP_CMP_*`, 0 to 15.
    pub cmp: u32,
    /// What the old value is compared with, signed as in Linux.
    pub cmparg: i32,
}

impl WakeOp {
    /// Decodes `val3`; unknown operations and comparisons are ENOSYS, which is the caller's to say.
    #[must_use]
    pub const fn decode(val3: u32) -> WakeOp {
        let op = (val3 >> 28) & 7;
        // Both operands are 12-bit signed numbers.
        let arg = ((val3 << 8) as i32) >> 20;
        let cmparg = ((val3 << 20) as i32) >> 20;
        let shift = (val3 >> 28) & FUTEX_OP_OPARG_SHIFT != 0;
        let oparg = if shift { 1u32 << (arg & 31) } else { arg as u32 };
        WakeOp { op, oparg, cmp: (val3 >> 24) & 15, cmparg }
    }

    /// Whether the old value satisfies the comparison; `None` for an unknown one (ENOSYS).
    #[must_use]
    pub const fn compare(self, old: u32) -> Option<bool> {
        let old = old as i32;
        Some(match self.cmp {
            FUTEX_OP_CMP_EQ => old == self.cmparg,
            FUTEX_OP_CMP_NE => old != self.cmparg,
            FUTEX_OP_CMP_LT => old < self.cmparg,
            FUTEX_OP_CMP_LE => old <= self.cmparg,
            FUTEX_OP_CMP_GT => old > self.cmparg,
            FUTEX_OP_CMP_GE => old >= self.cmparg,
            _ => return None,
        })
    }
}

guest_struct! {
    /// `struct futex_waitv`, futex_waitv(2).
    FutexWaitv: 24 { val: u64, uaddr: u64, flags: u32, reserved: u32 }
}
guest_struct! {
    /// `struct robust_list_head`, set_robust_list(2). Bit 0 of an entry's address marks a PI futex.
    RobustListHead: 24 { list_next: u64, futex_offset: i64, list_op_pending: u64 }
}
guest_struct! {
    /// `struct rseq`, rseq(2), with the fields of Linux 6.3 (feature size 28).
    Rseq: 32 { cpu_id_start: u32, cpu_id: u32, rseq_cs: u64, flags: u32, node_id: u32, mm_cid: u32, pad: u32 }
}
consts! { "rseq(2) constants.", u32; RSEQ_FLAG_UNREGISTER = 1, RSEQ_CPU_ID_UNINITIALIZED = u32::MAX,
RSEQ_ORIG_SIZE = 32, RSEQ_FEATURE_SIZE = 28,
RSEQ_ALIGN = 32 }
guest_struct! {
    /// `struct rseq_cs`: a critical section.
    RseqCs: 32 { version: u32, flags: u32, start_ip: u64, post_commit_offset: u64, abort_ip: u64 }
}

consts! { "membarrier(2) commands.", u32; MEMBARRIER_CMD_QUERY = 0, MEMBARRIER_CMD_GLOBAL = 1,
MEMBARRIER_CMD_GLOBAL_EXPEDITED = 2,
MEMBARRIER_CMD_REGISTER_GLOBAL_EXPEDITED = 4, MEMBARRIER_CMD_PRIVATE_EXPEDITED = 8,
MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED = 16,
MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE = 32, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE = 64,
MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ = 128, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ = 256,
MEMBARRIER_CMD_GET_REGISTRATIONS = 512 }
consts! { "membarrier(2) flag.", u32; MEMBARRIER_CMD_FLAG_CPU = 1 }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wake_op_decodes_like_the_macro() {
        // FUTEX_OP(op, oparg, cmp, cmparg) of futex(2).
        let op = |op: u32, oparg: i32, cmp: u32, cmparg: i32| {
            ((op & 0xf) << 28) | ((cmp & 0xf) << 24) | ((oparg as u32 & 0xfff) << 12) | (cmparg as u32 & 0xfff)
        };
        let w = WakeOp::decode(op(FUTEX_OP_ADD, -1, FUTEX_OP_CMP_GT, 1));
        assert_eq!(w, WakeOp { op: FUTEX_OP_ADD, oparg: u32::MAX, cmp: FUTEX_OP_CMP_GT, cmparg: 1 });
        assert_eq!((w.compare(2), w.compare(1), w.compare(u32::MAX)), (Some(true), Some(false), Some(false)));
        assert_eq!(WakeOp::decode(op(FUTEX_OP_SET | FUTEX_OP_OPARG_SHIFT, 5, 0, 0)).oparg, 32);
        assert_eq!(WakeOp::decode(op(0, 0, 9, 0)).compare(0), None);
    }
}
