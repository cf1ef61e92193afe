//! msgget(2), msgsnd(2), msgrcv(2), msgctl(2).
//!
//! Source: `do_msgsnd`, `do_msgrcv`, `ksys_msgctl` in `ipc/msg.c`.

use moat_abi::ipc::{
    IPC_INFO, IPC_NOWAIT, IPC_RMID, IPC_SET, IPC_STAT, MSG_COPY, MSG_EXCEPT, MSG_INFO, MSG_STAT, MSG_STAT_ANY, Msginfo,
    Msqid64Ds,
};
use moat_abi::{Errno, PollEvents, Result};
use moat_ipc::msg::{Message, Wanted};
use moat_ipc::registry::Stat;
use moat_kernel::task::wait::until_ready;
use moat_kernel::{CurrentTask, Restart, SyscallError, SyscallResult, Wait};
use moat_mm::{UserAddr, UserPtr};

use super::{count_i32, give, know_ids, show_ids};

/// Bytes of the type in front of a message's text.
const TYPE_LEN: u64 = 8;
/// `msgssz` and `msgseg` of msginfo, as Linux has them for nobody's use.
const SEGMENT_SIZE: i32 = 16;
const SEGMENTS: u16 = 0xffff;

pub(super) fn sys_msgget(t: &mut CurrentTask, key: i32, flags: i32) -> SyscallResult {
    give(t.system_v().msg.get(key, flags, t.creds())?)
}

/// The address of the text of the message at `addr`.
fn text_addr(addr: UserAddr) -> Result<UserAddr> {
    addr.get().checked_add(TYPE_LEN).map(UserAddr::new).ok_or(Errno::EFAULT)
}

/// Repeats `attempt` on queue `id` until it gives something else than EAGAIN.
async fn repeat<R>(
    t: &mut CurrentTask,
    id: i32,
    events: PollEvents,
    flags: i32,
    mut attempt: impl FnMut(&mut CurrentTask) -> Result<R>,
) -> Result<R, SyscallError> {
    let first = attempt(t);
    if !matches!(first, Err(Errno::EAGAIN)) || flags & IPC_NOWAIT != 0 {
        return Ok(first?);
    }
    let ipc = t.system_v();
    // It was there a moment ago: an id that is none now is that of a removed queue.
    let removed = |e: Errno| if e == Errno::EINVAL { Errno::EIDRM } else { e };
    let queue = ipc.msg.waiters(id).map_err(removed)?;
    // Restarted only without a handler, whatever its SA_RESTART: signal(7).
    let wait = Wait::restarting("msgqueue", Restart::NoHand);
    Ok(t.wait_for(&(&*queue, events), &wait, |t| until_ready(attempt(t).map_err(removed))).await??)
}

pub(super) async fn sys_msgsnd(t: &mut CurrentTask, id: i32, addr: UserAddr, len: i64, flags: i32) -> SyscallResult {
    let kind = t.mm().read(UserPtr::<i64>::new(addr))?;
    let max = i64::from(t.system_v().msg.max_message.get_i32());
    let len = usize::try_from(len).ok().filter(|_| len <= max).ok_or(Errno::EINVAL)?;
    // Types are positive: zero and less select at the receiver.
    if id < 0 || kind < 1 {
        return Err(Errno::EINVAL.into());
    }
    let mut text = vec![0; len];
    t.mm().read_bytes(text_addr(addr)?, &mut text)?;
    // Taken out by the attempt that succeeds, so that none sends it twice.
    let mut message = Some(Message { kind, text });
    let ipc = t.system_v();
    repeat(t, id, PollEvents::OUT, flags, |t| ipc.msg.send(id, &mut message, t.creds(), t.tgid())).await?;
    Ok(0)
}

pub(super) async fn sys_msgrcv(
    t: &mut CurrentTask,
    id: i32,
    addr: UserAddr,
    len: i64,
    kind: i64,
    flags: i32,
) -> SyscallResult {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    // MSG_COPY looks at a position and never waits.
    if id < 0 || (flags & MSG_COPY != 0 && (flags & MSG_EXCEPT != 0 || flags & IPC_NOWAIT == 0)) {
        return Err(Errno::EINVAL.into());
    }
    let wanted = Wanted { kind, len, flags };
    let ipc = t.system_v();
    let received = repeat(t, id, PollEvents::IN, flags, |t| ipc.msg.receive(id, &wanted, t.creds(), t.tgid())).await;
    // Nothing fits, and the caller does not wait.
    let message = received.map_err(|e| match e {
        SyscallError::Errno(Errno::EAGAIN) => Errno::ENOMSG.into(),
        e => e,
    })?;
    // A message whose buffer is bad is lost, as on Linux.
    t.mm().write(UserPtr::new(addr), &message.kind)?;
    t.mm().write_bytes(text_addr(addr)?, &message.text)?;
    Ok(u64::try_from(message.text.len()).unwrap_or(0))
}

pub(super) fn sys_msgctl(t: &mut CurrentTask, id: i32, command: i32, buf: UserAddr) -> SyscallResult {
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL.into());
    }
    let ipc = t.system_v();
    let creds = t.creds().clone();
    match command {
        IPC_INFO | MSG_INFO => info(t, command, buf),
        IPC_STAT | MSG_STAT | MSG_STAT_ANY => {
            let how = match command {
                IPC_STAT => Stat::ById,
                MSG_STAT => Stat::ByIndex,
                _ => Stat::ByIndexAny,
            };
            let (found, mut state) = ipc.msg.stat(id, how, &creds)?;
            show_ids(t, &mut state.msg_perm);
            t.mm().write(UserPtr::new(buf), &state)?;
            give(if how == Stat::ById { 0 } else { found })
        }
        IPC_SET => {
            let mut new = t.mm().read(UserPtr::<Msqid64Ds>::new(buf))?;
            know_ids(t, &mut new.msg_perm)?;
            ipc.msg.set(id, &new, &creds)?;
            Ok(0)
        }
        IPC_RMID => {
            ipc.msg.remove(id, &creds)?;
            Ok(0)
        }
        _ => Err(Errno::EINVAL.into()),
    }
}

fn info(t: &CurrentTask, command: i32, buf: UserAddr) -> SyscallResult {
    let ipc = t.system_v();
    let (usage, highest) = ipc.msg.usage();
    let (max_queue, max_count) = (ipc.msg.max_queue.get_i32(), ipc.msg.max_count.get_i32());
    let mut info = Msginfo {
        msgpool: max_count.saturating_mul(max_queue / 1024),
        msgmap: max_queue,
        msgmax: ipc.msg.max_message.get_i32(),
        msgmnb: max_queue,
        msgmni: max_count,
        msgssz: SEGMENT_SIZE,
        msgtql: max_queue,
        msgseg: SEGMENTS,
        pad: 0,
    };
    if command == MSG_INFO {
        info.msgpool = count_i32(usage.queues);
        info.msgmap = count_i32(usage.messages);
        info.msgtql = count_i32(usage.bytes);
    }
    t.mm().write(UserPtr::new(buf), &info)?;
    Ok(u64::from(highest))
}
