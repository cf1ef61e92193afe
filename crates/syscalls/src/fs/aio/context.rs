//! [`Context`]: what io_setup(2) makes: a ring of completed requests in the program's memory, and the requests under way.
//!
//! The ring is shared with the program, as on Linux: libraries look at its head and tail to learn that nothing is there, and some take
//! events out of it themselves. The sentry believes nothing of it but the head, reduced to its size; events that it hands out are its own copies.
//!
//! # Invariants
//! - A request is counted from its submission until its event has been taken, so that the ring never overflows.
//! - Who writes to the ring has its `turn`; no lock is held meanwhile.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use moat_abi::aio::IoEvent;
use moat_abi::{Errno, PollEvents, Result};
use moat_image::Refusal;
use moat_image::state::AioContextState;
use moat_mm::{MemoryManager, UserAddr, UserPtr};
use moat_sync::async_mutex::AsyncMutex;
use moat_sync::{LockClass, Mutex, WaitQueue, block_in_place};
use moat_vfs::{AioLimits, OpenFile};

use super::poll::PollRequest;

/// `struct aio_ring`: where its fields are, and what some have.
pub(super) const HEADER: u64 = 32;
const HEAD: u64 = 8;
const TAIL: u64 = 12;
const MAGIC: u32 = 0xa10a_10a1;
pub(super) const EVENT: u64 = 32;

/// How long a request that writes out may keep an image waiting.
const MOST_WAITING: Duration = Duration::from_secs(10);

/// A context.
pub(super) struct Context {
    /// Where its ring is, which is its name.
    pub(super) ring: u64,
    /// Bytes of the ring.
    pub(super) len: u64,
    /// Events that the ring has room for.
    pub(super) capacity: u32,
    memory: Weak<MemoryManager>,
    turn: AsyncMutex,
    state: Mutex<State>,
    /// Woken when a request has been completed.
    pub(super) queue: WaitQueue,
    charge: Charge,
}

#[derive(Default)]
struct State {
    /// Completed, and not taken; they are in the ring from `head` on.
    events: VecDeque<IoEvent>,
    head: u32,
    under_way: usize,
    /// Requests whose counters have not been raised yet, too.
    unsettled: usize,
    dead: bool,
    polls: Vec<Arc<PollRequest>>,
}

/// Requests that a context may have, counted for the system.
pub(super) struct Charge {
    limits: Arc<AioLimits>,
    requests: u64,
}

impl Charge {
    /// EAGAIN beyond `fs.aio-max-nr`.
    pub(super) fn take(limits: &Arc<AioLimits>, requests: u64) -> Result<Charge> {
        let fits = |used: u64| used.checked_add(requests).filter(|sum| *sum <= limits.most.get());
        let taken = limits.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits);
        taken.map_err(|_| Errno::EAGAIN)?;
        Ok(Charge { limits: limits.clone(), requests })
    }
}

impl Charge {
    /// What an image says was counted, whatever the limit.
    pub(super) fn again(limits: &Arc<AioLimits>, requests: u64) -> Charge {
        limits.used.fetch_add(requests, Ordering::AcqRel);
        Charge { limits: limits.clone(), requests }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.limits.used.fetch_sub(self.requests, Ordering::AcqRel);
    }
}

/// What becomes of a completed request.
#[derive(Clone)]
pub(super) struct Completion {
    /// `aio_data`.
    pub(super) data: u64,
    /// The address of the request.
    pub(super) object: u64,
    /// The counter to be raised (IOCB_FLAG_RESFD).
    pub(super) counter: Option<Arc<OpenFile>>,
}

impl Context {
    pub(super) fn new(memory: &Arc<MemoryManager>, ring: u64, len: u64, capacity: u32, charge: Charge) -> Arc<Context> {
        Arc::new(Context {
            ring,
            len,
            capacity,
            memory: Arc::downgrade(memory),
            turn: AsyncMutex::new(),
            state: Mutex::new(LockClass::Table, State::default()),
            queue: WaitQueue::new(),
            charge,
        })
    }

