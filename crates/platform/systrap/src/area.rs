//! [`AreaPool`]: the memory that the sentry shares with each guest thread.
//!
//! One memfd holds all areas of a stock; the sentry has it mapped whole, a guest process maps those of its own threads.
//! Guest code may write its areas at any time, so every access here is volatile, of whole words, by an offset
//! that is checked.
//!
//! # Invariant
//! An area index is given out again only when no process can have it mapped any more: after its process is reaped
//! (children never inherit a mapping, see [`crate::space`]).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use moat_abi::{Errno, Result};
use moat_platform::{ANSWERABLE, Answers};
use moat_stub::layout::{
    AREA_LEN, Cell, Control, REPLY_RESUME, STATE_ASLEEP, STATE_PLAIN, STATE_REPLIED, STATE_REQUEST, STATE_SLEEPS,
};
use moat_sync::{LockClass, Mutex};

/// Offset of a field of [`Control`].
macro_rules! control {
    ($field:ident) => {
        std::mem::offset_of!(moat_stub::layout::Control, $field) as u64
    };
}
pub(crate) use control;

/// Offset of a field of the area's [`moat_stub::layout::CallSlot`].
macro_rules! call_slot {
    ($field:ident) => {
        std::mem::offset_of!(moat_stub::layout::Control, call.$field) as u64
    };
}
pub(crate) use call_slot;

/// Areas in all: bounds the guest threads of one stock. Memory is used only by areas that have been.
const MAX_AREAS: u32 = 32768;

/// The areas of all guest threads of a stock.
pub struct AreaPool {
    fd: OwnedFd,
    base: NonNull<u8>,
    free: Mutex<Free>,
}

struct Free {
    returned: Vec<u32>,
    next: u32,
}

// SAFETY: `base` is a shared mapping that lives as long as the pool; access goes through volatile reads and writes.
unsafe impl Send for AreaPool {}
// SAFETY: as above.
unsafe impl Sync for AreaPool {}

impl AreaPool {
    /// Makes the memfd and maps it.
    pub fn new() -> Result<AreaPool> {
        use rustix::fs::{MemfdFlags, SealFlags};
        use rustix::mm::{MapFlags, ProtFlags};
        let fd = rustix::fs::memfd_create("moat-areas", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)
            .map_err(Errno::from)?;
        let len = u64::from(MAX_AREAS) * AREA_LEN;
        rustix::fs::ftruncate(&fd, len).map_err(Errno::from)?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL).map_err(Errno::from)?;
        // SAFETY: a new mapping at an address of the kernel's choice.
        let base = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                usize::try_from(len).map_err(|_| Errno::ENOMEM)?,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::NORESERVE,
                &fd,
                0,
            )
        }
        .map_err(Errno::from)?;
        let base = NonNull::new(base.cast()).ok_or(Errno::ENOMEM)?;
        let free = Mutex::new(LockClass::Platform, Free { returned: Vec::new(), next: 1 });
        Ok(AreaPool { fd, base, free })
    }

    /// The memfd.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// An area that nobody has mapped.
    pub fn take(&self) -> Result<Area> {
        let mut free = self.free.lock();
        let index = match free.returned.pop() {
            Some(index) => index,
            None if free.next < MAX_AREAS => {
                free.next += 1;
                free.next - 1
            }
            None => return Err(Errno::EAGAIN),
        };
        drop(free);
        Ok(self.area(index))
    }

    fn area(&self, index: u32) -> Area {
        // SAFETY: index < MAX_AREAS, so that the offset is inside the mapping.
        let base = unsafe { self.base.add(index as usize * AREA_LEN as usize) };
        Area { base, index }
    }

    /// The page that every guest process can read, if this is the first stock's memory.
    pub fn board(&self) -> Area {
        self.area(0)
    }

    /// Gives areas back; no process may have them mapped.
    pub fn give_back(&self, areas: impl Iterator<Item = Area>) {
        self.free.lock().returned.extend(areas.map(|area| area.index));
    }
}

