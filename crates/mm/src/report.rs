//! What `/proc/PID/{maps,smaps,statm,status}` show.
//!
//! The resident size of a process is the host's word, from the statm of its host process, where the sandbox has a /proc. Else, and
//! for single areas, it is estimated: accessible memory counts as resident, but stacks and NORESERVE areas only for
//! [`STACK_ESTIMATE`], since few programs touch more of either soon.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use moat_abi::mman::ProtFlags;
use moat_platform::MapSource;

use crate::manager::MmState;
use crate::mappable::{MapFile, Sharing};
use crate::vma::{Backing, Special, Vma, VmaFlags};
use crate::{FileIdentity, MapName, MemoryManager};

/// What of a large reservation is taken to be in use, in bytes.
const STACK_ESTIMATE: u64 = 132 << 10;

/// One line of `/proc/PID/maps`.
#[derive(Clone, Debug)]
pub struct VmaInfo {
    /// First byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// Protection.
    pub prot: ProtFlags,
    /// Protection it may be given.
    pub max_prot: ProtFlags,
    /// Other properties; `SHARED` is the `s` of the maps line.
    pub flags: VmaFlags,
    /// File offset of the first byte.
    pub offset: u64,
    /// The file; None for anonymous memory.
    pub file: Option<FileIdentity>,
    /// The last column: a path, `[heap]`, `[stack]`, `[vdso]`, or nothing.
    pub name: Vec<u8>,
    /// Bytes taken to be in memory.
    pub rss_estimate: u64,
}

/// Sizes in bytes, for statm and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmUsage {
    /// VmSize.
    pub size: u64,
    /// VmPeak.
    pub peak: u64,
    /// VmRSS.
    pub rss: u64,
    /// The part of `rss` that shows files.
    pub rss_file: u64,
    /// VmData.
    pub data: u64,
    /// VmStk.
    pub stack: u64,
    /// VmExe: the program's code.
    pub code: u64,
    /// VmLib: other code.
    pub lib: u64,
    /// VmLck.
    pub locked: u64,
}

impl MemoryManager {
    /// All areas in address order.
    #[must_use]
    pub fn vmas_snapshot(&self) -> Vec<VmaInfo> {
        let (areas, heap, start_stack) = {
            let state = self.state();
            let areas: Vec<Vma> = state.tree.iter().cloned().collect();
            (areas, state.brk_start..state.brk, state.image.start_stack)
        };
        // Files are asked for their names outside the lock.
        areas.iter().map(|vma| info(vma, &heap, start_stack)).collect()
    }

    /// The host's file that an area shows at `address`, open to be read; `None` for memory that is no such file's.
    #[must_use]
    pub fn file_at(&self, address: u64) -> Option<Arc<OwnedFd>> {
        let area = self.state().tree.find(address).cloned()?;
        let Backing::File { object, offset } = area.backing else { return None };
        let (len, prot, sharing) = (area.end.saturating_sub(area.start), ProtFlags::READ, Sharing::Private);
        match object.map_source(&MapFile { offset, len, prot, sharing, ids: self.ids() }) {
            Ok(MapSource::File { fd, .. }) => Some(fd),
            _ => None,
        }
    }

    /// The heap: from its start to the current break.
    #[must_use]
    pub fn heap(&self) -> std::ops::Range<u64> {
        let state = self.state();
        state.brk_start..state.brk
    }

    /// The sizes of the address space.
    #[must_use]
    pub fn usage(&self) -> VmUsage {
        // Before the lock is taken: it reads a file of the host.
        let host = moat_host::procfs::resident_bytes(self.space().host_pid());
        let state = self.state();
        let totals = state.tree.totals();
        let (rss, rss_file) = host.unwrap_or_else(|| state.rss_estimate());
        // The guest may have claimed any range as code, prctl(PR_SET_MM); no more of it counts than is executable.
        let code = state.image.code.end.saturating_sub(state.image.code.start).min(totals.exec);
        VmUsage {
            size: totals.mapped,
            peak: state.peak_mapped.max(totals.mapped),
            rss,
            rss_file,
            data: totals.data,
            stack: totals.stack,
            code,
            lib: totals.exec - code,
            locked: totals.locked,
        }
    }
}

impl MemoryManager {
    /// The most bytes that have been resident at a time.
    #[must_use]
    pub fn peak_rss(&self) -> u64 {
        let host = moat_host::procfs::peak_resident_bytes(self.space().host_pid());
        host.unwrap_or_else(|| self.state().rss_estimate().0)
    }
}

impl MmState {
    fn rss_estimate(&self) -> (u64, u64) {
        let mut all = 0;
        let mut files = 0;
        for vma in self.tree.iter() {
            let resident = rss_estimate(vma);
            all += resident;
            if matches!(vma.backing, Backing::File { .. }) {
                files += resident;
            }
        }
        (all, files)
    }
}

fn rss_estimate(vma: &Vma) -> u64 {
    if vma.prot.is_empty() || matches!(vma.backing, Backing::Special(_)) {
        0
    } else if vma.flags.intersects(VmaFlags::GROWSDOWN | VmaFlags::NORESERVE) {
        vma.len().min(STACK_ESTIMATE)
    } else {
        vma.len()
    }
}

fn info(vma: &Vma, heap: &std::ops::Range<u64>, start_stack: u64) -> VmaInfo {
    let (file, name) = match &vma.backing {
        Backing::File { object, .. } => {
            let MapName { identity, path } = object.describe();
            (Some(identity), path)
        }
        Backing::Special(Special::Vvar) => (None, b"[vvar]".to_vec()),
        Backing::Special(Special::Vdso) => (None, b"[vdso]".to_vec()),
        // As `show_map_vma`: names come from where an area is, for the heap and the first stack.
        Backing::Anonymous if vma.start < heap.end && heap.start < vma.end => (None, b"[heap]".to_vec()),
        Backing::Anonymous if (vma.start..vma.end).contains(&start_stack) => (None, b"[stack]".to_vec()),
        Backing::Anonymous => (None, Vec::new()),
    };
    VmaInfo {
        start: vma.start,
        end: vma.end,
        prot: vma.prot,
        max_prot: vma.max_prot,
        flags: vma.flags,
        offset: vma.file_offset(vma.start),
        file,
        name,
        rss_estimate: rss_estimate(vma),
    }
}
