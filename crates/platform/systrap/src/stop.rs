//! [`Stop`]: why a thread stopped, from the one snapshot of its area.

use moat_abi::siginfo::AUDIT_ARCH_X86_64;
use moat_platform::{Fault, Regs};
use moat_stub::layout::{
    KICK_SIGNAL, STOP_FRAME, STOP_FRAMED_CALL, STOP_ORDERS, STOP_UNFINISHED, STOP_UNWRITTEN, info,
};

use crate::area::{Area, call_slot, control};
use crate::frame::{GREG_COUNT, at, regs_from_words};
use crate::state::area_addr;

/// Why a thread stopped, from the one snapshot of its area.
#[derive(Clone, Debug)]
pub enum Stop {
    /// Orders are done up to `done`; `results` are the cells' up to and with the first that failed.
    Orders {
        /// Cells without an error.
        done: usize,
        /// Raw results.
        results: Vec<u64>,
    },
    /// A call from a rewritten site: there is no frame.
    Call(Called),
    /// A signal, with the registers at that point.
    Signal {
        /// Everything that the frame says.
        regs: Regs,
        /// What kind.
        signal: Signal,
    },
}

/// A call from a rewritten site, as its one cache line says. Its other registers lie in the area until they are needed.
#[derive(Clone, Copy, Debug)]
pub struct Called {
    /// The number.
    pub nr: u64,
    /// rdi, rsi, rdx, r10, r8, r9.
    pub args: [u64; 6],
    /// Bytes that it has brought along, as it says itself.
    pub taken: u32,
    /// The application steps through instructions.
    pub steps: bool,
}

/// A signal as an event.
#[derive(Clone, Copy, Debug)]
pub enum Signal {
    /// A trapped syscall: `si_arch` and `si_call_addr`.
    Syscall {
        /// AUDIT_ARCH_*.
        arch: u32,
        /// The instruction after the syscall.
        call_addr: u64,
        /// Bytes that it has brought along, as it says itself.
        taken: u32,
    },
    /// The kick.
    Kick,
    /// The kick, in a call that the host was carrying out.
    Unfinished {
        /// The cycle counter when that began, as the stub says.
        began: u64,
    },
    /// What a call from a rewritten site was asked for: its state in a frame.
    Frame,
    /// What a handler was to begin with could not be written.
    Unwritten,
    /// A processor exception.
    Fault(Fault),
}

/// Reads the area of a stopped thread once; `None` for what a stub never writes.
///
/// `frame` is where in the area the host puts signal frames, `cells` how many orders there were.
pub fn snapshot(area: Area, slot: u32, frame: u64, cells: usize) -> Option<Stop> {
    let said = area.read32(call_slot!(info));
    if said & info::CALL != 0 {
        // One line of the cache, which the guest's CPU gives up; those with the other registers stay there.
        let args = [0, 8, 16, 24, 32, 40].map(|at: u64| area.read(call_slot!(args).wrapping_add(at)));
        let taken = said >> info::TAKEN_SHIFT & info::TAKEN;
        let steps = said & info::STEPS != 0;
        return Some(Stop::Call(Called { nr: area.read(call_slot!(result)), args, taken, steps }));
    }
    let why = area.read32(control!(stop));
    if why == STOP_ORDERS {
        // The guest can write any number there; more than was sent can't be done.
        let done = (area.read32(control!(orders_done)) as usize).min(cells);
        let results = (0..cells.min(done + 1)).map(|i| area.read_result(i)).collect();
        return Some(Stop::Orders { done, results });
    }
    // The frame is read at the sentry's own offset, wherever the guest says that it is; but a stub that has it
    // elsewhere is none.
    if area.read(control!(frame)) != area_addr(slot) + frame {
        return None;
    }
    let mut words = [0; GREG_COUNT];
    for (i, word) in (0u64..).zip(&mut words) {
        *word = area.read(frame + at::GREGS + i * 8);
    }
    let mut regs = regs_from_words(&words);
    // Not in the host's frame: the stub stores them beside it.
    regs.fs_base = area.read(control!(fs_base));
    regs.gs_base = area.read(control!(gs_base));
    // Not in a call, as Linux has it for a signal: nothing is restarted.
    regs.orig_rax = u64::MAX;
    let addr = area.read(frame + at::SI_ADDR);
    let signal = match why {
        // SIGSYS: the filter has turned a call into a signal, with the number still in rax.
        31 => {
            regs.orig_rax = regs.rax;
            let arch = (area.read(frame + at::SI_SYSCALL) >> 32) as u32;
            Signal::Syscall { arch, call_addr: addr, taken: area.read32(call_slot!(taken)) }
        }
        STOP_FRAMED_CALL => {
            regs.orig_rax = regs.rax;
            Signal::Syscall { arch: AUDIT_ARCH_X86_64, call_addr: regs.rip, taken: 0 }
        }
        STOP_FRAME => Signal::Frame,
        STOP_UNWRITTEN => Signal::Unwritten,
        STOP_UNFINISHED => {
            regs.orig_rax = regs.rax;
            Signal::Unfinished { began: area.read(control!(began)) }
        }
        KICK_SIGNAL => Signal::Kick,
        // What a processor exception can become; any other number the guest has made up.
        4 | 5 | 7 | 8 | 11 => Signal::Fault(Fault {
            signal: why.cast_signed(),
            code: (area.read(frame + at::SI_CODE) as u32).cast_signed(),
            addr,
            trapno: area.read(frame + at::TRAPNO),
            err: area.read(frame + at::ERR),
        }),
        _ => return None,
    };
    Some(Stop::Signal { regs, signal })
}

impl Called {
    /// The registers that are known.
    pub fn registers(&self) -> Regs {
        let [rdi, rsi, rdx, r10, r8, r9] = self.args;
        Regs { rax: self.nr, orig_rax: self.nr, rdi, rsi, rdx, r10, r8, r9, ..Regs::default() }
    }
}

/// All registers of a call from a rewritten site, as a trap would have them; `known` are those that it was taken in with.
pub fn call_registers(area: Area, known: Regs) -> Regs {
    let (rip, rflags) = (area.read(call_slot!(rip)), area.read(call_slot!(rflags)));
    Regs {
        rsp: area.read(call_slot!(rsp)),
        rbx: area.read(call_slot!(rbx)),
        rbp: area.read(call_slot!(rbp)),
        r12: area.read(call_slot!(r12)),
        r13: area.read(call_slot!(r13)),
        r14: area.read(call_slot!(r14)),
        r15: area.read(call_slot!(r15)),
        rip,
        // As the instruction leaves it: the address behind it in rcx, the flags in r11.
        rcx: rip,
        rflags,
        r11: rflags,
        fs_base: area.read(control!(fs_base)),
        // The stub finds its area by it, so sites are rewritten only where the application has none of its own.
        gs_base: 0,
        ..known
    }
}
