//! [`Thread`]: the owner's side of a guest thread, the platform's [`GuestThread`].

mod called;
mod extended;
mod handler;
mod own;
mod progress;
mod stopped;

pub(crate) use progress::{Dirty, Known, Under};

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use moat_abi::{Errno, Result, nr};
use moat_platform::regs::USER_RFLAGS;
use moat_platform::{
    Answers, Event, Gifts, GuestThread, HandlerEntry, HostFutex, Kick, NewProcess, Order, Parcel, Regs, Stay,
};
use moat_stub::layout::{CELLS, Cell, REPLY_RESUME, REPLY_STOP};

use crate::area::{AreaPool, control};
use crate::begins::Begins;
use crate::birth::Making;
use crate::call::Call;
use crate::entry::Entry;
use crate::filter::notifies;
use crate::frame::{at, words_from_regs};
use crate::order::{MAX_CELLS, is_in_range, join_mappings, lower, mapped_file};
use crate::state::{Fields, HostThread, Leaves, Sent, Soon, area_addr};
use crate::stop::Stop;

/// Bases that no thread has: they are not canonical.
const UNKNOWN_BASES: (u64, u64) = (1 << 63, 1 << 63);
/// Bit 1 of RFLAGS always reads as one; bit 9 is the interrupt flag, which user code runs with.
const FIXED_RFLAGS: u64 = 0x202;

/// One guest thread.
pub struct Thread {
    pub(crate) host: Arc<HostThread>,
    /// Where it waits in a call from a rewritten site, those that [`Thread::load`] has not read yet are missing.
    pub(crate) regs: Regs,
    /// What of the registers is there.
    pub(crate) known: Known,
    /// The bases that the processor has.
    pub(crate) bases: (u64, u64),
    pub(crate) dirty: Dirty,
    pub(crate) entry: Entry,
    pub(crate) deferred: VecDeque<Order>,
    pub(crate) under: Under,
    /// The thread is stopped in a call that it can take things back from.
    pub(crate) in_call: bool,
    /// What the call has brought along.
    pub(crate) taken: Option<(u64, usize)>,
    /// What it takes back.
    pub(crate) gifts: Option<Gifts>,
    /// A handler that begins when the thread goes on.
    pub(crate) begins: Begins,
    last_result: u64,
    /// When it stops again after the last reply.
    soon: Soon,
    /// An order of `poll_order` is in `deferred`.
    ordered: bool,
    pub(crate) making: Option<Making>,
    /// The host has an rseq area of this thread's.
    rseq: bool,
    /// The host thread's name, if it was ever ordered; children inherit it.
    name: Option<[u8; 16]>,
    /// Somebody knows the host thread's id, and may have changed what children inherit: its affinity.
    marked: bool,
    /// Whence the areas of the processes that it makes come, if not whence its own does.
    pub(crate) child_areas: Option<Arc<AreaPool>>,
}

impl Thread {
    /// The owner of a parked thread.
    pub fn new(host: Arc<HostThread>) -> Thread {
        Thread {
            host,
            regs: Regs::default(),
            known: Known::All,
            bases: (0, 0),
            dirty: Dirty::All,
            entry: Entry::default(),
            deferred: VecDeque::new(),
            under: Under::Nothing,
            in_call: false,
            taken: None,
            gifts: None,
            begins: Begins::default(),
            last_result: 0,
            soon: Soon::Unknown,
            ordered: false,
            making: None,
            rseq: false,
            name: None,
            marked: false,
            child_areas: None,
        }
    }

    /// Makes `child`, whose area holds a copy of this thread's frame, go on from where this thread is.
    pub(crate) fn pass_on(&self, child: &mut Thread) {
        child.regs = self.regs;
        child.bases = self.bases;
        // The child's frame is a copy of this one's, which was flushed before.
        child.dirty = Dirty::Nothing;
        (child.name, child.marked) = (self.name, self.marked);
        if self.marked {
            child.host.leave_placement();
        }
        // A fork inherits the registration with the memory that it is in; a thread has none (rseq(2)).
        child.rseq = self.rseq && !Arc::ptr_eq(&child.host.space, &self.host.space);
    }

    /// As [`Thread::pass_on`], for a child that is a kept thread.
    pub(crate) fn pass_on_to_kept(&self, child: &mut Thread) {
        self.pass_on(child);
        // Those of its last owner, or of the stub: they are set whatever they are to be.
        child.bases = UNKNOWN_BASES;
        // Often the parent's: an order less, while which no text can be rewritten.
        child.name = child.host.name();
        if let Some(name) = self.name {
            child.defer(Order::SetName(name));
        }
    }

