//! Message queues: [`Queues`] of a namespace.

mod persist;

use std::collections::VecDeque;
use std::sync::Arc;

use moat_abi::cap::Cap;
use moat_abi::ipc::{MSG_COPY, MSG_EXCEPT, MSG_NOERROR, MSGMAX, MSGMNB, MSGMNI, Msqid64Ds};
use moat_abi::{Errno, PollEvents, Result};
use moat_identity::{Setting, UserNamespace};
use moat_sync::{LockClass, Mutex, WaitQueue};
use moat_vfs::cred::Credentials;

use crate::now;
use crate::registry::{Entry, Found, READ, Registry, Stat, WRITE};

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its type, above zero.
    pub kind: i64,
    /// Its bytes.
    pub text: Vec<u8>,
}

/// What msgrcv(2) asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The `msgtyp` argument.
    pub kind: i64,
    /// Bytes that there is room for.
    pub len: usize,
    /// MSG_NOERROR, MSG_EXCEPT, MSG_COPY.
    pub flags: i32,
}

impl Wanted {
    fn has(&self, flag: i32) -> bool {
        self.flags & flag != 0
    }
}

struct Queue {
    messages: VecDeque<Message>,
    bytes: u64,
    max_bytes: u64,
    stime: i64,
    rtime: i64,
    ctime: i64,
    lspid: i32,
    lrpid: i32,
    /// IN: a message came; OUT: room came; all: the queue is gone.
    waiters: Arc<WaitQueue>,
}

impl Queue {
    /// The place of the message to take (`find_msg`).
    fn find(&self, wanted: &Wanted) -> Option<usize> {
        if wanted.has(MSG_COPY) {
            // A position, not a type.
            return usize::try_from(wanted.kind).ok().filter(|at| *at < self.messages.len());
        }
        if wanted.kind == 0 {
            return (!self.messages.is_empty()).then_some(0);
        }
        if wanted.kind > 0 {
            let except = wanted.has(MSG_EXCEPT);
            return self.messages.iter().position(|m| (m.kind == wanted.kind) != except);
        }
        // LONG_MIN has no negation: any type will do, as on Linux.
        let highest = wanted.kind.checked_neg().unwrap_or(i64::MAX);
        let all = self.messages.iter().enumerate().filter(|(_, m)| m.kind <= highest);
        // Of equal types the eldest.
        all.min_by_key(|(_, m)| m.kind).map(|(at, _)| at)
    }
}

/// The sums that MSG_INFO shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Queues.
    pub queues: usize,
    /// Messages in all of them.
    pub messages: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// The message queues of a namespace.
pub struct Queues {
    registry: Mutex<Registry<Queue>>,
    /// Most bytes of a message (`kernel.msgmax`).
    pub max_message: Setting,
    /// Most bytes in a new queue (`kernel.msgmnb`).
    pub max_queue: Setting,
    /// Most queues (`kernel.msgmni`).
    pub max_count: Setting,
}

impl Queues {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.registry.lock().count() == 0
    }

    /// A namespace without queues, owned by `user_ns`.
    #[must_use]
    pub fn new(user_ns: Arc<UserNamespace>) -> Queues {
        let setting = |value: i32, most: u64| Setting::new(value.unsigned_abs().into(), 0, most);
        Queues {
            registry: Mutex::new(LockClass::Table, Registry::new(usize::try_from(MSGMNI).unwrap_or(0), user_ns)),
            // What the sentry allocates for a message at a time is bounded.
            max_message: setting(MSGMAX, 1 << 20),
            max_queue: setting(MSGMNB, 1 << 26),
            max_count: setting(MSGMNI, 32768),
        }
    }
}

fn show(entry: &Entry<Queue>) -> Msqid64Ds {
    let q = &entry.object;
    Msqid64Ds {
        msg_perm: entry.perm.show(),
        msg_stime: q.stime,
        msg_rtime: q.rtime,
        msg_ctime: q.ctime,
        msg_cbytes: q.bytes,
        msg_qnum: u64::try_from(q.messages.len()).unwrap_or(u64::MAX),
        msg_qbytes: q.max_bytes,
        msg_lspid: q.lspid,
        msg_lrpid: q.lrpid,
        ..Msqid64Ds::default()
    }
}

