//! The table against a list, and against threads.

use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

fn key(n: u64) -> FutexKey {
    FutexKey::Private { mm_id: 1, addr: n * 4 }
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Notify for Flag {
    fn notify(&self, _events: PollEvents) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Enqueue { key: u64, bitset: u32 },
    Wake { key: u64, max: usize, bitset: u32 },
    Requeue { from: u64, to: u64, wake: usize, requeue: usize },
    Leave { which: usize },
}

fn ops() -> impl Strategy<Value = Op> {
    let (key, count, bits) = (0..3u64, 0..4usize, 1..4u32);
    prop_oneof![
        3 => (key.clone(), bits.clone()).prop_map(|(key, bitset)| Op::Enqueue { key, bitset }),
        1 => (key.clone(), 1..4usize, bits).prop_map(|(key, max, bitset)| Op::Wake { key, max, bitset }),
        1 => (key.clone(), key, count.clone(), count).prop_map(|(from, to, wake, requeue)| Op::Requeue { from, to, wake, requeue }),
        1 => any::<usize>().prop_map(|which| Op::Leave { which }),
    ]
}

struct Modelled {
    waiter: Arc<Waiter>,
    flag: Arc<Flag>,
    bitset: u32,
    /// The queue it is in and its place among all enqueued; None once it was woken or left.
    queued: Option<(u64, usize)>,
    woken: bool,
}

/// The waiters in the queue of `key`, in order.
fn queue(all: &[Modelled], key: u64) -> Vec<usize> {
    let mut found: Vec<_> =
        all.iter().enumerate().filter_map(|(i, w)| w.queued.filter(|q| q.0 == key).map(|q| (q.1, i))).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, i)| i).collect()
}

proptest! {
    #[test]
    fn the_table_is_a_list_of_waiters(ops in proptest::collection::vec(ops(), 1..60)) {
        let table = FutexTable::new();
        let mut all: Vec<Modelled> = Vec::new();
        let mut arrivals = 0..;
        for op in ops {
            match op {
                Op::Enqueue { key: k, bitset } => {
                    let flag = Arc::new(Flag::default());
                    let waiter = Waiter::new(table.ticket(), bitset, Purpose::Plain, flag.clone());
                    table.enqueue(key(k), &waiter);
                    all.push(Modelled { waiter, flag, bitset, queued: arrivals.next().map(|n| (k, n)), woken: false });
                }
                Op::Wake { key: k, max, bitset } => {
                    let chosen: Vec<_> = queue(&all, k).into_iter().filter(|&i| all[i].bitset & bitset != 0).take(max).collect();
                    prop_assert_eq!(table.wake(&key(k), max, bitset), Ok(chosen.len()));
                    for i in chosen {
                        (all[i].queued, all[i].woken) = (None, true);
                    }
                }
                Op::Requeue { from, to, wake, requeue } => {
                    let chosen: Vec<_> = queue(&all, from).into_iter().take(wake + requeue).collect();
                    prop_assert_eq!(table.requeue(key(from), key(to), wake, requeue, table.ticket()), Ok(chosen.len()));
                    for (n, i) in chosen.into_iter().enumerate() {
                        all[i].woken |= n < wake;
                        all[i].queued = if n < wake { None } else { arrivals.next().map(|n| (to, n)) };
                    }
                }
                Op::Leave { which } if !all.is_empty() => {
                    let n = which % all.len();
                    prop_assert_eq!(table.leave(&all[n].waiter), all[n].queued.is_some());
                    all[n].queued = None;
                }
                Op::Leave { .. } => {}
            }
            for w in &all {
                let place = match w.queued {
                    Some((k, _)) => WaiterPlace::Queued(key(k)),
                    None if w.woken => WaiterPlace::Woken,
                    None => WaiterPlace::Away,
                };
                prop_assert_eq!(w.waiter.place(), place);
                prop_assert_eq!(w.flag.0.load(Ordering::SeqCst), w.woken);
            }
            for k in 0..3 {
                prop_assert_eq!(table.waiting(&key(k)), queue(&all, k).len());
            }
        }
        let left: usize = table.shards.iter().map(|s| s.waiting.load(Ordering::SeqCst)).sum();
        prop_assert_eq!(left, all.iter().filter(|w| w.queued.is_some()).count());
    }
}

#[test]
fn late_comers_are_not_requeued_and_pi_waiters_are_not_woken() {
    let table = FutexTable::new();
    let waiter = |purpose| Waiter::new(table.ticket(), 1, purpose, Arc::new(Flag::default()));
    let early = waiter(Purpose::Plain);
    table.enqueue(key(0), &early);
    let before = table.ticket();
    let late = waiter(Purpose::Plain);
    table.enqueue(key(0), &late);
    assert_eq!(table.requeue(key(0), key(1), 0, 9, before), Ok(1));
    assert_eq!((early.place(), late.place()), (WaiterPlace::Queued(key(1)), WaiterPlace::Queued(key(0))));
    let pi = waiter(Purpose::Requeue(PiTask { task: TaskId(1), tid: 1 }, key(2)));
    table.enqueue(key(1), &pi);
    assert_eq!(table.wake(&key(1), 9, 1), Err(Errno::EINVAL));
    assert_eq!((early.place(), pi.place()), (WaiterPlace::Woken, WaiterPlace::Queued(key(1))));
}

/// A mutex of three states (Drepper's "Futexes are tricky") over the table: a lost wake would be a hang.
#[test]
fn no_wake_is_lost_between_threads() {
    static TABLE: FutexTable = FutexTable::new();
    static WORD: AtomicU32 = AtomicU32::new(0);
    static INSIDE: AtomicU32 = AtomicU32::new(0);
    struct Unpark(std::thread::Thread);
    impl Notify for Unpark {
        fn notify(&self, _events: PollEvents) {
            self.0.unpark();
        }
    }
    fn wait(value: u32, deadline: Instant) {
        let waiter = Waiter::new(TABLE.ticket(), u32::MAX, Purpose::Plain, Arc::new(Unpark(std::thread::current())));
        TABLE.enqueue(key(0), &waiter);
        if WORD.load(Ordering::SeqCst) != value {
            TABLE.leave(&waiter);
            return;
        }
        while waiter.place() != WaiterPlace::Woken {
            assert!(Instant::now() < deadline, "a wake was lost");
            std::thread::park_timeout(Duration::from_secs(1));
        }
    }
    fn work(deadline: Instant) {
        for _ in 0..2000 {
            let mut seen = WORD.compare_exchange(0, 1, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|v| v);
            while seen != 0 {
                if seen == 2
                    || WORD.compare_exchange(1, 2, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|v| v) != 0
                {
                    wait(2, deadline);
                }
                seen = WORD.compare_exchange(0, 2, Ordering::SeqCst, Ordering::SeqCst).unwrap_or_else(|v| v);
            }
            assert_eq!(INSIDE.fetch_add(1, Ordering::SeqCst), 0);
            INSIDE.fetch_sub(1, Ordering::SeqCst);
            if WORD.swap(0, Ordering::SeqCst) == 2 {
                TABLE.wake(&key(0), 1, u32::MAX).expect("plain waiters");
            }
        }
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    let threads: Vec<_> = (0..4).map(|_| std::thread::spawn(move || work(deadline))).collect();
    threads.into_iter().for_each(|t| t.join().expect("a worker"));
    assert_eq!(TABLE.waiting(&key(0)), 0);
}