    /// Whether a kept thread can take the place of a clone of this one.
    pub(crate) fn is_unmarked(&self) -> bool {
        !self.marked
    }

    /// Makes this the thread of a blank process: as [`Thread::new`], with the processor's bases known.
    pub(crate) fn blank(&mut self) {
        self.regs = Regs::default();
        self.dirty = Dirty::All;
    }

    /// Writes the general registers into the frame, if the host thread does not have them yet.
    pub(crate) fn flush_regs(&mut self) {
        let (area, frame) = (self.host.area, self.host.core.frame.frame);
        match self.dirty {
            Dirty::Nothing => {}
            // How nearly every call ends: one word in place of all of them.
            Dirty::Result => area.write(frame + at::RAX, self.regs.rax),
            Dirty::All => {
                for (i, word) in (0u64..).zip(words_from_regs(&self.regs)) {
                    area.write(frame + at::GREGS + i * 8, word);
                }
            }
        }
        self.dirty = Dirty::Nothing;
    }

    /// Sends a reply with as many deferred orders as fit in.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, reply: u32) -> Result<usize> {
        let mut cells = Vec::new();
        let mut expected = VecDeque::new();
        let mut last_cell = 0;
        let area_at = area_addr(self.host.slot) + control!(cells);
        let number = self.host.core.areas_number + 1 + self.host.slot;
        let mut open = None;
        join_mappings(&mut self.deferred);
        // No order is begun that might not fit in whole.
        while cells.len() + MAX_CELLS <= CELLS
            && let Some(order) = self.deferred.pop_front()
        {
            last_cell = cells.len();
            self.restore_text(&order);
            let mut lowered = lower(&order, area_at + (last_cell * size_of::<Cell>()) as u64, number);
            // Nothing but the sentry, for this thread, puts a file under its number: there is the one before, or none.
            if let Some(call) = lowered.call.as_mut().filter(|_| open.is_some()) {
                call.fd = None;
            }
            let room = cells.len() + lowered.cells.len() + MAX_CELLS <= CELLS;
            let next = self.deferred.front().filter(|_| room).and_then(mapped_file);
            open = mapped_file(&order).filter(|file| next.is_some_and(|next| Arc::ptr_eq(file, next))).map(Arc::as_ptr);
            if open.is_some() {
                // The close.
                lowered.cells.truncate(1);
            }
            cells.extend(lowered.cells);
            expected.extend(lowered.call.filter(|call| notifies(call.nr, &call.args)));
        }
        self.send_cells(cx, reply, &cells, expected)?;
        Ok(last_cell)
    }

    /// Sends a reply.
    pub(crate) fn send_cells(
        &mut self,
        cx: &mut Context<'_>,
        reply: u32,
        cells: &[Cell],
        expected: VecDeque<Call>,
    ) -> Result<()> {
        let area = self.host.area;
        for (i, cell) in cells.iter().enumerate() {
            area.write_cell(i, cell);
        }
        // The cells and their number before the reply: a thread that looks awake begins when it sees that.
        area.write32(control!(order_count), u32::try_from(cells.len()).unwrap_or(0));
        area.write32(control!(reply), reply);
        let waits = cells.iter().any(|cell| cell.op == u64::from(nr::FUTEX) || cell.op == u64::from(nr::FUTEX_WAITV));
        let (resume, fields) = (reply == REPLY_RESUME, Fields::Written);
        self.soon = self.host.send(cx, Sent { resume, cells: cells.len(), expected, waits, fields })?;
        Ok(())
    }

    /// Carries out all deferred orders; gives the result of the last.
    pub(crate) fn poll_deferred(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64>> {
        ready!(self.poll_frame_for_orders(cx))?;
        loop {
            if let Under::Batch { last_cell } = self.under {
                let stop = ready!(self.host.poll_stop(cx));
                self.under = Under::Nothing;
                match stop {
                    Ok(Stop::Orders { done, results }) => {
                        self.check_batch(done, &results)?;
                        self.last_result = results.get(last_cell).copied().unwrap_or(0);
                    }
                    // The stub never does this in the middle of orders.
                    Ok(Stop::Signal { .. } | Stop::Call(_)) => {
                        self.host.space.kill();
                        return Poll::Ready(Err(Errno::ESRCH));
                    }
                    Err(errno) => return Poll::Ready(Err(errno)),
                }
            }
            if self.deferred.is_empty() {
                return Poll::Ready(Ok(self.last_result));
            }
            let last_cell = self.send(cx, REPLY_STOP)?;
            self.under = Under::Batch { last_cell };
        }
    }

    /// The error of the first order that failed; those behind it are dropped.
    fn check_batch(&mut self, done: usize, results: &[u64]) -> Result<()> {
        if let Some(result) = results.get(done) {
            self.deferred.clear();
            // A stub that says "failed" and gives no errno lies; any errno will do.
            return Err(Errno::from_ret(*result).err().unwrap_or(Errno::EIO));
        }
        Ok(())
    }

    fn resume(&mut self, cx: &mut Context<'_>) -> Result<()> {
        if self.entry.at_call() {
            return self.return_to_site(cx);
        }
        let bases = self.wanted_bases();
        if self.dirty == Dirty::All {
            self.settle();
        }
        if !self.deferred.is_empty() {
            self.settle_handler();
        }
        self.write_gifts();
        self.flush_regs();
        let area = self.host.area;
        area.write32(control!(set_bases), u32::from(bases != self.bases));
        // Dear where it takes a system call of the guest's (no FSGSBASE), so only what has changed.
        if bases != self.bases {
            area.write(control!(fs_base), bases.0);
            area.write(control!(gs_base), bases.1);
            self.bases = bases;
        }
        self.send(cx, REPLY_RESUME).map(drop)
    }

    /// Notes what an order leaves behind in the host thread.
    fn note(&mut self, order: &Order) {
        const UNREGISTER: u32 = 1;
        match order {
            Order::Rseq { flags, .. } => self.rseq = flags & UNREGISTER == 0,
            Order::SetName(name) => self.name = Some(*name),
            _ => {}
        }
    }
}

