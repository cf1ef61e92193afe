//! Page faults that the host could not resolve.

use moat_abi::mman::ProtFlags;
use moat_abi::siginfo::{SEGV_ACCERR, SEGV_MAPERR};
use moat_abi::signal::Signal;
use moat_platform::{Fault, GUEST_TOP, GuestThread, MapSource, Order};

use crate::copy::effective_prot;
use crate::manager::{MmState, When};
use crate::tree::STACK_GUARD_GAP;
use crate::vma::VmaFlags;
use crate::{MemoryManager, page_down};

/// How far a stack grows at a time, if there is room: fewer faults than page by page.
const GROW_STEP: u64 = 128 << 10;

/// What to do about a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultAction {
    /// Resume: the memory is there.
    Retry,
    /// Send this signal to the thread, forced.
    Signal {
        /// SIGSEGV, SIGBUS, ...
        signal: i32,
        /// `si_code`.
        code: i32,
        /// `si_addr`.
        addr: u64,
    },
}

impl MemoryManager {
    /// Resolves a fault of `thread`: grows a stack, or says which signal Linux would send.
    pub async fn handle_fault(&self, thread: &mut dyn GuestThread, fault: &Fault) -> FaultAction {
        let as_reported = FaultAction::Signal { signal: fault.signal, code: fault.code, addr: fault.addr };
        let sigsegv = Signal::SIGSEGV.number();
        // Vector 14 is the page fault; SIGBUS is the host's word for pages past the end of a file.
        if fault.signal != sigsegv || fault.trapno != 14 {
            return as_reported;
        }
        let signal = |code| FaultAction::Signal { signal: sigsegv, code, addr: fault.addr };
        if fault.addr >= GUEST_TOP {
            // Linux does not tell a guest what is in the kernel's half.
            return signal(SEGV_MAPERR);
        }
        // It is mapped, so its protection was in the way.
        if self.state().tree.find(fault.addr).is_some() {
            return signal(SEGV_ACCERR);
        }
        if self.grow_stack(thread, fault.addr).await { FaultAction::Retry } else { signal(SEGV_MAPERR) }
    }

    /// Grows the area above `addr` down to it, if it grows down and limits allow (`expand_stack`).
    pub(crate) async fn grow_stack(&self, thread: &mut dyn GuestThread, addr: u64) -> bool {
        let turn = self.turn().await;
        let page = page_down(addr);
        let plan = self.state().plan_growth(page);
        let (start, new_start, prot) = match plan {
            Growth::Present => return true,
            Growth::Refused => return false,
            Growth::Grow { start, new_start, prot } => (start, new_start, prot),
        };
        let source = MapSource::AnonPrivate { noreserve: false };
        let order = Order::Mmap {
            addr: new_start,
            len: start.saturating_sub(new_start),
            prot: effective_prot(prot).bits(),
            source,
        };
        // At once: the thread repeats its instruction, and a refusal has to be a signal.
        if turn.carry_out(thread, order, When::Now).await.is_err() {
            return false;
        }
        let mut state = self.state();
        state.tree.grow_down(start, new_start);
        state.note_peak();
        true
    }
}

enum Growth {
    /// Another thread has been faster.
    Present,
    Refused,
    Grow {
        start: u64,
        new_start: u64,
        prot: ProtFlags,
    },
}

impl MmState {
    fn plan_growth(&self, page: u64) -> Growth {
        let Some(vma) = self.tree.find_from(page) else { return Growth::Refused };
        if vma.start <= page {
            return Growth::Present;
        }
        if !vma.flags.contains(VmaFlags::GROWSDOWN) {
            return Growth::Refused;
        }
        // The guard gap to the area below, unless that one is a stack or inaccessible.
        let below = self.tree.overlapping(0, page).next_back();
        let floor = match below {
            Some(b) if b.flags.contains(VmaFlags::GROWSDOWN) || b.prot.is_empty() => b.end,
            Some(b) => b.end.saturating_add(STACK_GUARD_GAP),
            None => moat_platform::GUEST_BOTTOM,
        };
        let allowed = |new_start: u64| {
            let grown = vma.start.saturating_sub(new_start);
            new_start >= floor
                // RLIMIT_STACK is for the whole stack, from its upper end.
                && vma.end.saturating_sub(new_start) <= self.limits.stack
                && self.check_expand(grown, false).is_ok()
        };
        if !allowed(page) {
            return Growth::Refused;
        }
        let generous = page.saturating_sub(GROW_STEP);
        let new_start = if allowed(generous) { generous } else { page };
        Growth::Grow { start: vma.start, new_start, prot: vma.prot }
    }
}