fn len_u64(text: &[u8]) -> u64 {
    u64::try_from(text.len()).unwrap_or(u64::MAX)
}

impl Queues {
    /// msgget(2).
    ///
    /// # Errors
    /// ENOSPC for the limit; those of [`Registry::find`].
    pub fn get(&self, key: i32, flags: i32, creds: &Credentials) -> Result<i32> {
        let mut registry = self.registry.lock();
        if let Found::Existing(id) = registry.find(key, flags, creds, |_| Ok(()))? {
            return Ok(id);
        }
        // At this point, as the setting may have changed.
        registry.set_capacity(self.max_count.get());
        registry.add(key, flags, creds, 0, |_| Queue {
            messages: VecDeque::new(),
            bytes: 0,
            max_bytes: self.max_queue.get(),
            stime: 0,
            rtime: 0,
            ctime: now(),
            lspid: 0,
            lrpid: 0,
            waiters: Arc::new(WaitQueue::new()),
        })
    }

    /// Where to wait for a message (IN), for room (OUT), and for the end of the queue.
    ///
    /// # Errors
    /// EINVAL.
    pub fn waiters(&self, id: i32) -> Result<Arc<WaitQueue>> {
        Ok(self.registry.lock().get(id)?.object.waiters.clone())
    }

    /// Sends a message, which is left in place if that fails.
    ///
    /// # Errors
    /// EAGAIN without room; EINVAL, EACCES.
    pub fn send(&self, id: i32, message: &mut Option<Message>, creds: &Credentials, pid: i32) -> Result<()> {
        let waiters = {
            let mut registry = self.registry.lock();
            let entry = registry.get_mut(id)?;
            entry.perm.check(creds, WRITE)?;
            let queue = &mut entry.object;
            let len = len_u64(&message.as_ref().ok_or(Errno::EINVAL)?.text);
            let count = u64::try_from(queue.messages.len()).unwrap_or(u64::MAX);
            // Messages without bytes count too, or there would be no end to them.
            if len.saturating_add(queue.bytes) > queue.max_bytes || count >= queue.max_bytes {
                return Err(Errno::EAGAIN);
            }
            queue.messages.extend(message.take());
            queue.bytes += len;
            queue.lspid = pid;
            queue.stime = now();
            queue.waiters.clone()
        };
        waiters.wake(PollEvents::IN);
        Ok(())
    }

    /// Takes a message, or a copy with MSG_COPY, cut to the room that there is.
    ///
    /// # Errors
    /// EAGAIN without one; E2BIG if it is too long and MSG_NOERROR is not set; EINVAL, EACCES.
    pub fn receive(&self, id: i32, wanted: &Wanted, creds: &Credentials, pid: i32) -> Result<Message> {
        let (mut message, waiters) = {
            let mut registry = self.registry.lock();
            let entry = registry.get_mut(id)?;
            entry.perm.check(creds, READ)?;
            let queue = &mut entry.object;
            let at = queue.find(wanted).ok_or(Errno::EAGAIN)?;
            let found = queue.messages.get(at).ok_or(Errno::EAGAIN)?;
            // It stays in the queue: a receiver with more room may take it.
            if found.text.len() > wanted.len && !wanted.has(MSG_NOERROR) {
                return Err(Errno::E2BIG);
            }
            if wanted.has(MSG_COPY) {
                (found.clone(), None)
            } else {
                let message = queue.messages.remove(at).ok_or(Errno::EAGAIN)?;
                queue.bytes = queue.bytes.saturating_sub(len_u64(&message.text));
                queue.lrpid = pid;
                queue.rtime = now();
                (message, Some(queue.waiters.clone()))
            }
        };
        if let Some(w) = waiters {
            // With the registry unlocked: who waits for room looks at it.
            w.wake(PollEvents::OUT);
        }
        message.text.truncate(wanted.len);
        Ok(message)
    }

