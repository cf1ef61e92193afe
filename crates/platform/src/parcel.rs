//! [`Parcel`]: bytes that a system call brings along, or takes back with it, in memory that its thread shares with the sentry.
//!
//! A copy out of or into another process is a host call that costs several times what a short system call does. So a platform
//! may have the thread itself copy what the call's arguments refer to before it asks, and what the sentry leaves for it before
//! it goes on. Whoever copies ([`MemoryManager`](../../moat_mm/struct.MemoryManager.html)'s few functions) need not know: the
//! parcel of the call that this executor thread is just carrying out is open, and is looked into first.
//!
//! # Invariants
//! - A parcel is open only while the future of its own task is being polled, from the call's stop to the end of that poll or of
//!   the call. So nothing that a tracer, another thread or a later moment would have to see is in it.
//! - What is put into it is written to memory before anybody reads there through the same parcel's process, and before the poll ends,
//!   unless its thread takes it along.
//! - The guest can write to it at any time: each byte is read once, into memory of the sentry's own.

use std::cell::RefCell;
use std::sync::Arc;

use crate::AddressSpace;

/// Ranges that one parcel takes back at most.
pub const MOST_GIFTS: usize = 4;

/// The memory of a parcel, which a thread of the guest's shares.
pub trait ParcelMemory: Send + Sync {
    /// Bytes that it has room for.
    fn capacity(&self) -> usize;

    /// Reads from it, each byte once; `at` and the length are within [`ParcelMemory::capacity`].
    fn read(&self, at: usize, buf: &mut [u8]);

    /// Writes to it; `at` and the length are within [`ParcelMemory::capacity`].
    fn write(&self, at: usize, bytes: &[u8]);
}

/// What a call has brought along, and room for what it takes back.
pub struct Parcel {
    /// Where it is.
    pub memory: Arc<dyn ParcelMemory>,
    /// The guest's memory from this address on, so many bytes, at the beginning of `memory`.
    pub taken: Option<(u64, usize)>,
    /// Whether what the call writes may stay in it until the call ends.
    pub gives: bool,
}

/// What a call takes back.
pub struct Gifts {
    space: Arc<dyn AddressSpace>,
    memory: Arc<dyn ParcelMemory>,
    list: [(u64, usize); MOST_GIFTS],
    count: usize,
    start: usize,
    end: usize,
}

impl Gifts {
    /// Addresses and lengths, in the order in which their bytes lie in the parcel.
    #[must_use]
    pub fn list(&self) -> &[(u64, usize)] {
        self.list.get(..self.count).unwrap_or_default()
    }

    /// Where in the parcel the first byte is.
    #[must_use]
    pub fn start(&self) -> usize {
        self.start
    }

    /// Writes them to the guest's memory. What has become of that since it was found to be writable is as if it had happened later.
    pub fn write_out(&mut self) {
        let mut at = self.start;
        for (addr, len) in self.list.iter().take(std::mem::take(&mut self.count)) {
            // No more than the parcel holds, by `add`.
            let mut bytes = vec![0; *len];
            self.memory.read(at, &mut bytes);
            let _ = self.space.write(*addr, &bytes);
            at = at.saturating_add(*len);
        }
        (self.start, self.end) = (at, at);
    }

    fn overlap(&self, addr: u64, len: usize) -> bool {
        self.list().iter().any(|(at, size)| overlap((*at, *size), (addr, len)))
    }

    /// Adds a range; false if there is no room for it.
    fn add(&mut self, addr: u64, bytes: &[u8]) -> bool {
        let Some(place) = self.list.get_mut(self.count) else { return false };
        let Some(end) = self.end.checked_add(bytes.len()).filter(|end| *end <= self.memory.capacity()) else {
            return false;
        };
        // Close behind the one before: the thread copies them with one pointer that moves on.
        self.memory.write(self.end, bytes);
        *place = (addr, bytes.len());
        self.count = self.count.saturating_add(1);
        self.end = end;
        true
    }
}

fn overlap(a: (u64, usize), b: (u64, usize)) -> bool {
    let end = |(addr, len): (u64, usize)| addr.saturating_add(u64::try_from(len).unwrap_or(u64::MAX));
    a.0 < end(b) && b.0 < end(a)
}

