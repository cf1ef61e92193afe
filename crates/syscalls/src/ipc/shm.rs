//! shmget(2), shmat(2), shmdt(2), shmctl(2).
//!
//! Source: `do_shmat`, `ksys_shmdt`, `ksys_shmctl` in `ipc/shm.c`.

use moat_abi::ipc::{
    IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, SHM_EXEC, SHM_HUGETLB, SHM_INFO, SHM_LOCK, SHM_RDONLY, SHM_REMAP, SHM_RND,
    SHM_STAT, SHM_STAT_ANY, SHM_UNLOCK, SHMMIN, ShmInfo, Shmid64Ds, Shminfo64,
};
use moat_abi::mman::{MapFlags, ProtFlags};
use moat_abi::{Errno, Result};
use moat_ipc::registry::{EXEC, READ, Stat, WRITE};
use moat_ipc::shm::Lock;
use moat_kernel::{CurrentTask, Resource, SyscallResult};
use moat_mm::{FileAccess, MapBacking, MmapRequest, UserAddr, UserPtr, is_page_aligned, page_down};
use moat_vfs::Cap;

use super::{count_i32, give, know_ids, show_ids};

pub(super) fn sys_shmget(t: &mut CurrentTask, key: i32, size: u64, flags: i32) -> SyscallResult {
    if flags & SHM_HUGETLB != 0 {
        // A kernel with no huge pages in its pool.
        return Err(Errno::ENOMEM.into());
    }
    give(t.system_v().shm.get(key, size, flags, t.creds(), t.tgid())?)
}

/// Where a segment is to be: an address to map at exactly, or None for anywhere.
fn place(addr: u64, flags: i32) -> Result<Option<u64>> {
    if addr == 0 {
        return if flags & SHM_REMAP != 0 { Err(Errno::EINVAL) } else { Ok(None) };
    }
    if is_page_aligned(addr) {
        return Ok(Some(addr));
    }
    if flags & SHM_RND == 0 {
        return Err(Errno::EINVAL);
    }
    let addr = page_down(addr);
    // Rounded down it would be anywhere again.
    if addr == 0 && flags & SHM_REMAP != 0 { Err(Errno::EINVAL) } else { Ok(Some(addr)) }
}

pub(super) async fn sys_shmat(t: &mut CurrentTask, id: i32, addr: u64, flags: i32) -> SyscallResult {
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let place = place(addr, flags)?;
    let (mut prot, mut wanted, mut access) = (ProtFlags::READ, READ, FileAccess::READ | FileAccess::EXEC);
    if flags & SHM_RDONLY == 0 {
        prot |= ProtFlags::WRITE;
        wanted |= WRITE;
        access |= FileAccess::WRITE;
    }
    if flags & SHM_EXEC != 0 {
        prot |= ProtFlags::EXEC;
        wanted |= EXEC;
    }
    let ipc = t.system_v();
    let (object, len) = ipc.shm.attach(id, wanted, t.creds())?;
    let mut map_flags = MapFlags::SHARED;
    if let Some(addr) = place {
        // A segment that would wrap is refused as what it overlaps would be.
        addr.checked_add(len).ok_or(Errno::EINVAL)?;
        map_flags |= if flags & SHM_REMAP != 0 { MapFlags::FIXED } else { MapFlags::FIXED_NOREPLACE };
    }
    let backing = MapBacking::File { object, offset: 0, access };
    crate::memory::refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    let request = MmapRequest { addr: place.unwrap_or(0), len, prot, flags: map_flags, backing };
    // Memory in the way is EINVAL here.
    let at = mm.mmap(thread, request).await.map_err(|e| if e == Errno::EEXIST { Errno::EINVAL } else { e })?;
    // After the mapping: a failed attach leaves no trace.
    ipc.shm.note_attach(id, t.tgid());
    Ok(at)
}

pub(super) async fn sys_shmdt(t: &mut CurrentTask, addr: u64) -> SyscallResult {
    let (mm, thread) = t.mm_and_thread();
    let identity = mm.detach_segment(thread, addr).await?;
    t.system_v().shm.note_detach(identity, t.tgid());
    Ok(0)
}

pub(super) fn sys_shmctl(t: &mut CurrentTask, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    // Before the id is looked up: for IPC_INFO and SHM_INFO it is ignored, but not if it is negative.
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL.into());
    }
    let ipc = t.system_v();
    let creds = t.creds().clone();
    match command {
        IPC_INFO => {
            let limits = Shminfo64 {
                shmmax: ipc.shm.max_bytes.get(),
                shmmin: SHMMIN,
                shmmni: ipc.shm.max_count.get(),
                shmseg: ipc.shm.max_count.get(),
                shmall: ipc.shm.max_pages.get(),
                unused: [0; 4],
            };
            t.mm().write(UserPtr::new(buf), &limits)?;
            Ok(u64::from(ipc.shm.usage().1))
        }
        SHM_INFO => {
            let (usage, highest) = ipc.shm.usage();
            let info = ShmInfo {
                used_ids: count_i32(usage.segments),
                shm_tot: usage.pages,
                shm_rss: usage.resident_pages,
                ..ShmInfo::default()
            };
            t.mm().write(UserPtr::new(buf), &info)?;
            Ok(u64::from(highest))
        }
        IPC_STAT | SHM_STAT | SHM_STAT_ANY => {
            let how = match command {
                IPC_STAT => Stat::ById,
                SHM_STAT => Stat::ByIndex,
                // SHM_STAT_ANY asks for no read permission: /proc/sysvipc shows the same to everybody.
                _ => Stat::ByIndexAny,
            };
            let (found, mut state) = ipc.shm.stat(id, how, &creds)?;
            show_ids(t, &mut state.shm_perm);
            t.mm().write(UserPtr::new(buf), &state)?;
            give(if how == Stat::ById { 0 } else { found })
        }
        IPC_SET => {
            let mut new = t.mm().read(UserPtr::<Shmid64Ds>::new(buf))?;
            know_ids(t, &mut new.shm_perm)?;
            ipc.shm.set(id, &new, &creds)?;
            Ok(0)
        }
        IPC_RMID => {
            ipc.shm.remove(id, &creds)?;
            Ok(0)
        }
        SHM_LOCK | SHM_UNLOCK => {
            let privileged = creds.has_cap_in(&t.namespaces().ipc.user_ns, Cap::IPC_LOCK);
            let lock = if command == SHM_LOCK { Lock::Locked } else { Lock::Unlocked };
            // Unlocking costs nothing and needs only ownership; locking without a privilege is charged to RLIMIT_MEMLOCK.
            if lock == Lock::Locked && !privileged && t.group.limits.get(Resource::Memlock).soft == 0 {
                return Err(Errno::EPERM.into());
            }
            ipc.shm.set_locked(id, lock, &creds, privileged)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}
