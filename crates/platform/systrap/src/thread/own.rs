//! Calls of futex(2) that the sentry has the host carry out for a thread ([`HostFutex`]).
//!
//! Most are made by the stub itself, unseen (`stub/src/program/interrupted.rs`, `call.rs`). Those that the sentry is asked for it gives back
//! as an order. A kick has to end that, and kicks are kept from handlers of signals: so a thread that has trapped first leaves its handler
//! for the stub's code for calls, with its registers where a call from a rewritten site has them, and asks anew.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use moat_abi::{Errno, Result};
use moat_platform::HostFutex;
use moat_stub::layout::{Cell, REPLY_RESUME, REPLY_STOP};

use crate::area::{call_slot, control};
use crate::frame::at;
use crate::parcel;
use crate::state::area_addr;
use crate::stop::Stop;
use crate::thread::{Dirty, Thread, Under};

/// Where the fourth argument is.
const TIMEOUT: usize = 3;
/// The interrupt flag, and the one that is always set.
const STUB_FLAGS: u64 = 0x202;

impl Thread {
    /// See [`moat_platform::GuestThread::poll_futex`].
    pub(super) fn poll_own(&mut self, cx: &mut Context<'_>, call: &HostFutex) -> Poll<Result<u64>> {
        loop {
            match self.under {
                Under::Futex => {
                    let stop = ready!(self.host.poll_stop(cx));
                    self.under = Under::Nothing;
                    return Poll::Ready(match stop? {
                        Stop::Orders { results, .. } => Errno::from_ret(results.first().copied().unwrap_or(0)),
                        Stop::Signal { .. } | Stop::Call(_) => Err(self.broken()),
                    });
                }
                Under::Anew => {
                    let stop = ready!(self.host.poll_stop(cx));
                    self.under = Under::Nothing;
                    let Stop::Orders { .. } = stop? else { return Poll::Ready(Err(self.broken())) };
                    self.entry.at_call = true;
                }
                _ => {}
            }
            if self.under != Under::Nothing || !self.deferred.is_empty() {
                ready!(self.poll_deferred(cx))?;
            }
            // One that came while it was parked has sent no signal.
            if self.host.take_kick() {
                return Poll::Ready(Err(Errno::EINTR));
            }
            self.settle();
            if self.entry.at_call {
                self.order_futex(cx, call)?;
                self.under = Under::Futex;
            } else {
                self.leave_handler(cx)?;
                self.under = Under::Anew;
            }
        }
    }

    fn broken(&self) -> Errno {
        self.host.space.kill();
        Errno::ESRCH
    }

    fn order_futex(&mut self, cx: &mut Context<'_>, call: &HostFutex) -> Result<()> {
        let mut args = call.args;
        if let Some([seconds, nanoseconds]) = call.until {
            let area = self.host.area;
            area.write(call_slot!(time), seconds);
            area.write(call_slot!(time).saturating_add(8), nanoseconds);
            args[TIMEOUT] = area_addr(self.host.slot).saturating_add(call_slot!(time));
        }
        let cell = Cell { op: u64::from(call.nr), args, result: 0 };
        self.send_cells(cx, REPLY_STOP, &[cell], VecDeque::new())
    }

    /// Lets a thread that has trapped go on in the stub's code for calls, where it asks anew.
    fn leave_handler(&mut self, cx: &mut Context<'_>) -> Result<()> {
        let (area, frame) = (self.host.area, self.host.core.frame.frame);
        // What a call does to these two: other values take a frame when the thread goes on.
        let as_after_call = self.regs.rcx == self.regs.rip && self.regs.r11 == self.regs.rflags;
        self.dirty = Dirty::All;
        self.flush_regs();
        let r = &self.regs;
        let args = [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9];
        for (i, arg) in (0u64..).zip(args) {
            area.write(call_slot!(args).saturating_add(i.saturating_mul(8)), arg);
        }
        area.write(call_slot!(rip), r.rip);
        area.write(call_slot!(rsp), r.rsp);
        area.write(call_slot!(rbx), r.rbx);
        area.write(call_slot!(rbp), r.rbp);
        area.write(call_slot!(r12), r.r12);
        area.write(call_slot!(r13), r.r13);
        area.write(call_slot!(r14), r.r14);
        area.write(call_slot!(r15), r.r15);
        area.write(call_slot!(rflags), r.rflags);
        area.write(call_slot!(kicked), 0);
        area.write(frame.wrapping_add(at::RIP), moat_stub::header().asks);
        area.write(frame.wrapping_add(at::RBX), area_addr(self.host.slot));
        area.write(frame.wrapping_add(at::RFLAGS), STUB_FLAGS);
        area.write32(control!(set_bases), 0);
        parcel::write_gifts(area, &[], 0);
        self.dirty = if as_after_call { Dirty::Nothing } else { Dirty::All };
        self.send_cells(cx, REPLY_RESUME, &[], VecDeque::new())
    }
}
