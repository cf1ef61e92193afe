//! A thread whose call has come from a rewritten site, and faults that such sites are the reason for.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use moat_abi::{Errno, Result};
use moat_platform::regs::RFLAGS_TF;
use moat_platform::{Event, Fault, Gifts, Order, Regs};
use moat_stub::layout::{REPLY_FRAME, REPLY_RESUME};

use crate::area::call_slot;
use crate::order::is_plain;
use crate::parcel;
use crate::sites::{Undefined, needs_frame};
use crate::state::{Fields, Sent, area_addr};
use crate::stop::{Called, Signal, Stop, call_registers};
use crate::thread::{Dirty, Known, Thread, Under};

const SIGILL: i32 = 4;
const SIGTRAP: i32 = 5;
const PROT_WRITE: u32 = 2;

impl Thread {
    /// Takes over the registers of a frame.
    pub(crate) fn take_regs(&mut self, regs: Regs) {
        (self.regs, self.known) = (regs, Known::All);
        self.bases = (regs.fs_base, regs.gs_base);
        self.dirty = Dirty::Nothing;
        // What the stub finds its area by; the application's is 0 then.
        if regs.gs_base == area_addr(self.host.slot) {
            self.regs.gs_base = 0;
        }
    }

    /// Has a thread that was interrupted in padding be where the application was.
    pub(crate) fn leave_padding(&mut self) {
        if !self.host.space.sites.any() {
            return;
        }
        // A jump into padding is one half of a rewritten site: the application was at the call.
        let shown = self.host.space.shown(self.regs.rip);
        if shown != self.regs.rip {
            self.regs.rip = shown;
            self.dirty = Dirty::All;
        }
    }

    /// The bases that the processor is to have.
    pub(crate) fn wanted_bases(&self) -> (u64, u64) {
        let (fs, gs) = (self.regs.fs_base, self.regs.gs_base);
        let stub_finds_area = gs == 0 && self.host.space.sites.any();
        (fs, if stub_finds_area { area_addr(self.host.slot) } else { gs })
    }

    /// A call from a rewritten site.
    pub(crate) fn poll_called(&mut self, cx: &mut Context<'_>, call: Called) -> Poll<Event> {
        (self.regs, self.known) = (call.registers(), Known::OfCall { steps: call.steps });
        (self.dirty, self.in_call, self.entry.at_call) = (Dirty::Nothing, true, true);
        self.taken = parcel::brought(call.nr, &call.args, call.taken);
        self.entry.untold = Some(Event::Syscall { nr: call.nr, args: call.args });
        self.poll_untold(cx)
    }

    /// Reads the registers that are still missing. Whatever looks at more than a call's number, arguments and result comes by here first.
    pub(crate) fn load(&mut self) {
        if self.known == Known::All {
            return;
        }
        // The call may be over: what it gives is not among what the stub has saved.
        let result = self.regs.rax;
        self.regs.rax = self.regs.orig_rax;
        let dirty = self.dirty;
        self.take_regs(call_registers(self.host.area, self.regs));
        // They come from the call slot, which has no %gs: it is what the stub has found the slot by.
        self.bases.1 = area_addr(self.host.slot);
        self.begins.from(&self.regs);
        (self.regs.rax, self.dirty) = (result, dirty);
    }

    /// Whether the thread goes on behind the site of its call with nothing but a result, so that nobody has to know its other registers.
    pub(crate) fn returns_plainly(&self) -> bool {
        self.known == Known::OfCall { steps: false }
            && self.entry.at_call()
            && self.under == Under::Nothing
            && self.deferred.is_empty()
            && !self.begins.is_due()
            && self.host.space.sites.any()
    }

    /// The call that has not been told of yet, if there is one.
    pub(crate) fn poll_untold(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        let needs_frame = self.under == Under::Frame || needs_frame(self.regs.rax);
        if needs_frame {
            self.load();
        }
        if needs_frame && ready!(self.poll_frame(cx)).is_err() {
            self.entry.untold = None;
            return Poll::Ready(Event::Died);
        }
        Poll::Ready(self.entry.untold.take().unwrap_or(Event::Died))
    }

    /// Tells the stub what it takes back with the reply that comes next: nothing, if there are orders to be carried out first.
    pub(crate) fn write_gifts(&mut self) {
        if self.write_handler() {
            return;
        }
        if !self.deferred.is_empty() {
            self.settle();
        }
        let gifts = self.gifts.take();
        let list = gifts.as_ref().map_or(&[][..], Gifts::list);
        parcel::write_gifts(self.host.area, list, gifts.as_ref().map_or(0, Gifts::start));
    }

    /// Writes what it was to take back itself.
    pub(crate) fn settle(&mut self) {
        if let Some(mut gifts) = self.gifts.take() {
            gifts.write_out();
        }
    }

