//! Making processes and threads: [`Thread::poll_make_process`] and [`Thread::poll_make_thread`].
//!
//! The parent's host thread makes the clone itself, as a sibling of all guest processes (CLONE_PARENT), so that
//! the sentry can wait for it. The child's first call carries a secret number that ties it to this clone; it is
//! parked in that call until it is first resumed, on a copy of the parent's signal frame in its own area.

use std::collections::VecDeque;
use std::task::{Context, Poll, ready};

use moat_abi::{Errno, Result, nr};
use moat_platform::Answers;
use moat_stub::layout::{
    AREA_LEN, CELLS, Cell, Control, FEATURE_FSGSBASE, FEATURE_RDPID, MAGIC, OP_FORK, OP_SPAWN, REPLY_STOP, STACK_OFFSET,
};

use crate::area::{Area, call_slot, control};
use crate::births::{Birth, CloneStage};
use crate::call::{Call, Effect};
use crate::core::Ordered;
use crate::filter::SegmentBases;
use crate::frame::at;
use crate::space::{FreeSlot, Stage};
use crate::state::{Born, HostThread, area_addr};
use crate::stop::Stop;
use crate::thread::Thread;

const CLONE_PARENT: u64 = 0x8000;
/// CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID.
const CLONE_AS_THREAD: u64 = 0x100 | 0x200 | 0x400 | 0x800 | 0x1_0000 | 0x4_0000 | 0x20_0000;
const MADV_DONTFORK: u64 = 10;
/// How often a fork is tried again that met the making of a thread in the same process.
const MAX_TRIES: u32 = 100;

/// A clone under way.
pub(crate) struct Making {
    token: u32,
    tries: u32,
    /// The slot of a new thread.
    slot: Option<u32>,
    /// The parent has said that its orders are done, and whether the clone was made.
    cloned: bool,
}

impl Making {
    /// The parent is gone or the clone failed: the child, if there is one, is not wanted.
    pub(crate) fn withdraw(self, parent: &HostThread) {
        // A child that has reported already is known as a process by now, and gives its area back when it is reaped.
        if let Some(pending) = parent.core.births.withdraw(self.token)
            && pending.kind == Birth::Process
        {
            // No child has come for it, and none can any more.
            pending.of.areas.give_back(std::iter::once(pending.of.area));
        }
        if let Some(slot) = self.slot {
            parent.area_of_slot_unused(slot);
        }
    }
}

impl HostThread {
    /// A slot whose thread was never made.
    fn area_of_slot_unused(&self, slot: u32) {
        self.space.clear_alive(slot);
        self.space.release_slot(slot);
    }
}

fn call(nr: u32, args: [u64; 6], effect: Effect) -> (Cell, Call) {
    (Cell { op: u64::from(nr), args, result: 0 }, Call { nr, args, fd: None, effect })
}

/// The mapping of an area by a thread that is in the process already.
fn map(slot: &FreeSlot, number: u32) -> (Cell, Call) {
    let args = [area_addr(slot.slot), AREA_LEN, 3, 0x11, u64::from(number), slot.area.file_offset()];
    call(nr::MMAP, args, Effect::Map(slot.slot))
}

impl Thread {
    /// Has the thread fork.
    pub(crate) fn poll_make_process(&mut self, cx: &mut Context<'_>) -> Poll<Result<Born>> {
        ready!(self.poll_ready_to_make(cx))?;
        loop {
            if self.making.is_none() {
                self.begin_process(cx, 0)?;
            }
            match ready!(self.poll_making(cx)) {
                // A thread was just being made in this process, whose area the child would have inherited.
                Err((Errno::EAGAIN, tries)) if tries < MAX_TRIES && !self.host.is_dead() => {
                    self.begin_process(cx, tries + 1)?;
                }
                Err((errno, _)) => return Poll::Ready(Err(errno)),
                Ok(born) => return Poll::Ready(Ok(born)),
            }
        }
    }

