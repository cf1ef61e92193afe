//! mmap(2): [`MmapRequest`] and where it is placed.

use std::sync::Arc;

use bitflags::bitflags;
use moat_abi::mman::{MapFlags, ProtFlags};
use moat_abi::{Errno, Result};
use moat_platform::{GUEST_BOTTOM, GUEST_TOP, GuestThread, Order, execute};

use crate::copy::effective_prot;
use crate::manager::{MmState, When, checked_len};
use crate::mappable::{MapFile, SharedAnon, Sharing};
use crate::vma::{Backing, Vma, VmaFlags};
use crate::{Mappable, MemoryManager, is_page_aligned, page_down};

/// The upper bound of MAP_32BIT mappings, and the lower one (`find_start_end`).
const LOW_4G: std::ops::Range<u64> = 0x4000_0000..0x8000_0000;

bitflags! {
    /// How the mapped file was opened.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FileAccess: u32 {
        /// For reading.
        const READ = 1;
        /// For writing.
        const WRITE = 2;
        /// Its mount allows execution.
        const EXEC = 4;
    }
}

/// What is to be mapped.
#[derive(Clone)]
pub enum MapBacking {
    /// Zeros (MAP_ANONYMOUS).
    Anonymous,
    /// A file.
    File {
        /// The file.
        object: Arc<dyn Mappable>,
        /// Byte offset.
        offset: u64,
        /// How it was opened.
        access: FileAccess,
    },
}

/// The arguments of mmap(2).
#[derive(Clone)]
pub struct MmapRequest {
    /// Where, or a hint; zero for anywhere.
    pub addr: u64,
    /// Bytes.
    pub len: u64,
    /// Protection; bits other than read, write and execute are ignored.
    pub prot: ProtFlags,
    /// MAP_*; unknown bits are kept for MAP_SHARED_VALIDATE.
    pub flags: MapFlags,
    /// What.
    pub backing: MapBacking,
}

impl MmapRequest {
    /// Private anonymous memory of `len` bytes anywhere.
    #[must_use]
    pub fn anonymous(len: u64, prot: ProtFlags) -> MmapRequest {
        MmapRequest {
            addr: 0,
            len,
            prot,
            flags: MapFlags::PRIVATE | MapFlags::ANONYMOUS,
            backing: MapBacking::Anonymous,
        }
    }
}

/// A request that passed the checks that need no tree.
struct Checked {
    len: u64,
    prot: ProtFlags,
    max_prot: ProtFlags,
    flags: VmaFlags,
    sharing: Sharing,
    backing: Backing,
}

impl MemoryManager {
    /// As [`MemoryManager::mmap`], for who writes to the memory before the thread resumes: nothing is deferred.
    ///
    /// # Errors
    /// As there.
    pub async fn mmap_at_once(&self, thread: &mut dyn GuestThread, request: MmapRequest) -> Result<u64> {
        let len = request.len;
        let addr = self.mmap(thread, request).await?;
        // Any order takes those along that were deferred before it; this one does nothing else.
        let advice = moat_abi::mman::MADV_NORMAL;
        execute(thread, Order::Madvise { addr, len, advice }).await?;
        Ok(addr)
    }

