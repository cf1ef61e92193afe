//! [`HostThread`]: what the owner of a guest thread, the dispatcher and kickers share.
//!
//! A host thread is parked in a notification, runs application code, carries out orders, or is dead. The owner moves
//! it from parked to running or ordered by [`HostThread::send`]; the dispatcher moves it back by
//! [`HostThread::stopped`], taking the one snapshot of the area.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use moat_abi::Errno;
use moat_host::seccomp::{Answer, Notification};
use moat_platform::{Fault, Regs};
use moat_stub::layout::{AREA_BASE, AREA_STRIDE, KICK_SIGNAL, REPLY_EXIT, STOP_ORDERS};
use moat_sync::{LockClass, Mutex};

use crate::area::{Area, control};
use crate::core::Core;
use crate::filter::nr;
use crate::frame::{GREG_COUNT, at, regs_from_words};
use crate::space::{Space, SpaceHandle, Stage};
use crate::thread::Thread;

/// How a parked thread is set going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It rang: the call's result is 0.
    Doorbell,
    /// A fresh process, parked in the mmap of its area: the call is made.
    FirstMap,
}

/// Where a host thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Parked { id: u64, wait: Wait },
    Running,
    Ordered,
    Dead,
}

/// A call that the sentry expects of a thread, exactly so.
#[derive(Clone, Debug)]
pub struct Call {
    /// The number.
    pub nr: u32,
    /// All arguments.
    pub args: [u64; 6],
    /// A descriptor to install first, and its number.
    pub fd: Option<(Arc<OwnedFd>, u32)>,
    /// What it means to the platform itself.
    pub effect: Effect,
}

/// What a verified call does to the platform's own areas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: an order for the guest's memory.
    None,
    /// Maps the area of this slot.
    Map(u32),
    /// Keeps the area of this slot out of children.
    Protect(u32),
    /// Makes a process: only if every area is kept out of it.
    Fork,
}

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
    /// A signal, with the registers at that point.
    Signal {
        /// Everything that the frame says.
        regs: Regs,
        /// What kind.
        signal: Signal,
    },
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
    },
    /// The kick.
    Kick,
    /// A processor exception.
    Fault(Fault),
}

struct State {
    phase: Phase,
    stop: Option<Stop>,
    waker: Option<Waker>,
    expected: VecDeque<Call>,
    /// Cells sent with the last reply.
    cells: usize,
    /// Allowed calls of this thread that are complete by its next notification.
    in_flight: Vec<Effect>,
    kick: bool,
    orphan: bool,
    /// The process or thread that this one has just made.
    born: Option<Born>,
}

/// A new thread, and its process if that is new too. Dropping it ends what it owns.
pub struct Born {
    /// The thread.
    pub thread: Thread,
    /// The process.
    pub space: Option<SpaceHandle>,
}

/// One host thread of a guest process.
pub struct HostThread {
    /// In the sentry's pid namespace.
    pub tid: i32,
    /// Its process.
    pub space: Arc<Space>,
    /// Its memory.
    pub area: Area,
    /// Which of its process's areas that is.
    pub slot: u32,
    /// The platform.
    pub core: Arc<Core>,
    state: Mutex<State>,
}

/// Guest address of the area in a slot.
pub fn area_addr(slot: u32) -> u64 {
    AREA_BASE + u64::from(slot) * AREA_STRIDE
}

impl HostThread {
    /// A thread parked in notification `id`.
    pub fn new(core: &Arc<Core>, space: &Arc<Space>, tid: i32, area: Area, slot: u32, id: u64, wait: Wait) -> Arc<HostThread> {
        let in_flight = if wait == Wait::FirstMap { vec![Effect::Map(slot)] } else { Vec::new() };
        let state = State {
            phase: Phase::Parked { id, wait },
            stop: None,
            waker: None,
            expected: VecDeque::new(),
            cells: 0,
            in_flight,
            kick: false,
            orphan: false,
            born: None,
        };
        let state = Mutex::new(LockClass::Platform, state);
        let thread = HostThread { tid, space: space.clone(), area, slot, core: core.clone(), state };
        Arc::new(thread)
    }

    /// Whether this is the thread whose id is the process id.
    pub fn is_leader(&self) -> bool {
        self.tid == self.space.pid
    }

