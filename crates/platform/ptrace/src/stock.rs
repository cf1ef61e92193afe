//! The platform's [`Stock`]s: the tracer's pool, and those whose template is a process of that.
//!
//! The template of a later stock is a blank process that never runs application code; what is asked for is forked from
//! it then. Guest processes share nothing but their descriptor 0, which no guest code can use.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::Arc;

use moat_abi::{Errno, Result};
use moat_platform::{Made, NewProcess, Stock};
use moat_sync::async_mutex::AsyncMutex;
use moat_sync::{LockClass, Mutex};

use crate::command::Shared;

/// The stock that the tracer fills.
pub(crate) struct FirstStock(pub Arc<Shared>);

impl Stock for FirstStock {
    fn new_process(&self) -> Made<'_, NewProcess> {
        Box::pin(std::future::poll_fn(|cx| self.0.poll_blank(cx)))
    }

    fn template(&self) -> Result<OwnedFd> {
        // The tracer's own, which nobody can hold on to.
        Err(Errno::EOPNOTSUPP)
    }

    /// It lasts as long as the tracer.
    fn close(&self) {}
}

/// A stock with a template of its own.
pub(crate) struct ForkingStock {
    /// Held by who uses the template.
    turn: AsyncMutex,
    template: Mutex<Template>,
}

enum Template {
    Ready(NewProcess),
    /// Whoever has the turn uses it; its process id.
    InUse(i32),
    Closed,
}

impl ForkingStock {
    /// With `template`, which nobody uses.
    pub fn new(template: NewProcess) -> ForkingStock {
        ForkingStock { turn: AsyncMutex::new(), template: Mutex::new(LockClass::Platform, Template::Ready(template)) }
    }

    /// Takes the template, with the turn.
    fn take(&self) -> Result<NewProcess> {
        let mut slot = self.template.lock();
        let Template::Ready(template) = &*slot else { return Err(Errno::ESRCH) };
        let in_use = Template::InUse(template.space.host_pid());
        match std::mem::replace(&mut *slot, in_use) {
            Template::Ready(template) => Ok(template),
            Template::InUse(_) | Template::Closed => Err(Errno::ESRCH),
        }
    }

    /// Puts it back, unless the stock was closed meanwhile; it ends then.
    fn put_back(&self, template: NewProcess) {
        let mut slot = self.template.lock();
        if matches!(*slot, Template::InUse(_)) {
            *slot = Template::Ready(template);
        } else {
            drop(slot);
            drop(template);
        }
    }
}

impl Stock for ForkingStock {
    fn new_process(&self) -> Made<'_, NewProcess> {
        Box::pin(async {
            let _turn = self.turn.lock().await;
            // Who gives up in the middle takes the template along: it can't be told to fork again.
            let mut template = self.take()?;
            let made = std::future::poll_fn(|cx| template.thread.poll_fork(cx)).await;
            self.put_back(template);
            made
        })
    }

    fn template(&self) -> Result<OwnedFd> {
        let slot = self.template.lock();
        let pid = match &*slot {
            Template::Ready(template) => template.space.host_pid(),
            Template::InUse(pid) => *pid,
            Template::Closed => return Err(Errno::ESRCH),
        };
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(moat_host::last_errno)?;
        // SAFETY: a new descriptor that nobody else knows.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    fn close(&self) {
        let old = std::mem::replace(&mut *self.template.lock(), Template::Closed);
        drop(old);
    }
}
