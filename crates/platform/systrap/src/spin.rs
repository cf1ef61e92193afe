//! [`Spinner`] and [`Pace`]: when to wait awake instead of sleeping in the host.
//!
//! A trap that is handed over through memory between two CPUs costs a tenth of the host's wake-ups, if both sides
//! are awake, and many times as much if they share a CPU. So a sentry thread looks at the areas of guest threads only
//! if they have lately stopped in quick succession ("hot"), if fewer guest threads run than there are CPUs, and for a
//! bounded time; a look in vain keeps the thread from being hot for a while, twice as long each time. While it
//! looks it says so on the board, and stubs on other CPUs then look for their replies for a bounded time before they ring.
//!
//! Whether hot or not, a stub that rings is answered: nothing here decides more than how fast.

use std::arch::x86_64::__cpuid_count;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering};

use moat_host::seccomp::WakeUp;
use moat_stub::layout::Board;
use moat_sync::{LockClass, Mutex};

use crate::area::Area;
use crate::core::SystrapCore;
use crate::cycles::cycle_count;
use crate::placement::{Cpus, Facts};
use crate::state::HostThread;

/// A stop so many cycles after the reply (some 20 us) is a quick one.
const QUICK_CYCLES: u64 = 60_000;
/// Quick stops in a row that make a thread hot.
const HOT_STREAK: u32 = 16;
/// How long to look at a thread that waited awake last time (some 30 us).
const LOOK_CYCLES: u64 = 90_000;
/// How long at one that has to be woken by the host first (some 100 us).
const FIRST_LOOK_CYCLES: u64 = 300_000;
/// Stops that a thread stays cool for after a look in vain, and how often that doubles.
const COOL_STOPS: u32 = 64;
const MAX_DOUBLINGS: u32 = 10;
/// How often a stub looks before it rings (some 20 us).
const STUB_PATIENCE: u32 = 600;
/// Threads looked at by one sentry thread.
const MAX_WATCHED: usize = 4;

/// Whether user code can ask for its CPU by an instruction.
pub fn has_rdpid() -> bool {
    __cpuid_count(7, 0).ecx & 1 << 22 != 0
}

/// How quickly a thread has lately stopped.
#[derive(Debug, Default)]
pub struct Pace {
    streak: u32,
    cool_for: u32,
    doublings: u32,
    awake: bool,
}

impl Pace {
    /// The thread has stopped, so many cycles after its last reply (by the stub's own word, which is good
    /// enough here), and waits awake, or not. True if it has done so for long.
    pub fn stopped(&mut self, ran: u64, awake: bool) -> bool {
        let quick = ran < QUICK_CYCLES;
        // One slow stop is enough to be cool again: a look costs a CPU for its whole length, a ring costs little.
        self.streak = if quick { self.streak.saturating_add(1) } else { 0 };
        self.cool_for = self.cool_for.saturating_sub(1);
        self.awake = awake;
        let steady = awake && self.streak.is_multiple_of(1024);
        // The price of looks in vain long ago is forgotten by a thread that has been answered awake for a thousand
        // calls.
        if steady {
            self.doublings = 0;
        }
        steady
    }

    /// It is told to make calls that the sentry has to be told of by the listener, and must not be looked at instead.
    pub fn calm(&mut self) {
        self.streak = 0;
        self.awake = false;
    }

    /// It was looked at in vain, because the host has not let it run: it is as quick as it was.
    pub fn starved(&mut self) {
        self.cool_for = HOT_STREAK;
        self.awake = false;
    }

    /// It was looked at in vain.
    pub fn cool(&mut self) {
        // Twice as long each time: a program whose calls only look quick must not cost a look every 64 calls for ever.
        self.cool_for = COOL_STOPS << self.doublings;
        self.doublings = (self.doublings + 1).min(MAX_DOUBLINGS);
        self.streak = 0;
        self.awake = false;
    }

    /// Whether it is worth looking at.
    pub fn is_hot(&self) -> bool {
        self.streak >= HOT_STREAK && self.cool_for == 0
    }

    /// For how many cycles.
    pub fn look_cycles(&self) -> u64 {
        // Whom the host has to wake first is late by that much more.
        if self.awake { LOOK_CYCLES } else { FIRST_LOOK_CYCLES }
    }
}