    /// Maps memory (`do_mmap`); gives the address.
    ///
    /// # Errors
    /// Those of mmap(2).
    pub async fn mmap(&self, thread: &mut dyn GuestThread, request: MmapRequest) -> Result<u64> {
        let checked = check(&request)?;
        let turn = self.turn().await;
        let (addr, fresh, vma_flags) = {
            let mut state = self.state();
            let flags = checked.flags | state.lock_future;
            let addr = state.place(request.addr, checked.len, request.flags)?;
            // If nothing is replaced, no thread can tell when the order is carried out.
            let fresh = state.tree.is_free(addr, addr.saturating_add(checked.len));
            state.check_room(addr, &checked)?;
            state.check_lock_limit(addr, checked.len, flags)?;
            (addr, fresh, flags)
        };
        let end = addr.saturating_add(checked.len);
        let mut vma = Vma {
            start: addr,
            end,
            prot: checked.prot,
            max_prot: checked.max_prot,
            flags: vma_flags,
            backing: checked.backing,
        };
        // Shared anonymous memory is a file of its own, which children go on sharing.
        if vma_flags.contains(VmaFlags::SHARED) && matches!(vma.backing, Backing::Anonymous) {
            vma.backing = Backing::File { object: Arc::new(SharedAnon::new(self.ids(), checked.len)?), offset: 0 };
        }
        let what = MapFile {
            offset: vma.file_offset(addr),
            len: checked.len,
            prot: checked.prot,
            sharing: checked.sharing,
            ids: self.ids(),
        };
        let source = match &vma.backing {
            Backing::File { object, .. } => {
                // First, because a seal or a deny-write count may refuse.
                object.mapped(&what)?;
                object.map_source(&what)?
            }
            _ => vma.zeros(),
        };
        let wish = match (checked.sharing, fresh) {
            (Sharing::Shared, _) => When::Now,
            (Sharing::Private, true) => When::ResumeFresh,
            (Sharing::Private, false) => When::Resume,
        };
        let when = self.state().urgency(checked.len, checked.prot, wish);
        let order = Order::Mmap { addr, len: checked.len, prot: effective_prot(checked.prot).bits(), source };
        if let Err(errno) = turn.carry_out(thread, order, when).await {
            if !fresh && errno == Errno::ENOMEM {
                // The host unmaps what is in the way before it may run out: make that certain.
                let _ = turn.carry_out(thread, Order::Munmap { addr, len: checked.len }, When::Now).await;
                let removed = self.state().tree.remove(addr, end);
                drop(removed);
            }
            return Err(errno);
        }
        let removed = {
            let mut state = self.state();
            let removed = if fresh { Vec::new() } else { state.tree.remove(addr, end) };
            state.tree.insert(vma);
            state.note_peak();
            removed
        };
        // Dropped outside the lock: the last use of a file may close it.
        drop(removed);
        self.after_map(thread, &turn, addr, checked.len, request.flags, vma_flags).await;
        Ok(addr)
    }
}

impl MemoryManager {
    /// A free range of `len` bytes where mmap would put one; nothing reserves it.
    ///
    /// # Errors
    /// ENOMEM.
    pub fn find_free(&self, len: u64) -> Result<u64> {
        self.state().find_place(checked_len(len)?)
    }

    /// Whether nothing is mapped in the `len` bytes at `addr`.
    #[must_use]
    pub fn is_free(&self, addr: u64, len: u64) -> bool {
        self.state().tree.is_free(addr, addr.saturating_add(len))
    }
}

/// The checks of do_mmap() that need no tree.
fn check(request: &MmapRequest) -> Result<Checked> {
    if request.len == 0 {
        return Err(Errno::EINVAL);
    }
    let len = checked_len(request.len)?;
    let flags = request.flags;
    let sharing = match flags.map_type() {
        // MAP_SHARED and MAP_SHARED_VALIDATE.
        1 | 3 => Sharing::Shared,
        // MAP_PRIVATE.
        2 => Sharing::Private,
        _ => return Err(Errno::EINVAL),
    };
    let prot = request.prot & ProtFlags::RWX;
    let mut vma_flags = VmaFlags::empty();
    vma_flags.set(VmaFlags::GROWSDOWN, flags.contains(MapFlags::GROWSDOWN));
    vma_flags.set(VmaFlags::LOCKED, flags.contains(MapFlags::LOCKED));
    vma_flags.set(VmaFlags::NORESERVE, flags.contains(MapFlags::NORESERVE));
    vma_flags.set(VmaFlags::SHARED, sharing == Sharing::Shared);
    if flags.contains(MapFlags::HUGETLB) {
        // A kernel with no huge pages in its pool.
        return Err(if matches!(request.backing, MapBacking::Anonymous) { Errno::ENOMEM } else { Errno::EINVAL });
    }
    let (max_prot, backing) = match &request.backing {
        MapBacking::Anonymous => {
            if vma_flags.contains(VmaFlags::GROWSDOWN) && sharing == Sharing::Shared {
                return Err(Errno::EINVAL);
            }
            (ProtFlags::RWX, Backing::Anonymous)
        }
        MapBacking::File { object, offset, access } => {
            let max_prot = check_file(*offset, len, prot, flags, *access)?;
            // Only anonymous areas grow.
            if vma_flags.contains(VmaFlags::GROWSDOWN) {
                return Err(Errno::EINVAL);
            }
            (max_prot, Backing::File { object: object.clone(), offset: *offset })
        }
    };
    Ok(Checked { len, prot, max_prot, flags: vma_flags, sharing, backing })
}

