//! process_vm_readv(2), process_vm_writev(2).

use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_kernel::ptrace::access::{Ids, check};
use moat_kernel::task::Task;
use moat_kernel::task::work::Work;
use moat_kernel::{CurrentTask, SyscallResult};
use moat_mm::{IoVec, MemoryManager, UserAddr, UserSlice};
use moat_sync::executor::{end_turn, is_turn_over};

/// Bytes copied at a time.
const CHUNK: usize = 64 * 1024;

pub(super) async fn sys_process_vm_readv(
    t: &mut CurrentTask,
    pid: i32,
    local: UserAddr,
    local_count: usize,
    remote: UserAddr,
    remote_count: usize,
    flags: u64,
) -> SyscallResult {
    let call = Vectors::read(t, pid, (local, local_count), (remote, remote_count), flags)?;
    // Held for the whole copy: execve(2) of the other must not take its memory away under it.
    let own = t.mm().clone();
    Ok(transfer(&t.task().clone(), (&call.mm, &call.remote), (&own, &call.local)).await? as u64)
}

pub(super) async fn sys_process_vm_writev(
    t: &mut CurrentTask,
    pid: i32,
    local: UserAddr,
    local_count: usize,
    remote: UserAddr,
    remote_count: usize,
    flags: u64,
) -> SyscallResult {
    let call = Vectors::read(t, pid, (local, local_count), (remote, remote_count), flags)?;
    let own = t.mm().clone();
    Ok(transfer(&t.task().clone(), (&own, &call.local), (&call.mm, &call.remote)).await? as u64)
}

/// The decoded arguments.
struct Vectors {
    local: IoVec,
    remote: IoVec,
    mm: Arc<MemoryManager>,
}

impl Vectors {
    fn read(
        t: &CurrentTask,
        pid: i32,
        local: (UserAddr, usize),
        remote: (UserAddr, usize),
        flags: u64,
    ) -> Result<Vectors> {
        if flags != 0 {
            return Err(Errno::EINVAL);
        }
        // Both lists are read before the process is looked for: EFAULT and EINVAL win over ESRCH.
        let local = t.mm().read_iovecs(local.0, local.1)?;
        let remote = t.mm().read_iovecs(remote.0, remote.1)?;
        let task = t.kernel().task(&t.pid_ns(), pid).ok_or(Errno::ESRCH)?;
        check(t.task(), t.creds(), &task, Ids::Real)?;
        let mm = task.mm_of().ok_or(Errno::ESRCH)?;
        Ok(Vectors { local, remote, mm })
    }
}

/// Copies until one side ends or fails, or the caller is to die; gives the bytes copied.
async fn transfer(
    task: &Task,
    (source, from): (&MemoryManager, &IoVec),
    (target, to): (&MemoryManager, &IoVec),
) -> Result<usize> {
    let mut from = Cursor::new(from);
    let mut to = Cursor::new(to);
    let mut buffer = vec![0; CHUNK.min(from.left).min(to.left)];
    let mut done = 0;
    while let (Some(a), Some(b)) = (from.piece(), to.piece()) {
        // As much as lies in one buffer on both sides.
        let len = a.len.min(b.len).min(CHUNK);
        let piece = buffer.get_mut(..len).ok_or(Errno::EFAULT)?;
        let copied = source.read_partial(a.addr, piece).and_then(|n| target.write_partial(b.addr, &piece[..n]));
        match copied {
            Ok(n) => {
                done += n;
                // A short step has met a bad address; what was copied counts (process_vm_readv(2)).
                if n < len {
                    break;
                }
                from.advance(n);
                to.advance(n);
                if is_turn_over() {
                    end_turn().await;
                    if task.work().contains(Work::KILL) {
                        break;
                    }
                }
            }
            Err(_) if done > 0 => break,
            Err(errno) => return Err(errno),
        }
    }
    Ok(done)
}

/// A place in a list of buffers.
struct Cursor<'a> {
    slices: &'a [UserSlice],
    within: usize,
    left: usize,
}

impl<'a> Cursor<'a> {
    fn new(vec: &'a IoVec) -> Cursor<'a> {
        Cursor { slices: &vec.slices, within: 0, left: vec.total }
    }

    /// What is left of the buffer at hand, the next one that is not empty.
    fn piece(&mut self) -> Option<UserSlice> {
        while let Some(first) = self.slices.first() {
            // Empty buffers and those that are used up are passed over.
            if self.within < first.len {
                let addr = UserAddr::new(first.addr.get().wrapping_add(self.within as u64));
                return Some(UserSlice::new(addr, first.len - self.within));
            }
            self.slices = &self.slices[1..];
            self.within = 0;
        }
        None
    }

    fn advance(&mut self, bytes: usize) {
        self.within += bytes;
    }
}
