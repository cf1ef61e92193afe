//! The policies of [`crate::pace`], [`crate::room`] and [`super`] on simulated hosts: few and many CPUs, few and many threads, schedulers
//! that spread threads and such that pack them.

use super::{Facts, Placement, Step};
use crate::pace::Pace;
use crate::room::Room;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheduler {
    /// A thread that is woken gets an idle CPU, if it may use one.
    Spreads,
    /// It gets its waker's CPU, if it may use that.
    Packs,
}

#[derive(Default)]
struct Thread {
    pace: Pace,
    placement: Placement,
    cpu: u32,
    off: Option<u32>,
    /// Changes of its affinity.
    moves: u32,
    /// Calls handed over awake, through the host, and looks at it that were in vain.
    awake: u32,
    rang: u32,
    vain: u32,
}

impl Thread {
    fn apply(&mut self, step: Option<Step>) {
        let off = match step {
            None => return,
            Some(Step::KeepOff(cpu)) => Some(cpu),
            Some(Step::Anywhere) => None,
        };
        self.off = off;
        self.moves += 1;
    }
}

struct Host {
    scheduler: Scheduler,
    cpus: u32,
    /// Guest threads that run beside the one that calls, and whether they are brief.
    others: u32,
    brief: bool,
    packs: bool,
    /// The sentry thread's CPU.
    here: u32,
}

impl Host {
    /// Where a woken thread runs.
    fn place(&self, thread: &Thread) -> u32 {
        let other = (self.here + 1) % self.cpus;
        let idle = self.others + 1 < self.cpus;
        match self.scheduler {
            Scheduler::Packs if thread.off != Some(self.here) => self.here,
            Scheduler::Spreads if thread.off != Some(self.here) && !idle => self.here,
            _ => other,
        }
    }

    /// One quick call of a thread, from its reply to its next stop.
    fn call(&mut self, thread: &mut Thread) {
        let brief = if self.brief { self.others + 1 } else { 0 };
        let room = Room::of((self.others + 1).into(), brief.into(), self.cpus.into());
        let hot = room == Room::Crowd || room == Room::Spare && thread.pace.is_hot();
        let step = thread.placement.next(Facts { hot, room, packs: self.packs, cpu: thread.cpu, here: self.here });
        thread.apply(step);
        if hot {
            thread.cpu = self.place(thread);
            if thread.cpu != self.here {
                thread.awake += 1;
                thread.pace.stopped(100, true);
                return;
            }
            thread.vain += 1;
            let step = thread.placement.take_back();
            if step.is_none() && thread.placement.starved() {
                thread.pace.starved();
            } else {
                thread.pace.cool();
            }
            thread.apply(step);
        } else if thread.off != Some(self.here) {
            // The synchronous wake-up.
            thread.cpu = self.here;
        } else {
            thread.cpu = self.place(thread);
        }
        thread.rang += 1;
        thread.pace.stopped(100, false);
        if self.scheduler == Scheduler::Packs {
            self.here = thread.cpu;
        }
    }
}

fn run(scheduler: Scheduler, cpus: u32, threads: u32, calls: u32, brief: bool) -> Vec<Thread> {
    // Of many threads that call one after the other, the others are parked meanwhile.
    let mut host =
        Host { scheduler, cpus, others: (threads - 1).min(cpus.saturating_sub(2)), brief, packs: false, here: 0 };
    if threads > cpus || brief {
        host.others = cpus;
    }
    let mut all: Vec<Thread> = (0..threads).map(|_| Thread::default()).collect();
    for _ in 0..calls {
        all.iter_mut().for_each(|thread| host.call(thread));
    }
    all
}

const CALLS: u32 = 4000;

