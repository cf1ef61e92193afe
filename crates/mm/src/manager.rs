//! [`MemoryManager`]: one guest address space (`struct mm_struct`).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use moat_abi::{Errno, Result};

use moat_platform::{AddressSpace, GUEST_BOTTOM, GUEST_TOP, GuestThread, NewProcess, Order, VdsoLayout, execute};
use moat_sync::async_mutex::{AsyncGuard, AsyncMutex};
use moat_sync::{LockClass, Mutex, MutexGuard};

use moat_abi::mman::ProtFlags;

use crate::PAGE_SIZE;
use crate::aio::KernelAio;
use crate::ids::MmIds;
use crate::tree::VmaTree;
use crate::vma::{Backing, Special, Vma, VmaFlags};

/// Areas one address space may have (`vm.max_map_count`).
pub const MAX_MAP_COUNT: usize = 65_530;
/// From here on orders are executed at once: the host counts areas its own way and may refuse one.
const NEAR_MAP_COUNT: usize = 30_000;
/// Writable private mappings from this size on are executed at once: the host may refuse to overcommit.
const LARGE_MAPPING: u64 = 256 << 20;

/// The resource limits that matter to memory, in bytes; `u64::MAX` is RLIM_INFINITY.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MmLimits {
    /// RLIMIT_AS.
    pub address_space: u64,
    /// RLIMIT_DATA.
    pub data: u64,
    /// RLIMIT_STACK.
    pub stack: u64,
    /// RLIMIT_MEMLOCK.
    pub memlock: u64,
}

impl Default for MmLimits {
    fn default() -> Self {
        MmLimits { address_space: u64::MAX, data: u64::MAX, stack: 8 << 20, memlock: 8 << 20 }
    }
}

/// Where a program's parts lie, set by exec (and prctl(PR_SET_MM)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImageLayout {
    /// Code.
    pub code: std::ops::Range<u64>,
    /// Initialised data.
    pub data: std::ops::Range<u64>,
    /// The stack pointer at entry.
    pub start_stack: u64,
    /// The argument strings: `/proc/PID/cmdline`.
    pub args: std::ops::Range<u64>,
    /// The environment strings: `/proc/PID/environ`.
    pub env: std::ops::Range<u64>,
    /// The auxiliary vector as written: `/proc/PID/auxv`.
    pub auxv: Vec<u8>,
}

/// What the tree's lock guards.
pub(crate) struct MmState {
    pub(crate) tree: VmaTree,
    pub(crate) limits: MmLimits,
    /// Mappings are placed below this.
    pub(crate) mmap_base: u64,
    pub(crate) brk_start: u64,
    pub(crate) brk: u64,
    pub(crate) image: ImageLayout,
    /// mlockall(MCL_FUTURE): flags for new areas.
    pub(crate) lock_future: VmaFlags,
    /// Largest `totals.mapped` ever (VmPeak).
    pub(crate) peak_mapped: u64,
}

/// One guest address space: the VMA tree and the host process that carries it out.
pub struct MemoryManager {
    id: u64,
    ids: Arc<MmIds>,
    space: Arc<dyn AddressSpace>,
    users: AtomicUsize,
    map_lock: AsyncMutex,
    private_barrier: AtomicBool,
    aio: OnceLock<Arc<dyn KernelAio>>,
    state: Mutex<MmState>,
}

impl MmState {
    /// The child's state: without DONTFORK areas and locks. The host has left out and wiped the same areas.
    fn for_child(&self) -> MmState {
        let mut tree = self.tree.clone();
        let special = VmaFlags::DONTFORK | VmaFlags::LOCKED | VmaFlags::LOCK_ONFAULT;
        let changes: Vec<_> =
            tree.iter().filter(|v| v.flags.intersects(special)).map(|v| (v.start, v.end, v.flags)).collect();
        for (start, end, flags) in changes {
            if flags.contains(VmaFlags::DONTFORK) {
                tree.remove(start, end);
            } else {
                tree.update(start, end, |v| v.flags.remove(special));
            }
        }
        MmState {
            peak_mapped: tree.totals().mapped,
            tree,
            limits: self.limits,
            mmap_base: self.mmap_base,
            brk_start: self.brk_start,
            brk: self.brk,
            image: self.image.clone(),
            // mlockall(MCL_FUTURE) is not inherited.
            lock_future: VmaFlags::empty(),
        }
    }
}