struct Open {
    pid: i32,
    taken: Option<(u64, usize)>,
    gives: bool,
    gifts: Gifts,
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
}

/// Opens the parcel of a call of a thread of `space`, until [`close`] on the same thread.
pub fn open(parcel: Parcel, space: &Arc<dyn AddressSpace>) {
    // What the call has brought along stays readable while it gives.
    let start = parcel.taken.map_or(0, |(_, len)| len);
    let gifts =
        Gifts { space: space.clone(), memory: parcel.memory, list: Default::default(), count: 0, start, end: start };
    let open = Open { pid: space.host_pid(), taken: parcel.taken, gives: parcel.gives, gifts };
    let old = OPEN.with_borrow_mut(|slot| slot.replace(open));
    debug_assert!(old.is_none(), "the parcel of another call is open");
}

/// Closes the parcel that is open, if there is one; gives what the call takes back.
pub fn close() -> Option<Gifts> {
    OPEN.with_borrow_mut(Option::take).map(|open| open.gifts).filter(|gifts| gifts.count != 0)
}

/// Does `f` with the parcel that is open, if it is one of process `pid`.
fn with<R>(pid: i32, f: impl FnOnce(&mut Open) -> Option<R>) -> Option<R> {
    OPEN.with_borrow_mut(|open| open.as_mut().filter(|open| open.pid == pid).and_then(f))
}

/// Reads guest memory out of the parcel, if all of it is there. If not, what the parcel still has to give to that memory is
/// there from here on.
#[must_use]
pub fn read(pid: i32, addr: u64, buf: &mut [u8]) -> bool {
    settle(pid, addr, buf.len());
    let read = with(pid, |open| {
        let (start, len) = open.taken?;
        let at = usize::try_from(addr.checked_sub(start)?).ok()?;
        let end = at.checked_add(buf.len())?;
        (end <= len).then(|| open.gifts.memory.read(at, buf))
    });
    read.is_some()
}

/// The bytes of guest memory from `addr` on that the parcel has, if it has any.
#[must_use]
pub fn bytes_from(pid: i32, addr: u64, buf: &mut [u8]) -> usize {
    let read = with(pid, |open| {
        let (start, len) = open.taken?;
        let at = usize::try_from(addr.checked_sub(start)?).ok()?;
        let buf = buf.get_mut(..len.checked_sub(at)?.min(buf.len()))?;
        open.gifts.memory.read(at, buf);
        Some(buf.len())
    });
    read.unwrap_or(0)
}

/// Whether so many bytes for guest memory could be left in the parcel.
#[must_use]
pub fn has_room(pid: i32, len: usize) -> bool {
    let room = with(pid, |open| {
        let room = open.gifts.memory.capacity().checked_sub(open.gifts.end)?;
        Some(open.gives && len <= room && open.gifts.count < MOST_GIFTS)
    });
    room.unwrap_or(false)
}

/// Leaves bytes for guest memory in the parcel; false if they have to be written. The caller has seen that they can be.
#[must_use]
pub fn give(pid: i32, addr: u64, bytes: &[u8]) -> bool {
    let given = with(pid, |open| {
        // What lies there is no longer what the call has brought along.
        open.taken = open.taken.filter(|taken| !overlap(*taken, (addr, bytes.len())));
        (open.gives && open.gifts.add(addr, bytes)).then_some(())
    });
    given.is_some()
}

/// Guest memory is about to be read otherwise: what the parcel has to give to it comes before.
pub fn settle(pid: i32, addr: u64, len: usize) {
    let _ = with(pid, |open| {
        if open.gifts.overlap(addr, len) {
            open.gifts.write_out();
        }
        Some(())
    });
}

/// Guest memory is about to be written otherwise: what the parcel has to give to it comes before.
pub fn written(pid: i32, addr: u64, len: usize) {
    settle(pid, addr, len);
    let _ = with(pid, |open| {
        open.taken = open.taken.filter(|taken| !overlap(*taken, (addr, len)));
        Some(())
    });
}