impl GuestThread for Thread {
    fn regs(&mut self) -> Regs {
        self.load();
        self.regs
    }

    fn set_regs(&mut self, regs: &Regs) {
        self.load();
        self.regs = *regs;
        // The guest's flags may come from ptrace or a signal frame: IOPL and the like are not its to set.
        self.regs.rflags = regs.rflags & USER_RFLAGS | FIXED_RFLAGS;
        self.dirty = Dirty::All;
    }

    fn set_ret(&mut self, rax: u64) {
        self.regs.rax = rax;
        self.dirty = self.dirty.max(Dirty::Result);
    }

    fn fpu(&mut self) -> Result<Vec<u8>> {
        self.load();
        self.read_extended()
    }

    fn set_fpu(&mut self, image: &[u8]) -> Result<()> {
        self.load();
        self.write_extended(image)
    }

    fn reset_fpu(&mut self) {
        self.load();
        self.reset_extended();
    }

    fn fresh_fpu(&self) -> &[u8] {
        &self.host.core.fresh_fpu
    }

    fn enter_handler(&mut self, entry: &HandlerEntry<'_>) -> bool {
        self.load();
        self.begin_handler(entry)
    }

    fn hot_site(&mut self) -> Option<u64> {
        self.entry.hot_site()
    }

    fn publish(&mut self, answers: &Answers) {
        self.host.area.write_answers(answers);
    }

    fn poll_whole(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.load();
        self.poll_frame(cx)
    }

    fn parcel(&mut self) -> Option<Parcel> {
        if !self.in_call {
            return None;
        }
        // The thread has seen rewritten text as it is; the sentry is to see what was there.
        let sites = &self.host.space.sites;
        let len = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let taken = self.taken.filter(|(addr, n)| sites.within(*addr, addr.saturating_add(len(*n))).is_empty());
        Some(Parcel { memory: self.host.clone(), taken, gives: true })
    }

    fn take_back(&mut self, gifts: Gifts) {
        self.gifts = Some(gifts);
        if !self.in_call {
            self.settle();
        }
    }