impl MemoryManager {
    /// The address space of a blank process: nothing mapped but the vDSO. It has one user.
    #[must_use]
    pub fn new(space: Arc<dyn AddressSpace>, vdso: &VdsoLayout, limits: MmLimits, ids: &Arc<MmIds>) -> MemoryManager {
        let mut tree = VmaTree::new();
        let read_exec = ProtFlags::READ | ProtFlags::EXEC;
        for (range, special, prot) in
            [(&vdso.vvar, Special::Vvar, ProtFlags::READ), (&vdso.vdso, Special::Vdso, read_exec)]
        {
            if !range.is_empty() {
                tree.insert(Vma {
                    start: range.start,
                    end: range.end,
                    prot,
                    // The vDSO may be written by debuggers, as a copy of its own; the pages of the clock never.
                    max_prot: if special == Special::Vvar { ProtFlags::READ } else { ProtFlags::RWX },
                    flags: VmaFlags::DONTDUMP,
                    backing: Backing::Special(special),
                });
            }
        }
        let state = MmState {
            tree,
            limits,
            // Until a program is loaded, whose stack decides.
            mmap_base: GUEST_TOP,
            brk_start: 0,
            brk: 0,
            image: ImageLayout::default(),
            lock_future: VmaFlags::empty(),
            peak_mapped: 0,
        };
        MemoryManager::with_state(space, state, ids.clone())
    }

    /// Copies the address space (`dup_mm`): private memory copy-on-write by the host, shared mappings shared.
    ///
    /// Gives the child's address space, with one user, and its only thread, parked with the parent's registers.
    ///
    /// # Errors
    /// EAGAIN, ENOMEM from the host.
    pub async fn fork(&self, thread: &mut dyn GuestThread) -> Result<(Arc<MemoryManager>, Box<dyn GuestThread>)> {
        let turn = self.turn().await;
        // The turn lasts until the tree is copied, so that it and the host's pages are of one moment.
        let process = std::future::poll_fn(|cx| thread.poll_fork(cx)).await?;
        let NewProcess { space, thread } = process;
        let state = self.state().for_child();
        drop(turn);
        Ok((Arc::new(MemoryManager::with_state(space, state, self.ids().clone())), thread))
    }

    fn with_state(space: Arc<dyn AddressSpace>, state: MmState, ids: Arc<MmIds>) -> MemoryManager {
        MemoryManager {
            id: ids.managers.next(),
            ids,
            space,
            users: AtomicUsize::new(1),
            map_lock: AsyncMutex::new(),
            private_barrier: AtomicBool::new(false),
            aio: OnceLock::new(),
            state: Mutex::new(LockClass::Vmas, state),
        }
    }

    /// A number that no other address space of this sandbox ever has.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Where ids come from.
    #[must_use]
    pub fn ids(&self) -> &Arc<MmIds> {
        &self.ids
    }

    /// What asynchronous I/O keeps with it, once somebody has asked for some.
    #[must_use]
    pub fn aio(&self) -> &OnceLock<Arc<dyn KernelAio>> {
        &self.aio
    }

    /// The host process.
    #[must_use]
    pub fn space(&self) -> &Arc<dyn AddressSpace> {
        &self.space
    }

    /// A task began to use this address space beside its first one: clone(CLONE_VM).
    pub fn add_user(&self) {
        self.users.fetch_add(1, Ordering::AcqRel);
    }

    /// A task stopped using it: it exited, or took another one by exec. Gives true for the last one.
    pub fn remove_user(&self) -> bool {
        self.users.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// How many tasks use it.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.load(Ordering::Acquire)
    }

    /// membarrier(2)'s MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED.
    pub fn register_private_barrier(&self) {
        self.private_barrier.store(true, Ordering::Relaxed);
    }

    /// Whether that has been done.
    #[must_use]
    pub fn has_private_barrier(&self) -> bool {
        self.private_barrier.load(Ordering::Relaxed)
    }

    /// Has every CPU that runs a guest process pass a memory barrier ([`moat_platform::AddressSpace::pass_barrier`]).
    ///
    /// # Errors
    /// ENOSYS if that takes a host's own membarrier(2).
    pub fn pass_barrier(&self) -> Result<()> {
        self.space().pass_barrier()
    }

