//! Memory: mmap(2) and its family, brk(2), memfd_create(2); NUMA policies and protection keys, of which there are none.
//!
//! - [`remote`]: process_vm_readv(2), process_vm_writev(2).
//! - [`numa`]: memory policies.
//! - [`membarrier`]: the call membarrier(2).

pub mod membarrier;
pub mod numa;
pub mod remote;

use moat_abi::fs::{MFD_ALLOW_SEALING, MFD_CLOEXEC, MFD_EXEC, MFD_HUGETLB, MFD_NAME_MAX, MFD_NOEXEC_SEAL};
use moat_abi::mman::{MapFlags, ProtFlags};
use moat_abi::{Errno, Result};
use moat_kernel::{CurrentTask, Resource, SyscallResult};
use moat_mm::{FileAccess, MapBacking, MmLimits, MmapRequest, MremapRequest, UserAddr, is_page_aligned};
use moat_vfs::fd_table::OnExec;
use moat_vfs::{Cap, Fd, MountFlags, OpenFile};

syscalls! { pub static TABLE;
    9 mmap(addr: u64, len: u64, prot: ProtFlags, flags: MapFlags, fd: Fd, offset: u64) async sys_mmap, full;
    10 mprotect(addr: u64, len: u64, prot: ProtFlags) async sys_mprotect, full;
    11 munmap(addr: u64, len: u64) async sys_munmap, full;
    12 brk(addr: u64) async sys_brk, full;
    25 mremap(addr: u64, old_len: u64, new_len: u64, flags: u32, new_addr: u64) async sys_mremap, full;
    26 msync(addr: u64, len: u64, flags: u32) sys_msync, full;
    27 mincore(addr: u64, len: u64, vec: UserAddr) sys_mincore, partial("every mapped page counts as resident");
    28 madvise(addr: u64, len: u64, advice: i32) async sys_madvise, full;
    149 mlock(addr: u64, len: u64) async sys_mlock, partial("the host's lock is best effort");
    150 munlock(addr: u64, len: u64) async sys_munlock, full;
    151 mlockall(flags: u32) async sys_mlockall, partial("the host's lock is best effort");
    152 munlockall() async sys_munlockall, full;
    310 process_vm_readv(pid: i32, local: UserAddr, local_count: usize, remote: UserAddr, remote_count: usize, flags: u64) async remote::sys_process_vm_readv, full;
    311 process_vm_writev(pid: i32, local: UserAddr, local_count: usize, remote: UserAddr, remote_count: usize, flags: u64) async remote::sys_process_vm_writev, full;
    319 memfd_create(name: UserAddr, flags: u32) sys_memfd_create, full;
    324 membarrier(command: u32, flags: u32, cpu: i32) membarrier::sys_membarrier, partial("without SYNC_CORE and RSEQ");
    325 mlock2(addr: u64, len: u64, flags: u32) async sys_mlock2, partial("the host's lock is best effort");
    329 pkey_mprotect(addr: u64, len: u64, prot: ProtFlags, key: i32) async sys_pkey_mprotect, stub("key -1 only: the processor's keys are not offered");
    330 pkey_alloc(flags: u32, rights: u32) sys_pkey_alloc, stub("there are no keys: ENOSPC");
    331 pkey_free(key: i32) sys_pkey_free, stub("there are no keys: EINVAL");
    237 mbind(addr: u64, len: u64, mode: u32, mask: UserAddr, max_node: u64, flags: u32) numa::sys_mbind, stub("one node: checked and ignored");
    238 set_mempolicy(mode: u32, mask: UserAddr, max_node: u64) numa::sys_set_mempolicy, stub("one node: checked and ignored");
    239 get_mempolicy(mode: UserAddr, mask: UserAddr, max_node: u64, addr: u64, flags: u32) numa::sys_get_mempolicy, stub("one node, default policy");
}

/// Gives the memory manager the limits of the process as they are at this moment.
pub(crate) fn refresh_limits(t: &CurrentTask) {
    let soft = |resource| t.group.limits.get(resource).soft;
    // CAP_IPC_LOCK lifts RLIMIT_MEMLOCK.
    let memlock = if t.creds().has_root_cap(Cap::IPC_LOCK) { u64::MAX } else { soft(Resource::Memlock) };
    t.mm().set_limits(MmLimits {
        address_space: soft(Resource::AddressSpace),
        data: soft(Resource::Data),
        stack: soft(Resource::Stack),
        memlock,
    });
}

async fn sys_mmap(
    t: &mut CurrentTask,
    addr: u64,
    len: u64,
    prot: ProtFlags,
    flags: MapFlags,
    fd: Fd,
    offset: u64,
) -> SyscallResult {
    // Before anything else: the oldest check of the call, from the time when offsets were in pages (`sys_mmap`).
    if !is_page_aligned(offset) {
        return Err(Errno::EINVAL.into());
    }
    let backing = if flags.contains(MapFlags::ANONYMOUS) {
        MapBacking::Anonymous
    } else {
        file_backing(&*t.fds().get(fd)?, len, offset)?
    };
    refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    Ok(mm.mmap(thread, MmapRequest { addr, len, prot, flags, backing }).await?)
}

