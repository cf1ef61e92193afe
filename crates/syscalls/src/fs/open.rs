//! open(2), openat2(2), creat(2).

use std::sync::Arc;

use moat_abi::fs::{AccessMode, OpenFlags, OpenHow as RawHow, S_IALLUGO};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::Resource;
use moat_kernel::task::wait::until_ready;
use moat_kernel::{CurrentTask, Restart, SyscallResult, Wait};
use moat_mm::{PAGE_SIZE, UserAddr};
use moat_vfs::fd_table::OnExec;
use moat_vfs::file::Completion;
use moat_vfs::leases::Breaker;
use moat_vfs::ops::{self, OpenHow};
use moat_vfs::walk::LookupFlags;
use moat_vfs::{Fd, OpenFile};
use zerocopy::FromBytes;

use super::at::{LookupStart, read_path};
use super::leases;
use super::pauses::Pauses;
use crate::PathArg;

syscalls! { pub static TABLE;
    2 open(path: PathArg, flags: OpenFlags, mode: u32) async sys_open, full;
    85 creat(path: PathArg, mode: u32) async sys_creat, full;
    257 openat(dirfd: Fd, path: PathArg, flags: OpenFlags, mode: u32) async sys_openat, full;
    437 openat2(dirfd: Fd, path: PathArg, how: UserAddr, size: usize) async sys_openat2, full;
}

/// The soft limit of open descriptors.
pub(crate) fn fd_limit(t: &CurrentTask) -> u64 {
    t.group.limits.get(Resource::OpenFiles).soft
}

/// Installs a file at the lowest free descriptor: what most calls that make a file end with.
///
/// # Errors
/// EMFILE.
pub(crate) fn install(t: &CurrentTask, file: Arc<OpenFile>, on_exec: OnExec) -> SyscallResult {
    let fd = t.fds().install(file, fd_limit(t), on_exec)?;
    Ok(i64::from(fd.0).cast_unsigned())
}

async fn sys_open(t: &mut CurrentTask, path: PathArg, flags: OpenFlags, mode: u32) -> SyscallResult {
    sys_openat(t, Fd::CWD, path, flags, mode).await
}

async fn sys_creat(t: &mut CurrentTask, path: PathArg, mode: u32) -> SyscallResult {
    sys_openat(t, Fd::CWD, path, OpenFlags::CREAT | OpenFlags::WRONLY | OpenFlags::TRUNC, mode).await
}

async fn sys_openat(t: &mut CurrentTask, dirfd: Fd, path: PathArg, flags: OpenFlags, mode: u32) -> SyscallResult {
    // Unknown bits are ignored, as ever; openat2 refuses them.
    let flags = flags & OpenFlags::VALID;
    // Without a file to make the mode is whatever is in the register.
    let mode = if flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT) { mode & S_IALLUGO } else { 0 };
    open(t, dirfd, path, OpenHow::new(flags, mode)).await
}

async fn open(t: &mut CurrentTask, dirfd: Fd, path: PathArg, how: OpenHow) -> SyscallResult {
    how.check()?;
    let text = read_path(t, path)?;
    // Before the file is made or truncated: a full table must not leave an effect behind.
    t.fds().check_free(1, fd_limit(t))?;
    // Where the walk must stay in the directory, even an absolute path begins there.
    let confined = how.resolve.intersects(LookupFlags::BENEATH | LookupFlags::IN_ROOT);
    let place = LookupStart::at(t, dirfd, if confined { b"." } else { &text })?;
    // Once more for each lease that was in the way.
    let file = loop {
        let opened = ops::open(&place.view(t), &text, &how);
        if opened.as_ref().err() != Some(&Errno::EWOULDBLOCK) || how.flags.contains(OpenFlags::NONBLOCK) {
            break opened?;
        }
        let Some(leases) = ops::lease_that_blocks(&place.view(t), &text, &how)? else {
            // It was no lease, or that is gone.
            break ops::open(&place.view(t), &text, &how)?;
        };
        let reads = how.flags.access_mode() == AccessMode::ReadOnly;
        leases::wait(t, &leases, if reads { Breaker::Reader } else { Breaker::Writer }).await?;
    };
    // O_PATH does not open a FIFO.
    if !how.flags.contains(OpenFlags::PATH) {
        finish(t, &file).await?;
    }
    install(t, file, OnExec::close_if(how.flags.contains(OpenFlags::CLOEXEC)))
}

