//! [`Births`]: clones under way. What a clone has made is for the host to say, not for its parent.
//!
//! A clone is announced, then let through by the filter's listener (*allowed*), and ends in one of two ways: a new thread
//! reports with the clone's number and is known from then on, or a *census* has found that there is no such thing. A
//! parent may say that its clone failed when it did not, or say nothing; its child may never report. So whenever an
//! allowed clone ends without a child, or is not settled after [`PERIOD`], the processes of the sandbox are counted, and
//! those that nobody knows are killed: all of them if no clone is open, else those that have used more CPU time than it takes to
//! report ([`MOST_CPU_NS`]). The host may keep an honest child from running for as long as it wants.
//!
//! Only who presents a number that was announced to a parent whose clone was let through, and is not known already, is a new
//! child; that it is the first thread of its process (or a thread of its parent's) the host says.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moat_abi::clone::WaitFlags;
use moat_abi::{Errno, Result};
use moat_host::procfs;
use moat_host::wait::{WaitTarget, waitid};
use moat_sync::{LockClass, Mutex};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, pidfd_open, pidfd_send_signal};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};

/// How long a clone may be open before somebody looks.
const PERIOD: Duration = Duration::from_millis(100);
/// CPU time that no honest child needs to report, in nanoseconds.
const MOST_CPU_NS: u64 = 20_000_000;

/// A clone that was ordered and whose child has not reported yet; `T` is what the platform knows of it.
pub struct Pending<T> {
    /// What is made.
    pub kind: Birth,
    /// Who makes it, and with what.
    pub of: T,
    stage: CloneStage,
}

/// How far a clone is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CloneStage {
    /// The parent has been told to make it.
    Announced,
    /// The listener has let it through: there may be a child.
    Allowed,
    /// The parent says that it was made.
    Told,
}

/// What a clone makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Birth {
    /// A process.
    Process,
    /// A thread of the parent's process.
    Thread,
}

/// See the module's documentation.
pub struct Births<T> {
    table: Mutex<Table<T>>,
    /// Runs out when a census is due. `None` where the process table is not the sandbox's own, as in a test.
    clock: Option<OwnedFd>,
    /// The clock is set.
    due: AtomicBool,
}

struct Table<T> {
    pending: HashMap<u32, Pending<T>>,
    /// Children that have been taken off `pending` and are not known yet.
    reporting: usize,
    /// Those that were open when somebody last looked.
    old: Vec<u32>,
    /// There may be a process that nobody knows, whatever is open.
    suspicion: bool,
}

/// What there is to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// Clones are open, none of them for long.
    Later,
    Census,
}

