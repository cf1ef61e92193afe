//! [`Spinner`]: when to wait awake instead of sleeping in the host.
//!
//! A trap that is handed over through memory between two CPUs costs a tenth of the host's wake-ups, if both sides
//! are awake, and many times as much if they share a CPU. So a sentry thread looks at the areas of guest threads only
//! if they have lately stopped in quick succession ("hot", [`crate::pace`]), if it has a CPU for that ([`Room`]), and for a
//! bounded time; a look in vain keeps the thread from being hot for a while. While it looks it says so on the board, and stubs on
//! other CPUs then look for their replies for a bounded time before they ring.
//!
//! A thread whose call has to wait has no use for a CPU: it is told to sleep at once where others need that.
//!
//! Whether hot or not, a stub that rings is answered: nothing here decides more than how fast.

use std::arch::x86_64::__cpuid_count;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering};

use moat_host::seccomp::WakeUp;
use moat_stub::layout::{Board, PATIENCE};
use moat_sync::{LockClass, Mutex};

use crate::area::Area;
use crate::core::SystrapCore;
use crate::pace::{FIRST_LOOK_CYCLES, LOOK_CYCLES};
use crate::placement::{Cpus, Facts};
use crate::room::{Crowd, Room};
use crate::state::HostThread;
use moat_host::cycles::cycle_count;

/// Threads looked at by one sentry thread: more are not looked at often enough to be faster than by a ring.
const MAX_WATCHED: usize = 256;

/// How seldom it is counted who waits in the host: some 100 us, and a hundredth of the time that it takes.
const COUNT_CYCLES: u64 = 300_000;
const COUNT_SHARE: u64 = 100;

/// Whether user code can ask for its CPU by an instruction.
pub fn has_rdpid() -> bool {
    __cpuid_count(7, 0).ecx & 1 << 22 != 0
}

/// The sentry's side of waiting awake.
pub struct Spinner {
    board: Area,
    /// Where guest threads may run.
    pub places: Cpus,
    cpus: i64,
    /// Guest threads that run application code or orders, and those of them that are brief.
    running: AtomicI64,
    brief: AtomicI64,
    /// Those among the running that wait in the host, as far as is known.
    resting: AtomicI64,
    /// When to look for these again, by the cycle counter.
    counts_at: AtomicU64,
    looks: Mutex<Looks>,
    /// Crowds are not tried before the cycle counter is there.
    barred_until: AtomicU64,
    /// Answers do not keep the guest thread on this CPU.
    spread: AtomicBool,
    watcher: AtomicU32,
    /// The CPU that those are kept off who are kept off one.
    kept: AtomicU32,
    /// See [`Facts::packs`].
    packs: AtomicBool,
    /// The last thread that went on had to be woken by the host.
    woken: AtomicBool,
}

/// Who is looked at.
#[derive(Default)]
struct Looks {
    /// Those that stopped last first; the thread that looks has taken them out.
    threads: Vec<Arc<HostThread>>,
    /// Those that have come since.
    incoming: Vec<Arc<HostThread>>,
    /// Whose stop was seen last, and when.
    found: Option<(Arc<HostThread>, u64)>,
    crowd: Crowd,
}

impl Spinner {
    /// Nobody is hot yet.
    pub fn new(board: Area) -> Spinner {
        board.write32(std::mem::offset_of!(Board, patience) as u64, PATIENCE);
        Spinner {
            board,
            places: Cpus::of_this_thread(),
            cpus: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
            running: AtomicI64::new(0),
            brief: AtomicI64::new(0),
            resting: AtomicI64::new(0),
            counts_at: AtomicU64::new(0),
            looks: Mutex::new(LockClass::Platform, Looks::default()),
            barred_until: AtomicU64::new(0),
            spread: AtomicBool::new(false),
            watcher: AtomicU32::new(0),
            kept: AtomicU32::new(u32::MAX),
            packs: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        }
    }

    /// A guest thread goes on.
    pub fn started(&self, brief: bool) {
        self.running.fetch_add(1, Ordering::Relaxed);
        self.brief.fetch_add(i64::from(brief), Ordering::Relaxed);
    }

    /// A guest thread has stopped or died; `brief` as when it went on.
    pub fn ended(&self, brief: bool) {
        self.running.fetch_sub(1, Ordering::Relaxed);
        self.brief.fetch_sub(i64::from(brief), Ordering::Relaxed);
    }

    /// One of those that are brief is not, this time.
    pub fn not_brief(&self) {
        self.brief.fetch_sub(1, Ordering::Relaxed);
    }

    /// So many more of those that run wait in the host.
    pub fn rest(&self, change: i64) {
        self.resting.fetch_add(change, Ordering::Relaxed);
    }