    /// IPC_STAT and its like: the id and the state.
    ///
    /// # Errors
    /// EINVAL, EACCES.
    pub fn stat(&self, id: i32, how: Stat, creds: &Credentials) -> Result<(i32, Msqid64Ds)> {
        let registry = self.registry.lock();
        let entry = registry.stat(id, how, creds)?;
        Ok((entry.id(), show(entry)))
    }

    /// IPC_SET: owner, permissions, and the limit of bytes, which only CAP_SYS_RESOURCE raises above the default.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn set(&self, id: i32, new: &Msqid64Ds, creds: &Credentials) -> Result<()> {
        let waiters = {
            let mut registry = self.registry.lock();
            let entry = registry.get_mut(id)?;
            entry.perm.check_control(creds)?;
            if new.msg_qbytes > self.max_queue.get() && !creds.has_root_cap(Cap::SYS_RESOURCE) {
                return Err(Errno::EPERM);
            }
            entry.perm.set(&new.msg_perm)?;
            entry.object.max_bytes = new.msg_qbytes;
            entry.object.ctime = now();
            entry.object.waiters.clone()
        };
        // Permissions or room may be other than those who wait saw.
        waiters.wake_all();
        Ok(())
    }

    /// IPC_RMID: those who wait get EIDRM.
    ///
    /// # Errors
    /// EINVAL, EPERM.
    pub fn remove(&self, id: i32, creds: &Credentials) -> Result<()> {
        let removed = self.registry.lock().remove_by(id, creds)?;
        removed.object.waiters.wake_all();
        Ok(())
    }

    /// The sums, and the highest index in use.
    #[must_use]
    pub fn usage(&self) -> (Usage, u32) {
        let registry = self.registry.lock();
        let mut usage = Usage { queues: registry.count(), ..Usage::default() };
        for entry in registry.iter() {
            usage.messages += entry.object.messages.len();
            usage.bytes = usage.bytes.saturating_add(entry.object.bytes);
        }
        (usage, registry.highest_index())
    }

    /// All queues, for `/proc/sysvipc/msg`.
    #[must_use]
    pub fn snapshot(&self) -> Vec<(i32, Msqid64Ds)> {
        self.registry.lock().iter().map(|e| (e.id(), show(e))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_chosen_by_type() {
        let root = Credentials::root(moat_identity::UserNamespace::root());
        let q = Queues::new(UserNamespace::root());
        let id = q.get(0, 0o600, &root).unwrap();
        for (kind, text) in [(3, "three"), (2, "two"), (7, "seven"), (2, "again")] {
            let mut m = Some(Message { kind, text: text.into() });
            q.send(id, &mut m, &root, 1).unwrap();
            assert_eq!(m, None);
        }
        let take = |kind, len, flags| {
            q.receive(id, &Wanted { kind, len, flags }, &root, 1).map(|m| String::from_utf8(m.text).unwrap())
        };
        assert_eq!(take(1, 9, MSG_COPY).unwrap(), "two");
        assert_eq!(take(-3, 9, 0).unwrap(), "two");
        assert_eq!(take(2, 2, 0), Err(Errno::E2BIG));
        assert_eq!(take(2, 2, MSG_NOERROR).unwrap(), "ag");
        assert_eq!(take(3, 9, MSG_EXCEPT).unwrap(), "seven");
        assert_eq!(take(4, 9, 0), Err(Errno::EAGAIN));
        assert_eq!(take(i64::MIN, 9, 0).unwrap(), "three");
        assert_eq!(q.usage().0, Usage { queues: 1, ..Usage::default() });
    }

    #[test]
    fn a_queue_holds_only_so_much() {
        let root = Credentials::root(moat_identity::UserNamespace::root());
        let q = Queues::new(UserNamespace::root());
        let id = q.get(0, 0o600, &root).unwrap();
        let send = || q.send(id, &mut Some(Message { kind: 1, text: vec![0; 8192] }), &root, 1);
        assert_eq!((send(), send(), send()), (Ok(()), Ok(()), Err(Errno::EAGAIN)));
    }
}
