//! POSIX message queues: mq_open(2) and its like, mq_overview(7).

use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::fs::{NAME_MAX, OpenFlags, PATH_MAX, S_IALLUGO};
use moat_abi::ipc::{HARD_MSGMAX, HARD_MSGSIZEMAX, MQ_PRIO_MAX, MqAttr};
use moat_abi::siginfo::{SI_MESGQ, SIGEV_NONE, SIGEV_SIGNAL, SigInfo, Sigevent};
use moat_abi::signal::Signal;
use moat_abi::time::{CLOCK_REALTIME, Timespec};
use moat_abi::{Errno, PollEvents, Result};
use moat_fs_mqueue::{Attributes, NamespaceQueues, Notification, Payer, Queue, QueueFile};
use moat_host::clock::deadline_at;
use moat_identity::Resource;
use moat_ipc::MqueueSettings;
use moat_kernel::signal::send::send_to_process;
use moat_kernel::{CurrentTask, Deadline, Restart, SyscallResult, Wait};
use moat_mm::{UserAddr, UserPtr};
use moat_vfs::fd_table::OnExec;
use moat_vfs::inode::{Access, Inode, NewNode, NodeKind};
use moat_vfs::walk::View;
use moat_vfs::{Fd, OpenFile, Path, ops};

use crate::PathArg;
use crate::fs::io::Blocking;
use crate::fs::open::install;

syscalls! { pub static TABLE;
    240 mq_open(name: PathArg, flags: OpenFlags, mode: u32, attributes: UserPtr<MqAttr>) sys_mq_open, full;
    241 mq_unlink(name: PathArg) sys_mq_unlink, full;
    242 mq_timedsend(fd: Fd, message: UserAddr, len: usize, priority: u32, until: UserPtr<Timespec>) async sys_mq_timedsend, full;
    243 mq_timedreceive(fd: Fd, message: UserAddr, len: usize, priority: UserPtr<u32>, until: UserPtr<Timespec>) async sys_mq_timedreceive, full;
    244 mq_notify(fd: Fd, event: UserPtr<Sigevent>) sys_mq_notify, partial("no SIGEV_THREAD; closing the queue keeps the registration");
    245 mq_getsetattr(fd: Fd, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) sys_mq_getsetattr, full;
}

/// Reads a queue's name, which the C library gives without its slash.
fn read_name(t: &CurrentTask, name: PathArg) -> Result<Vec<u8>> {
    let text = t.mm().read_cstr(name.0, PATH_MAX)?;
    if text.is_empty() {
        return Err(Errno::ENOENT);
    }
    // One directory without levels: a slash has no meaning in it.
    if text.contains(&b'/') || text == b"." || text == b".." {
        return Err(Errno::EACCES);
    }
    if text.len() > NAME_MAX { Err(Errno::ENAMETOOLONG) } else { Ok(text) }
}

/// The limits that a new queue may have (`mq_attr_ok`).
fn check_attributes(t: &CurrentTask, a: &MqAttr) -> Result<Attributes> {
    // With the privilege the limits are the system's own, not the namespace's.
    let (most, longest) = if t.creds().has_root_cap(Cap::SYS_RESOURCE) {
        (HARD_MSGMAX, HARD_MSGSIZEMAX)
    } else {
        let settings = MqueueSettings::of(&t.namespaces().ipc);
        (settings.messages.get_i32().into(), settings.message_bytes.get_i32().into())
    };
    let within = |n: i64, max: i64| usize::try_from(n).ok().filter(|_| n > 0 && n <= max).ok_or(Errno::EINVAL);
    Ok(Attributes { max_messages: within(a.mq_maxmsg, most)?, message_size: within(a.mq_msgsize, longest)? })
}

fn access_of(flags: OpenFlags) -> Result<Access> {
    match (flags.access_mode().can_read(), flags.access_mode().can_write()) {
        (true, true) => Ok(Access::READ | Access::WRITE),
        (true, false) => Ok(Access::READ),
        (false, true) => Ok(Access::WRITE),
        (false, false) => Err(Errno::EINVAL),
    }
}