    /// Whether more than rax has to be set, or more be done than the stub's code for calls can do, before the thread goes on.
    pub(crate) fn needs_frame_to_resume(&self) -> bool {
        let steps = self.regs.rflags & RFLAGS_TF != 0;
        let more = self
            .begins
            .at_once(&self.regs, self.deferred.is_empty())
            .map_or(self.dirty == Dirty::All, |at_once| !at_once);
        more || steps || !self.orders_are_plain() || self.wanted_bases() != self.bases
    }

    /// Whether all orders can be carried out in a call from a rewritten site.
    fn orders_are_plain(&self) -> bool {
        self.deferred.iter().all(is_plain)
    }

    /// Lets a call from a rewritten site return.
    pub(crate) fn return_to_site(&mut self, cx: &mut Context<'_>) -> Result<()> {
        self.host.area.write(call_slot!(result), self.regs.rax);
        let takes_back = self.gifts.as_ref().is_some_and(|gifts| !gifts.list().is_empty());
        let fields = if takes_back || self.begins.is_due() || !self.deferred.is_empty() {
            self.write_gifts();
            Fields::Written
        } else {
            self.gifts = None;
            Fields::Plain
        };
        (self.entry.at_call, self.entry.returns) = (false, true);
        if fields == Fields::Written {
            return self.send(cx, REPLY_RESUME).map(drop);
        }
        let sent = Sent { resume: true, cells: 0, expected: VecDeque::new(), waits: false, fields };
        self.soon = self.host.send(cx, sent)?;
        Ok(())
    }

    /// Has a thread whose orders need a frame make one.
    pub(crate) fn poll_frame_for_orders(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        // Asked in this order: to one that has trapped all orders are the same.
        if self.entry.at_call && self.under != Under::Frame && self.orders_are_plain() && !self.begins.is_due() {
            self.settle();
            return Poll::Ready(Ok(()));
        }
        self.poll_frame(cx)
    }

    /// Has a thread that waits in a call from a rewritten site make a frame.
    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.under != Under::Frame {
            if !self.entry.at_call {
                self.settle_handler();
                return Poll::Ready(Ok(()));
            }
            self.settle();
            self.host.area.write(call_slot!(result), self.regs.rax);
            self.write_handler();
            self.send_cells(cx, REPLY_FRAME, &[], VecDeque::new())?;
            self.under = Under::Frame;
        }
        let stop = ready!(self.host.poll_stop(cx));
        self.under = Under::Nothing;
        self.entry.at_call = false;
        Poll::Ready(match stop {
            Ok(Stop::Signal { signal: Signal::Frame, .. }) => {
                self.dirty = Dirty::All;
                Ok(())
            }
            Ok(Stop::Signal { signal: Signal::Unwritten, .. }) => {
                self.dirty = Dirty::All;
                self.begins.failed = true;
                Ok(())
            }
            Ok(_) => {
                self.host.space.kill();
                Err(Errno::ESRCH)
            }
            Err(errno) => Err(errno),
        })
    }

    /// An exception, which a rewritten site may be the reason for. It was raised at `rip`.
    pub(crate) fn fault(&mut self, fault: Fault, rip: u64) -> Event {
        if !self.host.space.sites.any() {
            return Event::Fault(fault);
        }
        if fault.signal == SIGTRAP && rip != self.regs.rip {
            // A step of the application's own, of half an instruction: it is made again, with the instruction as it was.
            self.host.space.keep_text();
            return Event::Interrupted;
        }
        if fault.signal != SIGILL {
            return Event::Fault(fault);
        }
        match self.host.space.undefined(self.regs.rip) {
            Undefined::Fault => Event::Fault(fault),
            // Another thread has rewritten or restored the site since: what is there now is executed.
            Undefined::Again => Event::Interrupted,
            Undefined::Call(behind) => {
                // What the instruction that was there would have done.
                self.regs.orig_rax = self.regs.rax;
                (self.regs.rip, self.regs.rcx) = (behind, behind);
                self.regs.r11 = self.regs.rflags;
                self.dirty = Dirty::All;
                Event::Syscall { nr: self.regs.rax, args: self.regs.syscall_args() }
            }
        }
    }

    /// Before an order that lets the guest write to rewritten text, or moves it: what was there is put back.
    pub(crate) fn restore_text(&self, order: &Order) {
        let (start, len) = match *order {
            Order::Mprotect { addr, len, prot } if prot & PROT_WRITE != 0 => (addr, len),
            Order::Mremap { old_addr, old_len, .. } => (old_addr, old_len),
            _ => return,
        };
        self.host.space.restore(start, start.saturating_add(len));
    }
}
