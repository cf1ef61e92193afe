//! semget(2), semop(2), semtimedop(2), semctl(2).
//!
//! Source: `__do_semtimedop`, `ksys_semctl` in `ipc/sem.c`.

use std::task::Poll;

use moat_abi::ipc::{
    GETALL, GETNCNT, GETPID, GETVAL, GETZCNT, IPC_INFO, IPC_RMID, IPC_SET, IPC_STAT, SEM_INFO, SEM_STAT, SEM_STAT_ANY,
    SEMAEM, SEMVMX, SETALL, SETVAL, Sembuf, Semid64Ds, Seminfo,
};
use moat_abi::time::Timespec;
use moat_abi::{Errno, PollEvents};
use moat_host::clock::deadline_after;
use moat_ipc::registry::Stat;
use moat_ipc::sem::{Caller, Started, WaitKind};
use moat_kernel::{CurrentTask, Deadline, SyscallResult, Wait};
use moat_mm::{UserAddr, UserPtr};
use zerocopy::IntoBytes;

use super::{count_i32, give, know_ids, show_ids};

/// `semusz` of seminfo: the size of a `struct sem_undo`, which is nobody's business.
const UNDO_SIZE: i32 = 20;

pub(super) fn sys_semget(t: &mut CurrentTask, key: i32, count: i32, flags: i32) -> SyscallResult {
    give(t.system_v().sem.get(key, count, flags, t.creds())?)
}

pub(super) async fn sys_semop(t: &mut CurrentTask, id: i32, ops: UserAddr, count: u32) -> SyscallResult {
    semop(t, id, ops, count, None).await
}

pub(super) async fn sys_semtimedop(
    t: &mut CurrentTask,
    id: i32,
    ops: UserAddr,
    count: u32,
    timeout: UserPtr<Timespec>,
) -> SyscallResult {
    let deadline =
        if timeout.addr().get() == 0 { None } else { Some(deadline_after(t.mm().read(timeout)?.to_nanos()?)) };
    semop(t, id, ops, count, deadline).await
}

async fn semop(t: &mut CurrentTask, id: i32, ops: UserAddr, count: u32, deadline: Option<Deadline>) -> SyscallResult {
    if count == 0 || id < 0 {
        return Err(Errno::EINVAL.into());
    }
    if u64::from(count) > t.system_v().sem.max_operations.get() {
        return Err(Errno::E2BIG.into());
    }
    let count = usize::try_from(count).map_err(|_| Errno::E2BIG)?;
    // All are read before any is tried: they succeed together or not at all.
    let ops: Vec<Sembuf> = t.mm().read_array(ops, count, count)?;
    let ipc = t.system_v();
    let started = {
        let caller = Caller { group: t.group.id, pid: t.tgid(), creds: t.creds() };
        ipc.semop(id, ops, &caller)?
    };
    let Started::Waits(wait) = started else { return Ok(0) };
    let waiter = wait.waiter.clone();
    let look = |_: &mut CurrentTask| waiter.outcome().map_or(Poll::Pending, Poll::Ready);
    // Never restarted, whatever the handler: signal(7).
    let how = Wait::failing("semtimedop").until(deadline);
    let ended = t.wait_for(&(&waiter.queue, PollEvents::all()), &how, look).await;
    // Out of the queue first: from then on nobody does the operation any more, and one that was done counts.
    drop(wait);
    match (ended, waiter.outcome()) {
        (Ok(outcome), _) | (Err(_), Some(outcome)) => Ok(outcome.map(|()| 0)?),
        (Err(e), None) => Err(e.into()),
    }
}

pub(super) fn sys_semctl(t: &mut CurrentTask, id: i32, number: i32, command: i32, arg: u64) -> SyscallResult {
    if id < 0 {
        return Err(Errno::EINVAL.into());
    }
    let ipc = t.system_v();
    let creds = t.creds().clone();
    let caller = Caller { group: t.group.id, pid: t.tgid(), creds: &creds };
    let buf = UserAddr::new(arg);
    match command {
        IPC_INFO | SEM_INFO => info(t, command, buf),
        IPC_STAT | SEM_STAT | SEM_STAT_ANY => {
            let how = match command {
                IPC_STAT => Stat::ById,
                SEM_STAT => Stat::ByIndex,
                _ => Stat::ByIndexAny,
            };
            let (found, mut state) = ipc.sem.stat(id, how, &creds)?;
            show_ids(t, &mut state.sem_perm);
            t.mm().write(UserPtr::new(buf), &state)?;
            give(if how == Stat::ById { 0 } else { found })
        }
        GETVAL => give(ipc.sem.value(id, number, &creds)?.0),
        GETPID => give(ipc.sem.value(id, number, &creds)?.1),
        GETNCNT => give(count_i32(ipc.sem.waiters(id, number, WaitKind::Increase, &creds)?)),
        GETZCNT => give(count_i32(ipc.sem.waiters(id, number, WaitKind::Zero, &creds)?)),
        GETALL => {
            let values = ipc.sem.values(id, &creds)?;
            t.mm().write_bytes(buf, values.as_bytes())?;
            Ok(0)
        }
        SETVAL => {
            // The union's int is the low half.
            let value = u32::try_from(arg & u64::from(u32::MAX)).unwrap_or(0).cast_signed();
            ipc.sem.set_value(id, number, value, &caller)?;
            Ok(0)
        }
        SETALL => {
            // How many there are decides how much is read.
            let count = ipc.sem.count_to_set(id, &creds)?;
            let values: Vec<u16> = t.mm().read_array(buf, count, count)?;
            ipc.sem.set_values(id, &values, &caller)?;
            Ok(0)
        }
        IPC_SET => {
            let mut new = t.mm().read(UserPtr::<Semid64Ds>::new(buf))?;
            know_ids(t, &mut new.sem_perm)?;
            ipc.sem.set(id, &new, &creds)?;
            Ok(0)
        }
        IPC_RMID => {
            ipc.sem.remove(id, &creds)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn info(t: &CurrentTask, command: i32, buf: UserAddr) -> SyscallResult {
    let ipc = t.system_v();
    let (sets, sems, highest) = ipc.sem.usage();
    let (max_of_all, max_operations) = (ipc.sem.max_of_all.get_i32(), ipc.sem.max_operations.get_i32());
    let mut info = Seminfo {
        semmap: max_of_all,
        semmni: ipc.sem.max_sets.get_i32(),
        semmns: max_of_all,
        semmnu: max_of_all,
        semmsl: ipc.sem.max_in_set.get_i32(),
        semopm: max_operations,
        semume: max_operations,
        semusz: UNDO_SIZE,
        semvmx: SEMVMX,
        semaem: SEMAEM,
    };
    if command == SEM_INFO {
        info.semusz = count_i32(sets);
        info.semaem = count_i32(sems);
    }
    t.mm().write(UserPtr::new(buf), &info)?;
    Ok(u64::from(highest))
}