    /// Lets a parked thread go on, with its reply already in the area.
    ///
    /// # Errors
    /// ESRCH if it is dead.
    pub fn send(&self, cx: &mut Context<'_>, what: Sent) -> Result<(), Errno> {
        let mut s = self.state.lock();
        let Phase::Parked { id, wait } = s.phase else { return Err(Errno::ESRCH) };
        s.phase = if what.resume { Phase::Running } else { Phase::Ordered };
        s.stop = None;
        s.cells = what.cells;
        s.expected = what.expected;
        s.waker = Some(cx.waker().clone());
        drop(s);
        self.core.answer(id, wait);
        Ok(())
    }

    /// The stop, if there is one: `Err` if the thread is dead.
    pub fn poll_stop(&self, cx: &mut Context<'_>) -> Poll<Result<Stop, Errno>> {
        let mut s = self.state.lock();
        if let Some(stop) = s.stop.take() {
            return Poll::Ready(Ok(stop));
        }
        if s.phase == Phase::Dead {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        match &mut s.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    /// Takes the thread that this one made, if it has reported.
    pub fn poll_born(&self, cx: &mut Context<'_>) -> Poll<Result<Born, Errno>> {
        let mut s = self.state.lock();
        if let Some(born) = s.born.take() {
            return Poll::Ready(Ok(born));
        }
        if s.phase == Phase::Dead {
            return Poll::Ready(Err(Errno::ESRCH));
        }
        s.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Notes the thread that this one made, and wakes its owner; without an owner the new thread ends at once.
    pub fn gave_birth(&self, born: Born) {
        let mut s = self.state.lock();
        if s.orphan || s.phase == Phase::Dead {
            drop(s);
            drop(born);
            return;
        }
        s.born = Some(born);
        let waker = s.waker.take();
        drop(s);
        wake(waker);
    }

    /// Whether a kick came while the thread was parked; forgets it.
    pub fn take_kick(&self) -> bool {
        std::mem::take(&mut self.state.lock().kick)
    }

    /// Whether the thread is dead.
    pub fn is_dead(&self) -> bool {
        self.state.lock().phase == Phase::Dead
    }

    /// Makes a running thread stop, or the next switch end at once.
    pub fn kick(&self) {
        let mut s = self.state.lock();
        match s.phase {
            Phase::Running => {
                // The process is not reaped while this lock is held and the phase is not Dead.
                if crate::space::tgkill(self.space.pid, self.tid, KICK_SIGNAL.cast_signed()) == Err(Errno::ESRCH) {
                    s.phase = Phase::Dead;
                    let waker = s.waker.take();
                    drop(s);
                    wake(waker);
                }
            }
            Phase::Parked { .. } | Phase::Ordered => s.kick = true,
            Phase::Dead => {}
        }
    }

    /// The host thread is gone.
    pub fn died(&self) {
        let mut s = self.state.lock();
        s.phase = Phase::Dead;
        s.stop = None;
        s.expected.clear();
        let (waker, born) = (s.waker.take(), s.born.take());
        drop(s);
        drop(born);
        wake(waker);
    }

    /// The owner has gone: the host thread ends, now or at its next stop.
    pub fn abandon(&self) {
        let mut s = self.state.lock();
        s.orphan = true;
        let (waker, born) = (s.waker.take(), s.born.take());
        match s.phase {
            Phase::Parked { id, .. } => {
                drop(s);
                self.end(id);
            }
            Phase::Running => {
                drop(s);
                self.kick();
            }
            Phase::Ordered | Phase::Dead => drop(s),
        }
        drop((waker, born));
    }

    /// Ends a parked thread that has no owner. The first thread of a process stays parked instead: the host finds the
    /// memory of a process by it, and it dies with the process.
    fn end(&self, id: u64) {
        if self.is_leader() {
            return;
        }
        self.area.write32(control!(order_count), 0);
        self.area.write32(control!(reply), REPLY_EXIT);
        self.core.forget_thread(self.tid);
        self.died();
        self.core.answer(id, Wait::Doorbell);
        self.space.release_slot(self.slot);
    }

    /// The thread rings: takes the snapshot.
    pub fn stopped(&self, id: u64) {
        self.complete();
        let mut s = self.state.lock();
        match s.phase {
            Phase::Dead => return,
            // Interrupted in the call (a stop signal from outside) before it was answered: it rings anew.
            Phase::Parked { wait, .. } => {
                s.phase = Phase::Parked { id, wait };
                return;
            }
            // Interrupted after the answer was written and before it was read.
            Phase::Running | Phase::Ordered if self.area.read32(control!(reply)) != 0 => {
                drop(s);
                self.core.answer(id, Wait::Doorbell);
                return;
            }
            Phase::Running | Phase::Ordered => {}
        }
        let Some(stop) = self.snapshot(s.cells) else {
            drop(s);
            self.space.kill();
            return;
        };
        s.phase = Phase::Parked { id, wait: Wait::Doorbell };
        s.expected.clear();
        if s.orphan {
            drop(s);
            self.end(id);
            return;
        }
        s.stop = Some(stop);
        let waker = s.waker.take();
        drop(s);
        wake(waker);
    }

    /// The thread makes a call that the filter leaves to the sentry.
    pub fn called(&self, n: &Notification) {
        self.complete();
        let mut s = self.state.lock();
        let call = if matches!(s.phase, Phase::Running | Phase::Ordered) { take_expected(&mut s.expected, n) } else { None };
        drop(s);
        let Some(call) = call else {
            // Not what it was told: a guest that tries the stub's system calls on its own.
            self.space.kill();
            return;
        };
        let refused = match call.effect {
            Effect::None | Effect::Map(_) => false,
            Effect::Protect(slot) => self.space.stage(slot) == Some(Stage::Listed),
            Effect::Fork => !self.space.all_protected(),
        };
        let answer = if refused {
            Answer::Fail(Errno::EAGAIN)
        } else if let Some((fd, number)) = &call.fd {
            match self.core.listener.add_fd(n.id, fd.as_fd(), *number) {
                Ok(()) => Answer::Continue,
                Err(errno) => Answer::Fail(errno),
            }
        } else {
            Answer::Continue
        };
        if !refused && matches!(call.effect, Effect::Map(_) | Effect::Protect(_)) {
            self.state.lock().in_flight.push(call.effect);
        }
        // The caller may be gone; its end is heard of elsewhere.
        let _ = self.core.listener.answer(n.id, answer);
    }

    /// This thread has made another notification: the calls allowed before are complete.
    fn complete(&self) {
        let mut s = self.state.lock();
        if s.in_flight.is_empty() {
            return;
        }
        let effects = std::mem::take(&mut s.in_flight);
        drop(s);
        for effect in effects {
            match effect {
                Effect::Map(slot) => self.space.set_stage(slot, Stage::Mapped),
                Effect::Protect(slot) => self.space.set_stage(slot, Stage::Protected),
                Effect::None | Effect::Fork => {}
            }
        }
    }

    /// Reads the area once; `None` for what a stub never writes.
    fn snapshot(&self, cells: usize) -> Option<Stop> {
        let area = self.area;
        let why = area.read32(control!(stop));
        if why == STOP_ORDERS {
            let done = (area.read32(control!(orders_done)) as usize).min(cells);
            let results = (0..cells.min(done + 1)).map(|i| area.read_result(i)).collect();
            return Some(Stop::Orders { done, results });
        }
        let frame = self.core.frame.frame;
        if area.read(control!(frame)) != area_addr(self.slot) + frame {
            return None;
        }
        let mut words = [0; GREG_COUNT];
        for (i, word) in (0u64..).zip(&mut words) {
            *word = area.read(frame + at::GREGS + i * 8);
        }
        let mut regs = regs_from_words(&words);
        regs.fs_base = area.read(control!(fs_base));
        regs.gs_base = area.read(control!(gs_base));
        regs.orig_rax = u64::MAX;
        let addr = area.read(frame + at::SI_ADDR);
        let signal = match why {
            31 => {
                regs.orig_rax = regs.rax;
                let arch = (area.read(frame + at::SI_SYSCALL) >> 32) as u32;
                Signal::Syscall { arch, call_addr: addr }
            }
            KICK_SIGNAL => Signal::Kick,
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
}

/// What goes with a reply.
pub struct Sent {
    /// Application code runs next.
    pub resume: bool,
    /// Cells in the area.
    pub cells: usize,
    /// The calls among them, in order.
    pub expected: VecDeque<Call>,
}

/// The expected call that `n` is, dropping those before it, which the filter allows by itself.
fn take_expected(expected: &mut VecDeque<Call>, n: &Notification) -> Option<Call> {
    // clone has five arguments; the stub leaves the sixth register as it is.
    let count = if n.nr == nr::CLONE { 5 } else { 6 };
    let at = expected.iter().position(|call| call.nr == n.nr && call.args[..count] == n.args[..count])?;
    expected.drain(..=at).next_back()
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