fn sys_mq_open(
    t: &mut CurrentTask,
    name: PathArg,
    flags: OpenFlags,
    mode: u32,
    attributes: UserPtr<MqAttr>,
) -> SyscallResult {
    // Read before anything is made, also where the queue exists and they are ignored: a bad pointer is EFAULT in any case.
    let wanted = if attributes.is_null() { None } else { Some(t.mm().read(attributes)?) };
    let name = read_name(t, name)?;
    let access = access_of(flags)?;
    let queues = NamespaceQueues::of(t.kernel().vfs.tables(), &t.namespaces().ipc);
    let fs = &queues.fs;
    let node = match fs.find(&name) {
        Some(_) if flags.contains(OpenFlags::CREAT | OpenFlags::EXCL) => return Err(Errno::EEXIST.into()),
        Some(node) => {
            node.permission(t.creds(), access)?;
            node
        }
        // Only O_CREAT looks at attributes and limits.
        None if !flags.contains(OpenFlags::CREAT) => return Err(Errno::ENOENT.into()),
        None => {
            let a = wanted.map_or(Ok(Attributes::default()), |a| check_attributes(t, &a))?;
            let umask = t.fs().lock().umask;
            let creds = t.creds();
            let new =
                NewNode { mode: mode & S_IALLUGO & !umask, uid: creds.fsuid, gid: creds.fsgid, kind: NodeKind::File };
            let payer = Payer { uid: creds.uid, limit: t.group.limits.get(Resource::MessageQueue).soft };
            fs.create(&name, &new, a, &payer)?
        }
    };
    let mount = queues.mount.clone();
    // Through the mount's own cache, so that unlink finds the dentry that is open.
    let dentry = mount.root().lookup(&name)?;
    let file = OpenFile::new(node.file(), Path { mount, dentry }, flags, t.creds().clone());
    install(t, file, OnExec::Close)
}

fn sys_mq_unlink(t: &mut CurrentTask, name: PathArg) -> SyscallResult {
    let name = read_name(t, name)?;
    let root = Path::root_of(NamespaceQueues::of(t.kernel().vfs.tables(), &t.namespaces().ipc).mount.clone());
    ops::unlink(&View { caller: t, root: &root, base: &root, umask: 0 }, &name)?;
    Ok(0)
}

/// The open queue that `fd` is; EBADF for all else.
fn queue_of(t: &CurrentTask, fd: Fd) -> Result<(Arc<OpenFile>, Arc<Queue>)> {
    let f = t.fds().get(fd)?;
    let queue = f.downcast::<QueueFile>().ok_or(Errno::EBADF)?.queue.clone();
    Ok((f, queue))
}

/// When a call gives up; `until` is a time of CLOCK_REALTIME.
fn read_deadline(t: &CurrentTask, until: UserPtr<Timespec>) -> Result<Option<Deadline>> {
    if until.is_null() {
        return Ok(None);
    }
    Ok(Some(deadline_at(CLOCK_REALTIME, t.mm().read(until)?.to_nanos()?)))
}

async fn sys_mq_timedsend(
    t: &mut CurrentTask,
    fd: Fd,
    message: UserAddr,
    len: usize,
    priority: u32,
    until: UserPtr<Timespec>,
) -> SyscallResult {
    // A bad time is an error even if nothing is waited for.
    let deadline = read_deadline(t, until)?;
    if priority >= MQ_PRIO_MAX {
        return Err(Errno::EINVAL.into());
    }
    let (f, queue) = queue_of(t, fd)?;
    f.check_writable()?;
    if len > queue.attributes.message_size {
        return Err(Errno::EMSGSIZE.into());
    }
    // Read before the wait, and sent from the copy at each look.
    let mut text = vec![0; len];
    t.mm().read_bytes(message, &mut text)?;
    let wait = Wait::restarting("wq_sleep", Restart::Sys).until(deadline);
    let look = |_: &mut CurrentTask| Blocking::ByFlags.look(&f, queue.send(&text, priority));
    let sent = t.wait_for(&(&*f, PollEvents::WRITABLE), &wait, look).await;
    // The registration is used up by the message that finds an empty queue (mq_notify(3)).
    let notify = sent.map_err(|e| e.or_timed_out(Errno::ETIMEDOUT))??;
    if let Some((owner, Notification::Signal { signal, value })) = notify {
        send_to_process(&owner, SigInfo::queue(signal, SI_MESGQ, t.tgid(), t.creds().uid, value));
    }
    Ok(0)
}

