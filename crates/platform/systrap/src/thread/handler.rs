//! A handler of a signal, which the thread enters without anybody's reaching into its memory.
//!
//! What the handler finds on its stack goes with the reply, as what a call takes back does. The extended state in it the thread writes itself:
//! out of the processor where it waits in a call from a rewritten site (`stub/src/program/call/begins.rs`), which so needs no frame of the
//! host's, or out of the frame that it has (`stub/src/program/extended.rs`).

use moat_platform::regs::{RFLAGS_TF, USER_RFLAGS};
use moat_platform::{Event, HandlerEntry, Regs};
use moat_stub::layout::{PARCEL, PARCEL_LEN};

use crate::area::call_slot;
use crate::begins::Due;
use crate::frame::{STATE_HEADER, canonical, components};
use crate::parcel;
use crate::thread::{Dirty, FIXED_RFLAGS, Thread, Under};

/// Bytes of the magic number at the end of an extended state.
const MARKER: usize = 4;

impl Thread {
    /// Has the handler begin with the next reply, if the thread can do that itself.
    pub(crate) fn begin_handler(&mut self, entry: &HandlerEntry<'_>) -> bool {
        let regs = Regs { rflags: entry.regs.rflags & USER_RFLAGS | FIXED_RFLAGS, ..*entry.regs };
        // A reply with orders may change what can be written; one handler at a time.
        let at_rest = self.under == Under::Nothing
            && self.deferred.is_empty()
            && !self.entry.has_untold()
            && !self.begins.is_due();
        // Whoever steps would step through the stub.
        let steps = regs.rflags & RFLAGS_TF != 0;
        let bases =
            (regs.fs_base, regs.gs_base) != (self.regs.fs_base, self.regs.gs_base) || self.wanted_bases() != self.bases;
        let fresh = &self.host.core.fresh_fpu;
        let state = u64::try_from(fresh.len()).unwrap_or(u64::MAX);
        // XSAVE faults at any other address.
        let aligned =
            entry.fpstate != 0 && entry.fpstate.is_multiple_of(64) && entry.fpstate.checked_add(state).is_some();
        let parts = entry.frame.len().saturating_add(STATE_HEADER.len()).saturating_add(MARKER);
        let fits = u64::try_from(parts).is_ok_and(|len| len <= PARCEL_LEN);
        // There, most registers are in the processor, and the extended state.
        let in_call = self.entry.at_call() && (components(fresh).is_none() || !self.begins.keeps(&regs));
        if !at_rest || steps || bases || !aligned || !fits || in_call || !canonical(regs.rip) || self.host.is_dead() {
            return false;
        }
        // What the call takes back else is written before: all gifts are the handler's.
        self.settle();
        self.begins.interrupted = self.regs;
        self.begins.due = Some(Due { regs, at: entry.at, frame: entry.frame.to_vec(), fpstate: entry.fpstate });
        (self.regs, self.dirty) = (regs, Dirty::All);
        true
    }

    /// The handler could not begin: the thread is where it was to be interrupted.
    pub(crate) fn unwritten(&mut self) -> Event {
        self.begins.failed = false;
        (self.regs, self.dirty) = (self.begins.interrupted, Dirty::All);
        Event::Unwritten
    }

    /// Tells the stub of the handler that is due, if one is: it begins with the reply that comes next.
    pub(crate) fn write_handler(&mut self) -> bool {
        let Some(due) = self.begins.due.take() else { return false };
        let (area, fresh) = (self.host.area, &self.host.core.fresh_fpu);
        let mut bytes = due.frame;
        let mut gifts = vec![(due.at, bytes.len())];
        if self.entry.at_call() {
            let r = &due.regs;
            for (i, arg) in (0_u64..).zip([r.rdi, r.rsi, r.rdx]) {
                area.write(call_slot!(args).wrapping_add(i.wrapping_mul(8)), arg);
            }
            // The stub restores the others from where the call has left them.
            area.write(call_slot!(rsp), r.rsp);
            area.write(call_slot!(rip), r.rip);
            area.write(call_slot!(rflags), r.rflags);
            area.write(call_slot!(result), r.rax);
            area.write(call_slot!(xfeatures), components(fresh).unwrap_or(0));
            // What XSAVE does not write: the software's bytes and most of the header, and the number at the end.
            let end = fresh.len().saturating_sub(MARKER);
            for part in [STATE_HEADER, end..fresh.len()] {
                let at = due.fpstate.saturating_add(u64::try_from(part.start).unwrap_or(0));
                let part = fresh.get(part).unwrap_or_default();
                gifts.push((at, part.len()));
                bytes.extend_from_slice(part);
            }
        }
        area.write_unaligned(PARCEL, 0, &bytes);
        parcel::write_gifts(area, &gifts, 0);
        // By this the stub knows that there is one.
        area.write(call_slot!(fpstate), due.fpstate);
        true
    }

    /// Has the handler that is due find what it is to find, written by the sentry. The thread has a frame.
    pub(crate) fn settle_handler(&mut self) {
        // Without a frame the thread makes one first (`poll_frame`), and has the handler begin with that.
        if self.entry.at_call() {
            return;
        }
        let Some(due) = self.begins.due.take() else { return };
        // The state of what is interrupted, before the handler's own is in its place.
        let frame = self.host.core.frame;
        let state = self.host.area.read_bytes(frame.fpstate, frame.fp_len);
        self.host.area.write_bytes(frame.fpstate, &self.host.core.fresh_fpu);
        let pid = self.host.space.pid;
        let written = |(at, bytes): (u64, &Vec<u8>)| moat_host::memory::write(pid, at, bytes) == Ok(bytes.len());
        if ![(due.at, &due.frame), (due.fpstate, &state)].into_iter().all(written) {
            self.begins.failed = true;
        }
    }
}