/// Waits for a FIFO's other end.
async fn finish(t: &mut CurrentTask, file: &OpenFile) -> Result<(), moat_kernel::SyscallError> {
    if file.is_nonblocking() {
        return Ok(());
    }
    let wait = Wait::restarting("fifo_open", Restart::Sys);
    if file.file().completion() == Completion::Told {
        let look = |_: &mut CurrentTask| until_ready(file.file().finish_open(file));
        return Ok(t.wait_for(&(file, PollEvents::all()), &wait, look).await??);
    }
    let mut pauses = Pauses::new();
    loop {
        match file.file().finish_open(file) {
            Err(Errno::EAGAIN) => pauses.pass(t, &wait).await?,
            done => return Ok(done?),
        }
    }
}

async fn sys_openat2(t: &mut CurrentTask, dirfd: Fd, path: PathArg, how: UserAddr, size: usize) -> SyscallResult {
    let raw = read_how(t, how, size)?;
    open(t, dirfd, path, check_how(&raw)?).await
}

/// Reads a struct that may be longer than ours if the rest is zero (`copy_struct_from_user`).
fn read_how(t: &CurrentTask, addr: UserAddr, size: usize) -> Result<RawHow> {
    // The first version of the struct is the least.
    if size < size_of::<RawHow>() {
        return Err(Errno::EINVAL);
    }
    if size as u64 > PAGE_SIZE {
        return Err(Errno::E2BIG);
    }
    let mut bytes = vec![0; size];
    t.mm().read_bytes(addr, &mut bytes)?;
    let (raw, rest) = RawHow::read_from_prefix(&bytes).map_err(|_| Errno::EINVAL)?;
    if rest.iter().any(|&b| b != 0) { Err(Errno::E2BIG) } else { Ok(raw) }
}

fn check_how(raw: &RawHow) -> Result<OpenHow> {
    use moat_abi::fs::{
        RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV,
    };
    let bits = u32::try_from(raw.flags).map_err(|_| Errno::EINVAL)?;
    let flags = OpenFlags::from_bits(bits).ok_or(Errno::EINVAL)?;
    let makes = flags.intersects(OpenFlags::CREAT | OpenFlags::TMPFILE_BIT);
    let mode = u32::try_from(raw.mode).map_err(|_| Errno::EINVAL)?;
    // openat2(2) checks what open(2) ignores.
    if (makes && mode & !S_IALLUGO != 0) || (!makes && mode != 0) {
        return Err(Errno::EINVAL);
    }
    if flags.contains(OpenFlags::PATH) && !(OpenFlags::PATH_MASK | OpenFlags::LARGEFILE).contains(flags) {
        return Err(Errno::EINVAL);
    }
    let pairs = [
        (RESOLVE_NO_XDEV, LookupFlags::NO_XDEV),
        (RESOLVE_NO_MAGICLINKS, LookupFlags::NO_MAGICLINKS),
        (RESOLVE_NO_SYMLINKS, LookupFlags::NO_SYMLINKS),
        (RESOLVE_BENEATH, LookupFlags::BENEATH),
        (RESOLVE_IN_ROOT, LookupFlags::IN_ROOT),
        (RESOLVE_CACHED, LookupFlags::empty()),
    ];
    let known = pairs.iter().fold(0, |all, p| all | p.0);
    // Below the start and inside of it as a root exclude each other.
    if raw.resolve & !known != 0
        || raw.resolve & (RESOLVE_BENEATH | RESOLVE_IN_ROOT) == RESOLVE_BENEATH | RESOLVE_IN_ROOT
    {
        return Err(Errno::EINVAL);
    }
    if raw.resolve & RESOLVE_CACHED != 0 {
        // Whether a walk stays in the cache is not known before: callers try again without it.
        return Err(Errno::EAGAIN);
    }
    let resolve = pairs.iter().filter(|p| raw.resolve & p.0 != 0).fold(LookupFlags::empty(), |all, p| all | p.1);
    Ok(OpenHow { flags, mode, resolve })
}
