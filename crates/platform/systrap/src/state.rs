//! [`HostThread`]: what the owner of a guest thread, the dispatcher and kickers share.
//!
//! A host thread is parked in a notification, runs application code, carries out orders, or is dead. The owner moves
//! it from parked to running or ordered by [`HostThread::send`]; the dispatcher moves it back by
//! [`HostThread::stopped`], taking the one snapshot of the area.

mod asleep;
mod ending;
mod kicker;
mod looking;
mod sent;
mod verified;

pub use sent::{Fields, Sent, Soon};

use std::collections::VecDeque;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use moat_abi::Errno;
use moat_stub::layout::{AREA_BASE, AREA_STRIDE, KICK_SIGNAL, info};
use moat_sync::{LockClass, Mutex, MutexGuard};

use crate::area::{Area, call_slot, control};
use crate::call::{Call, Effect};
use crate::core::{HandOff, SystrapCore};
use crate::cpu_time::CpuTime;
use crate::pace::Pace;
use crate::placement::Placement;
use crate::room::Room;
use crate::space::{Space, SpaceHandle};
use crate::stop::{Stop, snapshot};
use crate::thread::Thread;

/// How a parked thread is set going.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It rang: the call's result is 0.
    Doorbell,
    /// A fresh process, parked in the mmap of its area: the call is made.
    FirstMap,
    /// It looks at its area, awake, or is about to ring: the sentry has not taken in a ring.
    Awake,
    /// It was told to wait on a futex in its area ([`crate::sleepers`]).
    Futex,
}

/// Where a host thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Parked { id: u64, wait: Wait },
    Running,
    Ordered,
    Dead,
}

impl Phase {
    /// Whether the host lists a notification of the thread's.
    fn is_listed(self) -> bool {
        matches!(self, Phase::Parked { wait: Wait::Doorbell | Wait::FirstMap, .. })
    }
}

struct HostThreadState {
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
    /// A reply was written when the thread had already decided to ring: the ring is answered as it comes.
    owed: bool,
    pace: Pace,
    /// It was brief when it went on.
    brief: bool,
    /// It carries out an order that a kick ends.
    waits: bool,
    /// It counts among those that wait in the host.
    rests: bool,
    placement: Placement,
    /// What it is called on the host, since its last owner has gone.
    name: Option<[u8; 16]>,
    /// Where it stopped last, and when it took the reply before, by its own word.
    cpu: u32,
    resumed_at: u64,
    /// The process or thread that this one has just made.
    born: Option<Result<Born, Errno>>,
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
    pub core: Arc<SystrapCore>,
    state: Mutex<HostThreadState>,
    /// It is on the list of those that are looked at.
    pub watched: AtomicBool,
    /// See [`HostThread::cpu_time_ns`].
    cpu_time: CpuTime,
}

/// Guest address of the area in a slot.
pub fn area_addr(slot: u32) -> u64 {
    AREA_BASE + u64::from(slot) * AREA_STRIDE
}