    /// The head of a fresh ring.
    pub(super) fn header(&self, number: u32) -> [u32; 8] {
        [number, self.capacity, 0, 0, MAGIC, 1, 0, 32]
    }

    fn at(&self, offset: u64) -> Result<UserPtr<u32>> {
        Ok(UserAddr::new(self.ring).add(offset)?.cast())
    }

    /// Takes in what the program has taken out of the ring by itself.
    fn see_head(&self) {
        let Some(memory) = self.memory.upgrade() else { return };
        // A ring that is not there any more says nothing.
        let Ok(head) = self.at(HEAD).and_then(|at| memory.read(at)) else { return };
        let Some(head) = head.checked_rem(self.capacity) else { return };
        let mut s = self.state.lock();
        let taken = head.checked_sub(s.head).unwrap_or_else(|| head.wrapping_add(self.capacity).wrapping_sub(s.head));
        let taken = usize::try_from(taken).unwrap_or(usize::MAX);
        // A head beyond the tail is nonsense, and changes nothing.
        if taken <= s.events.len() {
            s.events.drain(..taken);
            s.head = head;
        }
    }

    /// Counts a request.
    ///
    /// # Errors
    /// EAGAIN if its event would have no room; EINVAL once the context is being destroyed.
    pub(super) fn reserve(&self) -> Result<()> {
        self.see_head();
        let mut s = self.state.lock();
        if s.dead {
            return Err(Errno::EINVAL);
        }
        let used = s.under_way.saturating_add(s.events.len());
        // One place stays free, or a full ring would look like an empty one.
        if used >= usize::try_from(self.capacity.saturating_sub(1)).unwrap_or(usize::MAX) {
            return Err(Errno::EAGAIN);
        }
        s.under_way = s.under_way.saturating_add(1);
        s.unsettled = s.unsettled.saturating_add(1);
        Ok(())
    }

    /// A request that was not begun after all.
    pub(super) fn give_back(&self) {
        let mut s = self.state.lock();
        s.under_way = s.under_way.saturating_sub(1);
        s.unsettled = s.unsettled.saturating_sub(1);
        // Unlocked first: who is woken looks at it.
        drop(s);
        self.queue.wake(PollEvents::IN);
    }

    /// A request has ended with `result`.
    pub(super) async fn complete(&self, what: &Completion, result: i64) {
        // No operation has a second result.
        let event = IoEvent { data: what.data, obj: what.object, res: result, res2: 0 };
        {
            let _turn = self.turn.lock().await;
            let tail = {
                let s = self.state.lock();
                let waiting = u32::try_from(s.events.len()).unwrap_or(0);
                s.head.wrapping_add(waiting).checked_rem(self.capacity).unwrap_or(0)
            };
            let next = tail.wrapping_add(1).checked_rem(self.capacity).unwrap_or(0);
            if let Some(memory) = self.memory.upgrade() {
                // Unmapped, it has the event in the sentry alone.
                let place = HEADER.saturating_add(u64::from(tail).saturating_mul(EVENT));
                let _ = self.at(place).and_then(|at| memory.write(at.addr().cast(), &event));
                let _ = self.at(TAIL).and_then(|at| memory.write(at, &next));
            }
            let mut s = self.state.lock();
            s.events.push_back(event);
            s.under_way = s.under_way.saturating_sub(1);
            s.polls.retain(|poll| !poll.is_over());
        }
        self.queue.wake(PollEvents::IN);
        if let Some(counter) = &what.counter {
            // A full counter stays full.
            let _ = counter.file().write(counter, &1_u64.to_ne_bytes(), 0);
        }
        let mut s = self.state.lock();
        s.unsettled = s.unsettled.saturating_sub(1);
    }