    /// Replaces the limits: exec, prlimit(2).
    pub fn set_limits(&self, limits: MmLimits) {
        self.state().limits = limits;
    }

    /// The limits in force.
    #[must_use]
    pub fn limits(&self) -> MmLimits {
        self.state().limits
    }

    /// Where the program's parts lie.
    #[must_use]
    pub fn image(&self) -> ImageLayout {
        self.state().image.clone()
    }

    /// Sets where the program's parts lie.
    pub fn set_image(&self, image: ImageLayout) {
        self.state().image = image;
    }

    /// Sets the address below which mappings are placed; the loader knows the stack.
    pub fn set_mmap_base(&self, base: u64) {
        self.state().mmap_base = base.clamp(GUEST_BOTTOM, GUEST_TOP);
    }

    /// Says what a failed deferred order means: the guest's memory is no longer what its tree says.
    ///
    /// Linux can fail there as well, later, by its out-of-memory killer; so the task dies by SIGKILL, with a log line.
    pub fn order_failed(&self, errno: Errno) {
        tracing::warn!(mm = self.id, host_pid = self.space.host_pid(), %errno, "the host refused a memory operation; the process is killed");
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, MmState> {
        self.state.lock()
    }

    /// Begins a change of mappings: waits for the others unless there is only one user.
    pub(crate) async fn turn(&self) -> Turn {
        // The only user is the caller, and only the caller could add another: nobody is there to exclude.
        if self.users() <= 1 {
            return Turn { guard: None };
        }
        Turn { guard: Some(self.map_lock.lock().await) }
    }

    /// As [`MemoryManager::turn`], unless another user has it.
    pub(crate) fn try_turn(&self) -> Option<Turn> {
        self.map_lock.try_lock().map(|guard| Turn { guard: Some(guard) })
    }
}

/// The right to change the mappings.
pub(crate) struct Turn {
    guard: Option<AsyncGuard>,
}

/// When an order must have been carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before the caller's thread resumes, if no other thread can tell; failure is unlikely.
    Resume,
    /// As `Resume`, and other threads can't tell: the range is new to them.
    ResumeFresh,
    /// Before the call returns, because its failure is the guest's business.
    Now,
}

impl Turn {
    /// Has `thread` carry out `order`, at once or when it resumes.
    pub(crate) async fn carry_out(&self, thread: &mut dyn GuestThread, order: Order, when: When) -> Result<u64> {
        let defer = match when {
            When::Resume => self.guard.is_none(),
            // With other users, one of them could still see the old mapping after the call returned.
            When::ResumeFresh => true,
            When::Now => false,
        };
        if defer {
            thread.defer(order);
            return Ok(0);
        }
        execute(thread, order).await
    }
}

impl MmState {
    /// When to carry out the mapping of `len` bytes.
    pub(crate) fn urgency(&self, len: u64, prot: ProtFlags, wish: When) -> When {
        if self.tree.count() > NEAR_MAP_COUNT || (len >= LARGE_MAPPING && prot.contains(ProtFlags::WRITE)) {
            When::Now
        } else {
            wish
        }
    }

    /// Whether `len` more bytes fit (`may_expand_vm`).
    pub(crate) fn check_expand(&self, len: u64, is_data: bool) -> Result<()> {
        let totals = self.tree.totals();
        let fits = |used: u64, limit: u64| used.checked_add(len).is_some_and(|sum| sum <= limit);
        if !fits(totals.mapped, self.limits.address_space) || (is_data && !fits(totals.data, self.limits.data)) {
            return Err(Errno::ENOMEM);
        }
        Ok(())
    }

    /// Whether `more` areas fit.
    pub(crate) fn check_count(&self, more: usize) -> Result<()> {
        if self.tree.count() + more > MAX_MAP_COUNT { Err(Errno::ENOMEM) } else { Ok(()) }
    }

    /// Notes the size reached.
    pub(crate) fn note_peak(&mut self) {
        self.peak_mapped = self.peak_mapped.max(self.tree.totals().mapped);
    }
}

/// Rounds a guest's length up to pages; ENOMEM if it can't be mapped at all.
pub(crate) fn checked_len(len: u64) -> Result<u64> {
    let len = crate::page_up(len).ok_or(Errno::ENOMEM)?;
    if len > GUEST_TOP - PAGE_SIZE { Err(Errno::ENOMEM) } else { Ok(len) }
}