#[test]
fn a_free_cpu_is_used_whatever_the_scheduler_does() {
    for scheduler in [Scheduler::Spreads, Scheduler::Packs] {
        for cpus in [2, 3, 4, 8, 16, 64] {
            for threads in (1..cpus).take(8) {
                for thread in run(scheduler, cpus, threads, CALLS, false) {
                    let case = format!("{scheduler:?}, {cpus} CPUs, {threads} threads");
                    assert!(thread.awake > CALLS * 9 / 10, "{case}: {} awake", thread.awake);
                    assert!(thread.vain <= 2, "{case}: {} looks in vain", thread.vain);
                    assert!(thread.moves <= 4, "{case}: moved {} times", thread.moves);
                    if scheduler == Scheduler::Spreads {
                        assert_eq!(thread.moves, 0, "{case}: the host's choice was right");
                    }
                }
            }
        }
    }
}

#[test]
fn without_a_free_cpu_nothing_is_looked_at_or_moved() {
    for scheduler in [Scheduler::Spreads, Scheduler::Packs] {
        for (cpus, threads) in [(1, 1), (1, 1000), (2, 64), (4, 1000), (64, 1000)] {
            for thread in run(scheduler, cpus, threads, 200, threads == 1) {
                assert_eq!((thread.awake, thread.vain, thread.moves), (0, 0, 0), "{cpus} CPUs, {threads} threads");
            }
        }
    }
}

#[test]
fn what_one_thread_has_shown_of_the_host_spares_the_others() {
    let mut host = Host { scheduler: Scheduler::Packs, cpus: 2, others: 0, brief: false, packs: true, here: 0 };
    let mut thread = Thread::default();
    (0..CALLS).for_each(|_| host.call(&mut thread));
    assert_eq!((thread.vain, thread.moves), (0, 1));
}

#[test]
fn a_crowd_of_brief_threads_leaves_the_sentry_a_cpu() {
    for scheduler in [Scheduler::Spreads, Scheduler::Packs] {
        for (cpus, threads) in [(2, 2), (2, 64), (4, 1000)] {
            for thread in run(scheduler, cpus, threads.max(cpus), 1000, true) {
                let case = format!("{scheduler:?}, {cpus} CPUs, {threads} threads");
                assert!(thread.awake > 900, "{case}: {} awake, {} in vain", thread.awake, thread.vain);
                assert!(thread.moves <= 1, "{case}: moved {} times", thread.moves);
            }
        }
    }
}

#[test]
fn a_place_is_taken_back_when_its_reason_has_gone() {
    for reason in ["crowded", "in vain", "clone", "the guest's choice"] {
        let mut host = Host { scheduler: Scheduler::Packs, cpus: 2, others: 0, brief: false, packs: false, here: 0 };
        let mut thread = Thread::default();
        (0..CALLS).for_each(|_| host.call(&mut thread));
        assert!(thread.off.is_some());
        let step = match reason {
            "crowded" => {
                host.others = 2;
                (0..20).for_each(|_| host.call(&mut thread));
                None
            }
            "in vain" => thread.placement.take_back(),
            "clone" => thread.placement.take_back(),
            _ => thread.placement.bar(),
        };
        thread.apply(step);
        assert_eq!(thread.off, None, "{reason}");
    }
}

#[test]
fn a_place_that_does_not_help_is_tried_less_and_less() {
    let mut thread = Thread::default();
    let mut calls = 0;
    for look in 0.. {
        // Each look at it is in vain, wherever it is.
        while !thread.pace.is_hot() {
            thread.pace.stopped(100, false);
            calls += 1;
        }
        if calls > 1_000_000 {
            assert!(look < 260, "{look} looks");
            break;
        }
        let facts = Facts { hot: true, room: Room::Spare, packs: true, cpu: 1, here: 1 };
        assert_eq!(thread.placement.next(facts), Some(Step::KeepOff(1)));
        assert!(thread.pace.is_loss());
        thread.pace.cool();
        assert_eq!(thread.placement.take_back(), Some(Step::Anywhere));
    }
}

#[test]
fn the_guest_may_choose() {
    let wrong = Facts { hot: true, room: Room::Spare, packs: false, cpu: 1, here: 1 };
    let mut chosen = Placement::default();
    chosen.starved();
    chosen.bar();
    assert_eq!(chosen.next(wrong), None, "the guest has chosen");
}