    /// Whether something can be taken, or nothing ever will.
    pub(super) fn has_news(&self) -> bool {
        self.see_head();
        let s = self.state.lock();
        s.dead || !s.events.is_empty()
    }

    pub(super) fn is_dead(&self) -> bool {
        self.state.lock().dead
    }

    pub(super) fn is_idle(&self) -> bool {
        self.state.lock().under_way == 0
    }

    /// Copies up to `most` events to `out`; gives their number. Those that can't be copied stay.
    ///
    /// # Errors
    /// EFAULT.
    pub(super) async fn take(&self, out: UserAddr, most: usize) -> Result<usize> {
        let _turn = self.turn.lock().await;
        self.see_head();
        let events: Vec<IoEvent> = self.state.lock().events.iter().take(most).cloned().collect();
        // Nobody else takes any meanwhile, and what comes is queued behind them.
        let Some(memory) = self.memory.upgrade().filter(|_| !events.is_empty()) else { return Ok(0) };
        memory.write_array(out, &events)?;
        let head = {
            let mut s = self.state.lock();
            s.events.drain(..events.len());
            let taken = u32::try_from(events.len()).unwrap_or(0);
            s.head = s.head.wrapping_add(taken).checked_rem(self.capacity).unwrap_or(0);
            s.head
        };
        let _ = self.at(HEAD).and_then(|at| memory.write(at, &head));
        Ok(events.len())
    }

    pub(super) fn add_poll(&self, poll: Arc<PollRequest>) {
        // Destroyed meanwhile, it must not wait for ever.
        let dead = {
            let mut s = self.state.lock();
            s.polls.push(poll.clone());
            s.dead
        };
        if dead {
            poll.cancel();
        }
    }

    /// The request at `object` that can be cancelled.
    pub(super) fn find_poll(&self, object: u64) -> Option<Arc<PollRequest>> {
        self.state.lock().polls.iter().find(|poll| poll.object() == object && !poll.is_over()).cloned()
    }

    /// As data, when what is under way has ended.
    ///
    /// # Errors
    /// A request that waits for a disk for very long.
    pub(super) fn save(&self) -> std::result::Result<(AioContextState, Vec<Arc<PollRequest>>), Refusal> {
        // What is written out ends by itself; what waits for a file is begun again.
        let waiting = |s: &State| s.polls.iter().filter(|poll| !poll.is_over()).cloned().collect::<Vec<_>>();
        let settled = || {
            let s = self.state.lock();
            s.unsettled == waiting(&s).len()
        };
        block_in_place(|| {
            let begun = Instant::now();
            while !settled() && begun.elapsed() < MOST_WAITING {
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        if !settled() {
            return Err(Refusal::new("a request of io_submit(2) that is under way"));
        }
        self.see_head();
        let s = self.state.lock();
        // Under one lock: one that ends now is either among the events or among those that wait.
        let polls = waiting(&s);
        if s.unsettled != polls.len() {
            return Err(Refusal::new("a request of io_submit(2) that is under way"));
        }
        let events = s.events.iter().map(|event| (event.data, event.obj, event.res)).collect();
        let (ring, len, capacity, requests) = (self.ring, self.len, self.capacity, self.charge.requests);
        Ok((AioContextState { ring, len, capacity, requests, head: s.head, events, polls: Vec::new() }, polls))
    }

    /// Has these events wait again, the first at `head`, as the ring out of an image has them.
    pub(super) fn put_back(&self, head: u32, events: VecDeque<IoEvent>) {
        let mut s = self.state.lock();
        (s.head, s.events) = (head, events);
    }

    /// Takes no requests any more, and ends those that may last; false if that was done before.
    pub(super) fn kill(&self) -> bool {
        let polls = {
            let mut s = self.state.lock();
            if std::mem::replace(&mut s.dead, true) {
                return false;
            }
            std::mem::take(&mut s.polls)
        };
        for poll in polls {
            poll.cancel();
        }
        self.queue.wake(PollEvents::IN);
        true
    }
}