    /// Has the thread make a sibling.
    pub(crate) fn poll_make_thread(&mut self, cx: &mut Context<'_>) -> Poll<Result<Born>> {
        ready!(self.poll_ready_to_make(cx))?;
        if self.making.is_none() {
            if let Some(born) = self.revive() {
                return Poll::Ready(Ok(born));
            }
            self.begin_thread(cx)?;
        }
        self.poll_making(cx).map_err(|(errno, _)| errno)
    }

    /// Has a kept thread of this process, if there is one, go on from where this one is: it saves the clone, its
    /// verification and two rings.
    fn revive(&mut self) -> Option<Born> {
        // What a clone inherits of the host thread (its affinity) a kept thread does not have.
        if !self.is_unmarked() {
            return None;
        }
        let host = self.host.space.take_spare().filter(|host| host.adopt())?;
        self.flush_regs();
        self.copy_frame(host.area, host.slot);
        // Both stay as quick as they were and where they were placed: a crowd of threads that come and go is looked at all the time, and
        // would be left to rings for as long as each is new.
        let mut thread = Thread::new(host);
        self.pass_on_to_kept(&mut thread);
        Some(Born { thread, space: None })
    }

    /// Copies this thread's frame to the area of another one of the process.
    fn copy_frame(&self, to: Area, slot: u32) {
        let frame = &self.host.core.frame;
        // Only what lies behind the start of the frame: the words in front are the thread's own.
        to.copy_tail(self.host.area, frame.frame & !7);
        relocate(to, area_addr(slot), frame);
    }

    fn poll_ready_to_make(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if self.making.is_none() {
            ready!(self.poll_frame(cx))?;
            ready!(self.poll_deferred(cx))?;
            if self.host.is_dead() {
                return Poll::Ready(Err(Errno::ESRCH));
            }
        }
        Poll::Ready(Ok(()))
    }

    fn begin_process(&mut self, cx: &mut Context<'_>, tries: u32) -> Result<()> {
        self.flush_regs();
        let core = self.host.core.clone();
        let mut steps = Vec::new();
        // The child must inherit no area but its own: the filter lets the clone through only when that is known.
        for slot in self.host.space.unprotected() {
            if slot.stage == Stage::Listed {
                steps.push(map(&slot, core.areas_number));
            }
            let args = [area_addr(slot.slot), AREA_LEN, MADV_DONTFORK, 0, 0, 0];
            steps.push(call(nr::MADVISE, args, Effect::Protect(slot.slot)));
            if steps.len() + 3 > CELLS {
                break; // The host refuses the fork, and the next try sees to the others.
            }
        }
        let areas = self.child_areas.as_ref().unwrap_or(&self.host.space.areas).clone();
        let area = areas.take()?;
        // At the parent's place: the child's memory is a copy, in which the stub looks for the area there.
        prepare_area(area, self.host.slot, core.frame.frame, core.bases);
        area.copy_tail(self.host.area, core.frame.frame & !7);
        let clone = Ordered { parent: self.host.clone(), areas: areas.clone(), area, slot: self.host.slot };
        let token =
            core.births.announce(Birth::Process, clone).inspect_err(|_| areas.give_back(std::iter::once(area)))?;
        // What is verified are the arguments of the clone itself; the cell has those of the stub's operation, which the
        // child goes on from.
        let (mut cell, expected) = call(nr::CLONE, [CLONE_PARENT, 0, 0, 0, 0, 0], Effect::Fork(token));
        cell.op = OP_FORK;
        let fd = u64::from(token) << 32 | u64::from(core.areas_number);
        cell.args = [CLONE_PARENT, fd, area.file_offset(), 0, 0, 0];
        steps.push((cell, expected));
        self.begin(cx, Making { token, tries, slot: None, cloned: false }, steps)
    }