impl<T> Births<T> {
    /// No clone is under way.
    ///
    /// # Errors
    /// EMFILE.
    pub fn new() -> Result<Births<T>> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        // Only in a pid namespace of its own is whoever nobody knows a stranger.
        let own_table = getpid().is_init();
        let clock = own_table.then(|| timerfd_create(TimerfdClockId::Monotonic, flags)).transpose()?;
        let table = Table { pending: HashMap::new(), reporting: 0, old: Vec::new(), suspicion: false };
        let table = Mutex::new(LockClass::Platform, table);
        Ok(Births { table, clock, due: AtomicBool::new(false) })
    }

    /// Readable when [`Births::look`] is due.
    pub fn clock(&self) -> Option<&OwnedFd> {
        self.clock.as_ref()
    }

    /// Announces a clone; the child must give the number back.
    ///
    /// # Errors
    /// EAGAIN if the host has no random numbers.
    pub fn announce(&self, kind: Birth, of: T) -> Result<u32> {
        loop {
            let mut bytes = [0; 4];
            if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())? != bytes.len() {
                return Err(Errno::EAGAIN);
            }
            // Random, so that a guest thread can't report as the child of another's clone by counting.
            let token = u32::from_ne_bytes(bytes);
            let mut table = self.table.lock();
            if token != 0 && !table.pending.contains_key(&token) {
                table.pending.insert(token, Pending { kind, of, stage: CloneStage::Announced });
                return Ok(token);
            }
        }
    }

    /// Moves a clone on.
    pub fn reached(&self, token: u32, stage: CloneStage) {
        if let Some(pending) = self.table.lock().pending.get_mut(&token) {
            // The parent's word and the listener's come in either order.
            pending.stage = pending.stage.max(stage);
        }
        if stage == CloneStage::Allowed {
            self.set_clock();
        }
    }

    /// The clone whose child reports, if there can be one. To be followed by [`Births::reported`].
    ///
    /// # Errors
    /// ESRCH.
    pub fn report(&self, token: u32) -> Result<Pending<T>> {
        let mut table = self.table.lock();
        // Who knows the number of a clone that was not let through is no child of it.
        let allowed = table.pending.get(&token).is_some_and(|pending| pending.stage >= CloneStage::Allowed);
        let pending = if allowed { table.pending.remove(&token) } else { None };
        table.reporting = table.reporting.saturating_add(usize::from(pending.is_some()));
        pending.ok_or(Errno::ESRCH)
    }

    /// The child that has reported is known, or dead.
    pub fn reported(&self) {
        let mut table = self.table.lock();
        table.reporting = table.reporting.saturating_sub(1);
    }

    /// Withdraws an announcement; gives back what it was if the child has not reported.
    pub fn withdraw(&self, token: u32) -> Option<Pending<T>> {
        let pending = self.table.lock().pending.remove(&token)?;
        if pending.may_have_made_a_process() {
            self.suspect();
        }
        Some(pending)
    }

    /// There may be a process that nobody knows.
    pub fn suspect(&self) {
        self.table.lock().suspicion = true;
        self.set_clock();
    }

    fn set_clock(&self) {
        if let Some(clock) = &self.clock
            // Set once for any number of clones: a program that forks all the time pays for ten looks a second.
            && !self.due.swap(true, Ordering::AcqRel)
        {
            let it_value = Timespec { tv_sec: 0, tv_nsec: i64::from(PERIOD.subsec_nanos()) };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value };
            // Nothing that it could fail with: the descriptor is a timer, the time is one.
            let _ = timerfd_settime(clock, TimerfdTimerFlags::empty(), &once);
        }
    }

    /// Whether no process can be there that is not known yet.
    fn is_settled(&self) -> bool {
        let table = self.table.lock();
        table.reporting == 0 && !table.pending.values().any(Pending::may_have_made_a_process)
    }

    /// Processes that were made by their parents' word and have not reported.
    fn told(&self) -> Vec<u32> {
        let table = self.table.lock();
        let told = table.pending.iter().filter(|(_, p)| p.kind == Birth::Process && p.stage == CloneStage::Told);
        told.map(|(token, _)| *token).collect()
    }

    fn what_is_due(&self) -> Due {
        let mut table = self.table.lock();
        let open = table.pending.iter().filter(|(_, pending)| pending.may_have_made_a_process());
        let open: Vec<u32> = open.map(|(token, _)| *token).collect();
        // Open at two looks in a row is open for a period at least; a number is never used twice while it is open.
        let old = std::mem::replace(&mut table.old, open);
        if std::mem::take(&mut table.suspicion) || table.old.iter().any(|token| old.contains(token)) {
            Due::Census
        } else if table.old.is_empty() {
            Due::Nothing
        } else {
            Due::Later
        }
    }

    /// Looks whether clones have been open for long, or have ended in no child; makes a census then. Gives those whose
    /// child has ended before it could report.
    pub fn look(&self, is_known: &dyn Fn(i32) -> bool) -> Vec<T> {
        self.due.store(false, Ordering::Release);
        match self.what_is_due() {
            Due::Nothing => Vec::new(),
            Due::Later => {
                self.set_clock();
                Vec::new()
            }
            Due::Census => self.census(is_known),
        }
    }

    /// Compares the host's processes with those that the sentry knows, and kills the others.
    fn census(&self, is_known: &dyn Fn(i32) -> bool) -> Vec<T> {
        let told = self.told();
        let mut strangers = false;
        for pid in procfs::processes() {
            if pid != getpid().as_raw_pid() && !is_known(pid) {
                strangers |= self.look_at_stranger(is_known, pid);
            }
        }
        // Whatever was made before the count has ended, if there is nobody left.
        let told = if strangers { Vec::new() } else { told };
        let gone = told.into_iter().filter_map(|token| self.withdraw(token)).map(|pending| pending.of).collect();
        if strangers {
            self.suspect();
        } else if !self.is_settled() {
            self.set_clock();
        }
        gone
    }

    /// True if there is a process `pid` that is not known.
    fn look_at_stranger(&self, is_known: &dyn Fn(i32) -> bool, pid: i32) -> bool {
        let Some(pidfd) = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            return false;
        };
        // The order matters: it lived when the table was looked at, so that with no clone open it is nobody's, unless
        // it has become known by then.
        let settled = self.is_settled();
        if is_known(pid) {
            return false;
        }
        if settled || procfs::cpu_time_ns(pid).is_some_and(|used| used > MOST_CPU_NS) {
            let _ = pidfd_send_signal(&pidfd, Signal::KILL);
        }
        // Nobody else waits for it.
        let ended = waitid(WaitTarget::Pidfd(pidfd.as_fd()), WaitFlags::EXITED | WaitFlags::NOHANG | WaitFlags::ALL);
        !matches!(ended, Ok(Some(_)))
    }
}

impl<T> Pending<T> {
    fn may_have_made_a_process(&self) -> bool {
        self.kind == Birth::Process && self.stage >= CloneStage::Allowed
    }
}