    /// Guest threads that have a use for a CPU.
    fn awake(&self) -> i64 {
        self.running.load(Ordering::Relaxed).saturating_sub(self.resting.load(Ordering::Relaxed))
    }

    /// Whether there may be a CPU for a sentry thread that waits awake.
    pub fn room(&self) -> Room {
        let (running, brief) = (self.awake(), self.brief.load(Ordering::Relaxed));
        match Room::of(running, brief, self.cpus) {
            Room::Crowd if cycle_count() < self.barred_until.load(Ordering::Relaxed) => Room::None,
            room => room,
        }
    }

    /// Whether guest threads could use the CPU that another one waits awake on, besides the sentry's.
    fn is_tight(&self) -> bool {
        self.awake() >= self.cpus.saturating_sub(1)
    }

    /// What decides where a thread is to run that last stopped on `cpu`.
    pub fn facts(&self, room: Room, hot: bool, cpu: u32) -> Facts {
        let mut here = u32::try_from(moat_host::cpu::current()).unwrap_or(u32::MAX);
        let packs = self.packs.load(Ordering::Relaxed);
        if room == Room::Crowd || packs {
            // All keep off the same one, wherever the sentry's thread is at the moment.
            let _ = self.kept.compare_exchange(u32::MAX, here, Ordering::Relaxed, Ordering::Relaxed);
            here = self.kept.load(Ordering::Relaxed);
        }
        Facts { hot, room, packs, cpu, here }
    }

    /// Before a guest thread is woken by the host: one that is looked at is to run on another CPU, any other on this one.
    pub fn before_answer(&self, core: &SystrapCore, looked_at: bool) {
        // The host is told only of changes: it is a call of its own.
        if self.spread.load(Ordering::Relaxed) != looked_at {
            self.spread.store(looked_at, Ordering::Relaxed);
            // An older host has only one way.
            let _ = core.listener.set_wake_up(if looked_at { WakeUp::Anywhere } else { WakeUp::SameCpu });
        }
    }

    /// Looks at a thread from here on.
    pub fn watch(&self, thread: &Arc<HostThread>) {
        if !thread.watched.swap(true, Ordering::Relaxed) {
            self.looks.lock().incoming.push(thread.clone());
        }
    }

    /// Whether stubs wait awake.
    pub fn is_watching(&self) -> bool {
        self.watcher.load(Ordering::Relaxed) != 0
    }

    /// The thread's owner has seen it stop.
    pub fn found(&self, thread: &Arc<HostThread>, at: u64) {
        let mut looks = self.looks.lock();
        match &mut looks.found {
            Some((found, since)) if Arc::ptr_eq(found, thread) => *since = at,
            found => *found = Some((thread.clone(), at)),
        }
    }

    fn say(&self, watcher: u32) {
        // Written only when it changes: stubs on other CPUs read this line all the time.
        if self.watcher.swap(watcher, Ordering::Relaxed) != watcher {
            self.board.write32(std::mem::offset_of!(Board, watcher) as u64, watcher);
        }
    }

    fn bar(&self, until: Option<u64>) {
        if let Some(until) = until {
            self.barred_until.store(until, Ordering::Relaxed);
            // Another CPU may be the better one next time.
            self.kept.store(u32::MAX, Ordering::Relaxed);
        }
    }

    /// A thread goes on that waits awake, or has to be woken.
    pub fn sent(&self, woken: bool) {
        self.woken.store(woken, Ordering::Relaxed);
    }

    /// The host has run a thread in the place of one that looked.
    pub fn host_packs(&self) {
        self.packs.store(true, Ordering::Relaxed);
    }

    /// Has the calling thread look from the CPU that those are kept off whom it looks at.
    fn go_to_its_place(&self) {
        let kept = self.kept.load(Ordering::Relaxed);
        if kept != u32::MAX && u32::try_from(moat_host::cpu::current()) != Ok(kept) {
            self.places.go_to(kept);
        }
    }

    /// Those that are to be looked at now. Called by one thread at a time, which gives them back.
    fn take(&self, room: Room) -> Vec<Arc<HostThread>> {
        let mut looks = self.looks.lock();
        let mut threads = std::mem::take(&mut looks.threads);
        threads.append(&mut looks.incoming);
        let found = looks.found.take();
        if let (Some((_, since)), Room::Crowd) = (&found, room) {
            let now = cycle_count();
            let cpus = u64::try_from(self.cpus).unwrap_or(1);
            let until = looks.crowd.served(now.wrapping_sub(*since), cpus, now);
            self.bar(until);
        }
        drop(looks);
        if let Some((thread, _)) = found
            && self.is_tight()
        {
            thread.lie_down();
        }
        threads
    }
}

/// What came of a look.
enum Seen {
    /// The thread at this place has stopped.
    Stopped(usize),
    /// One has stopped and rung.
    Rings,
    /// None has stopped.
    Nothing,
}