    fn begin_thread(&mut self, cx: &mut Context<'_>) -> Result<()> {
        self.flush_regs();
        let core = self.host.core.clone();
        let free = self.host.space.take_slot()?;
        let (frame, at) = (core.frame.frame, area_addr(free.slot));
        prepare_area(free.area, free.slot, frame, core.bases);
        self.copy_frame(free.area, free.slot);
        let areas = self.host.space.areas.clone();
        let clone = Ordered { parent: self.host.clone(), areas, area: free.area, slot: free.slot };
        let token = match core.births.announce(Birth::Thread, clone) {
            Ok(token) => token,
            Err(errno) => {
                self.host.area_of_slot_unused(free.slot);
                return Err(errno);
            }
        };
        let mut steps = Vec::new();
        if free.stage == Stage::Listed {
            steps.push(map(&free, core.areas_number));
        }
        // Below the frame that it resumes from: it needs a stack only until its first ring.
        let stack = (at + frame) & !15;
        let args = [CLONE_AS_THREAD, stack, 0, at + control!(alive), 0, 0];
        let (mut cell, expected) = call(nr::CLONE, args, Effect::Spawn(token));
        cell.op = OP_SPAWN;
        cell.args = [CLONE_AS_THREAD, at, u64::from(token), 0, 0, 0];
        steps.push((cell, expected));
        self.begin(cx, Making { token, tries: 0, slot: Some(free.slot), cloned: false }, steps)
    }

    fn begin(&mut self, cx: &mut Context<'_>, making: Making, steps: Vec<(Cell, Call)>) -> Result<()> {
        // A child inherits the affinity, which was meant for this thread while it is looked at.
        self.host.place_anywhere();
        let (cells, expected): (Vec<Cell>, VecDeque<Call>) = steps.into_iter().unzip();
        let sent = self.send_cells(cx, REPLY_STOP, &cells, expected);
        match sent {
            Ok(()) => self.making = Some(making),
            // The parent is dead, and was so before it could clone.
            Err(_) => making.withdraw(&self.host),
        }
        sent
    }

    /// Waits for both the parent's and the child's word.
    fn poll_making(&mut self, cx: &mut Context<'_>) -> Poll<Result<Born, (Errno, u32)>> {
        let host = self.host.clone();
        let Some(making) = &mut self.making else { return Poll::Ready(Err((Errno::EIO, 0))) };
        let tries = making.tries;
        let mut outcome = Ok(());
        if !making.cloned {
            match ready!(host.poll_stop(cx)) {
                Ok(Stop::Orders { done, results }) => match results.get(done) {
                    Some(result) => outcome = Err(Errno::from_ret(*result).err().unwrap_or(Errno::EIO)),
                    None => {
                        making.cloned = true;
                        // A census that finds nobody may say from here on that the child is gone: before, it may not have been made yet.
                        host.core.births.reached(making.token, CloneStage::Told);
                    }
                },
                Ok(Stop::Signal { .. } | Stop::Call(_)) => {
                    host.space.kill();
                    outcome = Err(Errno::ESRCH);
                }
                Err(errno) => outcome = Err(errno),
            }
        }
        let born = match outcome {
            Ok(()) => ready!(host.poll_born(cx)),
            Err(errno) => Err(errno),
        };
        let making = self.making.take();
        match born {
            Ok(mut born) => {
                self.pass_on(&mut born.thread);
                Poll::Ready(Ok(born))
            }
            Err(errno) => {
                making.into_iter().for_each(|making| making.withdraw(&host));
                Poll::Ready(Err((errno, tries)))
            }
        }
    }
}

/// Sets up the fields of an area that has not been used before.
pub(crate) fn prepare_area(area: Area, slot: u32, frame: u64, bases: SegmentBases) {
    let fsgsbase = if bases == SegmentBases::Instructions { FEATURE_FSGSBASE } else { 0 };
    area.write(control!(features), fsgsbase | if crate::spin::has_rdpid() { FEATURE_RDPID } else { 0 });
    area.write32(call_slot!(state), 0);
    area.write(call_slot!(magic), MAGIC);
    area.write(control!(frame), area_addr(slot) + frame);
    area.write32(control!(reply), 0);
    area.write32(control!(set_bases), 0);
    area.write32(control!(alive), 1);
    area.write_answers(&Answers::default());
    const { assert!(size_of::<Control>() <= 4096) };
}

/// Adjusts the addresses inside a frame that was copied to another area.
fn relocate(area: Area, addr: u64, frame: &crate::frame::FrameLayout) {
    area.write(frame.frame + at::FPSTATE, addr + frame.fpstate);
    area.write(frame.frame + at::STACK_SP, addr + STACK_OFFSET);
}