    fn poll_switch(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        if self.entry.has_untold() {
            return self.poll_untold(cx);
        }
        if self.begins.failed {
            return Poll::Ready(self.unwritten());
        }
        if self.under != Under::Switch {
            // Looked at first: nothing else is to read the other registers on the way of a short call.
            let plain = self.returns_plainly();
            if !plain {
                self.load();
            }
            // More than one reply holds: the last of them resumes.
            if self.under != Under::Nothing || self.deferred.len() * MAX_CELLS > CELLS {
                match ready!(self.poll_deferred(cx)) {
                    Ok(_) => {}
                    Err(Errno::ESRCH) if self.host.is_dead() => return Poll::Ready(Event::Died),
                    Err(errno) => return Poll::Ready(Event::OrderFailed(errno)),
                }
            }
            // Before the thread is sent off: a kick that came while it was parked has sent no signal.
            if self.host.take_kick() {
                self.load();
                self.settle();
                return Poll::Ready(Event::Interrupted);
            }
            if !plain && let Some(event) = self.bad_state() {
                self.settle();
                return Poll::Ready(event);
            }
            if !plain && self.entry.at_call() && self.needs_frame_to_resume() && ready!(self.poll_frame(cx)).is_err() {
                return Poll::Ready(Event::Died);
            }
            if self.resume(cx).is_err() {
                return Poll::Ready(Event::Died);
            }
            self.under = Under::Switch;
            // A stop that comes at once is taken in here, before this future lets its worker go.
            if self.soon == Soon::Expected {
                self.host.linger();
            }
        }
        let stop = ready!(self.host.poll_stop(cx));
        self.under = Under::Nothing;
        self.in_call = false;
        let returned = std::mem::take(&mut self.entry.returns);
        Poll::Ready(match stop {
            Ok(Stop::Call(called)) => return self.poll_called(cx, called),
            Ok(Stop::Signal { regs, signal }) => self.event(regs, signal),
            Ok(Stop::Orders { done, results }) => match self.check_batch(done, &results) {
                Err(errno) => {
                    // It has not got out of the call.
                    self.entry.at_call = returned;
                    Event::OrderFailed(errno)
                }
                // Only a failure brings the stub back here: this was application code that rang.
                Ok(()) => {
                    self.host.space.kill();
                    Event::Died
                }
            },
            Err(_) => Event::Died,
        })
    }

    fn poll_order(&mut self, cx: &mut Context<'_>, order: &Order) -> Poll<Result<u64>> {
        self.load();
        if !self.ordered {
            if !is_in_range(order) {
                return Poll::Ready(Err(Errno::EINVAL));
            }
            self.deferred.push_back(order.clone());
            self.ordered = true;
        }
        let result = ready!(self.poll_deferred(cx));
        self.ordered = false;
        self.deferred.clear();
        if result.is_ok() {
            self.note(order);
        }
        Poll::Ready(result)
    }

    fn has_host_futexes(&self) -> bool {
        self.host.core.rewrites
    }

    fn poll_futex(&mut self, cx: &mut Context<'_>, call: &HostFutex) -> Poll<Result<u64>> {
        self.load();
        self.poll_own(cx, call)
    }

    fn defer(&mut self, order: Order) {
        // Each new task is given its name, which most threads have already.
        let is_known = matches!(order, Order::SetName(name) if self.name == Some(name));
        if is_in_range(&order) && !is_known {
            self.note(&order);
            self.deferred.push_back(order);
        }
    }

    fn poll_fork(&mut self, cx: &mut Context<'_>) -> Poll<Result<NewProcess>> {
        self.load();
        let born = ready!(self.poll_make_process(cx))?;
        let space = born.space.ok_or(Errno::EIO)?;
        Poll::Ready(Ok(NewProcess { space: Arc::new(space), thread: Box::new(born.thread) }))
    }

    fn poll_spawn(&mut self, cx: &mut Context<'_>) -> Poll<Result<Box<dyn GuestThread>>> {
        self.load();
        let born = ready!(self.poll_make_thread(cx))?;
        Poll::Ready(Ok(Box::new(born.thread)))
    }

    fn stay(&self) -> Option<Stay> {
        Some(self.host.stay())
    }

    fn kicker(&self) -> Arc<dyn Kick> {
        self.host.kicker()
    }

    fn host_tid(&mut self) -> i32 {
        self.marked = true;
        self.host.leave_placement();
        self.host.tid
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        if let Some(making) = self.making.take() {
            making.withdraw(&self.host);
        }
        // What a next task would find of this one: a registration with the host, an affinity, a call half made.
        let traces = self.rseq || self.marked || self.entry.at_call();
        self.host.set_name(self.name);
        self.host.abandon(if traces { Leaves::Traces } else { Leaves::Nothing });
    }
}
