//! [`SystrapCore`]: the platform's tables, and the dispatch of notifications.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use moat_abi::{Errno, Result, nr};
use moat_host::descriptors::{Purpose, is_within};
use moat_host::seccomp::{Answer, Listener, Notification};
use moat_platform::VdsoLayout;
use moat_stub::layout::{AREA_LEN, DOORBELL};
use moat_sync::{Counters, LockClass, Mutex, WeakList};

use crate::area::{Area, AreaPool};
use crate::births::{Birth, Births, Pending};
use crate::cpu_time::OpenTimes;
use crate::filter::SegmentBases;
use crate::frame::FrameLayout;
use crate::pool::Pool;
use crate::reaper::Reaper;
use crate::sleepers::Sleepers;
use crate::space::{FreeSlot, Space, SpaceHandle, Stage, tgkill};
use crate::spin::Spinner;
use crate::state::{Born, HostThread, Wait, area_addr};
use crate::thread::Thread;
use moat_host::cycles::Clock;

/// Everything that the parts of the platform share.
pub struct SystrapCore {
    /// Where every guest thread rings.
    pub listener: Listener,
    /// The number that guest processes have their areas' memfd under.
    pub areas_number: u32,
    /// Where signal frames are in areas.
    pub frame: FrameLayout,
    /// The extended state of a fresh program.
    pub fresh_fpu: Vec<u8>,
    /// How the stub reads and sets segment bases.
    pub bases: SegmentBases,
    /// The vDSO of blank processes.
    pub vdso: VdsoLayout,
    /// Call sites are rewritten.
    pub rewrites: bool,
    /// Guest processes take part in the host's expedited barriers.
    pub barriers: bool,
    /// The pool whose template all descend from.
    pub first: Arc<Pool>,
    /// Who is told of dead processes.
    pub reaper: Reaper,
    /// When to wait awake.
    pub spinner: Spinner,
    /// Who waits where while it is parked.
    pub sleepers: Sleepers,
    /// Files that tell the CPU time of threads.
    pub open_times: OpenTimes,
    /// When it was made.
    pub clock: Clock,
    /// How threads were handed over, by [`HandOff`].
    hand_offs: Counters,
    /// The memory that the spinner's board is in.
    _board: Arc<AreaPool>,
    threads: Mutex<HashMap<i32, Arc<HostThread>>>,
    /// Clones under way.
    pub births: Births<Ordered>,
    spaces: Mutex<HashMap<i32, Weak<Space>>>,
    pools: WeakList<Pool>,
    /// A pool has something to do.
    wanted: Arc<AtomicBool>,
}

/// A clone that a thread has been told to make.
pub struct Ordered {
    /// Who makes it.
    pub parent: Arc<HostThread>,
    /// Where its area comes from.
    pub areas: Arc<AreaPool>,
    /// The area of the child's first thread.
    pub area: Area,
    /// Its place in the process.
    pub slot: u32,
}

/// How a guest thread is handed over.
#[derive(Clone, Copy, Debug)]
pub enum HandOff {
    /// It stopped and rang: the host woke the sentry.
    Rung,
    /// It stopped, and the sentry saw it in memory.
    Seen,
    /// It was answered through the host.
    Answered,
    /// It was replied to in memory, where it waited awake.
    Awake,
}

impl HandOff {
    /// In the order of the kinds.
    pub const NAMES: [&'static str; 4] = ["stop_doorbell", "stop_memory", "resume_answer", "resume_memory"];
}

/// What `SystrapCore::new` is made of.
#[allow(missing_docs)]
pub struct Parts {
    pub listener: Listener,
    pub areas: Arc<AreaPool>,
    pub areas_number: u32,
    pub frame: FrameLayout,
    pub fresh_fpu: Vec<u8>,
    pub bases: SegmentBases,
    pub vdso: VdsoLayout,
    pub rewrites: bool,
    pub barriers: bool,
    pub reaper: Reaper,
    pub births: Births<Ordered>,
}

impl SystrapCore {
    /// Empty tables.
    pub fn new(p: Parts) -> Arc<SystrapCore> {
        let wanted = Arc::new(AtomicBool::new(false));
        let first = Pool::new(wanted.clone());
        let pools = WeakList::new(LockClass::Platform);
        pools.add(Arc::downgrade(&first));
        Arc::new(SystrapCore {
            listener: p.listener,
            areas_number: p.areas_number,
            frame: p.frame,
            fresh_fpu: p.fresh_fpu,
            bases: p.bases,
            vdso: p.vdso,
            rewrites: p.rewrites,
            barriers: p.barriers,
            open_times: OpenTimes::default(),
            clock: Clock::now(),
            reaper: p.reaper,
            first,
            spinner: Spinner::new(p.areas.board()),
            sleepers: Sleepers::new(),
            hand_offs: Counters::new(HandOff::NAMES.len()),
            _board: p.areas,
            threads: Mutex::new(LockClass::Platform, HashMap::new()),
            births: p.births,
            spaces: Mutex::new(LockClass::Platform, HashMap::new()),
            pools,
            wanted,
        })
    }