/// An open file as mmap takes it.
fn file_backing(file: &OpenFile, len: u64, offset: u64) -> Result<MapBacking> {
    if len == 0 {
        return Err(Errno::EINVAL);
    }
    let mode = file.access_mode();
    let mut access = FileAccess::empty();
    access.set(FileAccess::READ, mode.can_read());
    access.set(FileAccess::WRITE, mode.can_write());
    access.set(FileAccess::EXEC, !file.path().mount.flags().contains(MountFlags::NOEXEC));
    // Also of a mapping that is only written: pages are read before they are changed.
    if !mode.can_read() {
        return Err(Errno::EACCES);
    }
    Ok(MapBacking::File { object: file.file().clone().mappable(file)?, offset, access })
}

async fn sys_mprotect(t: &mut CurrentTask, addr: u64, len: u64, prot: ProtFlags) -> SyscallResult {
    refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    mm.mprotect(thread, addr, len, prot).await?;
    Ok(0)
}

async fn sys_munmap(t: &mut CurrentTask, addr: u64, len: u64) -> SyscallResult {
    let (mm, thread) = t.mm_and_thread();
    mm.munmap(thread, addr, len).await?;
    Ok(0)
}

async fn sys_brk(t: &mut CurrentTask, addr: u64) -> SyscallResult {
    refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    Ok(mm.brk(thread, addr).await)
}

async fn sys_mremap(
    t: &mut CurrentTask,
    addr: u64,
    old_len: u64,
    new_len: u64,
    flags: u32,
    new_addr: u64,
) -> SyscallResult {
    refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    Ok(mm.mremap(thread, MremapRequest { addr, old_len, new_len, flags, new_addr }).await?)
}

fn sys_msync(t: &mut CurrentTask, addr: u64, len: u64, flags: u32) -> SyscallResult {
    t.mm().msync(addr, len, flags)?;
    Ok(0)
}

fn sys_mincore(t: &mut CurrentTask, addr: u64, len: u64, vec: UserAddr) -> SyscallResult {
    t.mm().mincore(addr, len, vec)?;
    Ok(0)
}

async fn sys_madvise(t: &mut CurrentTask, addr: u64, len: u64, advice: i32) -> SyscallResult {
    let (mm, thread) = t.mm_and_thread();
    mm.madvise(thread, addr, len, advice).await?;
    Ok(0)
}

async fn sys_mlock(t: &mut CurrentTask, addr: u64, len: u64) -> SyscallResult {
    sys_mlock2(t, addr, len, 0).await
}

async fn sys_mlock2(t: &mut CurrentTask, addr: u64, len: u64, flags: u32) -> SyscallResult {
    refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    mm.mlock(thread, addr, len, flags).await?;
    Ok(0)
}

async fn sys_munlock(t: &mut CurrentTask, addr: u64, len: u64) -> SyscallResult {
    let (mm, thread) = t.mm_and_thread();
    mm.munlock(thread, addr, len).await?;
    Ok(0)
}

async fn sys_mlockall(t: &mut CurrentTask, flags: u32) -> SyscallResult {
    refresh_limits(t);
    let (mm, thread) = t.mm_and_thread();
    mm.mlockall(thread, flags).await?;
    Ok(0)
}

async fn sys_munlockall(t: &mut CurrentTask) -> SyscallResult {
    let (mm, thread) = t.mm_and_thread();
    mm.munlockall(thread).await;
    Ok(0)
}

async fn sys_pkey_mprotect(t: &mut CurrentTask, addr: u64, len: u64, prot: ProtFlags, key: i32) -> SyscallResult {
    // The one key that there is without protection keys: none.
    if key != -1 {
        return Err(Errno::EINVAL.into());
    }
    sys_mprotect(t, addr, len, prot).await
}

fn sys_pkey_alloc(_t: &mut CurrentTask, flags: u32, rights: u32) -> SyscallResult {
    // PKEY_DISABLE_ACCESS and PKEY_DISABLE_WRITE.
    Err(if flags != 0 || rights & !3 != 0 { Errno::EINVAL } else { Errno::ENOSPC }.into())
}

fn sys_pkey_free(_t: &mut CurrentTask, _key: i32) -> SyscallResult {
    Err(Errno::EINVAL.into())
}

fn sys_memfd_create(t: &mut CurrentTask, name: UserAddr, flags: u32) -> SyscallResult {
    const KNOWN: u32 = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_EXEC | MFD_NOEXEC_SEAL;
    if flags & MFD_HUGETLB != 0 {
        // A kernel without huge pages in its pool.
        return Err(Errno::ENOSYS.into());
    }
    if flags & !KNOWN != 0 || (flags & MFD_EXEC != 0 && flags & MFD_NOEXEC_SEAL != 0) {
        return Err(Errno::EINVAL.into());
    }
    let name = t
        .mm()
        .read_cstr(name, MFD_NAME_MAX + 1)
        // A name that is too long is EINVAL here (memfd_create(2)).
        .map_err(|e| if e == Errno::ENAMETOOLONG { Errno::EINVAL } else { e })?;
    let file = moat_fs_tmpfs::memfd::new_memfd(&t.kernel().vfs, &name, flags, t.creds())?;
    let limit = t.group.limits.get(Resource::OpenFiles).soft;
    let fd = t.fds().install(file, limit, OnExec::close_if(flags & MFD_CLOEXEC != 0))?;
    Ok(u64::from(fd.0.cast_unsigned()))
}