/// The sentry's side of waiting awake.
pub struct Spinner {
    board: Area,
    /// Where guest threads may run.
    pub places: Cpus,
    cpus: i64,
    /// Guest threads that run application code or orders.
    running: AtomicI64,
    hot: Mutex<Vec<Arc<HostThread>>>,
    /// Answers do not keep the guest thread on this CPU.
    spread: AtomicBool,
    watcher: AtomicU32,
}

impl Spinner {
    /// Nobody is hot yet.
    pub fn new(board: Area) -> Spinner {
        board.write32(std::mem::offset_of!(Board, patience) as u64, STUB_PATIENCE);
        Spinner {
            board,
            places: Cpus::of_this_thread(),
            cpus: std::thread::available_parallelism().map_or(1, |n| i64::try_from(n.get()).unwrap_or(1)),
            running: AtomicI64::new(0),
            hot: Mutex::new(LockClass::Platform, Vec::new()),
            spread: AtomicBool::new(false),
            watcher: AtomicU32::new(0),
        }
    }

    /// A guest thread goes on.
    pub fn started(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// A guest thread has stopped or died.
    pub fn ended(&self) {
        self.running.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there may be a CPU for a sentry thread that waits awake.
    fn has_room(&self) -> bool {
        // This thread is one more: with as many guest threads as CPUs one of them would wait for the CPU that looks.
        self.running.load(Ordering::Relaxed) < self.cpus
    }

    /// What decides where a thread is to run that last stopped on `cpu`.
    pub fn facts(&self, hot: bool, cpu: u32) -> Facts {
        let here = u32::try_from(moat_host::cpu::current()).unwrap_or(u32::MAX);
        Facts { hot, room: self.has_room(), cpu, here }
    }

    /// Before a guest thread is woken by the host: a hot one is to run on another CPU, any other on this one.
    pub fn before_answer(&self, core: &SystrapCore, hot: bool) {
        let spread = hot && self.has_room();
        // The host is told only of changes: it is a call of its own.
        if self.spread.load(Ordering::Relaxed) != spread {
            self.spread.store(spread, Ordering::Relaxed);
            // An older host has only one way.
            let _ = core.listener.set_wake_up(if spread { WakeUp::Anywhere } else { WakeUp::SameCpu });
        }
    }

    /// Looks at a hot thread from here on.
    pub fn watch(&self, thread: &Arc<HostThread>) {
        let mut hot = self.hot.lock();
        // More than a few are not looked at often enough to be faster than by a ring.
        if hot.len() < MAX_WATCHED && !hot.iter().any(|t| Arc::ptr_eq(t, thread)) {
            hot.push(thread.clone());
        }
    }

    fn say(&self, watcher: u32) {
        // Written only when it changes: stubs on other CPUs read this line all the time.
        if self.watcher.swap(watcher, Ordering::Relaxed) != watcher {
            self.board.write32(std::mem::offset_of!(Board, watcher) as u64, watcher);
        }
    }
}

impl SystrapCore {
    /// Looks at the areas of hot threads; true if one has stopped.
    pub fn spin(&self) -> bool {
        let s = &self.spinner;
        let listed = s.hot.lock().clone();
        if listed.is_empty() {
            return false;
        }
        let (mut threads, mut cycles) = (Vec::with_capacity(MAX_WATCHED), 0);
        for thread in &listed {
            if let Some(look) = thread.look_cycles() {
                cycles = cycles.max(look);
                threads.push(thread.clone());
            }
        }
        // By identity and not by position: others have been listed while this looked.
        if threads.len() != listed.len() {
            let has = |list: &[Arc<HostThread>], thread: &Arc<HostThread>| list.iter().any(|t| Arc::ptr_eq(t, thread));
            s.hot.lock().retain(|thread| has(&threads, thread) || !has(&listed, thread));
        }
        if threads.is_empty() || !s.has_room() {
            s.say(0);
            return false;
        }
        // A stub on this CPU then rings at once: while it looked the sentry could not run. 0 is nobody.
        s.say(u32::try_from(moat_host::cpu::current()).unwrap_or(0) + 1);
        let start = cycle_count();
        loop {
            // The clock is dearer than a look.
            for _ in 0..16 {
                if threads.iter().any(|thread| thread.look()) {
                    return true;
                }
                std::hint::spin_loop();
            }
            if cycle_count().wrapping_sub(start) > cycles {
                break;
            }
        }
        s.say(0);
        threads.iter().for_each(|thread| thread.cool());
        false
    }
}