/// Takes those off the list that `keep` does not want on it.
fn retain(threads: &mut Vec<Arc<HostThread>>, keep: impl Fn(&HostThread) -> bool) {
    threads.retain(|thread| {
        let kept = keep(thread);
        if !kept {
            thread.unwatch();
        }
        kept
    });
}

impl SystrapCore {
    /// Counts which of those that run wait in the host, of which nobody is told, where it makes a difference.
    fn count_resting(&self) {
        let s = &self.spinner;
        let start = cycle_count();
        let matters = s.running.load(Ordering::Relaxed) >= s.cpus;
        if !matters || start < s.counts_at.load(Ordering::Relaxed) {
            return;
        }
        self.each_thread(|thread| thread.note_rest());
        let took = cycle_count().wrapping_sub(start);
        s.counts_at.store(start.wrapping_add(took.saturating_mul(COUNT_SHARE).max(COUNT_CYCLES)), Ordering::Relaxed);
    }

    /// Looks at the areas of hot threads; true if one has stopped.
    pub fn spin(&self) -> bool {
        self.count_resting();
        let s = &self.spinner;
        let room = s.room();
        let mut threads = s.take(room);
        let cycles = match room {
            Room::Crowd => {
                if threads.len() > MAX_WATCHED {
                    retain(&mut threads, HostThread::is_away);
                    threads.drain(MAX_WATCHED.min(threads.len())..).for_each(|thread| thread.unwatch());
                }
                s.go_to_its_place();
                if s.woken.load(Ordering::Relaxed) { FIRST_LOOK_CYCLES } else { LOOK_CYCLES }
            }
            // They may be a crowd in a moment; those that wait awake must be on the list then.
            Room::None if threads.len() <= MAX_WATCHED => 0,
            Room::Spare | Room::None => {
                let longest = std::cell::Cell::new(0);
                retain(&mut threads, |thread| {
                    let look = thread.look_cycles();
                    longest.set(longest.get().max(look.unwrap_or(0)));
                    look.is_some()
                });
                if s.packs.load(Ordering::Relaxed) && !threads.is_empty() {
                    s.go_to_its_place();
                }
                longest.get()
            }
        };
        let mut found = None;
        if threads.is_empty() || room == Room::None {
            s.say(0);
        } else {
            match self.look(&threads, cycles) {
                Seen::Stopped(at) => {
                    threads.swap(0, at);
                    found = threads.first().map(|thread| (thread.clone(), cycle_count()));
                }
                Seen::Rings => s.say(0),
                Seen::Nothing => self.looked_in_vain(&mut threads, room),
            }
        }
        let is_found = found.is_some();
        let mut looks = s.looks.lock();
        looks.found = found;
        looks.threads = threads;
        is_found
    }

    /// Whether one of the threads stops in so many cycles.
    fn look(&self, threads: &[Arc<HostThread>], cycles: u64) -> Seen {
        let s = &self.spinner;
        // A stub on this CPU then rings at once: while it looked the sentry could not run. 0 is nobody.
        s.say(u32::try_from(moat_host::cpu::current()).unwrap_or(0).saturating_add(1));
        // No more of them run at once than there are CPUs, most likely those that did last.
        let near = threads.len().min(usize::try_from(s.cpus).unwrap_or(1));
        let start = cycle_count();
        loop {
            // The clock is dearer than a look.
            for _ in 0..16 {
                if let Some(at) = threads[..near].iter().position(|thread| thread.look()) {
                    return Seen::Stopped(at);
                }
                std::hint::spin_loop();
            }
            if let Some(at) = threads[near..].iter().position(|thread| thread.look()) {
                return Seen::Stopped(near.saturating_add(at));
            }
            // Who has rung waits for the host to be asked; who waits in the host does not stop.
            if threads.iter().any(|thread| thread.rings()) || threads.iter().all(|thread| thread.rests()) {
                return Seen::Rings;
            }
            if cycle_count().wrapping_sub(start) > cycles {
                return Seen::Nothing;
            }
        }
    }

    fn looked_in_vain(&self, threads: &mut Vec<Arc<HostThread>>, room: Room) {
        let s = &self.spinner;
        let here = s.watcher.load(Ordering::Relaxed).wrapping_sub(1);
        s.say(0);
        if room == Room::Crowd {
            // Which of them the host lets run is not known. One that computes is to have a CPU of its own again: all that are in
            // application code are taken for such until they stop.
            threads.iter().for_each(|thread| thread.seems_to_compute());
            let until = s.looks.lock().crowd.failed(cycle_count());
            s.bar(until);
            retain(threads, HostThread::is_away);
        } else {
            threads.iter().for_each(|thread| thread.cool(here));
        }
    }
}
