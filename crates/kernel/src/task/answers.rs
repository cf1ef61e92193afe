//! What a task's calls give that the sentry need not be asked for: its ids, told to the platform beforehand; and whether the host may carry
//! out what concerns futexes of the process's own, and sched_yield(2).
//!
//! The owner publishes them before it enters the guest, if they are stale. Whoever changes what they depend on says so afterwards
//! by [`Task::ask_again`], which takes back those of a task that is in the guest. A call that begins later finds the change: the
//! owner looks whether its answers have become stale once more after it has written them.
//!
//! There are none for a task whose calls others are to see: a tracer, a filter that does not always allow the call, the strace
//! log, a monitor, a trace of the sandbox. The counters of `metrics.rs` do not see answered calls.

use std::sync::atomic::{AtomicBool, Ordering};

use moat_platform::{ANSWERABLE, Answers};
use moat_sync::trace;

use crate::kernel::Kernel;
use crate::seccomp;
use crate::task::{CurrentTask, Task};

/// Whether what was published may not hold any more.
pub(crate) struct Stale(AtomicBool);

impl Default for Stale {
    fn default() -> Stale {
        Stale(AtomicBool::new(true))
    }
}

impl Task {
    /// Something has changed that the answers to its calls depend on, or whether it may have any.
    pub(crate) fn ask_again(&self) {
        // Before they are taken back: the task may just be writing others.
        self.answers.0.store(true, Ordering::SeqCst);
        if let Some(kicker) = self.kicker() {
            kicker.forget();
        }
    }
}

impl Kernel {
    /// Changes who wants to know of calls, and gives what `change` does. No call that begins later goes unseen by those who do.
    pub fn change_watchers<R>(&self, change: impl FnOnce(&Kernel) -> R) -> R {
        let changed = change(self);
        self.tasks.all().iter().for_each(|task| task.ask_again());
        changed
    }

    /// Whether no call may go unseen.
    fn sees_all_calls(&self) -> bool {
        self.is_watched() || trace::is_observed()
    }
}

impl CurrentTask {
    /// The id of the parent process, 0 if that is outside the pid namespace.
    #[must_use]
    pub fn parent_pid(&self) -> i32 {
        self.group.parent().map_or(0, |parent| parent.pid().number_in(&self.pid_ns()))
    }

    /// Tells the platform what calls give, if that has changed.
    pub(super) fn publish_answers(&mut self) {
        while self.answers.0.load(Ordering::Relaxed) && self.answers.0.swap(false, Ordering::SeqCst) {
            let answers = self.answers();
            self.thread().publish(&answers);
        }
    }

    fn answers(&self) -> Answers {
        if self.task().traced.load(Ordering::Relaxed) || self.kernel().sees_all_calls() {
            return Answers::default();
        }
        let unseen = [moat_abi::nr::FUTEX, moat_abi::nr::SCHED_YIELD];
        let host_calls = unseen.into_iter().all(|nr| seccomp::always_allows(self, nr));
        Answers { ids: ANSWERABLE.map(|nr| self.answer(nr)), host_calls }
    }

    fn answer(&self, nr: u32) -> Option<u32> {
        if !seccomp::always_allows(self, nr) {
            return None;
        }
        let pid = |pid: i32| u32::try_from(pid).ok();
        let creds = self.creds();
        // An id that the namespace has no number for may yet get one: its map can still be written.
        match nr {
            moat_abi::nr::GETPID => pid(self.tgid()),
            moat_abi::nr::GETTID => pid(self.tid()),
            moat_abi::nr::GETPPID => pid(self.parent_pid()),
            moat_abi::nr::GETUID => creds.user_ns.find_uid(creds.uid),
            moat_abi::nr::GETEUID => creds.user_ns.find_uid(creds.euid),
            moat_abi::nr::GETGID => creds.user_ns.find_gid(creds.gid),
            moat_abi::nr::GETEGID => creds.user_ns.find_gid(creds.egid),
            _ => None,
        }
    }
}