impl HostThread {
    /// A thread parked in notification `id`.
    pub fn new(
        core: &Arc<SystrapCore>,
        space: &Arc<Space>,
        tid: i32,
        area: Area,
        slot: u32,
        id: u64,
        wait: Wait,
    ) -> Arc<HostThread> {
        core.sleepers.listed(1);
        let in_flight = if wait == Wait::FirstMap { vec![Effect::Map(slot)] } else { Vec::new() };
        let state = HostThreadState {
            phase: Phase::Parked { id, wait },
            stop: None,
            waker: None,
            expected: VecDeque::new(),
            cells: 0,
            in_flight,
            kick: false,
            orphan: false,
            owed: false,
            pace: Pace::default(),
            brief: false,
            waits: false,
            rests: false,
            placement: Placement::default(),
            name: None,
            cpu: u32::MAX,
            resumed_at: 0,
            born: None,
        };
        let state = Mutex::new(LockClass::Platform, state);
        let thread = HostThread {
            tid,
            space: space.clone(),
            area,
            slot,
            core: core.clone(),
            state,
            watched: AtomicBool::new(false),
            cpu_time: CpuTime::default(),
        };
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
    pub fn send(self: &Arc<Self>, cx: &mut Context<'_>, what: Sent) -> Result<Soon, Errno> {
        let mut s = self.state.lock();
        let Phase::Parked { id, wait } = s.phase else { return Err(Errno::ESRCH) };
        let phase = if what.resume { Phase::Running } else { Phase::Ordered };
        self.enter(&mut s, phase);
        s.stop = None;
        s.cells = what.cells;
        s.expected = what.expected;
        s.waits = what.waits;
        s.set_waker(cx);
        let spinner = &self.core.spinner;
        let calm = !s.expected.is_empty() || s.waits;
        // One that has come since the owner looked for it found the thread parked still.
        let kicked = (what.resume || s.waits) && std::mem::take(&mut s.kick);
        self.goes_on(&mut s);
        if calm {
            s.pace.calm();
        }
        let room = spinner.room();
        let looked_at = !calm && (room == Room::Crowd || room == Room::Spare && s.pace.is_hot());
        let (cpu, brief) = (s.cpu, s.brief);
        let step = s.placement.next(spinner.facts(room, looked_at, cpu));
        // Under the lock: a ring that comes in now must find what is owed.
        let awake = wait == Wait::Awake
            && if what.fields == Fields::Written { self.area.reply_awake() } else { self.area.reply_plain() };
        // A stub that rings reads the reply as every other thread does.
        if !awake && what.fields == Fields::Plain {
            self.area.write_plain_reply();
        }
        if wait == Wait::Awake {
            s.owed = !awake;
            drop(s);
            self.place(step);
            spinner.sent(false);
            self.core.count(HandOff::Awake);
        } else {
            drop(s);
            self.place(step);
            if wait != Wait::Futex {
                spinner.before_answer(&self.core, looked_at);
            }
            if wait == Wait::Doorbell {
                self.area.reply_asleep();
            }
            self.answer(id, wait);
            spinner.sent(true);
            self.core.count(HandOff::Answered);
        }
        if kicked {
            self.kick();
        }
        if looked_at || brief {
            spinner.watch(self);
        }
        let soon = looked_at && room == Room::Spare && wait == Wait::Awake;
        Ok(if soon { Soon::Expected } else { Soon::Unknown })
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
        s.set_waker(cx);
        Poll::Pending
    }

    /// Takes the thread that this one made, if it has reported.
    pub fn poll_born(&self, cx: &mut Context<'_>) -> Poll<Result<Born, Errno>> {
        let mut s = self.state.lock();
        if let Some(born) = s.born.take() {
            return Poll::Ready(born);
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
        s.born = Some(Ok(born));
        let waker = s.waker.take();
        drop(s);
        wake(waker);
    }

    /// The process that this one made ended before it reported.
    pub fn child_is_gone(&self) {
        let mut s = self.state.lock();
        s.born = Some(Err(Errno::ENOMEM));
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
            Phase::Ordered if !s.waits => s.kick = true,
            Phase::Running | Phase::Ordered => {
                // The process is not reaped while this lock is held and the phase is not Dead.
                if crate::space::tgkill(self.space.pid, self.tid, KICK_SIGNAL.cast_signed()) == Err(Errno::ESRCH) {
                    self.set_dead(&mut s);
                    let waker = s.waker.take();
                    drop(s);
                    wake(waker);
                }
            }
            Phase::Parked { .. } => s.kick = true,
            Phase::Dead => {}
        }
    }

    /// Whether the thread is in the guest's hands: in application code or in the middle of orders.
    pub fn is_away(&self) -> bool {
        matches!(self.state.lock().phase, Phase::Running | Phase::Ordered)
    }

    fn set_dead(&self, s: &mut HostThreadState) {
        if matches!(s.phase, Phase::Running | Phase::Ordered) {
            self.has_stopped(s);
        }
        self.enter(s, Phase::Dead);
    }

    fn goes_on(&self, s: &mut HostThreadState) {
        // Of one that is to make verified calls nothing is known.
        s.brief = s.expected.is_empty() && s.pace.is_brief();
        self.core.spinner.started(s.brief);
        if s.waits {
            s.rests = true;
            self.core.spinner.rest(1);
        }
        if s.cells != 0 {
            self.space.sites.enter_orders();
        }
        self.space.sites.enter();
    }

    fn has_stopped(&self, s: &mut HostThreadState) {
        if std::mem::take(&mut s.rests) {
            self.core.spinner.rest(-1);
        }
        self.space.sites.leave();
        if s.cells != 0 {
            self.space.sites.leave_orders();
        }
        self.core.spinner.ended(s.brief);
    }

    fn enter(&self, s: &mut HostThreadState, phase: Phase) {
        let change = isize::from(phase.is_listed()).wrapping_sub(isize::from(s.phase.is_listed()));
        if change != 0 {
            self.core.sleepers.listed(change);
        }
        s.phase = phase;
    }

    /// The host thread is gone.
    pub fn died(&self) {
        let mut s = self.state.lock();
        self.set_dead(&mut s);
        s.stop = None;
        s.expected.clear();
        let (waker, born) = (s.waker.take(), s.born.take());
        drop(s);
        drop(born);
        wake(waker);
    }

    /// The thread rings (in notification `ring`) or waits awake: takes the snapshot and wakes the owner. False if nothing came of it.
    pub fn stopped(self: &Arc<Self>, ring: Option<u64>) -> bool {
        let mut s = match self.take_in(ring) {
            TakenIn::Nothing => return false,
            TakenIn::End => return true,
            TakenIn::Stop(s) => s,
        };
        let waker = s.waker.take();
        drop(s);
        wake(waker);
        if let Some(id) = ring {
            let sleeper: Weak<HostThread> = Arc::downgrade(self);
            self.core.sleepers.parked(sleeper, id);
        }
        true
    }

    /// As [`HostThread::stopped`]; the owner finds the stop by itself.
    fn take_in(self: &Arc<Self>, ring: Option<u64>) -> TakenIn<'_> {
        let mut s = self.state.lock();
        if !s.in_flight.is_empty() {
            drop(s);
            self.complete();
            s = self.state.lock();
        }
        match (s.phase, ring) {
            (Phase::Dead, _) | (Phase::Parked { .. }, None) => return TakenIn::Nothing,
            // What waited awake now rings; or it was interrupted in the call (a stop signal from outside) before it was
            // answered, and rings again.
            (Phase::Parked { wait, .. }, Some(id)) => {
                let wait = if wait == Wait::FirstMap { wait } else { Wait::Doorbell };
                self.enter(&mut s, Phase::Parked { id, wait });
                return TakenIn::Nothing;
            }
            // The reply is there already; or it was interrupted after the answer was written and before it was read.
            (Phase::Running | Phase::Ordered, Some(id)) if s.owed || self.area.read32(control!(reply)) != 0 => {
                let orphan = std::mem::take(&mut s.owed) && s.orphan;
                drop(s);
                if orphan {
                    self.ended(Some(id));
                } else {
                    self.area.reply_asleep();
                    self.core.answer(id, Wait::Doorbell);
                }
                return TakenIn::Nothing;
            }
            (Phase::Running | Phase::Ordered, _) => {}
        }
        let Some(stop) = snapshot(self.area, self.slot, self.core.frame.frame, s.cells) else {
            drop(s);
            self.space.kill();
            return TakenIn::Nothing;
        };
        let phase = match ring {
            Some(id) => Phase::Parked { id, wait: Wait::Doorbell },
            None => Phase::Parked { id: 0, wait: Wait::Awake },
        };
        self.enter(&mut s, phase);
        self.core.count(if ring.is_some() { HandOff::Rung } else { HandOff::Seen });
        s.expected.clear();
        (s.cpu, s.resumed_at) = (self.area.read32(call_slot!(info)) & info::CPU, self.area.read(control!(resumed_at)));
        let ran = self.area.read(control!(stopped_at)).wrapping_sub(s.resumed_at);
        s.pace.stopped(ran, ring.is_none());
        self.has_stopped(&mut s);
        if s.orphan {
            let Phase::Parked { id, wait } = s.phase else { return TakenIn::Nothing };
            drop(s);
            self.end(id, wait);
            return TakenIn::End;
        }
        s.stop = Some(stop);
        TakenIn::Stop(s)
    }
}

impl HostThreadState {
    fn set_waker(&mut self, cx: &Context<'_>) {
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
    }
}

/// What came of a ring or a look.
enum TakenIn<'a> {
    Nothing,
    /// The end of a thread that nobody owns any more.
    End,
    /// A stop, which its owner has not been told of yet.
    Stop(MutexGuard<'a, HostThreadState>),
}

/// What a task leaves behind in its host thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Nothing but what the next task is given afresh.
    Nothing,
    /// An rseq area, which the host would write to at the next return to user mode; an affinity.
    Traces,
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