    /// Counts a hand-over.
    pub fn count(&self, how: HandOff) {
        let place = match how {
            HandOff::Rung => 0,
            HandOff::Seen => 1,
            HandOff::Answered => 2,
            HandOff::Awake => 3,
        };
        self.hand_offs.add(place, 1);
    }

    /// How often threads were handed over, and how.
    pub fn hand_offs(&self) -> Vec<(&'static str, u64)> {
        HandOff::NAMES.into_iter().zip(self.hand_offs.read()).collect()
    }

    /// Makes a pool with a template of its own, which shares no areas with others.
    pub async fn new_pool(self: &Arc<SystrapCore>) -> Result<Arc<Pool>> {
        // Of its own memory: no process of one pool can map the area of another's, whatever it is told.
        let areas = Arc::new(AreaPool::new()?);
        let mut born = self.first.make_template(areas).await?;
        born.thread.blank();
        let space = born.space.ok_or(Errno::EPROTO)?;
        let pool = Pool::new(self.wanted.clone());
        pool.start(born.thread, space);
        self.pools.add(Arc::downgrade(&pool));
        Ok(pool)
    }

    /// Goes on with what pools have to do. Never blocks.
    pub fn pump(&self) {
        while self.wanted.swap(false, Ordering::AcqRel) {
            self.pools.alive().iter().for_each(|pool| pool.pump_if_wanted());
        }
    }

    /// A process has exited: it may have been a template.
    pub fn exited(&self, pid: i32) {
        self.pools.alive().iter().for_each(|pool| pool.exited(pid));
    }

    /// Answers the notification that a parked thread waits in.
    pub fn answer(&self, id: u64, wait: Wait) {
        let answer = match wait {
            Wait::Doorbell | Wait::Awake | Wait::Futex => Answer::Value(0),
            Wait::FirstMap => Answer::Continue,
        };
        // If the thread is gone the reaper notices its process's end.
        let _ = self.listener.answer(id, answer);
    }

    /// Calls `f` with each thread.
    pub fn each_thread(&self, f: impl Fn(&HostThread)) {
        let threads: Vec<Arc<HostThread>> = self.threads.lock().values().cloned().collect();
        threads.iter().for_each(|thread| f(thread));
    }

    /// Takes in one notification, which poll(2) has said is there.
    pub fn dispatch(self: &Arc<SystrapCore>) {
        // Without a process that has the filter the descriptor is "readable" for ever.
        if (!self.first.is_broken() || self.listener.is_readable())
            && let Ok(n) = self.listener.receive()
        {
            self.handle(&n);
        }
        self.pump();
    }

    fn handle(self: &Arc<SystrapCore>, n: &Notification) {
        if let Some(token) = token_of(n) {
            if self.register(n, token).is_err() {
                self.kill_stray(n.tid);
            }
            return;
        }
        let thread = self.threads.lock().get(&n.tid).cloned();
        match thread {
            Some(thread) if u64::from(n.nr) == DOORBELL => {
                // The host says which thread it is (by the filter's notification), so there is nothing to be believed.
                thread.stopped(Some(n.id));
            }
            // A descriptor may go with the answer: not to another process that has the id of a thread that has ended.
            Some(thread) if tgkill(thread.space.pid, n.tid, 0).is_ok() => thread.called(n),
            _ => self.kill_stray(n.tid),
        }
    }

    /// A new thread's first notification.
    fn register(self: &Arc<SystrapCore>, n: &Notification, token: u32) -> Result<()> {
        self.check_unknown(n.tid)?;
        let pending = self.births.report(token)?;
        let born = self.registered(n, token, &pending);
        self.births.reported();
        match born {
            Ok(born) => pending.of.parent.gave_birth(born),
            Err(errno) => {
                pending.of.parent.child_is_gone();
                return Err(errno);
            }
        }
        Ok(())
    }

    /// A thread that is known can't be new, whatever it says.
    ///
    /// # Errors
    /// EPERM.
    fn check_unknown(&self, tid: i32) -> Result<()> {
        if self.space(tid).is_some() {
            return Err(Errno::EPERM);
        }
        let listed = self.threads.lock().get(&tid).cloned();
        // One of the same id that has ended without our knowing is no longer of its process.
        match listed {
            Some(thread) if tgkill(thread.space.pid, tid, 0).is_ok() => Err(Errno::EPERM),
            _ => Ok(()),
        }
    }

