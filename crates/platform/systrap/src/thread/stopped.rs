//! What the stop of a thread is to the sentry; and state that would stop it at once.

use moat_abi::siginfo::{AUDIT_ARCH_X86_64, SI_KERNEL};
use moat_platform::{Event, Fault, ForeignAbi, Regs};

use crate::frame::canonical;
use crate::parcel;
use crate::sites::needs_frame;
use crate::stop::Signal;
use crate::thread::{Dirty, Thread};
use moat_host::cycles::Clock;

const SIGSEGV: i32 = 11;
const GENERAL_PROTECTION: u64 = 13;
const VSYSCALL_PAGE: u64 = 0xffff_ffff_ff60_0000;

impl Thread {
    /// A signal, as an event.
    pub(super) fn event(&mut self, regs: Regs, signal: Signal) -> Event {
        self.take_regs(regs);
        if matches!(signal, Signal::Kick | Signal::Fault(_)) {
            self.leave_padding();
        }
        match signal {
            Signal::Kick => Event::Interrupted,
            Signal::Unfinished { began } => {
                let began_ns = self.host.core.clock.at(began, Clock::now());
                Event::Unfinished { nr: regs.rax, began_ns }
            }
            Signal::Fault(fault) => self.fault(fault, regs.rip),
            Signal::Unwritten => self.unwritten(),
            // Nobody has asked for it: this was application code that jumped into the stub.
            Signal::Frame => {
                self.host.space.kill();
                Event::Died
            }
            Signal::Syscall { call_addr, .. } if call_addr & !0xfff == VSYSCALL_PAGE => {
                // The host has made the page's `ret` already: undo it.
                self.regs.rip = call_addr;
                self.regs.rsp = regs.rsp.wrapping_sub(8);
                self.dirty = Dirty::All;
                Event::ForeignSyscall(ForeignAbi::Vsyscall)
            }
            Signal::Syscall { arch, .. } if arch != AUDIT_ARCH_X86_64 => Event::ForeignSyscall(ForeignAbi::I386),
            Signal::Syscall { taken, .. } => {
                // In a call from a rewritten site these would ask for a frame before they are told of.
                if !needs_frame(regs.rax) {
                    self.entry.trapped(&self.host.space.traps, regs.rip);
                }
                self.taken = parcel::brought_by(&regs, taken);
                self.in_call = true;
                Event::Syscall { nr: regs.rax, args: regs.syscall_args() }
            }
        }
    }

    /// A fault that the host would raise if the registers were loaded.
    pub(super) fn bad_state(&self) -> Option<Event> {
        // sigreturn of anything else would fault in the stub, where nobody expects it.
        let r = &self.regs;
        if canonical(r.rip) && canonical(r.fs_base) && canonical(r.gs_base) {
            return None;
        }
        Some(Event::Fault(Fault { signal: SIGSEGV, code: SI_KERNEL, addr: 0, trapno: GENERAL_PROTECTION, err: 0 }))
    }
}