async fn sys_mq_timedreceive(
    t: &mut CurrentTask,
    fd: Fd,
    message: UserAddr,
    len: usize,
    priority: UserPtr<u32>,
    until: UserPtr<Timespec>,
) -> SyscallResult {
    let deadline = read_deadline(t, until)?;
    let (f, queue) = queue_of(t, fd)?;
    f.check_readable()?;
    // A buffer has to take the longest message, whatever comes (mq_receive(3)).
    if len < queue.attributes.message_size {
        return Err(Errno::EMSGSIZE.into());
    }
    let wait = Wait::restarting("wq_sleep", Restart::Sys).until(deadline);
    let mut receiver = None;
    let look = |_: &mut CurrentTask| {
        let attempt = Blocking::ByFlags.look(&f, queue.receive());
        if attempt.is_pending() {
            // mq_notify(3) does not tell of a message that somebody waits for.
            receiver.get_or_insert_with(|| queue.await_message());
        }
        attempt
    };
    let received = t.wait_for(&(&*f, PollEvents::READABLE), &wait, look).await;
    // From here on nobody waits, and the next message is told.
    drop(receiver);
    let (text, sent_with) = received.map_err(|e| e.or_timed_out(Errno::ETIMEDOUT))??;
    if !priority.is_null() {
        t.mm().write(priority, &sent_with)?;
    }
    t.mm().write_bytes(message, &text)?;
    Ok(text.len() as u64)
}

fn sys_mq_notify(t: &mut CurrentTask, fd: Fd, event: UserPtr<Sigevent>) -> SyscallResult {
    let event = if event.is_null() { None } else { Some(t.mm().read(event)?) };
    let how = match event {
        None => None,
        Some(e) => Some(match e.sigev_notify {
            SIGEV_NONE => Notification::Nothing,
            SIGEV_SIGNAL => {
                Notification::Signal { signal: Signal::new(e.sigev_signo).ok_or(Errno::EINVAL)?, value: e.sigev_value }
            }
            _ => return Err(Errno::EINVAL.into()),
        }),
    };
    let (_, queue) = queue_of(t, fd)?;
    match how {
        Some(how) => queue.register(&t.group, how)?,
        None => queue.unregister(&t.group),
    }
    Ok(0)
}

fn sys_mq_getsetattr(t: &mut CurrentTask, fd: Fd, new: UserPtr<MqAttr>, old: UserPtr<MqAttr>) -> SyscallResult {
    let nonblock = i64::from(OpenFlags::NONBLOCK.bits());
    let new = if new.is_null() { None } else { Some(t.mm().read(new)?) };
    if new.is_some_and(|a| a.mq_flags & !nonblock != 0) {
        return Err(Errno::EINVAL.into());
    }
    let (f, queue) = queue_of(t, fd)?;
    let flags = f.flags();
    let number = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    // Before the change, as the caller asks for what was.
    let before = MqAttr {
        mq_flags: i64::from((flags & OpenFlags::NONBLOCK).bits()),
        mq_maxmsg: number(queue.attributes.max_messages),
        mq_msgsize: number(queue.attributes.message_size),
        mq_curmsgs: number(queue.len()),
        reserved: [0; 4],
    };
    if let Some(a) = new {
        let mut changed = flags;
        changed.set(OpenFlags::NONBLOCK, a.mq_flags != 0);
        f.set_flags(changed);
    }
    if !old.is_null() {
        t.mm().write(old, &before)?;
    }
    Ok(0)
}