impl Drop for AreaPool {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`; areas are used only by objects that keep the pool alive.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), MAX_AREAS as usize * AREA_LEN as usize) };
    }
}

/// One thread's area, as the sentry sees it. Valid as long as its [`AreaPool`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Area {
    base: NonNull<u8>,
    index: u32,
}

// SAFETY: a plain address; access is volatile and the other side is another process anyway.
unsafe impl Send for Area {}
// SAFETY: as above.
unsafe impl Sync for Area {}

impl Area {
    /// Offset in the memfd.
    pub fn file_offset(self) -> u64 {
        u64::from(self.index) * AREA_LEN
    }

    fn at<T>(self, offset: u64) -> *mut T {
        assert!(offset <= AREA_LEN - size_of::<T>() as u64 && offset.is_multiple_of(align_of::<T>() as u64));
        // SAFETY: just checked to be inside the area.
        unsafe { self.base.as_ptr().add(offset as usize).cast() }
    }

    fn state<'a>(self) -> &'a AtomicU32 {
        // SAFETY: `at` gives an aligned address inside the mapping, which outlives every use of an area.
        unsafe { AtomicU32::from_ptr(self.at(call_slot!(state))) }
    }

    /// Changes the state of a stub that waits awake; false if it rings.
    fn replace_request(self, by: u32) -> bool {
        self.state().compare_exchange(STATE_REQUEST, by, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    /// Replaces the state of a stub that waits awake by REPLIED; false if it rings.
    pub fn reply_awake(self) -> bool {
        self.replace_request(STATE_REPLIED)
    }

    /// Replaces the state of a stub that waits awake in a call by PLAIN; false if it rings, and is to find the same reply in full.
    pub fn reply_plain(self) -> bool {
        self.replace_request(STATE_PLAIN)
    }

    /// Writes all of a reply that lets a call return, but for its result.
    pub fn write_plain_reply(self) {
        self.write32(control!(order_count), 0);
        self.write32(call_slot!(gift_count), 0);
        self.write32(control!(reply), REPLY_RESUME);
    }

    /// Has a stub that waits awake wait until [`Area::wake`]; false if it rings.
    pub fn lie_down(self) -> bool {
        self.replace_request(STATE_SLEEPS)
    }

    /// Has the stub wait until [`Area::wake`], once its ring is answered.
    pub fn sleep(self) {
        let state = self.state();
        state.store(STATE_SLEEPS, Ordering::Release);
    }

    /// Ends that wait: the reply is there.
    pub fn wake(self) {
        let state = self.state();
        state.store(STATE_REPLIED, Ordering::Release);
        // Nobody there: it has not slept yet, and does not any more.
        let _ = rustix::thread::futex::wake(state, rustix::thread::futex::Flags::empty(), 1);
    }

    /// Before a ring is answered: who rings next is told from who has not taken the answer yet.
    pub fn reply_asleep(self) {
        self.write32(call_slot!(state), STATE_REPLIED);
    }

    /// Whether the stub rings, and is not answered yet.
    pub fn rings(self) -> bool {
        self.read32(call_slot!(state)) == STATE_ASLEEP
    }

    /// Whether the stub waits awake, with all that it has written in view.
    pub fn requests(self) -> bool {
        let state = self.state();
        state.load(Ordering::Acquire) == STATE_REQUEST
    }

    /// Reads a word once.
    pub fn read(self, offset: u64) -> u64 {
        // SAFETY: `at` gives an aligned address inside the mapping; any bits are a u64.
        unsafe { self.at::<u64>(offset).read_volatile() }
    }

    /// Reads half a word once.
    pub fn read32(self, offset: u64) -> u32 {
        // SAFETY: as above.
        unsafe { self.at::<u32>(offset).read_volatile() }
    }

    /// Writes a word.
    pub fn write(self, offset: u64, value: u64) {
        // SAFETY: as above.
        unsafe { self.at::<u64>(offset).write_volatile(value) }
    }

    /// Writes half a word.
    pub fn write32(self, offset: u64, value: u32) {
        // SAFETY: as above.
        unsafe { self.at::<u32>(offset).write_volatile(value) }
    }

    /// Writes what calls give, as the stub finds it: one more, and 0 for those that the sentry is to be asked for.
    pub fn write_answers(self, answers: &Answers) {
        self.write32(control!(own_calls), u32::from(answers.host_calls));
        for (nr, answer) in ANSWERABLE.into_iter().zip(answers.ids) {
            let word = answer.and_then(|answer| answer.checked_add(1)).unwrap_or(0);
            self.write32(control!(answers).saturating_add(u64::from(nr).saturating_mul(4)), word);
        }
    }

    /// Writes an order.
    pub fn write_cell(self, i: usize, cell: &Cell) {
        let offset = control!(cells) + (i * size_of::<Cell>()) as u64;
        // SAFETY: as above; a cell is eight words.
        unsafe { self.at::<Cell>(offset).write_volatile(*cell) }
    }

    /// Reads the result of an order.
    pub fn read_result(self, i: usize) -> u64 {
        self.read(control!(cells) + (i * size_of::<Cell>() + std::mem::offset_of!(Cell, result)) as u64)
    }

    /// Copies bytes out, each once.
    pub fn read_bytes(self, offset: u64, len: u64) -> Vec<u8> {
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.read_unaligned(offset, 0, &mut bytes);
        bytes
    }

    /// Copies bytes in.
    pub fn write_bytes(self, offset: u64, bytes: &[u8]) {
        self.write_unaligned(offset, 0, bytes);
    }

    /// Copies bytes out from `skip` behind `offset`, each once.
    pub fn read_unaligned(self, offset: u64, skip: usize, buf: &mut [u8]) {
        let mut at = offset.saturating_add(u64::try_from(skip).unwrap_or(u64::MAX));
        let mut rest = buf;
        while !rest.is_empty() {
            let word = at.is_multiple_of(8) && rest.len() >= 8;
            let (part, next) = rest.split_at_mut(if word { 8 } else { 1 });
            match part {
                // SAFETY: `at` gives an address inside the mapping; any bits are a u8.
                [byte] => *byte = unsafe { self.at::<u8>(at).read_volatile() },
                word => word.copy_from_slice(&self.read(at).to_le_bytes()),
            }
            at = at.saturating_add(if word { 8 } else { 1 });
            rest = next;
        }
    }

    /// Copies bytes in to `skip` behind `offset`.
    pub fn write_unaligned(self, offset: u64, skip: usize, bytes: &[u8]) {
        let mut at = offset.saturating_add(u64::try_from(skip).unwrap_or(u64::MAX));
        let mut rest = bytes;
        while let Some((byte, next)) = rest.split_first() {
            if at.is_multiple_of(8)
                && let Some((word, next)) = rest.split_first_chunk()
            {
                self.write(at, u64::from_le_bytes(*word));
                (at, rest) = (at.saturating_add(8), next);
            } else {
                // SAFETY: as above.
                unsafe { self.at::<u8>(at).write_volatile(*byte) };
                (at, rest) = (at.saturating_add(1), next);
            }
        }
    }

    /// Copies everything from `offset` to the end of the area (the signal frame) from another area.
    pub fn copy_tail(self, from: Area, offset: u64) {
        for at in (offset..AREA_LEN).step_by(8) {
            self.write(at, from.read(at));
        }
    }
}

const _: () = assert!(size_of::<Control>() <= 4096);