    fn registered(self: &Arc<SystrapCore>, n: &Notification, token: u32, pending: &Pending<Ordered>) -> Result<Born> {
        let p = &pending.of;
        let (space, wait, handle) = match pending.kind {
            Birth::Process => {
                let fd = u64::from(token) << 32 | u64::from(self.areas_number);
                let want = [area_addr(p.slot), AREA_LEN, 3, 0x11, fd, p.area.file_offset()];
                // Making a space fails for a thread that is not the first of a process.
                let space = if n.nr == nr::MMAP && n.args == want {
                    let first = FreeSlot { slot: p.slot, area: p.area, stage: Stage::Listed };
                    Space::new(self, n.tid, p.areas.clone(), first, Some(&p.parent.space))
                } else {
                    Err(Errno::EPERM)
                };
                // The mmap is never made then: nobody has the area mapped.
                let space = space.and_then(|space| self.check_descriptors(space, p));
                let space = space.inspect_err(|_| p.areas.give_back(std::iter::once(p.area)))?;
                self.add_space(&space)?;
                let handle = SpaceHandle(space.clone());
                if !Arc::ptr_eq(&p.areas, &p.parent.space.areas) {
                    // In place of its parent's, which it then has no way to.
                    self.listener.add_fd(n.id, p.areas.fd(), self.areas_number)?;
                }
                (space, Wait::FirstMap, Some(handle))
            }
            Birth::Thread => {
                if u64::from(n.nr) != DOORBELL {
                    return Err(Errno::EPERM);
                }
                // A thread of the parent's process, by the host's word; a process of its own would have to bring the
                // mapping.
                tgkill(p.parent.space.pid, n.tid, 0)?;
                (p.parent.space.clone(), Wait::Doorbell, None)
            }
        };
        let thread = HostThread::new(self, &space, n.tid, p.area, p.slot, n.id, wait);
        self.add_thread(&thread);
        Ok(Born { thread: Thread::new(thread), space: handle })
    }

    /// The last descriptors are not for guests' forks, but for what is executed from outside.
    ///
    /// # Errors
    /// ENFILE.
    fn check_descriptors(&self, space: Arc<Space>, p: &Ordered) -> Result<Arc<Space>> {
        let for_guest = || !self.pools.alive().iter().any(|pool| pool.is_template(p.parent.space.pid));
        if is_within(space.pidfd(), Purpose::Process) || !for_guest() { Ok(space) } else { Err(Errno::ENFILE) }
    }

    /// Counts the guest processes if that is due, and ends the forks of those whose child is gone.
    pub fn look_for_strangers(&self) {
        for clone in self.births.look(&|pid| self.space(pid).is_some()) {
            clone.areas.give_back(std::iter::once(clone.area));
            clone.parent.child_is_gone();
        }
    }

    /// Kills a process that the sentry has not asked for, or whose thread does what it was not told.
    fn kill_stray(&self, tid: i32) {
        if let Some(pid) = rustix::process::Pid::from_raw(tid) {
            // By the id of one of its threads; it waits for our answer, so the id is its own.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
        self.births.suspect();
    }

    /// Lists a process and has the reaper watch it.
    pub fn add_space(&self, space: &Arc<Space>) -> Result<()> {
        // Before the reaper looks: it may find the process dead at once, and takes it off again.
        self.spaces.lock().insert(space.pid, Arc::downgrade(space));
        self.reaper.watch(space)
    }

    /// Lists a thread. One of the same id that is still listed has ended without our knowing.
    pub fn add_thread(&self, thread: &Arc<HostThread>) {
        thread.space.add_thread(thread);
        let stale = self.threads.lock().insert(thread.tid, thread.clone());
        if let Some(stale) = stale {
            stale.died();
        }
    }

    /// Takes a thread off the list unless its id belongs to another by now.
    pub fn forget_thread_if(&self, thread: &HostThread) {
        let mut threads = self.threads.lock();
        let same = threads.get(&thread.tid).is_some_and(|t| std::ptr::eq(Arc::as_ptr(t), thread));
        let removed = if same { threads.remove(&thread.tid) } else { None };
        drop(threads);
        drop(removed);
    }

    /// Takes a reaped process off the list.
    pub fn forget_space(&self, pid: i32) {
        self.spaces.lock().remove(&pid);
    }

    /// The process of this id.
    pub fn space(&self, pid: i32) -> Option<Arc<Space>> {
        self.spaces.lock().get(&pid)?.upgrade()
    }

    /// Whether no guest process is left.
    pub fn is_empty(&self) -> bool {
        self.spaces.lock().is_empty()
    }
}

/// The announcement that a new thread's first call refers to: the upper half of mmap's descriptor, which the host
/// ignores, or the doorbell's argument, which is 0 in every other ring.
fn token_of(n: &Notification) -> Option<u32> {
    let token = if n.nr == nr::MMAP {
        n.args[4] >> 32
    } else if u64::from(n.nr) == DOORBELL {
        n.args[0] & u64::from(u32::MAX)
    } else {
        0
    };
    u32::try_from(token).ok().filter(|token| *token != 0)
}