/// The checks of do_mmap() for a file; gives what mprotect(2) may set later.
fn check_file(offset: u64, len: u64, prot: ProtFlags, flags: MapFlags, access: FileAccess) -> Result<ProtFlags> {
    if !is_page_aligned(offset) {
        return Err(Errno::EINVAL);
    }
    let file_end = offset.checked_add(len).ok_or(Errno::EOVERFLOW)?;
    // Offsets are signed (`loff_t`).
    if i64::try_from(file_end).is_err() {
        return Err(Errno::EOVERFLOW);
    }
    if flags.map_type() == 3 && flags.bits() & !MapFlags::LEGACY_MASK != 0 {
        // MAP_SYNC and unknown flags: no file system here has them.
        return Err(Errno::EOPNOTSUPP);
    }
    if !access.contains(FileAccess::READ) {
        return Err(Errno::EACCES);
    }
    let mut max_prot = ProtFlags::RWX;
    // A private mapping may always be made writable: what is written stays in memory.
    if flags.map_type() != 2 && !access.contains(FileAccess::WRITE) {
        if prot.contains(ProtFlags::WRITE) {
            return Err(Errno::EACCES);
        }
        max_prot.remove(ProtFlags::WRITE);
    }
    // Mounted noexec: EPERM, where the open mode gives EACCES.
    if !access.contains(FileAccess::EXEC) {
        if prot.contains(ProtFlags::EXEC) {
            return Err(Errno::EPERM);
        }
        max_prot.remove(ProtFlags::EXEC);
    }
    Ok(max_prot)
}

impl MmState {
    /// Chooses the address of a mapping of `len` bytes (`get_unmapped_area`).
    fn place(&mut self, addr: u64, len: u64, flags: MapFlags) -> Result<u64> {
        if flags.intersects(MapFlags::FIXED | MapFlags::FIXED_NOREPLACE) {
            return self.place_fixed(addr, len, flags);
        }
        if flags.contains(MapFlags::ADDR_32BIT) {
            return self.place_low(len);
        }
        if addr != 0 {
            // A hint replaces nothing, unlike MAP_FIXED: it counts only where the whole range is free.
            let hint = page_down(addr).max(GUEST_BOTTOM);
            if let Some(end) = hint.checked_add(len)
                && end <= GUEST_TOP
                && self.tree.is_free_for_hint(hint, end)
            {
                return Ok(hint);
            }
        }
        self.find_place(len)
    }

    /// The best free range of `len` bytes below the mapping base, else anywhere.
    pub(crate) fn find_place(&mut self, len: u64) -> Result<u64> {
        let base = self.mmap_base;
        let found = self.tree.find_gap(len, GUEST_BOTTOM, base);
        found.or_else(|| self.tree.find_gap(len, GUEST_BOTTOM, GUEST_TOP)).ok_or(Errno::ENOMEM)
    }

    fn place_low(&mut self, len: u64) -> Result<u64> {
        // The hint of the tree serves the usual base; a search with other bounds resets it, which costs one walk.
        self.tree.find_gap(len, LOW_4G.start, LOW_4G.end).ok_or(Errno::ENOMEM)
    }

    fn place_fixed(&self, addr: u64, len: u64, flags: MapFlags) -> Result<u64> {
        let end = addr.checked_add(len).filter(|&end| end <= GUEST_TOP).ok_or(Errno::ENOMEM)?;
        if !is_page_aligned(addr) {
            return Err(Errno::EINVAL);
        }
        // `vm.mmap_min_addr`.
        if addr < GUEST_BOTTOM {
            return Err(Errno::EPERM);
        }
        if flags.contains(MapFlags::FIXED_NOREPLACE) && !self.tree.is_free(addr, end) {
            return Err(Errno::EEXIST);
        }
        Ok(addr)
    }

    /// RLIMIT_AS, RLIMIT_DATA and the number of areas, less what the mapping replaces.
    fn check_room(&self, addr: u64, checked: &Checked) -> Result<()> {
        let end = addr.saturating_add(checked.len);
        // What is replaced does not count twice.
        let replaced: u64 =
            self.tree.overlapping(addr, end).map(|v| v.end.min(end).saturating_sub(v.start.max(addr))).sum();
        let is_data = checked.prot.contains(ProtFlags::WRITE) && checked.sharing == Sharing::Private;
        self.check_expand(checked.len.saturating_sub(replaced), is_data)?;
        // The area itself, and one more where it splits another.
        self.check_count(if replaced > 0 { 2 } else { 1 })
    }
}
